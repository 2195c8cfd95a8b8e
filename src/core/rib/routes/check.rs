//! What must hold of the announcements of a VNI at any time.

use super::{EntryRole, Routes, Slot};
use crate::core::rib::PeerId;

impl Routes {
    pub(crate) fn check_invariants(&self, routes: usize) {
        let count = |role| self.slots.iter().filter(|it| it.1.role == role).count();
        let (first, further) = (count(EntryRole::First), count(EntryRole::Further));
        assert_eq!(first, routes);
        assert_eq!(first + further, self.slots.len());
        if let Some(index) = &self.index {
            assert_eq!(index.first.len(), routes);
            assert_eq!(index.further.len(), further);
            let listed: u32 = index.announcers.iter().map(|it| it.count).sum();
            assert_eq!(first + further, listed as usize);
        }
        for (slot, entry) in self.slots.iter() {
            if entry.role == EntryRole::Further {
                let first = self.find(&entry.key()).expect("the route is there");
                assert!(self.chain(first).any(|it| it == slot));
            }
            if entry.role != EntryRole::Free {
                let first = self.find(&entry.key()).expect("the route is there");
                let found = self.announcement_of(first, &entry.key(), entry.peer);
                assert_eq!(found, Some(slot));
            }
            if entry.role != EntryRole::Free && entry.previous == Slot::NONE {
                self.check_list(slot, entry.peer);
            }
        }
    }

    /// Follows the list of a peer that begins at `head`.
    fn check_list(&self, head: u32, peer: PeerId) {
        assert_eq!(self.head(peer), head);
        let (mut previous, mut slot) = (Slot::NONE, head);
        for _ in 0..self.announced_by(peer) {
            let entry = &self.slots[slot];
            assert_eq!((entry.peer, entry.previous), (peer, previous));
            previous = std::mem::replace(&mut slot, entry.next);
        }
        assert_eq!(slot, Slot::NONE);
    }
}
