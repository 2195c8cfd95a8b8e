//! What the kernel says it holds: whole dumps, and single notifications.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use super::store::{BESIDE, DOUBTED};
use super::{
    ADOPTED, Change, Family, Hop, Kind, Mode, NONE, Object, Place, Plan, QUEUED, RouteId, SETTLING,
    State, Target, named,
};

impl Plan {
    /// Forgets what is installed; the `saw_*` calls and [`Self::end_resync`] follow.
    ///
    /// What is wanted may change in between.
    pub(crate) fn begin_resync(&mut self) {
        self.abandon_review();
        for id in self.store.ids() {
            if self.store.get(id).is_some() {
                let before = self.presence(id);
                let state = self.store.state_mut(id);
                state.installed = NONE;
                state.flags &= !BESIDE;
                let table = state.table;
                self.recount(table, before, self.presence(id));
            }
        }
        for slot in self.objects.slots().collect::<Vec<_>>() {
            if let Some(object) = self.objects.remove(slot) {
                self.catalog.release_hop_set(object.set);
            }
        }
        self.objects.clear();
        self.catalog.forget_objects();
        self.refused.release_all();
        self.unwanted.clear();
        self.unwanted_later.clear();
        self.track.clear_groups();
        self.shadowed.clear();
        self.strays.clear();
        self.lost.clear();
        self.lost_objects.clear();
        self.foreign = None;
        self.fresh = Some(VecDeque::new());
    }

