//! The routes of the soak, and a fingerprint of a set of them that is not the library's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use rustbond::{Route, Vni};

/// What follows the action in an UPDATE: the identity of a route, `10.0.0.0/32 + number`
/// via `2001:db8::hop`.
pub(crate) fn identity(vni: u8, number: u32, hop: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, vni, 0x1a, 8, 0x12, 4];
    bytes.extend((0x0a00_0000 + number).to_be_bytes());
    bytes.extend([0x18, 32, 0x22, 18, 0x0a, 16, 0x20, 1, 0x0d, 0xb8]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hop]);
    bytes
}

/// The VNI that legacy subscribers want; few changes are in it, because they are sent to at a pace.
pub(crate) const CALM: u8 = 1;

/// The fingerprint of all that is announced, and of what of it is in the calm VNI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprints {
    pub(crate) all: u64,
    pub(crate) calm: u64,
}

impl Fingerprints {
    /// A route comes or goes.
    pub(crate) fn turn(&mut self, vni: u8, fingerprint: u64) {
        self.all ^= fingerprint;
        if vni == CALM {
            self.calm ^= fingerprint;
        }
    }

    /// Routes come or go.
    pub(crate) fn turn_all(&mut self, routes: Self) {
        self.all ^= routes.all;
        self.calm ^= routes.calm;
    }
}

/// Of one route; that of a set is the exclusive or of its routes'.
pub(crate) fn fingerprint(identity: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish()
}

/// The fingerprint of a route as the library gives it; 0 for one that nobody announced.
pub(crate) fn fingerprint_of(vni: Vni, route: &Route) -> u64 {
    let (IpAddr::V4(address), IpAddr::V6(hop)) = (
        route.destination.prefix.addr(),
        route.next_hop.target_address,
    ) else {
        return 0;
    };
    let vni = u8::try_from(vni.0).unwrap_or_default();
    let number = u32::from(address).wrapping_sub(0x0a00_0000);
    fingerprint(&identity(vni, number, hop.octets()[15]))
}
