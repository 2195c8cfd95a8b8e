//! How fast a peer takes what waits for it.

use std::time::{Duration, Instant};

/// A peer that takes less than [`ENOUGH`] in this long is slow, not just busy.
const SLOW: Duration = Duration::from_millis(500);

/// Bytes that a peer that reads takes in [`SLOW`] at least: 128 KiB a second.
///
/// The kernel lets a few bytes through to a peer that reads nothing at all.
const ENOUGH: usize = 64 * 1024;

/// When the peer took something, while something waits for it.
#[derive(Debug)]
pub(super) struct Progress {
    /// When it took anything.
    last: Instant,
    /// When it had taken [`ENOUGH`].
    enough_at: Instant,
    taken_since: usize,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            enough_at: now,
            taken_since: 0,
        }
    }

    /// Takes note that the peer took `count` bytes at `now`.
    pub(super) fn took(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.last = now;
        self.taken_since += count;
        if self.taken_since >= ENOUGH {
            self.enough_at = now;
            self.taken_since = 0;
        }
    }

    /// When the peer has taken nothing for `limit`.
    pub(super) fn stall_after(&self, limit: Duration) -> Instant {
        self.last + limit
    }

    pub(super) fn is_slow(&self, now: Instant) -> bool {
        now >= self.enough_at + SLOW
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    #[test]
    fn peer_that_is_given_a_few_bytes_now_and_then_is_slow_and_not_stalled() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for tenths in 1..=5 {
            progress.took(1000, start + Duration::from_millis(100 * tenths));
        }
        let now = start + SLOW;
        assert!(progress.is_slow(now));
        assert_eq!(progress.stall_after(SLOW), now + SLOW);
    }

    #[test]
    fn peer_that_takes_enough_is_not_slow() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        for tenths in 1..=50 {
            let now = start + Duration::from_millis(100 * tenths);
            assert!(!progress.is_slow(now), "after {tenths} tenths of a second");
            progress.took(ENOUGH / 4, now);
        }
    }
}
