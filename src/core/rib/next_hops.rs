//! Next hops, each stored once: a fabric has thousands of hypervisors and millions of routes.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::core::arena::{Arena, Item};
use crate::core::parted::Parted;
use crate::core::types::NextHop;

/// Stands for a next hop as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NextHopId(u32);

impl NextHopId {
    /// Stands for none.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// All next hops in use, counted.
#[derive(Debug)]
pub(crate) struct NextHops {
    slots: Arena<Slot>,
    index: Parted,
    /// The one found last: who announces many routes says the same again and again.
    recent: u32,
    hasher: FixedState,
}

#[derive(Debug)]
enum Slot {
    Held { next_hop: NextHop, holders: u32 },
    Free { next: u32 },
}

impl Item for Slot {
    fn free(next: u32) -> Self {
        Self::Free { next }
    }

    fn next_free(&self) -> Option<u32> {
        match self {
            Self::Held { .. } => None,
            Self::Free { next } => Some(*next),
        }
    }
}

impl Slot {
    fn is(&self, wanted: &NextHop) -> bool {
        matches!(self, Self::Held { next_hop, .. } if next_hop == wanted)
    }
}

impl NextHops {
    /// `seed` keeps peers from choosing colliding addresses.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: Arena::default(),
            index: Parted::default(),
            recent: NextHopId::NONE.0,
            hasher: FixedState::with_seed(seed),
        }
    }

    /// How things are hashed that peers choose, so that none can choose colliding ones.
    pub(crate) fn hasher(&self) -> &FixedState {
        &self.hasher
    }

    /// The next hop itself.
    ///
    /// # Panics
    ///
    /// If nobody holds it.
    pub(crate) fn resolve(&self, id: NextHopId) -> NextHop {
        match &self.slots[id.0] {
            Slot::Held { next_hop, .. } => *next_hop,
            Slot::Free { .. } => unreachable!("what has an id is held"),
        }
    }

    /// Its id, if somebody holds it.
    pub(crate) fn find(&self, next_hop: &NextHop) -> Option<NextHopId> {
        if let Some(recent) = self.slots.get(self.recent)
            && recent.is(next_hop)
        {
            return Some(NextHopId(self.recent));
        }
        let hash = self.hasher.hash_one(next_hop);
        let found = self.index.find(hash, |it| self.slots[it].is(next_hop));
        found.map(NextHopId)
    }

    /// Its id; counts one more holder.
    pub(crate) fn hold(&mut self, next_hop: &NextHop) -> NextHopId {
        if let Some(id) = self.find(next_hop) {
            self.recent = id.0;
            if let Slot::Held { holders, .. } = &mut self.slots[id.0] {
                *holders += 1;
            }
            return id;
        }
        let slot = self.slots.insert(|_| Slot::Held {
            next_hop: *next_hop,
            holders: 1,
        });
        self.recent = slot;
        self.index.insert(self.hasher.hash_one(next_hop), slot);
        NextHopId(slot)
    }

    /// Counts one holder less; the last one frees the id.
    pub(crate) fn release(&mut self, id: NextHopId) {
        let next_hop = match &mut self.slots[id.0] {
            Slot::Held { next_hop, holders } => {
                *holders -= 1;
                if *holders > 0 {
                    return;
                }
                *next_hop
            }
            Slot::Free { .. } => unreachable!("who releases a next hop holds it"),
        };
        let hash = self.hasher.hash_one(next_hop);
        self.index.remove(hash, |it| it == id.0);
        self.slots.remove(id.0);
    }

    /// Returns the bytes that they have allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.heap_bytes() + self.index.heap_bytes()
    }

    /// How many distinct next hops are held.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}
