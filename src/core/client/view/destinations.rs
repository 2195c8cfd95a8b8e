//! The destinations of a VNI: a hash table that can be walked in steps while it changes.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::hops::Hops;
use crate::core::types::Destination;

/// Next hops by destination.
#[derive(Debug)]
pub(super) struct Destinations {
    table: HashTable<(Destination, Hops)>,
    hasher: FixedState,
    /// The destinations with host bits, each behind its network. There are few of them.
    with_host_bits: BTreeSet<(Destination, Destination)>,
    /// How often entries may have moved to other buckets.
    moves: u32,
}

/// How far a walk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core::client) struct Place {
    bucket: usize,
    moves: u32,
}

impl Destinations {
    /// An empty table; `seed` keeps peers from choosing colliding destinations.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            with_host_bits: BTreeSet::new(),
            moves: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn get(&self, destination: &Destination) -> Option<&Hops> {
        let hash = self.hasher.hash_one(destination);
        let found = self.table.find(hash, |(it, _)| it == destination);
        found.map(|(_, hops)| hops)
    }

    pub(super) fn get_mut(&mut self, destination: &Destination) -> Option<&mut Hops> {
        let hash = self.hasher.hash_one(destination);
        let found = self.table.find_mut(hash, |(it, _)| it == destination);
        found.map(|(_, hops)| hops)
    }

    /// Adds a destination that is not there.
    pub(super) fn insert(&mut self, destination: Destination, hops: Hops) {
        // Only then is the table grown or cleaned up.
        if self.table.len() == self.table.capacity() {
            self.moves = self.moves.wrapping_add(1);
        }
        let network = destination.network();
        if network != destination {
            self.with_host_bits.insert((network, destination));
        }
        let hasher = &self.hasher;
        let hash = hasher.hash_one(destination);
        self.table
            .insert_unique(hash, (destination, hops), |(it, _)| hasher.hash_one(it));
    }

    pub(super) fn remove(&mut self, destination: &Destination) {
        let hash = self.hasher.hash_one(destination);
        if let Ok(entry) = self.table.find_entry(hash, |(it, _)| it == destination) {
            entry.remove();
            forget_host_bits(&mut self.with_host_bits, destination);
        }
    }

    /// Returns the destinations of a network: the network itself, and those that differ from it
    /// by host bits only.
    pub(super) fn of_network(&self, network: Destination) -> Vec<Destination> {
        let itself = self.get(&network).map(|_| network);
        let others = self.with_host_bits.range((network, network)..);
        let others = others.take_while(|(of, _)| *of == network);
        itself
            .into_iter()
            .chain(others.map(|(_, destination)| *destination))
            .collect()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Destination, &mut Hops) -> bool) {
        let with_host_bits = &mut self.with_host_bits;
        self.table.retain(|(destination, hops)| {
            let is_kept = keep(destination, hops);
            if !is_kept {
                forget_host_bits(with_host_bits, destination);
            }
            is_kept
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Destination, &Hops)> {
        self.table
            .iter()
            .map(|(destination, hops)| (destination, hops))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Destination, &mut Hops)> {
        self.table
            .iter_mut()
            .map(|(destination, hops)| (&*destination, hops))
    }

    /// Visits the entries of at most `budget` buckets; where to go on, if anywhere.
    ///
    /// A walk that finds entries moved begins anew, and so meets some a second time; what is
    /// there all the time is met.
    pub(super) fn step(
        &self,
        from: Place,
        budget: usize,
        mut each: impl FnMut(&Destination, &Hops),
    ) -> Option<Place> {
        let start = if from.moves == self.moves {
            from.bucket
        } else {
            0
        };
        let buckets = self.table.num_buckets();
        let end = buckets.min(start.saturating_add(budget));
        for bucket in start..end {
            if let Some((destination, hops)) = self.table.get_bucket(bucket) {
                each(destination, hops);
            }
        }
        (end < buckets).then_some(Place {
            bucket: end,
            moves: self.moves,
        })
    }
}

fn forget_host_bits(all: &mut BTreeSet<(Destination, Destination)>, destination: &Destination) {
    if !all.is_empty() {
        all.remove(&(destination.network(), *destination));
    }
}
