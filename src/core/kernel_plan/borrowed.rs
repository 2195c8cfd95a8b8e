//! Nexthop objects of ours that routes of others lead to.
//!
//! The kernel deletes the routes of an object with it, whoever put them there. So an object stays
//! as long as somebody else's route leads to it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Plan};

type ByObject = BTreeMap<u32, BTreeSet<Place>>;

/// Where routes of others stand, by the number of the object that they lead to: 40 bytes each.
#[derive(Default)]
pub(super) struct Borrowed {
    now: ByObject,
    /// As it was before a reading that goes on.
    before: ByObject,
}

impl Borrowed {
    fn contains(&self, id: u32) -> bool {
        self.now.contains_key(&id) || self.before.contains_key(&id)
    }

    fn remove(&mut self, place: Place) -> BTreeSet<u32> {
        let mut left = BTreeSet::new();
        for all in [&mut self.now, &mut self.before] {
            all.retain(|&id, places| {
                if places.remove(&place) {
                    left.insert(id);
                }
                !places.is_empty()
            });
        }
        left
    }
}

impl Plan {
    /// All routes of the kernel follow, by [`Self::borrow_object`].
    pub(crate) fn begin_borrowers(&mut self) {
        for (id, places) in std::mem::take(&mut self.borrowed.now) {
            self.borrowed.before.entry(id).or_default().extend(places);
        }
    }

    /// All routes of the kernel were seen.
    pub(crate) fn end_borrowers(&mut self) {
        let before = std::mem::take(&mut self.borrowed.before);
        self.give_back(before.into_keys().collect());
    }

    /// A route of somebody else leads to an object. Returns whether it is one of ours and that is
    /// news.
    pub(crate) fn borrow_object(&mut self, id: u32, place: Place) -> bool {
        if !self.objects.owns(id) {
            return false;
        }
        let before = self.borrowed.before.get(&id);
        let was_known = before.is_some_and(|it| it.contains(&place));
        let is_new = self.borrowed.now.entry(id).or_default().insert(place);
        is_new && !was_known && self.objects.by_id(id).is_some()
    }

    /// A route of somebody else in a place is gone, or is another one.
    pub(crate) fn borrower_left(&mut self, place: Place) {
        let left = self.borrowed.remove(place);
        self.give_back(left);
    }

    /// Whether routes of others lead to an object.
    pub(super) fn is_borrowed(&self, id: u32) -> bool {
        self.borrowed.contains(id)
    }

    /// Looks at objects that may have lost the last who lead to them.
    fn give_back(&mut self, ids: BTreeSet<u32>) {
        // Before that, those found at start are kept.
        if !self.is_complete() {
            return;
        }
        for id in ids {
            if !self.is_borrowed(id) {
                self.objects.unused.extend(self.objects.by_id(id));
            }
        }
    }
}
