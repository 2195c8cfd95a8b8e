//! Connections that were accepted and wait for a grant.
//!
//! Each source has a queue of its own, and they take turns: one that connects all
//! the time delays itself. A connection that has ended meanwhile costs no grant.

use std::collections::VecDeque;

use crate::core::map::{Map, map};
use crate::net::{Peer, Source, Stream};

/// Connections that wait at most; more stay in the kernel's queue. Each costs a descriptor.
const ROOM: usize = 1024;

pub(super) struct Lobby {
    queues: Map<Source, VecDeque<(Stream, Peer)>>,
    /// The blocks that have a queue, in the order of their turns.
    turns: VecDeque<Source>,
    len: usize,
}

impl Lobby {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            queues: map(seed),
            turns: VecDeque::new(),
            len: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= ROOM
    }

    pub(super) fn push(&mut self, block: Source, stream: Stream, peer: Peer) {
        let queue = self.queues.entry(block).or_default();
        if queue.is_empty() {
            self.turns.push_back(block);
        }
        queue.push_back((stream, peer));
        self.len += 1;
    }

    /// Takes the connection whose turn it is.
    pub(super) fn take(&mut self) -> Option<(Stream, Peer)> {
        let block = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&block)?;
        let taken = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&block);
        } else {
            self.turns.push_back(block);
        }
        self.len -= usize::from(taken.is_some());
        taken
    }

    /// Drops the connections that have ended. Calls `each` with their peers.
    pub(super) fn sweep(&mut self, mut each: impl FnMut(Peer)) {
        for queue in self.queues.values_mut() {
            queue.retain(|(stream, peer)| {
                let has_ended = stream.has_ended();
                if has_ended {
                    each(*peer);
                    self.len -= 1;
                }
                !has_ended
            });
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        let queues = &self.queues;
        self.turns.retain(|block| queues.contains_key(block));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection that was accepted, and its far end.
    fn connection(listener: &TcpListener) -> (Stream, TcpStream) {
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (mio::net::TcpStream::from_std(near).into(), far)
    }

    #[test]
    fn blocks_take_turns_and_ended_connections_are_swept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut lobby = Lobby::new(1);
        let mut far = Vec::new();
        let peer = |port| Peer::at(([192, 0, 2, 1], port).into());
        let blocks = [1, 2].map(|it| Source::Address([192, 0, 2, it].into()));
        for (port, block) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
            let (stream, end) = connection(&listener);
            lobby.push(blocks[block], stream, peer(port));
            far.push(end);
        }
        assert_eq!(lobby.take().unwrap().1, peer(1));
        assert_eq!(lobby.take().unwrap().1, peer(4), "the other block's turn");
        drop(far.remove(1));
        let mut swept = Vec::new();
        while swept.is_empty() {
            lobby.sweep(|peer| swept.push(peer));
        }
        assert_eq!(swept, [peer(2)]);
        assert_eq!(lobby.take().unwrap().1, peer(3));
        assert!(lobby.take().is_none() && lobby.is_empty());
    }
}
