//! Who announces which route of a VNI; 40 bytes for each announcement.
//!
//! ```text
//! index: route -> slot of its first announcement (fixed for the life of the route)
//!        route and announcer -> slot of a further announcement of the same route
//! first announcement --sibling--> one of the further ones, which are a ring
//! announcer --> its announcements, doubly linked
//! ```
//!
//! However many announce a route, a change of it costs the same. A few announcements are looked
//! through; there is no index.

#[cfg(any(test, feature = "internals"))]
mod check;
mod index;
#[cfg(test)]
pub(super) mod looks;
mod read;
mod shrink;

use std::hash::Hash;
use std::net::IpAddr;

use foldhash::quality::FixedState;
use ipnet::IpNet;

use super::PeerId;
use super::next_hops::{NextHopId, NextHops};
use super::segment::Mark;
use crate::core::arena::{Arena, Item};
use crate::core::types::{Destination, Route};
use index::Index;
pub(super) use read::{Holders, State};

/// Where a route's first announcement is stored, from its first to its last announcer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    /// The lowest.
    pub(crate) const FIRST: Self = Self(0);
    /// Above all that are in use.
    pub(crate) const END: Self = Self(Self::NONE);
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
    /// Of the first announcement, a further one; of a further one, the next of their ring.
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
    /// Nothing; `next` is the next free slot of its chunk.
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

/// Looks at an announcement; tests count how often.
fn look<T>(look: impl FnOnce() -> T) -> T {
    #[cfg(test)]
    looks::count();
    look()
}

/// With at most so many slots there is no index.
const SMALL: usize = 16;

