//! What the sessions of a shard cost, and which of them holds most.

use super::Home;
use super::peer::Peer;
use crate::core::reflector::memory::{Pressure, Usage};
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;

/// What a session takes on the heap besides its own record, when nothing waits for it.
const SESSION_HEAP: usize = 300;

/// An entry of a map of subscriptions, with the room beside it.
const SUBSCRIPTION: usize = 21;

/// How many of the sessions for which most waits are looked at.
const LOOKS: usize = 8;

impl Home {
    /// Returns what the home has allocated.
    pub(in crate::core::reflector) fn usage(&self) -> Usage {
        Usage {
            tables: 0,
            queues: self.queue_bytes + self.segments.bytes(),
            sessions: self.peers.allocation_size()
                + self.peers.len() * (size_of::<Peer>() + SESSION_HEAP)
                + self.subscriptions * SUBSCRIPTION
                + self.subscribers.heap_bytes(),
        }
    }

    /// Says how short memory is.
    pub(in crate::core::reflector) fn set_pressure(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    /// The session whose queue holds most, and about how many bytes that are.
    pub(in crate::core::reflector) fn greatest_queue(&self) -> Option<(PeerId, usize)> {
        let mut waiting: Vec<(usize, PeerId)> = Vec::new();
        for (&id, peer) in &self.peers {
            let bytes = peer.connection.queue().bytes();
            if waiting.len() < LOOKS || waiting.last().is_some_and(|it| bytes > it.0) {
                waiting.push((bytes, id));
                waiting.sort_unstable_by(|a, b| b.cmp(a));
                waiting.truncate(LOOKS);
            }
        }
        let holds = waiting.into_iter().filter_map(|(_, id)| {
            let peer = self.peers.get(&id)?;
            Some((id, peer.connection.queue().holds()))
        });
        holds.max_by_key(|it| it.1)
    }

    /// Ends a session because it holds most when memory is short.
    pub(in crate::core::reflector) fn shed(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connection.close(CloseReason::MemoryLimit);
            self.settle(id);
        }
    }
}
