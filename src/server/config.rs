//! Settings of a server.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::memory;
use crate::core::pace::{DEFAULT_RATE, LegacyPacing, MIN_RATE, Pacing};
use crate::core::reflector::{Limits, ShardConfig};
use crate::core::session::{Role, SessionConfig};
use crate::core::time::bounded;
use crate::core::wire::{Capabilities, Extensions};
use crate::error::{Error, Result};

/// The least `queue_hard_limit`. What comes in one turn of all loops (1 MiB of updates, and a full
/// mailbox of 6 MiB) is queued before any of it can be sent: below that a burst would end the
/// session of a peer that reads as fast as it can.
const MIN_HARD_LIMIT: usize = 8 * 1024 * 1024;

/// The least `memory_limit`.
const MIN_MEMORY_LIMIT: usize = 16 * 1024 * 1024;

/// Settings of a server, each with its unit; the default serves a fabric of thousands.
///
/// A limit protects the others from one: what passes it is refused to the peer that
/// asked, counted, and logged once a minute for each peer.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Seconds between two KEEPALIVEs, at least 1; a client that asks for less gets less.
    /// A session ends after two and a half intervals of silence. Default: 5.
    pub keepalive_interval: u32,
    /// Threads that serve sessions. Default: one for each core.
    pub workers: NonZeroUsize,
    /// How long a new connection may take to complete the handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Bytes of changes waiting for a session that takes nothing, from which on they are
    /// coalesced by route. Costs that much for each stalled session. Default: 256 KiB.
    pub queue_soft_limit: usize,
    /// Bytes of changes waiting for a session that end it (`TooSlow`); half as much again while
    /// it stands in line to have them coalesced. They are shared with all others that wait for
    /// the same. At least 8 MiB, which one burst can need. Default: 64 MiB.
    pub queue_hard_limit: usize,
    /// Connections at once; more are closed as they come. Costs up to 4 KiB each, and
    /// what the kernel takes. Default: 32,768.
    pub max_sessions: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64. Default: 8,192.
    pub max_sessions_per_address: usize,
    /// Connections accepted in a second; more wait, and addresses take turns. One that is refused
    /// or has ended does not count. Default: 5,000.
    pub max_accepts_per_second: u32,
    /// Routes one peer may announce, counted at each worker. Costs up to 130 B each.
    /// Default: 2,000,000.
    pub max_routes_per_peer: usize,
    /// Routes all peers may announce together. Default: 16,000,000 (about 2 GB).
    pub max_routes: usize,
    /// VNIs one peer may subscribe to. Costs about 60 B each. Default: 16,384.
    pub max_subscriptions_per_peer: usize,
    /// VNIs that have routes, counted at each worker. Costs up to 400 B each. Default:
    /// 1,000,000.
    pub max_vnis: usize,
    /// VNIs that one peer may announce in, counted at each worker. Default: 65,536.
    pub max_vnis_per_peer: usize,
    /// Bytes of tables, queues, sessions and watches; `None`: half of what the process may
    /// have, by its control group, its resource limits and the machine. From 7/8 of it on new
    /// sessions, routes and subscriptions are refused. Beyond it tables give back their history,
    /// then the sessions that hold most are closed (`MemoryLimit`), one after the other.
    /// Default: `None`.
    pub memory_limit: Option<usize>,
    /// Whether peers without reassembly (Go MetalBond, RustBond 0.1) are sent whole frames
    /// in small chunks, and no faster than they read. Default: `Auto`.
    pub legacy_pacing: LegacyPacing,
    /// Bytes per second to one such peer at most, at least 4096. A peer that ends its
    /// connection while a table is sent has half of it next time, for an hour; six times
    /// at most. Default: 8 MiB (a pause of 2 ms after each 16 KiB).
    pub legacy_rate: u32,
    /// Identity in the HELLO to peers of this implementation. Default: random.
    pub node_id: Option<[u8; 16]>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            keepalive_interval: 5,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            handshake_timeout: Duration::from_secs(10),
            queue_soft_limit: 256 * 1024,
            queue_hard_limit: 64 * 1024 * 1024,
            max_sessions: 32_768,
            max_sessions_per_address: 8192,
            max_accepts_per_second: 5000,
            max_routes_per_peer: 2_000_000,
            max_routes: 16_000_000,
            max_subscriptions_per_peer: 16_384,
            max_vnis: 1_000_000,
            max_vnis_per_peer: 65_536,
            memory_limit: None,
            legacy_pacing: LegacyPacing::Auto,
            legacy_rate: DEFAULT_RATE,
            node_id: None,
        }
    }
}

