//! The far end of a connection, and the names that operators have for it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::core::types::Transport;

/// The far end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// An address of the network: `192.0.2.1:4711`.
    Address(SocketAddr),
    /// A user of this host, at a Unix socket, with the number of the connection: `unix:990#3`.
    User { uid: u32, number: u32 },
}

impl Peer {
    /// The peer at an address that is dialled.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::Address(address)
    }

    /// The peer of an accepted connection. A socket of both families shows IPv4 addresses in
    /// IPv6 form; a peer has one name whatever the listener.
    pub(crate) fn accepted(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Self::at(SocketAddr::new(ip, address.port()))
    }

    /// Returns the address with the port; `None` for a user of this host.
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::User { .. } => None,
        }
    }

    /// Returns the address; `None` for a user of this host.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        self.address().map(|it| it.ip())
    }

    /// Returns what carries the bytes.
    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Address(_) => Transport::Tcp,
            Self::User { .. } => Transport::Unix,
        }
    }

    /// Returns who the peer has proved to be; `None`: it has proved nothing.
    pub(crate) fn identity(self) -> Option<String> {
        match self {
            Self::Address(_) => None,
            Self::User { uid, .. } => Some(format!("uid {uid}")),
        }
    }

    /// Returns where the connection comes from.
    pub(crate) fn source(self) -> Source {
        match self {
            Self::Address(address) => Source::Address(address.ip()),
            Self::User { uid, .. } => Source::User(uid),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User { uid, number } => write!(f, "{}#{number}", Source::User(*uid)),
        }
    }
}

/// Where connections come from: what many of them share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// An address of the network: `192.0.2.1`.
    Address(IpAddr),
    /// A user of this host, at a Unix socket: `unix:990`.
    User(u32),
}

impl Source {
    /// Returns what counts as one source: a user, an IPv4 address, or an IPv6 /64, of which one
    /// host usually has all.
    pub(crate) fn block(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(address)) => {
                let network = u128::from(address) >> 64 << 64;
                Self::Address(Ipv6Addr::from(network).into())
            }
            Self::Address(IpAddr::V4(_)) | Self::User(_) => self,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "unix:{uid}"),
        }
    }
}

/// The peers that an operator means: the name of a connection is that one, the name of a source
/// is all from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerSelector {
    Connection(Peer),
    Source(Source),
}

impl PeerSelector {
    /// Reads a selector. Returns `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Some(user) = text.strip_prefix("unix:") else {
            let connection = text.parse().map(|it| Self::Connection(Peer::Address(it)));
            let source = || text.parse().map(|it| Self::Source(Source::Address(it)));
            return connection.or_else(|_| source()).ok();
        };
        match user.split_once('#') {
            Some((uid, number)) => Some(Self::Connection(Peer::User {
                uid: plain(uid)?,
                number: plain(number)?,
            })),
            None => Some(Self::Source(Source::User(plain(user)?))),
        }
    }

    /// Returns whether a peer is meant.
    pub(crate) fn selects(self, peer: Peer) -> bool {
        match self {
            Self::Connection(it) => it == peer,
            Self::Source(it) => it == peer.source(),
        }
    }

    /// Returns where the peers that are meant come from.
    pub(crate) fn source(self) -> Source {
        match self {
            Self::Connection(peer) => peer.source(),
            Self::Source(source) => source,
        }
    }
}

/// Reads digits, without a sign.
fn plain<T: FromStr>(text: &str) -> Option<T> {
    let are_digits = text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| are_digits)
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
    fn selector_of_a_connection_means_one_and_that_of_a_source_all() {
        let address = |text: &str| Peer::at(text.parse().unwrap());
        let user = |number| Peer::User { uid: 990, number };
        for [one, other] in [
            ["192.0.2.1:1", "192.0.2.1:2"].map(address),
            ["[2001:db8::1]:1", "[2001:db8::1]:2"].map(address),
            [3, 4].map(user),
        ] {
            let connection = PeerSelector::parse(&one.to_string()).unwrap();
            assert!(connection.selects(one) && !connection.selects(other));
            let source = PeerSelector::parse(&one.source().to_string()).unwrap();
            assert!(source.selects(one) && source.selects(other));
            assert_eq!(connection.source(), source.source());
        }
        for text in [
            "server-1",
            "unix:",
            "unix:root",
            "unix:+1",
            "unix:1#",
            "unix:1#x",
        ] {
            assert_eq!(PeerSelector::parse(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let of = |text: &str| Source::Address(text.parse().unwrap()).block();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(Source::User(1).block(), Source::User(2).block());
    }
}
