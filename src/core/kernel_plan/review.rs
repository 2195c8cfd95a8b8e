//! A reading of the kernel that goes on while the kernel is written to.
//!
//! What is believed stays believed. A route that is read as believed is confirmed; one that
//! nobody confirmed until the end is lost. What changed since the reading began, by a message
//! of ours or a notification, is left out: what is read of it may be older than the change.
//!
//! ```text
//! begin_review --> saw_* (objects) --> review_objects --> saw_* (routes) --> review_some ...
//!        ^ add, remove, batch, completed, *_changed in between ^
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::store::{BESIDE, DOUBTED};
use super::{Change, Family, Kind, NONE, Place, Plan, RouteId, Target, named};

/// A set of destinations; one bit each.
#[derive(Default)]
struct Ids([Vec<u64>; 2]);

impl Ids {
    fn at(id: RouteId) -> (usize, u64) {
        (id.at() / 64, 1 << (id.at() % 64))
    }

    fn contains(&self, id: RouteId) -> bool {
        let (word, bit) = Self::at(id);
        let words = &self.0[id.family() as usize];
        words.get(word).is_some_and(|it| it & bit != 0)
    }

    fn insert(&mut self, id: RouteId) {
        let (word, bit) = Self::at(id);
        let words = &mut self.0[id.family() as usize];
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
    }
}

/// What was read so far.
#[derive(Default)]
pub(super) struct Review {
    /// Destinations whose route was read as believed.
    seen: Ids,
    /// Destinations that changed since the reading began.
    touched: Ids,
    /// Destinations with another route of ours than believed, and all of theirs that were
    /// read, in the kernel's order.
    odd: BTreeMap<RouteId, Vec<Target>>,
    /// Routes of ours in places where none belongs.
    strays: Vec<(Place, u8, Target)>,
    /// Destinations where somebody else's route stands before ours.
    shadowed: BTreeSet<RouteId>,
    /// The place of the last route of somebody else.
    foreign: Option<Place>,
    /// Numbers of our objects that were read as believed.
    objects: BTreeSet<u32>,
    /// Numbers that somebody else uses.
    taken: BTreeSet<u32>,
    /// Somebody changed an object of ours.
    is_unclear: bool,
    /// How many destinations of each family were looked at in the end.
    done: [usize; 2],
}

/// What became of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is more to look at.
    More,
    /// All is as believed, or is planned.
    Done,
    /// Routes were lost: they wait in [`Plan::repair`].
    Lost,
    /// An object of ours is another one: the kernel is to be read from nothing.
    Unclear,
}

impl Plan {
    /// Begins a reading that keeps what is believed.
    pub(crate) fn begin_review(&mut self) {
        self.objects.watch();
        self.review = Some(Review::default());
    }

    /// Routes of a table follow, perhaps once more.
    pub(crate) fn begin_routes(&mut self) {
        self.foreign = None;
        if let Some(review) = &mut self.review {
            review.foreign = None;
        }
    }

    /// Returns whether a review runs.
    pub(crate) const fn is_reviewing(&self) -> bool {
        self.review.is_some()
    }

    /// Forgets what the running review has read.
    pub(super) fn abandon_review(&mut self) {
        self.review = None;
        self.objects.unwatch();
    }

    /// Notes that a destination changes while the kernel is read.
    pub(super) fn touch(&mut self, id: RouteId) {
        if let Some(review) = &mut self.review {
            review.touched.insert(id);
        }
    }

    /// Reads a single object or a group with our mark. Returns whether that was all; if not,
    /// nobody here knows the object.
    pub(super) fn review_object(&mut self, id: u32, is_as_believed: bool) -> bool {
        let Some(review) = &mut self.review else {
            return false;
        };
        if self.objects.has_changed(id) {
            return true;
        }
        if self.objects.by_id(id).is_none() {
            return false;
        }
        match is_as_believed {
            true => drop(review.objects.insert(id)),
            false => review.is_unclear = true,
        }
        true
    }

    /// Notes that somebody else uses a number.
    pub(super) fn review_taken(&mut self, id: u32) {
        if let Some(review) = &mut self.review {
            review.taken.insert(id);
        }
    }

    /// Whether an object that should be there was not read.
    pub(super) fn is_missing(&self, id: u32) -> bool {
        let seen = self.review.as_ref().map(|it| it.objects.contains(&id));
        seen == Some(false) && !self.objects.has_changed(id)
    }

    /// All objects were read: those that are missing are lost, and so are their routes.
    pub(crate) fn review_objects(&mut self) -> Change {
        let Some(review) = &mut self.review else {
            return Change::None;
        };
        self.objects.keep_taken(&std::mem::take(&mut review.taken));
        let slots: Vec<u32> = self.objects.slots().collect();
        let mut change = Change::None;
        for slot in slots {
            let id = self.objects.object(slot).id;
            if id != 0 && self.is_missing(id) {
                self.lost_objects.insert(slot);
                change = Change::Lost;
            }
        }
        change
    }

    /// Reads a route of ours. Returns whether that was all; if not, nobody here knows it.
    pub(super) fn review_route(&mut self, place: Place, protocol: u8, target: &Target) -> bool {
        let Some(review) = &self.review else {
            return false;
        };
        let position = self.position(&place);
        let known = position.and_then(|it| self.store.find(it, place.prefix));
        let belongs = position.is_some() && protocol == self.config.protocol;
        let state = known.and_then(|id| Some((id, self.store.get(id)?)));
        if belongs && state.is_none() {
            return false;
        }
        let is_behind = review.foreign == Some(place);
        let believed = state.and_then(|(_, state)| Some(self.target(named(state.installed)?)));
        let Some(review) = &mut self.review else {
            return true;
        };
        match state {
            Some((id, _)) if belongs => {
                if !review.touched.contains(id) {
                    review.saw(id, believed, target);
                    if is_behind {
                        review.shadowed.insert(id);
                    }
                }
            }
            _ => review.strays.push((place, protocol, target.clone())),
        }
        true
    }

