//! What the kernel should hold, what it holds, and the operations between the two.
//!
//! Pure: announcements, dumps and notifications go in, [`Op`]s come out. No sockets,
//! clocks, threads, locks or log lines. A route that changed a thousand times between two
//! batches costs at most one operation (law L), and a route that changed back costs none.
//!
//! ```text
//! add, remove, synced --> wanted ---+
//!                                   +--> batch() --> operations --> completed()
//! saw_*, *_changed   --> installed -+                 (the kernel)
//! ```

mod batch;
mod borrowed;
mod catalog;
mod changes;
mod counts;
mod held;
mod hops;
mod intern;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod model;
mod objects;
mod op;
mod queue;
mod refused;
mod remap;
mod results;
mod resync;
mod review;
mod spot;
mod store;
mod strays;
#[cfg(test)]
mod tests;
mod track;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use ipnet::IpNet;

use crate::core::types::{NextHopType, Route, Vni};
use borrowed::Borrowed;
use catalog::{Announcement, Catalog};
pub(crate) use counts::Counts;
use counts::Presence;
use intern::NONE;
use objects::{Kind, Object, Objects};
pub(crate) use op::{Change, Hop, Op, Place, Seen, Target, Tunnelled, Verb};
use queue::{Queue, Urgency};
use refused::Refused;
pub(crate) use remap::Scope;
pub(crate) use results::{Failure, errno};
use review::Review;
pub(crate) use review::Verdict;
use spot::Spot;
pub(crate) use store::RouteId;
use store::{ADOPTED, CARRIED, QUEUED, SETTLING, State, Store};
pub(crate) use strays::Stray;
use strays::Strays;
use track::Track;
pub(crate) use track::Way;

/// Hops a destination uses at most: the lowest addresses. Bounds the size of a message:
/// a hop of an inline IPv4 route takes 36 bytes, so 256 take 9 KiB.
pub(crate) const MAX_HOPS: usize = 256;

/// Address family of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    const fn of(prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// How routes name their hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One nexthop object per underlay address, one group per set; routes carry its number.
    Objects,
    /// Routes carry their hops: several in IPv4, the one with the lowest address in IPv6,
    /// since IPv6 refuses multipath routes without gateways.
    Inline,
}

/// What the plan is made with; see [`Plan::remap`] for what can change.
#[derive(Clone, Debug)]
pub(crate) struct PlanConfig {
    pub(crate) vni_tables: BTreeMap<Vni, u32>,
    pub(crate) ipv4_only: bool,
    pub(crate) excluded_types: Vec<NextHopType>,
    pub(crate) mode: Mode,
    /// Numbers of our nexthop objects.
    pub(crate) nexthop_ids: Range<u32>,
    /// The protocol that marks our routes.
    pub(crate) protocol: u8,
    /// Metrics of IPv4 and of IPv6 routes, as the kernel shows them.
    pub(crate) metrics: [u32; 2],
    /// The same of VNIs that have others.
    pub(crate) vni_metrics: BTreeMap<Vni, [u32; 2]>,
    /// VNIs whose routes lead by another device than the first; see [`Hop::device`]. Only where
    /// routes name objects.
    pub(crate) vni_devices: BTreeMap<Vni, u8>,
    /// Seeds the hashes of tables keyed by peers' data.
    pub(crate) seed: u64,
}

/// What is wrong with a route that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubtful {
    /// No tunnel can lead to its next hop: why.
    NextHop(&'static str),
    /// Another VNI announces its destination into the same table. The lower VNI has it.
    Shared(Vni),
    /// Its destination has more next hops than are used; see [`MAX_HOPS`].
    TooMany,
}

