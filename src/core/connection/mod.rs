//! One connection of either role, without its socket: a session, its send queue, and how fast
//! and how long the peer is sent to.
//!
//! The caller feeds what it read to [`Connection::receive`] until that returns `None`, then
//! calls [`Connection::transmit`]. It sends what [`Connection::gather`] lends, as
//! [`Connection::framing`] says, and tells [`Connection::advance`] how much that was. It calls
//! `handle_timeout` and `handle_pace_timeout` when `poll_timeout` and `poll_pace` are reached.
//! After any of these [`Connection::closed`] may have become `Some`: nothing more comes.
//!
//! The queue is a parameter: a server queues references to shared frames, a client encodes
//! into a [`Buffer`].

mod buffer;
mod progress;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::time::Instant;

pub(crate) use buffer::Buffer;
use progress::Progress;

use crate::core::pace::{
    CHUNK, Finding, Framing, LegacyPacing, Overrun, Pacer, Pacing, SendQueue, Trial, Window,
};
use crate::core::session::{CloseReason, Event, Role, Session, SessionConfig, Transmit};
use crate::core::types::Vni;
use crate::core::wire::{Capabilities, KEEPALIVE_FRAME, NoticeCode};

/// KEEPALIVE replies that wait for a socket at most; more are answered later.
pub(crate) const KEEPALIVES_AT_ONCE: usize = 64;

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The rest of a frame that was begun, HELLO and KEEPALIVE.
    Urgent,
}

/// What waits to be sent.
pub(crate) trait Queue: Default {
    fn is_empty(&self) -> bool;

    /// Whether nothing of it can be sent at this moment.
    fn is_blocked(&self) -> bool {
        false
    }

    /// Whether frames of the session still wait, so that more of them can wait outside.
    fn has_control(&self) -> bool;

    /// Queues frames of the session: HELLO, KEEPALIVEs.
    fn push_control(&mut self, frames: Vec<u8>);

    /// Whether something waits that no pace holds up.
    fn has_urgent(&self) -> bool;

    /// Whether a part of a chunk was sent, so that the rest of it has to be sent as one, too.
    fn has_begun_chunk(&self) -> bool;

    /// Lends the next bytes to send, at most `budget`. Returns how many slices are filled.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], budget: usize) -> usize;

    /// Lends whole frames, at most `limit` bytes of them or one frame. Returns how many slices
    /// are filled.
    fn gather_chunk<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize, which: Which) -> usize;

    /// Drops the first `count` bytes: they are sent.
    fn advance(&mut self, count: usize);

    /// Drops the first `count` bytes of a chunk: they are sent. Returns whether a frame or the
    /// chunk was cut.
    fn advance_chunk(&mut self, count: usize) -> bool;
}

/// How fast the peer is sent to.
#[derive(Debug)]
enum Pace {
    /// As fast as the socket takes bytes.
    Unlimited,
    /// Of a server: decided by the client's HELLO.
    Undecided { pacing: Pacing, halvings: u8 },
    /// To a legacy client.
    Client(Box<Pacer>),
    /// To a server, until its HELLO offers reassembly.
    Server(Box<Window>),
    /// To a server that reassembles, until the way to it is known not to be slow.
    Trial(Box<Trial>),
}

/// A connection that was made.
#[derive(Debug)]
pub(crate) struct Connection<Q> {
    session: Session,
    queue: Q,
    pace: Pace,
    /// How the peer takes what waits for it, while something waits.
    progress: Option<Progress>,
    /// To be ended once everything that waits is sent.
    is_draining: bool,
}

impl<Q: Queue> Connection<Q> {
    /// A connection that was made at `now`.
    ///
    /// If the peer turns out to be a legacy client, its pace is halved `halvings` times.
    pub(crate) fn new(config: SessionConfig, pacing: Pacing, halvings: u8, now: Instant) -> Self {
        let pace = match (pacing.mode, config.role) {
            (LegacyPacing::Off, Role::Server | Role::Client) => Pace::Unlimited,
            (LegacyPacing::Auto, Role::Server) => Pace::Undecided { pacing, halvings },
            (LegacyPacing::Auto, Role::Client) => Pace::Server(Box::new(Window::new(pacing))),
        };
        Self {
            session: Session::new(config, now),
            queue: Q::default(),
            pace,
            progress: None,
            is_draining: false,
        }
    }

