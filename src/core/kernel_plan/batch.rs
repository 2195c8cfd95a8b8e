//! From the difference to operations.

use super::{
    ADOPTED, Family, Kind, Mode, NONE, Object, Op, Plan, QUEUED, RouteId, SETTLING, State, Target,
    Verb, named,
};
use std::collections::{BTreeMap, VecDeque};

impl Plan {
    /// Appends the next operations, about `limit` of them.
    ///
    /// They count as done; [`Self::completed`] takes back those that were refused and is
    /// called before anything else is.
    pub(crate) fn batch(&mut self, limit: usize, ops: &mut Vec<Op>) {
        self.leave_groups(limit, ops);
        self.regroup(limit, ops);
        self.sweep(limit, ops);
        while ops.len() < limit {
            let Some(id) = self.queue.pop() else {
                break;
            };
            self.sync(id, ops);
        }
        if self.queue.is_empty() {
            self.queue.shrink();
            self.unwanted.append(&mut self.unwanted_later);
        }
        if ops.is_empty() {
            self.leave_groups(limit, ops);
        }
        // Objects go in batches of their own: a refused route may still need its old one.
        if ops.is_empty() && self.queue.is_empty() {
            self.collect(limit, ops);
        }
    }

    /// Plans the routes that waited for the end of a burst of withdraws.
    ///
    /// Where all routes of a group want the same new set, the group changes, not the routes.
    pub(crate) fn settle(&mut self, ops: &mut Vec<Op>) {
        // Hops that nobody wants leave their groups by one deletion, which may be all it takes.
        self.leave_groups(usize::MAX, ops);
        let settling = std::mem::take(&mut self.settling);
        // Group -> the set its waiting routes want, and how many do; none if they differ.
        let mut votes: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        let mut waiting = Vec::with_capacity(settling.len());
        for id in settling {
            let Some(state) = self.store.get(id).filter(|state| state.has(SETTLING)) else {
                continue;
            };
            // A number that was used again may be in the list twice; it has one vote.
            self.store.state_mut(id).flags &= !SETTLING;
            waiting.push(id);
            let hops = self.wanted_hops(id, state);
            if let Some(slot) = named(state.installed)
                && hops != NONE
                && !self.in_sync(id, state)
            {
                let vote = votes.entry(slot).or_insert((hops, 0));
                vote.1 += u32::from(vote.0 == hops);
            }
        }
        for (slot, (hops, count)) in votes {
            if count > 1 && count == self.objects.object(slot).routes {
                self.change_group(slot, hops, ops);
            }
        }
        for id in waiting {
            if let Some(state) = self.store.get(id)
                && !self.in_sync(id, state)
            {
                self.enqueue(id);
            }
        }
    }

    /// Deletes routes that are not wanted where they stand.
    fn sweep(&mut self, limit: usize, ops: &mut Vec<Op>) {
        // Routes that are new do not wait for the end of it.
        let limit = match self.queue.is_empty() {
            true => limit,
            false => limit.div_ceil(2),
        };
        while ops.len() < limit
            && let Some(stray) = self.strays.ready.pop_front()
        {
            if let Some(id) = self.destination(stray.place) {
                self.touch(id);
            }
            self.strays.in_flight += 1;
            ops.push(Op::Sweep(stray));
        }
    }

    /// Plans one route.
    fn sync(&mut self, id: RouteId, ops: &mut Vec<Op>) {
        let Some(state) = self.store.get(id).filter(|state| state.has(QUEUED)) else {
            return;
        };
        self.store.state_mut(id).flags &= !QUEUED;
        if self.refused.contains(id) {
            return;
        }
        if self.in_sync(id, state) {
            self.refused.remove(id);
            self.strays.release(id);
            self.forget_if_empty(id);
            return;
        }
        if self.is_kept_as_found(id, state) {
            return;
        }
        self.write(id, state, ops);
    }

    /// Appends routes that were announced since the reading of the kernel began, about `limit`:
    /// a new route does not wait for the end of it.
    ///
    /// To be called when the objects are read. The kernel refuses routes that were there before.
    pub(crate) fn fresh_batch(&mut self, limit: usize, ops: &mut Vec<Op>) {
        while ops.len() < limit
            && let Some(id) = self.fresh.as_mut().and_then(VecDeque::pop_front)
        {
            if let Some(state) = self.store.get(id)
                && self.wanted_hops(id, state) != NONE
                && !Self::is_beside(state)
            {
                self.write(id, state, ops);
            }
        }
    }

