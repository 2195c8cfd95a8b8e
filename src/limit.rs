//! What a peer can provoke, kept rare and counted.

use std::time::{Duration, Instant};

/// Keeps a report from coming too often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    until: Option<Instant>,
}

impl Quiet {
    /// A report of one kind comes at most this often.
    const INTERVAL: Duration = Duration::from_secs(60);

    /// Whether a report is due; if so, the next is not for a while.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_none_or(|until| now >= until);
        if is_over {
            self.until = Some(now + Self::INTERVAL);
        }
        is_over
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    #[test]
    fn what_happened_counts_for_an_hour() {
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
