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
const LOOKS: usize = 64;

/// The first of so many by bytes, the greatest first.
fn greatest(mut of: Vec<(usize, PeerId)>) -> Vec<(usize, PeerId)> {
    of.sort_unstable();
    of.reverse();
    of.truncate(LOOKS);
    of
}

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

    /// The sessions whose queues hold most, the greatest first, and about how many bytes each.
    pub(in crate::core::reflector) fn greatest_queues(&self) -> Vec<(usize, PeerId)> {
        let bytes = |peer: &Peer| peer.connection.queue().bytes();
        let waiting = self.peers.iter().filter(|(_, peer)| bytes(peer) > 0);
        let waiting = waiting.map(|(&id, peer)| (bytes(peer), id)).collect();
        let mut holds = greatest(waiting);
        for (bytes, id) in &mut holds {
            let peer = self.peers.get(id);
            *bytes = peer.map_or(0, |it| it.connection.queue().holds());
        }
        greatest(holds)
    }

    /// Ends a session because it holds most when memory is short.
    pub(in crate::core::reflector) fn shed(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.connection.close(CloseReason::MemoryLimit);
            self.settle(id);
        }
    }
}
