//! The connection to one server: what it is told, and how complete its tables are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::desired::{Desired, Episode, Tell};
use super::view::ServerBit;
use crate::core::pace::{CHUNK, Framing, Pacing, Window};
use crate::core::session::{CloseReason, MessageCounts, Session, SessionConfig, Transmit};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{
    Capabilities, KEEPALIVE_FRAME, MessageType, encode_subscription, encode_update, frame_len,
};

/// Bytes that wait for the socket at most; a KEEPALIVE is behind no more than these.
const OUT_BYTES: usize = 32 * 1024;

/// How far the initial table of a VNI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    /// The server said something before it was asked: its own announcements, which
    /// Go MetalBond sends ahead of its first KEEPALIVE and never again.
    Early,
    /// Awaits END_OF_RIB.
    Loading,
    /// Awaits the answer to a KEEPALIVE, `more` of them after that.
    ///
    /// A legacy server does not say when a table is complete. It answers the first
    /// KEEPALIVE after it has read the SUBSCRIBE, and the second after it has
    /// queued the table.
    Awaiting { barrier: u64, more: u32 },
    /// What the server has, the client has.
    Complete,
}

/// KEEPALIVE round trips after which a legacy server's table counts as complete.
const LEGACY_ROUND_TRIPS: u32 = 2;

/// A message about a VNI that the server has perhaps not read: it has not answered
/// the KEEPALIVE of this number.
///
/// Messages of different types may overtake each other inside Go MetalBond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Subscribe(u64),
    Unsubscribe(u64),
}

impl Unread {
    const fn barrier(self) -> u64 {
        match self {
            Self::Subscribe(barrier) | Self::Unsubscribe(barrier) => barrier,
        }
    }
}

/// A request that servers read all that they are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlushId(pub(super) u64);

/// How far a flush is at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// Awaits that as many entries of the two queues were taken.
    Telling {
        subscriptions: u64,
        announcements: u64,
    },
    /// Something is postponed until this KEEPALIVE is answered.
    Settling { barrier: u64 },
    /// All is told; read once this KEEPALIVE is answered.
    Reading { barrier: u64 },
    /// All is read.
    Done,
}

/// An announcement that is told, and read once the KEEPALIVE is answered.
#[derive(Clone, Copy, Debug)]
struct Unproven {
    keepalive: u64,
    key: (Vni, Route),
    episode: Episode,
}

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Link {
    bit: ServerBit,
    pub(super) session: Session,
    out: Vec<u8>,
    sent: usize,
    /// Bytes sent since the connection was made.
    taken: u64,
    /// Bytes of the chunk that was begun, to be sent.
    chunk_rest: usize,
    /// How far ahead of a legacy server the client may be.
    window: Window,
    subscriptions: VecDeque<Vni>,
    announcements: VecDeque<(Vni, Route)>,
    /// Entries taken from each of the two queues so far.
    subscriptions_taken: u64,
    announcements_taken: u64,
    flushes: BTreeMap<FlushId, Flush>,
    unproven: VecDeque<Unproven>,
    tables: BTreeMap<Vni, Table>,
    /// VNIs whose subscription may not be changed before the last change is read.
    unread: BTreeMap<Vni, Unread>,
    /// Own announcements withdrawn while the table of their VNI was on its way: a
    /// legacy server may have sent them back with it.
    withdrawn: BTreeSet<(Vni, Route)>,
    /// Since when the server takes nothing, while something waits.
    stalled_since: Option<Instant>,
    /// SUBSCRIBEs, UNSUBSCRIBEs and UPDATEs encoded for the server.
    told: MessageCounts,
}

/// What the caller of the client wants.
pub(super) struct Wants<'a> {
    pub(super) subscriptions: &'a mut Desired<Vni>,
    pub(super) announcements: &'a mut Desired<(Vni, Route)>,
}

impl Link {
    pub(super) fn new(bit: ServerBit, config: SessionConfig, pacing: Pacing, now: Instant) -> Self {
        Self {
            bit,
            session: Session::new(config, now),
            out: Vec::new(),
            sent: 0,
            taken: 0,
            chunk_rest: 0,
            window: Window::new(pacing),
            subscriptions: VecDeque::new(),
            announcements: VecDeque::new(),
            subscriptions_taken: 0,
            announcements_taken: 0,
            flushes: BTreeMap::new(),
            unproven: VecDeque::new(),
            tables: BTreeMap::new(),
            unread: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            stalled_since: None,
            told: MessageCounts::default(),
        }
    }

    /// Messages sent, or about to be.
    pub(super) fn sent(&self) -> MessageCounts {
        let MessageCounts {
            hello, keepalive, ..
        } = self.session.sent();
        MessageCounts {
            hello,
            keepalive,
            ..self.told
        }
    }

