//! Names of sides, kinds and states, as the API, the metrics and the page write them.
//!
//! The only list of these names: they are part of the interface, and never change.

use super::{PeerKind, PeerState, Side};

impl Side {
    /// Returns the name: `server` or `client`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl PeerKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Unknown, Self::RustBond, Self::Legacy];

    /// Returns the name, as `rustbond`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::RustBond => "rustbond",
            Self::Legacy => "legacy",
        }
    }

    /// Finds the kind with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

impl PeerState {
    /// All states, in the order in which a session passes through them.
    pub const ALL: [Self; 6] = [
        Self::Connecting,
        Self::AwaitHello,
        Self::AwaitKeepalive,
        Self::Established,
        Self::Retry,
        Self::Draining,
    ];

    /// Returns the name, as `await_hello`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::AwaitHello => "await_hello",
            Self::AwaitKeepalive => "await_keepalive",
            Self::Established => "established",
            Self::Retry => "retry",
            Self::Draining => "draining",
        }
    }

    /// Finds the state with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_values() {
        for kind in PeerKind::ALL {
            assert_eq!(PeerKind::from_name(kind.name()), Some(kind));
        }
        for state in PeerState::ALL {
            assert_eq!(PeerState::from_name(state.name()), Some(state));
        }
        assert_eq!(PeerState::from_name("Established"), None);
        assert_eq!(PeerKind::from_name(""), None);
    }
}
