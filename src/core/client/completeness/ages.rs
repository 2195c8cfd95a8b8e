//! The clocks of the stale copies of a VNI.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::is_past;
use crate::core::client::view::Age;

/// Losses at different moments that have a clock each. Later ones share the youngest clock, until
/// that is a [`SHARES`]th of the stale time old.
const OWN: usize = 32;

/// Clocks that begin in a stale time at most, beyond [`OWN`]. A copy that shares one goes early,
/// by as much.
const SHARES: u32 = 31;

const _: () = assert!(OWN + SHARES as usize <= Age::COUNT);

/// When losses were whose copies are stale, oldest first.
///
/// No loss is ever renewed by a later one: what a server had that is lost later has that clock.
#[derive(Debug, Default)]
pub(super) struct Ages {
    clocks: VecDeque<Clock>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    age: Age,
    start: Instant,
    cause: Cause,
}

/// Why copies are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core::client) enum Cause {
    /// The server was lost.
    Lost,
    /// The server is to tell its table again.
    AskedAgain,
}

impl Ages {
    pub(super) fn is_empty(&self) -> bool {
        self.clocks.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.clocks.clear();
    }

    /// Returns the age of what becomes stale at `now`.
    pub(super) fn of(&self, cause: Cause, now: Instant, stale_time: Duration) -> Age {
        let is_taken = |age: &Age| self.clocks.iter().any(|clock| clock.age == *age);
        let free = || Age::all().find(|age| !is_taken(age));
        let Some(youngest) = self.clocks.back() else {
            return Age::FIRST;
        };
        let is_crowded =
            self.clocks.len() >= OWN && !is_past(youngest.start, stale_time / SHARES, now);
        let is_same = youngest.start == now && youngest.cause == cause;
        match is_same || is_crowded {
            true => youngest.age,
            false => free().unwrap_or(youngest.age),
        }
    }

    /// Something of an age became stale. Returns when that began.
    pub(super) fn begin(&mut self, age: Age, cause: Cause, now: Instant) -> Instant {
        if let Some(clock) = self.clocks.iter_mut().find(|it| it.age == age) {
            // Where they share a clock, what is told again is not lost.
            if cause == Cause::AskedAgain {
                clock.cause = cause;
            }
            return clock.start;
        }
        let start = now;
        self.clocks.push_back(Clock { age, start, cause });
        now
    }

    /// Takes an age whose stale time is over.
    pub(super) fn take_over(&mut self, now: Instant, stale_time: Duration) -> Option<Age> {
        let &Clock { age, start, .. } = self.clocks.front()?;
        if !is_past(start, stale_time, now) {
            return None;
        }
        self.clocks.pop_front();
        Some(age)
    }

    /// Returns when the oldest began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.clocks.front().map(|clock| clock.start)
    }

    /// The ages whose cause is one that `which` takes, each with its begin.
    pub(super) fn of_cause(
        &self,
        which: impl Fn(Cause) -> bool,
    ) -> impl Iterator<Item = (Instant, Age)> {
        let clocks = self.clocks.iter().filter(move |clock| which(clock.cause));
        clocks.map(|clock| (clock.start, clock.age))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

    use super::*;

    const STALE_TIME: Duration = Duration::from_secs(310);

    /// However often servers are lost, there is a clock, and none is early by more than a share.
    #[test]
    fn copies_of_many_losses_stay_for_nearly_the_stale_time() {
        for pause_ms in [1, 100, 5_000, 9_700, 20_000] {
            let mut ages = Ages::default();
            let mut now = Instant::now();
            for number in 0..2_000 {
                while ages.take_over(now, STALE_TIME).is_some() {}
                let age = ages.of(Cause::Lost, now, STALE_TIME);
                let start = ages.begin(age, Cause::Lost, now);
                let early = now - start;
                assert!(early < STALE_TIME / SHARES, "{pause_ms} ms: {early:?}");
                assert!(number >= OWN || early.is_zero(), "each has its own");
                now += Duration::from_millis(pause_ms);
            }
        }
    }

    #[test]
    fn losses_at_one_moment_share_a_clock() {
        let now = Instant::now();
        let mut ages = Ages::default();
        let of = |ages: &Ages, cause, now| ages.of(cause, now, STALE_TIME);
        ages.begin(of(&ages, Cause::Lost, now), Cause::Lost, now);
        assert_eq!(of(&ages, Cause::Lost, now), Age::FIRST);
        assert_ne!(of(&ages, Cause::AskedAgain, now), Age::FIRST);
        let later = now + Duration::from_millis(1);
        assert_ne!(of(&ages, Cause::Lost, later), Age::FIRST);
    }
}
