//! Routes that come to be shared, or cease to be, between two times that changes are handed out.
//!
//! Such a change is for a single peer. Among the changes for everybody it would cut the log into
//! pieces, for every subscriber; one for everybody must not overtake it either. So nothing of
//! such a route is logged until changes are handed out, and then what they amount to:
//!
//! ```text
//! holders before -> after    in the log
//! none      -> a             ADD, all but a
//! none      -> several       ADD, all
//! a         -> none          REMOVE, all but a
//! a         -> b             REMOVE, only b; ADD, only a
//! a         -> several       ADD, only a
//! several   -> none          REMOVE, all
//! several   -> b             REMOVE, only b
//! ```

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::Mark;
use super::routes::{Holders, State};
use crate::core::types::{Action, Route};

/// Routes of which nothing is logged until changes are handed out, as they were.
#[derive(Debug)]
pub(super) struct Contested {
    before: HashMap<Route, State, FixedState>,
}

impl Contested {
    /// `hasher` keeps peers from choosing colliding routes.
    pub(super) fn new(hasher: &FixedState) -> Self {
        Self {
            before: HashMap::with_hasher(hasher.clone()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.before.len()
    }

    pub(super) fn contains(&self, route: &Route) -> bool {
        self.before.contains_key(route)
    }

    /// Adds a route that was as the log says; one that is there stays.
    pub(super) fn add(&mut self, route: &Route, before: State) {
        self.before.entry(*route).or_insert(before);
    }

    /// The routes as they were, in no order that a peer could choose.
    pub(super) fn into_routes(self) -> Vec<(Route, State)> {
        self.before.into_iter().collect()
    }

    /// Returns the bytes that it has allocated, with itself.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.before.allocation_size()
    }
}

/// What a log has to say when the holders of a route change.
pub(super) fn difference(before: Holders, after: Holders) -> impl Iterator<Item = (Mark, Action)> {
    use Holders::{Nobody, One, Several};
    let (ends, begins) = match (before, after) {
        (Nobody, Nobody) | (Several, Several) => (None, None),
        (Nobody, One(a)) => (None, Some(Mark::AllBut(a))),
        (Nobody, Several) => (None, Some(Mark::All)),
        (One(a), Nobody) => (Some(Mark::AllBut(a)), None),
        (One(a), One(b)) if a == b => (None, None),
        (One(a), One(b)) => (Some(Mark::Only(b)), Some(Mark::Only(a))),
        (One(a), Several) => (None, Some(Mark::Only(a))),
        (Several, Nobody) => (Some(Mark::All), None),
        (Several, One(b)) => (Some(Mark::Only(b)), None),
    };
    let ends = ends.map(|mark| (mark, Action::Remove));
    ends.into_iter()
        .chain(begins.map(|mark| (mark, Action::Add)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rib::PeerId;

    /// What a peer sees: the route, if somebody else holds it.
    fn sees(peer: PeerId, holders: Holders) -> bool {
        match holders {
            Holders::Nobody => false,
            Holders::One(a) => a != peer,
            Holders::Several => true,
        }
    }

    #[test]
    fn everybody_is_told_what_changes_for_him_and_nothing_else() {
        let [a, b, c] = [1, 2, 3].map(PeerId);
        let states = [
            Holders::Nobody,
            Holders::One(a),
            Holders::One(b),
            Holders::Several,
        ];
        for (before, after) in states.iter().flat_map(|it| states.map(|to| (*it, to))) {
            for peer in [a, b, c] {
                let heard = difference(before, after).filter(|(mark, _)| match *mark {
                    Mark::All => true,
                    Mark::AllBut(other) => peer != other,
                    Mark::Only(one) => peer == one,
                });
                let heard: Vec<Action> = heard.map(|it| it.1).collect();
                let expected = match (sees(peer, before), sees(peer, after)) {
                    (false, true) => vec![Action::Add],
                    (true, false) => vec![Action::Remove],
                    (false, false) | (true, true) => vec![],
                };
                assert_eq!(heard, expected, "{peer:?}: {before:?} -> {after:?}");
            }
        }
    }
}
