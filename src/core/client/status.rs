//! How a client and its servers fare, as callers see it.

use std::fmt;

/// A server of a client: its place in the list that the client was given; those added
/// later count on, and no number is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server-{}", self.0)
    }
}

/// Where the connection to one server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Being connected for the first time.
    Connecting,
    /// HELLO is sent, the server's has not come.
    HelloSent,
    /// The server's HELLO has come, its first KEEPALIVE has not.
    HelloReceived,
    /// Routes flow.
    Established,
    /// Failed or lost; to be tried again.
    Retry,
    /// The client was shut down.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "CONNECTING",
            Self::HelloSent => "HELLO_SENT",
            Self::HelloReceived => "HELLO_RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::Retry => "RETRY",
            Self::Closed => "CLOSED",
        })
    }
}

/// Whether a call changed what the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// That was wanted already.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// What a server knows of an announced route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnouncementState {
    /// Nothing: the server is away, or the announcement waits for its turn.
    Pending,
    /// It was sent.
    Told,
    /// The server has read it: it answered a KEEPALIVE that was sent afterwards.
    ///
    /// The client sends one every interval, and one for each flush.
    Acknowledged,
}

/// What a server refused in a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// To tell its routes.
    Subscription,
    /// To take a route.
    Announcement,
}