    /// Does the same as [`Self::saw_hop_by`] for the first of our devices.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn saw_hop(&mut self, id: u32, address: Ipv6Addr) {
        self.saw_hop_by(id, Hop { device: 0, address });
    }

    /// The kernel has a nexthop object of ours for one underlay address, by one of our devices
    /// and with our protocol.
    pub(crate) fn saw_hop_by(&mut self, id: u32, hop: Hop) {
        let Hop { device, address } = hop;
        if !self.objects.owns(id) {
            return;
        }
        if self.config.mode == Mode::Inline {
            if !self.objects.has_changed(id) {
                self.objects.leftovers.insert_hop(id, address);
            }
            return;
        }
        if self.is_reviewing() && self.review_object(id, self.is_hop(id, hop)) {
            return;
        }
        self.track.saw(address);
        let set = self.catalog.acquire_addresses(device, &[address]);
        let slot = self.objects.insert(Object {
            id,
            set,
            routes: 0,
            kind: Kind::Single { groups: Vec::new() },
        });
        self.catalog.offer_object(set, slot);
    }

    /// The kernel has a nexthop object of ours that no route uses any more: it leads by
    /// another tunnel device.
    pub(crate) fn saw_leftover_hop(&mut self, id: u32, address: Ipv6Addr) {
        if self.is_reviewing() && self.review_object(id, false) {
            return;
        }
        self.review_taken(id);
        self.objects.mark_taken(id);
        if self.objects.owns(id) {
            self.objects.leftovers.insert_hop(id, address);
        }
    }

    /// The kernel has a group with our mark; it is ours if all its members are.
    ///
    /// Members must have been seen before.
    pub(crate) fn saw_group(&mut self, id: u32, members: &[u32]) {
        if self.is_reviewing() && self.review_object(id, self.has_members(id, members)) {
            return;
        }
        let left = members.iter().map(|&id| self.objects.leftovers.hop(id));
        if let Some(addresses) = left.collect::<Option<Vec<Ipv6Addr>>>()
            && self.objects.owns(id)
            && !addresses.is_empty()
        {
            self.review_taken(id);
            self.objects.mark_taken(id);
            self.objects.leftovers.insert_group(id, addresses);
            return;
        }
        let slots: Option<Vec<u32>> = members.iter().map(|&id| self.objects.by_id(id)).collect();
        let Some(mut slots) = slots.filter(|slots| self.objects.owns(id) && !slots.is_empty())
        else {
            self.saw_foreign_object(id);
            return;
        };
        let single = |slot: &u32| matches!(self.objects.object(*slot).kind, Kind::Single { .. });
        if !slots.iter().all(single) {
            self.saw_foreign_object(id);
            return;
        }
        let hop = |&slot: &u32| self.catalog.hops(self.objects.object(slot).set)[0];
        slots.sort_unstable_by_key(|slot| self.catalog.hop(hop(slot)));
        let hops: Vec<u32> = slots.iter().map(hop).collect();
        let set = self.catalog.acquire_hops(hops);
        let group = self.objects.insert(Object {
            id,
            set,
            routes: 0,
            kind: Kind::Group {
                members: slots.clone(),
            },
        });
        for slot in slots {
            self.objects.link(slot, group);
        }
        self.catalog.offer_object(set, group);
    }

    /// The kernel has a nexthop object that is not ours.
    pub(crate) fn saw_foreign_object(&mut self, id: u32) {
        // One of ours that somebody made another one of.
        if self.is_reviewing() && self.review_object(id, false) {
            return;
        }
        self.review_taken(id);
        self.objects.mark_taken(id);
    }

    /// The kernel has a route that carries `protocol`, ours or that of an earlier process.
    ///
    /// Routes that lead neither to an object of ours nor, in themselves, by a tunnel device
    /// are somebody else's. Routes of one place come in the order in which lookups find them.
    pub(crate) fn saw_route(&mut self, place: Place, protocol: u8, target: &Target) {
        if self.is_mislaid(target) {
            if !self.review_mislaid(place, protocol, target) {
                self.saw_stray(place, protocol, target);
            }
            return;
        }
        if !self.is_ours(target) {
            self.saw_foreign_route(place);
            return;
        }
        if !self.review_route(place, protocol, target) {
            self.found_route(place, protocol, target);
            if self.is_reviewing()
                && let Some(id) = self.destination(place)
            {
                self.enqueue(id);
            }
        }
    }

    /// Takes over a route of ours that is not known yet.
    pub(super) fn found_route(&mut self, place: Place, protocol: u8, target: &Target) {
        let Some(position) = self.position(&place) else {
            self.saw_stray(place, protocol, target);
            return;
        };
        let known = self.store.find(position, place.prefix);
        let id = known.unwrap_or_else(|| self.store.find_or_insert(position, place.prefix));
        let state = *self.store.state_mut(id);
        let is_in_place = place == self.place(id, state) && protocol == self.config.protocol;
        let installed = self.resolve(id, target);
        let installed = match self.is_by_device_of(state, installed) {
            true => installed,
            false => NONE,
        };
        if is_in_place && installed != NONE && installed == state.installed {
            // Written while the kernel was read, or read twice.
            return;
        }
        let is_second = is_in_place && installed != NONE && state.installed != NONE;
        if is_second && self.config.mode == Mode::Inline {
            // A deletion takes the first of those that carry their hops: the last one stays.
            let first = self.target(state.installed);
            self.saw_stray(place, protocol, &first);
            self.set_installed(id, installed);
            return;
        }
        if !is_in_place || installed == NONE || state.installed != NONE {
            if is_in_place && self.foreign == Some(place) {
                // Beside this one would be before theirs.
                self.shadowed.insert(id);
            }
            self.saw_stray(place, protocol, target);
            return;
        }
        // What the configuration leaves out, no server needs to withdraw.
        if known.is_none() && !self.leaves_out(place.prefix) {
            self.store.state_mut(id).flags |= ADOPTED;
        }
        if self.foreign == Some(place) {
            self.shadowed.insert(id);
        }
        self.set_installed(id, installed);
    }

    /// The kernel has a route of somebody else.
    pub(crate) fn saw_foreign_route(&mut self, place: Place) {
        if self.review_foreign(place) {
            return;
        }
        self.foreign = Some(place);
        if let Some(id) = self.destination(place)
            && self.store.state_mut(id).installed == NONE
        {
            self.store.state_mut(id).flags &= !DOUBTED;
            self.shadowed.insert(id);
        }
    }

    /// The dump is complete: all that differs from it is planned.
    pub(crate) fn end_resync(&mut self) {
        self.foreign = None;
        self.fresh = None;
        self.queue.clear();
        self.settling.clear();
        self.settle_strays();
        for id in self.store.ids() {
            let Some(state) = self.store.get(id) else {
                continue;
            };
            let complete = self.tables[usize::from(state.table)].is_complete();
            let state_mut = self.store.state_mut(id);
            state_mut.flags &= !QUEUED & !SETTLING;
            if complete {
                state_mut.flags &= !ADOPTED;
            }
            if state.desired == NONE && state.installed == NONE {
                self.forget_if_empty(id);
            }
            if let Some(state) = self.store.get(id)
                && !self.in_sync(id, state)
            {
                self.enqueue(id);
            }
        }
        self.objects.unused.clear();
        if self.is_complete() {
            self.objects.all_unused();
        }
    }

    /// Whether an object leads to one underlay address by one device, and to these.
    fn is_hop(&self, id: u32, hop: Hop) -> bool {
        self.objects.by_id(id).is_some_and(|slot| {
            let object = self.objects.object(slot);
            let hops = self.catalog.hops(object.set);
            matches!(object.kind, Kind::Single { .. })
                && hops.iter().map(|&it| self.catalog.hop(it)).eq([hop])
        })
    }

    /// Whether an object leads by the device of a route's VNIs.
    fn is_by_device_of(&self, state: State, slot: u32) -> bool {
        named(slot).is_none_or(|slot| {
            let device = self.catalog.device(self.objects.object(slot).set);
            device == self.tables[usize::from(state.table)].device
        })
    }

    /// The destination that belongs in a place, if it is known.
    pub(super) fn destination(&self, place: Place) -> Option<RouteId> {
        self.store.find(self.position(&place)?, place.prefix)
    }

    /// Whether a route with our protocol that leads there is ours.
    pub(crate) fn is_ours(&self, target: &Target) -> bool {
        match target {
            Target::Object(id) => {
                self.objects.by_id(*id).is_some() || self.objects.leftovers.addresses(*id).is_some()
            }
            Target::Inline(_) | Target::Via(_) => true,
        }
    }

    /// Whether a route with our protocol leads to an object of somebody else with a number of our
    /// range. Both of us wanted the number; the route is ours, and must not stay.
    pub(super) fn is_mislaid(&self, target: &Target) -> bool {
        match target {
            Target::Object(id) => !self.is_ours(target) && self.objects.is_taken(*id),
            Target::Inline(_) | Target::Via(_) => false,
        }
    }

    /// A nexthop object changed, and it was not us.
    pub(crate) fn object_changed(&mut self, id: u32, exists: bool) -> Change {
        if let Some(slot) = self.objects.by_id(id) {
            if exists {
                return Change::Unclear;
            }
            self.lost_objects.insert(slot);
            return Change::Lost;
        }
        if exists {
            self.objects.mark_taken(id);
        } else {
            self.objects.leftovers.remove(id);
            self.objects.unmark_taken(id);
        }
        Change::None
    }

    /// The object behind a route's target, or [`NONE`] if routes are not written that way.
    pub(super) fn resolve(&mut self, id: RouteId, target: &Target) -> u32 {
        match (self.config.mode, target) {
            (Mode::Objects, Target::Object(id)) => self.objects.by_id(*id).unwrap_or(NONE),
            (Mode::Inline, Target::Inline(addresses))
                if !addresses.is_empty() && (id.family() == Family::V4 || addresses.len() == 1) =>
            {
                let set = self.catalog.acquire_addresses(0, addresses);
                let slot = self.stand_in(set);
                self.catalog.release_hop_set(set);
                slot
            }
            _ => NONE,
        }
    }

    /// The object that stands for a hop set where routes carry their hops.
    pub(super) fn stand_in(&mut self, set: u32) -> u32 {
        let slot = self.catalog.object(set);
        if slot != NONE {
            return slot;
        }
        self.catalog.retain_hop_set(set);
        let slot = self.objects.insert(Object {
            id: 0,
            set,
            routes: 0,
            kind: Kind::StandIn,
        });
        self.catalog.set_object(set, slot);
        slot
    }
}
