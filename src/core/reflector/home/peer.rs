//! A session and what its home shard keeps for it.

use std::time::Instant;

use super::SessionView;
use super::timers::Scheduled;
use crate::core::connection::Connection;
use crate::core::limit::Quiet;
use crate::core::map::{Map, map};
use crate::core::reflector::config::ShardConfig;
use crate::core::reflector::outbox::Outbox;
use crate::core::rib::PeerId;
use crate::core::session::MessageCounts;
use crate::core::types::Vni;
use crate::core::wire::Notice;

/// One subscription of a session, as its home sees it. There may be millions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// Tells it from earlier ones of the same VNI.
    pub(super) epoch: u32,
    /// The stage: a place among the subscribers of the VNI, or what has not got that far.
    place: u32,
}

const _: () = assert!(size_of::<(Vni, Subscription)>() == 12);

impl Subscription {
    const WAITING: u32 = u32::MAX;
    const ASKED: u32 = u32::MAX - 1;

    pub(super) fn new(epoch: u32, stage: Stage) -> Self {
        let place = match stage {
            Stage::Waiting => Self::WAITING,
            Stage::Asked => Self::ASKED,
            Stage::Active { at } => {
                debug_assert!(at < Self::ASKED, "fewer sessions than 2^32");
                at
            }
        };
        Self { epoch, place }
    }

    pub(super) fn stage(self) -> Stage {
        match self.place {
            Self::WAITING => Stage::Waiting,
            Self::ASKED => Stage::Asked,
            at => Stage::Active { at },
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        *self = Self::new(self.epoch, stage);
    }
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The table of an earlier subscription to the VNI is still queued: there is one at a time.
    Waiting,
    /// The owner is asked for the table.
    Asked,
    /// The table has come; changes that come belong to it.
    Active {
        /// The place among the subscribers of the VNI.
        at: u32,
    },
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
    /// NOTICEs received.
    pub(crate) notices: u64,
    /// Times the queue was coalesced.
    pub(crate) coalesced: u64,
    /// Legacy sessions that ended while the peer's buffer may have been full.
    pub(crate) legacy_drops: u64,
    /// Chunks for legacy peers of which the kernel took a part.
    pub(crate) cut_chunks: u64,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection<Outbox>,
    pub(super) subscriptions: Map<Vni, Subscription>,
    pub(super) epoch: u32,
    pub(super) counters: PeerCounters,
    /// When its entries in the timer queue are due.
    pub(super) scheduled: Scheduled,
    /// Stands in the list of those with something to send.
    pub(super) ready: bool,
    /// Limits how often malformed messages are reported.
    pub(super) malformed_quiet: Quiet,
    /// Limits how often refusals are reported.
    pub(super) refused_quiet: Quiet,
    /// Limits how often NOTICEs are reported.
    pub(super) notice_quiet: Quiet,
    pub(super) last_notice: Option<Box<Notice>>,
    /// The handshake was completed.
    pub(super) was_established: bool,
    /// Stands in the line of those whose changes are to be coalesced.
    pub(super) is_in_line: bool,
}

impl Peer {
    pub(super) fn new(config: &ShardConfig, halvings: u8, now: Instant) -> Self {
        Self {
            connection: Connection::new(config.session, config.pacing, halvings, now),
            subscriptions: map(config.seed),
            epoch: 0,
            counters: PeerCounters::default(),
            scheduled: Scheduled::default(),
            ready: false,
            malformed_quiet: Quiet::default(),
            refused_quiet: Quiet::default(),
            notice_quiet: Quiet::default(),
            last_notice: None,
            was_established: false,
            is_in_line: false,
        }
    }

    /// Returns whether there is something to send since this call.
    pub(super) fn becomes_ready(&mut self) -> bool {
        !self.ready && {
            self.ready = self.connection.is_sendable();
            self.ready
        }
    }

    /// What the session looks like.
    pub(super) fn view(&self, id: PeerId) -> SessionView {
        let (session, outbox) = (self.connection.session(), self.connection.queue());
        SessionView {
            id,
            is_established: session.is_established(),
            is_legacy: session.knows_peer().then(|| session.is_legacy()),
            is_draining: self.connection.is_draining(),
            since: session.since(),
            keepalive_interval: session.keepalive_interval(),
            last_received: session.last_received(),
            subscriptions: self.subscriptions.len(),
            queued_bytes: outbox.bytes(),
            legacy_rate: self.connection.rate(),
            received: session.received(),
            sent: MessageCounts {
                update: outbox.updates_sent(),
                end_of_rib: outbox.ends_of_rib_sent(),
                ..session.sent()
            },
            counters: self.counters,
            last_notice: self.last_notice.clone(),
        }
    }
}
