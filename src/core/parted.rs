//! A hash table of numbers, in parts: none is so large that its growth would hold up a turn.
//!
//! Linear hashing: when the parts are full on average, the next one in line is split in two; when
//! they are nearly empty, the last one joins its other half again. What is known of a hash stands
//! beside the number, so that nothing else is looked at then.

use hashbrown::HashTable;

/// Entries of a part on average, at most. One that is not split yet has up to twice as many and
/// still fits 8,192 buckets.
const AVERAGE: usize = 3328;

/// Room for entries in 8,192 buckets.
const ROOM: usize = 7168;

/// Entries of a part on average, at least, if there are several.
const LEAST: usize = AVERAGE / 16;

/// A part with more room gives back what it does not need.
const SMALL: usize = 64;

/// Numbers that are found by the hash of what they stand for.
#[derive(Debug, Default)]
pub(crate) struct Parted {
    parts: Vec<HashTable<Entry>>,
    /// One less than the least power of two that is not below the number of parts.
    mask: usize,
    len: usize,
    /// Allocated by the parts.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    hash: Hash,
    number: u32,
}

/// Half of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hash(u32);

impl Hash {
    const fn of(whole: u64) -> Self {
        Self((whole >> 32) as u32)
    }

    /// A whole one again, as the tables want it.
    const fn spread(self) -> u64 {
        (self.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The part where it belongs, of so many.
    #[inline]
    const fn part(self, parts: usize, mask: usize) -> usize {
        // The tables use the lowest and the highest bits.
        let part = (self.spread() >> 24) as usize & mask;
        if part < parts {
            part
        } else {
            part & (mask >> 1)
        }
    }
}

fn spread(entry: &Entry) -> u64 {
    entry.hash.spread()
}

impl Parted {
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn part_mut(&mut self, hash: Hash) -> Option<&mut HashTable<Entry>> {
        let part = hash.part(self.parts.len(), self.mask);
        self.parts.get_mut(part)
    }

    /// Finds the number with this hash for which `is_it` is true.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = Hash::of(hash);
        let part = self.parts.get(hash.part(self.parts.len(), self.mask))?;
        let found = part.find(hash.spread(), |it| it.hash == hash && is_it(it.number));
        found.map(|it| it.number)
    }

    /// Has the number that stands for something be another one.
    pub(crate) fn renumber(&mut self, hash: u64, from: u32, to: u32) {
        let hash = Hash::of(hash);
        let part = self.part_mut(hash);
        let found = part.and_then(|it| it.find_mut(hash.spread(), |it| it.number == from));
        if let Some(entry) = found {
            entry.number = to;
        }
    }

    /// Adds a number that is not there.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        if self.len == self.parts.len() * AVERAGE {
            self.split();
        }
        self.len += 1;
        let hash = Hash::of(hash);
        let entry = Entry { hash, number };
        let part = hash.part(self.parts.len(), self.mask);
        let table = &mut self.parts[part];
        if table.len() < table.capacity() {
            table.insert_unique(hash.spread(), entry, spread);
            return;
        }
        let before = table.allocation_size();
        table.insert_unique(hash.spread(), entry, spread);
        let after = table.allocation_size();
        self.bytes = self.bytes - before + after;
    }

    /// Removes a number. Returns whether it was there.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> bool {
        let hash = Hash::of(hash);
        let Some(table) = self.part_mut(hash) else {
            return false;
        };
        let found = table.find_entry(hash.spread(), |it| is_it(it.number));
        let Ok(found) = found else {
            return false;
        };
        found.remove();
        let is_sparse = table.capacity() > SMALL && table.len() * 8 < table.capacity();
        self.len -= 1;
        if is_sparse {
            self.shrink(hash);
        }
        if self.parts.len() > 1 && self.len < self.parts.len() * LEAST {
            self.join();
        }
        true
    }

    fn shrink(&mut self, hash: Hash) {
        let part = hash.part(self.parts.len(), self.mask);
        let table = &mut self.parts[part];
        let before = table.allocation_size();
        table.shrink_to(table.len() * 2, spread);
        let after = table.allocation_size();
        self.bytes = self.bytes - before + after;
    }

    /// The part that part number `new` is split off from.
    fn origin(new: usize) -> usize {
        new - (1 << new.ilog2())
    }

    fn split(&mut self) {
        let new = self.parts.len();
        if new == 0 {
            self.parts.reserve_exact(1);
            self.parts.push(HashTable::new());
            return;
        }
        self.mask = (new + 1).next_power_of_two() - 1;
        let whole = std::mem::take(&mut self.parts[Self::origin(new)]);
        self.bytes -= whole.allocation_size();
        let mut halves = [0; 2].map(|_| HashTable::with_capacity(ROOM));
        for entry in whole {
            let half = usize::from(entry.hash.part(new + 1, self.mask) == new);
            halves[half].insert_unique(entry.hash.spread(), entry, spread);
        }
        let [stays, goes] = halves;
        self.bytes += stays.allocation_size() + goes.allocation_size();
        self.parts[Self::origin(new)] = stays;
        self.parts.push(goes);
    }

    fn join(&mut self) {
        let Some(last) = self.parts.pop() else {
            return;
        };
        let parts = self.parts.len();
        self.mask = parts.next_power_of_two() - 1;
        let origin = &mut self.parts[Self::origin(parts)];
        let before = origin.allocation_size() + last.allocation_size();
        origin.reserve(last.len(), spread);
        for entry in last {
            origin.insert_unique(entry.hash.spread(), entry, spread);
        }
        let after = origin.allocation_size();
        self.bytes = self.bytes - before + after;
        if parts * 4 < self.parts.capacity() {
            self.parts.shrink_to(parts * 2);
        }
    }

    /// Returns the bytes that it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes + self.parts.capacity() * size_of::<HashTable<Entry>>()
    }

    /// How many bytes more it may take for one more number; of many parts, on average.
    pub(crate) fn growth(&self) -> usize {
        match &self.parts[..] {
            [] => size_of::<HashTable<Entry>>(),
            [one] if one.len() < one.capacity() => 0,
            [one] => one.allocation_size(),
            _ => 3 * (size_of::<Entry>() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::quality::FixedState;

    use super::*;

    fn hash(number: u32) -> u64 {
        FixedState::with_seed(1).hash_one(number)
    }

    #[test]
    fn numbers_are_found_while_parts_come_and_go() {
        const COUNT: u32 = 100_000;
        let mut table = Parted::default();
        let allocated = |table: &Parted| {
            let parts = table.parts.iter().map(HashTable::allocation_size);
            parts.sum::<usize>()
        };
        let find = |table: &Parted, it| table.find(hash(it), |found| found == it);
        for it in 0..COUNT {
            table.insert(hash(it), it);
            assert_eq!(find(&table, it / 2), Some(it / 2));
        }
        assert_eq!(table.bytes, allocated(&table));
        let sizes = table.parts.iter().map(HashTable::len);
        let most = sizes.max();
        assert!(most <= Some(ROOM), "no part has more than 8,192 buckets");
        assert_eq!(table.parts.len(), COUNT as usize / AVERAGE + 1);
        assert_eq!(find(&table, COUNT), None);
        table.renumber(hash(7), 7, COUNT);
        assert_eq!(table.find(hash(7), |found| found == COUNT), Some(COUNT));
        table.renumber(hash(7), COUNT, 7);
        for it in 0..COUNT {
            assert!(table.remove(hash(it), |found| found == it));
            assert!(!table.remove(hash(it), |found| found == it));
            let any = it + (COUNT - it) / 2;
            let is_there = any > it && any < COUNT;
            assert_eq!(find(&table, any), is_there.then_some(any));
        }
        assert_eq!((table.len(), table.parts.len()), (0, 1));
        assert_eq!(table.bytes, allocated(&table));
        assert!(table.heap_bytes() < 1500, "{}", table.heap_bytes());
    }
}
