//! A shard of the server without its thread: sessions and tables, driven by bytes,
//! instants and messages of other shards.
//!
//! A session lives on one shard, its *home*; the table of a VNI lives on one
//! shard, its *owner*. Requests go home to owner, tables and changes owner to
//! home; per pair of shards in order, so that a subscriber hears a table and then
//! every change to it, once. [`Topology`] alone says which shard that is.
//!
//! ```text
//! bytes -> session -> Request ---> owner: table, log
//!                                    |
//! bytes <- outbox  <- Table, Changes
//! ```
//!
//! The caller feeds `receive`, `deliver`, `handle_timeouts`, then calls `turn` and
//! drains `take_messages`, `take_queue_queries` (with `report_queue`), `take_ready` (with `gather`
//! and `advance`), `poll_report`.
//!
//! This file routes: it hands each request and each message to the home or the owner in
//! this shard, or queues it for another one.

mod coalesce;
mod config;
mod home;
mod memory;
mod message;
mod meter;
mod outbox;
mod owner;
mod pile;
mod read;
#[cfg(test)]
mod tests;
mod work;

use std::io::IoSlice;
use std::time::Instant;

#[cfg(feature = "internals")]
pub(crate) use coalesce::coalesce_frames;
pub(crate) use config::ShardConfig;
use home::Home;
pub(crate) use home::{PeerCounters, Report, SessionView};
use memory::{Measure, Relief};
pub(crate) use memory::{Pressure, Usage};
use message::Request;
pub(crate) use message::{Message, Topology};
use meter::Meter;
pub(crate) use meter::Phase;
use owner::Owner;
pub(crate) use owner::{Limits, RouteCursor};
pub(crate) use read::Gauges;
use work::Kind;

use crate::core::pace::{Framing, SendQueue};
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::core::wire::{NoticeCode, Update};

/// A session that holds less than the mean by this factor is never closed for memory.
const SMALL_SHARE: usize = 8;

/// One shard: the home of some sessions and the owner of some VNIs.
#[derive(Debug)]
pub(crate) struct Shard {
    id: usize,
    topology: Topology,
    home: Home,
    owner: Owner,
    /// For each shard, what waits for it.
    outgoing: Vec<Vec<Message>>,
    memory_limit: usize,
    /// Bytes at the other shards, when they were last heard of.
    remote_bytes: usize,
    relief: Relief,
    /// What is left of this turn.
    meter: Meter,
    /// Units of a [`Meter`] in a turn.
    per_turn: usize,
    /// The work that the next turn begins with.
    next_work: Kind,
    /// What the last turn cost.
    #[cfg(test)]
    used: usize,
}

impl Shard {
    /// Makes shard number `id` of a server.
    pub(crate) fn new(id: usize, topology: Topology, config: ShardConfig, now: Instant) -> Self {
        Self {
            id,
            topology,
            home: Home::new(config, now),
            owner: Owner::new(topology, config.limits, config.seed),
            outgoing: (0..topology.shards()).map(|_| Vec::new()).collect(),
            memory_limit: config.memory_limit,
            remote_bytes: 0,
            relief: Relief::default(),
            meter: Meter::of(meter::PER_TURN),
            per_turn: meter::PER_TURN,
            next_work: Kind::FIRST,
            #[cfg(test)]
            used: 0,
        }
    }

    /// Begins a session on a new connection. Returns `false` if the peer's id is in use.
    ///
    /// If it turns out to be a legacy peer, its pace is halved `halvings` times.
    pub(crate) fn open(&mut self, id: PeerId, halvings: u8, now: Instant) -> bool {
        debug_assert_eq!(self.topology.home(id), self.id);
        self.home.open(id, halvings, now)
    }

    /// Replaces the limits, and the settings of new sessions. The identity of this server
    /// and its seed stay.
    pub(crate) fn reconfigure(&mut self, config: ShardConfig) {
        self.home.reconfigure(config);
        self.memory_limit = config.memory_limit;
        self.owner.set_limits(config.limits);
    }

    /// Ends a session, for a reason of the connection's.
    pub(crate) fn close(&mut self, id: PeerId, reason: CloseReason, now: Instant) {
        self.home.close(id, reason, now);
        self.route_departures();
    }

    /// Ends a session once everything that waits for it is sent.
    pub(crate) fn drain(&mut self, id: PeerId, now: Instant) {
        self.home.drain(id, now);
        self.route_departures();
    }

    /// Announces or withdraws in the name of the process. Returns whether that changed anything.
    ///
    /// The VNI must be owned here.
    pub(crate) fn update_own(&mut self, update: &Update, now: Instant) -> bool {
        debug_assert_eq!(self.topology.owner(update.vni), self.id);
        self.home.set_now(now);
        let before = self.owner.changes();
        self.owner.update(PeerId::SELF, update);
        self.route_owners_messages();
        self.owner.changes() != before
    }

