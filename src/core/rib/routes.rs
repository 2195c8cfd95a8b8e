//! Who announces which route of a VNI; 40 bytes for each announcement.
//!
//! ```text
//! index: route -> slot of its first announcement (fixed for the life of the route)
//! first announcement --sibling--> further announcements of the same route
//! announcer --> its announcements, doubly linked
//! ```

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use ipnet::IpNet;

use super::PeerId;
use super::next_hops::{NextHopId, NextHops};
use crate::core::types::{Destination, Route};

/// Where a route's first announcement is stored, from its first to its last announcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

impl Slot {
    /// The lowest.
    pub(crate) const FIRST: Self = Self(0);
    const NONE: u32 = u32::MAX;
}

/// Who must hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nobody.
    Nothing,
    /// Everybody but the peer that made it.
    AllBut,
    /// This peer alone.
    Only(PeerId),
}

#[derive(Clone, Copy, Debug)]
struct Announcement {
    address: [u8; 16],
    next_hop: NextHopId,
    peer: PeerId,
    /// The announcer's other announcements.
    previous: u32,
    next: u32,
    /// The route's other announcements.
    sibling: u32,
    length: u8,
    is_ipv6: bool,
    role: EntryRole,
}

const _: () = assert!(size_of::<Announcement>() == 40);

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryRole {
    /// The first announcement of a route.
    First,
    /// A further announcement of one.
    Further,
    /// Nothing; `next` is the next free slot.
    Free,
}

/// A route, compactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: [u8; 16],
    next_hop: NextHopId,
    length: u8,
    is_ipv6: bool,
}

impl Key {
    fn new(destination: &Destination, next_hop: NextHopId) -> Self {
        let mut address = [0; 16];
        match destination.prefix {
            IpNet::V4(net) => address[..4].copy_from_slice(&net.addr().octets()),
            IpNet::V6(net) => address = net.addr().octets(),
        }
        Self {
            address,
            next_hop,
            length: destination.prefix.prefix_len(),
            is_ipv6: matches!(destination.prefix, IpNet::V6(_)),
        }
    }

    fn route(&self, hops: &NextHops) -> Route {
        let [a, b, c, d, ..] = self.address;
        let address = match self.is_ipv6 {
            false => IpAddr::from([a, b, c, d]),
            true => IpAddr::from(self.address),
        };
        let prefix = IpNet::new(address, self.length).expect("made of a valid prefix");
        Route::new(Destination::new(prefix), hops.resolve(self.next_hop))
    }
}

#[derive(Debug)]
struct Announcer {
    peer: PeerId,
    first: u32,
    count: u32,
    /// Announced a route together with another peer since the log began, so that
    /// the log does not say what this peer sees.
    needs_private_table: bool,
    /// The same for the log that a compaction is writing.
    needs_private_table_next: bool,
}

