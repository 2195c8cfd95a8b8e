//! The sessions that live on a shard: their handshakes, their timers, their ends.
//!
//! What a session asks of the owner of a VNI is returned by [`Home::receive`]; what owners
//! answer comes in through `flow`.

mod flow;
mod laggards;
mod memory;
mod peer;
mod subscribers;
mod timers;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

pub(crate) use peer::PeerCounters;

use super::config::ShardConfig;
use super::memory::{Pressure, Segments};
use super::message::{Refusal, Request};
use super::meter::{self, Meter};
use super::outbox::Leftovers;
use crate::core::map::{Map, map};
use crate::core::pace::{Framing, Overrun, SendQueue};
use crate::core::rib::PeerId;
use crate::core::session::{CloseReason, Event, MessageCounts, SessionConfig};
use crate::core::types::Vni;
use crate::core::wire::{Malformed, Notice, NoticeCode};
use laggards::Laggards;
use peer::{Peer, Subscription};
use subscribers::Subscribers;
use timers::{Timer, Timers};

/// What the caller may want to log or act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A handshake is complete.
    Established(PeerId),
    /// A session subscribed to a VNI.
    Subscribed(PeerId, Vni),
    /// A session unsubscribed from a VNI.
    Unsubscribed(PeerId, Vni),
    /// A session is over; its connection must go.
    Closed(PeerId, CloseReason),
    /// Messages were dropped, so many so far.
    Malformed(PeerId, Malformed, u64),
    /// Announcements or subscriptions were refused, so many so far.
    Refused(PeerId, u64),
    /// A legacy peer ended its session, perhaps because its buffer was full; `Closed` follows.
    LegacyDrop(PeerId, Overrun),
    /// A legacy peer has read a table of so many bytes.
    LegacyTable(PeerId, u64),
    /// A peer says something about its session.
    Notice(PeerId, Box<Notice>),
}

/// A session as others may see it.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) id: PeerId,
    pub(crate) is_established: bool,
    /// Whether its HELLO offered no reassembly; `None` until it has come.
    pub(crate) is_legacy: Option<bool>,
    pub(crate) is_draining: bool,
    /// Since when the session is in its present state.
    pub(crate) since: Instant,
    pub(crate) keepalive_interval: u32,
    pub(crate) last_received: Instant,
    pub(crate) subscriptions: usize,
    pub(crate) queued_bytes: usize,
    /// Bytes per second at most, to a legacy peer.
    pub(crate) legacy_rate: Option<u32>,
    pub(crate) received: MessageCounts,
    pub(crate) sent: MessageCounts,
    pub(crate) counters: PeerCounters,
    pub(crate) last_notice: Option<Box<Notice>>,
}

/// The sessions that live on a shard.
#[derive(Debug)]
pub(super) struct Home {
    config: ShardConfig,
    /// When the tables began to fill.
    started: Instant,
    /// As of the latest call that told.
    now: Instant,
    /// Boxed: a map has room for up to twice as many.
    peers: Map<PeerId, Box<Peer>>,
    /// The active subscribers that live here.
    subscribers: Subscribers,
    subscriptions: usize,
    established: usize,
    counters: PeerCounters,
    timers: Timers,
    ready: Vec<PeerId>,
    /// Sessions whose send queue in the kernel is to be asked for.
    queue_queries: Vec<PeerId>,
    reports: VecDeque<Report>,
    /// Closed while the subscribers were walked; removed at the end of the turn.
    doomed: Vec<PeerId>,
    /// Sessions that ended, of which the owners are not yet told.
    gone: Vec<PeerId>,
    /// Requests of sessions that were held back and are due.
    requests: Vec<(PeerId, Request)>,
    /// Sessions whose queue begins with what nobody wants any more.
    purging: VecDeque<PeerId>,
    /// Sessions that ended and still stand among the subscribers of these VNIs.
    leaving: VecDeque<(PeerId, Vec<Vni>)>,
    /// Their subscriptions.
    departing: Map<PeerId, Map<Vni, Subscription>>,
    laggards: Laggards,
    /// Of sessions that ended.
    leftovers: Leftovers,
    /// Bytes of the queues themselves.
    queue_bytes: usize,
    /// Private copies of changes.
    segments: Segments,
    pressure: Pressure,
}

