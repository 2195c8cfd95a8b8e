//! The connection to one server: what it is told, and how complete its tables are.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::desired::{Desired, Tell};
use super::view::ServerBit;
use crate::session::{CloseReason, Session, SessionConfig, Transmit};
use crate::types::{Action, Route, Vni};
use crate::wire::{Capabilities, KEEPALIVE_FRAME, MessageType, encode_subscription, encode_update};

/// Bytes that wait for the socket at most; a KEEPALIVE is behind no more than these.
const OUT_BYTES: usize = 32 * 1024;

/// How far the initial table of a VNI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
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

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Link {
    bit: ServerBit,
    pub(super) session: Session,
    out: Vec<u8>,
    sent: usize,
    subscriptions: VecDeque<Vni>,
    announcements: VecDeque<(Vni, Route)>,
    tables: BTreeMap<Vni, Table>,
    /// VNIs unsubscribed from, until the server has surely read that.
    draining: BTreeMap<Vni, u64>,
    /// Since when the server takes nothing, while something waits.
    stalled_since: Option<Instant>,
}

/// What the caller of the client wants.
pub(super) struct Wants<'a> {
    pub(super) subscriptions: &'a mut Desired<Vni>,
    pub(super) announcements: &'a mut Desired<(Vni, Route)>,
}

impl Link {
    pub(super) fn new(bit: ServerBit, config: SessionConfig, now: Instant) -> Self {
        Self {
            bit,
            session: Session::new(config, now),
            out: Vec::new(),
            sent: 0,
            subscriptions: VecDeque::new(),
            announcements: VecDeque::new(),
            tables: BTreeMap::new(),
            draining: BTreeMap::new(),
            stalled_since: None,
        }
    }

    /// Whether what the server says about a VNI counts.
    pub(super) fn hears(&self, vni: Vni) -> bool {
        self.tables.contains_key(&vni)
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
        self.finish_draining(answered, wants);
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
                Table::Loading | Table::Awaiting { .. } | Table::Complete => {}
            }
        }
        complete
    }

    /// VNIs that the server has surely left may be talked about again.
    fn finish_draining(&mut self, answered: u64, wants: &mut Wants<'_>) {
        let is_drained = |(vni, barrier): (&Vni, &u64)| (answered >= *barrier).then_some(*vni);
        let drained: Vec<Vni> = self.draining.iter().filter_map(is_drained).collect();
        for vni in drained {
            self.draining.remove(&vni);
            // Go MetalBond took the UNSUBSCRIBE for a withdrawal of all our routes.
            if self.is_legacy() {
                wants.announcements.forget(self.bit, |(of, _)| *of == vni);
            }
            let keys = wants.announcements.iter().filter(|(of, _)| *of == vni);
            for key in keys.collect::<Vec<_>>() {
                self.queue_announcement(key, wants);
            }
            self.queue_subscription(vni, wants);
        }
    }

    fn is_legacy(&self) -> bool {
        !self.session.capabilities().contains(Capabilities::STREAM)
    }

    /// Encodes what the server must be told, as far as there is room.
    pub(super) fn pump(&mut self, wants: &mut Wants<'_>) {
        if self.session.is_established() {
            let mut barrier = None;
            while self.has_room()
                && let Some(vni) = self.subscriptions.pop_front()
            {
                self.tell_subscription(vni, wants, &mut barrier);
            }
            while self.has_room()
                && let Some(key) = self.announcements.pop_front()
            {
                self.tell_announcement(key, wants);
            }
        }
        while let Some(transmit) = self.session.poll_transmit() {
            match transmit {
                Transmit::Hello(frame) => self.out.extend_from_slice(&frame),
                Transmit::Keepalive => self.out.extend_from_slice(&KEEPALIVE_FRAME),
            }
        }
    }

    /// `barrier`: one KEEPALIVE serves all that is told in a row.
    fn tell_subscription(&mut self, vni: Vni, wants: &mut Wants<'_>, barrier: &mut Option<u64>) {
        if self.draining.contains_key(&vni) {
            wants.subscriptions.postpone(&vni, self.bit);
            return;
        }
        let tell = wants.subscriptions.dequeue(&vni, self.bit);
        let was_told = wants.subscriptions.is_told(&vni, self.bit);
        match tell {
            Tell::Wanted => {
                encode_subscription(&mut self.out, MessageType::Subscribe, vni);
                let offered = self.session.capabilities();
                let table = if offered.contains(Capabilities::END_OF_RIB) {
                    Table::Loading
                } else {
                    Table::Awaiting {
                        barrier: *barrier.get_or_insert_with(|| self.session.barrier()),
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
        self.tables.remove(&vni);
        let barrier = *barrier.get_or_insert_with(|| self.session.barrier());
        self.draining.insert(vni, barrier);
    }

    fn tell_announcement(&mut self, key: (Vni, Route), wants: &mut Wants<'_>) {
        let (vni, route) = key;
        // Messages of different types may overtake each other inside Go MetalBond.
        if self.is_legacy() && self.draining.contains_key(&vni) {
            wants.announcements.postpone(&key, self.bit);
            return;
        }
        match wants.announcements.dequeue(&key, self.bit) {
            Tell::Wanted => encode_update(&mut self.out, Action::Add, vni, &route),
            Tell::Unwanted => encode_update(&mut self.out, Action::Remove, vni, &route),
            Tell::Nothing => {}
        }
    }

    fn has_room(&self) -> bool {
        self.out.len() - self.sent < OUT_BYTES
    }

    /// Bytes to send.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Drops the first `count` bytes: they were sent at `now`.
    pub(super) fn advance(&mut self, count: usize, now: Instant) {
        self.sent += count;
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
        Some(hold.map_or(due, |hold| hold.min(due)))
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        let hold = self.send_hold();
        if self.stalled_since.is_some_and(|since| now >= since + hold) {
            self.session.close(CloseReason::SendHold);
        }
    }

    fn send_hold(&self) -> Duration {
        self.session.timeout() * 2
    }
}
