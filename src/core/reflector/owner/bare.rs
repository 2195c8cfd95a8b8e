//! Who subscribes to VNIs without a table: a few bytes for each, there may be millions.

use crate::core::map::{Map, map};
use crate::core::slab::Slab;
use crate::core::types::Vni;

/// How many subscribers live on each shard.
#[derive(Clone, Copy, Debug)]
enum Count {
    One {
        shard: u16,
        count: u32,
    },
    /// On several shards; in the slab.
    Many(u32),
}

const _: () = assert!(size_of::<(Vni, Count)>() == 12);

/// The subscribers of VNIs without a table, counted.
#[derive(Debug)]
pub(super) struct Bare {
    shards: usize,
    of: Map<Vni, Count>,
    many: Slab<Box<[u32]>>,
}

impl Bare {
    pub(super) fn new(shards: usize, seed: u64) -> Self {
        Self {
            shards,
            of: map(seed),
            many: Slab::default(),
        }
    }

    /// How many VNIs have such subscribers.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Returns the bytes that it has allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        // A list on the heap for each that is in the slab.
        self.of.allocation_size() + self.many.heap_bytes() * (1 + self.shards / 4)
    }

    /// Counts one more subscriber that lives on `shard`.
    pub(super) fn add(&mut self, vni: Vni, shard: usize) {
        let mut counts = self.take(vni);
        if counts.is_empty() {
            counts = vec![0; self.shards].into_boxed_slice();
        }
        counts[shard] += 1;
        self.put(vni, counts);
    }

    /// Counts one less.
    pub(super) fn remove(&mut self, vni: Vni, shard: usize) {
        let mut counts = self.take(vni);
        if let Some(count) = counts.get_mut(shard) {
            *count -= 1;
        }
        self.put(vni, counts);
        if self.of.len() * 8 < self.of.capacity() {
            self.of.shrink_to(self.of.len() * 2);
        }
    }

    /// Takes the counts of a VNI by shard, for its table; empty if it has no subscriber.
    pub(super) fn take(&mut self, vni: Vni) -> Box<[u32]> {
        match self.of.remove(&vni) {
            None => Box::default(),
            Some(Count::Many(number)) => self.many.remove(number),
            Some(Count::One { shard, count }) => {
                let mut counts = vec![0; self.shards].into_boxed_slice();
                counts[usize::from(shard)] = count;
                counts
            }
        }
    }

    /// Puts back the counts of a VNI whose table is gone.
    pub(super) fn put(&mut self, vni: Vni, counts: Box<[u32]>) {
        let mut some = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let Some((shard, &count)) = some.next() else {
            return;
        };
        let count = match (u16::try_from(shard), some.next()) {
            (Ok(shard), None) => Count::One { shard, count },
            (Ok(_) | Err(_), _) => Count::Many(self.many.insert(counts)),
        };
        self.of.insert(vni, count);
    }

    /// Calls `each` with every VNI and its subscribers.
    pub(super) fn for_each(&self, mut each: impl FnMut(Vni, usize)) {
        for (&vni, count) in &self.of {
            let count = match *count {
                Count::One { count, .. } => count as usize,
                Count::Many(number) => {
                    let counts = self.many.get(number).into_iter().flatten();
                    counts.map(|it| *it as usize).sum()
                }
            };
            each(vni, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bare: &Bare) -> Vec<(Vni, usize)> {
        let mut all = Vec::new();
        bare.for_each(|vni, count| all.push((vni, count)));
        all.sort_unstable();
        all
    }

    #[test]
    fn subscribers_are_counted_by_shard() {
        let mut bare = Bare::new(3, 1);
        for shard in [0, 2, 2] {
            bare.add(Vni(1), shard);
        }
        bare.add(Vni(2), 1);
        assert_eq!(all(&bare), [(Vni(1), 3), (Vni(2), 1)]);
        assert_eq!(*bare.take(Vni(1)), [1, 0, 2]);
        assert_eq!(all(&bare), [(Vni(2), 1)]);
        bare.put(Vni(1), Box::new([1, 0, 2]));
        for shard in [2, 0, 2] {
            bare.remove(Vni(1), shard);
        }
        bare.remove(Vni(2), 1);
        assert_eq!(bare.len(), 0);
        assert!(bare.take(Vni(1)).is_empty());
    }
}
