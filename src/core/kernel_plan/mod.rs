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
mod catalog;
mod intern;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod model;
mod objects;
mod remap;
mod results;
mod resync;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::ops::Range;

use ipnet::IpNet;

use crate::core::types::{NextHopType, Route, Vni};
use catalog::{Announcement, Catalog};
use intern::NONE;
use objects::{Kind, Object, Objects};
pub(crate) use remap::Scope;
pub(crate) use results::{Failure, errno};
pub(crate) use store::RouteId;
use store::{ADOPTED, OWNED, QUEUED, SETTLING, State, Store};

/// Hops a destination uses at most: the lowest addresses. Bounds the size of a message:
/// a hop of an inline IPv4 route takes 36 bytes, so 256 take 9 KiB.
pub(crate) const MAX_HOPS: usize = 256;

/// In place of an object: the kernel has a route there that leads somewhere else.
const ALIEN: u32 = 1;

/// Address family of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4 = 0,
    V6 = 1,
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
    /// Seeds the hashes of tables keyed by peers' data.
    pub(crate) seed: u64,
}

/// Where a route leads, as the kernel is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a nexthop object.
    Object(u32),
    /// To these underlay addresses, ascending.
    Inline(Vec<Ipv6Addr>),
    /// Elsewhere: not in a way that this plan writes.
    Other,
}

/// What is done to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Creates it; refused when there is one.
    Add,
    /// Puts it in place of what is there.
    Replace,
    /// Deletes it.
    Delete,
}

/// One message to the kernel.
///
/// Operations of a batch are done in order; what one creates, later ones use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Creates a nexthop object for an underlay address.
    AddHop {
        object: u32,
        id: u32,
        address: Ipv6Addr,
    },
    /// Creates a group of nexthop objects.
    AddGroup {
        object: u32,
        id: u32,
        members: Vec<u32>,
    },
    /// Changes the members of a group, for all routes that use it.
    ReplaceGroup { id: u32, members: Vec<u32> },
    /// Deletes a nexthop object; the kernel takes a single one out of every group.
    DeleteObject { id: u32 },
    /// Changes a route. `target` is where it leads, for [`Verb::Delete`] where it led.
    Route {
        route: RouteId,
        verb: Verb,
        table: u32,
        prefix: IpNet,
        target: Target,
        /// What was installed before, to go back to when the kernel refuses.
        previous: u32,
    },
}

/// What a route of the kernel looked like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It has our mark.
    Ours(Target),
    /// Somebody else's is there in place of what was there before.
    Replaced,
    /// What was there is gone.
    Gone,
}

/// Counts for the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Destinations that should be in the kernel.
    pub(crate) desired: usize,
    /// Destinations of ours that are in the kernel.
    pub(crate) installed: usize,
    /// Destinations that the kernel refused; they are tried again.
    pub(crate) failed: usize,
    /// Routes with a next hop that cannot be encapsulated to.
    pub(crate) uninstallable: usize,
    /// Nexthop objects in the kernel.
    pub(crate) objects: usize,
}