    /// Plans a route that is not as it should be.
    fn write(&mut self, id: RouteId, state: State, ops: &mut Vec<Op>) {
        let hops = self.wanted_hops(id, state);
        let (verb, target, installed) = if hops == NONE {
            (Verb::Delete, self.target(state.installed), NONE)
        } else {
            // It comes when theirs goes, or when its device comes.
            if self.shadowed.contains(&id) || self.awaits_device(state) {
                return;
            }
            let Some(object) = self.object_for(hops, ops) else {
                self.refused.insert(id);
                return;
            };
            let verb = match Self::is_beside(state) {
                true => Verb::Beside,
                false => Verb::Add,
            };
            // What it was before is deleted after it, and needs its object until then.
            self.objects.retain(state.installed);
            (verb, self.target(object), object)
        };
        self.set_installed(id, installed);
        ops.push(Op::Route {
            route: id,
            verb,
            place: self.place(id, state),
            target,
            previous: state.installed,
        });
    }

    /// Whether a route that was there before us stays as it is until the table is complete.
    ///
    /// Its other hops may be announced yet: rewriting it now would write it twice.
    fn is_kept_as_found(&self, id: RouteId, state: State) -> bool {
        if !state.has(ADOPTED) || self.tables[usize::from(state.table)].is_complete() {
            return false;
        }
        let wanted = self.wanted_hops(id, state);
        let installed = self.installed_hops(state);
        if wanted == NONE || installed == NONE {
            return wanted == NONE;
        }
        let single_v6 = self.config.mode == Mode::Inline && id.family() == Family::V6;
        self.catalog.is_subset(wanted, installed)
            // The lowest of the hops may be announced last.
            || (single_v6 && self.catalog.lowest(installed) < self.catalog.lowest(wanted))
    }

    /// Where routes with this object lead.
    pub(super) fn target(&self, slot: u32) -> Target {
        let object = self.objects.object(slot);
        if object.id != 0 {
            return Target::Object(object.id);
        }
        let hops = self.catalog.hops(object.set);
        Target::Inline(hops.iter().map(|&hop| self.catalog.address(hop)).collect())
    }

    /// The object for a hop set, created if need be; `None` when no number is free.
    fn object_for(&mut self, set: u32, ops: &mut Vec<Op>) -> Option<u32> {
        if self.config.mode == Mode::Inline {
            return Some(self.stand_in(set));
        }
        let slot = self.catalog.object(set);
        if slot != NONE {
            return Some(slot);
        }
        if let [hop] = *self.catalog.hops(set) {
            let id = self.objects.allocate()?;
            let kind = Kind::Single { groups: Vec::new() };
            let object = self.insert_object(id, set, kind);
            let hop = self.catalog.hop(hop);
            self.track.saw(hop.address);
            ops.push(Op::AddHop { object, id, hop });
            return Some(object);
        }
        let members = self.singles(set, ops)?;
        let ids = self.numbers(&self.present(&members));
        let id = self.objects.allocate()?;
        let kind = Kind::Group {
            members: members.clone(),
        };
        let object = self.insert_object(id, set, kind);
        for member in members {
            self.objects.link(member, object);
        }
        ops.push(Op::AddGroup {
            object,
            id,
            members: ids,
        });
        Some(object)
    }

    fn insert_object(&mut self, id: u32, set: u32, kind: Kind) -> u32 {
        self.catalog.retain_hop_set(set);
        let slot = self.objects.insert(Object {
            id,
            set,
            routes: 0,
            kind,
        });
        self.catalog.set_object(set, slot);
        // Whoever asked for it may be refused and leave it behind.
        self.objects.unused.push_back(slot);
        slot
    }

    /// The single objects of a set's hops, by address.
    fn singles(&mut self, set: u32, ops: &mut Vec<Op>) -> Option<Vec<u32>> {
        let hops = self.catalog.hops(set).to_vec();
        let mut slots = Vec::with_capacity(hops.len());
        for hop in hops {
            let single = self.catalog.acquire_hop_set(&[hop]);
            let slot = self.object_for(single, ops);
            self.catalog.release_hop_set(single);
            let slot = slot?;
            slots.push(slot);
        }
        Some(slots)
    }

    /// Changes the members of a group in place.
    fn change_group(&mut self, slot: u32, set: u32, ops: &mut Vec<Op>) {
        if !matches!(self.objects.object(slot).kind, Kind::Group { .. }) {
            return;
        }
        let Some(members) = self.singles(set, ops) else {
            return;
        };
        let ids = self.numbers(&self.present(&members));
        self.objects.note(self.objects.object(slot).id);
        let object = self.objects.object_mut(slot);
        let id = object.id;
        let Kind::Group { members: old } = &mut object.kind else {
            return;
        };
        let old = std::mem::replace(old, members.clone());
        for member in members {
            self.objects.link(member, slot);
        }
        for member in old {
            self.objects.unlink(member, slot);
        }
        self.relabel(slot, set);
        ops.push(Op::ReplaceGroup { id, members: ids });
    }

