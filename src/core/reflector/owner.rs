//! The half of a shard that owns tables: requests in, tables and changes out.

mod bare;
mod joins;
mod read;
mod reclaim;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

pub(crate) use read::RouteCursor;

use super::memory::{Pressure, Segments, Usage};
use super::message::{Message, Refusal, Topology};
use super::meter::{self, Meter};
use crate::core::map::{Map, map};
use crate::core::rib::{History, NextHops, PeerId, Span, VniTable};
use crate::core::types::{Action, Vni};
use crate::core::wire::Update;
use bare::Bare;
use joins::{Join, Joins};

/// The tables of the VNIs that a shard owns.
#[derive(Debug)]
pub(crate) struct Owner {
    topology: Topology,
    /// VNIs with routes, or with a change to hand out. Boxed: a map has room for up to twice as
    /// many.
    vnis: Map<Vni, Box<Owned>>,
    /// The subscribers of the other VNIs.
    bare: Bare,
    hops: NextHops,
    /// Changed, and not yet handed out.
    dirty: VecDeque<Vni>,
    joins: Joins,
    departures: VecDeque<(PeerId, BTreeSet<Vni>)>,
    compacting: VecDeque<Vni>,
    /// Tables that are to give back what they can spare; the next one last.
    reclaiming: Vec<Vni>,
    /// Messages for homes, with the number of the shard.
    outgoing: Vec<(usize, Message)>,
    routes: usize,
    limits: Limits,
    /// Announcements here, of everybody and of each peer.
    announcements: usize,
    announcers: Map<PeerId, Announcer>,
    /// VNIs that have routes here.
    live_vnis: usize,
    /// Announcements at the other owners, when they were last heard of.
    remote_announcements: usize,
    /// Refused in this turn.
    refused: Map<PeerId, (u64, (Vni, Refusal))>,
    /// Announcements that came or went, so far.
    changes: u64,
    /// Changes for those who watch all tables, while there are any.
    watched: Option<Vec<(Vni, Vec<Span>)>>,
    /// Bytes of all tables.
    table_bytes: usize,
    /// Handed out, and in no log.
    segments: Segments,
    pressure: Pressure,
    /// Bytes that tables may grow by until the next turn.
    room: usize,
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

/// What a peer announces here.
#[derive(Debug, Default)]
struct Announcer {
    routes: usize,
    /// Where; nothing once the peer has departed.
    vnis: BTreeSet<Vni>,
}

#[derive(Debug)]
struct Owned {
    table: VniTable,
    /// How many subscribers live on each shard; empty if there are none.
    by_shard: Box<[u32]>,
    /// Stands in `dirty`.
    dirty: bool,
    /// Stands in `compacting`.
    compacting: bool,
    /// Bytes of the table as they were last counted.
    counted: usize,
}

impl Owned {
    fn subscribers(&self) -> usize {
        self.by_shard.iter().map(|it| *it as usize).sum()
    }

    /// Brings the bytes of all tables up to date.
    fn count_bytes(&mut self, all: &mut usize) {
        let bytes = self.table.heap_bytes();
        *all = *all - self.counted + bytes;
        self.counted = bytes;
    }
}

impl Owner {
    pub(super) fn new(topology: Topology, limits: Limits, seed: u64) -> Self {
        Self {
            topology,
            vnis: map(seed),
            bare: Bare::new(topology.shards(), seed),
            hops: NextHops::new(seed),
            dirty: VecDeque::new(),
            joins: Joins::new(seed),
            departures: VecDeque::new(),
            compacting: VecDeque::new(),
            reclaiming: Vec::new(),
            outgoing: Vec::new(),
            routes: 0,
            limits,
            announcements: 0,
            announcers: map(seed),
            live_vnis: 0,
            remote_announcements: 0,
            refused: map(seed),
            changes: 0,
            watched: None,
            table_bytes: 0,
            segments: Segments::default(),
            pressure: Pressure::None,
            room: usize::MAX,
        }
    }

