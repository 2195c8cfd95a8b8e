//! Routes that the kernel refused, and when they are tried again.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, RouteId};

/// A route is tried again after 1 round of [`Plan::retry`], then after 2, 4 and so on up to
/// this many: a minute, if rounds are 250 ms apart.
const LONGEST: u64 = 256;

/// When a refused route is tried again.
#[derive(Clone, Copy)]
struct Next {
    round: u64,
    /// Rounds until then.
    pause: u64,
}

/// Refused routes, each with a pause that doubles.
#[derive(Default)]
pub(super) struct Refused {
    round: u64,
    routes: BTreeMap<RouteId, Next>,
    due: BTreeSet<(u64, RouteId)>,
    /// Pauses of the routes that are being tried again.
    trying: BTreeMap<RouteId, u64>,
}

impl Refused {
    /// Adds a route that was refused, perhaps once more.
    pub(super) fn insert(&mut self, id: RouteId) {
        self.remove_waiting(id);
        let before = self.trying.remove(&id);
        let pause = before.map_or(1, |pause| (pause * 2).min(LONGEST));
        let round = self.round + pause;
        self.routes.insert(id, Next { round, pause });
        self.due.insert((round, id));
    }

    /// Removes a route that changed or was installed. Returns whether it waited.
    pub(super) fn remove(&mut self, id: RouteId) -> bool {
        self.trying.remove(&id);
        self.remove_waiting(id)
    }

    fn remove_waiting(&mut self, id: RouteId) -> bool {
        let next = self.routes.remove(&id);
        if let Some(next) = next {
            self.due.remove(&(next.round, id));
        }
        next.is_some()
    }

    /// Keeps only some of the routes; how long the pauses of the others were is forgotten.
    pub(super) fn retain(&mut self, stays: impl Fn(RouteId) -> bool) {
        self.routes.retain(|&id, _| stays(id));
        self.trying.retain(|&id, _| stays(id));
        self.due.retain(|&(_, id)| stays(id));
    }

    pub(super) fn contains(&self, id: RouteId) -> bool {
        self.routes.contains_key(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Forgets all routes that wait, but not how long those pauses were.
    pub(super) fn release_all(&mut self) {
        for (id, next) in std::mem::take(&mut self.routes) {
            self.trying.insert(id, next.pause);
        }
        self.due.clear();
    }

    /// Takes a route that is due in this round.
    fn take_due(&mut self) -> Option<RouteId> {
        let &(round, id) = self.due.first()?;
        if round > self.round {
            return None;
        }
        let pause = self.routes.get(&id).map_or(1, |next| next.pause);
        self.remove_waiting(id);
        self.trying.insert(id, pause);
        Some(id)
    }
}

impl Plan {
    /// Plans refused routes again whose pause is over, at most `limit`; begins a new round.
    pub(crate) fn retry(&mut self, limit: usize) {
        self.refused.round += 1;
        self.strays.retry();
        for _ in 0..limit {
            let Some(id) = self.refused.take_due() else {
                return;
            };
            if self.store.get(id).is_some() {
                self.enqueue(id);
            }
        }
    }

    /// Plans all refused routes again, whatever their pause.
    #[cfg(test)]
    pub(crate) fn retry_all(&mut self) {
        self.refused.round += LONGEST;
        self.retry(usize::MAX);
    }

    /// Whether there is something that [`Self::retry`] does.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty() || self.strays.has_refused()
    }
}
