//! Settings of a server.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::session::{Role, SessionConfig};
use crate::shard::ShardConfig;
use crate::wire::{Capabilities, Extensions};

/// Settings of a server, each with its unit; the default serves a fabric of thousands.
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
    /// folded by route. Costs that much for each stalled session. Default: 256 KiB.
    pub queue_soft_limit: usize,
    /// Bytes of changes waiting for a session that end it. They are shared with all
    /// others that wait for the same. Default: 64 MiB.
    pub queue_hard_limit: usize,
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
            node_id: None,
        }
    }
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.keepalive_interval == 0 {
            let text = "keepalive_interval is 0; it must be at least 1 second";
            return Err(Error::InvalidConfig(text.into()));
        }
        if self.handshake_timeout.is_zero() {
            let text = "handshake_timeout is 0; a handshake takes some time";
            return Err(Error::InvalidConfig(text.into()));
        }
        Ok(())
    }

    /// What the shards are made with; `seed` is a secret of this process.
    pub(super) fn shard(&self, seed: u64) -> ShardConfig {
        ShardConfig {
            session: SessionConfig {
                role: Role::Server,
                keepalive_interval: self.keepalive_interval,
                handshake_timeout: self.handshake_timeout,
                extensions: Some(Extensions {
                    capabilities: Capabilities::OWN,
                    node_id: self.node_id.unwrap_or_else(crate::random::node_id),
                }),
            },
            soft_limit: self.queue_soft_limit,
            hard_limit: self.queue_hard_limit,
            seed,
        }
    }
}
