//! What a peer can provoke, kept rare and counted.

use std::time::{Duration, Instant};

/// Reports of one kind are counted, and held back, over this time.
const INTERVAL: Duration = Duration::from_secs(60);

/// Keeps a report from coming too often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    until: Option<Instant>,
}

impl Quiet {
    /// Whether a report is due; if so, the next is not for a minute.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_none_or(|until| now >= until);
        if is_over {
            self.until = Some(now + INTERVAL);
        }
        is_over
    }
}

/// Lets so many reports of a kind pass in a minute, and counts those that it holds back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    most: u32,
    passed: u32,
    held: u64,
    until: Option<Instant>,
}

impl Throttle {
    pub(crate) const fn new(most: u32) -> Self {
        Self {
            most,
            passed: 0,
            held: 0,
            until: None,
        }
    }

    /// Whether one more may pass.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        if self.held == 0 && self.until.is_none_or(|until| now >= until) {
            self.until = Some(now + INTERVAL);
            self.passed = 0;
        }
        let is_admitted = self.passed < self.most;
        if is_admitted {
            self.passed += 1;
        } else {
            self.held += 1;
        }
        is_admitted
    }

    /// When [`Self::take_held`] has something to tell.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.until.filter(|_| self.held > 0)
    }

    /// How many were held back in the minute that is over, once.
    pub(crate) fn take_held(&mut self, now: Instant) -> Option<u64> {
        self.due().filter(|due| now >= *due)?;
        self.until = None;
        Some(std::mem::take(&mut self.held))
    }
}

/// How often something happened in the last hour.
///
/// The happenings of six minutes are counted together, and forgotten together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    begin: Instant,
    /// The number of the stretch of the last happening, and those before it, the latest first.
    stretch: u64,
    counts: [u16; Self::STRETCHES],
}

impl Recent {
    const STRETCHES: usize = 10;
    const STRETCH: Duration = Duration::from_secs(6 * 60);

    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begin: now,
            stretch: 0,
            counts: [0; Self::STRETCHES],
        }
    }

    /// It happened.
    pub(crate) fn count(&mut self, now: Instant) {
        self.advance(now);
        self.counts[0] = self.counts[0].saturating_add(1);
    }

    /// How often it happened.
    pub(crate) fn total(mut self, now: Instant) -> u32 {
        self.advance(now);
        self.counts.iter().map(|it| u32::from(*it)).sum()
    }

    fn advance(&mut self, now: Instant) {
        let stretch = now.saturating_duration_since(self.begin).as_secs() / Self::STRETCH.as_secs();
        let passed = usize::try_from(stretch.saturating_sub(self.stretch)).unwrap_or(usize::MAX);
        let passed = passed.min(Self::STRETCHES);
        self.counts.copy_within(..Self::STRETCHES - passed, passed);
        self.counts[..passed].fill(0);
        self.stretch = self.stretch.max(stretch);
    }
}

/// Returns the end of a time, or a moment that is far enough if there is none.
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);
    start.checked_add(time).unwrap_or_else(|| start + FAR)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_in_one_line_after_a_minute() {
        let start = Instant::now();
        let mut throttle = Throttle::new(3);
        let passed = (0..10_000).filter(|it| throttle.admits(start + Duration::from_millis(*it)));
        assert_eq!(passed.count(), 3);
        assert_eq!(throttle.due(), Some(start + INTERVAL));
        assert_eq!(throttle.take_held(start + INTERVAL / 2), None);
        assert_eq!(throttle.take_held(start + INTERVAL), Some(9997));
        assert_eq!(throttle.take_held(start + 3 * INTERVAL), None);
        assert_eq!(throttle.due(), None);
        assert!(
            throttle.admits(start + INTERVAL),
            "the next minute is another"
        );
        assert_eq!(throttle.due(), None);
    }

    #[test]
    fn slow_trickle_passes() {
        let start = Instant::now();
        let mut throttle = Throttle::new(2);
        for minute in 0..100 {
            assert!(throttle.admits(start + INTERVAL * minute));
            assert!(throttle.admits(start + INTERVAL * minute + INTERVAL / 2));
        }
    }

    #[test]
    fn losses_count_for_an_hour() {
        let start = Instant::now();
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        let mut recent = Recent::new(start);
        for minute in [1, 2, 30, 31] {
            recent.count(minutes(minute));
        }
        let totals = [31, 59, 70, 95, 1000].map(|minute| recent.total(minutes(minute)));
        assert_eq!(totals, [4, 4, 2, 0, 0]);
    }
}