impl ServerConfig {
    /// Refuses what a server would not start with.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its limits.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: &str| Err(Error::InvalidConfig(text.into()));
        if self.keepalive_interval == 0 {
            return refuse("keepalive_interval is 0; it must be at least 1 second");
        }
        if self.handshake_timeout.is_zero() {
            return refuse("handshake_timeout is 0; a handshake takes some time");
        }
        if self.max_accepts_per_second == 0 {
            return refuse("max_accepts_per_second is 0; no connection could ever be accepted");
        }
        if self.legacy_rate < MIN_RATE {
            return refuse("legacy_rate is below 4096 bytes per second");
        }
        if self.queue_soft_limit > self.queue_hard_limit {
            return refuse("queue_soft_limit is above queue_hard_limit");
        }
        if self.queue_hard_limit < MIN_HARD_LIMIT {
            return refuse("queue_hard_limit is below 8 MiB, which one burst of changes can need");
        }
        if self.memory_limit.is_some_and(|it| it < MIN_MEMORY_LIMIT) {
            return refuse("memory_limit is below 16 MiB, which a server without routes can need");
        }
        Ok(())
    }

    /// Which of these settings are others than those of a running server, and are fixed at
    /// its start.
    pub(super) fn fixed(&self, running: &Self) -> Vec<&'static str> {
        let mut fixed = Vec::new();
        if self.workers != running.workers {
            fixed.push("workers");
        }
        if self.node_id != running.node_id {
            fixed.push("node_id");
        }
        fixed
    }

    pub(super) fn accept_limits(&self) -> AcceptLimits {
        AcceptLimits {
            sessions: self.max_sessions,
            per_address: self.max_sessions_per_address,
            per_second: self.max_accepts_per_second,
            memory: self.memory(),
        }
    }

    /// The limit of the byte account.
    pub(super) fn memory(&self) -> usize {
        self.memory_limit.unwrap_or_else(memory::default_limit)
    }

    /// How long a peer's kernel may leave something unacknowledged: after as long as send
    /// hold, nobody reads it any more.
    pub(super) fn user_timeout(&self) -> Duration {
        Duration::from_secs(self.keepalive_interval.into()) * 5
    }

    /// What the shards are made with; `seed` is a secret of this process.
    pub(super) fn shard(&self, seed: u64) -> ShardConfig {
        ShardConfig {
            session: SessionConfig {
                role: Role::Server,
                keepalive_interval: self.keepalive_interval,
                handshake_timeout: bounded(self.handshake_timeout),
                extensions: Some(Extensions {
                    capabilities: Capabilities::OWN,
                    node_id: self.node_id.unwrap_or_else(crate::random::node_id),
                    uptime_seconds: 0,
                }),
            },
            soft_limit: self.queue_soft_limit,
            hard_limit: self.queue_hard_limit,
            limits: Limits {
                routes_per_peer: self.max_routes_per_peer,
                routes: self.max_routes,
                subscriptions_per_peer: self.max_subscriptions_per_peer,
                vnis: self.max_vnis,
                vnis_per_peer: self.max_vnis_per_peer,
            },
            memory_limit: self.memory(),
            pacing: Pacing {
                mode: self.legacy_pacing,
                rate: self.legacy_rate,
            },
            seed,
        }
    }
}

/// What the acceptor keeps connections within.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptLimits {
    pub(super) sessions: usize,
    pub(super) per_address: usize,
    pub(super) per_second: u32,
    /// Bytes from which on, nearly, no session is accepted.
    pub(super) memory: usize,
}
