//! A door to the turn of a loop.

use crate::core::pace::Framing;
use crate::net::{Ready, Turn, Written};

/// The readiness of a simulated connection, as events and calls have told it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimReady {
    pub readable: bool,
    pub writable: bool,
}

impl Ready for SimReady {
    fn is_readable(&self) -> bool {
        self.readable
    }

    fn is_writable(&self) -> bool {
        self.writable
    }
}

/// The turn of a worker, whose connections are simulated.
#[derive(Debug)]
pub struct SimTurn(Turn<u32, SimReady>);

impl Default for SimTurn {
    fn default() -> Self {
        Self(Turn::new(0))
    }
}

impl SimTurn {
    pub fn insert(&mut self, peer: u32) {
        self.0.insert(peer, SimReady::default());
    }

    pub fn remove(&mut self, peer: u32) {
        self.0.remove(peer);
    }

    pub fn has_readers(&self) -> bool {
        self.0.has_readers()
    }

    pub fn has_writers(&self) -> bool {
        self.0.has_writers()
    }

    /// A connection became readable.
    pub fn note_readable(&mut self, peer: u32) {
        self.0
            .note(peer, || Framing::Stream, |it| it.readable = true);
    }

    /// A connection became writable; `is_chunk`: it is a legacy peer's.
    pub fn note_writable(&mut self, peer: u32, is_chunk: bool) {
        self.0
            .note(peer, || framing(is_chunk), |it| it.writable = true);
    }

    pub fn wants_write(&mut self, peer: u32, is_chunk: bool) {
        self.0.wants_write(peer, || framing(is_chunk));
    }

    pub fn begin_reads(&mut self) {
        self.0.begin_reads();
    }

    pub fn has_reads_left(&self) -> bool {
        self.0.has_reads_left()
    }

    /// Has the next connection read; `read` returns how many bytes came.
    pub fn read_next(&mut self, read: impl FnOnce(u32, &mut SimReady) -> usize) {
        self.0.read_next(read);
    }

    pub fn begin_writes(&mut self) {
        self.0.begin_writes();
    }

    /// Has the next connection write; `write` returns how many bytes went, and of what kind the
    /// rest is: `None` if there is none, or whether it is a chunk.
    pub fn write_next(
        &mut self,
        write: impl FnOnce(u32, &mut SimReady) -> (usize, Option<bool>),
    ) -> bool {
        self.0.write_next(|peer, ready| {
            let (bytes, rest) = write(peer, ready);
            Written {
                bytes,
                rest: rest.map(framing),
            }
        })
    }
}

fn framing(is_chunk: bool) -> Framing {
    match is_chunk {
        true => Framing::Chunk,
        false => Framing::Stream,
    }
}
