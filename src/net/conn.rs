//! A stream in a loop: its peer, how far it is established, and its readiness.

use std::io::{self, IoSlice};

use mio::event::Event;
use mio::{Registry, Token};

use super::peer::Peer;
use super::stream::{State, Stream};
use super::turn::Ready;
use crate::core::pace::{Framing, SendQueue};
use crate::core::session::CloseReason;

/// What edge-triggered events have announced and no call has taken back since.
#[derive(Clone, Copy, Debug, Default)]
struct Readiness {
    readable: bool,
    writable: bool,
    /// The peer has closed its side: read until the end shows.
    ended: bool,
}

/// A connection with its readiness.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: Stream,
    state: State,
    peer: Peer,
    ready: Readiness,
}

impl Conn {
    /// Registers a stream that a listener has accepted.
    pub(crate) fn accepted(
        stream: Stream,
        peer: Peer,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        Self::new(stream, State::Handshaking, peer, registry, token)
    }

    /// Registers a stream that was dialled; [`Self::establish`] says when it is connected.
    pub(crate) fn dialled(
        stream: Stream,
        peer: Peer,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        Self::new(stream, State::Connecting, peer, registry, token)
    }

    fn new(
        mut stream: Stream,
        state: State,
        peer: Peer,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        stream.register(registry, token)?;
        Ok(Self {
            stream,
            state,
            peer,
            ready: Readiness::default(),
        })
    }

    /// Has the events of the connection come with another token, those that it announced before
    /// among them.
    pub(crate) fn retoken(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.retoken(registry, token)
    }

    /// Returns the far end.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Adds the readiness that an event announces.
    pub(crate) fn note(&mut self, event: &Event) {
        let ready = &mut self.ready;
        let ended = event.is_read_closed() || event.is_error();
        ready.ended |= ended;
        ready.readable |= event.is_readable() || ended;
        ready.writable |= event.is_writable();
    }

    /// Goes on with the connection attempt and the handshake of the transport, as far as the
    /// readiness allows. Returns whether the stream carries bytes.
    pub(crate) fn establish(&mut self) -> Result<bool, CloseReason> {
        loop {
            self.state = match self.state {
                State::Connecting if !self.ready.readable && !self.ready.writable => {
                    return Ok(false);
                }
                State::Connecting => match self.stream.connected() {
                    Some(Ok(())) => State::Handshaking,
                    Some(Err(error)) => return Err(self.fail(error.kind())),
                    // The event came too early. The end of the attempt is an event of its own.
                    None => return Ok(self.wait()),
                },
                State::Handshaking if self.stream.handshake() => State::Ready,
                State::Handshaking => return Ok(self.wait()),
                State::Ready => return Ok(true),
            }
        }
    }

    /// Waits for another event.
    fn wait(&mut self) -> bool {
        self.ready.readable = false;
        self.ready.writable = false;
        false
    }

    /// A stream that failed is not tried again.
    fn fail(&mut self, kind: io::ErrorKind) -> CloseReason {
        self.wait();
        CloseReason::Io(kind)
    }

    /// Reads once into `buffer`. Returns 0 if there is nothing more for the moment.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CloseReason> {
        if self.state != State::Ready && !self.establish()? {
            return Ok(0);
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.wait();
                    return Err(CloseReason::PeerClosed);
                }
                Ok(count) => {
                    // A short read drains a stream (epoll(7)), unless its end is still to be
                    // read or the transport holds more.
                    self.ready.readable =
                        count == buffer.len() || self.ready.ended || self.stream.has_buffered();
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.ready.readable = false;
                        return Ok(0);
                    }
                    io::ErrorKind::Interrupted => {}
                    kind => return Err(self.fail(kind)),
                },
            }
        }
    }

    /// Asks the stream whether bytes, or its end, wait to be read: no event may have told yet.
    pub(crate) fn poll_readable(&mut self) {
        let has_none = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock);
        self.ready.readable |= !self.stream.peek().as_ref().is_err_and(has_none);
    }

    /// Writes once, in any pieces. Returns how many bytes the stream took.
    #[cfg(feature = "http")]
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, CloseReason> {
        self.write_framed(slices, Framing::Stream)
    }

    /// Writes once. Returns how many bytes the stream took.
    pub(crate) fn write_framed(
        &mut self,
        slices: &[IoSlice<'_>],
        framing: Framing,
    ) -> Result<usize, CloseReason> {
        if self.state != State::Ready && !self.establish()? {
            return Ok(0);
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            match self.stream.write(slices, framing) {
                Ok(count) => {
                    self.ready.writable = count == offered;
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.ready.writable = false;
                        return Ok(0);
                    }
                    io::ErrorKind::Interrupted => {}
                    kind => return Err(self.fail(kind)),
                },
            }
        }
    }

    /// Asks the kernel about the sending side.
    pub(crate) fn send_queue(&self) -> io::Result<SendQueue> {
        self.stream.send_queue()
    }

    /// Ends the sending side: the bytes that were written still arrive.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.stream.finish() {
            log::trace!("closing {}: {error}", self.peer);
        }
    }
}

impl Ready for Conn {
    fn is_readable(&self) -> bool {
        // The end of a connection attempt is announced as writable.
        self.ready.readable || self.state == State::Connecting && self.ready.writable
    }

    fn is_writable(&self) -> bool {
        self.ready.writable
    }
}
