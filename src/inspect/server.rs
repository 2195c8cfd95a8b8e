//! Servers and clients in numbers.

/// What a server has and has done, at one moment.
///
/// Each number is exact; between them, changes may have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections, whether their handshake is complete or not.
    pub sessions: usize,
    /// Sessions whose handshake is complete.
    pub established: usize,
    /// Sessions times the VNIs they subscribe to.
    pub subscriptions: usize,
    /// Distinct routes.
    pub routes: usize,
    /// VNIs that somebody announces in or subscribes to.
    pub vnis: usize,
    /// Routes times their announcers.
    pub announcements: usize,
    /// Connections closed at once because of a limit, since the start.
    pub refused_sessions: u64,
    /// Announcements and subscriptions refused because of a limit, since the start.
    pub refused: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections that ended since the start.
    pub closed: u64,
    /// UPDATEs received since the start.
    pub updates_received: u64,
    /// UPDATEs sent since the start, to all sessions.
    pub updates_sent: u64,
    /// Announcements that came or went since the start.
    pub changes: u64,
    /// Messages dropped as malformed since the start.
    pub malformed: u64,
    /// Times a queue was coalesced since the start.
    pub folds: u64,
    /// Sessions of legacy peers that ended while a table was sent to them, since the start.
    pub legacy_drops: u64,
    /// Chunks for legacy peers that the kernel cut, since the start.
    pub cut_chunks: u64,
    /// Times a worker stopped reading because another was behind, since the start.
    pub held_up: u64,
    /// Bytes received since the start.
    pub bytes_received: u64,
    /// Bytes sent since the start.
    pub bytes_sent: u64,
    /// The byte account.
    pub memory: MemoryStats,
}

/// Bytes that a server has allocated, by what for, and how many it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Tables with their logs.
    pub tables: usize,
    /// What waits for sessions, apart from what stands in a log.
    pub queues: usize,
    /// Sessions, subscriptions and VNIs.
    pub sessions: usize,
    /// What waits for monitors.
    pub watches: usize,
    /// The limit of all together.
    pub limit: usize,
}

impl MemoryStats {
    /// All bytes of the account.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.tables + self.queues + self.sessions + self.watches
    }
}

/// What a client could not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Announcements of routes refused since the start, because of
    /// [`ClientConfig::max_routes`](crate::ClientConfig::max_routes); one route may be announced
    /// by several servers, and by each again.
    pub refused_routes: u64,
    /// Distinct routes that are missing at this moment because they were refused; 65,536 stand
    /// for all that are more.
    pub missing_routes: usize,
}
