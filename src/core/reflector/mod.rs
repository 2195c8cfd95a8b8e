//! A shard of the server without its thread: sessions and tables, driven by bytes,
//! instants and messages of other shards.
//!
//! A session lives on one shard, its *home*; the table of a VNI lives on one
//! shard, its *owner*. Requests go home to owner, tables and changes owner to
//! home; per pair of shards in order, so that a subscriber hears a table and then
//! every change to it, once.
//!
//! ```text
//! bytes -> session -> Updates, Subscribe, ... -> owner: table, log
//!                                                  |
//! bytes <- outbox  <- Table, Delta, Notice    <----'
//! ```
//!
//! The caller feeds `receive`, `deliver`, `handle_timeouts`, then calls `turn` and
//! drains `take_messages`, `take_looks` (with `observe`), `take_ready` (with `gather`
//! and `advance`), `poll_report`.

mod fold;
mod message;
mod outbox;
mod owner;
mod peer;
mod read;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::IoSlice;
use std::time::{Duration, Instant};

#[cfg(feature = "internals")]
pub(crate) use fold::fold_frames;
pub(crate) use message::{Message, Topology};
pub(crate) use owner::{Limits, RouteCursor};
pub(crate) use peer::PeerCounters;
pub(crate) use read::SessionView;

use crate::core::map::{Map, map};
use crate::core::pace::{CHUNK, Framing, LegacyPacing, Pacer, Pacing, SendQueue};
use crate::core::rib::{PeerId, Segment, Span};
use crate::core::session::{CloseReason, Event, SessionConfig, Transmit};
use crate::core::types::Vni;
use crate::core::wire::{
    Capabilities, KEEPALIVE_FRAME, Malformed, MessageType, Update, encode_subscription,
};
use outbox::{Outbox, Which};
use owner::Owner;
use peer::{Peer, Subscription};

/// KEEPALIVE replies that wait for a socket at most; more are answered later.
const KEEPALIVES_AT_ONCE: usize = 64;

/// A peer that takes nothing for this long is stalled, not just busy.
///
/// Folding the queue of a peer that reads would cost more than it saves: a burst
/// of new routes does not get shorter.
const STALL: Duration = Duration::from_millis(500);

/// What a shard is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardConfig {
    pub(crate) session: SessionConfig,
    /// Bytes of queued changes from which on those of a stalled peer are folded by key.
    pub(crate) soft_limit: usize,
    /// Bytes of queued changes that end a session; from half of it on any peer's are folded.
    pub(crate) hard_limit: usize,
    pub(crate) limits: Limits,
    pub(crate) pacing: Pacing,
    /// Secret of this process, against chosen collisions.
    pub(crate) seed: u64,
}

/// What the caller may want to log or act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A handshake is complete.
    Established(PeerId),
    /// A session subscribed to a VNI.
    Subscribed(PeerId, Vni),
    /// A session does not want a VNI any more.
    Unsubscribed(PeerId, Vni),
    /// A session is over; its connection must go.
    Closed(PeerId, CloseReason),
    /// Messages were dropped, so many so far.
    Malformed(PeerId, Malformed, u64),
    /// Announcements or subscriptions were refused, so many so far.
    Refused(PeerId, u64),
    /// A legacy peer ended its session while a table was sent; `Closed` follows.
    LegacyDrop(PeerId),
}

/// What a shard has, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) sessions: usize,
    /// Of them, those whose handshake is complete.
    pub(crate) established: usize,
    pub(crate) subscriptions: usize,
    pub(crate) routes: usize,
    pub(crate) vnis: usize,
    /// Routes times their announcers.
    pub(crate) announcements: usize,
    /// Announcements that came or went, so far.
    pub(crate) changes: u64,
    /// Of all sessions, those that ended among them.
    pub(crate) counters: PeerCounters,
}

/// What an entry of the timer queue is about.
///
/// Those of the pace come by the millisecond; each kind has one entry for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Session,
    Pace,
}

/// One shard: the home of some sessions and the owner of some VNIs.
#[derive(Debug)]
pub(crate) struct Shard {
    id: usize,
    topology: Topology,
    config: ShardConfig,
    /// As of the latest call that told.
    now: Instant,
    owner: Owner,
    peers: Map<PeerId, Peer>,
    /// The active subscribers that live here.
    subscribers: Map<Vni, Vec<PeerId>>,
    subscriptions: usize,
    established: usize,
    counters: PeerCounters,
    timers: BinaryHeap<Reverse<(Instant, PeerId, Timer)>>,
    outgoing: Vec<Vec<Message>>,
    ready: Vec<PeerId>,
    /// Whose send queue is to be looked at.
    looks: Vec<PeerId>,
    reports: VecDeque<Report>,
    /// Closed while the subscribers were walked; removed at the end of the turn.
    doomed: Vec<PeerId>,
}

