//! Which sessions are not read because they feed an owner that is behind.
//!
//! A worker whose mailbox is full takes no more updates. Only the sessions that send it updates
//! must wait for it: the others are read, and their KEEPALIVEs answered. A session is known to
//! feed an owner when it has done so; each may send a little before it is held.

use crate::core::map::{Map, map};
use crate::core::rib::PeerId;

/// Messages that a session may send to an owner that is behind before it is held.
///
/// A session that changes a route now and then is never held. All sessions together put
/// a mailbox over its limit by at most so many each, and [`READ_WHILE_FULL`].
const ALLOWANCE: usize = 64;

/// Bytes read from a session at once while an owner is behind.
pub(super) const READ_WHILE_FULL: usize = 4096;

/// What the sessions of a worker have sent to the owners that are behind.
pub(super) struct Holds {
    /// For each worker, since it is behind; `None`: it is not.
    fed: Vec<Option<Map<PeerId, usize>>>,
    seed: u64,
}

impl Holds {
    pub(super) fn new(workers: usize, seed: u64) -> Self {
        Self {
            fed: (0..workers).map(|_| None).collect(),
            seed,
        }
    }

    /// Takes note whether an owner's mailbox is full. Returns whether it has caught up.
    pub(super) fn owner_is_full(&mut self, owner: usize, is_full: bool) -> bool {
        let fed = &mut self.fed[owner];
        if is_full {
            fed.get_or_insert_with(|| map(self.seed));
            return false;
        }
        fed.take().is_some()
    }

    /// Takes note that a session has sent messages of a weight to an owner.
    pub(super) fn feeds(&mut self, id: PeerId, owner: usize, weight: usize) {
        if let Some(fed) = &mut self.fed[owner] {
            *fed.entry(id).or_insert(0) += weight;
        }
    }

    /// Returns whether an owner is behind.
    pub(super) fn has_full(&self) -> bool {
        self.fed.iter().any(Option::is_some)
    }

    /// Returns whether a session is not to be read.
    pub(super) fn is_held(&self, id: PeerId) -> bool {
        let behind = self.fed.iter().flatten();
        let mut weights = behind.filter_map(|fed| fed.get(&id));
        weights.any(|weight| *weight >= ALLOWANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_feeds_a_full_owner_is_held_until_there_is_room() {
        let mut holds = Holds::new(2, 1);
        let (flood, other) = (PeerId(1), PeerId(2));
        holds.feeds(flood, 1, 1000);
        assert!(!holds.has_full() && !holds.is_held(flood));
        assert!(!holds.owner_is_full(1, true));
        holds.feeds(flood, 1, ALLOWANCE - 1);
        assert!(!holds.is_held(flood), "a few changes are allowed");
        holds.feeds(flood, 1, 1);
        holds.feeds(other, 0, 1000);
        assert!(holds.is_held(flood) && !holds.is_held(other));
        assert!(holds.owner_is_full(1, false), "it has caught up");
        assert!(!holds.is_held(flood) && !holds.has_full());
        assert!(!holds.owner_is_full(1, false), "said once");
    }
}
