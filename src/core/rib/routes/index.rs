//! Finds announcements where there are too many to look through.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::{Announcement, EntryRole, Slot, look};
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
    pub(super) first: HashTable<u32>,
    /// The further ones, by route and announcer.
    pub(super) further: HashTable<u32>,
    /// By peer.
    pub(super) announcers: HashTable<Announcer>,
}

impl Index {
    /// Adds the announcement at a slot, without its announcer.
    pub(super) fn insert(&mut self, slots: &[Announcement], hasher: &FixedState, slot: u32) {
        let first_hash = |slot: u32| hasher.hash_one(slots[slot as usize].key());
        let further_hash = |slot: u32| {
            let entry = &slots[slot as usize];
            hasher.hash_one((&entry.key(), entry.peer))
        };
        match slots[slot as usize].role {
            EntryRole::First => {
                let hash = first_hash(slot);
                self.first.insert_unique(hash, slot, |&it| first_hash(it));
            }
            EntryRole::Further => {
                let hash = further_hash(slot);
                self.further
                    .insert_unique(hash, slot, |&it| further_hash(it));
            }
            EntryRole::Free => {}
        }
    }

    /// Returns the bytes that it has allocated, with itself.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + self.first.allocation_size()
            + self.further.allocation_size()
            + self.announcers.allocation_size()
    }

    /// How many bytes more it may take for one more route.
    pub(super) fn growth(&self) -> usize {
        let doubled = |is_full: bool, bytes: usize| if is_full { bytes } else { 0 };
        let (first, further) = (&self.first, &self.further);
        doubled(first.len() == first.capacity(), first.allocation_size())
            + doubled(
                further.len() == further.capacity(),
                further.allocation_size(),
            )
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

/// Removes a slot from a table.
pub(super) fn remove(table: &mut HashTable<u32>, hash: u64, slot: u32) {
    if let Ok(indexed) = table.find_entry(hash, |&it| look(|| it == slot)) {
        indexed.remove();
    }
}
