//! The half of a shard that owns tables: requests in, tables and changes out.

mod joins;
mod read;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

pub(crate) use read::RouteCursor;

use super::message::{Message, Topology};
use super::meter::{self, Meter};
use crate::core::map::{Map, map};
use crate::core::rib::{NextHops, PeerId, Span, VniTable};
use crate::core::types::{Action, Vni};
use crate::core::wire::Update;
use joins::{Join, Joins};

/// The tables of the VNIs that a shard owns.
#[derive(Debug)]
pub(crate) struct Owner {
    topology: Topology,
    seed: u64,
    vnis: Map<Vni, Owned>,
    hops: NextHops,
    /// Where a peer announces or subscribes.
    presence: Map<PeerId, BTreeMap<Vni, Interest>>,
    /// Changed, and not yet handed out.
    dirty: VecDeque<Vni>,
    joins: Joins,
    /// What joins may still cost in this turn.
    join_meter: Meter,
    departures: VecDeque<(PeerId, BTreeMap<Vni, Interest>)>,
    compacting: VecDeque<Vni>,
    /// Messages for homes, with the number of the shard.
    outgoing: Vec<(usize, Message)>,
    routes: usize,
    limits: Limits,
    /// Announcements here, of everybody and of each peer.
    announcements: usize,
    announced: Map<PeerId, usize>,
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
}

/// What a peer wants of a VNI in which it is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    /// Nothing: it only announces.
    None,
    /// Its table, in the subscription of this epoch.
    Waits(u32),
    /// Its changes; the table was handed out.
    Subscribes,
}

#[derive(Debug, Default)]
struct Owned {
    /// As long as there is a route, or a change to hand out.
    table: Option<Box<VniTable>>,
    /// How many subscribers live on each shard; empty as long as there was none.
    by_shard: Box<[u32]>,
    /// Stands in `dirty`.
    dirty: bool,
    /// Stands in `compacting`.
    compacting: bool,
}

impl Owned {
    fn subscribers(&self) -> usize {
        self.by_shard.iter().map(|it| *it as usize).sum()
    }

    fn announced_by(&self, peer: PeerId) -> usize {
        let table = self.table.as_ref();
        table.map_or(0, |table| table.announced_by(peer))
    }
}