    /// Reads a route of ours to an object of somebody else. Returns whether a review runs.
    pub(super) fn review_mislaid(&mut self, place: Place, protocol: u8, target: &Target) -> bool {
        let Some(review) = &mut self.review else {
            return false;
        };
        review.strays.push((place, protocol, target.clone()));
        true
    }

    /// Reads a route of somebody else. Returns whether a review runs.
    pub(super) fn review_foreign(&mut self, place: Place) -> bool {
        let destination = self.destination(place);
        let Some(review) = &mut self.review else {
            return false;
        };
        review.foreign = Some(place);
        if let Some(id) = destination
            && !review.seen.contains(id)
            && !review.touched.contains(id)
        {
            review.shadowed.insert(id);
        }
        true
    }

    /// All was read: looks at up to `limit` destinations, and in the end at what was read
    /// otherwise than believed.
    pub(crate) fn review_some(&mut self, limit: usize) -> Verdict {
        let Some(mut review) = self.review.take() else {
            return Verdict::Done;
        };
        let mut left = limit;
        for family in [Family::V4, Family::V6] {
            let done = &mut review.done[family as usize];
            let ids: Vec<RouteId> = self.store.ids_of(family).skip(*done).take(left).collect();
            *done += ids.len();
            left -= ids.len();
            for id in ids {
                self.judge(&review, id);
            }
        }
        if left == 0 {
            self.review = Some(review);
            return Verdict::More;
        }
        self.objects.unwatch();
        let is_unclear = review.is_unclear;
        self.judge_odd(review);
        match (is_unclear, self.lost.is_empty()) {
            (true, _) => Verdict::Unclear,
            (false, false) => Verdict::Lost,
            (false, true) => Verdict::Done,
        }
    }

    /// Compares what is believed of a destination with what was read.
    fn judge(&mut self, review: &Review, id: RouteId) {
        let Some(state) = self.store.get(id) else {
            return;
        };
        if state.desired == NONE && state.installed == NONE && !review.odd.contains_key(&id) {
            // Kept until here, because what was read of it might be older than its end.
            self.forget_if_empty(id);
            return;
        }
        if review.touched.contains(id) || review.odd.contains_key(&id) {
            return;
        }
        let is_lost = state.installed != NONE && !review.seen.contains(id);
        if is_lost {
            self.set_installed(id, NONE);
            self.lost.push(id);
        }
        match (self.shadowed.contains(&id), review.shadowed.contains(&id)) {
            (false, true) if self.wanted_hops(id, state) != NONE => self.shadow(id),
            (true, true) => self.store.state_mut(id).flags &= !DOUBTED,
            (true, false) => {
                self.shadowed.remove(&id);
                self.enqueue(id);
            }
            (false, _) => {}
        }
        if !is_lost && !self.in_sync(id, state) {
            self.enqueue(id);
        }
    }

    /// Plans what is there and should not be, or not in that way.
    fn judge_odd(&mut self, review: Review) {
        for (id, targets) in review.odd {
            let Some(state) = self.store.get(id) else {
                continue;
            };
            if review.touched.contains(id) || self.strays.waits_for(id) {
                continue;
            }
            let place = self.place(id, state);
            self.set_installed(id, NONE);
            self.store.state_mut(id).flags &= !BESIDE;
            for target in targets {
                if self.is_ours(&target) {
                    self.found_route(place, self.config.protocol, &target);
                }
            }
            match review.shadowed.contains(&id) {
                true => self.shadow(id),
                false => drop(self.shadowed.remove(&id)),
            }
            self.enqueue(id);
        }
        if review.strays.is_empty() && self.strays.ready.is_empty() {
            return;
        }
        let known = self.strays.known();
        for (place, protocol, target) in review.strays {
            let may_go = self.is_ours(&target) || self.is_mislaid(&target);
            if may_go && !known.contains(&(place, target.clone())) {
                self.saw_stray(place, protocol, &target);
            }
        }
        self.settle_strays();
    }

    /// Whether a group has the members that it should have, but for those that are lost.
    pub(super) fn has_members(&self, id: u32, members: &[u32]) -> bool {
        let Some(slot) = self.objects.by_id(id) else {
            return false;
        };
        let Kind::Group { members: believed } = &self.objects.object(slot).kind else {
            return false;
        };
        let believed = self.numbers(&self.present(believed)).into_iter();
        let believed: BTreeSet<u32> = believed.filter(|&it| !self.is_missing(it)).collect();
        believed == members.iter().copied().collect()
    }
}

impl Review {
    /// Notes a route of ours in the place of a destination.
    fn saw(&mut self, id: RouteId, believed: Option<Target>, target: &Target) {
        let is_as_believed = believed.as_ref() == Some(target);
        if is_as_believed && !self.odd.contains_key(&id) {
            self.seen.insert(id);
            return;
        }
        let first = believed.filter(|_| self.seen.contains(id));
        let all = self
            .odd
            .entry(id)
            .or_insert_with(|| first.into_iter().collect());
        // A table may be read twice.
        if !all.contains(target) {
            all.push(target.clone());
        }
    }
}
