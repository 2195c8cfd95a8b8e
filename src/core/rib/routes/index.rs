//! Finds announcements where there are too many to look through.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::{Announcement, EntryRole, Key, Slot, look};
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
#[derive(Debug)]
pub(super) struct Index {
    hasher: FixedState,
    /// The first ones, by route.
    pub(super) first: Parted,
    /// The further ones, by route and announcer.
    pub(super) further: Parted,
    /// By peer.
    pub(super) announcers: HashTable<Announcer>,
}

impl Index {
    /// `hasher` keeps peers from choosing colliding routes.
    pub(super) fn new(hasher: &FixedState) -> Self {
        Self {
            hasher: hasher.clone(),
            first: Parted::default(),
            further: Parted::default(),
            announcers: HashTable::new(),
        }
    }

    /// The hash of a route.
    pub(super) fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// How a further announcement is found.
    fn further_hash(&self, key: &Key, peer: PeerId) -> u64 {
        self.hasher.hash_one((key, peer))
    }

    /// Finds a further announcement.
    pub(super) fn find_further(
        &self,
        key: &Key,
        peer: PeerId,
        is_it: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        self.further.find(self.further_hash(key, peer), is_it)
    }

    /// Adds the announcement at a slot, without its announcer.
    pub(super) fn insert(&mut self, entry: &Announcement, slot: u32) {
        match entry.role {
            EntryRole::First => self.first.insert(self.hash(&entry.key()), slot),
            EntryRole::Further => {
                let hash = self.further_hash(&entry.key(), entry.peer);
                self.further.insert(hash, slot);
            }
            EntryRole::Free => {}
        }
    }

    /// Removes the announcement at a slot, the first one of a route with this hash, without its
    /// announcer.
    pub(super) fn remove_first(&mut self, slot: u32, hash: u64) {
        let was_there = self.first.remove(hash, |it| look(|| it == slot));
        debug_assert!(was_there, "what is stored is indexed");
    }

    /// Removes a further announcement, without its announcer.
    pub(super) fn remove_further(&mut self, entry: &Announcement, slot: u32) {
        let hash = self.further_hash(&entry.key(), entry.peer);
        let was_there = self.further.remove(hash, |it| look(|| it == slot));
        debug_assert!(was_there, "what is stored is indexed");
    }

    /// Finds an announcement at `to` from now on.
    pub(super) fn renumber(&mut self, entry: &Announcement, from: u32, to: u32) {
        let key = entry.key();
        match entry.role {
            EntryRole::First => self.first.renumber(self.hash(&key), from, to),
            EntryRole::Further => {
                let hash = self.further_hash(&key, entry.peer);
                self.further.renumber(hash, from, to);
            }
            EntryRole::Free => {}
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

    /// Takes an announcement off its announcer's list, which it leads or not.
    pub(super) fn unlist(&mut self, entry: &Announcement) {
        let hash = self.hasher.hash_one(entry.peer);
        let listed = self.announcers.find_entry(hash, |it| it.peer == entry.peer);
        let Ok(mut listed) = listed else {
            unreachable!("an announcement has an announcer");
        };
        let announcer = listed.get_mut();
        announcer.count -= 1;
        if entry.previous == Slot::NONE {
            announcer.first = entry.next;
        }
        if announcer.count == 0 {
            listed.remove();
        }
    }

    /// The announcer of a peer, if it announces something.
    pub(super) fn announcer(&self, peer: PeerId) -> Option<&Announcer> {
        self.announcers
            .find(self.hasher.hash_one(peer), |it| look(|| it.peer == peer))
    }

    /// The announcer of a peer, which may be a new one.
    pub(super) fn announcer_mut(&mut self, peer: PeerId) -> &mut Announcer {
        let hasher = &self.hasher;
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
