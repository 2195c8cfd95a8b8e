//! How much a client sends a legacy server before that must have answered a KEEPALIVE.

use std::time::Instant;

use super::Pacing;

/// Bytes sent before the server must answer.
///
/// What it reads at once is this and a KEEPALIVE or two, half of what its buffer takes.
const WINDOW: u64 = 32 * 1024;

/// How far ahead of its server a client is.
///
/// Positions are bytes since the connection began.
#[derive(Debug)]
pub(crate) struct Window {
    pacing: Pacing,
    /// Where the window began; `None` until something is queued in it.
    start: Option<u64>,
    /// When its first byte was sent.
    began: Option<Instant>,
    /// The KEEPALIVE that stands at its end.
    barrier: Option<Barrier>,
}

#[derive(Clone, Copy, Debug)]
enum Barrier {
    /// Its number.
    Sent(u64),
    Answered,
}

impl Window {
    pub(crate) fn new(pacing: Pacing) -> Self {
        Self {
            pacing,
            start: Some(0),
            began: None,
            barrier: None,
        }
    }

    /// Bytes per second at most.
    pub(crate) fn rate(&self) -> u32 {
        self.pacing.rate
    }

    /// Whether more may be queued at a position. A new window begins with the first question.
    pub(crate) fn has_room(&mut self, position: u64) -> bool {
        let start = *self.start.get_or_insert(position);
        self.barrier.is_none() && position - start < WINDOW
    }

    /// Whether a KEEPALIVE is to be sent at a position, whose number is told to
    /// [`Self::close`].
    pub(crate) fn wants_barrier(&self, position: u64) -> bool {
        let is_full = self.start.is_some_and(|start| position - start >= WINDOW);
        self.barrier.is_none() && is_full
    }

    /// Nothing more is queued until the KEEPALIVE of this number is answered.
    pub(crate) fn close(&mut self, barrier: u64) {
        self.barrier = Some(Barrier::Sent(barrier));
    }

    /// Tells that bytes were sent at `now`.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// So many KEEPALIVEs are answered.
    pub(crate) fn answered(&mut self, count: u64) {
        if let Some(Barrier::Sent(barrier)) = self.barrier
            && count >= barrier
        {
            self.barrier = Some(Barrier::Answered);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let began = self.began?;
        match self.barrier? {
            Barrier::Sent(_) => None,
            Barrier::Answered => Some(began + self.pacing.time(WINDOW, 0)),
        }
    }

    /// Opens a new window, if it is time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.barrier = None;
            self.began = None;
            self.start = None;
        }
    }
}