impl Home {
    pub(super) fn new(config: ShardConfig, now: Instant) -> Self {
        Self {
            config,
            started: now,
            now,
            peers: map(config.seed),
            subscribers: Subscribers::new(config.seed),
            subscriptions: 0,
            established: 0,
            counters: PeerCounters::default(),
            timers: Timers::default(),
            ready: Vec::new(),
            queue_queries: Vec::new(),
            reports: VecDeque::new(),
            doomed: Vec::new(),
            gone: Vec::new(),
            requests: Vec::new(),
            purging: VecDeque::new(),
            leaving: VecDeque::new(),
            departing: map(config.seed),
            laggards: Laggards::new(config.seed),
            leftovers: Leftovers::default(),
            queue_bytes: 0,
            segments: Segments::default(),
            pressure: Pressure::None,
        }
    }

    /// Begins a session on a new connection. Returns `false` if the peer's id is in use.
    pub(super) fn open(&mut self, id: PeerId, halvings: u8, now: Instant) -> bool {
        if self.peers.contains_key(&id) || self.departing.contains_key(&id) {
            return false;
        }
        if let Some(extensions) = &mut self.config.session.extensions {
            let uptime = now.saturating_duration_since(self.started).as_secs();
            extensions.uptime_seconds = u32::try_from(uptime).unwrap_or(u32::MAX);
        }
        let peer = Peer::new(&self.config, halvings, now);
        self.peers.insert(id, Box::new(peer));
        self.schedule(id);
        true
    }

    /// Replaces the limits, and the settings of new sessions.
    pub(super) fn reconfigure(&mut self, config: ShardConfig) {
        let session = SessionConfig {
            extensions: self.config.session.extensions,
            ..config.session
        };
        self.config = ShardConfig {
            session,
            seed: self.config.seed,
            ..config
        };
    }

