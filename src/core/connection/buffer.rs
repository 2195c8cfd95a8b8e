//! The send queue of a client: bytes, encoded as far as there is room.

use std::io::IoSlice;

use super::{Connection, Pace, Queue, Which};
use crate::core::pace::{CHUNK, Framing};
use crate::core::wire::{KEEPALIVE_FRAME, frame_len};

/// Bytes that wait for the socket at most.
const OUT_BYTES: usize = 32 * 1024;

/// Encoded frames.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    frames: Vec<u8>,
    /// Bytes of them that are sent.
    sent: usize,
    /// Bytes sent since the connection was made.
    taken: u64,
    /// Bytes of the chunk that was begun, to be sent.
    chunk_rest: usize,
    /// Where a frame begins, at or before the first byte to be sent.
    frame: usize,
    /// The position behind the last KEEPALIVE that overtook what waited.
    urgent_end: u64,
}

impl Buffer {
    /// Where further frames are appended.
    pub(crate) fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.frames
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.len() - self.sent
    }

    /// Bytes sent and to be sent since the connection was made.
    fn position(&self) -> u64 {
        self.taken + self.bytes() as u64
    }

    fn waiting(&self) -> &[u8] {
        &self.frames[self.sent..]
    }

    /// Puts a KEEPALIVE ahead of what waits, behind the frame or the chunk that was begun.
    /// Returns how many KEEPALIVEs it overtook; `None` if there is nothing to overtake, or the
    /// last one that did still waits.
    fn overtake(&mut self) -> Option<u64> {
        if self.is_empty() || self.taken < self.urgent_end {
            return None;
        }
        let at = match self.chunk_rest {
            0 => self.next_frame(),
            rest => self.sent + rest,
        };
        let behind = &self.frames[at..];
        let (mut from, mut later) = (0, 0);
        while from < behind.len() {
            let next = from + frame_len(&behind[from..]);
            later += u64::from(behind[from..next] == KEEPALIVE_FRAME);
            from = next;
        }
        if behind.is_empty() {
            return None;
        }
        self.frames.splice(at..at, KEEPALIVE_FRAME);
        self.urgent_end = self.taken + (at - self.sent + KEEPALIVE_FRAME.len()) as u64;
        Some(later)
    }

    /// Returns where the first frame begins of which nothing is sent.
    fn next_frame(&mut self) -> usize {
        while self.frame < self.sent {
            self.frame += frame_len(&self.frames[self.frame..]);
        }
        self.frame
    }

    /// The rest of the chunk that was begun, or a new one.
    fn chunk(&self, limit: usize) -> &[u8] {
        let waiting = self.waiting();
        match self.chunk_rest {
            0 => &waiting[..chunk_len(waiting, limit)],
            rest => &waiting[..rest],
        }
    }
}

impl Queue for Buffer {
    fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    fn has_control(&self) -> bool {
        // There is no telling them apart; one that is due overtakes what waits.
        false
    }

    fn push_control(&mut self, frames: Vec<u8>) {
        self.frames.extend_from_slice(&frames);
    }

    fn has_urgent(&self) -> bool {
        self.has_begun_chunk()
    }

    fn has_begun_chunk(&self) -> bool {
        self.chunk_rest > 0
    }

    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], budget: usize) -> usize {
        let waiting = self.waiting();
        lend(&waiting[..waiting.len().min(budget)], slices)
    }

    fn gather_chunk<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize, which: Which) -> usize {
        match which {
            Which::Urgent if !self.has_urgent() => 0,
            Which::Urgent | Which::All => lend(self.chunk(limit), slices),
        }
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        self.taken += count as u64;
        debug_assert!(self.sent <= self.frames.len());
        if self.sent == self.frames.len() {
            self.frames.clear();
            self.sent = 0;
            self.frame = 0;
        } else if self.sent > OUT_BYTES {
            self.frame = self.next_frame() - self.sent;
            self.frames.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn advance_chunk(&mut self, count: usize) -> bool {
        self.chunk_rest = self.chunk(CHUNK).len() - count;
        self.advance(count);
        self.has_begun_chunk()
    }
}

/// What a client needs besides: it encodes only as much as there is room for.
impl Connection<Buffer> {
    /// The next bytes to send.
    pub(crate) fn outgoing(&self) -> &[u8] {
        match self.framing() {
            Framing::Stream => self.queue.waiting(),
            Framing::Chunk => self.queue.chunk(CHUNK),
        }
    }

    /// Sends a KEEPALIVE that is due ahead of what waits, so that a slow link does not make this
    /// side look dead. To be called after `handle_timeout`.
    pub(crate) fn overtake(&mut self) {
        if self.session.take_urgent_keepalive()
            && let Some(later) = self.queue.overtake()
        {
            self.session.overtook(later);
        }
    }

    /// Whether more may be encoded.
    pub(crate) fn has_room(&mut self) -> bool {
        let position = self.queue.position();
        self.queue.bytes() < OUT_BYTES
            && match &mut self.pace {
                Pace::Server(window) => window.has_room(position),
                Pace::Trial(trial) => trial.has_room(position),
                Pace::Unlimited | Pace::Undecided { .. } | Pace::Client(_) => true,
            }
    }

    /// Ends a window or a trial that is full: nothing more is encoded until the server has
    /// answered the KEEPALIVE that stands behind it.
    ///
    /// `barrier`: one KEEPALIVE serves all that is told in a row.
    pub(crate) fn close_full_window(&mut self, barrier: &mut Option<u64>) {
        let position = self.queue.position();
        let mut barrier = || *barrier.get_or_insert_with(|| self.session.barrier());
        match &mut self.pace {
            Pace::Server(window) if window.wants_barrier(position) => window.close(barrier()),
            Pace::Trial(trial) if trial.wants_barrier(position) => trial.close(barrier()),
            Pace::Unlimited
            | Pace::Undecided { .. }
            | Pace::Client(_)
            | Pace::Server(_)
            | Pace::Trial(_) => {}
        }
    }
}

fn lend<'a>(bytes: &'a [u8], slices: &mut [IoSlice<'a>]) -> usize {
    match slices.first_mut() {
        Some(slice) if !bytes.is_empty() => {
            *slice = IoSlice::new(bytes);
            1
        }
        Some(_) | None => 0,
    }
}

/// Bytes of the whole frames at the beginning that make a chunk.
fn chunk_len(frames: &[u8], limit: usize) -> usize {
    let mut end = 0;
    while end < frames.len() {
        let next = end + frame_len(&frames[end..]);
        if next > limit && end > 0 {
            break;
        }
        end = next;
    }
    end
}
