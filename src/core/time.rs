//! Sums of instants and times that cannot overflow.

use std::time::{Duration, Instant};

/// Longest time that a setting or a wait has, a century; longer ones mean the same.
///
/// An [`Instant`] holds 292 billion years, and a sum of a few of these stays within that.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Returns a time that can be added to an instant: at most [`LONGEST`].
pub(crate) fn bounded(time: Duration) -> Duration {
    time.min(LONGEST)
}

/// Returns the instant `time` after `now`, [`LONGEST`] at most.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(bounded(time))
        .expect("an instant holds a century more than the clock shows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test begins at some instant")]
    fn longest_times_can_be_added() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::MAX), now + LONGEST);
        let twice = after(after(now, Duration::MAX), Duration::MAX);
        assert_eq!(twice, now + LONGEST * 2);
        assert_eq!(
            after(now, Duration::from_secs(7)),
            now + Duration::from_secs(7)
        );
    }
}
