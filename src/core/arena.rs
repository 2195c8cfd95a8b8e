//! Things by number, in chunks: an arena grows by a chunk and gives back every empty one.
//!
//! ```text
//! number  0 ... 1023 | 1024 ... 2047 | 2048 ...
//! chunk   0          | 1             | 2 ...
//! ```
//!
//! The lowest free number is used first, so that the high chunks become empty when there is less
//! to store.

use std::ops::{Index, IndexMut};

/// Items of a chunk.
pub(crate) const CHUNK: usize = 1024;

const NONE: u32 = u32::MAX;

/// What an arena stores.
pub(crate) trait Item {
    /// What stands at a free number. `next` is to be told by [`Self::next_free`].
    fn free(next: u32) -> Self;

    /// What a free item was made with; nothing for others.
    fn next_free(&self) -> Option<u32>;
}

/// Items by number. A number is used again once its item is removed.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    /// Grows little by little: there may be many small arenas.
    first: Chunk<T>,
    more: Option<Box<More<T>>>,
}

#[derive(Debug)]
struct Chunk<T> {
    items: Vec<T>,
    /// The first free number among the items, counted in the chunk.
    free: u32,
    used: u32,
}

/// The other chunks, and where there is room in all of them.
#[derive(Debug)]
struct More<T> {
    chunks: Vec<Chunk<T>>,
    /// A bit for each chunk that has room.
    with_room: Vec<u64>,
    /// Words of `with_room` that are known to be zero.
    full_words: usize,
    /// Items in all chunks.
    used: usize,
    /// Chunks that have memory.
    allocated: usize,
    /// The memory of a chunk that became empty: another may be wanted soon.
    spare: Option<Vec<T>>,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: NONE,
            used: 0,
        }
    }
}

impl<T: Item> Chunk<T> {
    /// How many items a first chunk grows by when one more is stored: there may be many small
    /// arenas, which leave little unused.
    fn leap(&self) -> usize {
        let capacity = self.items.capacity();
        match self.free == NONE && self.items.len() == capacity {
            false => 0,
            true if capacity < 64 => capacity / 4 + 1,
            true => capacity.min(CHUNK.saturating_sub(capacity)),
        }
    }

    fn has_room(&self) -> bool {
        self.free != NONE || self.items.len() < CHUNK
    }

    /// Stores an item where there is room in the chunk, which begins at `base`. Returns its number
    /// in the chunk.
    fn insert(&mut self, base: usize, item: impl FnOnce(u32) -> T) -> usize {
        self.used += 1;
        if self.free == NONE {
            let at = self.items.len();
            self.items.push(item(number(base + at)));
            return at;
        }
        let at = self.free as usize;
        let free = std::mem::replace(&mut self.items[at], item(number(base + at)));
        self.free = free.next_free().expect("a free number has a free item");
        at
    }

    fn remove(&mut self, at: usize) -> T {
        self.used -= 1;
        let free = T::free(self.free);
        self.free = number(at);
        std::mem::replace(&mut self.items[at], free)
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            first: Chunk::default(),
            more: None,
        }
    }
}

impl<T: Item> Arena<T> {
    /// Stores the item that `item` makes, told its number. Returns the number.
    ///
    /// # Panics
    ///
    /// If there are 2^32 of them: they would not fit in memory.
    pub(crate) fn insert(&mut self, item: impl FnOnce(u32) -> T) -> u32 {
        let Some(more) = &mut self.more else {
            if self.first.has_room() {
                self.first.items.reserve_exact(self.first.leap());
                return number(self.first.insert(0, item));
            }
            self.more = Some(Box::default());
            return self.insert(item);
        };
        let at = more.chunk_with_room();
        let chunk = match at.checked_sub(1) {
            None => &mut self.first,
            Some(other) => {
                let chunk = &mut more.chunks[other];
                if chunk.items.capacity() == 0 {
                    more.allocated += 1;
                    let spare = more.spare.take();
                    chunk.items = spare.unwrap_or_else(|| Vec::with_capacity(CHUNK));
                }
                chunk
            }
        };
        let base = at * CHUNK;
        let number = number(base + chunk.insert(base, item));
        more.used += 1;
        if !chunk.has_room() {
            more.set_room(at, false);
        }
        number
    }

