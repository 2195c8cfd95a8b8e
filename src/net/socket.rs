//! A non-blocking connection and what is known of its readiness.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::queue::send_queue;
use crate::core::pace::{Framing, SendQueue};
use crate::core::session::CloseReason;

/// Bytes that the kernel may hold unsent for a connection.
///
/// A KEEPALIVE waits behind no more than these; more would not make anything faster.
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Bytes that the kernel must be ready to hold for a legacy peer (`SO_SNDBUF`).
///
/// Several times what is ever outstanding there, so that a chunk is never cut: the
/// kernel counts its own overhead, about as much as the bytes.
const CHUNKS_BUFFER: usize = 128 * 1024;

/// The longest time that `TCP_USER_TIMEOUT` takes: milliseconds in a C `int` (tcp(7)).
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// What edge-triggered events have said and no call has taken back yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer has closed its side: read until the end shows.
    ended: bool,
}

impl Readiness {
    /// Adds what an event says.
    pub(crate) fn update(&mut self, event: &Event) {
        let ended = event.is_read_closed() || event.is_error();
        self.ended |= ended;
        self.readable |= event.is_readable() || ended;
        self.writable |= event.is_writable();
    }
}

/// A connection with its readiness.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) ready: Readiness,
    /// Stands in its owner's list of those to read.
    pub(crate) in_readers: bool,
    /// Stands in its owner's list of those to write.
    pub(crate) in_writers: bool,
    /// The socket is ready for chunks.
    takes_chunks: bool,
}

impl Conn {
    pub(crate) fn new(
        mut stream: TcpStream,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            address,
            ready: Readiness::default(),
            in_readers: false,
            in_writers: false,
            takes_chunks: false,
        })
    }

    /// Reads once into `buffer`; 0 when there is nothing more for the moment.
    ///
    /// Clears `ready.readable` when the socket is drained.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CloseReason> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(CloseReason::PeerClosed),
                Ok(count) => {
                    // A short read drains a stream (epoll(7)), unless its end is still to be read.
                    self.ready.readable = count == buffer.len() || self.ready.ended;
                    return Ok(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.ready.readable = false;
                        return Ok(0);
                    }
                    io::ErrorKind::Interrupted => {}
                    kind => return Err(CloseReason::Io(kind)),
                },
            }
        }
    }

    /// Writes once; how many bytes the socket took.
    ///
    /// Clears `ready.writable` when it did not take all.
    pub(crate) fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        framing: Framing,
    ) -> Result<usize, CloseReason> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        loop {
            let written = match framing {
                Framing::Stream => self.stream.write_vectored(slices),
                Framing::Chunk => self.write_chunk(slices),
            };
            match written {
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
                    kind => return Err(CloseReason::Io(kind)),
                },
            }
        }
    }

    /// Writes what is not to share a segment with what follows.
    ///
    /// A chunk that does not fit is refused whole: the kernel takes a part of a
    /// message only where it had to begin another buffer for it.
    fn write_chunk(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = SockRef::from(&self.stream);
        if !std::mem::replace(&mut self.takes_chunks, true)
            && socket.send_buffer_size()? < CHUNKS_BUFFER
        {
            socket.set_send_buffer_size(CHUNKS_BUFFER)?;
        }
        socket.send_vectored_with_flags(slices, libc::MSG_EOR | libc::MSG_NOSIGNAL)
    }

    /// What the kernel knows of the sending side.
    pub(crate) fn send_queue(&self) -> io::Result<SendQueue> {
        send_queue(&self.stream)
    }

    /// How a connection attempt ended: `None` while it has not.
    pub(crate) fn connected(&self) -> Option<io::Result<()>> {
        match self.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
        }
        match self.stream.peer_addr() {
            // Dialling a free port of this host may meet itself (RFC 9293, 3.5:
            // simultaneous open); that is no server.
            Ok(peer) if self.stream.local_addr().is_ok_and(|local| local == peer) => {
                Some(Err(io::ErrorKind::ConnectionRefused.into()))
            }
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Says goodbye: what the kernel holds is still sent.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            log::trace!("closing {}: {error}", self.address);
        }
    }
}

/// Begins to connect, from `source` if that is given.
pub(crate) fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(address);
    };
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Sets the options of a MetalBond connection.
///
/// `user_timeout` ends a connection whose peer acknowledges nothing for as long
/// (`TCP_USER_TIMEOUT`), or for 24 days.
pub(crate) fn tune(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_user_timeout(Some(user_timeout.min(USER_TIMEOUT_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_keepalive_interval_has_a_user_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream, Duration::from_secs(u32::MAX.into()) * 5).unwrap();
    }
}