/// Desired and installed state, and the work between them.
pub(crate) struct Plan {
    config: PlanConfig,
    /// Where routes belong; destinations name these by their position.
    tables: Vec<Spot>,
    by_vni: BTreeMap<Vni, u16>,
    catalog: Catalog,
    store: Store,
    objects: Objects,
    borrowed: Borrowed,
    /// Routes to look at.
    queue: Queue,
    /// Routes that lost one of several hops: a burst of them is often a hypervisor that
    /// leaves, which takes messages per group only once all of it is known.
    settling: Vec<RouteId>,
    /// Underlay addresses that cannot be reached.
    track: Track,
    /// Devices that take no routes: see [`Hop::device`].
    held: BTreeSet<u8>,
    /// Routes that the kernel refused and that wait for their next try.
    refused: Refused,
    /// Destinations where somebody else's route stands in the way of ours.
    shadowed: BTreeSet<RouteId>,
    /// Routes of ours that are not wanted where they stand.
    strays: Strays,
    /// Hop sets that routes keep although nobody announced them yet: they were found in
    /// another place. Each holds a reference.
    carried: BTreeMap<RouteId, u32>,
    /// Routes that somebody else removed, until [`Self::repair`].
    lost: Vec<RouteId>,
    /// Objects that somebody else deleted, until [`Self::lose_objects`].
    lost_objects: BTreeSet<u32>,
    /// While the kernel is read: the place of the last route of somebody else.
    foreign: Option<Place>,
    /// Routes that were announced while the kernel is read from nothing; `None` at other times.
    fresh: Option<VecDeque<RouteId>>,
    /// What a reading has found that keeps what is believed; `None` at other times.
    review: Option<Review>,
    /// Objects may have been kept for the sake of refused routes.
    had_refused: bool,
    /// Hops that nobody wants any more, and those among them to look at again later.
    unwanted: Vec<u32>,
    unwanted_later: Vec<u32>,
    counts: Counts,
    /// Sets are put together here.
    scratch: Vec<u32>,
}

impl Plan {
    /// A plan that wants nothing and knows of nothing installed.
    pub(crate) fn new(config: PlanConfig) -> Self {
        let mut tables: Vec<Spot> = Vec::new();
        let mut by_vni = BTreeMap::new();
        for (&vni, &table) in &config.vni_tables {
            let metrics = config.vni_metrics.get(&vni).copied();
            let metrics = metrics.unwrap_or(config.metrics);
            let device = config.vni_devices.get(&vni).copied().unwrap_or(0);
            let position = spot::find_or_add(&mut tables, table, metrics, device);
            tables[usize::from(position)].waiting.insert(vni);
            by_vni.insert(vni, position);
        }
        let single_v6 = config.mode == Mode::Inline;
        Self {
            tables,
            by_vni,
            catalog: Catalog::new(config.seed, single_v6),
            store: Store::new(config.seed),
            objects: Objects::new(config.nexthop_ids.clone(), config.protocol),
            borrowed: Borrowed::default(),
            queue: Queue::default(),
            settling: Vec::new(),
            track: Track::default(),
            held: BTreeSet::new(),
            refused: Refused::default(),
            shadowed: BTreeSet::new(),
            strays: Strays::default(),
            carried: BTreeMap::new(),
            lost: Vec::new(),
            lost_objects: BTreeSet::new(),
            foreign: None,
            fresh: None,
            review: None,
            had_refused: false,
            unwanted: Vec::new(),
            unwanted_later: Vec::new(),
            counts: Counts::default(),
            scratch: Vec::new(),
            config,
        }
    }

    /// The numbers of the tables.
    pub(crate) fn tables(&self) -> BTreeSet<u32> {
        self.tables.iter().map(|it| it.table).collect()
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.config.mode
    }

    /// Wants a route; what is wanted already, or is not for this kernel, changes nothing.
    ///
    /// Returns what is wrong with a new one, if anything is.
    pub(crate) fn add(&mut self, vni: Vni, route: &Route) -> Option<Doubtful> {
        let table = self.table_for(vni, route)?;
        let mut doubtful = None;
        let prefix = route.destination.prefix;
        let device = self.tables[usize::from(table)].device;
        let announcement = announcement_of(vni, route);
        let announcement = self.catalog.acquire_announcement(announcement, device);
        let id = self.store.find_or_insert(table, prefix);
        let desired = self.store.state_mut(id).desired;
        if let Some(fresh) = &mut self.fresh
            && desired == NONE
        {
            fresh.push_back(id);
        }
        let members = self.catalog.members(desired);
        if let Err(position) = members.binary_search(&announcement) {
            self.scratch.clear();
            self.scratch.extend_from_slice(members);
            self.scratch.insert(position, announcement);
            if let Err(reason) = hops::underlay(route.next_hop.target_address) {
                self.counts.uninstallable += 1;
                doubtful = Some(Doubtful::NextHop(reason));
            } else {
                let vnis = members.iter().map(|&it| self.catalog.announcement(it).vni);
                let other = vnis.into_iter().find(|it| *it != vni);
                let too_many = || self.catalog.exceeds_hops(&self.scratch);
                let too_many = || too_many().then_some(Doubtful::TooMany);
                doubtful = other.map(Doubtful::Shared).or_else(too_many);
            }
            self.desire_scratch(id);
        }
        self.catalog.release_announcement(announcement);
        doubtful
    }

