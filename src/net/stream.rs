//! A byte stream between two peers, whatever carries it.
//!
//! A new transport is a variant of [`Stream`]: the compiler then names every call that it must
//! answer. An option that a transport lacks is left out, not an error.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::tcp::Tcp;
use super::unix::Unix;
use crate::core::pace::{Framing, SendQueue};

/// A non-blocking byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(Tcp),
    Unix(Unix),
}

/// Where the establishment of a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection attempt goes on.
    Connecting,
    /// Connected; the transport has a handshake of its own to do.
    Handshaking,
    /// Carries bytes.
    Ready,
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(Tcp::new(socket))
    }
}

impl From<Unix> for Stream {
    fn from(unix: Unix) -> Self {
        Self::Unix(unix)
    }
}

impl Stream {
    /// Begins to connect to an address, from `source` if that is given.
    pub(crate) fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Self> {
        Tcp::dial(address, source).map(Self::Tcp)
    }

    /// Connects to the Unix socket at a path. Returns the user who listens there too.
    pub(crate) fn dial_path(path: &Path) -> io::Result<(Self, u32)> {
        let unix = Unix::dial(path)?;
        let user = unix.user()?;
        Ok((Self::Unix(unix), user))
    }

    /// Sets the options of a MetalBond connection, as far as the transport has them: no delay,
    /// a short queue of unsent bytes, and `user_timeout`.
    ///
    /// `user_timeout` ends a connection whose peer acknowledges nothing for that long, 24 days
    /// at most.
    pub(crate) fn tune(&self, user_timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.tune(user_timeout),
            Self::Unix(unix) => unix.tune(),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(tcp) => registry.register(&mut tcp.socket, token, interest),
            Self::Unix(unix) => registry.register(&mut unix.socket, token, interest),
        }
    }

    /// Registers the stream anew; all that is ready is announced again.
    pub(super) fn retoken(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(tcp) => registry.reregister(&mut tcp.socket, token, interest),
            Self::Unix(unix) => registry.reregister(&mut unix.socket, token, interest),
        }
    }

    /// Goes on with a connection attempt. Returns `None` while it has not ended.
    pub(super) fn connected(&self) -> Option<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.connected(),
            // The call that dialled has connected, or failed.
            Self::Unix(_) => Some(Ok(())),
        }
    }

    /// Goes on with the handshake of the transport. Returns whether it is complete.
    pub(super) fn handshake(&mut self) -> bool {
        match self {
            // The kernel has done it.
            Self::Tcp(_) | Self::Unix(_) => true,
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buffer),
            Self::Unix(unix) => unix.read(buffer),
        }
    }

    /// Returns whether the transport holds bytes that can be read without another event.
    pub(super) fn has_buffered(&self) -> bool {
        match self {
            // What is not read stays in the kernel.
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Looks what a read would return, and takes nothing.
    pub(super) fn peek(&self) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.peek(),
            Self::Unix(unix) => unix.peek(),
        }
    }

    /// Returns whether the peer has ended or reset the connection and left no byte to read.
    pub(crate) fn has_ended(&self) -> bool {
        match self.peek() {
            Ok(count) => count == 0,
            Err(error) => !is_temporary(&error),
        }
    }

    /// Writes once, with the boundaries that `framing` asks for if the transport has such.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], framing: Framing) -> io::Result<usize> {
        match (self, framing) {
            (Self::Tcp(tcp), Framing::Stream) => tcp.write(slices),
            (Self::Tcp(tcp), Framing::Chunk) => tcp.write_chunk(slices),
            // It has no segments that a boundary could be kept in.
            (Self::Unix(unix), Framing::Stream | Framing::Chunk) => unix.write(slices),
        }
    }

    /// Asks the kernel about the sending side.
    pub(super) fn send_queue(&self) -> io::Result<SendQueue> {
        match self {
            Self::Tcp(tcp) => tcp.send_queue(),
            Self::Unix(unix) => unix.send_queue(),
        }
    }

    /// Ends the sending side: the bytes that were written still arrive.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.finish(),
            Self::Unix(unix) => unix.finish(),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
