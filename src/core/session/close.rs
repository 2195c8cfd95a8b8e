//! Why a session ended.

use std::fmt;
use std::io;

use crate::core::wire::FrameError;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent a header that has no meaning.
    Frame(FrameError),
    /// The peer sent a message of this type where it is not allowed.
    Unexpected(u8),
    /// The peer asked for a keepalive interval of 0.
    IntervalZero,
    /// The peer's HELLO could not be read.
    BrokenHello,
    /// The peer did not complete the handshake in time.
    HandshakeTimeout,
    /// Nothing came from the peer for two and a half keepalive intervals.
    Silent,
    /// The peer took nothing from a non-empty queue for too long (RFC 9687).
    SendHold,
    /// The peer's queue passed its hard limit.
    TooSlow,
    /// Memory was short, and the peer held most of it.
    MemoryLimit,
    /// The peer closed the connection.
    PeerClosed,
    /// The connection failed.
    Io(io::ErrorKind),
    /// The server's name led to no address.
    Unresolved,
    /// The server is connected under another of its names.
    Duplicate,
    /// This side was asked to end it.
    Shutdown,
    /// An operator ended this session.
    Reset,
    /// An operator asked this peer to go elsewhere.
    Drained,
}

/// Whose fault the end of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody's: the peer closed the connection in order.
    Nobody,
    /// The peer's: it broke the protocol, or was too slow for it.
    Peer,
    /// The connection's, or the system's under it.
    Connection,
    /// Nobody's: this side was asked to end the session.
    Operator,
}

impl CloseReason {
    /// Whose fault the end of the session is.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::PeerClosed => Fault::Nobody,
            Self::Frame(_)
            | Self::Unexpected(_)
            | Self::IntervalZero
            | Self::BrokenHello
            | Self::HandshakeTimeout
            | Self::Silent
            | Self::SendHold
            | Self::TooSlow
            | Self::MemoryLimit => Fault::Peer,
            Self::Io(_) | Self::Unresolved => Fault::Connection,
            Self::Shutdown | Self::Reset | Self::Drained | Self::Duplicate => Fault::Operator,
        }
    }

    /// Whether the session ended without a failure: there is nothing to be warned of.
    pub(crate) const fn is_orderly(self) -> bool {
        match self.fault() {
            Fault::Nobody | Fault::Operator => true,
            Fault::Peer | Fault::Connection => false,
        }
    }

    /// Whether the session ended from outside, as when the peer cannot go on.
    pub(crate) const fn is_from_outside(self) -> bool {
        match self.fault() {
            Fault::Nobody | Fault::Connection => true,
            Fault::Peer | Fault::Operator => false,
        }
    }

    /// Whether the network between the two ends failed, as far as this end can tell.
    pub(crate) const fn is_path_failure(self) -> bool {
        match self {
            Self::Silent | Self::SendHold | Self::HandshakeTimeout => true,
            Self::Io(kind) => !matches!(
                kind,
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionAborted
            ),
            Self::PeerClosed
            | Self::Frame(_)
            | Self::Unexpected(_)
            | Self::IntervalZero
            | Self::BrokenHello
            | Self::TooSlow
            | Self::MemoryLimit
            | Self::Unresolved
            | Self::Shutdown
            | Self::Reset
            | Self::Drained
            | Self::Duplicate => false,
        }
    }

    /// Whether the far end left or was restarted, so that it is likely to be back soon.
    pub(crate) const fn is_departure(self) -> bool {
        match self {
            Self::PeerClosed | Self::Shutdown | Self::Reset => true,
            Self::Io(kind) => matches!(
                kind,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ),
            Self::Frame(_)
            | Self::Unexpected(_)
            | Self::IntervalZero
            | Self::BrokenHello
            | Self::HandshakeTimeout
            | Self::Silent
            | Self::SendHold
            | Self::TooSlow
            | Self::MemoryLimit
            | Self::Unresolved
            | Self::Duplicate
            | Self::Drained => false,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Unexpected(number) => write!(f, "message type {number} out of place"),
            Self::IntervalZero => f.write_str("keepalive interval 0"),
            Self::BrokenHello => f.write_str("unreadable HELLO"),
            Self::HandshakeTimeout => f.write_str("handshake timed out"),
            Self::Silent => f.write_str("keepalive timed out"),
            Self::SendHold => f.write_str("send hold time expired"),
            Self::TooSlow => f.write_str("too slow, queue limit reached"),
            Self::MemoryLimit => f.write_str("memory limit reached, this peer held most"),
            Self::PeerClosed => f.write_str("closed by peer"),
            Self::Io(kind) => kind.fmt(f),
            Self::Unresolved => f.write_str("name not resolved"),
            Self::Duplicate => f.write_str("connected under another name"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Reset => f.write_str("reset by an operator"),
            Self::Drained => f.write_str("drained by an operator"),
        }
    }
}
