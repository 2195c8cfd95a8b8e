//! TCP: the options and calls that a MetalBond connection needs.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::queue::send_queue;
use crate::core::pace::SendQueue;

/// Bytes that the kernel may hold unsent for a connection (`TCP_NOTSENT_LOWAT`).
///
/// A KEEPALIVE waits behind no more than these; more would not make anything faster.
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// Bytes that the kernel must be ready to hold for a legacy peer (`SO_SNDBUF`).
///
/// Several times the most that is ever outstanding there, so that a chunk is never cut: the
/// kernel counts its own overhead, about as much as the bytes.
const CHUNKS_BUFFER: usize = 128 * 1024;

/// The longest time that `TCP_USER_TIMEOUT` takes: milliseconds in a C `int` (tcp(7)).
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// A non-blocking TCP socket.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(super) socket: TcpStream,
    /// The send buffer is large enough for chunks.
    has_room_for_chunks: bool,
}

impl Tcp {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            has_room_for_chunks: false,
        }
    }

    /// Begins to connect, from `source` if that is given.
    pub(super) fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        let Some(source) = source else {
            return TcpStream::connect(address).map(Self::new);
        };
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(Self::new(TcpStream::from_std(socket.into()))),
        }
    }

    pub(super) fn tune(&self, user_timeout: Duration) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(user_timeout.min(USER_TIMEOUT_MAX)))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    pub(super) fn peek(&self) -> io::Result<usize> {
        self.socket.peek(&mut [0])
    }

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(slices)
    }

    /// Writes a record (`MSG_EOR`): later bytes never share its last segment.
    ///
    /// The kernel refuses a chunk that does not fit as a whole. It takes a part only where it
    /// had to begin another buffer for it.
    pub(super) fn write_chunk(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = SockRef::from(&self.socket);
        if !std::mem::replace(&mut self.has_room_for_chunks, true)
            && socket.send_buffer_size()? < CHUNKS_BUFFER
        {
            socket.set_send_buffer_size(CHUNKS_BUFFER)?;
        }
        socket.send_vectored_with_flags(slices, libc::MSG_EOR | libc::MSG_NOSIGNAL)
    }

    pub(super) fn send_queue(&self) -> io::Result<SendQueue> {
        send_queue(&self.socket)
    }

    /// Returns how a connection attempt ended, `None` while it goes on.
    pub(super) fn connected(&self) -> Option<io::Result<()>> {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
        }
        match self.socket.peer_addr() {
            // Dialling a free port of this host may connect to itself (RFC 9293, 3.5:
            // simultaneous open). That is no server.
            Ok(peer) if self.socket.local_addr().is_ok_and(|local| local == peer) => {
                Some(Err(io::ErrorKind::ConnectionRefused.into()))
            }
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Ends the sending side: the kernel still sends what it holds.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_keepalive_interval_fits_the_user_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = Tcp::dial(listener.local_addr().unwrap(), None).unwrap();
        tcp.tune(Duration::from_secs(u32::MAX.into()) * 5).unwrap();
    }
}
