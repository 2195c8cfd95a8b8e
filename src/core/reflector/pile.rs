//! A list that may become very long, and neither grows nor goes in one go.

/// How many items stand together: what a growing list moves at most.
const CHUNK: usize = 1024;

/// Items in the order in which they were pushed.
#[derive(Debug)]
pub(super) struct Pile<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Pile<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, item: T) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::new());
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(item);
            self.len += 1;
        }
    }

    /// # Panics
    ///
    /// If there are fewer.
    pub(super) fn get(&self, at: usize) -> &T {
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    /// # Panics
    ///
    /// If there are fewer.
    pub(super) fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    /// Drops some of the last items. Returns how many; none once the list is empty.
    pub(super) fn drop_some(&mut self) -> usize {
        let dropped = self.chunks.pop().map_or(0, |it| it.len());
        self.len -= dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_places_and_go_in_pieces() {
        let mut pile = Pile::default();
        let count = 2 * CHUNK + 1;
        (0..count).for_each(|it| pile.push(it));
        *pile.get_mut(CHUNK) += 1;
        let found: Vec<usize> = (0..count).map(|it| *pile.get(it)).collect();
        let expected = (0..count).map(|it| it + usize::from(it == CHUNK));
        assert_eq!(found, expected.collect::<Vec<_>>());
        let mut dropped = Vec::new();
        while pile.len() > 0 {
            dropped.push(pile.drop_some());
        }
        assert_eq!(dropped, [1, CHUNK, CHUNK]);
        assert_eq!(pile.drop_some(), 0);
    }
}
