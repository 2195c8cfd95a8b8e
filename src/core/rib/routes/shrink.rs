//! Gives back the memory of routes that are gone.

use super::{EntryRole, Routes, Slot};

/// Looks that moving an announcement costs.
const MOVE: usize = 4;

impl Routes {
    /// Whether [`Self::shrink`] has work: most slots are free.
    pub(crate) fn is_sparse(&self) -> bool {
        self.slots.is_sparse()
    }

    /// Moves announcements from the last slots to the first free ones, until that took `budget`
    /// looks or the table is not sparse any more. Returns how many looks that took.
    ///
    /// To be called while nobody remembers a slot: the log has nothing fresh and is not being
    /// compacted.
    pub(crate) fn shrink(&mut self, budget: usize) -> usize {
        let mut looks = 0;
        while looks < budget && self.is_sparse() {
            for slot in self.slots.last_chunk().rev() {
                looks += 1;
                looks += match self.slots.get(slot).map(|it| it.role) {
                    Some(EntryRole::First | EntryRole::Further) => self.move_down(slot),
                    Some(EntryRole::Free) => continue,
                    // The chunk is empty.
                    None => break,
                };
                if looks >= budget {
                    break;
                }
            }
        }
        looks
    }

    /// Moves an announcement to the lowest free slot. Returns how many looks that took.
    fn move_down(&mut self, from: u32) -> usize {
        let entry = self.slots[from];
        let to = self.slots.insert(|_| entry);
        debug_assert!(to < from);
        self.relocate(from, to);
        if let Some(index) = &mut self.index {
            index.renumber(&entry, from, to);
        }
        let looks = match entry.role {
            EntryRole::Further => self.close_ring(from, to),
            EntryRole::First | EntryRole::Free => 0,
        };
        self.slots.remove(from);
        MOVE + looks
    }

    /// Has the ring of a route's further announcements lead to `to` where it led to `from`.
    /// Returns how many looks that took.
    fn close_ring(&mut self, from: u32, to: u32) -> usize {
        let key = self.slots[to].key();
        let first = self.find(&key).expect("a stored route is indexed");
        if self.slots[first].sibling == from {
            self.slots[first].sibling = to;
        }
        let (mut looks, mut at) = (1, to);
        while self.slots[at].sibling != from {
            at = self.slots[at].sibling;
            looks += 1;
        }
        self.slots[at].sibling = to;
        debug_assert!(at != Slot::NONE);
        looks
    }
}
