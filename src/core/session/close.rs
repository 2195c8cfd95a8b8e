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
    /// The peer closed the connection.
    PeerClosed,
    /// The connection failed.
    Io(io::ErrorKind),
    /// The server's name led to no address.
    Unresolved,
    /// This side was asked to end it.
    Shutdown,
    /// An operator ended this session.
    Reset,
    /// An operator asked this peer to go elsewhere.
    Drained,
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
            Self::PeerClosed => f.write_str("closed by peer"),
            Self::Io(kind) => kind.fmt(f),
            Self::Unresolved => f.write_str("name not resolved"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Reset => f.write_str("reset by an operator"),
            Self::Drained => f.write_str("drained by an operator"),
        }
    }
}
