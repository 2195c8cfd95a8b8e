//! What the kernel says it holds: whole dumps, and single notifications.

use std::net::Ipv6Addr;

use super::{
    ADOPTED, ALIEN, Family, IpNet, Kind, Mode, NONE, OWNED, Object, Plan, QUEUED, RouteId,
    SETTLING, Seen, Target,
};

impl Plan {
    /// Forgets what is installed; the `saw_*` calls and [`Self::end_resync`] follow.
    ///
    /// What is wanted may change in between.
    pub(crate) fn begin_resync(&mut self) {
        for id in self.store.ids() {
            if self.store.get(id).is_some() {
                self.store.state_mut(id).installed = NONE;
            }
        }
        for slot in self.objects.slots().collect::<Vec<_>>() {
            if let Some(object) = self.objects.remove(slot) {
                self.catalog.release_hop_set(object.set);
            }
        }
        self.objects.clear();
        self.catalog.forget_objects();
        self.parked.clear();
        self.unwanted.clear();
        self.unwanted_later.clear();
        self.shadowed.clear();
        self.counts.installed = 0;
    }

    /// The kernel has a nexthop object of ours for one underlay address.
    pub(crate) fn saw_hop(&mut self, id: u32, address: Ipv6Addr) {
        if !self.objects.owns(id) {
            return;
        }
        if self.config.mode == Mode::Inline {
            self.objects.leftovers.hops.insert(id);
            return;
        }
        let set = self.catalog.acquire_addresses(&[address]);
        let slot = self.objects.insert(Object {
            id,
            set,
            routes: 0,
            kind: Kind::Single { groups: Vec::new() },
        });
        self.catalog.offer_object(set, slot);
    }

    /// The kernel has a group with our mark; it is ours if all its members are.
    ///
    /// Members must have been seen before.
    pub(crate) fn saw_group(&mut self, id: u32, members: &[u32]) {
        if self.config.mode == Mode::Inline {
            let leftovers = &mut self.objects.leftovers;
            let ours = members.iter().all(|member| leftovers.hops.contains(member));
            if self.objects.owns(id) && ours {
                self.objects.leftovers.groups.push(id);
            }
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
        let address = |&slot: &u32| {
            self.catalog
                .address(self.catalog.hops(self.objects.object(slot).set)[0])
        };
        slots.sort_unstable_by_key(address);
        let addresses: Vec<Ipv6Addr> = slots.iter().map(address).collect();
        let set = self.catalog.acquire_addresses(&addresses);
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
        self.objects.mark_taken(id);
    }

    /// The kernel has a route with our mark in one of our tables.
    pub(crate) fn saw_route(&mut self, table: u32, prefix: IpNet, target: &Target) {
        let Some(position) = self.position(table) else {
            return;
        };
        let known = self.store.find(position, prefix);
        let id = known.unwrap_or_else(|| self.store.find_or_insert(position, prefix));
        let installed = self.resolve(id, target);
        let state = self.store.state_mut(id);
        state.flags |= OWNED;
        if known.is_none() {
            state.flags |= ADOPTED;
        }
        self.set_installed(id, installed);
    }

    /// The dump is complete: all that differs from it is planned.
    pub(crate) fn end_resync(&mut self) {
        self.queue.clear();
        self.settling.clear();
        for id in self.store.ids() {
            let Some(state) = self.store.get(id) else {
                continue;
            };
            let complete = self.tables[usize::from(state.table)].1.is_empty();
            let state_mut = self.store.state_mut(id);
            state_mut.flags &= !QUEUED & !SETTLING;
            if complete {
                state_mut.flags &= !ADOPTED;
            }
            if state.desired == NONE && state.installed == NONE {
                self.store.remove(id);
            } else if !self.in_sync(id, state) {
                self.enqueue(id);
            }
        }
        self.objects.unused.clear();
        if self.is_complete() {
            self.objects.all_unused();
        }
    }

    /// A route changed in one of our tables, and it was not us.
    pub(crate) fn route_changed(&mut self, table: u32, prefix: IpNet, seen: &Seen) {
        let Some(position) = self.position(table) else {
            return;
        };
        let known = self.store.find(position, prefix);
        match (seen, known) {
            (Seen::Ours(target), _) => {
                if let Some(id) = known {
                    let installed = self.resolve(id, target);
                    self.set_installed(id, installed);
                    self.enqueue(id);
                } else {
                    self.saw_route(table, prefix, target);
                    if let Some(id) = self.store.find(position, prefix) {
                        self.enqueue(id);
                    }
                }
            }
            (Seen::Replaced, Some(id)) => {
                if self.store.state_mut(id).installed != NONE {
                    self.set_installed(id, ALIEN);
                }
                self.enqueue(id);
            }
            (Seen::Gone, Some(id)) => {
                self.set_installed(id, NONE);
                self.enqueue(id);
            }
            (Seen::Replaced | Seen::Gone, None) => {}
        }
    }

    /// A route of somebody else went: a refused one of ours may fit in its place. Returns
    /// whether it stood before ours, and the state is to be read again: others may still.
    pub(crate) fn foreign_route_gone(&mut self, table: u32, prefix: IpNet) -> bool {
        let Some(position) = self.position(table) else {
            return false;
        };
        if let Some(id) = self.store.find(position, prefix)
            && self.parked.remove(&id)
        {
            self.enqueue(id);
        }
        self.shadowed.contains(&(position, prefix))
    }

    /// A route of somebody else stands before one of ours: to replace ours would replace
    /// theirs. Returns whether ours is there.
    pub(crate) fn foreign_route_first(&mut self, table: u32, prefix: IpNet) -> bool {
        let Some(position) = self.position(table) else {
            return false;
        };
        let id = self.store.find(position, prefix);
        let installed = id.is_some_and(|id| self.store.state_mut(id).installed != NONE);
        if installed {
            self.shadowed.insert((position, prefix));
        }
        installed
    }

    /// A nexthop object changed, and it was not us. Returns whether it was one of ours, and
    /// the state is to be read again.
    pub(crate) fn object_changed(&mut self, id: u32, exists: bool) -> bool {
        if self.objects.by_id(id).is_some() {
            return true;
        }
        if exists {
            self.objects.mark_taken(id);
        } else {
            self.objects.unmark_taken(id);
        }
        false
    }

    fn position(&self, table: u32) -> Option<u16> {
        let position = self.tables.iter().position(|(number, _)| *number == table);
        position.and_then(|position| u16::try_from(position).ok())
    }

    /// The object behind a route's target.
    fn resolve(&mut self, id: RouteId, target: &Target) -> u32 {
        match (self.config.mode, target) {
            (Mode::Objects, Target::Object(id)) => self.objects.by_id(*id).unwrap_or(ALIEN),
            (Mode::Inline, Target::Inline(addresses))
                if !addresses.is_empty() && (id.family() == Family::V4 || addresses.len() == 1) =>
            {
                let set = self.catalog.acquire_addresses(addresses);
                let slot = self.stand_in(set);
                self.catalog.release_hop_set(set);
                slot
            }
            _ => ALIEN,
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
