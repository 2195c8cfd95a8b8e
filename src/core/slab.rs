//! Rare and large things beside a compact map: the map has their numbers.

/// Things by number. A number is used again once its thing is removed.
#[derive(Debug, Default)]
pub(crate) struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slab<T> {
    /// Stores a thing. Returns its number.
    ///
    /// # Panics
    ///
    /// If there are 2^32 of them: they would not fit in memory.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.items[number as usize] = item;
            return number;
        }
        let number = u32::try_from(self.items.len()).expect("2^32 things do not fit in memory");
        self.items.push(item);
        number
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.items.get(number as usize)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.items.get_mut(number as usize)
    }

    /// Removes the thing of a number that is in use.
    pub(crate) fn remove(&mut self, number: u32) -> T {
        let item = std::mem::take(&mut self.items[number as usize]);
        self.free.push(number);
        if self.free.len() == self.items.len() {
            *self = Self {
                items: Vec::new(),
                free: Vec::new(),
            };
        }
        item
    }

    /// Returns the bytes that it has allocated, without those of the things themselves.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_an_empty_slab_holds_nothing() {
        let mut slab = Slab::default();
        let [a, b] = ["a", "b"].map(|it| slab.insert(it.to_owned()));
        assert_eq!(slab.remove(a), "a");
        assert_eq!(slab.insert("c".to_owned()), a);
        assert_eq!(slab.get(b).map(String::as_str), Some("b"));
        slab.remove(a);
        slab.remove(b);
        assert_eq!(slab.heap_bytes(), 0);
    }
}
