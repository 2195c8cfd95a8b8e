//! The byte account of a shard: what it has allocated, and what it does when that is too much.
//!
//! ```text
//! below 7/8 of the limit   nothing
//! from there on            no new routes and subscriptions; logs are compacted sooner;
//!                          no route for which a table would have to grow up to there
//! from the limit on        who subscribed waits for its table; tables give back their history;
//!                          then, or past the limit by a sixteenth, the session that holds most
//!                          is closed, now and then
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::core::rib::Segment;

/// Between two sessions that are closed: what that frees must show first. So often a shard whose
/// memory is short looks again.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two times that all tables are asked for what they can spare.
const RECLAIM_PAUSE: Duration = Duration::from_secs(1);

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
        } else if used >= short_from(limit) {
            Self::High
        } else {
            Self::None
        }
    }
}

/// From how many bytes on memory is short.
pub(super) fn short_from(limit: usize) -> usize {
    limit - limit / 8
}

/// Decides what is done about memory, and when.
#[derive(Debug, Default)]
pub(super) struct Relief {
    pressure: Pressure,
    shed_not_before: Option<Instant>,
    reclaim_not_before: Option<Instant>,
    again_at: Option<Instant>,
}

/// What is to be done about memory in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Nothing,
    /// Tables are to give back what they can spare.
    Reclaim,
    /// The session that holds most is to be closed.
    Shed,
}

impl Relief {
    pub(super) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// When [`Self::measure`] is to be asked again, if nothing else happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again_at
    }

    /// Says what is due at so many bytes.
    ///
    /// `is_reclaiming` tells whether tables are still giving something back.
    pub(super) fn measure(
        &mut self,
        used: usize,
        limit: usize,
        is_reclaiming: bool,
        now: Instant,
    ) -> Measure {
        let before = std::mem::replace(&mut self.pressure, Pressure::at(used, limit));
        let is_due = |it: Option<Instant>| it.is_none_or(|it| now >= it);
        self.again_at = (self.pressure != Pressure::None).then(|| now + PAUSE);
        match (self.pressure, before) {
            (Pressure::None | Pressure::High, _) => Measure::Nothing,
            (Pressure::Over, Pressure::None | Pressure::High)
                if is_due(self.reclaim_not_before) =>
            {
                self.reclaim_not_before = Some(now + RECLAIM_PAUSE);
                Measure::Reclaim
            }
            (Pressure::Over, _) => {
                let may_wait = is_reclaiming && used < limit.saturating_add(limit / 16);
                if may_wait || !is_due(self.shed_not_before) {
                    return Measure::Nothing;
                }
                self.shed_not_before = Some(now + PAUSE);
                Measure::Shed
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
    fn tables_give_back_first_and_sessions_are_closed_one_after_the_other() {
        #[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
        let start = Instant::now();
        let mut relief = Relief::default();
        assert_eq!(relief.measure(80, 160, false, start), Measure::Nothing);
        assert_eq!(
            (relief.pressure(), relief.poll_timeout()),
            (Pressure::None, None)
        );
        assert_eq!(relief.measure(140, 160, false, start), Measure::Nothing);
        assert_eq!(relief.pressure(), Pressure::High);
        assert_eq!(relief.measure(160, 160, false, start), Measure::Reclaim);
        assert_eq!(relief.poll_timeout(), Some(start + PAUSE));
        // Past a sixteenth nobody waits for the tables.
        assert_eq!(relief.measure(169, 160, true, start), Measure::Nothing);
        assert_eq!(relief.measure(170, 160, true, start), Measure::Shed);
        let later = start + PAUSE / 2;
        assert_eq!(relief.measure(170, 160, false, later), Measure::Nothing);
        let later = start + PAUSE;
        assert_eq!(relief.measure(160, 160, false, later), Measure::Shed);
        assert_eq!(relief.measure(80, 160, false, later), Measure::Nothing);
        // Not all tables again so soon.
        let later = start + 2 * PAUSE;
        assert_eq!(relief.measure(160, 160, false, later), Measure::Shed);
        relief.measure(80, 160, false, later);
        let later = start + RECLAIM_PAUSE;
        assert_eq!(relief.measure(160, 160, false, later), Measure::Reclaim);
    }
}