    /// Says how short memory is, and how many bytes there are until it is short.
    pub(super) fn set_pressure(&mut self, pressure: Pressure, room: usize) {
        self.pressure = pressure;
        self.room = room;
    }

    fn history(&self) -> History {
        match self.pressure {
            Pressure::None => History::Usual,
            Pressure::High | Pressure::Over => History::Short,
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
            Action::Add => {
                if let Err(why) = self.admit(peer, vni) {
                    self.refuse(peer, vni, why);
                    return;
                }
                let bare = &mut self.bare;
                let owned = self.vnis.entry(vni).or_insert_with(|| {
                    Box::new(Owned {
                        table: VniTable::new(vni),
                        by_shard: bare.take(vni),
                        dirty: false,
                        compacting: false,
                        counted: 0,
                    })
                });
                let growth = owned.table.growth();
                if growth > self.room {
                    self.refuse(peer, vni, Refusal::Memory);
                    return;
                }
                self.room -= growth;
            }
            Action::Remove => {
                if !self.vnis.contains_key(&vni) {
                    return;
                }
            }
        }
        self.change(vni, peer, |table, hops| {
            table.apply(hops, peer, update.action, &update.route);
        });
    }

    fn refuse(&mut self, peer: PeerId, vni: Vni, why: Refusal) {
        let (routes, last) = self.refused.entry(peer).or_insert((0, (vni, why)));
        *routes += 1;
        *last = (vni, why);
    }

    /// Returns why a peer may not announce one more route in a VNI.
    ///
    /// At the limit a repeated announcement is refused too; it would change nothing.
    fn admit(&self, peer: PeerId, vni: Vni) -> Result<(), Refusal> {
        if self.announcements + self.remote_announcements >= self.limits.routes {
            return Err(Refusal::Routes);
        }
        if self.pressure != Pressure::None {
            return Err(Refusal::Memory);
        }
        let own = self.announcers.get(&peer);
        if own.is_some_and(|own| own.routes >= self.limits.routes_per_peer) {
            return Err(Refusal::RoutesOfPeer);
        }
        let is_live = || {
            let owned = self.vnis.get(&vni);
            owned.is_some_and(|owned| !owned.table.is_empty())
        };
        let (own_vnis, is_own) = own.map_or((0, false), |own| {
            let is_full = own.vnis.len() >= self.limits.vnis_per_peer;
            (own.vnis.len(), is_full && own.vnis.contains(&vni))
        });
        if own_vnis >= self.limits.vnis_per_peer && !is_own {
            return Err(Refusal::VnisOfPeer);
        }
        if self.live_vnis >= self.limits.vnis && !is_live() {
            return Err(Refusal::Vnis);
        }
        Ok(())
    }

    /// Has a session sent the table of a VNI, and its changes from then on: at the end of the
    /// turn, or when those before it are served.
    pub(super) fn subscribe(&mut self, peer: PeerId, vni: Vni, epoch: u32) {
        self.joins.push(Join { peer, vni, epoch });
    }

    /// Serves those who wait for a table.
    pub(super) fn serve_joins(&mut self, meter: &mut Meter) {
        while !meter.is_spent() && self.has_joins() {
            meter.charge(1);
            if let Some(join) = self.joins.pop() {
                self.join(join, meter);
            }
        }
    }

    /// Whether somebody waits for a table and there is memory to queue it.
    fn has_joins(&self) -> bool {
        self.pressure != Pressure::Over && !self.joins.is_empty()
    }

