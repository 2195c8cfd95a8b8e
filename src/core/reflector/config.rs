//! What a shard is made with.

use super::owner::Limits;
use crate::core::pace::Pacing;
use crate::core::session::SessionConfig;

/// What a shard is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardConfig {
    pub(crate) session: SessionConfig,
    /// Bytes of queued changes from which on those of a stalled peer are coalesced by key.
    pub(crate) soft_limit: usize,
    /// Bytes of queued changes that end a session; from half of it on any peer's are
    /// coalesced.
    pub(crate) hard_limit: usize,
    pub(crate) limits: Limits,
    /// Bytes that all shards may have allocated.
    pub(crate) memory_limit: usize,
    pub(crate) pacing: Pacing,
    /// Random seed of this process: keys hash maps against collision attacks.
    pub(crate) seed: u64,
}
