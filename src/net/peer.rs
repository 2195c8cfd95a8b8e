//! The far end of a connection, and the names that operators have for it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The far end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// The peer at an address that is dialled.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The peer of an accepted connection. A socket of both families shows IPv4 addresses in
    /// IPv6 form; a peer has one name whatever the listener.
    pub(crate) fn accepted(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Self::at(SocketAddr::new(ip, address.port()))
    }

    pub(crate) fn address(self) -> SocketAddr {
        self.address
    }

    pub(crate) fn ip(self) -> IpAddr {
        self.address.ip()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The peers that an operator means: `ADDRESS:PORT` is one connection, `ADDRESS` is all from
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerSelector {
    Connection(SocketAddr),
    Address(IpAddr),
}

impl PeerSelector {
    /// Reads a selector. Returns `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let connection = text.parse().map(Self::Connection);
        connection.or_else(|_| text.parse().map(Self::Address)).ok()
    }

    /// Returns whether a peer is meant.
    pub(crate) fn selects(self, peer: Peer) -> bool {
        match self {
            Self::Connection(address) => address == peer.address,
            Self::Address(address) => address == peer.ip(),
        }
    }

    /// Returns the address without the port.
    pub(crate) fn ip(self) -> IpAddr {
        match self {
            Self::Connection(address) => address.ip(),
            Self::Address(address) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_mapped_address_is_ipv4() {
        let peer = Peer::accepted("[::ffff:192.0.2.1]:4711".parse().unwrap());
        assert_eq!(peer.to_string(), "192.0.2.1:4711");
    }

    #[test]
    fn selector_with_a_port_means_one_connection_and_without_one_all() {
        let [one, other] = ["192.0.2.1:1", "192.0.2.1:2"].map(|it| Peer::at(it.parse().unwrap()));
        let session = PeerSelector::parse("192.0.2.1:1").unwrap();
        assert!(session.selects(one) && !session.selects(other));
        let address = PeerSelector::parse("192.0.2.1").unwrap();
        assert!(address.selects(one) && address.selects(other));
        assert_eq!(PeerSelector::parse("server-1"), None);
    }
}
