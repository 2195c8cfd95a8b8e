//! Routes of ours that are not wanted where they stand, or as they are.
//!
//! Left by an earlier process with other options (another metric, table, device or way of
//! naming hops), or by this one when it changed a route: the new one is put beside the old
//! one, which is a stray from then on. A stray that has a successor goes after it came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use super::store::BESIDE;
use super::{CARRIED, Family, MAX_HOPS, Mode, NONE, Place, Plan, RouteId, State, Target};

/// A route to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    pub(crate) place: Place,
    /// The protocol that it carries.
    pub(crate) protocol: u8,
    /// Exactly where it leads, so that no other route is deleted.
    pub(crate) target: Target,
    /// The object of ours that it holds, if any.
    pub(super) object: u32,
}

impl Stray {
    /// A route of ours that was found, of no plan.
    pub(crate) const fn found(place: Place, protocol: u8, target: Target) -> Self {
        Self {
            place,
            protocol,
            target,
            object: NONE,
        }
    }
}

/// When a stray is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// In one of the next batches.
    Now,
    /// When its successor came, or when the kernel no longer refuses it.
    Later,
}

/// All strays.
#[derive(Default)]
pub(super) struct Strays {
    /// To be deleted at once.
    pub(super) ready: VecDeque<Stray>,
    /// To be deleted when a route is installed, or no longer wanted.
    waiting: BTreeMap<RouteId, Vec<Stray>>,
    /// Those that the kernel refused to delete.
    refused: Vec<Stray>,
    /// Handed out by a batch that is not completed.
    pub(super) in_flight: usize,
}

impl Strays {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.waiting.is_empty()
            && self.refused.is_empty()
            && self.in_flight == 0
    }

    pub(super) fn len(&self) -> usize {
        let waiting: usize = self.waiting.values().map(Vec::len).sum();
        self.ready.len() + waiting + self.refused.len()
    }

    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether strays wait for a route.
    pub(super) fn waits_for(&self, id: RouteId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Where strays stand, and where they lead.
    pub(super) fn known(&self) -> BTreeSet<(Place, Target)> {
        let waiting = self.waiting.values().flatten();
        let all = waiting.chain(&self.ready).chain(&self.refused);
        all.map(|it| (it.place, it.target.clone())).collect()
    }

    /// Those of the places where strays stand.
    pub(super) fn among(&self, places: &BTreeSet<Place>) -> BTreeMap<Place, Due> {
        if places.is_empty() {
            return BTreeMap::new();
        }
        let now = self.ready.iter().map(|it| (it.place, Due::Now));
        let waiting = self.waiting.values().flatten().chain(&self.refused);
        let later = waiting.map(|it| (it.place, Due::Later));
        let all = now.chain(later);
        all.filter(|(place, _)| places.contains(place)).collect()
    }

    /// Forgets all, for a new reading.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn refuse(&mut self, stray: Stray) {
        self.refused.push(stray);
    }

    pub(super) fn retry(&mut self) {
        self.ready.extend(self.refused.drain(..));
    }

    /// The successor of these came, or nobody wants one any more.
    pub(super) fn release(&mut self, id: RouteId) {
        if let Some(strays) = self.waiting.remove(&id) {
            self.ready.extend(strays);
        }
    }

    /// Takes the objects with these numbers from the strays that hold them; once for each.
    pub(super) fn let_go(&mut self, objects: &BTreeSet<u32>) -> Vec<u32> {
        let waiting = self.waiting.values_mut().flatten();
        let all = waiting.chain(&mut self.ready).chain(&mut self.refused);
        let holders = all.filter(|it| objects.contains(&it.object));
        holders.map(|it| std::mem::take(&mut it.object)).collect()
    }

    fn release_all(&mut self) {
        for (_, strays) in std::mem::take(&mut self.waiting) {
            self.ready.extend(strays);
        }
    }
}

impl Plan {
    /// Notes that the kernel has a route of ours that is not as it should be.
    pub(super) fn saw_stray(&mut self, place: Place, protocol: u8, target: &Target) {
        let object = match (self.config.mode, target) {
            (Mode::Objects, Target::Object(id)) => self.objects.by_id(*id).unwrap_or(NONE),
            _ => NONE,
        };
        self.objects.retain(object);
        self.strays.ready.push_back(Stray {
            place,
            protocol,
            target: target.clone(),
            object,
        });
    }

