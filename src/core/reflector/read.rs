//! What a shard says of itself; nothing here changes a route.

use std::time::Instant;

use super::owner::Owner;
use super::{Gauges, PeerCounters, Shard};
use crate::core::pace::Pacer;
use crate::core::rib::PeerId;
use crate::core::session::MessageCounts;

/// A session as others may see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionView {
    pub(crate) id: PeerId,
    pub(crate) is_established: bool,
    /// Whether its HELLO has come, and offered no reassembly.
    pub(crate) is_legacy: Option<bool>,
    pub(crate) is_draining: bool,
    /// Since when it is in the state it is in.
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
}

impl Shard {
    /// What the shard has at this moment.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            sessions: self.peers.len(),
            established: self.established,
            subscriptions: self.subscriptions,
            routes: self.owner.routes(),
            vnis: self.owner.vnis(),
            announcements: self.owner.announcements(),
            changes: self.owner.changes(),
            counters: self.counters,
        }
    }

    /// The tables that this shard owns.
    pub(crate) fn tables(&self) -> &Owner {
        &self.owner
    }

    /// The same, to be watched.
    pub(crate) fn tables_mut(&mut self) -> &mut Owner {
        &mut self.owner
    }

    /// Calls `each` with every session that lives here.
    pub(crate) fn for_each_session(&self, mut each: impl FnMut(SessionView)) {
        for (&id, peer) in &self.peers {
            let session = &peer.session;
            each(SessionView {
                id,
                is_established: session.is_established(),
                is_legacy: session.knows_peer().then(|| session.is_legacy()),
                is_draining: peer.is_draining,
                since: session.since(),
                keepalive_interval: session.keepalive_interval(),
                last_received: session.last_received(),
                subscriptions: peer.subscriptions.len(),
                queued_bytes: peer.outbox.bytes(),
                legacy_rate: peer.pacer.as_ref().map(Pacer::rate),
                received: session.received(),
                sent: MessageCounts {
                    update: peer.outbox.updates_sent(),
                    end_of_rib: peer.outbox.ends_of_rib_sent(),
                    ..session.sent()
                },
                counters: peer.counters,
            });
        }
    }

    /// Bytes of changes that wait for a session, of the one with most.
    #[cfg(feature = "internals")]
    pub(crate) fn most_changes_queued(&self) -> usize {
        let mut most = 0;
        for (_, peer) in &self.peers {
            most = most.max(peer.outbox.delta_bytes());
        }
        most
    }
}
