//! When to try a server again.

use std::time::Duration;

/// First wait after a session that worked.
const SOON: Duration = Duration::from_millis(100);

/// Shortest wait after a failure: a connect that fails at once costs 100 system calls a second.
const LEAST: Duration = Duration::from_millis(10);

/// How often the wait doubles before a server counts as failed.
const DOUBLINGS: u32 = 6;

/// Waits between two attempts at a server.
///
/// A server that was there a moment ago is likely to be back soon: 0.1 s, doubling.
/// One that was never there, or stays away, is tried at a random time in
/// `min..=max`, so that a fabric of clients does not come back all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    state: u64,
    /// Attempts since a session worked; `None` before one did.
    failures: Option<u32>,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            state: seed,
            failures: None,
        }
    }

    /// A session of this length ended with an orderly leave.
    ///
    /// One that was shorter than a long wait does not start the short waits again:
    /// a server that drops everybody after the handshake is not stormed.
    pub(crate) fn departed(&mut self, lasted: Duration) {
        if lasted >= self.min || self.failures.is_none() {
            self.failures = Some(0);
        }
    }

    /// A session ended because one of the two sides failed.
    pub(crate) fn failed(&mut self) {
        self.failures = None;
    }

    /// How long to wait now that a session ended or an attempt failed.
    pub(crate) fn next(&mut self) -> Duration {
        let exponential = self.failures.filter(|failures| *failures < DOUBLINGS);
        if let Some(failures) = exponential {
            self.failures = Some(failures + 1);
            // Within a quarter, so that clients of one server spread.
            let wait = SOON * 2u32.pow(failures);
            return (wait + wait.mul_f64(self.random() / 4.0)).clamp(LEAST, self.max.max(LEAST));
        }
        let span = self.max.saturating_sub(self.min);
        (self.min + span.mul_f64(self.random())).max(LEAST)
    }

    /// A number in `0.0..1.0` (SplitMix64).
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_of_zero_still_waits() {
        const TEN: Duration = Duration::from_millis(10);
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO, 1);
        assert_eq!(backoff.next(), TEN);
        backoff.departed(Duration::ZERO);
        assert_eq!(backoff.next(), TEN);
    }

    #[test]
    fn soon_after_a_loss_later_after_failures() {
        let (min, max) = (Duration::from_secs(5), Duration::from_secs(10));
        let mut backoff = Backoff::new(min, max, 1);
        let mut seen = Vec::new();
        for _ in 0..50 {
            seen.push(backoff.next());
        }
        assert!(seen.iter().all(|wait| (min..=max).contains(wait)));
        seen.dedup();
        assert_eq!(seen.len(), 50, "with jitter");
        backoff.departed(min);
        for doubling in 0..6 {
            let wait = backoff.next();
            let least = SOON * 2u32.pow(doubling);
            assert!((least..least * 2).contains(&wait), "{wait:?}");
        }
        assert!(backoff.next() >= min);
        backoff.departed(min / 2);
        assert!(backoff.next() >= min, "it did not last");
        backoff.departed(min);
        assert!(backoff.next() < min);
        backoff.failed();
        assert!(backoff.next() >= min);
    }
}