    /// Decides what becomes of the strays that were seen: those that have no successor to wait
    /// for go at once.
    pub(super) fn settle_strays(&mut self) {
        for stray in std::mem::take(&mut self.strays.ready) {
            match self.successor(&stray) {
                Some(id) => {
                    self.carry(id, &stray);
                    self.strays.waiting.entry(id).or_default().push(stray);
                }
                None => self.strays.ready.push_back(stray),
            }
        }
    }

    /// The route that takes the place of a stray, if it is still to be installed.
    fn successor(&mut self, stray: &Stray) -> Option<RouteId> {
        if self.leaves_out(stray.place.prefix) {
            return None;
        }
        // Where it stands, or else anywhere in its table.
        let here = self.position(&stray.place);
        let mut positions = here.into_iter().chain(self.positions_in(stray.place.table));
        positions.find_map(|position| self.successor_at(position, stray))
    }

    fn successor_at(&mut self, position: u16, stray: &Stray) -> Option<RouteId> {
        let prefix = stray.place.prefix;
        let is_awaited = !self.tables[usize::from(position)].is_complete();
        let known = self.store.find(position, prefix);
        if let Some(id) = known
            && let Some(state) = self.store.get(id)
        {
            let is_wanted = is_awaited || self.wanted_hops(id, state) != NONE;
            // One that others stand in the way of may never come.
            let may_come = state.installed == NONE && !self.shadowed.contains(&id);
            return (may_come && is_wanted).then_some(id);
        }
        is_awaited.then(|| self.store.find_or_insert(position, prefix))
    }

    /// Has the hops of a stray installed in the right place until the table is complete.
    fn carry(&mut self, id: RouteId, stray: &Stray) {
        let Some(state) = self.store.get(id) else {
            return;
        };
        if stray.place == self.place(id, state) {
            self.store.state_mut(id).flags |= BESIDE;
        }
        let mut addresses = self.addresses_of(stray);
        let single = self.config.mode == Mode::Inline && id.family() == Family::V6;
        addresses.truncate(if single { 1 } else { MAX_HOPS });
        if state.has(CARRIED)
            || self.wanted_hops(id, state) != NONE
            || self.tables[usize::from(state.table)].is_complete()
            || addresses.is_empty()
        {
            return;
        }
        let device = self.tables[usize::from(state.table)].device;
        let set = self.catalog.acquire_addresses(device, &addresses);
        self.catalog.want(set);
        self.carried.insert(id, set);
        self.store.state_mut(id).flags |= CARRIED;
    }

    /// Where a stray leads, ascending.
    fn addresses_of(&self, stray: &Stray) -> Vec<Ipv6Addr> {
        let mut addresses = match &stray.target {
            Target::Object(id) if stray.object == NONE => {
                self.objects.leftovers.addresses(*id).unwrap_or_default()
            }
            Target::Object(_) => {
                let set = self.objects.object(stray.object).set;
                let hops = self.catalog.hops(set).iter();
                hops.map(|&hop| self.catalog.address(hop)).collect()
            }
            Target::Inline(addresses) => addresses.clone(),
            Target::Via(hops) => hops.iter().map(|it| it.address).collect(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// No longer keeps a route for the sake of where it was found.
    pub(super) fn drop_carried(&mut self, id: RouteId) {
        if let Some(set) = self.carried.remove(&id) {
            self.catalog.unwant(set, &mut self.unwanted);
            self.offer_unused(set);
            self.catalog.release_hop_set(set);
            self.store.state_mut(id).flags &= !CARRIED;
        }
    }

    /// Deletes all strays, whether their successors came or not.
    pub(super) fn release_strays(&mut self) {
        self.strays.release_all();
    }

    /// Whether a route that is installed stands beside another one of ours.
    pub(super) const fn is_beside(state: State) -> bool {
        state.installed != NONE || state.has(BESIDE)
    }

    /// Whether a stray stands there and leads there.
    pub(super) fn is_stray(&self, place: Place, target: &Target) -> bool {
        let is_it = |it: &Stray| it.place == place && it.target == *target;
        let waiting = self.strays.waiting.values().flatten();
        waiting.chain(&self.strays.ready).any(is_it)
    }
}