    /// Removes the item of a number that is in use.
    pub(crate) fn remove(&mut self, number: u32) -> T {
        let (at, within) = (number as usize / CHUNK, number as usize % CHUNK);
        let Some(more) = &mut self.more else {
            return self.first.remove(within);
        };
        let chunk = match at.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut more.chunks[other],
        };
        let had_room = chunk.has_room();
        let item = chunk.remove(within);
        let is_empty = chunk.used == 0;
        more.used -= 1;
        if !had_room {
            more.set_room(at, true);
        }
        if is_empty && at > 0 {
            more.give_back(at);
            if more.chunks.is_empty() {
                self.more = None;
            }
        }
        item
    }

    /// What stands at a number; nothing in a chunk without memory.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        let chunk = match (number / CHUNK).checked_sub(1) {
            None => &self.first,
            Some(other) => self.more.as_ref()?.chunks.get(other)?,
        };
        chunk.items.get(number % CHUNK)
    }

    /// Every number that may be in use is below it.
    pub(crate) fn end(&self) -> u32 {
        let last = self.more.as_ref().and_then(|it| it.chunks.last());
        number(self.last_start() + last.unwrap_or(&self.first).items.len())
    }

    fn last_start(&self) -> usize {
        self.more.as_ref().map_or(0, |it| it.chunks.len()) * CHUNK
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        match &self.more {
            Some(more) => more.used,
            None => self.first.used as usize,
        }
    }

    /// All items and all that is free, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..self.end()).filter_map(|it| Some((it, self.get(it)?)))
    }

    /// Whether three quarters of the memory are for free numbers, so that it pays to move the
    /// items of the last chunk. What has begun to go is likely to go altogether.
    pub(crate) fn is_sparse(&self) -> bool {
        let others = self.more.as_ref().map_or(0, |it| it.allocated);
        4 * self.len() < others * CHUNK
    }

    /// The numbers of the last chunk.
    pub(crate) fn last_chunk(&self) -> std::ops::Range<u32> {
        number(self.last_start())..self.end()
    }

    /// Returns the bytes that it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |it| it.heap_bytes());
        self.first.items.capacity() * size_of::<T>() + more
    }

    /// How many bytes more it takes for one more item.
    pub(crate) fn growth(&self) -> usize {
        match &self.more {
            None if self.first.has_room() => self.first.leap() * size_of::<T>(),
            Some(more) if more.used < (1 + more.allocated) * CHUNK => 0,
            None | Some(_) => CHUNK * size_of::<T>(),
        }
    }
}

impl<T> Default for More<T> {
    /// Made when the first chunk is full.
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            with_room: Vec::new(),
            full_words: 0,
            used: CHUNK,
            allocated: 0,
            spare: None,
        }
    }
}

impl<T> More<T> {
    /// The lowest chunk that has room; a new one if there is none.
    fn chunk_with_room(&mut self) -> usize {
        while let Some(word) = self.with_room.get(self.full_words) {
            if *word != 0 {
                return self.full_words * 64 + word.trailing_zeros() as usize;
            }
            self.full_words += 1;
        }
        self.chunks.push(Chunk::default());
        self.set_room(self.chunks.len(), true);
        self.chunks.len()
    }

    fn set_room(&mut self, chunk: usize, has_room: bool) {
        let (word, bit) = (chunk / 64, 1 << (chunk % 64));
        if word >= self.with_room.len() {
            self.with_room.resize(word + 1, 0);
        }
        if has_room {
            self.with_room[word] |= bit;
            self.full_words = self.full_words.min(word);
        } else {
            self.with_room[word] &= !bit;
        }
    }

    /// Gives back the memory of a chunk without items, and the last chunks without memory.
    fn give_back(&mut self, chunk: usize) {
        let mut memory = std::mem::take(&mut self.chunks[chunk - 1]).items;
        memory.clear();
        self.allocated -= 1;
        self.spare.get_or_insert(memory);
        while self.chunks.pop_if(|it| it.used == 0).is_some() {
            self.set_room(self.chunks.len() + 1, false);
        }
        self.with_room.truncate(self.chunks.len() / 64 + 1);
    }

