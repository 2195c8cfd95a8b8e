//! A session and what its home shard keeps for it.

use std::time::{Duration, Instant};

use super::SessionView;
use super::timers::Scheduled;
use crate::core::limit::Quiet;
use crate::core::map::{Map, map};
use crate::core::pace::Pacer;
use crate::core::reflector::outbox::Outbox;
use crate::core::rib::PeerId;
use crate::core::session::{CloseReason, MessageCounts, Session, SessionConfig};
use crate::core::types::Vni;

/// One subscription of a session, as its home sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// Tells it from earlier ones of the same VNI.
    pub(super) epoch: u32,
    /// The table has come; changes that come belong to it.
    pub(super) active: bool,
}

/// Messages of a session, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerCounters {
    /// UPDATEs received.
    pub(crate) updates: u64,
    /// UPDATEs sent; of a shard.
    pub(crate) updates_sent: u64,
    /// Messages dropped as malformed.
    pub(crate) malformed: u64,
    /// Announcements and subscriptions refused because of a limit.
    pub(crate) refused: u64,
    /// Times the queue was folded.
    pub(crate) folds: u64,
    /// Legacy sessions that the peer ended while a table was sent.
    pub(crate) legacy_drops: u64,
    /// Chunks for legacy peers of which the kernel took a part.
    pub(crate) cut_chunks: u64,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    /// Of a legacy peer, once that is known.
    pub(super) pacer: Option<Pacer>,
    /// How often the pace to its address is halved.
    pub(super) halvings: u8,
    pub(super) subscriptions: Map<Vni, Subscription>,
    pub(super) epoch: u32,
    pub(super) counters: PeerCounters,
    /// When its entries in the timer queue are due.
    pub(super) scheduled: Scheduled,
    /// Stands in the list of those with something to send.
    pub(super) ready: bool,
    /// Since when the peer takes nothing, while something waits.
    pub(super) stalled_since: Option<Instant>,
    /// Not before then is a malformed message reported again.
    pub(super) malformed_quiet: Quiet,
    /// Not before then is a refusal reported again.
    pub(super) refused_quiet: Quiet,
    /// The handshake was completed.
    pub(super) was_established: bool,
    /// To be ended once it was sent what waits.
    pub(super) is_draining: bool,
}

impl Peer {
    pub(super) fn new(config: SessionConfig, halvings: u8, seed: u64, now: Instant) -> Self {
        Self {
            session: Session::new(config, now),
            outbox: Outbox::default(),
            pacer: None,
            halvings,
            subscriptions: map(seed),
            epoch: 0,
            counters: PeerCounters::default(),
            scheduled: Scheduled::default(),
            ready: false,
            stalled_since: None,
            malformed_quiet: Quiet::default(),
            refused_quiet: Quiet::default(),
            was_established: false,
            is_draining: false,
        }
    }

    /// How long a peer may take nothing from a queue that is not empty (RFC 9687).
    pub(super) fn send_hold(&self) -> Duration {
        self.session.timeout() * 2
    }

    /// Whether the peer has taken nothing for `limit` of what waits for it.
    pub(super) fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        self.stalled_since.is_some_and(|since| now >= since + limit)
    }

    /// Whether something can be sent at this moment, as far as this side goes.
    pub(super) fn is_sendable(&self) -> bool {
        let may_send = |pacer: &Pacer| pacer.room().is_some() || self.outbox.has_urgent();
        !self.outbox.is_empty() && self.pacer.as_ref().is_none_or(may_send)
    }

    pub(super) fn fold(&mut self, seed: u64) {
        self.outbox.fold(seed);
        self.counters.folds += 1;
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        if self.is_stalled(now, self.send_hold()) {
            self.session.close(CloseReason::SendHold);
        }
    }

    /// When something is due, if the session lives.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.session.poll_timeout()?;
        let hold = self.stalled_since.map(|since| since + self.send_hold());
        Some(hold.map_or(due, |hold| hold.min(due)))
    }

    /// What the session looks like.
    pub(super) fn view(&self, id: PeerId) -> SessionView {
        let session = &self.session;
        SessionView {
            id,
            is_established: session.is_established(),
            is_legacy: session.knows_peer().then(|| session.is_legacy()),
            is_draining: self.is_draining,
            since: session.since(),
            keepalive_interval: session.keepalive_interval(),
            last_received: session.last_received(),
            subscriptions: self.subscriptions.len(),
            queued_bytes: self.outbox.bytes(),
            legacy_rate: self.pacer.as_ref().map(Pacer::rate),
            received: session.received(),
            sent: MessageCounts {
                update: self.outbox.updates_sent(),
                end_of_rib: self.outbox.ends_of_rib_sent(),
                ..session.sent()
            },
            counters: self.counters,
        }
    }

    /// When the pacer has something to do.
    pub(super) fn poll_pace(&self) -> Option<Instant> {
        self.pacer.as_ref().and_then(Pacer::poll_timeout)
    }
}
