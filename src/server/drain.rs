//! Sessions that end one after the other, so that their peers do not all go elsewhere at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::core::rib::PeerId;
use crate::core::time::{after, bounded};
use crate::error::{Error, Result};

/// A drain that was begun.
///
/// It goes on when this is dropped.
#[derive(Debug)]
pub struct Drain {
    /// Disconnected when nobody has anything left to close.
    done: Receiver<Infallible>,
}

impl Drain {
    /// Waits until all sessions concerned have ended, or the server has.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it takes longer.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        match self.done.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Ok(never) => match never {},
        }
    }
}

/// To end all sessions over a time.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) over: Duration,
    done: Sender<Infallible>,
}

impl Order {
    pub(super) fn new(over: Duration) -> (Self, Drain) {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let order = Self {
            over: bounded(over),
            done: sender,
        };
        (order, Drain { done: receiver })
    }
}

/// The sessions of a worker that are to end.
pub(super) struct Plan {
    /// In the order of time.
    sessions: VecDeque<(Instant, PeerId)>,
    /// Those whose time has come.
    ending: Vec<PeerId>,
    /// Its end is the sign.
    _done: Sender<Infallible>,
}

impl Plan {
    /// The end of `sessions`: in random order, each at a random moment of its share of the
    /// time.
    pub(super) fn new(order: Order, sessions: Vec<PeerId>, now: Instant) -> Self {
        let random = RandomState::new();
        let place = |id: PeerId| usize::try_from(random.hash_one(id) >> 32).unwrap_or(0);
        let mut sessions: Vec<_> = sessions.into_iter().map(|id| (place(id), id)).collect();
        sessions.sort_unstable();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let share = order.over / count;
        let at = |place: u32| {
            let part = u32::try_from(random.hash_one(("moment", place)) >> 32).unwrap_or(0);
            let part = f64::from(part) / f64::from(u32::MAX);
            after(after(now, share * place), share.mul_f64(part))
        };
        let sessions = (0..).zip(sessions).map(|(place, (_, id))| (at(place), id));
        Self {
            sessions: sessions.collect(),
            ending: Vec::new(),
            _done: order.done,
        }
    }

    /// When the next session is to end.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sessions.front().map(|(at, _)| *at)
    }

    /// A session whose time has come at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<PeerId> {
        self.poll_timeout().filter(|at| *at <= now)?;
        let (_, id) = self.sessions.pop_front()?;
        self.ending.push(id);
        Some(id)
    }

    /// Whether all have ended, as `is_open` tells.
    pub(super) fn is_finished(&mut self, is_open: impl Fn(PeerId) -> bool) -> bool {
        self.ending.retain(|id| is_open(*id));
        self.ending.is_empty() && self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` sessions is closed, in milliseconds.
    fn moments(count: u32, over: Duration) -> Vec<u128> {
        let (order, drain) = Order::new(over);
        let start = Instant::now();
        let mut plan = Plan::new(order, (0..count).map(PeerId).collect(), start);
        let mut closed = Vec::new();
        let mut moments = Vec::new();
        while let Some(at) = plan.poll_timeout() {
            while let Some(id) = plan.take(at) {
                assert!(!plan.is_finished(|it| it == id), "it has not ended yet");
                closed.push(id);
                moments.push((at - start).as_millis());
            }
        }
        assert!(plan.is_finished(|_| false));
        drain.wait(Duration::ZERO).unwrap_err();
        drop(plan);
        drain.wait(Duration::ZERO).unwrap();
        closed.sort_unstable();
        assert_eq!(closed, (0..count).map(PeerId).collect::<Vec<_>>());
        moments
    }

    #[test]
    fn sessions_end_one_after_the_other_over_the_whole_time() {
        let moments = moments(1000, Duration::from_secs(10));
        for (share, moment) in (0..).zip(&moments) {
            let share = share * 10..=(share + 1) * 10;
            assert!(share.contains(moment), "{moment} ms is not in {share:?}");
        }
        let gaps: Vec<u128> = moments.windows(2).map(|it| it[1] - it[0]).collect();
        assert_ne!(gaps.iter().min(), gaps.iter().max(), "by a clock");
    }

    #[test]
    fn longest_drain_begins_and_overflows_nothing() {
        let moments = moments(3, Duration::MAX);
        assert!(moments.is_sorted(), "{moments:?}");
    }

    #[test]
    fn without_time_all_end_at_once() {
        assert_eq!(moments(3, Duration::ZERO), [0, 0, 0]);
        assert_eq!(moments(0, Duration::from_secs(10)), [0_u128; 0]);
    }
}