impl Shard {
    /// Shard number `id` of a server.
    pub(crate) fn new(id: usize, topology: Topology, config: ShardConfig, now: Instant) -> Self {
        Self {
            id,
            topology,
            config,
            now,
            owner: Owner::new(topology, config.limits, config.seed),
            peers: map(config.seed),
            subscribers: map(config.seed),
            subscriptions: 0,
            established: 0,
            counters: PeerCounters::default(),
            timers: BinaryHeap::new(),
            outgoing: (0..topology.shards()).map(|_| Vec::new()).collect(),
            ready: Vec::new(),
            looks: Vec::new(),
            reports: VecDeque::new(),
            doomed: Vec::new(),
        }
    }

    /// Begins a session on a new connection; `false` if the peer's id is in use.
    ///
    /// If it turns out to be a legacy peer, the pace is halved `halvings` times.
    pub(crate) fn open(&mut self, id: PeerId, halvings: u8, now: Instant) -> bool {
        debug_assert_eq!(self.topology.home(id), self.id);
        if self.peers.contains_key(&id) {
            return false;
        }
        let peer = Peer::new(self.config.session, halvings, self.config.seed, now);
        self.peers.insert(id, peer);
        self.schedule(id);
        true
    }

    /// Other limits hold from now on, and new sessions are made with other settings; who this
    /// server is, and its secret, stay.
    pub(crate) fn reconfigure(&mut self, config: ShardConfig) {
        let session = SessionConfig {
            extensions: self.config.session.extensions,
            ..config.session
        };
        self.config = ShardConfig {
            session,
            seed: self.config.seed,
            ..config
        };
        self.owner.set_limits(config.limits);
    }