    /// VNIs whose flow the server was asked for.
    pub(super) fn subscriptions(&self) -> usize {
        self.tables.len()
    }

    /// Bytes per second at most, to a server that is spared.
    pub(super) fn rate(&self) -> Option<u32> {
        let is_known = self.session.knows_peer();
        (is_known && self.is_paced()).then(|| self.window.rate())
    }

    /// Bytes that wait for the socket.
    pub(super) fn queued_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether it counts that the server has, or has no longer, a route.
    pub(super) fn hears(
        &mut self,
        action: Action,
        key: &(Vni, Route),
        wants: &mut Wants<'_>,
    ) -> bool {
        let vni = key.0;
        if !self.session.is_established() && wants.subscriptions.contains(&vni) {
            self.tables.entry(vni).or_insert(Table::Early);
        }
        let is_echo = || {
            let own = &wants.announcements;
            let is_being_withdrawn = !own.contains(key) && own.is_told(key, self.bit);
            self.is_legacy() && (is_being_withdrawn || self.withdrawn.contains(key))
        };
        self.tables.contains_key(&vni) && !(action == Action::Add && is_echo())
    }

    pub(super) fn is_complete(&self, vni: Vni) -> bool {
        self.tables.get(&vni) == Some(&Table::Complete)
    }