impl Owner {
    pub(super) fn new(topology: Topology, limits: Limits, seed: u64) -> Self {
        Self {
            topology,
            seed,
            vnis: map(seed),
            hops: NextHops::new(seed),
            presence: map(seed),
            dirty: VecDeque::new(),
            joins: Joins::new(seed),
            join_meter: Meter::full(),
            departures: VecDeque::new(),
            compacting: VecDeque::new(),
            outgoing: Vec::new(),
            routes: 0,
            limits,
            announcements: 0,
            announced: map(seed),
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
        match update.action {
            Action::Add if !self.admits(peer) => {
                *self.refused.entry(peer).or_insert(0) += 1;
                return;
            }
            Action::Add => {
                let owned = self.vnis.entry(vni).or_default();
                if owned.announced_by(peer) == 0 {
                    let present = self.presence.entry(peer).or_default();
                    present.entry(vni).or_insert(Interest::None);
                }
            }
            Action::Remove => {
                if self.vnis.get(&vni).is_none_or(|it| it.table.is_none()) {
                    return;
                }
            }
        }
        self.change(vni, peer, |table, hops| {
            table.apply(hops, peer, update.action, &update.route);
        });
    }

    /// Whether a peer may announce one more route.
    ///
    /// At the limit a repeated announcement is refused too; it would change nothing.
    fn admits(&self, peer: PeerId) -> bool {
        let own = self.announced.get(&peer).copied().unwrap_or(0);
        own < self.limits.routes_per_peer
            && self.announcements + self.remote_announcements < self.limits.routes
    }

    /// Sends a session the table of a VNI, and its changes from now on.
    ///
    /// At once, if nobody waits and the turn has room; otherwise the session waits in line.
    pub(super) fn subscribe(&mut self, peer: PeerId, vni: Vni, epoch: u32) {
        let present = self.presence.entry(peer).or_default();
        if let Some(Interest::Subscribes) = present.insert(vni, Interest::Waits(epoch)) {
            self.count_out(peer, vni);
        }
        let join = Join { peer, vni, epoch };
        if self.joins.is_empty() && !self.join_meter.is_spent() {
            self.join(join);
        } else {
            self.joins.push(join);
        }
    }

    /// Serves those who wait for a table.
    fn serve_joins(&mut self) {
        while !self.join_meter.is_spent()
            && let Some(join) = self.joins.pop()
        {
            self.join_meter.charge(1);
            let present = self.presence.get(&join.peer);
            let interest = present.and_then(|it| it.get(&join.vni));
            if interest == Some(&Interest::Waits(join.epoch)) {
                self.join(join);
            }
        }
    }

    fn join(&mut self, Join { peer, vni, epoch }: Join) {
        self.flush(vni);
        let home = self.topology.home(peer);
        let owned = self.vnis.entry(vni).or_default();
        if owned.by_shard.is_empty() {
            owned.by_shard = vec![0; self.topology.shards()].into_boxed_slice();
        }
        owned.by_shard[home] += 1;
        let table = owned.table.as_mut();
        let spans = table.map_or_else(Vec::new, |table| table.join(peer));
        let present = self.presence.entry(peer).or_default();
        present.insert(vni, Interest::Subscribes);
        self.join_meter
            .charge(meter::JOIN + meter::SPAN * spans.len());
        let message = Message::Table {
            peer,
            vni,
            epoch,
            spans,
        };
        self.outgoing.push((home, message));
    }

    /// Ends the flow of a VNI to a session, or its wait for one; its announcements stay.
    pub(super) fn unsubscribe(&mut self, peer: PeerId, vni: Vni) {
        let announces = self
            .vnis
            .get(&vni)
            .is_some_and(|it| it.announced_by(peer) > 0);
        let Some(present) = self.presence.get_mut(&peer) else {
            return;
        };
        let Entry::Occupied(mut interest) = present.entry(vni) else {
            return;
        };
        let before = match announces {
            true => interest.insert(Interest::None),
            false => interest.remove(),
        };
        let present = &*present;
        match before {
            Interest::Subscribes => self.count_out(peer, vni),
            Interest::Waits(_) => self.joins.tidy(peer, present.len(), |vni, epoch| {
                present.get(&vni) == Some(&Interest::Waits(epoch))
            }),
            Interest::None => {}
        }
        self.drop_absent(peer);
    }

    /// Counts one subscriber of a VNI less.
    fn count_out(&mut self, peer: PeerId, vni: Vni) {
        let home = self.topology.home(peer);
        if let Some(owned) = self.vnis.get_mut(&vni) {
            owned.by_shard[home] -= 1;
            self.drop_if_empty(vni);
        }
    }

    /// Forgets a peer that is present nowhere.
    fn drop_absent(&mut self, peer: PeerId) {
        if self.presence.get(&peer).is_some_and(BTreeMap::is_empty) {
            self.presence.remove(&peer);
        }
        if self.presence.len() * 8 < self.presence.capacity() {
            self.presence.shrink_to(self.presence.len() * 2);
        }
    }

    /// Ends everything of a session; its routes and subscriptions go over the next turns.
    pub(super) fn gone(&mut self, peer: PeerId) {
        self.joins.forget(peer);
        if let Some(present) = self.presence.remove(&peer) {
            self.departures.push_back((peer, present));
        }
    }

    /// Ends a turn: hands out what changed and does some of the work that waits.
    pub(super) fn turn(&mut self) {
        self.depart();
        self.join_meter = Meter::full();
        self.serve_joins();
        for (peer, routes) in self.refused.drain() {
            let home = self.topology.home(peer);
            self.outgoing
                .push((home, Message::Refused { peer, routes }));
        }
        let mut meter = Meter::full();
        while !meter.is_spent()
            && let Some(vni) = self.dirty.pop_front()
        {
            meter.charge(meter::VNI + self.flush(vni));
        }
        self.compact();
    }

    /// Rewrites some of the logs that have outgrown their tables.
    fn compact(&mut self) {
        let mut meter = Meter::full();
        while !meter.is_spent()
            && let Some(vni) = self.compacting.pop_front()
        {
            meter.charge(meter::VNI + self.flush(vni));
            let Some(owned) = self.vnis.get_mut(&vni) else {
                continue;
            };
            let Some(table) = &mut owned.table else {
                owned.compacting = false;
                continue;
            };
            let budget = meter.steps(meter::SLOT);
            meter.charge(meter::SLOT * table.compact(&self.hops, budget));
            owned.compacting = table.wants_compaction();
            if owned.compacting {
                self.compacting.push_back(vni);
            }
        }
    }

    /// Whether another turn has something to do without any input.
    pub(super) fn has_work(&self) -> bool {
        !self.departures.is_empty()
            || !self.compacting.is_empty()
            || !self.joins.is_empty()
            || !self.dirty.is_empty()
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.outgoing)
    }

