//! The destinations, compact: 16 bytes for IPv4, 28 for IPv6, and an index.
//!
//! Wanted and installed are numbers in one entry, so equal states cost nothing twice.

use std::hash::{BuildHasher, Hash};
use std::net::{Ipv4Addr, Ipv6Addr};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;
use super::intern::{NONE, hasher};

/// Waits in the queue of routes to look at.
pub(super) const QUEUED: u8 = 1;
/// Waits for the end of a burst of withdraws.
pub(super) const SETTLING: u8 = 2;
/// Was in the kernel before we were; kept until the table is complete.
pub(super) const ADOPTED: u8 = 4;
/// Is kept with the hops that it was found with in another place, until the table is complete.
pub(super) const CARRIED: u8 = 8;
/// The entry is free.
const VACANT: u8 = 16;
/// Another route of ours stands in the place: the next write goes beside it.
pub(super) const BESIDE: u8 = 32;
/// The kernel said that a route is there; a reading tells whose it is.
pub(super) const DOUBTED: u8 = 64;

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The announcement set wanted, or [`NONE`].
    pub(super) desired: u32,
    /// The object that the kernel's route uses, or [`NONE`].
    pub(super) installed: u32,
    /// Position of the table in the plan's list.
    pub(super) table: u16,
    len: u8,
    pub(super) flags: u8,
}

impl State {
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Number of a destination; stable while the destination is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteId(u32);

/// The bit that tells the families apart.
const V6: u32 = 1 << 31;

impl RouteId {
    const fn v6(at: u32) -> Self {
        Self(V6 + at)
    }

    pub(super) const fn family(self) -> Family {
        if self.0 & V6 == 0 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// Counts destinations of a family from 0.
    pub(super) const fn at(self) -> usize {
        (self.0 & !V6) as usize
    }
}

struct Entry<A> {
    state: State,
    address: A,
}

struct Slab<A> {
    entries: Vec<Entry<A>>,
    index: HashTable<u32>,
    /// First free entry plus 1; its `desired` names the next one.
    free: u32,
}

fn hash<A: Hash>(hasher: &SeedableRandomState, table: u16, len: u8, address: A) -> u64 {
    hasher.hash_one((table, len, address))
}

impl<A: Copy + Eq + Hash> Slab<A> {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            index: HashTable::new(),
            free: 0,
        }
    }

    fn find(&self, hasher: &SeedableRandomState, table: u16, len: u8, address: A) -> Option<u32> {
        let hash = hash(hasher, table, len, address);
        let same = |&id: &u32| {
            let entry = &self.entries[id as usize];
            entry.address == address && entry.state.len == len && entry.state.table == table
        };
        self.index.find(hash, same).copied()
    }

    fn insert(&mut self, hasher: &SeedableRandomState, table: u16, len: u8, address: A) -> u32 {
        let state = State {
            desired: NONE,
            installed: NONE,
            table,
            len,
            flags: 0,
        };
        let entry = Entry { state, address };
        let id = if self.free == 0 {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("memory ends before the numbers do")
        } else {
            let id = self.free - 1;
            self.free = self.entries[id as usize].state.desired;
            self.entries[id as usize] = entry;
            id
        };
        let entries = &self.entries;
        let rehash = |&id: &u32| {
            let Entry { state, address } = &entries[id as usize];
            hash(hasher, state.table, state.len, *address)
        };
        let hash = hash(hasher, table, len, address);
        self.index.insert_unique(hash, id, rehash);
        id
    }

    fn remove(&mut self, hasher: &SeedableRandomState, id: u32) {
        let Entry { state, address } = &mut self.entries[id as usize];
        let hash = hash(hasher, state.table, state.len, *address);
        state.flags = VACANT;
        state.desired = self.free;
        self.free = id + 1;
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        if self.index.is_empty() {
            // A table that was emptied gives its memory back.
            *self = Self::new();
        }
    }
}

/// All destinations of all tables.
pub(super) struct Store {
    v4: Slab<[u8; 4]>,
    v6: Slab<[u8; 16]>,
    hasher: SeedableRandomState,
}

