//! How much work one kind of task may do in a turn.
//!
//! A turn reads, departs, joins, hands out and compacts, each within a meter of its own, so
//! that none starves another. What is left over waits in a queue for the next turn.

/// Units of about 50 ns that each kind of task has in a turn; 0.8 ms.
const PER_TURN: usize = 16 * 1024;

/// Withdrawing a route of a peer that is gone.
pub(super) const WITHDRAWAL: usize = 10;
/// Looking up a VNI.
pub(super) const VNI: usize = 4;
/// Cutting a segment for a joiner, and queueing it.
pub(super) const SPAN: usize = 2;
/// Bytes of changes that are coalesced for a unit.
pub(super) const COALESCED_BYTES: usize = 24;
/// Beginning a flow.
pub(super) const JOIN: usize = 20;
/// Visiting a slot and encoding its route.
pub(super) const SLOT: usize = 2;

/// What is left of a turn for one kind of task.
///
/// A task may overdraw it by one step: steps are small.
#[derive(Debug)]
pub(super) struct Meter {
    left: usize,
}

impl Meter {
    /// The meter at the beginning of a turn.
    pub(super) const fn full() -> Self {
        Self { left: PER_TURN }
    }

    /// Takes note of work.
    pub(super) fn charge(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// How many steps of so many units are left.
    pub(super) fn steps(&self, units: usize) -> usize {
        self.left.div_ceil(units)
    }
}