/// All announcements of a VNI.
#[derive(Debug)]
pub(crate) struct Routes {
    slots: Vec<Announcement>,
    free: u32,
    index: HashTable<u32>,
    announcers: HashTable<Announcer>,
    hasher: FixedState,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Slot::NONE,
            index: HashTable::new(),
            announcers: HashTable::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.announcers.is_empty()
    }

    pub(crate) fn announced_by(&self, peer: PeerId) -> usize {
        self.announcer(peer).map_or(0, |it| it.count as usize)
    }

    /// The routes that `peer` announces.
    pub(crate) fn of(&self, hops: &NextHops, peer: PeerId) -> impl Iterator<Item = Route> {
        let first = self.announcer(peer).map_or(Slot::NONE, |it| it.first);
        let entry = |slot: u32| self.slots.get(slot as usize);
        let listed = std::iter::successors(entry(first), move |it| entry(it.next));
        listed.map(|it| it.key().route(hops))
    }

    /// Whether the log does not say what `peer` sees.
    pub(crate) fn needs_private_table(&self, peer: PeerId) -> bool {
        self.announcer(peer)
            .is_some_and(|it| it.needs_private_table)
    }

    pub(crate) fn announce(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
        route: &Route,
    ) -> (Slot, Effect) {
        let next_hop = hops.hold(&route.next_hop);
        let key = Key::new(&route.destination, next_hop);
        let Some(first) = self.find(&key) else {
            let slot = self.store(key, EntryRole::First, peer, Slot::NONE);
            let hash = self.hasher.hash_one(key);
            self.index.insert_unique(hash, slot, |&slot| {
                self.hasher.hash_one(self.slots[slot as usize].key())
            });
            return (Slot(slot), Effect::AllBut);
        };
        let alone = self.slots[first as usize];
        if self
            .chain(first)
            .any(|slot| self.slots[slot as usize].peer == peer)
        {
            hops.release(next_hop);
            return (Slot(first), Effect::Nothing);
        }
        let slot = self.store(key, EntryRole::Further, peer, alone.sibling);
        self.slots[first as usize].sibling = slot;
        self.require_private_table(peer);
        if alone.sibling != Slot::NONE {
            return (Slot(first), Effect::Nothing);
        }
        self.require_private_table(alone.peer);
        (Slot(first), Effect::Only(alone.peer))
    }

    pub(crate) fn withdraw(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
        route: &Route,
    ) -> (Slot, Effect) {
        let found = hops
            .find(&route.next_hop)
            .and_then(|next_hop| self.find(&Key::new(&route.destination, next_hop)))
            .and_then(|first| {
                self.chain(first)
                    .find(|&slot| self.slots[slot as usize].peer == peer)
            });
        match found {
            Some(slot) => self.remove(hops, slot),
            None => (Slot::FIRST, Effect::Nothing),
        }
    }

    /// Withdraws some route of `peer`, if it has one left.
    pub(crate) fn withdraw_any(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
    ) -> Option<(Route, Slot, Effect)> {
        let slot = self.announcer(peer)?.first;
        if slot == Slot::NONE {
            return None;
        }
        let route = self.slots[slot as usize].key().route(hops);
        let (slot, effect) = self.remove(hops, slot);
        Some((route, slot, effect))
    }

    /// Forgets a peer that has no announcement left and will make none.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        let hash = self.hasher.hash_one(peer);
        if let Ok(entry) = self.announcers.find_entry(hash, |it| it.peer == peer) {
            debug_assert_eq!(entry.get().count, 0);
            entry.remove();
        }
    }

    /// Every route, with its announcer or, where there are several, `NOBODY`.
    pub(crate) fn for_each(&self, hops: &NextHops, mut each: impl FnMut(Slot, Route, PeerId)) {
        for (slot, entry) in (0..).zip(&self.slots) {
            if entry.role == EntryRole::First {
                each(Slot(slot), entry.key().route(hops), entry.announcer());
            }
        }
    }

    /// As [`Self::for_each`], at most `budget` slots beginning at `from`; what comes next, if anything.
    pub(crate) fn visit(
        &mut self,
        hops: &NextHops,
        from: Slot,
        budget: usize,
        mut each: impl FnMut(Route, PeerId),
    ) -> Option<Slot> {
        let start = from.0 as usize;
        let end = self.slots.len().min(start.saturating_add(budget));
        for slot in start..end {
            let entry = self.slots[slot];
            if entry.role != EntryRole::First {
                continue;
            }
            each(entry.key().route(hops), entry.announcer());
            if entry.sibling != Slot::NONE {
                let mut slot = entry;
                loop {
                    self.require_private_table(slot.peer);
                    let Some(&next) = self.slots.get(slot.sibling as usize) else {
                        break;
                    };
                    slot = next;
                }
            }
        }
        let next = u32::try_from(end).expect("slots are numbered with 32 bits");
        (end < self.slots.len()).then_some(Slot(next))
    }

    /// Every route with all its announcers, at most `budget` slots beginning at `from`; what
    /// comes next, if anything.
    pub(crate) fn walk(
        &self,
        hops: &NextHops,
        from: Slot,
        budget: usize,
        mut each: impl FnMut(Route, &[PeerId]),
    ) -> Option<Slot> {
        let start = (from.0 as usize).min(self.slots.len());
        let end = self.slots.len().min(start.saturating_add(budget));
        let mut peers = Vec::new();
        for (slot, entry) in (from.0..).zip(&self.slots[start..end]) {
            if entry.role == EntryRole::First {
                let chain = self.chain(slot).map(|it| self.slots[it as usize].peer);
                peers.clear();
                peers.extend(chain);
                each(entry.key().route(hops), &peers);
            }
        }
        let next = u32::try_from(end).expect("slots are numbered with 32 bits");
        (end < self.slots.len()).then_some(Slot(next))
    }

    pub(crate) fn begin_compaction(&mut self) {
        for announcer in self.announcers.iter_mut() {
            announcer.needs_private_table_next = false;
        }
    }

    pub(crate) fn finish_compaction(&mut self) {
        for announcer in self.announcers.iter_mut() {
            announcer.needs_private_table = announcer.needs_private_table_next;
        }
    }

    fn require_private_table(&mut self, peer: PeerId) {
        let hash = self.hasher.hash_one(peer);
        if let Some(announcer) = self.announcers.find_mut(hash, |it| it.peer == peer) {
            announcer.needs_private_table = true;
            announcer.needs_private_table_next = true;
        }
    }

    fn announcer(&self, peer: PeerId) -> Option<&Announcer> {
        self.announcers
            .find(self.hasher.hash_one(peer), |it| it.peer == peer)
    }

    fn find(&self, key: &Key) -> Option<u32> {
        self.index
            .find(self.hasher.hash_one(key), |&slot| {
                self.slots[slot as usize].key() == *key
            })
            .copied()
    }

    /// All announcements of the route whose first is at `slot`.
    fn chain(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(slot), |&slot| {
            let sibling = self.slots[slot as usize].sibling;
            (sibling != Slot::NONE).then_some(sibling)
        })
    }

    /// Stores an announcement at the head of its announcer's list.
    fn store(&mut self, key: Key, role: EntryRole, peer: PeerId, sibling: u32) -> u32 {
        let slot = match self.free {
            Slot::NONE => u32::try_from(self.slots.len())
                .ok()
                .filter(|&slot| slot != Slot::NONE)
                .expect("fewer than 2^32 announcements fit in memory"),
            slot => slot,
        };
        let next = self.link(peer, slot);
        let entry = Announcement {
            address: key.address,
            next_hop: key.next_hop,
            peer,
            previous: Slot::NONE,
            next,
            sibling,
            length: key.length,
            is_ipv6: key.is_ipv6,
            role,
        };
        match self.slots.get_mut(slot as usize) {
            Some(free) => {
                self.free = free.next;
                *free = entry;
            }
            None => self.slots.push(entry),
        }
        slot
    }

    /// Makes `slot` the first of the announcer's list; returns what was.
    fn link(&mut self, peer: PeerId, slot: u32) -> u32 {
        let hash = self.hasher.hash_one(peer);
        let announcer = self
            .announcers
            .entry(
                hash,
                |it| it.peer == peer,
                |it| self.hasher.hash_one(it.peer),
            )
            .or_insert_with(|| Announcer {
                peer,
                first: Slot::NONE,
                count: 0,
                needs_private_table: false,
                needs_private_table_next: false,
            })
            .into_mut();
        announcer.count += 1;
        let next = std::mem::replace(&mut announcer.first, slot);
        if next != Slot::NONE {
            self.slots[next as usize].previous = slot;
        }
        next
    }

    /// Removes an announcement; its route's slot and who must hear.
    fn remove(&mut self, hops: &mut NextHops, slot: u32) -> (Slot, Effect) {
        let entry = self.slots[slot as usize];
        self.unlink(&entry);
        hops.release(entry.next_hop);
        let (first, freed) = match (entry.role, entry.sibling) {
            (EntryRole::First, Slot::NONE) => {
                let hash = self.hasher.hash_one(entry.key());
                if let Ok(indexed) = self.index.find_entry(hash, |&it| it == slot) {
                    indexed.remove();
                }
                self.release(slot);
                return (Slot(slot), Effect::AllBut);
            }
            // The route keeps its slot: the next announcement moves into it.
            (EntryRole::First, sibling) => {
                self.relocate(sibling, slot);
                (slot, sibling)
            }
            _ => {
                let first = self.find(&entry.key()).expect("a stored route is indexed");
                let before = self
                    .chain(first)
                    .find(|&it| self.slots[it as usize].sibling == slot)
                    .expect("a further announcement hangs on another");
                self.slots[before as usize].sibling = entry.sibling;
                (first, slot)
            }
        };
        self.release(freed);
        let left = &self.slots[first as usize];
        let effect = match left.sibling {
            Slot::NONE => Effect::Only(left.peer),
            _ => Effect::Nothing,
        };
        (Slot(first), effect)
    }

    /// Takes an announcement out of its announcer's list.
    fn unlink(&mut self, entry: &Announcement) {
        let hash = self.hasher.hash_one(entry.peer);
        let listed = self.announcers.find_entry(hash, |it| it.peer == entry.peer);
        let Ok(mut listed) = listed else {
            unreachable!("an announcement has an announcer");
        };
        let announcer = listed.get_mut();
        announcer.count -= 1;
        match entry.previous {
            Slot::NONE => announcer.first = entry.next,
            previous => self.slots[previous as usize].next = entry.next,
        }
        if entry.next != Slot::NONE {
            self.slots[entry.next as usize].previous = entry.previous;
        }
        // What the log says of this peer stays true without a record of it.
        if announcer.count == 0 && !announcer.needs_private_table {
            listed.remove();
        }
    }

    /// Moves a further announcement to `to` and makes it the first of its route.
    fn relocate(&mut self, from: u32, to: u32) {
        let entry = self.slots[from as usize];
        match entry.previous {
            Slot::NONE => {
                let hash = self.hasher.hash_one(entry.peer);
                self.announcers
                    .find_mut(hash, |it| it.peer == entry.peer)
                    .expect("an announcement has an announcer")
                    .first = to;
            }
            previous => self.slots[previous as usize].next = to,
        }
        if entry.next != Slot::NONE {
            self.slots[entry.next as usize].previous = to;
        }
        self.slots[to as usize] = Announcement {
            role: EntryRole::First,
            ..entry
        };
    }

    fn release(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.role = EntryRole::Free;
        entry.next = self.free;
        self.free = slot;
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn check_invariants(&self) {
        let used = |it: &&Announcement| it.role != EntryRole::Free;
        let firsts = self.slots.iter().filter(|it| it.role == EntryRole::First);
        assert_eq!(firsts.count(), self.index.len());
        let listed: u32 = self.announcers.iter().map(|it| it.count).sum();
        assert_eq!(self.slots.iter().filter(used).count(), listed as usize);
        for announcer in &self.announcers {
            assert!(announcer.needs_private_table || !announcer.needs_private_table_next);
            let mut previous = Slot::NONE;
            let mut slot = announcer.first;
            for _ in 0..announcer.count {
                let entry = &self.slots[slot as usize];
                assert_eq!((entry.peer, entry.previous), (announcer.peer, previous));
                previous = std::mem::replace(&mut slot, entry.next);
            }
            assert_eq!(slot, Slot::NONE);
        }
    }
}

impl Announcement {
    fn key(&self) -> Key {
        Key {
            address: self.address,
            next_hop: self.next_hop,
            length: self.length,
            is_ipv6: self.is_ipv6,
        }
    }

    /// Whom the log marks the route with.
    fn announcer(&self) -> PeerId {
        match self.sibling {
            Slot::NONE => self.peer,
            _ => PeerId::NOBODY,
        }
    }
}