    /// Ends a session, for a reason of the connection's.
    pub(crate) fn close(&mut self, id: PeerId, reason: CloseReason, now: Instant) {
        self.now = now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.session.close(reason);
            self.settle(id);
        }
    }

    /// Ends a session once it was sent what waits for it.
    pub(crate) fn drain(&mut self, id: PeerId, now: Instant) {
        self.now = now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.is_draining = true;
            if peer.outbox.is_empty() {
                peer.session.close(CloseReason::Drained);
            }
            self.settle(id);
        }
    }

    /// Announces or withdraws in the name of the process; whether that changed anything.
    ///
    /// The VNI must be owned here.
    pub(crate) fn update_own(&mut self, update: &Update, now: Instant) -> bool {
        debug_assert_eq!(self.topology.owner(update.vni), self.id);
        self.now = now;
        let before = self.owner.changes();
        self.owner.update(PeerId::SELF, update);
        self.route_owners_messages();
        self.owner.changes() != before
    }

    /// Takes bytes that came from a peer.
    pub(crate) fn receive(&mut self, id: PeerId, mut bytes: &[u8], now: Instant) {
        self.now = now;
        loop {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let Some(event) = peer.session.next_event(now, &mut bytes) else {
                break;
            };
            match event {
                Event::Update(update) => {
                    peer.counters.updates += 1;
                    self.counters.updates += 1;
                    self.update(id, update);
                }
                Event::Subscribe(vni) => self.subscribe(id, vni),
                Event::Unsubscribe(vni) => self.unsubscribe(id, vni),
                Event::Established => {
                    peer.was_established = true;
                    self.established += 1;
                    self.reports.push_back(Report::Established(id));
                }
                Event::Dropped(malformed) => self.malformed(id, malformed, now),
                // Only clients hear these.
                Event::EndOfRib(_) | Event::KeepaliveReply => {}
            }
        }
        self.settle(id);
    }

    /// Takes what another shard sent, in order.
    pub(crate) fn deliver(&mut self, messages: Vec<Message>, now: Instant) {
        self.now = now;
        for message in messages {
            self.handle(message);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Updates { peer, updates } => {
                for update in &updates {
                    self.owner.update(peer, update);
                }
            }
            Message::Subscribe { peer, vni, epoch } => self.owner.subscribe(peer, vni, epoch),
            Message::Unsubscribe { peer, vni } => self.owner.unsubscribe(peer, vni),
            Message::Gone { peer } => self.owner.gone(peer),
            Message::Table {
                peer,
                vni,
                epoch,
                spans,
            } => self.begin_flow(peer, vni, epoch, spans),
            Message::Delta { vni, spans } => self.queue_delta(vni, &spans),
            Message::Refused { peer, routes } => self.refused(peer, routes),
            Message::Notice { peer, vni, span } => {
                self.queue(peer, vni, |outbox| outbox.push_delta(vni, span));
            }
        }
        self.route_owners_messages();
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        self.now = now;
        while let Some(&Reverse((due, id, timer))) = self.timers.peek() {
            if due > now {
                return;
            }
            self.timers.pop();
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let scheduled = match timer {
                Timer::Session => &mut peer.scheduled,
                Timer::Pace => &mut peer.pace_scheduled,
            };
            if scheduled.take_if(|it| *it == due).is_none() {
                continue;
            }
            match timer {
                Timer::Session => peer.handle_timeout(now),
                Timer::Pace => {
                    if peer.pacer.as_mut().is_some_and(|it| it.handle_timeout(now)) {
                        self.looks.push(id);
                    }
                }
            }
            self.settle(id);
        }
    }

    /// When [`Self::handle_timeouts`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, ..))| *due)
    }

    /// Ends a turn of the caller's loop: what changed in it goes on its way.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.now = now;
        self.owner.turn();
        self.route_owners_messages();
        for id in std::mem::take(&mut self.doomed) {
            self.settle(id);
        }
    }

    /// Takes note of how many routes are announced at the other shards.
    pub(crate) fn set_elsewhere(&mut self, announcements: usize) {
        self.owner.set_elsewhere(announcements);
    }

    /// Whether another [`Self::turn`] is wanted at once.
    pub(crate) fn has_work(&self) -> bool {
        self.owner.has_work()
    }

    /// Messages for another shard, in order.
    pub(crate) fn take_messages(&mut self, shard: usize) -> Vec<Message> {
        std::mem::take(&mut self.outgoing[shard])
    }

    /// Sessions that have had nothing to send and now do.
    pub(crate) fn take_ready(&mut self) -> Vec<PeerId> {
        let ready = std::mem::take(&mut self.ready);
        for id in &ready {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.ready = false;
            }
        }
        ready
    }

    /// Sessions whose [`SendQueue`] is to be told to [`Self::observe`].
    pub(crate) fn take_looks(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.looks)
    }

    /// Takes note of what the kernel knows at `now` of a session's connection.
    pub(crate) fn observe(&mut self, id: PeerId, queue: SendQueue, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id)
            && let Some(pacer) = &mut peer.pacer
        {
            pacer.observe(queue, now);
            self.settle(id);
        }
    }

    /// Lends the next bytes for a peer, at most `budget`; how many slices were filled.
    ///
    /// To be sent as [`Self::framing`] says.
    pub(crate) fn gather<'a>(
        &'a self,
        id: PeerId,
        slices: &mut [IoSlice<'a>],
        budget: usize,
    ) -> usize {
        let Some(peer) = self.peers.get(&id) else {
            return 0;
        };
        match &peer.pacer {
            None => peer.outbox.gather(slices, budget),
            Some(pacer) => match pacer.room() {
                Some(room) => peer.outbox.gather_chunk(slices, room, Which::All),
                None => peer.outbox.gather_chunk(slices, CHUNK, Which::Urgent),
            },
        }
    }

    /// How a peer's bytes are to be handed to the kernel.
    pub(crate) fn framing(&self, id: PeerId) -> Framing {
        let peer = self.peers.get(&id);
        match peer.and_then(|peer| peer.pacer.as_ref()) {
            None => Framing::Stream,
            Some(_) => Framing::Chunk,
        }
    }

    /// Whether something can be sent to a peer at this moment.
    pub(crate) fn is_sendable(&self, id: PeerId) -> bool {
        self.peers.get(&id).is_some_and(Peer::is_sendable)
    }

    /// To be called when a connection that was full takes bytes again.
    ///
    /// Who stalled is spared what it missed and what was undone meanwhile.
    pub(crate) fn resume(&mut self, id: PeerId, now: Instant) {
        let soft_limit = self.config.soft_limit;
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.is_stalled(now, STALL)
            && peer.outbox.delta_bytes() > soft_limit
            && peer.outbox.has_grown()
        {
            peer.fold(self.config.seed);
            self.counters.folds += 1;
        }
    }

    /// Takes note that the first `count` bytes for a peer were sent at `now`.
    pub(crate) fn advance(&mut self, id: PeerId, count: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = peer.outbox.updates_sent();
        peer.outbox.advance(count);
        self.counters.updates_sent += peer.outbox.updates_sent() - before;
        if let Some(pacer) = &mut peer.pacer {
            pacer.sent(count, now);
            let is_cut = peer.outbox.isolate_begun_frame() > 0;
            peer.counters.cut_chunks += u64::from(is_cut);
            self.counters.cut_chunks += u64::from(is_cut);
        }
        let is_drained = peer.is_draining && peer.outbox.is_empty();
        if is_drained {
            peer.session.close(CloseReason::Drained);
        }
        if peer.outbox.is_empty() {
            peer.stalled_since = None;
        } else if count > 0 || peer.stalled_since.is_none() {
            peer.stalled_since = Some(now);
        }
        self.settle(id);
    }

    /// What happened that the caller should know.
    pub(crate) fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    fn update(&mut self, id: PeerId, update: Update) {
        let owner = self.topology.owner(update.vni);
        if owner == self.id {
            self.owner.update(id, &update);
            return;
        }
        match self.outgoing[owner].last_mut() {
            Some(Message::Updates { peer, updates }) if *peer == id => updates.push(update),
            _ => self.outgoing[owner].push(Message::Updates {
                peer: id,
                updates: vec![update],
            }),
        }
    }

    fn subscribe(&mut self, id: PeerId, vni: Vni) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // A second SUBSCRIBE asks for what the session has; it changes nothing.
        if peer.subscriptions.contains_key(&vni) {
            return;
        }
        if peer.subscriptions.len() >= self.config.limits.subscriptions_per_peer {
            self.refused(id, 1);
            return;
        }
        peer.epoch += 1;
        let epoch = peer.epoch;
        let active = false;
        let subscription = Subscription { epoch, active };
        peer.subscriptions.insert(vni, subscription);
        self.subscriptions += 1;
        self.reports.push_back(Report::Subscribed(id, vni));
        let message = Message::Subscribe {
            peer: id,
            vni,
            epoch,
        };
        self.send(self.topology.owner(vni), message);
    }

    fn unsubscribe(&mut self, id: PeerId, vni: Vni) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.subscriptions.remove(&vni).is_none() {
            return;
        }
        peer.outbox.purge(vni);
        self.end_flow(id, vni);
        self.reports.push_back(Report::Unsubscribed(id, vni));
        let message = Message::Unsubscribe { peer: id, vni };
        self.send(self.topology.owner(vni), message);
    }

    /// A table has come: what follows for its VNI goes to the peer.
    fn begin_flow(&mut self, id: PeerId, vni: Vni, epoch: u32, spans: Vec<Span>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let expected = peer
            .subscriptions
            .get_mut(&vni)
            .filter(|it| it.epoch == epoch);
        let Some(subscription) = expected else {
            return;
        };
        subscription.active = true;
        self.subscribers.entry(vni).or_default().push(id);
        for span in spans {
            peer.outbox.push_table(vni, span);
        }
        if peer
            .session
            .capabilities()
            .contains(Capabilities::END_OF_RIB)
        {
            let mut frame = Vec::new();
            encode_subscription(&mut frame, MessageType::EndOfRib, vni);
            let span = Span::whole(Segment::unmarked(frame, 1));
            peer.outbox.push_end_of_rib(vni, span);
        }
        self.make_ready(id);
    }

    fn end_flow(&mut self, id: PeerId, vni: Vni) {
        self.subscriptions -= 1;
        let Some(subscribers) = self.subscribers.get_mut(&vni) else {
            return;
        };
        if let Some(at) = subscribers.iter().position(|it| *it == id) {
            subscribers.swap_remove(at);
        }
        if subscribers.is_empty() {
            self.subscribers.remove(&vni);
        }
    }

    fn queue_delta(&mut self, vni: Vni, spans: &[Span]) {
        let subscribers = self.subscribers.remove(&vni).unwrap_or_default();
        for &id in &subscribers {
            self.queue(id, vni, |outbox| {
                for span in spans {
                    let push = &mut |span| outbox.push_delta(vni, span);
                    span.clone().without(id, push);
                }
            });
        }
        if !subscribers.is_empty() {
            self.subscribers.insert(vni, subscribers);
        }
    }

    /// Queues changes for a session whose subscription is active, within its limits.
    fn queue(&mut self, id: PeerId, vni: Vni, push: impl FnOnce(&mut Outbox)) {
        let (config, now) = (self.config, self.now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.subscriptions.get(&vni).is_some_and(|it| it.active) {
            return;
        }
        push(&mut peer.outbox);
        let waiting = peer.outbox.delta_bytes();
        let due = waiting > config.hard_limit / 2
            || (waiting > config.soft_limit && peer.is_stalled(now, STALL));
        if due && peer.outbox.has_doubled() {
            peer.fold(config.seed);
            self.counters.folds += 1;
        }
        if peer.outbox.delta_bytes() > config.hard_limit {
            peer.session.close(CloseReason::TooSlow);
            self.doomed.push(id);
        }
        self.make_ready(id);
    }

    fn malformed(&mut self, id: PeerId, malformed: Malformed, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.malformed += 1;
        self.counters.malformed += 1;
        if peer.malformed_quiet.is_over(now) {
            let total = peer.counters.malformed;
            self.reports
                .push_back(Report::Malformed(id, malformed, total));
        }
    }

    fn refused(&mut self, id: PeerId, count: u64) {
        self.counters.refused += count;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.refused += count;
        if peer.refused_quiet.is_over(self.now) {
            let total = peer.counters.refused;
            self.reports.push_back(Report::Refused(id, total));
        }
    }

    fn send(&mut self, shard: usize, message: Message) {
        if shard == self.id {
            self.handle(message);
        } else {
            self.outgoing[shard].push(message);
        }
    }

    fn route_owners_messages(&mut self) {
        for (shard, message) in self.owner.take_outgoing() {
            self.send(shard, message);
        }
    }

    fn make_ready(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.is_sendable()
            && !std::mem::replace(&mut peer.ready, true)
        {
            self.ready.push(id);
        }
    }

    /// After anything that touched a session: its frames, its timer, its end.
    fn settle(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(reason) = peer.session.closed() {
            self.remove(id, reason);
            return;
        }
        if !peer.outbox.has_control() {
            let mut frames = Vec::new();
            let due = std::iter::from_fn(|| peer.session.poll_transmit());
            for transmit in due.take(KEEPALIVES_AT_ONCE) {
                match transmit {
                    Transmit::Hello(frame) => frames.extend_from_slice(&frame),
                    Transmit::Keepalive => frames.extend_from_slice(&KEEPALIVE_FRAME),
                }
            }
            if !frames.is_empty() {
                peer.outbox.push_control(frames);
                let is_paced = self.config.pacing.mode == LegacyPacing::Auto;
                if is_paced && peer.pacer.is_none() && peer.session.is_legacy() {
                    let pacer = Pacer::new(self.config.pacing, peer.halvings, self.now);
                    peer.pacer = Some(pacer);
                }
            }
        }
        self.make_ready(id);
        self.schedule(id);
    }

    /// Keeps one entry of each kind in the timer queue no later than what is due.
    fn schedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(due) = peer.poll_timeout()
            && peer.scheduled.is_none_or(|scheduled| due < scheduled)
        {
            peer.scheduled = Some(due);
            self.timers.push(Reverse((due, id, Timer::Session)));
        }
        if let Some(due) = peer.poll_pace()
            && peer.pace_scheduled.is_none_or(|scheduled| due < scheduled)
        {
            peer.pace_scheduled = Some(due);
            self.timers.push(Reverse((due, id, Timer::Pace)));
        }
    }

    fn remove(&mut self, id: PeerId, reason: CloseReason) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.established -= usize::from(peer.was_established);
        let now = self.now;
        let has_more = !peer.outbox.is_empty();
        let is_to_blame = |pacer: &Pacer| pacer.is_to_blame(has_more, now);
        if is_peers_end(reason) && peer.pacer.as_ref().is_some_and(is_to_blame) {
            self.counters.legacy_drops += 1;
            self.reports.push_back(Report::LegacyDrop(id));
        }
        for vni in peer.subscriptions.into_keys() {
            self.end_flow(id, vni);
        }
        for shard in 0..self.topology.shards() {
            self.send(shard, Message::Gone { peer: id });
        }
        self.reports.push_back(Report::Closed(id, reason));
    }
}

/// Whether the peer ended the session, as one does that cannot go on.
fn is_peers_end(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::PeerClosed | CloseReason::Io(_))
}
