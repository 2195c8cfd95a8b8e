//! The byte account of a shard: what it has allocated, and what it does when that is too much.
//!
//! ```text
//! below 7/8 of the limit   nothing
//! from there on            no new routes and subscriptions; logs are compacted sooner
//! from the limit on        now and then the session that holds most is closed, too
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::core::rib::Segment;

/// Between two sessions that are closed: what that frees must show first.
const PAUSE: Duration = Duration::from_millis(200);

/// Segments looked at in one turn at least.
const SWEEP: usize = 64;

/// All segments are looked at in so many turns, if that is at most [`SWEEP_MAX`] in each.
const SWEEP_TURNS: usize = 16;
const SWEEP_MAX: usize = 16 * 1024;
const LOOKS_FOR_A_UNIT: usize = 2;

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Tables with their logs.
    pub(crate) tables: usize,
    /// What waits for sessions, apart from what stands in a log.
    pub(crate) queues: usize,
    /// Sessions, subscriptions and VNIs.
    pub(crate) sessions: usize,
}

impl Usage {
    pub(crate) fn total(self) -> usize {
        self.tables + self.queues + self.sessions
    }
}

/// How near the limit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pressure {
    #[default]
    None,
    /// Nothing new is admitted.
    High,
    /// The limit is passed.
    Over,
}

impl Pressure {
    /// The pressure at so many bytes.
    pub(crate) fn at(used: usize, limit: usize) -> Self {
        if used >= limit {
            Self::Over
        } else if used >= limit - limit / 8 {
            Self::High
        } else {
            Self::None
        }
    }
}

/// Decides when a session is closed because of memory.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    not_before: Option<Instant>,
}

impl Shedding {
    /// Returns whether one is due.
    pub(super) fn is_due(&mut self, pressure: Pressure, now: Instant) -> bool {
        match pressure {
            Pressure::None | Pressure::High => false,
            Pressure::Over => {
                let is_due = self.not_before.is_none_or(|it| now >= it);
                if is_due {
                    self.not_before = Some(now + PAUSE);
                }
                is_due
            }
        }
    }
}

/// Segments outside of a log that sessions may still hold, so that their bytes count.
#[derive(Debug, Default)]
pub(super) struct Segments {
    held: VecDeque<(Weak<Segment>, usize)>,
    bytes: usize,
    /// Added since the last sweep.
    added: usize,
}

impl Segments {
    /// Counts a segment for as long as somebody holds it.
    pub(super) fn add(&mut self, segment: &Arc<Segment>) {
        let bytes = segment.heap_bytes();
        self.held.push_back((Arc::downgrade(segment), bytes));
        self.bytes += bytes;
        self.added += 1;
    }

    /// Looks at some of the segments, and forgets those that nobody holds.
    pub(super) fn sweep(&mut self, meter: &mut Meter) {
        let share = (self.held.len() / SWEEP_TURNS).min(SWEEP_MAX);
        let looks = (SWEEP + share).max(2 * std::mem::take(&mut self.added));
        meter.charge(looks.min(self.held.len()) / LOOKS_FOR_A_UNIT);
        for _ in 0..looks.min(self.held.len()) {
            if let Some((segment, bytes)) = self.held.pop_front() {
                if segment.strong_count() > 0 {
                    self.held.push_back((segment, bytes));
                } else {
                    self.bytes -= bytes;
                }
            }
        }
        if self.held.is_empty() && self.held.capacity() > SWEEP {
            self.held = VecDeque::new();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.held.capacity() * size_of::<(Weak<Segment>, usize)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_count_as_long_as_somebody_holds_them() {
        let mut segments = Segments::default();
        let all: Vec<Arc<Segment>> = (0..1000)
            .map(|_| {
                let segment = Segment::unmarked(vec![0; 1000], 1, 0);
                segments.add(&segment);
                segment
            })
            .collect();
        segments.sweep(&mut Meter::of(1));
        assert!(segments.bytes() >= 1_000_000);
        drop(all);
        (0..20).for_each(|_| segments.sweep(&mut Meter::of(1)));
        assert_eq!(segments.bytes(), 0);
    }

    #[test]
    fn sessions_are_closed_one_after_the_other() {
        #[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
        let start = Instant::now();
        let mut shedding = Shedding::default();
        assert!(!shedding.is_due(Pressure::at(7, 8), start));
        assert!(shedding.is_due(Pressure::at(8, 8), start));
        assert!(!shedding.is_due(Pressure::Over, start + PAUSE / 2));
        assert!(shedding.is_due(Pressure::Over, start + PAUSE));
        assert_eq!(Pressure::at(6, 8), Pressure::None);
    }
}