    fn join(&mut self, Join { peer, vni, epoch }: Join, meter: &mut Meter) {
        let fresh = self.flush(vni);
        meter.charge(fresh + meter::SEAL * usize::from(fresh > 0));
        let home = self.topology.home(peer);
        let mut spans = Vec::new();
        match self.vnis.get_mut(&vni) {
            Some(owned) => {
                if owned.by_shard.is_empty() {
                    owned.by_shard = vec![0; self.topology.shards()].into_boxed_slice();
                }
                owned.by_shard[home] += 1;
                spans = owned.table.join();
            }
            None => self.bare.add(vni, home),
        }
        meter.charge(meter::JOIN + meter::SPAN * spans.len());
        let message = Message::Table {
            peer,
            vni,
            epoch,
            spans,
        };
        self.outgoing.push((home, message));
    }

    /// Ends the flow of a VNI to a session, or its wait for one; its announcements stay.
    ///
    /// The home asks for it once for each subscription, also when the session is gone.
    pub(super) fn unsubscribe(&mut self, peer: PeerId, vni: Vni) {
        if self.joins.cancel(peer, vni) {
            return;
        }
        let home = self.topology.home(peer);
        match self.vnis.get_mut(&vni) {
            Some(owned) => {
                if let Some(count) = owned.by_shard.get_mut(home) {
                    *count -= 1;
                }
            }
            None => self.bare.remove(vni, home),
        }
    }

    /// Ends what a session announced, over the next turns.
    pub(super) fn gone(&mut self, peer: PeerId) {
        if let Some(announcer) = self.announcers.get_mut(&peer) {
            let vnis = std::mem::take(&mut announcer.vnis);
            self.departures.push_back((peer, vnis));
        }
    }

    /// Begins the work of a turn.
    pub(super) fn begin_work(&mut self) {
        for (peer, (routes, last)) in self.refused.drain() {
            let home = self.topology.home(peer);
            let message = Message::Refused { peer, routes, last };
            self.outgoing.push((home, message));
        }
    }

    /// Looks which segments are still held.
    pub(super) fn sweep_segments(&mut self, meter: &mut Meter) {
        self.segments.sweep(meter);
    }

    /// Hands out what changed.
    pub(super) fn hand_out(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some(vni) = self.dirty.pop_front()
        {
            meter.charge(meter::VNI + self.flush(vni));
        }
    }

    /// Rewrites some of the logs that have outgrown their tables, and has some tables give back
    /// what they do not need; those not as long as peers leave, with whom more may go.
    pub(super) fn compact(&mut self, meter: &mut Meter) {
        let history = self.history();
        let is_leaving = !self.departures.is_empty();
        for _ in 0..self.compacting.len() {
            if meter.is_spent() {
                return;
            }
            let Some(vni) = self.compacting.pop_front() else {
                return;
            };
            meter.charge(meter::VNI + self.flush(vni));
            let is_due = |it: &Owned| !is_leaving || it.table.wants_rewriting(history);
            if self.vnis.get(&vni).is_some_and(|it| is_due(it)) {
                self.compact_some(vni, history, meter);
            }
            if let Some(owned) = self.vnis.get_mut(&vni) {
                owned.compacting = owned.table.wants_compaction(history);
                if owned.compacting {
                    self.compacting.push_back(vni);
                }
            }
        }
    }

    /// Rewrites some of the log of a VNI, of which nothing is fresh.
    fn compact_some(&mut self, vni: Vni, history: History, meter: &mut Meter) {
        let Some(owned) = self.vnis.get_mut(&vni) else {
            return;
        };
        let budget = meter.steps(meter::SLOT);
        let compacted = owned.table.compact(&self.hops, history, budget);
        meter.charge(meter::SLOT * compacted.slots);
        // What somebody still sends is on nobody's account any more.
        for segment in compacted.old.iter().filter(|it| Arc::strong_count(it) > 1) {
            meter.charge(1);
            self.segments.add(segment);
        }
        owned.count_bytes(&mut self.table_bytes);
    }

    /// Whether another turn has something to do without any input.
    pub(super) fn has_work(&self) -> bool {
        !self.departures.is_empty()
            || !self.compacting.is_empty()
            || !self.reclaiming.is_empty()
            || self.has_joins()
            || !self.dirty.is_empty()
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.outgoing)
    }

