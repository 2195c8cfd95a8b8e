//! The connections that wait to be read, and who is next.

use std::collections::VecDeque;

/// Connections with news that are read before one of which more was left.
const NEWS_FOR_ONE: usize = 16;

/// What a connection has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// What came since its socket was found empty: often a KEEPALIVE and no more.
    News,
    /// What its last share left.
    Rest,
}

/// Two lines. A connection with news does not wait for the rest of thousands of others, and they
/// are not held up by news for ever.
#[derive(Debug)]
pub(super) struct Readers<K> {
    news: VecDeque<K>,
    rest: VecDeque<K>,
    /// How many with news were next since one with a rest was.
    news_in_a_row: usize,
}

impl<K: Copy> Readers<K> {
    pub(super) const fn new() -> Self {
        Self {
            news: VecDeque::new(),
            rest: VecDeque::new(),
            news_in_a_row: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.news.len() + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.news.is_empty() && self.rest.is_empty()
    }

    pub(super) fn push(&mut self, key: K, waiting: Waiting) {
        match waiting {
            Waiting::News => self.news.push_back(key),
            Waiting::Rest => self.rest.push_back(key),
        }
    }

    /// Who is next, and what it has.
    pub(super) fn next(&self) -> Option<(K, Waiting)> {
        let news = self.news.front().map(|&key| (key, Waiting::News));
        let rest = self.rest.front().map(|&key| (key, Waiting::Rest));
        match self.news_in_a_row < NEWS_FOR_ONE {
            true => news.or(rest),
            false => rest.or(news),
        }
    }

    pub(super) fn pop(&mut self) -> Option<K> {
        let (_, waiting) = self.next()?;
        match waiting {
            Waiting::News => {
                self.news_in_a_row += 1;
                self.news.pop_front()
            }
            Waiting::Rest => {
                self.news_in_a_row = 0;
                self.rest.pop_front()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pops(readers: &mut Readers<usize>, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| readers.pop()).collect()
    }

    #[test]
    fn news_do_not_wait_for_the_rest_of_others() {
        let mut readers = Readers::new();
        (0..1000).for_each(|key| readers.push(key, Waiting::Rest));
        pops(&mut readers, 100);
        readers.push(5000, Waiting::News);
        assert_eq!(pops(&mut readers, 3), [5000, 100, 101]);
    }

    #[test]
    fn rest_has_its_share_however_much_is_new() {
        let mut readers = Readers::new();
        readers.push(0, Waiting::Rest);
        readers.push(1, Waiting::Rest);
        (10..100).for_each(|key| readers.push(key, Waiting::News));
        let order = pops(&mut readers, 2 * NEWS_FOR_ONE + 2);
        assert_eq!([order[NEWS_FOR_ONE], order[2 * NEWS_FOR_ONE + 1]], [0, 1]);
        assert_eq!(readers.len(), 92 - order.len());
    }

    #[test]
    fn next_is_who_is_popped() {
        let mut readers = Readers::new();
        (0..30).for_each(|key| readers.push(key, Waiting::News));
        (30..40).for_each(|key| readers.push(key, Waiting::Rest));
        while let Some((key, _)) = readers.next() {
            assert_eq!(readers.pop(), Some(key));
        }
        assert!(readers.is_empty());
    }
}
