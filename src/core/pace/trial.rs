//! How much a client sends a server before it knows that the way there is not slow.

use std::time::{Duration, Instant};

/// Bytes sent at first before the server must answer: 2.6 s at 25 kbit/s.
const FIRST: u64 = 8 * 1024;

/// Bytes sent before that to the slowest server: 1.3 s at 25 kbit/s.
const LEAST: u64 = 4 * 1024;

/// As many bytes that are answered quickly end the trial. What kernels hold unsent and in flight
/// takes a few seconds then.
const ENOUGH: u64 = 64 * 1024;

/// An answer in this time is quick.
const QUICK: Duration = Duration::from_secs(1);

/// An answer that takes longer than this is slow.
const SLOW: Duration = Duration::from_secs(2);

/// After this time the answer to an earlier KEEPALIVE will do: the server may have lost one.
const LATE: Duration = Duration::from_secs(4);

/// Finds out whether announcements may be given to the kernel as fast as that takes them.
///
/// A server that has nothing to tell says nothing but answers to KEEPALIVEs. Where those of the
/// client stand in the kernel behind announcements for the hold time, the client believes that
/// the server is dead. So the client waits for an answer after a few bytes, and after twice as
/// many for as long as the answers are quick.
///
/// Positions are bytes since the connection began.
#[derive(Debug)]
pub(crate) struct Trial {
    size: u64,
    /// Where its bytes began; `None` until something is queued.
    start: Option<u64>,
    /// The KEEPALIVE that stands at their end, and when it or bytes before it were sent.
    barrier: Option<(u64, Option<Instant>)>,
}

/// What an answer says of the way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is not slow: no answers are waited for any more.
    Fast,
    /// It is slow, or that is not known.
    Open,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            size: FIRST,
            start: None,
            barrier: None,
        }
    }
}

impl Trial {
    /// Returns whether more may be queued at a position.
    pub(crate) fn has_room(&mut self, position: u64) -> bool {
        let start = *self.start.get_or_insert(position);
        self.barrier.is_none() && position - start < self.size
    }

    /// Returns whether a KEEPALIVE is to be sent at a position. Its number is told to
    /// [`Self::close`].
    pub(crate) fn wants_barrier(&self, position: u64) -> bool {
        let is_full = self
            .start
            .is_some_and(|start| position - start >= self.size);
        self.barrier.is_none() && is_full
    }

    /// Nothing more is queued until the KEEPALIVE of this number is answered.
    pub(crate) const fn close(&mut self, barrier: u64) {
        self.barrier = Some((barrier, None));
    }

    /// Tells that bytes were sent at `now`.
    pub(crate) fn sent(&mut self, now: Instant) {
        if let Some((_, asked_at)) = &mut self.barrier {
            asked_at.get_or_insert(now);
        }
    }

    /// So many KEEPALIVEs are answered at `now`.
    pub(crate) fn answered(&mut self, count: u64, now: Instant) -> Finding {
        let Some((barrier, Some(asked_at))) = self.barrier else {
            return Finding::Open;
        };
        let took = now.saturating_duration_since(asked_at);
        if count < barrier && took < LATE {
            return Finding::Open;
        }
        if took <= QUICK {
            if self.size >= ENOUGH {
                return Finding::Fast;
            }
            self.size *= 2;
        } else if took > SLOW {
            self.size = (self.size / 2).max(LEAST);
        }
        (self.start, self.barrier) = (None, None);
        Finding::Open
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    /// Fills a trial, and has the server answer after a time. Returns how many bytes were queued.
    fn round(trial: &mut Trial, took: Duration) -> (u64, Finding) {
        let now = Instant::now();
        let bytes = (0..).find(|it| !trial.has_room(*it)).unwrap();
        assert!(trial.wants_barrier(bytes) && !trial.wants_barrier(bytes - 1));
        trial.close(7);
        trial.sent(now);
        assert!(!trial.has_room(bytes) && !trial.wants_barrier(bytes));
        assert_eq!(
            trial.answered(6, now + took.min(LATE - QUICK)),
            Finding::Open
        );
        assert!(!trial.has_room(bytes), "another KEEPALIVE was answered");
        (bytes, trial.answered(7, now + took))
    }

    #[test]
    fn quick_answers_end_the_trial_after_a_few_rounds() {
        let mut trial = Trial::default();
        for expected in [8, 16, 32] {
            let expected = (expected * 1024, Finding::Open);
            assert_eq!(round(&mut trial, Duration::from_millis(100)), expected);
        }
        let (bytes, finding) = round(&mut trial, QUICK);
        assert_eq!((bytes, finding), (ENOUGH, Finding::Fast));
    }

    #[test]
    fn server_that_does_not_answer_one_keepalive_is_sent_more_after_the_next() {
        let now = Instant::now();
        let mut trial = Trial::default();
        assert!(trial.has_room(0) && !trial.has_room(FIRST));
        trial.close(7);
        trial.sent(now);
        assert_eq!(trial.answered(6, now + LATE), Finding::Open);
        assert!(trial.has_room(FIRST));
    }

    #[test]
    fn slow_answers_keep_the_bytes_few() {
        let mut trial = Trial::default();
        let sizes = [3, 3, 2, 3].map(|it| round(&mut trial, Duration::from_secs(it)).0);
        assert_eq!(sizes, [FIRST, LEAST, LEAST, LEAST]);
        let more = [1, 1].map(|it| round(&mut trial, Duration::from_secs(it)).0);
        assert_eq!(more, [LEAST, FIRST], "the way has become faster");
    }
}
