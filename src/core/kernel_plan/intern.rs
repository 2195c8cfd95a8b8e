//! Values that many routes share, kept once and named by a small number.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;

/// The number no value has.
pub(super) const NONE: u32 = 0;

/// Makes the hasher of one table; equal seeds hash alike.
pub(super) fn hasher(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed())
}

/// A counted store of distinct values `K`, each with side data `A`.
///
/// Numbers start at 1 and are used again after the last reference is released.
pub(super) struct Interner<K, A> {
    slots: Vec<Slot<K, A>>,
    index: HashTable<u32>,
    free: Vec<u32>,
    hasher: SeedableRandomState,
}

struct Slot<K, A> {
    value: Option<(K, A)>,
    refs: u32,
}

/// The position of a number in the slots.
const fn at(id: u32) -> usize {
    id as usize - 1
}

impl<K: Hash + Eq, A> Interner<K, A> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            free: Vec::new(),
            hasher: hasher(seed),
        }
    }

    /// The number of `key`, or [`NONE`]; takes no reference.
    pub(super) fn find<Q>(&self, key: &Q) -> u32
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        self.index
            .find(hash, |&id| self.key(id).borrow() == key)
            .copied()
            .unwrap_or(NONE)
    }

    /// Takes one more reference to a number.
    pub(super) fn retain(&mut self, id: u32) {
        self.slots[at(id)].refs += 1;
    }

    /// Stores a key that [`Self::find`] does not find, with one reference.
    pub(super) fn insert(&mut self, key: K, aux: A) -> u32 {
        debug_assert_eq!(self.find(&key), NONE);
        let hash = self.hasher.hash_one(&key);
        let slot = Slot {
            value: Some((key, aux)),
            refs: 1,
        };
        let id = if let Some(id) = self.free.pop() {
            self.slots[at(id)] = slot;
            id
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len()).expect("memory ends before the numbers do")
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index
            .insert_unique(hash, id, |&id| hasher.hash_one(key_of(slots, id)));
        id
    }

    /// Returns a reference; the value itself when that was the last one.
    pub(super) fn release(&mut self, id: u32) -> Option<(K, A)> {
        let slot = &mut self.slots[at(id)];
        debug_assert!(slot.refs > 0, "released more often than taken");
        slot.refs -= 1;
        if slot.refs > 0 {
            return None;
        }
        let hash = self.hasher.hash_one(self.key(id));
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.free.push(id);
        self.slots[at(id)].value.take()
    }

    /// The key of a number in use.
    pub(super) fn key(&self, id: u32) -> &K {
        key_of(&self.slots, id)
    }

    /// The side data of a number in use.
    pub(super) fn aux(&self, id: u32) -> &A {
        &self.value(id).1
    }

    /// The side data of a number in use.
    pub(super) fn aux_mut(&mut self, id: u32) -> &mut A {
        let value = self.slots[at(id)].value.as_mut();
        &mut value.expect("the number is in use").1
    }

    /// Whether the number is in use.
    pub(super) fn contains(&self, id: u32) -> bool {
        id != NONE
            && self
                .slots
                .get(at(id))
                .is_some_and(|slot| slot.value.is_some())
    }

    /// How many values are stored.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The numbers in use, ascending.
    pub(super) fn ids(&self) -> Vec<u32> {
        (1..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(id, _)| id)
            .collect()
    }

    fn value(&self, id: u32) -> &(K, A) {
        let value = self.slots[at(id)].value.as_ref();
        value.expect("the number is in use")
    }
}

fn key_of<K, A>(slots: &[Slot<K, A>], id: u32) -> &K {
    let value = slots[at(id)].value.as_ref();
    &value.expect("the number is in use").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_hash_alike_and_others_do_not() {
        let hash = |seed| hasher(seed).hash_one("10.0.0.0/24");
        assert_eq!(hash(7), hash(7));
        assert_ne!(hash(7), hash(8));
    }

    #[test]
    fn value_lives_as_long_as_its_references() {
        let mut interner: Interner<Box<[u32]>, u8> = Interner::new(7);
        let a = interner.insert(Box::new([1, 2]), 10);
        let b = interner.insert(Box::new([3]), 20);
        assert_eq!(interner.find([1, 2].as_slice()), a);
        interner.retain(a);
        assert!(interner.release(a).is_none());
        assert_eq!(interner.release(a), Some((Box::from([1, 2]), 10)));
        assert_eq!(interner.find([1, 2].as_slice()), NONE);
        assert_eq!(*interner.aux(b), 20);
        assert_eq!(interner.insert(Box::new([4]), 30), a);
        assert_eq!(interner.len(), 2);
    }
}
