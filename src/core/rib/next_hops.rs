//! Next hops, each stored once: a fabric has thousands of hypervisors and millions of routes.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::core::types::NextHop;

/// Stands for a next hop as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NextHopId(u32);

/// All next hops in use, counted.
#[derive(Debug)]
pub(crate) struct NextHops {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Slot {
    next_hop: NextHop,
    holders: u32,
}

impl NextHops {
    /// `seed` keeps peers from choosing colliding addresses.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// The next hop itself.
    pub(crate) fn resolve(&self, id: NextHopId) -> NextHop {
        self.slots[id.0 as usize].next_hop
    }

    /// Its id, if somebody holds it.
    pub(crate) fn find(&self, next_hop: &NextHop) -> Option<NextHopId> {
        self.index
            .find(self.hasher.hash_one(next_hop), |&slot| {
                self.slots[slot as usize].next_hop == *next_hop
            })
            .map(|&slot| NextHopId(slot))
    }

    /// Its id; counts one more holder.
    pub(crate) fn hold(&mut self, next_hop: &NextHop) -> NextHopId {
        let entry = self.index.entry(
            self.hasher.hash_one(next_hop),
            |&slot| self.slots[slot as usize].next_hop == *next_hop,
            |&slot| self.hasher.hash_one(self.slots[slot as usize].next_hop),
        );
        match entry {
            Entry::Occupied(entry) => {
                let slot = *entry.get();
                self.slots[slot as usize].holders += 1;
                NextHopId(slot)
            }
            Entry::Vacant(entry) => {
                let new = Slot {
                    next_hop: *next_hop,
                    holders: 1,
                };
                let slot = match self.free.pop() {
                    Some(slot) => {
                        self.slots[slot as usize] = new;
                        slot
                    }
                    None => {
                        self.slots.push(new);
                        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 next hops")
                    }
                };
                entry.insert(slot);
                NextHopId(slot)
            }
        }
    }

    /// Counts one holder less; the last one frees the id.
    pub(crate) fn release(&mut self, id: NextHopId) {
        let slot = &mut self.slots[id.0 as usize];
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let hash = self.hasher.hash_one(slot.next_hop);
        if let Ok(entry) = self.index.find_entry(hash, |&slot| slot == id.0) {
            entry.remove();
        }
        self.free.push(id.0);
    }

    /// Returns the bytes that they have allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.free.capacity() * size_of::<u32>()
            + self.index.allocation_size()
    }

    /// How many distinct next hops are held.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}