    pub(super) fn routes(&self) -> usize {
        self.routes
    }

    pub(super) fn vnis(&self) -> usize {
        self.vnis.len() + self.bare.len()
    }

    /// Withdraws routes of peers that are gone.
    pub(super) fn depart(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some((peer, vnis)) = self.departures.front_mut()
        {
            let peer = *peer;
            let Some(&vni) = vnis.first() else {
                self.departures.pop_front();
                continue;
            };
            meter.charge(meter::VNI);
            let announced_by = |it: &Self| {
                it.vnis
                    .get(&vni)
                    .map_or(0, |it| it.table.announced_by(peer))
            };
            let mut has_more = announced_by(self) > 0;
            while has_more && !meter.is_spent() {
                meter.charge(meter::WITHDRAWAL);
                self.change(vni, peer, |table, hops| {
                    has_more = table.withdraw_one(hops, peer) && table.announced_by(peer) > 0;
                });
            }
            if !has_more && let Some((_, vnis)) = self.departures.front_mut() {
                vnis.pop_first();
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
        let table = &mut owned.table;
        let (routes, own) = (table.len(), table.announced_by(peer));
        change(table, &mut self.hops);
        let own_now = table.announced_by(peer);
        let routes_now = table.len();
        self.routes = self.routes + routes_now - routes;
        self.live_vnis += usize::from(routes == 0 && routes_now > 0);
        self.live_vnis -= usize::from(routes > 0 && routes_now == 0);
        if !std::mem::replace(&mut owned.dirty, true) {
            self.dirty.push_back(vni);
        }
        if own_now == own {
            return;
        }
        self.changes += 1;
        self.announcements = self.announcements + own_now - own;
        let announcer = self.announcers.entry(peer).or_default();
        announcer.routes = announcer.routes + own_now - own;
        if own == 0 {
            announcer.vnis.insert(vni);
        }
        if own_now == 0 {
            announcer.vnis.remove(&vni);
        }
        if announcer.routes == 0 {
            self.announcers.remove(&peer);
        }
    }

    /// Hands what is fresh in a table to the shards that have subscribers. Returns what that
    /// costs this shard, in units of a [`Meter`].
    fn flush(&mut self, vni: Vni) -> usize {
        let history = self.history();
        let Some(owned) = self.vnis.get_mut(&vni) else {
            return 0;
        };
        let mut cost = meter::SLOT * owned.table.contested();
        let spans = owned.table.take_fresh(&self.hops);
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
            let here = owned.by_shard.get(self.topology.owner(vni));
            let here = here.map_or(0, |it| *it as usize);
            // Apart from what a subscriber has to do with itself, which was paid for when it
            // changed, a span is at most two pieces: before and behind what is for single peers.
            cost += 2 * spans.len() * (1 + here);
        }
        for span in spans.iter().filter(|it| !it.is_in_log()) {
            self.segments.add(span.segment());
        }
        owned.dirty = false;
        owned.count_bytes(&mut self.table_bytes);
        if owned.table.is_empty() {
            self.drop_table(vni);
        } else if owned.table.wants_compaction(history) && !owned.compacting {
            owned.compacting = true;
            self.compacting.push_back(vni);
        }
        cost
    }

    /// Gives back the table of a VNI without routes.
    fn drop_table(&mut self, vni: Vni) {
        if let Some(owned) = self.vnis.remove(&vni) {
            self.table_bytes -= owned.counted;
            self.bare.put(vni, owned.by_shard);
            for segment in owned.table.into_segments() {
                if Arc::strong_count(&segment) > 1 {
                    self.segments.add(&segment);
                }
            }
        }
        if self.vnis.len() * 8 < self.vnis.capacity() {
            self.vnis.shrink_to(self.vnis.len() * 2);
        }
    }
}
