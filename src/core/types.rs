//! What MetalBond talks about: virtual networks, destinations, next hops, routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

pub use ipnet::IpNet;

/// Virtual network identifier.
///
/// The protocol carries 32 bits; encapsulations commonly use 24 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(pub u32);

impl From<u32> for Vni {
    fn from(value: u32) -> Self {
        Self(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Address family of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What an UPDATE does to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Announce the route.
    Add,
    /// Withdraw the route.
    Remove,
}

/// The prefix a route leads to.
///
/// Host bits are part of the identity: `10.0.0.1/24` and `10.0.0.0/24` are two
/// destinations, as they are to every MetalBond implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The prefix, host bits as announced.
    pub prefix: IpNet,
}

impl Destination {
    /// Makes a destination of a prefix.
    #[must_use]
    pub const fn new(prefix: IpNet) -> Self {
        Self { prefix }
    }

    /// Makes a destination of an IPv4 address and a prefix length.
    ///
    /// # Panics
    ///
    /// If `prefix_len` is greater than 32.
    #[must_use]
    pub fn from_ipv4(addr: Ipv4Addr, prefix_len: u8) -> Self {
        Self::new(IpNet::new(addr.into(), prefix_len).expect("prefix_len is at most 32"))
    }

    /// Makes a destination of an IPv6 address and a prefix length.
    ///
    /// # Panics
    ///
    /// If `prefix_len` is greater than 128.
    #[must_use]
    pub fn from_ipv6(addr: Ipv6Addr, prefix_len: u8) -> Self {
        Self::new(IpNet::new(addr.into(), prefix_len).expect("prefix_len is at most 128"))
    }

    /// Returns the destination without host bits, as a kernel has it.
    pub(crate) fn network(&self) -> Self {
        Self::new(self.prefix.trunc())
    }

    /// The address family.
    #[must_use]
    pub const fn ip_version(&self) -> IpVersion {
        match self.prefix {
            IpNet::V4(_) => IpVersion::V4,
            IpNet::V6(_) => IpVersion::V6,
        }
    }
}

impl From<IpNet> for Destination {
    fn from(prefix: IpNet) -> Self {
        Self::new(prefix)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix.fmt(f)
    }
}

/// What the hypervisor behind a next hop does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHopType {
    /// Delivers it.
    #[default]
    Standard,
    /// Translates its address; the port range belongs to this next hop.
    Nat,
    /// Balances it over the targets behind it.
    LoadBalancerTarget,
    /// A type this version does not know; relayed as it came.
    Unknown(UnknownType),
}

/// The number of a next-hop type that has no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownType(i32);

impl NextHopType {
    /// The type behind a protocol number; every number is one.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Standard,
            1 => Self::Nat,
            2 => Self::LoadBalancerTarget,
            other => Self::Unknown(UnknownType(other)),
        }
    }

    /// The protocol's number for the type.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Standard => 0,
            Self::Nat => 1,
            Self::LoadBalancerTarget => 2,
            Self::Unknown(UnknownType(number)) => number,
        }
    }
}

impl fmt::Display for NextHopType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("STANDARD"),
            Self::Nat => f.write_str("NAT"),
            Self::LoadBalancerTarget => f.write_str("LOADBALANCER_TARGET"),
            Self::Unknown(UnknownType(number)) => write!(f, "TYPE_{number}"),
        }
    }
}

/// Where packets of a route go: the underlay address of a hypervisor and what happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Underlay address of the hypervisor; IPv6 in every known deployment.
    pub target_address: IpAddr,
    /// VNI on the far side, when it is not the route's own.
    pub target_vni: Option<NonZeroU32>,
    /// What the far side does with the packet.
    pub hop_type: NextHopType,
    /// First port of the NAT range, inclusive.
    pub nat_port_range_from: u16,
    /// Last port of the NAT range, inclusive.
    pub nat_port_range_to: u16,
}

impl NextHop {
    /// A standard next hop.
    #[must_use]
    pub fn standard(target_address: impl Into<IpAddr>) -> Self {
        Self {
            target_address: target_address.into(),
            target_vni: None,
            hop_type: NextHopType::Standard,
            nat_port_range_from: 0,
            nat_port_range_to: 0,
        }
    }

    /// A standard next hop into another VNI; 0 means the route's own.
    #[must_use]
    pub fn standard_with_vni(target_address: impl Into<IpAddr>, target_vni: u32) -> Self {
        Self {
            target_vni: NonZeroU32::new(target_vni),
            ..Self::standard(target_address)
        }
    }

    /// A NAT next hop that owns the ports `port_from..=port_to`.
    #[must_use]
    pub fn nat(target_address: impl Into<IpAddr>, port_from: u16, port_to: u16) -> Self {
        Self {
            hop_type: NextHopType::Nat,
            nat_port_range_from: port_from,
            nat_port_range_to: port_to,
            ..Self::standard(target_address)
        }
    }

    /// A load-balancer target.
    #[must_use]
    pub fn load_balancer(target_address: impl Into<IpAddr>) -> Self {
        Self {
            hop_type: NextHopType::LoadBalancerTarget,
            ..Self::standard(target_address)
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target_address.fmt(f)?;
        if let Some(vni) = self.target_vni {
            write!(f, " (VNI: {vni})")?;
        }
        match self.hop_type {
            NextHopType::Standard => Ok(()),
            NextHopType::Nat => write!(
                f,
                " [NAT ports {}-{}]",
                self.nat_port_range_from, self.nat_port_range_to
            ),
            NextHopType::LoadBalancerTarget => f.write_str(" [LB]"),
            NextHopType::Unknown(_) => write!(f, " [{}]", self.hop_type),
        }
    }
}

/// A destination and one of its next hops.
///
/// Several routes with one destination are ECMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The prefix.
    pub destination: Destination,
    /// Where its packets go.
    pub next_hop: NextHop,
}

impl Route {
    /// Makes a route.
    #[must_use]
    pub const fn new(destination: Destination, next_hop: NextHop) -> Self {
        Self {
            destination,
            next_hop,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.next_hop)
    }
}

/// What carries the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP as it is.
    Tcp,
    /// A Unix socket of this host.
    Unix,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Unix];

    /// Returns the name in lower case: `tcp` or `unix`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_print_what_matters_of_their_type() {
        let address = Ipv6Addr::LOCALHOST;
        assert_eq!(NextHop::standard(address).to_string(), "::1");
        assert_eq!(
            NextHop::standard_with_vni(address, 100).to_string(),
            "::1 (VNI: 100)"
        );
        assert_eq!(
            NextHop::nat(address, 1000, 2000).to_string(),
            "::1 [NAT ports 1000-2000]"
        );
        assert_eq!(NextHop::load_balancer(address).to_string(), "::1 [LB]");
    }

    #[test]
    fn every_type_number_survives() {
        for number in [i32::MIN, -1, 0, 1, 2, 3, i32::MAX] {
            assert_eq!(NextHopType::from_number(number).number(), number);
        }
    }

    #[test]
    fn target_vni_zero_is_none() {
        let address = Ipv6Addr::LOCALHOST;
        assert_eq!(
            NextHop::standard_with_vni(address, 0),
            NextHop::standard(address)
        );
    }

    #[test]
    fn host_bits_are_part_of_the_identity() {
        let a = Destination::from_ipv4(Ipv4Addr::new(10, 0, 0, 1), 24);
        let b = Destination::from_ipv4(Ipv4Addr::new(10, 0, 0, 0), 24);
        assert_ne!(a, b);
        assert_eq!(a.to_string(), "10.0.0.1/24");
    }
}