    /// Takes bytes that came from a peer.
    pub(crate) fn receive(&mut self, id: PeerId, mut bytes: &[u8], now: Instant) {
        self.meter
            .charge(meter::READ + bytes.len() / meter::READ_BYTES);
        while let Some(request) = self.home.receive(id, &mut bytes, now, &mut self.meter) {
            self.route_request(id, request);
        }
        self.home.settle(id);
        self.route_departures();
        self.route_held_requests();
    }

    /// Takes what another shard sent, in order.
    pub(crate) fn deliver(&mut self, messages: Vec<Message>, now: Instant) {
        self.home.set_now(now);
        for message in messages {
            let cost = self.handle(message);
            self.meter.charge(cost);
        }
    }

    /// Does what is due at `now`.
    ///
    /// `has_unread` returns whether bytes of a session wait to be received. Such a session is
    /// not silent.
    pub(crate) fn handle_timeouts(&mut self, now: Instant, has_unread: impl FnMut(PeerId) -> bool) {
        self.home.handle_timeouts(now, has_unread);
        self.route_departures();
    }

    /// When [`Self::handle_timeouts`] or [`Self::turn`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.home.poll_timeout(), self.relief.poll_timeout()];
        due.into_iter().flatten().min()
    }

    /// Ends a turn of the caller's loop: sends on what changed in it.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.home.set_now(now);
        self.relieve(now);
        self.work();
        #[cfg(test)]
        {
            self.used = self.meter.used();
        }
        self.meter = Meter::of(self.per_turn);
    }

    /// Whether no more of what a phase brings is to be taken before the next [`Self::turn`].
    pub(crate) fn is_over(&self, phase: Phase) -> bool {
        self.meter.is_over(phase)
    }

    /// Does what is to be done when memory is short.
    fn relieve(&mut self, now: Instant) {
        let used = self.usage().total() + self.remote_bytes;
        let is_reclaiming = self.owner.is_reclaiming();
        let limit = self.memory_limit;
        let measure = self.relief.measure(used, limit, is_reclaiming, now);
        let room = memory::short_from(limit).saturating_sub(used);
        self.owner.set_pressure(self.relief.pressure(), room);
        self.home.set_pressure(self.relief.pressure());
        match measure {
            Measure::Nothing => {}
            Measure::Reclaim => self.owner.begin_reclaiming(),
            Measure::Shed => self.shed(used, limit),
        }
    }

    /// Closes the sessions that hold most, until what they hold would be enough.
    ///
    /// Whoever announces most is closed only where tables take more than what waits for sessions:
    /// it is not closed for what others do not read.
    fn shed(&mut self, used: usize, limit: usize) {
        // A shard knows its own sessions alone: the greatest of them may be small beside those of
        // another, which closes its own.
        let sessions = (self.home.len() + 1) * self.topology.shards();
        let least = used / (SMALL_SHARE * sessions);
        let usage = self.usage();
        let announcer = self.owner.greatest_announcer();
        let announcer = announcer.filter(|_| usage.tables >= usage.queues);
        let mut queues = self.home.greatest_queues();
        if let Some(announcer) = announcer
            && queues.first().is_none_or(|it| it.0 < announcer.1)
        {
            queues = vec![(announcer.1, announcer.0)];
        }
        let enough = used - limit + limit / 16;
        let mut freed = 0;
        for (bytes, peer) in queues {
            if bytes <= least || freed >= enough {
                return;
            }
            freed += bytes;
            self.send(self.topology.home(peer), Message::Shed { peer });
        }
    }

    /// What the shard has allocated.
    pub(crate) fn usage(&self) -> Usage {
        let (home, owner) = (self.home.usage(), self.owner.usage());
        Usage {
            tables: home.tables + owner.tables,
            queues: home.queues + owner.queues,
            sessions: home.sessions + owner.sessions,
        }
    }

    /// Tells how many bytes all else has allocated.
    pub(crate) fn set_remote_bytes(&mut self, bytes: usize) {
        self.remote_bytes = bytes;
    }

    /// Tells how many routes are announced at the other shards.
    pub(crate) fn set_remote_announcements(&mut self, announcements: usize) {
        self.owner.set_remote_announcements(announcements);
    }

    /// Whether another [`Self::turn`] is wanted at once.
    pub(crate) fn has_work(&self) -> bool {
        self.owner.has_work() || self.home.has_work()
    }

    /// Messages for another shard, in order.
    pub(crate) fn take_messages(&mut self, shard: usize) -> Vec<Message> {
        std::mem::take(&mut self.outgoing[shard])
    }

    /// Sessions that had nothing to send and have something to send since the last call.
    pub(crate) fn take_ready(&mut self) -> Vec<PeerId> {
        self.home.take_ready()
    }

    /// Sessions whose [`SendQueue`] is to be told to [`Self::report_queue`].
    pub(crate) fn take_queue_queries(&mut self) -> Vec<PeerId> {
        self.home.take_queue_queries()
    }

    /// Tells what the kernel knows at `now` of a session's connection.
    pub(crate) fn report_queue(&mut self, id: PeerId, queue: SendQueue, now: Instant) {
        self.home.report_queue(id, queue, now);
        self.route_departures();
    }

    /// Lends the next bytes for a peer, at most `budget`. Returns how many slices are filled.
    ///
    /// They are to be sent as [`Self::framing`] says.
    pub(crate) fn gather<'a>(
        &'a self,
        id: PeerId,
        slices: &mut [IoSlice<'a>],
        budget: usize,
    ) -> usize {
        self.home.gather(id, slices, budget)
    }

    /// How a peer's bytes are to be handed to the kernel.
    pub(crate) fn framing(&self, id: PeerId) -> Framing {
        self.home.framing(id)
    }

    /// Whether something can be sent to a peer at this moment.
    pub(crate) fn is_sendable(&self, id: PeerId) -> bool {
        self.home.is_sendable(id)
    }

    /// To be called when a connection that was full takes bytes again.
    pub(crate) fn resume(&mut self, id: PeerId, now: Instant) {
        self.home.resume(id, now, &mut self.meter);
        self.route_held_requests();
    }

    /// Drops the first `count` bytes for a peer: they were sent at `now`.
    pub(crate) fn advance(&mut self, id: PeerId, count: usize, now: Instant) {
        self.home.advance(id, count, now);
        self.route_departures();
        self.route_held_requests();
    }

    /// The next thing that the caller should know.
    pub(crate) fn poll_report(&mut self) -> Option<Report> {
        self.home.poll_report()
    }

    /// Hands a request of a session that lives here to the owner of its VNI.
    fn route_request(&mut self, id: PeerId, request: Request) {
        let message = match request {
            Request::Update(update) => {
                self.route_update(id, update);
                return;
            }
            Request::Subscribe { vni, epoch } => {
                let peer = id;
                Message::Subscribe { peer, vni, epoch }
            }
            Request::Unsubscribe(vni) => Message::Unsubscribe { peer: id, vni },
        };
        self.meter.charge(meter::VNI);
        self.send(self.topology.owner(request.vni()), message);
    }

    fn route_update(&mut self, id: PeerId, update: Update) {
        let owner = self.topology.owner(update.vni);
        if owner == self.id {
            self.meter.charge(meter::UPDATE);
            self.owner.update(id, &update);
            return;
        }
        self.meter.charge(1);
        match self.outgoing[owner].last_mut() {
            Some(Message::Updates { peer, updates }) if *peer == id => updates.push(update),
            _ => self.outgoing[owner].push(Message::Updates {
                peer: id,
                updates: vec![update],
            }),
        }
    }

    fn route_held_requests(&mut self) {
        for (id, request) in self.home.take_requests() {
            self.route_request(id, request);
        }
    }

    /// Tells every owner of the sessions that have ended.
    fn route_departures(&mut self) {
        for peer in self.home.take_gone() {
            for shard in 0..self.topology.shards() {
                self.send(shard, Message::Gone { peer });
            }
        }
    }

    fn route_owners_messages(&mut self) {
        for (shard, message) in self.owner.take_outgoing() {
            self.send(shard, message);
        }
    }

    fn send(&mut self, shard: usize, message: Message) {
        if shard == self.id {
            // On the account of what made the message.
            self.handle(message);
        } else {
            self.outgoing[shard].push(message);
        }
    }

    /// Hands a message to the owner or the home here. Returns what that cost, in units of a
    /// [`Meter`].
    fn handle(&mut self, message: Message) -> usize {
        let mut cost = meter::VNI;
        match message {
            Message::Updates { peer, updates } => {
                for update in &updates {
                    self.owner.update(peer, update);
                }
                cost += meter::UPDATE * updates.len();
            }
            Message::Subscribe { peer, vni, epoch } => self.owner.subscribe(peer, vni, epoch),
            Message::Unsubscribe { peer, vni } => self.owner.unsubscribe(peer, vni),
            Message::Gone { peer } => self.owner.gone(peer),
            Message::Table {
                peer,
                vni,
                epoch,
                spans,
            } => {
                cost += meter::JOIN + meter::SPAN * spans.len();
                self.home.begin_flow(peer, vni, epoch, spans);
            }
            Message::Changes { vni, spans } => cost += self.home.queue_changes(vni, &spans),
            Message::Refused { peer, routes, last } => {
                let (vni, why) = last;
                let code = NoticeCode::REFUSED_ANNOUNCEMENT;
                self.home.refused(peer, routes, (code, vni), why);
            }
            Message::Shed { peer } => {
                self.home.shed(peer);
                self.route_departures();
            }
        }
        self.route_owners_messages();
        cost
    }
}