    fn heap_bytes(&self) -> usize {
        let memory = self.allocated + usize::from(self.spare.is_some());
        size_of::<Self>()
            + self.chunks.capacity() * size_of::<Chunk<T>>()
            + self.with_room.capacity() * size_of::<u64>()
            + memory * CHUNK * size_of::<T>()
    }
}

impl<T: Item> Index<u32> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        let number = number as usize;
        match &self.more {
            Some(more) if number >= CHUNK => &more.chunks[number / CHUNK - 1].items[number % CHUNK],
            Some(_) | None => &self.first.items[number],
        }
    }
}

impl<T: Item> IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        match &mut self.more {
            Some(more) if number >= CHUNK => {
                &mut more.chunks[number / CHUNK - 1].items[number % CHUNK]
            }
            Some(_) | None => &mut self.first.items[number],
        }
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at)
        .ok()
        .filter(|&it| it != NONE)
        .expect("fewer than 2^32 items fit in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Thing {
        Used(u32),
        Free(u32),
    }

    impl Item for Thing {
        fn free(next: u32) -> Self {
            Self::Free(next)
        }

        fn next_free(&self) -> Option<u32> {
            match self {
                Self::Used(_) => None,
                Self::Free(next) => Some(*next),
            }
        }
    }

    const OF_CHUNK: u32 = 1024;
    const COUNT: u32 = 100 * OF_CHUNK;

    fn filled() -> Arena<Thing> {
        let mut arena = Arena::default();
        for it in 0..COUNT {
            let growth = arena.growth();
            let before = arena.heap_bytes();
            assert_eq!(arena.insert(Thing::Used), it);
            let grown = arena.heap_bytes() - before;
            let others = 100 * size_of::<Chunk<Thing>>();
            assert!(
                grown <= growth.max(64) + others,
                "{grown} at {it}, not {growth}"
            );
        }
        arena
    }

    #[test]
    fn lowest_free_number_is_used_first() {
        let mut arena = filled();
        let freed = [5000, 17, 99 * OF_CHUNK, 5001, 1024];
        for it in freed {
            assert_eq!(arena.remove(it), Thing::Used(it));
        }
        let chunk = |it: u32| it as usize / CHUNK;
        let again: Vec<usize> = freed
            .iter()
            .map(|_| chunk(arena.insert(Thing::Used)))
            .collect();
        assert_eq!(again, [0, 1, 4, 4, 99]);
        assert_eq!(arena.insert(Thing::Used), COUNT);
        assert_eq!(arena.len(), COUNT as usize + 1);
    }

    #[test]
    fn empty_chunks_give_back_their_memory() {
        let mut arena = filled();
        let full = arena.heap_bytes();
        for it in (0..COUNT).filter(|it| it % (50 * OF_CHUNK) != 0) {
            arena.remove(it);
        }
        assert_eq!((arena.len(), arena.end()), (2, 51 * OF_CHUNK));
        assert!(arena.heap_bytes() < full / 20);
        assert!(arena.is_sparse());
        assert_eq!(arena.last_chunk(), 50 * OF_CHUNK..51 * OF_CHUNK);
        arena.remove(50 * OF_CHUNK);
        assert_eq!((arena.len(), arena.last_chunk().start), (1, 0));
        assert!(!arena.is_sparse());
        arena.remove(0);
        assert!(arena.heap_bytes() < 2 * CHUNK * size_of::<Thing>());
    }

    #[test]
    fn item_at_the_edge_of_a_chunk_comes_and_goes_without_memory() {
        let mut arena = filled();
        let edge = arena.insert(Thing::Used);
        arena.remove(edge);
        let bytes = arena.heap_bytes();
        for _ in 0..10 {
            assert_eq!(arena.insert(Thing::Used), edge);
            assert_eq!(arena.heap_bytes(), bytes);
            arena.remove(edge);
            assert_eq!(arena.heap_bytes(), bytes);
        }
    }
}