    /// What is known of the session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn queue(&self) -> &Q {
        &self.queue
    }

    pub(crate) fn queue_mut(&mut self) -> &mut Q {
        &mut self.queue
    }

    /// Why the session is over, once it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.session.closed()
    }

    /// Ends the session; the first reason stays.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.session.close(reason);
    }

    /// Ends the session once everything that waits is sent.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.end_if_drained();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Sends a KEEPALIVE before it is due, and returns its number: see [`Session::barrier`].
    pub(crate) fn barrier(&mut self) -> u64 {
        self.session.barrier()
    }

    /// Sends a NOTICE: see [`Session::notify`].
    pub(crate) fn notify(&mut self, code: NoticeCode, vni: Vni, why: &str, now: Instant) {
        self.session.notify(code, vni, why, now);
    }

    /// Takes from `input` up to the end of the next message that means something.
    ///
    /// `None`: all of `input` is taken, or the session is closed.
    pub(crate) fn receive(&mut self, input: &mut &[u8], now: Instant) -> Option<Event> {
        let event = self.session.next_event(now, input);
        self.decide_pace(now);
        if matches!(event, Some(Event::KeepaliveReply)) {
            let (_, answered) = self.session.keepalives();
            match &mut self.pace {
                Pace::Server(window) => window.answered(answered),
                Pace::Trial(trial) => {
                    if trial.answered(answered, now) == Finding::Fast {
                        self.pace = Pace::Unlimited;
                    }
                }
                Pace::Unlimited | Pace::Undecided { .. } | Pace::Client(_) => {}
            }
        }
        event
    }

    /// Queues what the session has to send by itself: HELLO and KEEPALIVEs.
    pub(crate) fn transmit(&mut self) {
        if self.queue.has_control() {
            return;
        }
        let mut frames = Vec::new();
        let due = std::iter::from_fn(|| self.session.poll_transmit());
        for transmit in due.take(KEEPALIVES_AT_ONCE) {
            match transmit {
                Transmit::Hello(frame) | Transmit::Notice(frame) => {
                    frames.extend_from_slice(&frame);
                }
                Transmit::Keepalive => frames.extend_from_slice(&KEEPALIVE_FRAME),
            }
        }
        if !frames.is_empty() {
            self.queue.push_control(frames);
        }
    }

    /// Takes the pace that the peer's HELLO asks for, once it is there.
    fn decide_pace(&mut self, now: Instant) {
        match self.pace {
            Pace::Undecided { pacing, halvings } if self.session.knows_peer() => {
                self.pace = match self.session.is_legacy() {
                    true => Pace::Client(Box::new(Pacer::new(pacing, halvings, now))),
                    false => Pace::Unlimited,
                };
            }
            Pace::Server(_) if self.session.capabilities().contains(Capabilities::STREAM) => {
                self.pace = Pace::Trial(Box::default());
            }
            Pace::Undecided { .. }
            | Pace::Unlimited
            | Pace::Client(_)
            | Pace::Server(_)
            | Pace::Trial(_) => {}
        }
    }

    /// Whether something can be sent at this moment, as far as this side goes.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.queue.is_empty()
            && !self.queue.is_blocked()
            && match &self.pace {
                Pace::Client(pacer) => pacer.room().is_some() || self.queue.has_urgent(),
                Pace::Unlimited | Pace::Undecided { .. } | Pace::Server(_) | Pace::Trial(_) => true,
            }
    }

    /// How the bytes are to be handed to the kernel.
    pub(crate) fn framing(&self) -> Framing {
        if self.is_paced() || self.queue.has_begun_chunk() {
            Framing::Chunk
        } else {
            Framing::Stream
        }
    }

    fn is_paced(&self) -> bool {
        match self.pace {
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Trial(_) => false,
            Pace::Client(_) | Pace::Server(_) => true,
        }
    }

    /// Lends the next bytes to send, at most `budget`. Returns how many slices are filled.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], budget: usize) -> usize {
        match &self.pace {
            Pace::Client(pacer) => match pacer.room() {
                Some(room) => self.queue.gather_chunk(slices, room, Which::All),
                None => self.queue.gather_chunk(slices, CHUNK, Which::Urgent),
            },
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Server(_) | Pace::Trial(_) => {
                match self.framing() {
                    Framing::Stream => self.queue.gather(slices, budget),
                    Framing::Chunk => self.queue.gather_chunk(slices, CHUNK, Which::All),
                }
            }
        }
    }

    /// Drops the first `count` bytes: they were sent at `now`. Returns whether a chunk was cut.
    pub(crate) fn advance(&mut self, count: usize, now: Instant) -> bool {
        let framing = self.framing();
        match &mut self.pace {
            Pace::Client(pacer) => pacer.sent(count, now),
            Pace::Server(window) => window.sent(now),
            Pace::Trial(trial) => trial.sent(now),
            Pace::Unlimited | Pace::Undecided { .. } => {}
        }
        let is_cut = match framing {
            Framing::Stream => {
                self.queue.advance(count);
                false
            }
            Framing::Chunk => self.queue.advance_chunk(count),
        };
        if self.queue.is_empty() {
            self.progress = None;
            if let Pace::Client(pacer) = &mut self.pace {
                pacer.all_sent(now);
            }
        } else {
            let progress = self.progress.get_or_insert_with(|| Progress::new(now));
            progress.took(count, now);
        }
        if self.is_draining {
            self.end_if_drained();
        }
        is_cut
    }

    fn end_if_drained(&mut self) {
        if self.queue.is_empty() {
            self.session.close(CloseReason::Drained);
        }
    }

    /// When [`Self::handle_timeout`] has something to do, if the session lives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.session.poll_timeout()?;
        Some(self.send_hold_end().map_or(due, |end| end.min(due)))
    }

    /// Does what is due at `now`: a KEEPALIVE, or the end of a peer that is silent or takes
    /// nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        if self.send_hold_end().is_some_and(|end| now >= end) {
            self.session.close(CloseReason::SendHold);
        }
    }

    /// Whether [`Self::handle_timeout`] would end the session because the peer is silent.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.session.is_silent(now)
    }

    /// Takes note that bytes of the peer wait to be received.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.session.excuse(now);
    }

    /// When [`Self::handle_pace_timeout`] has something to do.
    pub(crate) fn poll_pace(&self) -> Option<Instant> {
        match &self.pace {
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Trial(_) => None,
            Pace::Client(pacer) => pacer.poll_timeout(),
            Pace::Server(window) => window.poll_timeout(),
        }
    }

    /// Does what the pace has due at `now`. Returns whether [`Self::report_queue`] is to be called.
    pub(crate) fn handle_pace_timeout(&mut self, now: Instant) -> bool {
        match &mut self.pace {
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Trial(_) => false,
            Pace::Client(pacer) => pacer.handle_timeout(now),
            Pace::Server(window) => {
                window.handle_timeout(now);
                false
            }
        }
    }

    /// Tells what the kernel knows at `now` of the sending side. Returns the size of a table, if
    /// that shows that a legacy client has read it.
    pub(crate) fn report_queue(&mut self, queue: SendQueue, now: Instant) -> Option<u64> {
        match &mut self.pace {
            Pace::Client(pacer) => pacer.report_queue(queue, now),
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Server(_) | Pace::Trial(_) => None,
        }
    }

    /// Bytes per second at most, to a legacy peer.
    pub(crate) fn rate(&self) -> Option<u32> {
        match &self.pace {
            Pace::Client(pacer) => Some(pacer.rate()),
            Pace::Server(window) if self.session.is_legacy() => Some(window.rate()),
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Server(_) | Pace::Trial(_) => None,
        }
    }

    /// Returns the overrun of a legacy client's buffer that can have ended the connection.
    pub(crate) fn overrun(&self) -> Option<Overrun> {
        match &self.pace {
            Pace::Client(pacer) => pacer.overrun(),
            Pace::Unlimited | Pace::Undecided { .. } | Pace::Server(_) | Pace::Trial(_) => None,
        }
    }

    /// Whether something has waited for half a second of which the peer took next to nothing.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        self.progress.as_ref().is_some_and(|it| it.is_slow(now))
    }

    /// When a peer that takes nothing from a queue that is not empty is given up (RFC 9687).
    fn send_hold_end(&self) -> Option<Instant> {
        let hold = self.session.timeout() * 2;
        self.progress.as_ref().map(|it| it.stall_after(hold))
    }
}