/// All announcements of a VNI.
#[derive(Debug)]
pub(crate) struct Routes {
    slots: Arena<Announcement>,
    /// `None` as long as there are few slots.
    index: Option<Box<Index>>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            slots: Arena::default(),
            index: None,
        }
    }

    /// Returns the bytes that it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |it| it.heap_bytes());
        self.slots.heap_bytes() + index
    }

    /// How many bytes more it may take for one more route: a table grows by leaps.
    pub(crate) fn growth(&self) -> usize {
        let index = self.index.as_ref().map_or(0, |it| it.growth());
        self.slots.growth() + index
    }

    pub(crate) fn announced_by(&self, peer: PeerId) -> usize {
        match &self.index {
            Some(index) => {
                let announcer = index.announcer(peer);
                announcer.map_or(0, |it| it.count as usize)
            }
            None => {
                let is_of_peer = |it: &&Announcement| it.role != EntryRole::Free && it.peer == peer;
                self.slots.iter().filter(|it| is_of_peer(&it.1)).count()
            }
        }
    }

    pub(crate) fn announce(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
        route: &Route,
    ) -> (Slot, Effect) {
        if self.index.is_none() && self.slots.len() == SMALL {
            self.build_index(hops.hasher());
        }
        let next_hop = hops.hold(&route.next_hop);
        let key = Key::new(&route.destination, next_hop);
        let hash = self.hash(&key);
        let Some(first) = self.find_hashed(&key, hash) else {
            let slot = self.store(key, EntryRole::First, peer);
            if let Some(index) = &mut self.index {
                index.first.insert(hash, slot);
            }
            return (Slot(slot), Effect::AllBut);
        };
        if self.announcement_of(first, &key, peer).is_some() {
            hops.release(next_hop);
            return (Slot(first), Effect::Nothing);
        }
        let slot = self.store(key, EntryRole::Further, peer);
        self.reindex(slot);
        let alone = self.slots[first];
        if alone.sibling == Slot::NONE {
            self.slots[slot].sibling = slot;
            self.slots[first].sibling = slot;
            return (Slot(first), Effect::Only(alone.peer));
        }
        let ring = &mut self.slots[alone.sibling];
        let next = std::mem::replace(&mut ring.sibling, slot);
        self.slots[slot].sibling = next;
        (Slot(first), Effect::Nothing)
    }

    pub(crate) fn withdraw(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
        route: &Route,
    ) -> (Slot, Effect) {
        let nothing = (Slot::FIRST, Effect::Nothing);
        let Some(next_hop) = hops.find(&route.next_hop) else {
            return nothing;
        };
        let key = Key::new(&route.destination, next_hop);
        let hash = self.hash(&key);
        let first = self.find_hashed(&key, hash);
        match first.and_then(|first| self.announcement_of(first, &key, peer)) {
            Some(slot) => self.remove(hops, slot, hash),
            None => nothing,
        }
    }

    /// Withdraws some route of `peer`, if it has one left.
    pub(crate) fn withdraw_any(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
    ) -> Option<(Route, Slot, Effect)> {
        let slot = self.head(peer);
        if slot == Slot::NONE {
            return None;
        }
        let key = self.slots[slot].key();
        let route = key.route(hops);
        let (slot, effect) = self.remove(hops, slot, self.hash(&key));
        Some((route, slot, effect))
    }

    /// The first announcement of a peer's list.
    fn head(&self, peer: PeerId) -> u32 {
        match &self.index {
            Some(index) => {
                let announcer = index.announcer(peer);
                announcer.map_or(Slot::NONE, |it| it.first)
            }
            None => {
                let is_head = |it: &Announcement| {
                    it.role != EntryRole::Free && it.peer == peer && it.previous == Slot::NONE
                };
                self.position(is_head).unwrap_or(Slot::NONE)
            }
        }
    }

    /// Looks through the slots.
    fn position(&self, is_it: impl Fn(&Announcement) -> bool) -> Option<u32> {
        let mut slots = self.slots.iter();
        slots
            .find(|(_, it)| look(|| is_it(it)))
            .map(|(slot, _)| slot)
    }

    /// The hash of a route; of no meaning as long as there is no index.
    fn hash(&self, key: &Key) -> u64 {
        self.index.as_ref().map_or(0, |it| it.hash(key))
    }

    fn find(&self, key: &Key) -> Option<u32> {
        self.find_hashed(key, self.hash(key))
    }

    fn find_hashed(&self, key: &Key, hash: u64) -> Option<u32> {
        let Some(index) = &self.index else {
            return self.position(|it| it.role == EntryRole::First && it.key() == *key);
        };
        let is_it = |slot| look(|| self.slots[slot].key() == *key);
        index.first.find(hash, is_it)
    }

    /// All announcements of the route whose first is at `first`.
    fn chain(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let ring = self.slots[first].sibling;
        let begin = (ring != Slot::NONE).then_some(ring);
        let further = std::iter::successors(begin, move |&slot| {
            let next = self.slots[slot].sibling;
            look(|| (next != ring).then_some(next))
        });
        std::iter::once(first).chain(further)
    }

    /// The announcement of a route by `peer`; the route's first is at `first`.
    fn announcement_of(&self, first: u32, key: &Key, peer: PeerId) -> Option<u32> {
        let entry = &self.slots[first];
        if entry.peer == peer {
            return Some(first);
        }
        if entry.sibling == Slot::NONE {
            return None;
        }
        let is_it = |slot| {
            let entry = &self.slots[slot];
            look(|| entry.peer == peer && entry.key() == *key)
        };
        let Some(index) = &self.index else {
            return self.chain(first).find(|it| is_it(*it));
        };
        index.find_further(key, peer, is_it)
    }

    /// Stores an announcement at the head of its announcer's list. The index is not told.
    fn store(&mut self, key: Key, role: EntryRole, peer: PeerId) -> u32 {
        let unlisted = self.index.is_none().then(|| self.head(peer));
        let index = &mut self.index;
        let mut next = Slot::NONE;
        let slot = self.slots.insert(|slot| {
            next = match (index, unlisted) {
                (Some(index), _) => {
                    let announcer = index.announcer_mut(peer);
                    announcer.count += 1;
                    std::mem::replace(&mut announcer.first, slot)
                }
                (None, head) => head.unwrap_or(Slot::NONE),
            };
            Announcement {
                address: key.address,
                next_hop: key.next_hop,
                peer,
                previous: Slot::NONE,
                next,
                sibling: Slot::NONE,
                length: key.length,
                is_ipv6: key.is_ipv6,
                role,
            }
        });
        if next != Slot::NONE {
            self.slots[next].previous = slot;
        }
        slot
    }

    fn build_index(&mut self, hasher: &FixedState) {
        let mut index = Box::new(Index::new(hasher));
        for (slot, entry) in self.slots.iter() {
            if entry.role != EntryRole::Free {
                index.insert(entry, slot);
                let announcer = index.announcer_mut(entry.peer);
                announcer.count += 1;
                if entry.previous == Slot::NONE {
                    announcer.first = slot;
                }
            }
        }
        self.index = Some(index);
    }

    fn unindex_further(&mut self, slot: u32) {
        if let Some(index) = &mut self.index {
            index.remove_further(&self.slots[slot], slot);
        }
    }

    fn reindex(&mut self, slot: u32) {
        if let Some(index) = &mut self.index {
            index.insert(&self.slots[slot], slot);
        }
    }

    /// Removes an announcement of a route with such a hash; the route's slot and who must hear.
    fn remove(&mut self, hops: &mut NextHops, slot: u32, hash: u64) -> (Slot, Effect) {
        let entry = self.slots[slot];
        self.unlink(&entry);
        hops.release(entry.next_hop);
        let (first, freed) = match (entry.role, entry.sibling) {
            (EntryRole::First, Slot::NONE) => {
                if let Some(index) = &mut self.index {
                    index.remove_first(slot, hash);
                }
                self.slots.remove(slot);
                return (Slot(slot), Effect::AllBut);
            }
            // The route keeps its slot: a further announcement moves into it.
            (EntryRole::First, ring) => (slot, self.promote(ring, slot)),
            _ => {
                let first = self.find_hashed(&entry.key(), hash);
                let first = first.expect("a stored route is indexed");
                (first, self.leave_ring(first, slot))
            }
        };
        self.slots.remove(freed);
        let left = &self.slots[first];
        let effect = match left.sibling {
            Slot::NONE => Effect::Only(left.peer),
            _ => Effect::Nothing,
        };
        (Slot(first), effect)
    }

    /// Moves one of the further announcements to `first`. Returns the slot that is free then.
    fn promote(&mut self, ring: u32, first: u32) -> u32 {
        let moved = self.slots[ring].sibling;
        self.unindex_further(moved);
        let after = self.slots[moved].sibling;
        self.relocate(moved, first);
        let rest = match moved == ring {
            true => Slot::NONE,
            false => {
                self.slots[ring].sibling = after;
                ring
            }
        };
        let entry = &mut self.slots[first];
        entry.role = EntryRole::First;
        entry.sibling = rest;
        moved
    }

    /// Takes a further announcement out of its ring. Returns the slot that is free then.
    ///
    /// Nobody knows the one before it, so that the one after it moves into its place.
    fn leave_ring(&mut self, first: u32, slot: u32) -> u32 {
        self.unindex_further(slot);
        let next = self.slots[slot].sibling;
        if next == slot {
            self.slots[first].sibling = Slot::NONE;
            return slot;
        }
        self.unindex_further(next);
        self.relocate(next, slot);
        self.reindex(slot);
        // In a ring of two the one that moved is its own next one.
        if self.slots[slot].sibling == next {
            self.slots[slot].sibling = slot;
        }
        if self.slots[first].sibling == next {
            self.slots[first].sibling = slot;
        }
        next
    }

    /// Takes an announcement out of its announcer's list.
    fn unlink(&mut self, entry: &Announcement) {
        if entry.next != Slot::NONE {
            self.slots[entry.next].previous = entry.previous;
        }
        if entry.previous != Slot::NONE {
            self.slots[entry.previous].next = entry.next;
        }
        if let Some(index) = &mut self.index {
            index.unlist(entry);
        }
    }

    /// Moves an announcement to `to`, whose own has left its announcer's list.
    fn relocate(&mut self, from: u32, to: u32) {
        let entry = self.slots[from];
        match (entry.previous, &mut self.index) {
            (Slot::NONE, Some(index)) => index.announcer_mut(entry.peer).first = to,
            (Slot::NONE, None) => {}
            (previous, _) => self.slots[previous].next = to,
        }
        if entry.next != Slot::NONE {
            self.slots[entry.next].previous = to;
        }
        self.slots[to] = entry;
    }
}

impl Item for Announcement {
    fn free(next: u32) -> Self {
        Self {
            address: [0; 16],
            next_hop: NextHopId::NONE,
            peer: PeerId::NOBODY,
            previous: Slot::NONE,
            next,
            sibling: Slot::NONE,
            length: 0,
            is_ipv6: false,
            role: EntryRole::Free,
        }
    }

    fn next_free(&self) -> Option<u32> {
        (self.role == EntryRole::Free).then_some(self.next)
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

    /// Who is told of the route, by the log's mark for its announcement.
    fn mark(&self) -> Mark {
        match self.sibling {
            Slot::NONE => Mark::AllBut(self.peer),
            _ => Mark::All,
        }
    }
}
