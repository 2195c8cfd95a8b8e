//! The connection to one server: what it is told, and how complete its tables are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::completeness::Doubt;
use super::desired::{Desired, Episode, Tell};
use super::view::ServerBit;
use crate::core::connection::{Buffer, Connection};
use crate::core::pace::Pacing;
use crate::core::session::{MessageCounts, Session, SessionConfig};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{Capabilities, MessageType, encode_subscription, encode_update};

/// How far the initial table of a VNI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableState {
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

/// Announcements that are unproven before any of them is looked at again.
const UNPROVEN: usize = 1024;

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Link {
    bit: ServerBit,
    pub(super) connection: Connection<Buffer>,
    subscriptions: VecDeque<Vni>,
    announcements: VecDeque<(Vni, Route)>,
    /// Entries taken from each of the two queues so far.
    subscriptions_taken: u64,
    announcements_taken: u64,
    flushes: BTreeMap<FlushId, Flush>,
    unproven: VecDeque<Unproven>,
    /// When so many are unproven, those that prove nothing are forgotten.
    unproven_limit: usize,
    tables: BTreeMap<Vni, TableState>,
    /// VNIs whose subscription may not be changed before the last change is read.
    unread: BTreeMap<Vni, Unread>,
    /// Own announcements withdrawn while the table of their VNI was on its way: a
    /// legacy server may have sent them back with it.
    withdrawn: BTreeSet<(Vni, Route)>,
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
            connection: Connection::new(config, pacing, 0, now),
            subscriptions: VecDeque::new(),
            announcements: VecDeque::new(),
            subscriptions_taken: 0,
            announcements_taken: 0,
            flushes: BTreeMap::new(),
            unproven: VecDeque::new(),
            unproven_limit: UNPROVEN,
            tables: BTreeMap::new(),
            unread: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            told: MessageCounts::default(),
        }
    }

    /// Messages sent, or about to be.
    pub(super) fn sent(&self) -> MessageCounts {
        let MessageCounts {
            hello,
            keepalive,
            notice,
            ..
        } = self.session().sent();
        MessageCounts {
            hello,
            keepalive,
            notice,
            ..self.told
        }
    }

    /// VNIs whose flow the server was asked for.
    pub(super) fn subscriptions(&self) -> usize {
        self.tables.len()
    }

    /// What is known of the session.
    pub(super) fn session(&self) -> &Session {
        self.connection.session()
    }

    /// Bytes that wait for the socket.
    pub(super) fn queued_bytes(&self) -> usize {
        self.connection.queue().bytes()
    }

    /// Whether the view is to hear that the server has, or has no longer, a route.
    pub(super) fn hears(
        &mut self,
        action: Action,
        key: &(Vni, Route),
        wants: &mut Wants<'_>,
    ) -> bool {
        let vni = key.0;
        if !self.session().is_established() && wants.subscriptions.contains(&vni) {
            self.tables.entry(vni).or_insert(TableState::Early);
        }
        let is_echo = || {
            let own = &wants.announcements;
            let is_being_withdrawn = !own.contains(key) && own.is_told(key, self.bit);
            self.is_legacy() && (is_being_withdrawn || self.withdrawn.contains(key))
        };
        self.tables.contains_key(&vni) && !(action == Action::Add && is_echo())
    }

    pub(super) fn is_complete(&self, vni: Vni) -> bool {
        self.tables.get(&vni) == Some(&TableState::Complete)
    }

    /// The VNIs whose flow the server was asked for.
    pub(super) fn vnis(&self) -> impl Iterator<Item = Vni> + '_ {
        self.tables.keys().copied()
    }

    /// Drops what still comes for a VNI: the caller unsubscribed.
    pub(super) fn ignore(&mut self, vni: Vni) {
        self.tables.remove(&vni);
        self.withdrawn.retain(|(of, _)| *of != vni);
    }

    /// Has the server tell the table of a VNI again, from the beginning.
    pub(super) fn ask_again(&mut self, vni: Vni, wants: &mut Wants<'_>) {
        self.ignore(vni);
        self.queue_subscription(vni, wants);
        self.pump(wants);
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
        table.is_some_and(|table| {
            std::mem::replace(table, TableState::Complete) != TableState::Complete
        })
    }

    /// One more KEEPALIVE is answered; the VNIs whose table is complete by that.
    pub(super) fn keepalive_answered(&mut self, wants: &mut Wants<'_>) -> Vec<Vni> {
        let (_, answered) = self.session().keepalives();
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
                TableState::Awaiting { barrier, more } if answered >= barrier => {
                    *table = match more.checked_sub(1) {
                        Some(more) => TableState::Awaiting {
                            barrier: *next.get_or_insert_with(|| self.connection.barrier()),
                            more,
                        },
                        None => {
                            complete.push(vni);
                            TableState::Complete
                        }
                    };
                }
                TableState::Early
                | TableState::Loading
                | TableState::Awaiting { .. }
                | TableState::Complete => {}
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
        !self.session().capabilities().contains(Capabilities::STREAM)
    }

    /// How long the server has had announcers, as far as is known.
    ///
    /// A legacy server does not say: it counts as started a moment ago.
    pub(super) fn uptime(&self, doubt: Doubt) -> Duration {
        let extensions = self.session().hello().and_then(|hello| hello.extensions);
        match (extensions.filter(|_| !self.is_legacy()), doubt) {
            (_, Doubt::CutOff) | (None, _) => Duration::ZERO,
            (Some(extensions), Doubt::None) => {
                Duration::from_secs(extensions.uptime_seconds.into())
            }
        }
    }

    /// Encodes what the server must be told, as far as there is room.
    pub(super) fn pump(&mut self, wants: &mut Wants<'_>) {
        if self.session().is_established() {
            let mut barrier = None;
            while self.connection.has_room()
                && let Some(vni) = self.subscriptions.pop_front()
            {
                self.subscriptions_taken += 1;
                self.tell_subscription(vni, wants, &mut barrier);
            }
            while self.connection.has_room()
                && let Some(key) = self.announcements.pop_front()
            {
                self.announcements_taken += 1;
                self.tell_announcement(key, wants);
            }
            self.connection.close_full_window(&mut barrier);
            self.advance_flushes(&mut barrier);
        }
        self.connection.transmit();
    }

    /// The server is to read all that it must be told at this moment.
    pub(super) fn flush(&mut self, flush: FlushId) {
        let begin = self.telling();
        self.flushes.insert(flush, begin);
    }

    /// Forgets a flush.
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
        let (_, answered) = self.session().keepalives();
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
                        barrier: *barrier.get_or_insert_with(|| self.connection.barrier()),
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
        let (is_legacy, offered) = (self.is_legacy(), self.session().capabilities());
        let tell = wants.subscriptions.dequeue(&vni, self.bit);
        let was_told = wants.subscriptions.is_told(&vni, self.bit);
        match tell {
            Tell::Wanted => {
                encode_subscription(self.frames(), MessageType::Subscribe, vni);
                self.told.count(MessageType::Subscribe);
                let mut barrier = || *barrier.get_or_insert_with(|| self.connection.barrier());
                if is_legacy {
                    self.unread.insert(vni, Unread::Subscribe(barrier()));
                }
                let table = if offered.contains(Capabilities::END_OF_RIB) {
                    TableState::Loading
                } else {
                    TableState::Awaiting {
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
        encode_subscription(self.frames(), MessageType::Unsubscribe, vni);
        self.told.count(MessageType::Unsubscribe);
        self.ignore(vni);
        let barrier = *barrier.get_or_insert_with(|| self.connection.barrier());
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
                encode_update(self.frames(), Action::Add, vni, &route);
                self.told.count(MessageType::Update);
                self.await_proof(key, wants);
            }
            Tell::Unwanted => {
                encode_update(self.frames(), Action::Remove, vni, &route);
                self.told.count(MessageType::Update);
                let is_loading = self.tables.contains_key(&vni) && !self.is_complete(vni);
                if self.is_legacy() && is_loading {
                    self.withdrawn.insert(key);
                }
            }
            // Perhaps it was withdrawn and announced again before the server was told of that.
            Tell::Nothing => self.await_proof(key, wants),
        }
    }

    /// An announcement, if it is wanted, is read once the next KEEPALIVE is answered.
    fn await_proof(&mut self, key: (Vni, Route), wants: &Wants<'_>) {
        let (sent, _) = self.session().keepalives();
        let episode = wants.announcements.episode(&key);
        self.unproven.extend(episode.map(|episode| Unproven {
            keepalive: sent + 1,
            key,
            episode,
        }));
        self.forget_unproven(wants);
    }

    /// Forgets proofs that would prove nothing any more: what flaps while the server answers no
    /// KEEPALIVE leaves no more than one for each announcement, and as many again.
    fn forget_unproven(&mut self, wants: &Wants<'_>) {
        if self.unproven.len() < self.unproven_limit {
            return;
        }
        let own = &wants.announcements;
        self.unproven
            .retain(|it| own.episode(&it.key) == Some(it.episode));
        self.unproven_limit = UNPROVEN.max(2 * self.unproven.len());
    }

    fn frames(&mut self) -> &mut Vec<u8> {
        self.connection.queue_mut().frames()
    }

    #[cfg(test)]
    pub(super) fn unproven(&self) -> usize {
        self.unproven.len()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn queued(&self) -> usize {
        self.subscriptions.len() + self.announcements.len()
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.connection.poll_timeout()?;
        Some(self.connection.poll_pace().map_or(due, |it| it.min(due)))
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.connection.overtake();
        let asks_kernel = self.connection.handle_pace_timeout(now);
        debug_assert!(!asks_kernel, "only a server asks for the kernel's queue");
    }
}