    /// No longer wants a route; what is not wanted changes nothing.
    pub(crate) fn remove(&mut self, vni: Vni, route: &Route) {
        let Some(table) = self.table_for(vni, route) else {
            return;
        };
        let announcement = self.catalog.find_announcement(&announcement_of(vni, route));
        let Some(id) = self.store.find(table, route.destination.prefix) else {
            return;
        };
        let members = self.catalog.members(self.store.state_mut(id).desired);
        if announcement == NONE {
            return;
        }
        let Ok(position) = members.binary_search(&announcement) else {
            return;
        };
        self.scratch.clear();
        self.scratch.extend_from_slice(members);
        self.scratch.remove(position);
        if !self.catalog.installable(announcement) {
            self.counts.uninstallable -= 1;
        }
        // What was withdrawn is not kept for the sake of a table that is not complete.
        self.store.state_mut(id).flags &= !ADOPTED;
        self.drop_carried(id);
        self.desire_scratch(id);
    }

    /// The initial table of a VNI is complete.
    ///
    /// Once all VNIs of a kernel table are, routes found there that nobody announced go.
    pub(crate) fn synced(&mut self, vni: Vni) {
        let Some(&position) = self.by_vni.get(&vni) else {
            return;
        };
        self.no_longer_waits(vni, position);
    }

    /// A VNI is complete, or has left the table.
    fn no_longer_waits(&mut self, vni: Vni, position: u16) {
        let waiting = &mut self.tables[usize::from(position)].waiting;
        if !waiting.remove(&vni) || !waiting.is_empty() {
            return;
        }
        for id in self.store.ids() {
            if let Some(state) = self.store.get(id)
                && state.table == position
                && (state.has(ADOPTED) || state.has(CARRIED))
            {
                self.store.state_mut(id).flags &= !ADOPTED;
                self.drop_carried(id);
                self.enqueue(id);
            }
        }
        if self.is_complete() {
            self.objects.all_unused();
        }
    }

    /// Wants nothing any more, whatever was found in the kernel.
    pub(crate) fn clear(&mut self) {
        for spot in &mut self.tables {
            spot.waiting.clear();
        }
        for id in self.store.ids() {
            if self.store.get(id).is_some() {
                self.scratch.clear();
                self.drop_carried(id);
                self.desire_scratch(id);
                self.enqueue(id);
            }
        }
        self.release_strays();
        self.counts.uninstallable = 0;
        self.objects.all_unused();
    }

    /// Whether all tables are complete.
    fn is_complete(&self) -> bool {
        self.tables.iter().all(Spot::is_complete)
    }

    /// How many routes lost a hop and wait for the end of the burst.
    pub(crate) fn settling(&self) -> usize {
        self.settling.len()
    }