    /// Notes that a group leads to another set.
    fn relabel(&mut self, slot: u32, set: u32) {
        self.catalog.retain_hop_set(set);
        let old = std::mem::replace(&mut self.objects.object_mut(slot).set, set);
        if self.catalog.object(old) == slot {
            self.catalog.set_object(old, NONE);
        }
        // A group of one is no member of others, as the object for its hop is.
        if self.catalog.hops(set).len() > 1 {
            self.catalog.offer_object(set, slot);
        }
        self.catalog.release_hop_set(old);
    }

    /// Takes hops that nobody wants any more out of all groups: one deletion each, however
    /// many groups and routes there are.
    fn leave_groups(&mut self, limit: usize, ops: &mut Vec<Op>) {
        if !self.unwanted.is_empty() && !self.is_complete() {
            // Routes that are still to be announced may go through them: one by one, then.
            self.unwanted.clear();
        }
        while ops.len() < limit {
            let Some(hop) = self.unwanted.pop() else {
                return;
            };
            let single = self.catalog.find_single(hop);
            if self.catalog.is_wanted(hop) || single == NONE {
                continue;
            }
            let slot = self.catalog.object(single);
            if slot == NONE || self.objects.groups(slot).is_empty() {
                continue;
            }
            let object = self.objects.object(slot);
            if self.is_borrowed(object.id) {
                // The routes of these groups move one by one.
                continue;
            }
            let last_member = |&group: &u32| match &self.objects.object(group).kind {
                Kind::Group { members } => self.present(members) == [slot],
                Kind::StandIn | Kind::Single { .. } => true,
            };
            // Deleting it would take routes along that are still to be moved.
            if object.routes > 0 || self.objects.groups(slot).iter().any(last_member) {
                self.unwanted_later.push(hop);
                continue;
            }
            ops.push(Op::DeleteObject { id: object.id });
            for group in self.objects.groups(slot).to_vec() {
                self.shrink(group, slot, hop);
            }
            self.drop_object(slot);
        }
    }

    /// Notes that the kernel took a member out of a group.
    pub(super) fn shrink(&mut self, group: u32, single: u32, hop: u32) {
        self.objects.note(self.objects.object(group).id);
        let object = self.objects.object_mut(group);
        if let Kind::Group { members } = &mut object.kind {
            members.retain(|&member| member != single);
        }
        let set = object.set;
        let hops: Vec<u32> = self.catalog.hops(set).to_vec();
        let rest: Vec<u32> = hops.into_iter().filter(|&other| other != hop).collect();
        let rest = self.catalog.acquire_hop_set(&rest);
        self.objects.unlink(single, group);
        self.relabel(group, rest);
        self.catalog.release_hop_set(rest);
    }

    /// Deletes the objects that nobody uses: groups before their members.
    ///
    /// Those found at start are not in the list before all tables are complete.
    fn collect(&mut self, limit: usize, ops: &mut Vec<Op>) {
        while ops.len() < limit
            && self.may_delete_leftovers()
            && let Some((id, addresses)) = self.objects.leftovers.pop()
        {
            if self.is_borrowed(id) || self.objects.leftovers.is_kept(&addresses) {
                self.objects.leftovers.keep(addresses);
                continue;
            }
            self.objects.note(id);
            ops.push(Op::DeleteObject { id });
        }
        while ops.len() < limit {
            let Some(slot) = self.objects.unused.pop_front() else {
                return;
            };
            if !self.is_unused(slot) {
                continue;
            }
            let id = self.objects.object(slot).id;
            if id != 0 {
                ops.push(Op::DeleteObject { id });
            }
            self.drop_object(slot);
        }
    }

    pub(super) fn is_unused(&self, slot: u32) -> bool {
        let object = self.objects.get(slot);
        let (id, set) = object.map_or((0, NONE), |it| (it.id, it.set));
        self.has_no_users(slot) && !self.is_borrowed(id) && !self.is_kept_for_refused(slot, set)
    }

    /// Whether an object exists that no route and no group uses.
    pub(super) fn has_no_users(&self, slot: u32) -> bool {
        let object = self.objects.get(slot);
        object.is_some_and(|it| it.routes == 0) && self.objects.groups(slot).is_empty()
    }

    /// Whether refused routes may need an object: creating it for each try and deleting it
    /// afterwards would cost more messages than the routes.
    fn is_kept_for_refused(&self, slot: u32, set: u32) -> bool {
        !self.refused.is_empty()
            && self.catalog.object(set) == slot
            && self.catalog.is_set_wanted(set)
    }

    /// Forgets an object that no route and no group uses.
    pub(super) fn drop_object(&mut self, slot: u32) {
        let Some(object) = self.objects.remove(slot) else {
            return;
        };
        debug_assert_eq!(object.routes, 0, "routes use an object that is dropped");
        if let Kind::Group { members } = object.kind {
            for member in members {
                self.objects.unlink(member, slot);
            }
        }
        if self.catalog.object(object.set) == slot {
            self.catalog.set_object(object.set, NONE);
        }
        self.catalog.release_hop_set(object.set);
    }
}
