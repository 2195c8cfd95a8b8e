//! Single changes that somebody else made.

use std::collections::BTreeSet;

use super::store::DOUBTED;
use super::{ADOPTED, Change, Family, Kind, NONE, Place, Plan, RouteId, Seen, Target};

impl Plan {
    /// A route was put in a place or deleted there, and it was not us.
    pub(crate) fn route_changed(&mut self, place: Place, seen: &Seen) -> Change {
        match seen {
            Seen::Put(target) if self.is_ours(target) => self.ours_was_put(place, target),
            Seen::Gone(target) if self.is_ours(target) => self.ours_is_gone(place, target),
            Seen::Unknown => match self.destination(place) {
                Some(_) => Change::Unclear,
                None => Change::None,
            },
            Seen::Put(_) | Seen::First | Seen::Behind | Seen::Replaced => {
                self.theirs_was_put(place, seen)
            }
            Seen::Gone(_) | Seen::Left => self.theirs_left(place),
        }
    }

    fn ours_was_put(&mut self, place: Place, target: &Target) -> Change {
        let Some(position) = self.position(&place) else {
            return Change::None;
        };
        let known = self.store.find(position, place.prefix);
        let id = known.unwrap_or_else(|| self.store.find_or_insert(position, place.prefix));
        let state = *self.store.state_mut(id);
        let slot = self.resolve(id, target);
        if slot == NONE || place != self.place(id, state) || state.installed != NONE {
            self.forget_if_empty(id);
            return match slot != NONE && state.installed == slot {
                true => Change::None,
                false => Change::Unclear,
            };
        }
        if known.is_none() && !self.tables[usize::from(position)].is_complete() {
            self.store.state_mut(id).flags |= ADOPTED;
        }
        if state.has(DOUBTED) {
            // What the kernel said is there was this one.
            self.store.state_mut(id).flags &= !DOUBTED;
            self.shadowed.remove(&id);
        }
        self.set_installed(id, slot);
        self.enqueue(id);
        Change::None
    }

    fn ours_is_gone(&mut self, place: Place, target: &Target) -> Change {
        let Some(id) = self.destination(place) else {
            return Change::None;
        };
        let slot = self.resolve(id, target);
        let installed = self.store.state_mut(id).installed;
        if slot == NONE || slot != installed || self.is_stray(place, target) {
            return Change::None;
        }
        self.set_installed(id, NONE);
        self.lost.push(id);
        Change::Lost
    }

    fn theirs_was_put(&mut self, place: Place, seen: &Seen) -> Change {
        let Some(id) = self.destination(place) else {
            return Change::None;
        };
        self.touch(id);
        let state = *self.store.state_mut(id);
        let is_in_the_way = match seen {
            // Of two that stand there, the first one is replaced: not ours, if it is behind.
            Seen::Replaced => true,
            // IPv4 alone has places before ours.
            Seen::First => id.family() == Family::V4 || state.installed == NONE,
            _ => state.installed == NONE,
        };
        if !is_in_the_way || self.shadowed.contains(&id) {
            return Change::None;
        }
        if *seen == Seen::Replaced && state.installed != NONE {
            self.set_installed(id, NONE);
        }
        let is_wanted = self.wanted_hops(id, state) != NONE;
        if !is_wanted {
            self.enqueue(id);
            return Change::None;
        }
        self.shadow(id);
        Change::Shadowed
    }

    pub(super) fn shadow(&mut self, id: RouteId) {
        self.touch(id);
        self.shadowed.insert(id);
        self.refused.remove(id);
        self.strays.release(id);
    }

    fn theirs_left(&mut self, place: Place) -> Change {
        let Some(id) = self.destination(place) else {
            return Change::None;
        };
        self.touch(id);
        let was_shadowed = self.shadowed.remove(&id);
        let was_refused = self.refused.remove(id);
        let state = self.store.state_mut(id);
        state.flags &= !DOUBTED;
        if was_shadowed && state.installed != NONE {
            // Another one may still stand before ours.
            return Change::Unclear;
        }
        if was_shadowed || was_refused {
            self.enqueue(id);
        }
        Change::None
    }

    /// Marks the routes of objects that somebody deleted: the kernel deleted the routes that
    /// used them, and took them out of their groups.
    ///
    /// To be called before the next batch. One look at all routes, however many objects.
    pub(crate) fn lose_objects(&mut self) {
        let lost = std::mem::take(&mut self.lost_objects);
        if lost.is_empty() {
            return;
        }
        let mut gone = lost.clone();
        let mut smaller = BTreeSet::new();
        for &slot in &lost {
            let hop = self.catalog.hops(self.objects.object(slot).set)[0];
            for group in self.objects.groups(slot).to_vec() {
                let is_last = match &self.objects.object(group).kind {
                    Kind::Group { members } => self.present(members) == [slot],
                    Kind::StandIn | Kind::Single { .. } => true,
                };
                if !is_last && !gone.contains(&group) {
                    self.shrink(group, slot, hop);
                    smaller.insert(group);
                } else {
                    smaller.remove(&group);
                    gone.insert(group);
                }
            }
        }
        for id in self.store.ids() {
            let Some(state) = self.store.get(id).filter(|it| it.installed != NONE) else {
                continue;
            };
            if gone.contains(&state.installed) {
                self.set_installed(id, NONE);
                self.lost.push(id);
            } else if smaller.contains(&state.installed) {
                self.lost.push(id);
            }
        }
        for slot in self.strays.let_go(&gone) {
            self.objects.release(slot);
        }
        let is_group = |plan: &Self, slot: u32| {
            let object = plan.objects.get(slot);
            object.is_some_and(|it| matches!(it.kind, Kind::Group { .. }))
        };
        // Groups first: they name their members.
        let (groups, hops): (Vec<u32>, Vec<u32>) =
            gone.into_iter().partition(|&it| is_group(self, it));
        for slot in groups.into_iter().chain(hops) {
            self.drop_object(slot);
        }
    }
}
