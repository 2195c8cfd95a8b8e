//! Sessions that end one after the other, so that their peers do not all go elsewhere at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::error::{Error, Result};
use crate::table::PeerId;

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

/// Whom to close, and over which time.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) concerns: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
    pub(super) over: Duration,
    done: Sender<Infallible>,
}

impl Order {
    pub(super) fn new(
        concerns: impl Fn(SocketAddr) -> bool + Send + Sync + 'static,
        over: Duration,
    ) -> (Self, Drain) {
        let (sender, receiver) = crossbeam_channel::bounded(0);
        let order = Self {
            concerns: Arc::new(concerns),
            over,
            done: sender,
        };
        (order, Drain { done: receiver })
    }
}

/// What a worker has still to close.
#[derive(Default)]
pub(super) struct Drains(Vec<Plan>);

struct Plan {
    /// In the order of time.
    sessions: VecDeque<(Instant, PeerId)>,
    /// Its end is the sign.
    _done: Sender<Infallible>,
}

impl Drains {
    /// Plans the end of `sessions`: in random order, each at a random moment of its share of
    /// the time.
    pub(super) fn begin(&mut self, order: Order, mut sessions: Vec<PeerId>, now: Instant) {
        let random = RandomState::new();
        sessions.sort_by_cached_key(|id| random.hash_one(id));
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
        let share = order.over / count;
        let at = |place: u32| {
            let part = f64::from(random.hash_one(("moment", place)) as u32) / f64::from(u32::MAX);
            now + share * place + share.mul_f64(part)
        };
        let sessions = (0..).zip(sessions).map(|(place, id)| (at(place), id));
        let _done = order.done;
        self.0.push(Plan {
            sessions: sessions.collect(),
            _done,
        });
        self.forget_finished();
    }

    /// When the next session is to be closed.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.0.iter().filter_map(|plan| plan.sessions.front());
        next.map(|(at, _)| *at).min()
    }

    /// A session to be closed at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<PeerId> {
        let is_due = |plan: &&mut Plan| plan.sessions.front().is_some_and(|(at, _)| *at <= now);
        let (_, id) = self.0.iter_mut().find(is_due)?.sessions.pop_front()?;
        Some(id)
    }

    /// Ends the plans of which nothing is left; to be called once the sessions taken are closed.
    pub(super) fn forget_finished(&mut self) {
        self.0.retain(|plan| !plan.sessions.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` sessions is closed, in milliseconds.
    fn moments(count: u32, over: Duration) -> Vec<u128> {
        let (order, drain) = Order::new(|_| true, over);
        let start = Instant::now();
        let mut drains = Drains::default();
        drains.begin(order, (0..count).map(PeerId).collect(), start);
        let mut closed = Vec::new();
        let mut moments = Vec::new();
        while let Some(at) = drains.poll_timeout() {
            assert!(drain.wait(Duration::ZERO).is_err());
            while let Some(id) = drains.take(at) {
                closed.push(id);
                moments.push((at - start).as_millis());
            }
            drains.forget_finished();
        }
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
    fn without_time_all_end_at_once_and_nobody_is_done_at_once() {
        assert_eq!(moments(3, Duration::ZERO), [0, 0, 0]);
        assert_eq!(moments(0, Duration::from_secs(10)), [0_u128; 0]);
    }
}
