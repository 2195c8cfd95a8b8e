//! The turn of a loop: which of its connections read and write, in what order, and how much.
//!
//! Edge-triggered readiness is announced once. A connection that is ready therefore stands in
//! a list until it has been served; one that has more to do after its share goes to the end, and
//! those that had nothing to be read until now are read sooner.
//! Budgets keep a turn short, so that a KEEPALIVE never waits for somebody's bulk. Connections
//! that a turn did not come to are the first of the next one.

mod readers;

use std::collections::VecDeque;
use std::hash::Hash;

use readers::Readers;
pub(crate) use readers::Waiting;

use crate::core::map::{Map, map};
use crate::core::pace::Framing;

/// Bytes read from one connection before the next has its turn.
pub(crate) const READ_BUDGET: usize = 64 * 1024;

/// Bytes written to one connection before the next has its turn.
pub(crate) const WRITE_BUDGET: usize = 256 * 1024;

/// Bytes read from all connections in one turn; about five milliseconds of updates.
const TURN_READ_BUDGET: usize = 1024 * 1024;

/// Bytes written to all connections in one turn; about a millisecond.
const TURN_WRITE_BUDGET: usize = 4 * 1024 * 1024;

/// Chunks written to all legacy peers in one turn; about a millisecond.
const TURN_CHUNKS: usize = 128;

/// The readiness of a connection.
pub(crate) trait Ready {
    /// Returns whether a read, or the end of a connection attempt, can make progress.
    fn is_readable(&self) -> bool;

    /// Returns whether a write can make progress.
    fn is_writable(&self) -> bool;
}

/// A connection, and the lists that it stands in.
#[derive(Debug)]
struct Slot<C> {
    conn: C,
    in_readers: bool,
    in_writers: bool,
}

/// The bytes that a connection was given, and whether it has more to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// How the rest is to be written; `None`: nothing can be sent at this moment.
    pub(crate) rest: Option<Framing>,
}

impl Written {
    pub(crate) const NOTHING: Self = Self {
        bytes: 0,
        rest: None,
    };
}

/// Which members of a list still have their share in this turn.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    members: usize,
    budget: usize,
}

impl Round {
    fn is_over(self) -> bool {
        self.members == 0 || self.budget == 0
    }

    fn spend(&mut self, amount: usize) {
        self.members -= 1;
        self.budget = self.budget.saturating_sub(amount);
    }
}

/// The connections of a loop, by the keys of their sessions.
#[derive(Debug)]
pub(crate) struct Turn<K, C> {
    slots: Map<K, Slot<C>>,
    readers: Readers<K>,
    /// Those that wait to be read, and must not be until [`Turn::release`].
    held: Vec<K>,
    writers: VecDeque<K>,
    /// Legacy peers. A chunk costs more than its bytes, and the other peers must not pay for it.
    chunk_writers: VecDeque<K>,
    reads: Round,
    writes: Round,
    chunks: usize,
}

