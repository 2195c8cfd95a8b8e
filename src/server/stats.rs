//! What a server counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::core::reflector::{Gauges, Usage};
use crate::inspect::ServerStats;

/// The numbers of one worker, written by it alone.
#[derive(Debug, Default)]
pub(super) struct WorkerStats {
    pub(super) sessions: AtomicUsize,
    pub(super) established: AtomicUsize,
    pub(super) subscriptions: AtomicUsize,
    pub(super) routes: AtomicUsize,
    pub(super) vnis: AtomicUsize,
    pub(super) announcements: AtomicUsize,
    pub(super) refused: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) updates_received: AtomicU64,
    pub(super) updates_sent: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) folds: AtomicU64,
    pub(super) legacy_drops: AtomicU64,
    pub(super) cut_chunks: AtomicU64,
    pub(super) held_up: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) table_bytes: AtomicUsize,
    pub(super) queue_bytes: AtomicUsize,
    pub(super) session_bytes: AtomicUsize,
    pub(super) watch_bytes: AtomicUsize,
}

impl WorkerStats {
    pub(super) fn publish(&self, gauges: Gauges) {
        self.sessions.store(gauges.sessions, Ordering::Relaxed);
        self.established
            .store(gauges.established, Ordering::Relaxed);
        self.subscriptions
            .store(gauges.subscriptions, Ordering::Relaxed);
        self.routes.store(gauges.routes, Ordering::Relaxed);
        self.vnis.store(gauges.vnis, Ordering::Relaxed);
        self.announcements
            .store(gauges.announcements, Ordering::Relaxed);
        self.changes.store(gauges.changes, Ordering::Relaxed);
        let counters = gauges.counters;
        self.updates_sent
            .store(counters.updates_sent, Ordering::Relaxed);
        self.refused.store(counters.refused, Ordering::Relaxed);
        self.updates_received
            .store(counters.updates, Ordering::Relaxed);
        self.malformed.store(counters.malformed, Ordering::Relaxed);
        self.folds.store(counters.coalesced, Ordering::Relaxed);
        self.legacy_drops
            .store(counters.legacy_drops, Ordering::Relaxed);
        self.cut_chunks
            .store(counters.cut_chunks, Ordering::Relaxed);
    }

    /// Publishes the byte account.
    pub(super) fn publish_memory(&self, usage: Usage, watches: usize) {
        self.table_bytes.store(usage.tables, Ordering::Relaxed);
        self.queue_bytes.store(usage.queues, Ordering::Relaxed);
        self.session_bytes.store(usage.sessions, Ordering::Relaxed);
        self.watch_bytes.store(watches, Ordering::Relaxed);
    }

    /// Returns all bytes of the account.
    pub(super) fn memory(&self) -> usize {
        self.table_bytes.load(Ordering::Relaxed)
            + self.queue_bytes.load(Ordering::Relaxed)
            + self.session_bytes.load(Ordering::Relaxed)
            + self.watch_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_to(&self, total: &mut ServerStats) {
        total.sessions += self.sessions.load(Ordering::Relaxed);
        total.established += self.established.load(Ordering::Relaxed);
        total.subscriptions += self.subscriptions.load(Ordering::Relaxed);
        total.routes += self.routes.load(Ordering::Relaxed);
        total.vnis += self.vnis.load(Ordering::Relaxed);
        total.announcements += self.announcements.load(Ordering::Relaxed);
        total.refused += self.refused.load(Ordering::Relaxed);
        total.accepted += self.accepted.load(Ordering::Relaxed);
        total.closed += self.closed.load(Ordering::Relaxed);
        total.updates_sent += self.updates_sent.load(Ordering::Relaxed);
        total.changes += self.changes.load(Ordering::Relaxed);
        total.updates_received += self.updates_received.load(Ordering::Relaxed);
        total.malformed += self.malformed.load(Ordering::Relaxed);
        total.folds += self.folds.load(Ordering::Relaxed);
        total.legacy_drops += self.legacy_drops.load(Ordering::Relaxed);
        total.cut_chunks += self.cut_chunks.load(Ordering::Relaxed);
        total.held_up += self.held_up.load(Ordering::Relaxed);
        total.bytes_received += self.bytes_received.load(Ordering::Relaxed);
        total.bytes_sent += self.bytes_sent.load(Ordering::Relaxed);
        let memory = &mut total.memory;
        memory.tables += self.table_bytes.load(Ordering::Relaxed);
        memory.queues += self.queue_bytes.load(Ordering::Relaxed);
        memory.sessions += self.session_bytes.load(Ordering::Relaxed);
        memory.watches += self.watch_bytes.load(Ordering::Relaxed);
    }
}
