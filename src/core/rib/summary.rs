//! A table in numbers, kept up to date with every change.

use std::fmt;
use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::core::types::{NextHopType, Route};

/// A fingerprint of a set of routes, the same on all who have the same routes.
///
/// It is the wrapping sum of one XXH3 hash for each route, so that it does not depend on the
/// order in which they came, and is kept up to date by adding and subtracting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u64);

impl Digest {
    /// The number itself.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Its lower 48 bits, which a floating-point number holds exactly.
    #[must_use]
    pub const fn to_u48(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A table in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSummary {
    /// STANDARD routes.
    pub standard: usize,
    /// NAT routes.
    pub nat: usize,
    /// LOADBALANCER_TARGET routes.
    pub load_balancer: usize,
    /// Routes of a type that is not known.
    pub other: usize,
    /// Of all of them.
    pub digest: Digest,
}

impl TableSummary {
    /// Routes of whatever type.
    #[must_use]
    pub const fn routes(&self) -> usize {
        self.standard + self.nat + self.load_balancer + self.other
    }

    /// A route came.
    pub(crate) fn add(&mut self, route: &Route) {
        *self.of(route) += 1;
        self.digest.0 = self.digest.0.wrapping_add(hash(route));
    }

    /// A route went.
    pub(crate) fn remove(&mut self, route: &Route) {
        *self.of(route) -= 1;
        self.digest.0 = self.digest.0.wrapping_sub(hash(route));
    }

    fn of(&mut self, route: &Route) -> &mut usize {
        match route.next_hop.hop_type {
            NextHopType::Standard => &mut self.standard,
            NextHopType::Nat => &mut self.nat,
            NextHopType::LoadBalancerTarget => &mut self.load_balancer,
            NextHopType::Unknown(_) => &mut self.other,
        }
    }
}

/// The same in half the space: there may be many tables. Each has fewer than 2^32 routes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    standard: u32,
    nat: u32,
    load_balancer: u32,
    other: u32,
    digest: Digest,
}

impl Tally {
    /// How many routes there are.
    pub(crate) const fn routes(&self) -> usize {
        self.standard as usize
            + self.nat as usize
            + self.load_balancer as usize
            + self.other as usize
    }

    /// A route came.
    pub(crate) fn add(&mut self, route: &Route) {
        *self.of(route) += 1;
        self.digest.0 = self.digest.0.wrapping_add(hash(route));
    }

    /// A route went.
    pub(crate) fn remove(&mut self, route: &Route) {
        *self.of(route) -= 1;
        self.digest.0 = self.digest.0.wrapping_sub(hash(route));
    }

    fn of(&mut self, route: &Route) -> &mut u32 {
        match route.next_hop.hop_type {
            NextHopType::Standard => &mut self.standard,
            NextHopType::Nat => &mut self.nat,
            NextHopType::LoadBalancerTarget => &mut self.load_balancer,
            NextHopType::Unknown(_) => &mut self.other,
        }
    }

    pub(crate) fn summary(self) -> TableSummary {
        TableSummary {
            standard: self.standard as usize,
            nat: self.nat as usize,
            load_balancer: self.load_balancer as usize,
            other: self.other as usize,
            digest: self.digest,
        }
    }
}

/// The same everywhere and always: XXH3 of the fields, big-endian, an address with its family.
fn hash(route: &Route) -> u64 {
    let mut bytes = [0; FIELDS];
    let prefix = &route.destination.prefix;
    let hop = &route.next_hop;
    let target_vni = hop.target_vni.map_or(0, u32::from);
    let mut rest = &mut bytes[..];
    put(&mut rest, &address(prefix.addr()));
    put(&mut rest, &[prefix.prefix_len()]);
    put(&mut rest, &address(hop.target_address));
    put(&mut rest, &target_vni.to_be_bytes());
    put(&mut rest, &hop.hop_type.number().to_be_bytes());
    put(&mut rest, &hop.nat_port_range_from.to_be_bytes());
    put(&mut rest, &hop.nat_port_range_to.to_be_bytes());
    debug_assert!(rest.is_empty());
    xxh3_64(&bytes)
}

/// Bytes of all fields: two addresses, two numbers, two ports and a length.
const FIELDS: usize = 2 * (17 + 4 + 2) + 1;

fn address(address: IpAddr) -> [u8; 17] {
    let mut bytes = [0; 17];
    match address {
        IpAddr::V4(address) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&address.octets());
        }
    }
    bytes
}

fn put(rest: &mut &mut [u8], field: &[u8]) {
    let (head, tail) = std::mem::take(rest).split_at_mut(field.len());
    head.copy_from_slice(field);
    *rest = tail;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::types::{Destination, NextHop};

    fn route(host: u8) -> Route {
        let destination = Destination::from_ipv4([10, 0, 0, host].into(), 32);
        Route::new(destination, NextHop::nat([192, 0, 2, 1], 1024, 2048))
    }

    #[test]
    fn order_does_not_matter_and_a_removal_undoes() {
        let (mut one, mut other) = (TableSummary::default(), TableSummary::default());
        for host in 0..100 {
            one.add(&route(host));
        }
        for host in (0..101).rev() {
            other.add(&route(host));
        }
        assert_ne!(one, other);
        other.remove(&route(100));
        assert_eq!(one, other);
        for host in 0..100 {
            one.remove(&route(host));
        }
        assert_eq!(one, TableSummary::default());
    }

    #[test]
    fn routes_are_counted_by_type() {
        let to = [192, 0, 2, 1];
        let mut unknown = NextHop::standard(to);
        unknown.hop_type = NextHopType::from_number(9);
        let kinds = [
            (NextHop::standard(to), 1),
            (NextHop::nat(to, 1024, 2048), 2),
            (NextHop::load_balancer(to), 3),
            (unknown, 4),
        ];
        let mut summary = TableSummary::default();
        for (hop, count) in kinds {
            for host in 0..count {
                let destination = Destination::from_ipv4([10, 0, 0, host].into(), 32);
                summary.add(&Route::new(destination, hop));
            }
        }
        let counts = [summary.standard, summary.nat, summary.load_balancer];
        assert_eq!((counts, summary.other), ([1, 2, 3], 4));
        assert_eq!(summary.routes(), 10);
    }

    #[test]
    fn digest_is_shown_whole_and_measured_by_its_lower_bits() {
        let digest = Digest(0x0123_4567_89ab_cdef);
        assert_eq!(digest.to_u64(), 0x0123_4567_89ab_cdef);
        assert_eq!(digest.to_u48(), 0x4567_89ab_cdef);
        assert_eq!(digest.to_string(), "0123456789abcdef");
    }

    #[test]
    fn every_field_counts() {
        let base = route(1);
        let mut changed = vec![base; 5];
        changed[0].destination = Destination::from_ipv4([10, 0, 0, 1].into(), 31);
        changed[1].next_hop.target_address = "::".parse().unwrap();
        changed[2].next_hop.target_vni = std::num::NonZeroU32::new(1);
        changed[3].next_hop.nat_port_range_from = 1025;
        changed[4].next_hop.hop_type = NextHopType::LoadBalancerTarget;
        for route in changed {
            assert_ne!(hash(&route), hash(&base), "{route}");
        }
    }

    /// Servers of different versions compare their digests.
    #[test]
    fn hash_is_for_ever() {
        assert_eq!(hash(&route(1)), HASH_OF_ROUTE_1);
    }

    const HASH_OF_ROUTE_1: u64 = 6_734_233_532_289_180_647;
}
