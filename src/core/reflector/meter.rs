//! How much work a shard does in a turn: all kinds of work draw from one meter.
//!
//! ```text
//! writes --> mail --> reads --> work that waits --> changes are handed out --> logs are rewritten
//! ```
//!
//! Each phase leaves something for those that follow it, so that none starves: a KEEPALIVE is
//! read and answered in every turn, however much work waits. The work that waits is done kind by
//! kind, a share at a time, for as long as the meter lasts; what is left over stays in the queue
//! of its kind. The next turn begins with the kind that this one ended at.
//!
//! Other loops have limits of their own, where the shard does not see the work: the bytes that
//! are written and the frames that are read only to be dropped (`net::turn`), and what is told to
//! those who watch (`server::worker::request`).

/// Units of about 50 ns in a turn; 4.1 ms.
pub(super) const PER_TURN: usize = 80 * 1024;

/// What a kind of work has of a turn before the next kind has its share, as a divisor.
const SHARES: usize = 4;

/// Reading from a session, however little: what the kernel does for that is among it.
pub(super) const READ: usize = 24;
/// Bytes of a session that are read for a unit.
pub(super) const READ_BYTES: usize = 16;
/// Beginning or ending a subscription.
pub(super) const REQUEST: usize = 8;
/// Announcing or withdrawing a route.
pub(super) const UPDATE: usize = 4;
/// Withdrawing a route of a peer that is gone.
pub(super) const WITHDRAWAL: usize = 10;
/// Looking up a VNI.
pub(super) const VNI: usize = 4;
/// Cutting a segment for a joiner, and queueing it.
pub(super) const SPAN: usize = 2;
/// Joining the short ends of a log before somebody is sent it.
pub(super) const SEAL: usize = 100;
/// Bytes of changes that are coalesced for a unit.
pub(super) const COALESCED_BYTES: usize = 24;
/// Beginning a flow.
pub(super) const JOIN: usize = 20;
/// Visiting a slot and encoding its route.
pub(super) const SLOT: usize = 2;
/// Looking at something that waits in a queue, and dropping it or moving it on.
pub(super) const ITEM: usize = 2;

/// The parts of a turn. The last one, in which logs are rewritten, has what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Sessions that read again are spared what they missed before they are sent the rest.
    Writes,
    /// Messages of other shards are taken.
    Mail,
    /// What sessions sent is taken.
    Reads,
    /// Work that waits is done.
    Work,
    /// Changes are handed out.
    HandOut,
}

impl Phase {
    /// What the phase leaves of a turn, in eighths.
    const fn leaves(self) -> usize {
        match self {
            Self::Writes => 7,
            Self::Mail => 5,
            Self::Reads => 4,
            Self::Work => 3,
            Self::HandOut => 2,
        }
    }
}

/// What is left of a turn, or of a part of it.
///
/// A task may overdraw it by one step: steps are small.
#[derive(Debug)]
pub(super) struct Meter {
    full: usize,
    left: usize,
    /// What was charged, overdrafts included.
    used: usize,
}

impl Meter {
    /// A meter of so many units.
    pub(super) const fn of(left: usize) -> Self {
        Self {
            full: left,
            left,
            used: 0,
        }
    }

    /// Takes note of work.
    pub(super) fn charge(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
        self.used += units;
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// What was charged.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// How many steps of so many units are left.
    pub(super) fn steps(&self, units: usize) -> usize {
        self.left.div_ceil(units)
    }

    /// Whether a phase has had its part of the turn.
    pub(super) fn is_over(&self, phase: Phase) -> bool {
        self.left <= self.left_by(phase)
    }

    /// Has `work` draw on what a phase has left of its part.
    pub(super) fn lend_phase(&mut self, phase: Phase, work: impl FnOnce(&mut Self)) {
        self.lend(self.left.saturating_sub(self.left_by(phase)), work);
    }

    /// Has `work` draw on a share of a kind of work. Returns whether it did anything.
    pub(super) fn lend_share(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let before = self.used;
        let left = self.left.saturating_sub(self.left_by(Phase::Work));
        self.lend(left.min(self.full / SHARES + 1), work);
        self.used > before
    }

    fn left_by(&self, phase: Phase) -> usize {
        self.full * phase.leaves() / 8
    }

    fn lend(&mut self, units: usize, work: impl FnOnce(&mut Self)) {
        let mut part = Self::of(units);
        work(&mut part);
        self.charge(part.used);
    }
}
