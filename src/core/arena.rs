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
    /// The first grows little by little: there may be many small arenas.
    chunks: Vec<Chunk<T>>,
    /// `None` as long as there is one chunk.
    room: Option<Box<Room<T>>>,
}

#[derive(Debug)]
struct Chunk<T> {
    items: Vec<T>,
    /// The first free number among the items, counted in the chunk.
    free: u32,
    used: u32,
}

/// Where there is room in many chunks.
#[derive(Debug)]
struct Room<T> {
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
            chunks: Vec::new(),
            room: None,
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
        let Some(room) = &mut self.room else {
            if self.chunks.is_empty() {
                self.chunks.reserve_exact(1);
                self.chunks.push(Chunk::default());
            }
            let first = &mut self.chunks[0];
            if first.has_room() {
                first.items.reserve_exact(first.leap());
                return number(first.insert(0, item));
            }
            self.room = Some(Box::default());
            return self.insert(item);
        };
        let at = room.lowest().unwrap_or(self.chunks.len());
        if at == self.chunks.len() {
            self.chunks.push(Chunk::default());
            room.set(at, true);
        }
        let chunk = &mut self.chunks[at];
        if chunk.items.capacity() == 0 {
            room.allocated += 1;
            chunk.items = room
                .spare
                .take()
                .unwrap_or_else(|| Vec::with_capacity(CHUNK));
        }
        let base = at * CHUNK;
        let number = number(base + chunk.insert(base, item));
        room.used += 1;
        if !chunk.has_room() {
            room.set(at, false);
        }
        number
    }

    /// Removes the item of a number that is in use.
    pub(crate) fn remove(&mut self, number: u32) -> T {
        let (at, within) = (number as usize / CHUNK, number as usize % CHUNK);
        let chunk = &mut self.chunks[at];
        let had_room = chunk.has_room();
        let item = chunk.remove(within);
        if let Some(room) = &mut self.room {
            room.used -= 1;
            if !had_room {
                room.set(at, true);
            }
            if chunk.used == 0 {
                self.give_back(at);
            }
        }
        item
    }

    /// Gives back the memory of a chunk without items, and the last chunks without memory.
    fn give_back(&mut self, at: usize) {
        let Some(room) = &mut self.room else {
            return;
        };
        if at > 0 {
            let mut memory = std::mem::take(&mut self.chunks[at]).items;
            memory.clear();
            room.allocated -= 1;
            room.spare.get_or_insert(memory);
        }
        while self.chunks.len() > 1 && self.chunks.pop_if(|it| it.used == 0).is_some() {
            room.set(self.chunks.len(), false);
        }
        if self.chunks.len() == 1 {
            self.room = None;
            self.chunks.shrink_to_fit();
        } else {
            room.with_room.truncate(self.chunks.len() / 64 + 1);
        }
    }

    /// What stands at a number; nothing in a chunk without memory.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.items.get(number % CHUNK)
    }

    /// Every number that may be in use is below it.
    pub(crate) fn end(&self) -> u32 {
        let end = match &self.chunks[..] {
            [] => 0,
            [chunks @ .., last] => chunks.len() * CHUNK + last.items.len(),
        };
        number(end)
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        match &self.room {
            Some(room) => room.used,
            None => self.chunks.first().map_or(0, |it| it.used as usize),
        }
    }

    /// All items and all that is free, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..self.end()).filter_map(|it| Some((it, self.get(it)?)))
    }

    /// Whether more than half of the memory is for free numbers, so that it pays to move the
    /// items of the last chunk.
    pub(crate) fn is_sparse(&self) -> bool {
        let others = self.room.as_ref().map_or(0, |it| it.allocated - 1);
        2 * self.len() < others * CHUNK
    }

    /// The numbers of the last chunk.
    pub(crate) fn last_chunk(&self) -> std::ops::Range<u32> {
        number(self.chunks.len().saturating_sub(1) * CHUNK)..self.end()
    }

    /// Returns the bytes that it has allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunks = self.chunks.capacity() * size_of::<Chunk<T>>();
        match &self.room {
            Some(room) => chunks + room.heap_bytes(),
            None => {
                let items = self.chunks.first().map_or(0, |it| it.items.capacity());
                chunks + items * size_of::<T>()
            }
        }
    }

    /// How many bytes more it takes for one more item.
    pub(crate) fn growth(&self) -> usize {
        match (&self.room, self.chunks.first()) {
            (None, Some(first)) if first.has_room() => first.leap() * size_of::<T>(),
            (None, None) => size_of::<T>(),
            (Some(room), _) if room.used < room.allocated * CHUNK => 0,
            (None | Some(_), _) => CHUNK * size_of::<T>(),
        }
    }
}

impl<T> Default for Room<T> {
    /// Made when the first chunk is full.
    fn default() -> Self {
        Self {
            with_room: Vec::new(),
            full_words: 0,
            used: CHUNK,
            allocated: 1,
            spare: None,
        }
    }
}

impl<T> Room<T> {
    /// The lowest chunk that has room.
    fn lowest(&mut self) -> Option<usize> {
        while let Some(word) = self.with_room.get(self.full_words) {
            if *word != 0 {
                return Some(self.full_words * 64 + word.trailing_zeros() as usize);
            }
            self.full_words += 1;
        }
        None
    }

    fn set(&mut self, chunk: usize, has_room: bool) {
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

    fn heap_bytes(&self) -> usize {
        let memory = self.allocated + usize::from(self.spare.is_some());
        size_of::<Self>()
            + self.with_room.capacity() * size_of::<u64>()
            + memory * CHUNK * size_of::<T>()
    }
}

impl<T: Item> Index<u32> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        let number = number as usize;
        &self.chunks[number / CHUNK].items[number % CHUNK]
    }
}

impl<T: Item> IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        let number = number as usize;
        &mut self.chunks[number / CHUNK].items[number % CHUNK]
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
