//! A hash table in parts: none is so large that its growth would hold up a turn.
//!
//! Linear hashing: when the parts are full on average, the next one in line is split in two; when
//! they are nearly empty, the last one joins its other half again.

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

/// A hash table of things that have their hash told, like a [`HashTable`].
#[derive(Debug)]
pub(crate) struct Parted<T> {
    parts: Vec<HashTable<T>>,
    /// One less than the least power of two that is not below the number of parts.
    mask: usize,
    len: usize,
    /// Allocated by the parts.
    bytes: usize,
}

impl<T> Default for Parted<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            mask: 0,
            len: 0,
            bytes: 0,
        }
    }
}

impl<T> Parted<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The part where a hash belongs, of so many.
    #[inline]
    fn part_of(hash: u64, parts: usize, mask: usize) -> usize {
        // The tables use the lowest and the highest bits.
        let part = (hash >> 24) as usize & mask;
        if part < parts {
            part
        } else {
            part & (mask >> 1)
        }
    }

    #[inline]
    fn part(&self, hash: u64) -> Option<&HashTable<T>> {
        self.parts
            .get(Self::part_of(hash, self.parts.len(), self.mask))
    }

    #[inline]
    fn part_mut(&mut self, hash: u64) -> Option<&mut HashTable<T>> {
        let part = Self::part_of(hash, self.parts.len(), self.mask);
        self.parts.get_mut(part)
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.part(hash)?.find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.part_mut(hash)?.find_mut(hash, is_it)
    }

    /// Adds an entry that is not there. `hash_of` tells the hash of any entry.
    pub(crate) fn insert_unique(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        if self.len == self.parts.len() * AVERAGE {
            self.split(&hash_of);
        }
        self.len += 1;
        let part = Self::part_of(hash, self.parts.len(), self.mask);
        let table = &mut self.parts[part];
        if table.len() < table.capacity() {
            table.insert_unique(hash, entry, hash_of);
            return;
        }
        let before = table.allocation_size();
        table.insert_unique(hash, entry, hash_of);
        let after = table.allocation_size();
        self.bytes = self.bytes - before + after;
    }

    /// Removes an entry, if it is there. `hash_of` tells the hash of any entry.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let table = self.part_mut(hash)?;
        let (entry, _) = table.find_entry(hash, is_it).ok()?.remove();
        if table.capacity() > SMALL && table.len() * 8 < table.capacity() {
            let before = table.allocation_size();
            table.shrink_to(table.len() * 2, &hash_of);
            let after = table.allocation_size();
            self.bytes = self.bytes - before + after;
        }
        self.len -= 1;
        if self.parts.len() > 1 && self.len < self.parts.len() * LEAST {
            self.join(hash_of);
        }
        Some(entry)
    }

    /// The part that part number `new` is split off from.
    fn origin(new: usize) -> usize {
        new - (1 << new.ilog2())
    }

    fn split(&mut self, hash_of: impl Fn(&T) -> u64) {
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
            let hash = hash_of(&entry);
            let half = usize::from(Self::part_of(hash, new + 1, self.mask) == new);
            halves[half].insert_unique(hash, entry, &hash_of);
        }
        let [stays, goes] = halves;
        self.bytes += stays.allocation_size() + goes.allocation_size();
        self.parts[Self::origin(new)] = stays;
        self.parts.push(goes);
    }

    fn join(&mut self, hash_of: impl Fn(&T) -> u64) {
        let Some(last) = self.parts.pop() else {
            return;
        };
        let parts = self.parts.len();
        self.mask = parts.next_power_of_two() - 1;
        let origin = &mut self.parts[Self::origin(parts)];
        let before = origin.allocation_size() + last.allocation_size();
        origin.reserve(last.len(), &hash_of);
        for entry in last {
            origin.insert_unique(hash_of(&entry), entry, &hash_of);
        }
        let after = origin.allocation_size();
        self.bytes = self.bytes - before + after;
        if parts * 4 < self.parts.capacity() {
            self.parts.shrink_to(parts * 2);
        }
    }

    /// Returns the bytes that it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes + self.parts.capacity() * size_of::<HashTable<T>>()
    }

    /// How many bytes more it may take for one more entry; of many parts, on average.
    pub(crate) fn growth(&self) -> usize {
        match &self.parts[..] {
            [] => size_of::<HashTable<T>>(),
            [one] if one.len() < one.capacity() => 0,
            [one] => one.allocation_size(),
            _ => 3 * (size_of::<T>() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::quality::FixedState;

    use super::*;

    fn hash(entry: &u32) -> u64 {
        FixedState::with_seed(1).hash_one(entry)
    }

    #[test]
    fn entries_are_found_while_parts_come_and_go() {
        const COUNT: u32 = 100_000;
        let mut table = Parted::default();
        let allocated = |table: &Parted<u32>| {
            let parts = table.parts.iter().map(HashTable::allocation_size);
            parts.sum::<usize>()
        };
        for it in 0..COUNT {
            table.insert_unique(hash(&it), it, hash);
            let any = it / 2;
            assert_eq!(table.find(hash(&any), |found| *found == any), Some(&any));
        }
        assert_eq!(table.bytes, allocated(&table));
        let sizes = table.parts.iter().map(HashTable::len);
        assert!(
            sizes.max() <= Some(ROOM),
            "no part has more than 8,192 buckets"
        );
        assert_eq!(table.parts.len(), COUNT as usize / AVERAGE + 1);
        assert_eq!(table.find(hash(&COUNT), |found| *found == COUNT), None);
        for it in 0..COUNT {
            assert_eq!(
                table.remove(hash(&it), |found| *found == it, hash),
                Some(it)
            );
            assert_eq!(table.remove(hash(&it), |found| *found == it, hash), None);
            let any = it + (COUNT - it) / 2;
            let found = table.find_mut(hash(&any), |found| *found == any);
            assert_eq!(found.copied(), (any > it && any < COUNT).then_some(any));
        }
        assert_eq!((table.len(), table.parts.len()), (0, 1));
        assert_eq!(table.bytes, allocated(&table));
        assert!(table.heap_bytes() < 2 * SMALL * 5, "{}", table.heap_bytes());
    }
}
