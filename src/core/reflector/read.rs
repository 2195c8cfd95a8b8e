//! What a shard says of itself; nothing here changes a route.

use super::owner::Owner;
use super::{PeerCounters, SessionView, Shard};

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

impl Shard {
    /// What the shard has at this moment.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            sessions: self.home.len(),
            established: self.home.established(),
            subscriptions: self.home.subscriptions(),
            routes: self.owner.routes(),
            vnis: self.owner.vnis(),
            announcements: self.owner.announcements(),
            changes: self.owner.changes(),
            counters: self.home.counters(),
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
    pub(crate) fn for_each_session(&self, each: impl FnMut(SessionView)) {
        self.home.for_each_session(each);
    }

    /// Bytes of changes that wait for a session that is past its limit, if there is one.
    #[cfg(feature = "internals")]
    pub(crate) fn past_limit(&self) -> Option<usize> {
        self.home.past_limit()
    }
}