    /// The VNIs whose flow the server was asked for.
    pub(super) fn vnis(&self) -> impl Iterator<Item = Vni> + '_ {
        self.tables.keys().copied()
    }

    /// The caller does not want a VNI any more: what still comes is old.
    pub(super) fn ignore(&mut self, vni: Vni) {
        self.tables.remove(&vni);
        self.withdrawn.retain(|(of, _)| *of != vni);
    }

    pub(super) fn queue_subscription(&mut self, vni: Vni, wants: &mut Wants<'_>) {
        if wants.subscriptions.enqueue(&vni, self.bit) {
            self.subscriptions.push_back(vni);
        }
    }

    pub(super) fn queue_announcement(&mut self, key: (Vni, Route), wants: &mut Wants<'_>) {
        if wants.announcements.enqueue(&key, self.bit) {
            self.announcements.push_back(key);
        }
    }

    /// Queues everything the caller wants: the server knows nothing.
    pub(super) fn queue_all(&mut self, wants: &mut Wants<'_>) {
        let vnis: Vec<Vni> = wants.subscriptions.iter().collect();
        for vni in vnis {
            self.queue_subscription(vni, wants);
        }
        let keys: Vec<(Vni, Route)> = wants.announcements.iter().collect();
        for key in keys {
            self.queue_announcement(key, wants);
        }
    }

    /// END_OF_RIB: a table is complete. Whether that is news.
    pub(super) fn end_of_rib(&mut self, vni: Vni) -> bool {
        let table = self.tables.get_mut(&vni);
        table.is_some_and(|table| std::mem::replace(table, Table::Complete) != Table::Complete)
    }

    /// One more KEEPALIVE is answered; the VNIs whose table is complete by that.
    pub(super) fn keepalive_answered(&mut self, wants: &mut Wants<'_>) -> Vec<Vni> {
        let (_, answered) = self.session.keepalives();
        self.window.answered(answered);
        while let Some(front) = self.unproven.front()
            && answered >= front.keepalive
        {
            wants
                .announcements
                .mark_read(&front.key, front.episode, self.bit);
            self.unproven.pop_front();
        }
        self.finish_reading(answered, wants);
        let mut complete = Vec::new();
        let mut next = None;
        for (&vni, table) in &mut self.tables {
            match *table {
                Table::Awaiting { barrier, more } if answered >= barrier => {
                    *table = match more.checked_sub(1) {
                        Some(more) => Table::Awaiting {
                            barrier: *next.get_or_insert_with(|| self.session.barrier()),
                            more,
                        },
                        None => {
                            complete.push(vni);
                            Table::Complete
                        }
                    };
                }
                Table::Early | Table::Loading | Table::Awaiting { .. } | Table::Complete => {}
            }
        }
        self.withdrawn.retain(|(of, _)| !complete.contains(of));
        complete
    }

    /// VNIs whose last change the server has surely read may be talked about again.
    fn finish_reading(&mut self, answered: u64, wants: &mut Wants<'_>) {
        let is_read =
            |(vni, unread): (&Vni, &Unread)| (answered >= unread.barrier()).then_some(*vni);
        let read: Vec<Vni> = self.unread.iter().filter_map(is_read).collect();
        for vni in read {
            let unread = self.unread.remove(&vni);
            // Go MetalBond took the UNSUBSCRIBE for a withdrawal of all our routes,
            // RustBond 0.1 did not.
            if self.is_legacy() && matches!(unread, Some(Unread::Unsubscribe(_))) {
                for key in wants.announcements.doubt(self.bit, |(of, _)| *of == vni) {
                    self.queue_announcement(key, wants);
                }
            }
            self.queue_subscription(vni, wants);
        }
    }

    /// Whether the server offers nothing beyond the protocol.
    pub(super) fn is_legacy(&self) -> bool {
        !self.session.capabilities().contains(Capabilities::STREAM)
    }

    /// Encodes what the server must be told, as far as there is room.
    pub(super) fn pump(&mut self, wants: &mut Wants<'_>) {
        if self.session.is_established() {
            let mut barrier = None;
            while self.has_room()
                && let Some(vni) = self.subscriptions.pop_front()
            {
                self.subscriptions_taken += 1;
                self.tell_subscription(vni, wants, &mut barrier);
            }
            while self.has_room()
                && let Some(key) = self.announcements.pop_front()
            {
                self.announcements_taken += 1;
                self.tell_announcement(key, wants);
            }
            if self.is_paced() && self.window.wants_barrier(self.position()) {
                let number = *barrier.get_or_insert_with(|| self.session.barrier());
                self.window.close(number);
            }
            self.advance_flushes(&mut barrier);
        }
        while let Some(transmit) = self.session.poll_transmit() {
            match transmit {
                Transmit::Hello(frame) => self.out.extend_from_slice(&frame),
                Transmit::Keepalive => self.out.extend_from_slice(&KEEPALIVE_FRAME),
            }
        }
    }

    /// The server is to read all that it must be told at this moment.
    pub(super) fn flush(&mut self, flush: FlushId) {
        let begin = self.telling();
        self.flushes.insert(flush, begin);
    }

    /// Nobody waits for it any more.
    pub(super) fn end_flush(&mut self, flush: FlushId) {
        self.flushes.remove(&flush);
    }

    pub(super) fn is_flushed(&self, flush: FlushId) -> bool {
        self.flushes.get(&flush) == Some(&Flush::Done)
    }

    fn telling(&self) -> Flush {
        Flush::Telling {
            subscriptions: self.subscriptions_taken + self.subscriptions.len() as u64,
            announcements: self.announcements_taken + self.announcements.len() as u64,
        }
    }

    fn advance_flushes(&mut self, barrier: &mut Option<u64>) {
        let (_, answered) = self.session.keepalives();
        let mut flushes = std::mem::take(&mut self.flushes);
        for flush in flushes.values_mut() {
            while let Some(next) = self.next_flush(*flush, answered, barrier) {
                *flush = next;
            }
        }
        self.flushes = flushes;
    }

    fn next_flush(
        &mut self,
        flush: Flush,
        answered: u64,
        barrier: &mut Option<u64>,
    ) -> Option<Flush> {
        match flush {
            Flush::Telling {
                subscriptions,
                announcements,
            } if self.subscriptions_taken >= subscriptions
                && self.announcements_taken >= announcements =>
            {
                let unread = self.unread.values().map(|unread| unread.barrier()).max();
                Some(match unread {
                    Some(barrier) => Flush::Settling { barrier },
                    None => Flush::Reading {
                        barrier: *barrier.get_or_insert_with(|| self.session.barrier()),
                    },
                })
            }
            Flush::Settling { barrier } if answered >= barrier => Some(self.telling()),
            Flush::Reading { barrier } if answered >= barrier => Some(Flush::Done),
            Flush::Telling { .. }
            | Flush::Settling { .. }
            | Flush::Reading { .. }
            | Flush::Done => None,
        }
    }

    /// `barrier`: one KEEPALIVE serves all that is told in a row.
    fn tell_subscription(&mut self, vni: Vni, wants: &mut Wants<'_>, barrier: &mut Option<u64>) {
        if self.unread.contains_key(&vni) {
            wants.subscriptions.postpone(&vni, self.bit);
            return;
        }
        let (is_legacy, offered) = (self.is_legacy(), self.session.capabilities());
        let tell = wants.subscriptions.dequeue(&vni, self.bit);
        let was_told = wants.subscriptions.is_told(&vni, self.bit);
        match tell {
            Tell::Wanted => {
                encode_subscription(&mut self.out, MessageType::Subscribe, vni);
                self.told.count(MessageType::Subscribe);
                let mut barrier = || *barrier.get_or_insert_with(|| self.session.barrier());
                if is_legacy {
                    self.unread.insert(vni, Unread::Subscribe(barrier()));
                }
                let table = if offered.contains(Capabilities::END_OF_RIB) {
                    Table::Loading
                } else {
                    Table::Awaiting {
                        barrier: barrier(),
                        more: LEGACY_ROUND_TRIPS - 1,
                    }
                };
                self.tables.insert(vni, table);
            }
            Tell::Unwanted => self.unsubscribe(vni, barrier),
            // Unwanted and wanted again before the server heard of it: what it said
            // is dropped, so it must say all of it again.
            Tell::Nothing if was_told && !self.tables.contains_key(&vni) => {
                wants.subscriptions.forget(self.bit, |of| *of == vni);
                self.unsubscribe(vni, barrier);
            }
            Tell::Nothing => {}
        }
    }

    fn unsubscribe(&mut self, vni: Vni, barrier: &mut Option<u64>) {
        encode_subscription(&mut self.out, MessageType::Unsubscribe, vni);
        self.told.count(MessageType::Unsubscribe);
        self.ignore(vni);
        let barrier = *barrier.get_or_insert_with(|| self.session.barrier());
        self.unread.insert(vni, Unread::Unsubscribe(barrier));
    }

    fn tell_announcement(&mut self, key: (Vni, Route), wants: &mut Wants<'_>) {
        let (vni, route) = key;
        let is_leaving = matches!(self.unread.get(&vni), Some(Unread::Unsubscribe(_)));
        if self.is_legacy() && is_leaving {
            wants.announcements.postpone(&key, self.bit);
            return;
        }
        match wants.announcements.dequeue(&key, self.bit) {
            Tell::Wanted => {
                encode_update(&mut self.out, Action::Add, vni, &route);
                self.told.count(MessageType::Update);
                let (sent, _) = self.session.keepalives();
                let episode = wants.announcements.episode(&key);
                self.unproven.extend(episode.map(|episode| Unproven {
                    keepalive: sent + 1,
                    key,
                    episode,
                }));
            }
            Tell::Unwanted => {
                encode_update(&mut self.out, Action::Remove, vni, &route);
                self.told.count(MessageType::Update);
                let is_loading = self.tables.contains_key(&vni) && !self.is_complete(vni);
                if self.is_legacy() && is_loading {
                    self.withdrawn.insert(key);
                }
            }
            Tell::Nothing => {}
        }
    }

    fn has_room(&self) -> bool {
        self.queued_bytes() < OUT_BYTES
            && (!self.is_paced() || self.window.has_room(self.position()))
    }

    /// Bytes sent and to be sent since the connection was made.
    fn position(&self) -> u64 {
        self.taken + (self.queued_bytes()) as u64
    }

    /// Whether the server is to be spared; until its HELLO has come, it is.
    fn is_paced(&self) -> bool {
        self.is_legacy() && !self.window.is_off()
    }

    /// How [`Self::outgoing`] is to be handed to the kernel.
    pub(super) fn framing(&self) -> Framing {
        if self.is_paced() || self.chunk_rest > 0 {
            Framing::Chunk
        } else {
            Framing::Stream
        }
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn queued(&self) -> usize {
        self.subscriptions.len() + self.announcements.len()
    }

    /// Bytes to send.
    pub(super) fn outgoing(&self) -> &[u8] {
        let waiting = &self.out[self.sent..];
        match self.framing() {
            Framing::Stream => waiting,
            Framing::Chunk if self.chunk_rest > 0 => &waiting[..self.chunk_rest],
            Framing::Chunk => &waiting[..chunk_len(waiting)],
        }
    }

    /// Drops the first `count` bytes: they were sent at `now`.
    pub(super) fn advance(&mut self, count: usize, now: Instant) {
        let lent = self.outgoing().len();
        if self.framing() == Framing::Chunk {
            self.chunk_rest = lent - count;
            self.window.sent(now);
        }
        self.sent += count;
        self.taken += count as u64;
        debug_assert!(self.sent <= self.out.len());
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            self.stalled_since = None;
        } else {
            if self.sent > OUT_BYTES {
                self.out.drain(..self.sent);
                self.sent = 0;
            }
            if count > 0 || self.stalled_since.is_none() {
                self.stalled_since = Some(now);
            }
        }
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.session.poll_timeout()?;
        let hold = self.stalled_since.map(|since| since + self.send_hold());
        let window = self.window.poll_timeout();
        hold.into_iter().chain(window).chain([due]).min()
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.window.handle_timeout(self.position(), now);
        let hold = self.send_hold();
        if self.stalled_since.is_some_and(|since| now >= since + hold) {
            self.session.close(CloseReason::SendHold);
        }
    }

    fn send_hold(&self) -> Duration {
        self.session.timeout() * 2
    }
}

/// Bytes of the whole frames at the beginning that make a chunk.
fn chunk_len(frames: &[u8]) -> usize {
    let mut end = 0;
    while end < frames.len() {
        let next = end + frame_len(&frames[end..]);
        if next > CHUNK && end > 0 {
            break;
        }
        end = next;
    }
    end
}
