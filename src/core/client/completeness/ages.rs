//! The clocks of the stale copies of a VNI.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Patience, is_past};
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
    pub(super) fn of(&self, cause: Cause, now: Instant, patience: &Patience) -> Age {
        let is_taken = |age: &Age| self.clocks.iter().any(|clock| clock.age == *age);
        let free = || Age::all().find(|age| !is_taken(age));
        let Some(youngest) = self.clocks.back() else {
            return Age::FIRST;
        };
        let is_crowded =
            self.clocks.len() >= OWN && !is_past(youngest.start, patience.stale_time / SHARES, now);
        let is_same = youngest.start == now && youngest.cause == cause;
        match is_same || is_crowded {
            true => youngest.age,
            false => free().unwrap_or(youngest.age),
        }
    }

    /// Something of an age became stale.
    pub(super) fn begin(&mut self, age: Age, cause: Cause, now: Instant) {
        if let Some(clock) = self.clocks.iter_mut().find(|it| it.age == age) {
            // Where they share a clock, what is told again is not lost.
            if cause == Cause::AskedAgain {
                clock.cause = cause;
            }
            return;
        }
        let start = now;
        self.clocks.push_back(Clock { age, start, cause });
    }

    /// Takes an age whose time is over.
    pub(super) fn take_over(&mut self, now: Instant, patience: &Patience) -> Option<Age> {
        let is_over = |it: &Clock| is_past(it.start, patience.time(it.cause), now);
        let at = self.clocks.iter().position(is_over)?;
        self.clocks.remove(at).map(|clock| clock.age)
    }

    /// Returns when the first time is over.
    pub(super) fn due(&self, patience: &Patience) -> Option<Instant> {
        let due = |it: &Clock| it.start.checked_add(patience.time(it.cause));
        self.clocks.iter().filter_map(due).min()
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

    use std::time::Duration;

    use super::*;

    const PATIENCE: Patience = Patience {
        stale_time: Duration::from_secs(310),
        settle_time: Duration::ZERO,
    };

    /// However often servers are lost, there is a clock, and none is early by more than a share.
    #[test]
    fn copies_of_many_losses_stay_for_nearly_the_stale_time() {
        for pause_ms in [1, 100, 5_000, 9_700, 20_000] {
            let mut ages = Ages::default();
            let mut now = Instant::now();
            for number in 0..2_000 {
                while ages.take_over(now, &PATIENCE).is_some() {}
                let age = ages.of(Cause::Lost, now, &PATIENCE);
                ages.begin(age, Cause::Lost, now);
                let clock = ages.clocks.iter().find(|it| it.age == age).unwrap();
                let early = now - clock.start;
                let share = PATIENCE.stale_time / SHARES;
                assert!(early < share, "{pause_ms} ms: {early:?}");
                assert!(number >= OWN || early.is_zero(), "each has its own");
                now += Duration::from_millis(pause_ms);
            }
        }
    }

    #[test]
    fn losses_at_one_moment_share_a_clock() {
        let now = Instant::now();
        let mut ages = Ages::default();
        let of = |ages: &Ages, cause, now| ages.of(cause, now, &PATIENCE);
        ages.begin(of(&ages, Cause::Lost, now), Cause::Lost, now);
        assert_eq!(of(&ages, Cause::Lost, now), Age::FIRST);
        assert_ne!(of(&ages, Cause::AskedAgain, now), Age::FIRST);
        let later = now + Duration::from_millis(1);
        assert_ne!(of(&ages, Cause::Lost, later), Age::FIRST);
    }

    /// A table that is told again takes its time, however short the stale time is.
    #[test]
    fn copies_that_are_told_again_outlive_those_that_are_lost() {
        let start = Instant::now();
        let patience = Patience {
            stale_time: Duration::ZERO,
            ..PATIENCE
        };
        let mut ages = Ages::default();
        let again = ages.of(Cause::AskedAgain, start, &patience);
        ages.begin(again, Cause::AskedAgain, start);
        let lost = ages.of(Cause::Lost, start, &patience);
        ages.begin(lost, Cause::Lost, start);
        assert_eq!(ages.due(&patience), Some(start));
        assert_eq!(ages.take_over(start, &patience), Some(lost));
        assert_eq!(ages.take_over(start, &patience), None);
        let due = ages.due(&patience).unwrap();
        assert_eq!(ages.take_over(due, &patience), Some(again));
    }
}
