//! Finds announcements where there are too many to look through.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::{Announcement, EntryRole, Slot, look};
use crate::core::arena::Arena;
use crate::core::parted::Parted;
use crate::core::rib::PeerId;

/// A peer and its announcements.
#[derive(Debug)]
pub(super) struct Announcer {
    pub(super) peer: PeerId,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// Where announcements are found.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The first ones, by route.
    pub(super) first: Parted<u32>,
    /// The further ones, by route and announcer.
    pub(super) further: Parted<u32>,
    /// By peer.
    pub(super) announcers: HashTable<Announcer>,
}

/// How an announcement is found that is the first one of its route.
fn first_hash(slots: &Arena<Announcement>, hasher: &FixedState, slot: u32) -> u64 {
    hasher.hash_one(slots[slot].key())
}

/// How a further one is found.
fn further_hash(slots: &Arena<Announcement>, hasher: &FixedState, slot: u32) -> u64 {
    let entry = &slots[slot];
    hasher.hash_one((&entry.key(), entry.peer))
}

impl Index {
    /// Adds the announcement at a slot, the first one of a route with this hash, without its
    /// announcer.
    pub(super) fn insert_first(
        &mut self,
        slots: &Arena<Announcement>,
        hasher: &FixedState,
        slot: u32,
        hash: u64,
    ) {
        let hash_of = |slot: &u32| first_hash(slots, hasher, *slot);
        self.first.insert_unique(hash, slot, hash_of);
    }

    /// Adds the announcement at a slot, without its announcer.
    pub(super) fn insert(&mut self, slots: &Arena<Announcement>, hasher: &FixedState, slot: u32) {
        let first = |slot: &u32| first_hash(slots, hasher, *slot);
        let further = |slot: &u32| further_hash(slots, hasher, *slot);
        match slots[slot].role {
            EntryRole::First => self.insert_first(slots, hasher, slot, first(&slot)),
            EntryRole::Further => self.further.insert_unique(further(&slot), slot, further),
            EntryRole::Free => {}
        }
    }

    /// Removes the announcement at a slot, the first one of a route with this hash, without its
    /// announcer.
    pub(super) fn remove_first(
        &mut self,
        slots: &Arena<Announcement>,
        hasher: &FixedState,
        slot: u32,
        hash: u64,
    ) {
        let hash_of = |slot: &u32| first_hash(slots, hasher, *slot);
        let is_it = |it: &u32| look(|| *it == slot);
        let removed = self.first.remove(hash, is_it, hash_of);
        debug_assert!(removed.is_some(), "what is stored is indexed");
    }

    /// Removes the announcement at a slot, without its announcer.
    pub(super) fn remove(&mut self, slots: &Arena<Announcement>, hasher: &FixedState, slot: u32) {
        let further = |slot: &u32| further_hash(slots, hasher, *slot);
        match slots[slot].role {
            EntryRole::First => {
                let hash = first_hash(slots, hasher, slot);
                self.remove_first(slots, hasher, slot, hash);
            }
            EntryRole::Further => {
                let is_it = |it: &u32| look(|| *it == slot);
                let removed = self.further.remove(further(&slot), is_it, further);
                debug_assert!(removed.is_some(), "what is stored is indexed");
            }
            EntryRole::Free => {}
        }
    }

    /// Finds the announcement at `from` at `to` from now on, where it stands as well.
    pub(super) fn renumber(
        &mut self,
        slots: &Arena<Announcement>,
        hasher: &FixedState,
        from: u32,
        to: u32,
    ) {
        let is_it = |it: &u32| *it == from;
        let number = match slots[from].role {
            EntryRole::First => self.first.find_mut(first_hash(slots, hasher, from), is_it),
            EntryRole::Further => self
                .further
                .find_mut(further_hash(slots, hasher, from), is_it),
            EntryRole::Free => None,
        };
        if let Some(number) = number {
            *number = to;
        }
    }

    /// Returns the bytes that it has allocated, with itself.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.first.heap_bytes()
            + self.further.heap_bytes()
            + self.announcers.allocation_size()
    }

    /// How many bytes more it may take for one more route.
    pub(super) fn growth(&self) -> usize {
        self.first.growth() + self.further.growth()
    }

    /// The announcer of a peer, if it announces something.
    pub(super) fn announcer(&self, hasher: &FixedState, peer: PeerId) -> Option<&Announcer> {
        self.announcers
            .find(hasher.hash_one(peer), |it| look(|| it.peer == peer))
    }

    /// The announcer of a peer, which may be a new one.
    pub(super) fn announcer_mut(&mut self, hasher: &FixedState, peer: PeerId) -> &mut Announcer {
        let entry = self.announcers.entry(
            hasher.hash_one(peer),
            |it| look(|| it.peer == peer),
            |it| hasher.hash_one(it.peer),
        );
        let new = || Announcer {
            peer,
            first: Slot::NONE,
            count: 0,
        };
        entry.or_insert_with(new).into_mut()
    }
}