/// Desired and installed state, and the work between them.
pub(crate) struct Plan {
    config: PlanConfig,
    /// Tables by position, and the VNIs that are not complete yet.
    tables: Vec<(u32, BTreeSet<Vni>)>,
    by_vni: BTreeMap<Vni, u16>,
    catalog: Catalog,
    store: Store,
    objects: Objects,
    /// Routes to look at.
    queue: VecDeque<RouteId>,
    /// Routes that lost one of several hops: a burst of them is often a hypervisor that
    /// leaves, which takes messages per group only once all of it is known.
    settling: Vec<RouteId>,
    /// Routes that the kernel refused and that wait for their next try, and the last tried.
    parked: BTreeSet<RouteId>,
    retried: RouteId,
    /// Destinations where somebody else's route stands before ours, by position of the table.
    shadowed: BTreeSet<(u16, IpNet)>,
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
        let mut tables: Vec<(u32, BTreeSet<Vni>)> = Vec::new();
        let mut by_vni = BTreeMap::new();
        for (&vni, &table) in &config.vni_tables {
            let position = tables
                .iter()
                .position(|(number, _)| *number == table)
                .unwrap_or_else(|| {
                    tables.push((table, BTreeSet::new()));
                    tables.len() - 1
                });
            tables[position].1.insert(vni);
            let position = u16::try_from(position).expect("the configuration allows 65,535 tables");
            by_vni.insert(vni, position);
        }
        let single_v6 = config.mode == Mode::Inline;
        Self {
            tables,
            by_vni,
            catalog: Catalog::new(config.seed, single_v6),
            store: Store::new(config.seed),
            objects: Objects::new(config.nexthop_ids.clone()),
            queue: VecDeque::new(),
            settling: Vec::new(),
            parked: BTreeSet::new(),
            retried: RouteId::default(),
            shadowed: BTreeSet::new(),
            unwanted: Vec::new(),
            unwanted_later: Vec::new(),
            counts: Counts::default(),
            scratch: Vec::new(),
            config,
        }
    }

    /// The numbers of the tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().map(|(number, _)| *number)
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.config.mode
    }

    /// Wants a route; what is wanted already, or is not for this kernel, changes nothing.
    pub(crate) fn add(&mut self, vni: Vni, route: &Route) {
        let Some(table) = self.table_for(vni, route) else {
            return;
        };
        let prefix = route.destination.prefix;
        let announcement = self
            .catalog
            .acquire_announcement(announcement_of(vni, route));
        let id = self.store.find_or_insert(table, prefix);
        let desired = self.store.state_mut(id).desired;
        let members = self.catalog.members(desired);
        if let Err(position) = members.binary_search(&announcement) {
            self.scratch.clear();
            self.scratch.extend_from_slice(members);
            self.scratch.insert(position, announcement);
            if !self.catalog.installable(announcement) {
                self.counts.uninstallable += 1;
            }
            self.desire_scratch(id);
        }
        self.catalog.release_announcement(announcement);
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
        let state = self.store.state_mut(id);
        let members = self.catalog.members(state.desired);
        if announcement == NONE {
            return;
        }
        let Ok(position) = members.binary_search(&announcement) else {
            return;
        };
        // What was withdrawn is not kept for the sake of a table that is not complete.
        state.flags &= !ADOPTED;
        self.scratch.clear();
        self.scratch.extend_from_slice(members);
        self.scratch.remove(position);
        if !self.catalog.installable(announcement) {
            self.counts.uninstallable -= 1;
        }
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
        let waiting = &mut self.tables[usize::from(position)].1;
        if !waiting.remove(&vni) || !waiting.is_empty() {
            return;
        }
        for id in self.store.ids() {
            if let Some(state) = self.store.get(id)
                && state.table == position
                && state.has(ADOPTED)
            {
                self.store.state_mut(id).flags &= !ADOPTED;
                if !self.in_sync(id, state) {
                    self.enqueue(id);
                }
            }
        }
        if self.is_complete() {
            self.objects.all_unused();
        }
    }

    /// Wants nothing any more, whatever was found in the kernel.
    pub(crate) fn clear(&mut self) {
        for (_, waiting) in &mut self.tables {
            waiting.clear();
        }
        for id in self.store.ids() {
            if self.store.get(id).is_some() {
                self.scratch.clear();
                self.desire_scratch(id);
                self.enqueue(id);
            }
        }
        self.counts.uninstallable = 0;
        self.objects.all_unused();
    }

    /// Whether all tables are complete.
    fn is_complete(&self) -> bool {
        self.tables.iter().all(|(_, waiting)| waiting.is_empty())
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
            && !self.may_delete_leftovers()
    }

    /// Whether no route can need what an earlier process made for routes that name objects.
    fn may_delete_leftovers(&self) -> bool {
        !self.objects.leftovers.is_empty() && self.is_complete() && self.parked.is_empty()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            failed: self.parked.len(),
            objects: self.objects.len(),
            ..self.counts
        }
    }

    /// The position of the table that a route belongs in, unless it is left out.
    fn table_for(&self, vni: Vni, route: &Route) -> Option<u16> {
        let left_out = self
            .config
            .excluded_types
            .contains(&route.next_hop.hop_type)
            || (self.config.ipv4_only && matches!(route.destination.prefix, IpNet::V6(_)));
        if left_out {
            return None;
        }
        self.by_vni.get(&vni).copied()
    }

    /// Wants the announcements in `scratch` for a destination.
    fn desire_scratch(&mut self, id: RouteId) {
        let set = self.catalog.acquire_set(&self.scratch);
        let state = self.store.state_mut(id);
        let old = std::mem::replace(&mut state.desired, set);
        let installed = state.installed;
        let was_parked = self.parked.remove(&id);
        let old_hops = self.catalog.hop_set(old, id.family());
        let hops = self.catalog.hop_set(set, id.family());
        self.counts.desired += usize::from(hops != NONE);
        self.counts.desired -= usize::from(old_hops != NONE);
        self.catalog.want(hops);
        let shrinks = hops != NONE
            && old_hops != NONE
            && named(installed).is_some()
            && self.config.mode == Mode::Objects
            && self.catalog.hops(hops).len() < self.catalog.hops(old_hops).len();
        self.catalog.unwant(old_hops, &mut self.unwanted);
        self.catalog.release_set(old);
        if shrinks && !was_parked {
            self.settle_later(id);
        } else {
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: RouteId) {
        let state = self.store.state_mut(id);
        if !state.has(QUEUED) {
            state.flags |= QUEUED;
            self.queue.push_back(id);
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
        self.catalog.hop_set(state.desired, id.family())
    }

    /// The hop set that the kernel has, or [`NONE`] where it has none or one we do not know.
    fn installed_hops(&self, state: State) -> u32 {
        named(state.installed).map_or(NONE, |object| self.objects.object(object).set)
    }

    /// Whether the kernel has what is wanted.
    fn in_sync(&self, id: RouteId, state: State) -> bool {
        state.installed != ALIEN
            && self.installed_hops(state) == self.wanted_hops(id, state)
            && (state.installed == NONE) == (self.wanted_hops(id, state) == NONE)
    }

    /// Notes what the kernel has for a destination.
    fn set_installed(&mut self, id: RouteId, installed: u32) {
        let state = self.store.state_mut(id);
        let old = std::mem::replace(&mut state.installed, installed);
        self.counts.installed += usize::from(installed != NONE);
        self.counts.installed -= usize::from(old != NONE);
        if let Some(new) = named(installed) {
            self.objects.object_mut(new).routes += 1;
        }
        if let Some(old) = named(old) {
            let object = self.objects.object_mut(old);
            object.routes -= 1;
            if object.routes == 0 {
                self.objects.unused.push_back(old);
            }
        }
    }
}

/// The object that a route's installed state names, if it names one.
fn named(installed: u32) -> Option<u32> {
    (installed > ALIEN).then_some(installed)
}

fn announcement_of(vni: Vni, route: &Route) -> Announcement {
    let prefix = route.destination.prefix;
    Announcement {
        vni,
        next_hop: route.next_hop,
        host: (prefix.addr() != prefix.network()).then(|| prefix.addr()),
    }
}
