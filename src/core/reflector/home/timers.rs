//! When the sessions of a home have something to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::core::rib::PeerId;

/// What an entry is about.
///
/// Those of the pace come by the millisecond; each kind has one entry for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Session,
    Pace,
}

/// When the entries of one session are due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scheduled {
    session: Option<Instant>,
    pace: Option<Instant>,
}

impl Scheduled {
    fn of(&mut self, timer: Timer) -> &mut Option<Instant> {
        match timer {
            Timer::Session => &mut self.session,
            Timer::Pace => &mut self.pace,
        }
    }

    /// Takes an entry out. Returns `false` if an earlier one has replaced it.
    pub(super) fn take(&mut self, timer: Timer, due: Instant) -> bool {
        self.of(timer).take_if(|it| *it == due).is_some()
    }
}

/// The entries of all sessions, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, PeerId, Timer)>>);

impl Timers {
    /// When the earliest entry is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((due, ..))| *due)
    }

    /// Takes the earliest entry if it is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(PeerId, Timer, Instant)> {
        let &Reverse((due, id, timer)) = self.0.peek()?;
        if due > now {
            return None;
        }
        self.0.pop();
        Some((id, timer, due))
    }

    /// Keeps a session's entry of one kind no later than `due`.
    pub(super) fn keep(
        &mut self,
        id: PeerId,
        timer: Timer,
        due: Option<Instant>,
        scheduled: &mut Scheduled,
    ) {
        let scheduled = scheduled.of(timer);
        if let Some(due) = due
            && scheduled.is_none_or(|scheduled| due < scheduled)
        {
            *scheduled = Some(due);
            self.0.push(Reverse((due, id, timer)));
        }
    }
}