    pub(super) fn routes(&self) -> usize {
        self.routes
    }

    pub(super) fn vnis(&self) -> usize {
        self.vnis.len()
    }

    /// Withdraws routes of peers that are gone, and ends their subscriptions.
    fn depart(&mut self) {
        let mut meter = Meter::full();
        while !meter.is_spent()
            && let Some((peer, present)) = self.departures.front_mut()
        {
            let peer = *peer;
            let Some(mut first) = present.first_entry() else {
                self.departures.pop_front();
                continue;
            };
            let vni = *first.key();
            let interest = first.insert(Interest::None);
            meter.charge(meter::VNI);
            if interest == Interest::Subscribes {
                self.count_out(peer, vni);
            }
            let mut has_more = self
                .vnis
                .get(&vni)
                .is_some_and(|it| it.announced_by(peer) > 0);
            while has_more && !meter.is_spent() {
                meter.charge(meter::WITHDRAWAL);
                self.change(vni, peer, |table, hops| {
                    has_more = table.withdraw_one(hops, peer) && table.announced_by(peer) > 0;
                });
            }
            if !has_more && let Some((_, present)) = self.departures.front_mut() {
                present.remove(&vni);
            }
        }
    }

    /// Changes the table of a VNI that is there, and remembers to tell the subscribers.
    fn change(
        &mut self,
        vni: Vni,
        peer: PeerId,
        change: impl FnOnce(&mut VniTable, &mut NextHops),
    ) {
        let owned = self.vnis.get_mut(&vni).expect("the caller saw the VNI");
        let table = owned
            .table
            .get_or_insert_with(|| Box::new(VniTable::new(vni, self.seed)));
        let (routes, own) = (table.len(), table.announced_by(peer));
        change(table, &mut self.hops);
        let own_now = table.announced_by(peer);
        self.routes = self.routes + table.len() - routes;
        if !std::mem::replace(&mut owned.dirty, true) {
            self.dirty.push_back(vni);
        }
        if own_now == own {
            return;
        }
        self.changes += 1;
        self.announcements = self.announcements + own_now - own;
        let announced = self.announced.entry(peer).or_insert(0);
        *announced = *announced + own_now - own;
        if *announced == 0 {
            self.announced.remove(&peer);
        }
        if own_now == 0
            && let Some(present) = self.presence.get_mut(&peer)
            && present.get(&vni) == Some(&Interest::None)
        {
            present.remove(&vni);
            self.drop_absent(peer);
        }
    }

    /// Hands what is fresh in a table to the shards that have subscribers. Returns what that
    /// costs them, in units of a [`Meter`].
    fn flush(&mut self, vni: Vni) -> usize {
        let Some(owned) = self.vnis.get_mut(&vni) else {
            return 0;
        };
        let Some(table) = &mut owned.table else {
            return 0;
        };
        let spans = table.take_fresh();
        let mut cost = 0;
        if !spans.is_empty() {
            if let Some(watched) = &mut self.watched {
                let mut seen = Vec::new();
                for span in &spans {
                    let push = &mut |span| seen.push(span);
                    span.clone().for_peer(PeerId::NOBODY, push);
                }
                watched.push((vni, seen));
            }
            for (shard, _) in owned.by_shard.iter().enumerate().filter(|(_, n)| **n > 0) {
                let spans = spans.clone();
                self.outgoing.push((shard, Message::Changes { vni, spans }));
            }
            cost = spans.len() * owned.subscribers() / self.topology.shards();
        }
        let table = owned.table.as_ref();
        if table.is_some_and(|it| it.wants_compaction()) && !owned.compacting {
            owned.compacting = true;
            self.compacting.push_back(vni);
        }
        owned.dirty = false;
        self.drop_if_empty(vni);
        cost
    }

    /// Gives back the table of a VNI without routes, and the VNI if nobody subscribes either.
    fn drop_if_empty(&mut self, vni: Vni) {
        let Some(owned) = self.vnis.get_mut(&vni) else {
            return;
        };
        if owned.dirty || owned.table.as_ref().is_some_and(|it| !it.is_empty()) {
            return;
        }
        owned.table = None;
        if owned.subscribers() == 0 {
            self.vnis.remove(&vni);
            if self.vnis.len() * 8 < self.vnis.capacity() {
                self.vnis.shrink_to(self.vnis.len() * 2);
            }
        }
    }
}