impl<K: Copy + Eq + Hash, C: Ready> Turn<K, C> {
    /// A loop without connections; `seed` protects the map of their keys.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: map(seed),
            readers: Readers::new(),
            held: Vec::new(),
            writers: VecDeque::new(),
            chunk_writers: VecDeque::new(),
            reads: Round::default(),
            writes: Round::default(),
            chunks: 0,
        }
    }

    /// Adds a connection, which waits for its first event.
    pub(crate) fn insert(&mut self, key: K, conn: C) {
        let slot = Slot {
            conn,
            in_readers: false,
            in_writers: false,
        };
        self.slots.insert(key, slot);
    }

    /// Takes a connection out of the loop.
    pub(crate) fn remove(&mut self, key: K) -> Option<C> {
        self.slots.remove(&key).map(|slot| slot.conn)
    }

    pub(crate) fn get(&self, key: K) -> Option<&C> {
        self.slots.get(&key).map(|slot| &slot.conn)
    }

    /// The connections in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &C)> {
        self.slots.iter().map(|(key, slot)| (*key, &slot.conn))
    }

    /// Returns whether a connection waits to be read and is not held.
    pub(crate) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Returns whether a connection waits to be written.
    pub(crate) fn has_writers(&self) -> bool {
        !self.writers.is_empty() || !self.chunk_writers.is_empty()
    }

    /// Has `update` add news of the readiness of a connection, and lets the connection have its
    /// turns accordingly.
    pub(crate) fn note(
        &mut self,
        key: K,
        framing: impl FnOnce() -> Framing,
        update: impl FnOnce(&mut C),
    ) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        update(&mut slot.conn);
        if slot.conn.is_readable() && !std::mem::replace(&mut slot.in_readers, true) {
            self.readers.push(key, Waiting::News);
        }
        if slot.conn.is_writable() && !std::mem::replace(&mut slot.in_writers, true) {
            self.push_writer(key, framing());
        }
    }

    /// Has `poll` ask a connection whether it has something to read, and queues it then.
    /// Returns whether it has.
    pub(crate) fn poll_readable(&mut self, key: K, poll: impl FnOnce(&mut C)) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else {
            return false;
        };
        poll(&mut slot.conn);
        let is_readable = slot.conn.is_readable();
        if is_readable && !std::mem::replace(&mut slot.in_readers, true) {
            self.readers.push(key, Waiting::News);
        }
        is_readable
    }

    /// Lets a connection write that has something to send again.
    pub(crate) fn wants_write(&mut self, key: K, framing: impl FnOnce() -> Framing) {
        if let Some(slot) = self.slots.get_mut(&key)
            && slot.conn.is_writable()
            && !std::mem::replace(&mut slot.in_writers, true)
        {
            self.push_writer(key, framing());
        }
    }

    fn push_writer(&mut self, key: K, framing: Framing) {
        match framing {
            Framing::Stream => self.writers.push_back(key),
            Framing::Chunk => self.chunk_writers.push_back(key),
        }
    }

    /// Begins the reads of a turn: each connection that waits has one share.
    pub(crate) fn begin_reads(&mut self) {
        self.reads = Round {
            members: self.readers.len(),
            budget: TURN_READ_BUDGET,
        };
    }

    /// Returns whether [`Self::read_next`] serves another connection in this turn.
    pub(crate) fn has_reads_left(&self) -> bool {
        !self.reads.is_over()
    }

    /// Returns how many connections wait to be read.
    pub(crate) fn readers(&self) -> usize {
        self.readers.len()
    }

    /// Returns what the connection has that is read next, if one is.
    pub(crate) fn next_waiting(&self) -> Option<Waiting> {
        self.readers.next().map(|it| it.1)
    }

    /// Holds the next connection instead of reading it, if `is_held` says so. Returns whether.
    pub(crate) fn hold_next(&mut self, is_held: impl FnOnce(K) -> bool) -> bool {
        match self.readers.next() {
            Some((key, _)) if is_held(key) => self.held.push(key),
            _ => return false,
        }
        self.readers.pop();
        self.reads.spend(0);
        true
    }

    /// Lets the connections that were held read again, in their order.
    pub(crate) fn release(&mut self) {
        for key in self.held.drain(..) {
            self.readers.push(key, Waiting::Rest);
        }
    }

    /// Has `read` read from the next connection; it returns how many bytes it took.
    pub(crate) fn read_next(&mut self, read: impl FnOnce(K, &mut C) -> usize) {
        let Some(key) = self.readers.pop() else {
            return;
        };
        let mut count = 0;
        if let Some(slot) = self.slots.get_mut(&key) {
            count = read(key, &mut slot.conn);
            slot.in_readers = slot.conn.is_readable();
            if slot.in_readers {
                self.readers.push(key, Waiting::Rest);
            }
        }
        self.reads.spend(count);
    }

    /// Begins the writes of a turn: each connection that waits has one share.
    pub(crate) fn begin_writes(&mut self) {
        self.writes = Round {
            members: self.writers.len(),
            budget: TURN_WRITE_BUDGET,
        };
        self.chunks = TURN_CHUNKS;
    }

    /// Has `write` write to the next connection. Returns `false` once the turn is over.
    pub(crate) fn write_next(&mut self, write: impl FnOnce(K, &mut C) -> Written) -> bool {
        let Some(key) = self.next_writer() else {
            return false;
        };
        let mut bytes = 0;
        if let Some(slot) = self.slots.get_mut(&key) {
            let written = write(key, &mut slot.conn);
            bytes = written.bytes;
            let rest = written.rest.filter(|_| slot.conn.is_writable());
            slot.in_writers = rest.is_some();
            if let Some(framing) = rest {
                self.push_writer(key, framing);
            }
        }
        self.writes.budget = self.writes.budget.saturating_sub(bytes);
        true
    }

    fn next_writer(&mut self) -> Option<K> {
        if !self.writes.is_over() {
            self.writes.members -= 1;
            return self.writers.pop_front();
        }
        self.chunks = self.chunks.checked_sub(1)?;
        self.chunk_writers.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Fake {
        readable: bool,
        writable: bool,
    }

    impl Ready for Fake {
        fn is_readable(&self) -> bool {
            self.readable
        }

        fn is_writable(&self) -> bool {
            self.writable
        }
    }

    fn turn(count: u32) -> Turn<u32, Fake> {
        let mut turn = Turn::new(1);
        for key in 0..count {
            turn.insert(key, Fake::default());
        }
        turn
    }

    fn ready(turn: &mut Turn<u32, Fake>, key: u32, framing: Framing) {
        turn.note(
            key,
            || framing,
            |it| (it.readable, it.writable) = (true, true),
        );
    }

    /// The keys that read in one turn, `each` bytes at a time.
    fn reads(turn: &mut Turn<u32, Fake>, each: usize, is_drained: bool) -> Vec<u32> {
        let mut keys = Vec::new();
        turn.begin_reads();
        while turn.has_reads_left() {
            turn.read_next(|key, conn| {
                conn.readable = !is_drained;
                keys.push(key);
                each
            });
        }
        keys
    }

    fn writes(turn: &mut Turn<u32, Fake>, written: Written) -> Vec<u32> {
        let mut keys = Vec::new();
        turn.begin_writes();
        while turn.write_next(|key, _| {
            keys.push(key);
            written
        }) {}
        keys
    }

    #[test]
    fn connection_left_over_by_the_budget_is_first_in_the_next_turn() {
        let mut turn = turn(3);
        (0..3).for_each(|key| ready(&mut turn, key, Framing::Stream));
        assert_eq!(reads(&mut turn, TURN_READ_BUDGET / 2, false), [0, 1]);
        assert_eq!(reads(&mut turn, 1, false), [2, 0, 1], "each once");
        let half = Written {
            bytes: TURN_WRITE_BUDGET / 2,
            rest: Some(Framing::Stream),
        };
        assert_eq!(writes(&mut turn, half), [0, 1]);
        assert_eq!(writes(&mut turn, Written::NOTHING), [2, 0, 1]);
        assert!(!turn.has_writers());
    }

    #[test]
    fn drained_connection_waits_for_an_event() {
        let mut turn = turn(1);
        ready(&mut turn, 0, Framing::Stream);
        ready(&mut turn, 0, Framing::Stream);
        assert_eq!(reads(&mut turn, 1, true), [0], "it stands in the list once");
        assert!(!turn.has_readers());
        ready(&mut turn, 0, Framing::Stream);
        assert!(turn.has_readers());
    }

    #[test]
    fn held_connection_is_read_once_it_is_released() {
        let mut turn = turn(3);
        (0..3).for_each(|key| ready(&mut turn, key, Framing::Stream));
        turn.begin_reads();
        let mut keys = Vec::new();
        while turn.has_reads_left() {
            if !turn.hold_next(|key| key == 1) {
                turn.read_next(|key, conn| {
                    conn.readable = false;
                    keys.push(key);
                    1
                });
            }
        }
        assert_eq!(keys, [0, 2]);
        ready(&mut turn, 1, Framing::Stream);
        assert!(!turn.has_readers(), "news of it change nothing");
        turn.release();
        assert_eq!(reads(&mut turn, 1, true), [1]);
    }

    #[test]
    fn full_connection_is_not_written() {
        let mut turn = turn(1);
        turn.wants_write(0, || Framing::Stream);
        assert!(!turn.has_writers());
    }

    #[test]
    fn chunks_of_a_turn_are_limited_and_delay_no_stream() {
        let mut turn = turn(2);
        ready(&mut turn, 0, Framing::Chunk);
        ready(&mut turn, 1, Framing::Stream);
        let mut keys = Vec::new();
        turn.begin_writes();
        while turn.write_next(|key, _| {
            keys.push(key);
            Written {
                bytes: 1,
                rest: (key == 0).then_some(Framing::Chunk),
            }
        }) {}
        assert_eq!(keys.len(), 1 + TURN_CHUNKS);
        assert_eq!(keys[0], 1);
        assert!(turn.has_writers());
    }

    #[test]
    fn removed_connection_is_passed_over() {
        let mut turn = turn(2);
        (0..2).for_each(|key| ready(&mut turn, key, Framing::Stream));
        turn.remove(0).unwrap();
        assert_eq!(reads(&mut turn, 1, true), [1]);
        assert_eq!(writes(&mut turn, Written::NOTHING), [1]);
    }
}