impl Store {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            v4: Slab::new(),
            v6: Slab::new(),
            hasher: hasher(seed),
        }
    }

    /// The destination without its host bits, if it is stored.
    pub(super) fn find(&self, table: u16, prefix: IpNet) -> Option<RouteId> {
        match prefix {
            IpNet::V4(net) => self
                .v4
                .find(
                    &self.hasher,
                    table,
                    net.prefix_len(),
                    net.network().octets(),
                )
                .map(RouteId),
            IpNet::V6(net) => self
                .v6
                .find(
                    &self.hasher,
                    table,
                    net.prefix_len(),
                    net.network().octets(),
                )
                .map(RouteId::v6),
        }
    }

    /// The destination without its host bits; a new one is wanted by nobody and not installed.
    pub(super) fn find_or_insert(&mut self, table: u16, prefix: IpNet) -> RouteId {
        if let Some(id) = self.find(table, prefix) {
            return id;
        }
        let len = prefix.prefix_len();
        match prefix {
            IpNet::V4(net) => {
                let address = net.network().octets();
                RouteId(self.v4.insert(&self.hasher, table, len, address))
            }
            IpNet::V6(net) => {
                let address = net.network().octets();
                RouteId::v6(self.v6.insert(&self.hasher, table, len, address))
            }
        }
    }

    /// Forgets a destination.
    pub(super) fn remove(&mut self, id: RouteId) {
        match id.family() {
            Family::V4 => self.v4.remove(&self.hasher, id.0),
            Family::V6 => self.v6.remove(&self.hasher, id.0 & !V6),
        }
    }

    /// The state of a destination, or `None` when the number is free.
    pub(super) fn get(&self, id: RouteId) -> Option<State> {
        let state = match id.family() {
            Family::V4 => self.v4.entries.get(id.at())?.state,
            Family::V6 => self.v6.entries.get(id.at())?.state,
        };
        (!state.has(VACANT)).then_some(state)
    }

    /// The state of a stored destination.
    pub(super) fn state_mut(&mut self, id: RouteId) -> &mut State {
        let state = match id.family() {
            Family::V4 => &mut self.v4.entries[id.at()].state,
            Family::V6 => &mut self.v6.entries[id.at()].state,
        };
        debug_assert!(!state.has(VACANT));
        state
    }

    /// The prefix of a stored destination.
    pub(super) fn prefix(&self, id: RouteId) -> IpNet {
        match id.family() {
            Family::V4 => {
                let entry = &self.v4.entries[id.at()];
                let net = Ipv4Net::new(Ipv4Addr::from(entry.address), entry.state.len);
                IpNet::V4(net.expect("stored lengths came from a prefix"))
            }
            Family::V6 => {
                let entry = &self.v6.entries[id.at()];
                let net = Ipv6Net::new(Ipv6Addr::from(entry.address), entry.state.len);
                IpNet::V6(net.expect("stored lengths came from a prefix"))
            }
        }
    }

    /// How many numbers are or were in use: IPv4, IPv6.
    fn ends(&self) -> [u32; 2] {
        let end = |len| u32::try_from(len).expect("numbers fit");
        [end(self.v4.entries.len()), end(self.v6.entries.len())]
    }

    /// Every number that may be in use; check with [`Self::get`].
    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> + use<> {
        self.ids_of(Family::V4).chain(self.ids_of(Family::V6))
    }

    /// The numbers of one family among those.
    pub(super) fn ids_of(&self, family: Family) -> impl Iterator<Item = RouteId> + use<> {
        let end = self.ends()[family as usize];
        let number = match family {
            Family::V4 => RouteId,
            Family::V6 => RouteId::v6,
        };
        (0..end).map(number)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.v4.index.len() + self.v6.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_small() {
        assert_eq!(size_of::<Entry<[u8; 4]>>(), 16);
        assert_eq!(size_of::<Entry<[u8; 16]>>(), 28);
    }

    #[test]
    fn destinations_spread_over_the_index() {
        let hasher = hasher(1);
        let addresses = (0..100_u8).map(|n| hash(&hasher, 1, 24, [10, 0, n, 0]));
        let mut hashes: Vec<u64> = addresses.collect();
        hashes.push(hash(&hasher, 2, 24, [10, 0, 0, 0]));
        hashes.push(hash(&hasher, 1, 25, [10, 0, 0, 0]));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 102);
    }

    #[test]
    fn host_bits_do_not_count_and_families_do() {
        let mut store = Store::new(3);
        let a = store.find_or_insert(1, "10.0.0.1/24".parse().unwrap());
        assert_eq!(store.find(1, "10.0.0.0/24".parse().unwrap()), Some(a));
        assert_eq!(store.find(2, "10.0.0.0/24".parse().unwrap()), None);
        let b = store.find_or_insert(1, "::/0".parse().unwrap());
        assert_ne!(a, b);
        assert_eq!(store.prefix(a), "10.0.0.0/24".parse::<IpNet>().unwrap());
        let c = store.find_or_insert(1, "0.0.0.0/0".parse().unwrap());
        store.remove(a);
        assert!(store.get(a).is_none());
        assert_eq!(
            store.find_or_insert(3, "10.0.0.0/8".parse().unwrap()),
            a,
            "a free number is used again"
        );
        assert_eq!(store.ids().filter(|&id| store.get(id).is_some()).count(), 3);
        assert_eq!(store.len(), 3);
        assert_eq!(store.prefix(c), "0.0.0.0/0".parse::<IpNet>().unwrap());
    }
}
