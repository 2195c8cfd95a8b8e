//! The half of a shard that owns tables: requests in, tables and changes out.

mod read;

use std::collections::{BTreeSet, VecDeque};

pub(crate) use read::RouteCursor;

use super::message::{Message, Topology};
use crate::core::map::{Map, map};
use crate::core::rib::{ChangeForOne, NextHops, PeerId, Segment, Span, VniTable};
use crate::core::types::{Action, Vni};
use crate::core::wire::{Update, encode_update};

/// Routes of peers that are gone, withdrawn in one turn at most.
///
/// About 1 ms; a peer with a million routes does not hold up the others.
const DEPARTURES_PER_TURN: usize = 4096;

/// Slots of a log rewritten in one turn at most; about 0.5 ms.
const COMPACTION_PER_TURN: usize = 8192;

/// The tables of the VNIs that a shard owns.
#[derive(Debug)]
pub(crate) struct Owner {
    topology: Topology,
    seed: u64,
    tables: Map<Vni, Owned>,
    hops: NextHops,
    /// Where a peer announces or subscribes.
    presence: Map<PeerId, BTreeSet<Vni>>,
    dirty: Vec<Vni>,
    departures: VecDeque<(PeerId, Vni)>,
    compacting: VecDeque<Vni>,
    /// Messages for homes, with the number of the shard.
    outgoing: Vec<(usize, Message)>,
    routes: usize,
    limits: Limits,
    /// Announcements here, of everybody and of each peer.
    announcements: usize,
    announced: Map<PeerId, usize>,
    /// VNIs that have routes here, and those that each peer announces in.
    live_vnis: usize,
    announced_vnis: Map<PeerId, usize>,
    /// Announcements at the other owners, when they were last heard of.
    remote_announcements: usize,
    /// Refused in this turn.
    refused: Map<PeerId, u64>,
    /// Announcements that came or went, so far.
    changes: u64,
    /// Changes for those who watch all tables, while there are any.
    watched: Option<Vec<(Vni, Vec<Span>)>>,
}

/// How much may be announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Routes of one peer, at each owner.
    pub(crate) routes_per_peer: usize,
    /// Routes of all peers, at all owners.
    pub(crate) routes: usize,
    /// VNIs that one peer subscribes to.
    pub(crate) subscriptions_per_peer: usize,
    /// VNIs that have routes, at each owner.
    pub(crate) vnis: usize,
    /// VNIs that one peer announces in, at each owner.
    pub(crate) vnis_per_peer: usize,
}

#[derive(Debug)]
struct Owned {
    table: VniTable,
    subscribers: Map<PeerId, ()>,
    /// How many of them live on each shard.
    by_shard: Vec<u32>,
    /// Stands in `dirty`.
    dirty: bool,
    /// Stands in `compacting`.
    compacting: bool,
}

impl Owner {
    pub(super) fn new(topology: Topology, limits: Limits, seed: u64) -> Self {
        Self {
            topology,
            seed,
            tables: map(seed),
            hops: NextHops::new(seed),
            presence: map(seed),
            dirty: Vec::new(),
            departures: VecDeque::new(),
            compacting: VecDeque::new(),
            outgoing: Vec::new(),
            routes: 0,
            limits,
            announcements: 0,
            announced: map(seed),
            live_vnis: 0,
            announced_vnis: map(seed),
            remote_announcements: 0,
            refused: map(seed),
            changes: 0,
            watched: None,
        }
    }

    /// Takes note of how much is announced at the other owners.
    pub(super) fn set_remote_announcements(&mut self, announcements: usize) {
        self.remote_announcements = announcements;
    }

