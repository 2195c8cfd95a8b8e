//! What can go wrong, sorted by whose fault it is.

use std::io;

use crate::core::types::Vni;

/// An error of this library's public calls.
///
/// The variants name the party at fault: the caller, the peer, or the system.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Caller: a setting is outside what is allowed; the text names it and the allowed values.
    InvalidConfig(String),
    /// Caller: the client or server was shut down.
    Closed,
    /// Caller: the client is subscribed to as many VNIs as its settings allow, which is this many.
    TooManyVnis(usize),
    /// Caller: not subscribed to this VNI.
    NotSubscribed(Vni),
    /// Caller: this very route is announced already.
    RouteAlreadyAnnounced,
    /// Caller: no such route is announced.
    RouteNotFound,
    /// Caller: this side of the protocol cannot do that; the text says why not.
    Unsupported(&'static str),
    /// Caller: no peer has this name or address.
    PeerNotFound(String),
    /// Caller: the limit of callers that may do this at once is reached.
    Busy,
    /// Caller: more happened between two calls than is kept.
    Lagged,
    /// System or peer: the wait ended before the awaited state was reached.
    Timeout,
    /// Ours: the thread of this name panicked, and with it the client or server has ended.
    Panicked(String),
    /// System: the endpoint could not be listened on.
    Listen {
        /// The endpoint asked for, as it is written.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// System: some other operation failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// System: the kernel refused something about routes; the text says what.
    #[cfg(feature = "netlink")]
    Netlink(String),
}

/// Result of this library's public calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps a system error with what was being done.
    pub(crate) const fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvalidConfig(what) => f.write_str(what),
            Self::Closed => f.write_str("closed"),
            Self::TooManyVnis(most) => {
                write!(
                    f,
                    "subscribed to {most} VNIs already, which is the limit; raise max-vnis"
                )
            }
            Self::NotSubscribed(vni) => write!(f, "not subscribed to VNI {vni}"),
            Self::RouteAlreadyAnnounced => f.write_str("route already announced"),
            Self::RouteNotFound => f.write_str("route not found"),
            Self::Unsupported(why) => f.write_str(why),
            Self::PeerNotFound(name) => write!(f, "there is no peer {name}"),
            Self::Busy => f.write_str("too many callers do this at once; try again later"),
            Self::Lagged => f.write_str("too slow: changes were lost"),
            Self::Timeout => f.write_str("timed out"),
            Self::Panicked(thread) => {
                write!(
                    f,
                    "ended by an internal error: the thread {thread} panicked"
                )
            }
            Self::Listen { endpoint, source } => write!(f, "cannot listen on {endpoint}: {source}"),
            Self::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            #[cfg(feature = "netlink")]
            Self::Netlink(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Io { source, .. } => Some(source),
            Self::InvalidConfig(_)
            | Self::Closed
            | Self::TooManyVnis(_)
            | Self::NotSubscribed(_)
            | Self::RouteAlreadyAnnounced
            | Self::RouteNotFound
            | Self::Unsupported(_)
            | Self::PeerNotFound(_)
            | Self::Busy
            | Self::Lagged
            | Self::Panicked(_)
            | Self::Timeout => None,
            #[cfg(feature = "netlink")]
            Self::Netlink(_) => None,
        }
    }
}