    /// Whether there is nothing to do but for routes that the kernel refused.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.settling.is_empty()
            && self.objects.unused.is_empty()
            && self.strays.ready.is_empty()
            && self.track.is_idle()
            && !self.may_delete_leftovers()
    }

    /// Whether no route of ours leads to the objects that an earlier process left.
    fn may_delete_leftovers(&self) -> bool {
        !self.objects.leftovers.is_empty() && self.strays.is_empty()
    }

    /// Plans the routes that somebody else removed.
    pub(crate) fn repair(&mut self) {
        self.lose_objects();
        for id in std::mem::take(&mut self.lost) {
            if self.store.get(id).is_some() {
                self.enqueue(id);
            }
        }
    }

    /// One of the places where somebody else's route stands in the way of ours.
    pub(crate) fn shadowed_place(&self) -> Option<Place> {
        let &id = self.shadowed.first()?;
        Some(self.place(id, self.store.get(id)?))
    }

    /// Returns whether routes that somebody else removed wait for [`Self::repair`].
    pub(crate) fn has_losses(&self) -> bool {
        !self.lost.is_empty() || !self.lost_objects.is_empty()
    }

    /// The position of the table that a route belongs in, unless it is left out.
    fn table_for(&self, vni: Vni, route: &Route) -> Option<u16> {
        let left_out = self
            .config
            .excluded_types
            .contains(&route.next_hop.hop_type)
            || self.leaves_out(route.destination.prefix);
        if left_out {
            return None;
        }
        self.by_vni.get(&vni).copied()
    }

    /// Whether routes to a prefix are not for this kernel, whoever announces them.
    fn leaves_out(&self, prefix: IpNet) -> bool {
        self.config.ipv4_only && matches!(prefix, IpNet::V6(_))
    }

    /// Wants the announcements in `scratch` for a destination.
    fn desire_scratch(&mut self, id: RouteId) {
        let set = self.catalog.acquire_set(&self.scratch);
        let state = self.store.state_mut(id);
        let old = std::mem::replace(&mut state.desired, set);
        let (table, installed) = (state.table, state.installed);
        let was_parked = self.refused.remove(id);
        let old_hops = self.catalog.hop_set(old, id.family());
        let hops = self.catalog.hop_set(set, id.family());
        let before = Presence::of(old_hops, installed);
        self.recount(table, before, Presence::of(hops, installed));
        self.catalog.want(hops);
        let shrinks = hops != NONE
            && old_hops != NONE
            && named(installed).is_some()
            && self.config.mode == Mode::Objects
            && self.catalog.hops(hops).len() < self.catalog.hops(old_hops).len();
        self.catalog.unwant(old_hops, &mut self.unwanted);
        self.offer_unused(old_hops);
        self.catalog.release_set(old);
        if shrinks && !was_parked {
            self.settle_later(id);
        } else {
            self.enqueue_as(id, Urgency::New(table));
        }
    }

    /// Looks at a route once those that are new were looked at.
    fn enqueue(&mut self, id: RouteId) {
        self.enqueue_as(id, Urgency::Repair);
    }

    fn enqueue_as(&mut self, id: RouteId, urgency: Urgency) {
        let state = self.store.state_mut(id);
        if !state.has(QUEUED) {
            state.flags |= QUEUED;
            self.queue.push(id, urgency);
        }
    }

    fn settle_later(&mut self, id: RouteId) {
        let state = self.store.state_mut(id);
        if !state.has(SETTLING) && !state.has(QUEUED) {
            state.flags |= SETTLING;
            self.settling.push(id);
        }
    }

    /// The hop set that the kernel should have, or [`NONE`].
    fn wanted_hops(&self, id: RouteId, state: State) -> u32 {
        let announced = self.catalog.hop_set(state.desired, id.family());
        if announced == NONE && state.has(CARRIED) {
            return self.carried.get(&id).copied().unwrap_or(NONE);
        }
        announced
    }

    /// The place that belongs to a destination.
    fn place(&self, id: RouteId, state: State) -> Place {
        let spot = &self.tables[usize::from(state.table)];
        Place {
            table: spot.table,
            prefix: self.store.prefix(id),
            metric: spot.metrics[id.family() as usize],
        }
    }

    /// Looks at the object of a hop set that may have lost the last who want it.
    fn offer_unused(&mut self, hop_set: u32) {
        if hop_set != NONE && !self.catalog.is_set_wanted(hop_set) {
            let slot = self.catalog.object(hop_set);
            if slot != NONE {
                self.objects.unused.push_back(slot);
            }
        }
    }

    /// The hop set that the kernel has, or [`NONE`] where it has none or one we do not know.
    fn installed_hops(&self, state: State) -> u32 {
        named(state.installed).map_or(NONE, |object| self.objects.object(object).set)
    }

    /// Whether the kernel has what is wanted.
    fn in_sync(&self, id: RouteId, state: State) -> bool {
        self.installed_hops(state) == self.wanted_hops(id, state)
    }

    /// Notes what the kernel has for a destination.
    fn set_installed(&mut self, id: RouteId, installed: u32) {
        self.touch(id);
        let before = self.presence(id);
        let state = self.store.state_mut(id);
        let table = state.table;
        let old = std::mem::replace(&mut state.installed, installed);
        self.recount(table, before, self.presence(id));
        self.objects.retain(installed);
        self.objects.release(old);
    }
}

/// The object that a route's installed state names, if it names one.
fn named(installed: u32) -> Option<u32> {
    (installed != NONE).then_some(installed)
}

fn announcement_of(vni: Vni, route: &Route) -> Announcement {
    let prefix = route.destination.prefix;
    Announcement {
        vni,
        next_hop: route.next_hop,
        host: (prefix.addr() != prefix.network()).then(|| prefix.addr()),
    }
}
