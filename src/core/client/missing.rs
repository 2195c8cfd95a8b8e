//! What servers have that the client refused for want of room.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::ServerId;
use super::view::ServerBit;
use crate::core::types::{Route, Vni};

/// Refused routes that are told apart, at about 40 bytes each.
pub(super) const TOLD_APART: usize = 65_536;

/// The refused routes that servers have, each once, however often it is told.
#[derive(Debug)]
pub(super) struct Missing {
    hasher: FixedState,
    /// The servers that have each route, which a hash stands for.
    routes: BTreeMap<(Vni, u64), u32>,
    /// The tables that are not whole.
    tables: BTreeMap<(ServerId, Vni), Lack>,
}

/// What a table lacks.
#[derive(Debug, Default)]
struct Lack {
    routes: usize,
    /// Some more, which are not told apart: only the whole table brings them.
    has_more: bool,
}

impl Missing {
    /// Nothing; `seed` keeps peers from choosing routes that collide.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            routes: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Returns how many there are, up to [`TOLD_APART`].
    pub(super) fn len(&self) -> usize {
        self.routes.len().max(usize::from(!self.is_empty()))
    }

    /// The tables that are not whole.
    pub(super) fn tables(&self) -> Vec<(ServerId, Vni)> {
        self.tables.keys().copied().collect()
    }

    /// A server has a route that is refused.
    pub(super) fn insert(&mut self, server: ServerId, bit: ServerBit, vni: Vni, route: &Route) {
        let key = (vni, self.hasher.hash_one(route));
        let is_full = self.routes.len() >= TOLD_APART && !self.routes.contains_key(&key);
        let lack = self.tables.entry((server, vni)).or_default();
        if is_full {
            lack.has_more = true;
            return;
        }
        let servers = self.routes.entry(key).or_default();
        if *servers & bit.mask() == 0 {
            *servers |= bit.mask();
            lack.routes += 1;
        }
    }

    /// A server has a route no longer, or it is taken. Returns whether the server's table is
    /// whole by that.
    pub(super) fn remove(
        &mut self,
        server: ServerId,
        bit: ServerBit,
        vni: Vni,
        route: &Route,
    ) -> bool {
        let Some(lack) = self.tables.get_mut(&(server, vni)) else {
            return false;
        };
        let key = (vni, self.hasher.hash_one(route));
        let Some(servers) = self.routes.get_mut(&key) else {
            return false;
        };
        if *servers & bit.mask() == 0 {
            return false;
        }
        *servers &= !bit.mask();
        if *servers == 0 {
            self.routes.remove(&key);
        }
        lack.routes -= 1;
        let is_whole = lack.routes == 0 && !lack.has_more;
        if is_whole {
            self.tables.remove(&(server, vni));
        }
        is_whole
    }

    /// Forgets what one table lacks.
    pub(super) fn forget_table(&mut self, server: ServerId, bit: ServerBit, vni: Vni) {
        if self.tables.remove(&(server, vni)).is_some() {
            self.forget_routes(bit.mask(), |of| of == vni);
        }
    }

    /// Forgets what a server has.
    pub(super) fn forget_server(&mut self, server: ServerId, bit: ServerBit) {
        self.tables.retain(|(of, _), _| *of != server);
        self.forget_routes(bit.mask(), |_| true);
    }

    /// Forgets a VNI.
    pub(super) fn forget_vni(&mut self, vni: Vni) {
        self.tables.retain(|(_, of), _| *of != vni);
        self.forget_routes(u32::MAX, |of| of == vni);
    }

    fn forget_routes(&mut self, servers: u32, which: impl Fn(Vni) -> bool) {
        self.routes.retain(|(vni, _), of| {
            if which(*vni) {
                *of &= !servers;
            }
            *of != 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::types::{Destination, NextHop};

    const V: Vni = Vni(1);
    const A: ServerId = ServerId(0);
    const B: ServerId = ServerId(1);

    fn route(number: u32) -> Route {
        let hop = NextHop::standard(std::net::Ipv6Addr::LOCALHOST);
        Route::new(Destination::from_ipv4(number.into(), 32), hop)
    }

    fn bits() -> (ServerBit, ServerBit) {
        let first = ServerBit::first_free(0).unwrap();
        (first, ServerBit::first_free(first.mask()).unwrap())
    }

    #[test]
    fn missing_route_counts_once_whoever_tells_it_how_often() {
        let mut missing = Missing::new(1);
        let (a, b) = bits();
        for _ in 0..3 {
            missing.insert(A, a, V, &route(1));
            missing.insert(B, b, V, &route(1));
        }
        assert_eq!(missing.len(), 1);
        assert!(!missing.remove(A, a, V, &route(2)), "it was never refused");
        assert!(missing.remove(A, a, V, &route(1)));
        assert!(!missing.remove(A, a, V, &route(1)));
        assert_eq!((missing.len(), missing.tables()), (1, vec![(B, V)]));
        missing.forget_server(B, b);
        assert!(missing.is_empty() && missing.routes.is_empty());
    }

    #[test]
    fn routes_beyond_those_told_apart_keep_a_table_from_being_whole() {
        let mut missing = Missing::new(1);
        let (a, _) = bits();
        let count = u32::try_from(TOLD_APART).unwrap() + 1;
        (0..count).for_each(|it| missing.insert(A, a, V, &route(it)));
        assert_eq!(missing.len(), TOLD_APART);
        for number in 0..count {
            assert!(!missing.remove(A, a, V, &route(number)));
        }
        assert_eq!((missing.len(), missing.tables()), (1, vec![(A, V)]));
        missing.forget_table(A, a, V);
        assert!(missing.is_empty());
    }
}