    /// Says what time it is.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Ends a session, for a reason of the connection's.
    pub(super) fn close(&mut self, id: PeerId, reason: CloseReason, now: Instant) {
        self.now = now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connection.close(reason);
            self.settle(id);
        }
    }

    /// Ends a session once everything that waits for it is sent.
    pub(super) fn drain(&mut self, id: PeerId, now: Instant) {
        self.now = now;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connection.drain();
            self.settle(id);
        }
    }

    /// Takes bytes that came from a peer, up to its next request.
    ///
    /// `None`: all bytes are taken; [`Self::settle`] is to be called.
    pub(super) fn receive(
        &mut self,
        id: PeerId,
        bytes: &mut &[u8],
        now: Instant,
        meter: &mut Meter,
    ) -> Option<Request> {
        self.now = now;
        loop {
            let peer = self.peers.get_mut(&id)?;
            let request = match peer.connection.receive(bytes, now)? {
                Event::Update(update) => {
                    peer.counters.updates += 1;
                    self.counters.updates += 1;
                    Some(Request::Update(update))
                }
                Event::Subscribe(vni) => {
                    meter.charge(meter::REQUEST);
                    self.subscribe(id, vni)
                }
                Event::Unsubscribe(vni) => {
                    meter.charge(meter::REQUEST);
                    self.unsubscribe(id, vni)
                }
                Event::Established => {
                    peer.was_established = true;
                    self.established += 1;
                    self.reports.push_back(Report::Established(id));
                    None
                }
                Event::Dropped(malformed) => {
                    self.malformed(id, malformed);
                    None
                }
                Event::Notice(notice) => {
                    peer.counters.notices += 1;
                    if peer.notice_quiet.is_over(now) {
                        self.reports.push_back(Report::Notice(id, notice.clone()));
                    }
                    peer.last_notice = Some(notice);
                    None
                }
                // Only clients hear these.
                Event::EndOfRib(_) | Event::KeepaliveReply => None,
            };
            if request.is_some() {
                return request;
            }
        }
    }

    /// Does what is due at `now`, except for the ends of sessions that have unread bytes.
    pub(super) fn handle_timeouts(
        &mut self,
        now: Instant,
        mut has_unread: impl FnMut(PeerId) -> bool,
    ) {
        self.now = now;
        while let Some((id, timer, due)) = self.timers.take_due(now) {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if !peer.scheduled.take(timer, due) {
                continue;
            }
            match timer {
                Timer::Session => {
                    if peer.connection.is_silent(now) && has_unread(id) {
                        peer.connection.excuse(now);
                    }
                    peer.connection.handle_timeout(now);
                }
                Timer::Pace => {
                    if peer.connection.handle_pace_timeout(now) {
                        self.queue_queries.push(id);
                    }
                }
            }
            self.settle(id);
        }
    }

    /// When [`Self::handle_timeouts`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Ends the sessions that passed their hard limit in this turn.
    pub(super) fn end_doomed(&mut self) {
        for id in std::mem::take(&mut self.doomed) {
            self.settle(id);
        }
    }

    /// Looks which private copies are still held.
    pub(super) fn sweep_segments(&mut self, meter: &mut Meter) {
        self.segments.sweep(meter);
    }

    /// Drops some of what waited for sessions that are gone.
    pub(super) fn drop_leftovers(&mut self, meter: &mut Meter) {
        self.leftovers.drop_some(meter);
    }

    /// Whether another turn has something to do without any input.
    pub(super) fn has_work(&self) -> bool {
        !self.leaving.is_empty()
            || !self.purging.is_empty()
            || !self.laggards.is_empty()
            || !self.leftovers.is_empty()
    }

    /// Requests that were held back and are due.
    pub(super) fn take_requests(&mut self) -> Vec<(PeerId, Request)> {
        std::mem::take(&mut self.requests)
    }

    /// Sessions that ended since the last call: their routes and subscriptions are to go.
    pub(super) fn take_gone(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.gone)
    }

    /// Sessions that had nothing to send and have something to send since the last call.
    pub(super) fn take_ready(&mut self) -> Vec<PeerId> {
        let ready = std::mem::take(&mut self.ready);
        for id in &ready {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.ready = false;
            }
        }
        ready
    }

    /// Sessions whose [`SendQueue`] is to be told to [`Self::report_queue`].
    pub(super) fn take_queue_queries(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.queue_queries)
    }

    /// Tells what the kernel knows at `now` of a session's connection.
    pub(super) fn report_queue(&mut self, id: PeerId, queue: SendQueue, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            if let Some(size) = peer.connection.report_queue(queue, now) {
                self.reports.push_back(Report::LegacyTable(id, size));
            }
            self.settle(id);
        }
    }

    /// Lends the next bytes for a peer, at most `budget`. Returns how many slices are filled.
    pub(super) fn gather<'a>(
        &'a self,
        id: PeerId,
        slices: &mut [IoSlice<'a>],
        budget: usize,
    ) -> usize {
        let Some(peer) = self.peers.get(&id) else {
            return 0;
        };
        peer.connection.gather(slices, budget)
    }

    /// How a peer's bytes are to be handed to the kernel.
    pub(super) fn framing(&self, id: PeerId) -> Framing {
        let peer = self.peers.get(&id);
        peer.map_or(Framing::Stream, |peer| peer.connection.framing())
    }

    /// Whether something can be sent to a peer at this moment.
    pub(super) fn is_sendable(&self, id: PeerId) -> bool {
        let peer = self.peers.get(&id);
        peer.is_some_and(|peer| peer.connection.is_sendable())
    }

    /// Drops the first `count` bytes for a peer: they were sent at `now`.
    pub(super) fn advance(&mut self, id: PeerId, count: usize, now: Instant) {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = peer.connection.queue().updates_sent();
        let is_cut = peer.connection.advance(count, now);
        self.counters.updates_sent += peer.connection.queue().updates_sent() - before;
        peer.counters.cut_chunks += u64::from(is_cut);
        self.counters.cut_chunks += u64::from(is_cut);
        if peer.connection.queue().has_dead_front() {
            self.purging.push_back(id);
        }
        peer.connection
            .queue_mut()
            .count_bytes(&mut self.queue_bytes);
        if peer.connection.queue().wants_sweep() {
            self.stand_in_line(id);
        }
        self.ask_for_tables(id);
        self.settle(id);
    }

    /// The next thing that the caller should know.
    pub(super) fn poll_report(&mut self) -> Option<Report> {
        let report = self.reports.pop_front();
        // What a burst of reports needed, no more than a few need.
        if report.is_none() && self.reports.capacity() > 1024 {
            self.reports = VecDeque::new();
        }
        report
    }

    /// Counts announcements or subscriptions of a session that were refused, and tells it of the
    /// last of them.
    pub(super) fn refused(
        &mut self,
        id: PeerId,
        count: u64,
        (code, vni): (NoticeCode, Vni),
        why: Refusal,
    ) {
        self.counters.refused += count;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.refused += count;
        peer.connection.notify(code, vni, why.text(), self.now);
        if peer.refused_quiet.is_over(self.now) {
            let total = peer.counters.refused;
            self.reports.push_back(Report::Refused(id, total));
        }
        self.make_ready(id);
    }

    fn malformed(&mut self, id: PeerId, malformed: Malformed) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.malformed += 1;
        self.counters.malformed += 1;
        if peer.malformed_quiet.is_over(self.now) {
            let total = peer.counters.malformed;
            self.reports
                .push_back(Report::Malformed(id, malformed, total));
        }
    }

    fn make_ready(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.becomes_ready()
        {
            self.ready.push(id);
        }
    }

    /// After anything that touched a session: queues its frames, sets its timers, or ends it.
    pub(super) fn settle(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(reason) = peer.connection.closed() {
            self.remove(id, reason);
            return;
        }
        peer.connection.transmit();
        self.make_ready(id);
        self.schedule(id);
    }

    fn schedule(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (session, pace) = (peer.connection.poll_timeout(), peer.connection.poll_pace());
        let scheduled = &mut peer.scheduled;
        self.timers.keep(id, Timer::Session, session, scheduled);
        self.timers.keep(id, Timer::Pace, pace, scheduled);
    }

    fn remove(&mut self, id: PeerId, reason: CloseReason) {
        let Some(mut peer) = self.peers.remove(&id) else {
            return;
        };
        self.established -= usize::from(peer.was_established);
        self.queue_bytes -= peer.connection.queue().counted();
        let overrun = peer.connection.overrun();
        if let Some(overrun) = overrun.filter(|_| reason.is_from_outside()) {
            self.counters.legacy_drops += 1;
            self.reports.push_back(Report::LegacyDrop(id, overrun));
        }
        if !peer.subscriptions.is_empty() {
            let vnis = peer.subscriptions.keys().copied().collect();
            self.leaving.push_back((id, vnis));
            self.departing.insert(id, peer.subscriptions);
        }
        self.leftovers
            .push_queue(std::mem::take(peer.connection.queue_mut()));
        self.gone.push(id);
        self.reports.push_back(Report::Closed(id, reason));
    }
}

/// What the sessions look like; nothing here changes one.
impl Home {
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Sessions whose handshake is complete.
    pub(super) fn established(&self) -> usize {
        self.established
    }

    /// Sessions times the VNIs they subscribe to.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// Of all sessions, those that ended among them.
    pub(super) fn counters(&self) -> PeerCounters {
        self.counters
    }

    /// Calls `each` with every session.
    pub(super) fn for_each_session(&self, mut each: impl FnMut(SessionView)) {
        for (&id, peer) in &self.peers {
            each(peer.view(id));
        }
    }

    /// Bytes of changes that wait for a session that is past its limit, if there is one.
    #[cfg(feature = "internals")]
    pub(super) fn past_limit(&self) -> Option<usize> {
        let limit = |peer: &Peer| flow::limit(self.config.hard_limit, peer);
        let waiting = |peer: &Peer| peer.connection.queue().delta_bytes();
        let past = self.peers.iter().filter(|(_, it)| waiting(it) > limit(it));
        past.map(|(_, it)| waiting(it)).max()
    }
}