    /// Other limits hold from now on; what was admitted stays.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(super) fn announcements(&self) -> usize {
        self.announcements
    }

    /// Announces or withdraws for a session.
    pub(super) fn update(&mut self, peer: PeerId, update: &Update) {
        let vni = update.vni;
        if update.action == Action::Add && !self.admits(peer, vni) {
            *self.refused.entry(peer).or_insert(0) += 1;
            return;
        }
        match (self.tables.get(&vni), update.action) {
            (None, Action::Remove) => return,
            (Some(owned), Action::Add) if owned.table.announced_by(peer) > 0 => {}
            (_, Action::Add) => {
                self.make(vni);
                self.presence.entry(peer).or_default().insert(vni);
            }
            (Some(_), Action::Remove) => {}
        }
        self.change(vni, peer, |table, hops| {
            table.apply(hops, peer, update.action, &update.route)
        });
    }

    /// Whether a peer may announce one more route in a VNI.
    ///
    /// At the limit a repeated announcement is refused too; it would change nothing.
    fn admits(&self, peer: PeerId, vni: Vni) -> bool {
        let own = self.announced.get(&peer).copied().unwrap_or(0);
        let own_vnis = self.announced_vnis.get(&peer).copied().unwrap_or(0);
        let table = self.tables.get(&vni).map(|owned| &owned.table);
        let is_live = table.is_some_and(|table| !table.is_empty());
        let is_own = table.is_some_and(|table| table.announced_by(peer) > 0);
        (is_live || self.live_vnis < self.limits.vnis)
            && (is_own || own_vnis < self.limits.vnis_per_peer)
            && own < self.limits.routes_per_peer
            && self.announcements + self.remote_announcements < self.limits.routes
    }

    /// Sends a session the table of a VNI, and its changes from now on.
    pub(super) fn subscribe(&mut self, peer: PeerId, vni: Vni, epoch: u32) {
        self.flush(vni);
        self.presence.entry(peer).or_default().insert(vni);
        let home = self.topology.home(peer);
        self.make(vni);
        let owned = self.tables.get_mut(&vni).expect("made above");
        let spans = owned.table.join(&self.hops, peer);
        if owned.subscribers.insert(peer, ()).is_none() {
            owned.by_shard[home] += 1;
        }
        let message = Message::Table {
            peer,
            vni,
            epoch,
            spans,
        };
        self.outgoing.push((home, message));
    }

    /// Ends the flow of a VNI to a session; its announcements stay.
    pub(super) fn unsubscribe(&mut self, peer: PeerId, vni: Vni) {
        let home = self.topology.home(peer);
        if let Some(owned) = self.tables.get_mut(&vni)
            && owned.subscribers.remove(&peer).is_some()
        {
            owned.by_shard[home] -= 1;
            self.drop_if_empty(vni);
        }
    }

    /// Ends everything of a session; its routes go over the next turns.
    pub(super) fn gone(&mut self, peer: PeerId) {
        for vni in self.presence.remove(&peer).unwrap_or_default() {
            self.unsubscribe(peer, vni);
            if self.tables.contains_key(&vni) {
                self.departures.push_back((peer, vni));
            }
        }
    }

    /// Ends a turn: hands out what changed and does some of the work that waits.
    pub(super) fn turn(&mut self) {
        self.depart();
        for (peer, routes) in self.refused.drain() {
            let home = self.topology.home(peer);
            self.outgoing
                .push((home, Message::Refused { peer, routes }));
        }
        while let Some(vni) = self.dirty.pop() {
            self.flush(vni);
        }
        let Some(vni) = self.compacting.pop_front() else {
            return;
        };
        let Some(owned) = self.tables.get_mut(&vni) else {
            return;
        };
        owned.table.compact(&self.hops, COMPACTION_PER_TURN);
        owned.compacting = owned.table.wants_compaction();
        if owned.compacting {
            self.compacting.push_back(vni);
        }
    }

    /// Whether another turn has something to do without any input.
    pub(super) fn has_work(&self) -> bool {
        !self.departures.is_empty() || !self.compacting.is_empty()
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.outgoing)
    }

    pub(super) fn routes(&self) -> usize {
        self.routes
    }

    pub(super) fn vnis(&self) -> usize {
        self.tables.len()
    }

    fn depart(&mut self) {
        let mut budget = DEPARTURES_PER_TURN;
        while budget > 0 {
            let Some(&(peer, vni)) = self.departures.front() else {
                return;
            };
            if !self.tables.contains_key(&vni) {
                self.departures.pop_front();
                continue;
            }
            let mut had_one = false;
            self.change(vni, peer, |table, hops| {
                let withdrawn = table.withdraw_one(hops, peer);
                had_one = withdrawn.is_some();
                withdrawn.flatten()
            });
            if !had_one {
                self.departures.pop_front();
            }
            budget -= 1;
        }
    }

    /// Changes a table that is there, and remembers to tell the subscribers.
    fn change(
        &mut self,
        vni: Vni,
        peer: PeerId,
        change: impl FnOnce(&mut VniTable, &mut NextHops) -> Option<ChangeForOne>,
    ) {
        let owned = self.tables.get_mut(&vni).expect("the caller saw the table");
        let (routes, own) = (owned.table.len(), owned.table.announced_by(peer));
        let told = change(&mut owned.table, &mut self.hops);
        let own_now = owned.table.announced_by(peer);
        let routes_now = owned.table.len();
        self.routes = self.routes + routes_now - routes;
        self.live_vnis += usize::from(routes == 0 && routes_now > 0);
        self.live_vnis -= usize::from(routes > 0 && routes_now == 0);
        if own_now != own {
            self.changes += 1;
            self.announcements = self.announcements + own_now - own;
            let announced = self.announced.entry(peer).or_insert(0);
            *announced = *announced + own_now - own;
            if *announced == 0 {
                self.announced.remove(&peer);
            }
            count_vni(&mut self.announced_vnis, peer, own > 0, own_now > 0);
        }
        if !std::mem::replace(&mut owned.dirty, true) {
            self.dirty.push(vni);
        }
        if let Some(told) = told
            && owned.subscribers.contains_key(&told.to)
        {
            self.tell_one(vni, &told);
        }
    }

    /// Tells a single subscriber what changed for it alone.
    fn tell_one(&mut self, vni: Vni, told: &ChangeForOne) {
        // What was logged before that change must be heard before it.
        self.flush(vni);
        let mut frame = Vec::new();
        encode_update(&mut frame, told.action, vni, &told.route);
        let message = Message::ChangeForOne {
            peer: told.to,
            vni,
            span: Span::whole(Segment::unmarked(frame, 1)),
        };
        let home = self.topology.home(told.to);
        self.outgoing.push((home, message));
    }

    /// Hands what is fresh in a table to the shards that have subscribers.
    fn flush(&mut self, vni: Vni) {
        let Some(owned) = self.tables.get_mut(&vni) else {
            return;
        };
        owned.dirty = false;
        let spans = owned.table.take_fresh();
        if !spans.is_empty() {
            if let Some(watched) = &mut self.watched {
                watched.push((vni, spans.clone()));
            }
            for (shard, _) in owned.by_shard.iter().enumerate().filter(|(_, n)| **n > 0) {
                let spans = spans.clone();
                self.outgoing.push((shard, Message::Changes { vni, spans }));
            }
        }
        if owned.table.wants_compaction() && !owned.compacting {
            owned.compacting = true;
            self.compacting.push_back(vni);
        }
        self.drop_if_empty(vni);
    }

    /// Makes the table of a VNI if it is not there.
    fn make(&mut self, vni: Vni) {
        let (seed, shards) = (self.seed, self.topology.shards());
        self.tables.entry(vni).or_insert_with(|| Owned {
            table: VniTable::new(vni, seed),
            subscribers: map(seed),
            by_shard: vec![0; shards],
            dirty: false,
            compacting: false,
        });
    }

    /// Forgets a VNI that nobody announces in and nobody subscribes to.
    fn drop_if_empty(&mut self, vni: Vni) {
        let idle =
            |owned: &Owned| owned.table.is_empty() && owned.subscribers.is_empty() && !owned.dirty;
        if self.tables.get(&vni).is_some_and(idle) {
            self.tables.remove(&vni);
        }
    }
}

/// Counts a VNI that a peer begins or ceases to announce in.
fn count_vni(vnis: &mut Map<PeerId, usize>, peer: PeerId, before: bool, after: bool) {
    match (before, after) {
        (false, true) => *vnis.entry(peer).or_insert(0) += 1,
        (true, false) => {
            let count = vnis.get_mut(&peer);
            let left = count.map_or(0, |count| {
                *count -= 1;
                *count
            });
            if left == 0 {
                vnis.remove(&peer);
            }
        }
        (false, false) | (true, true) => {}
    }
}
