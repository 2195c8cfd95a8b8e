//! Repairs, and whether somebody undoes them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::kernel::stats::{Gauges, Trouble};

/// What was lost, and is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Route,
    Object,
    Device,
}

impl Cause {
    const COUNT: usize = 3;

    const fn what(self) -> &'static str {
        match self {
            Self::Route => "routes",
            Self::Object => "nexthop objects",
            Self::Device => "the tunnel device",
        }
    }
}

/// Repairs of one kind within [`MEMORY`] that are nothing special.
const FREE: u32 = 5;
/// Pause before the first repair after those; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Losses within this time are one: somebody deletes many routes.
const BURST: Duration = Duration::from_secs(1);
/// Pause before the second repair within a burst; it doubles with each that follows. Who
/// deletes a route as often as it is written costs a few messages a second.
const AGAIN: Duration = Duration::from_millis(10);
/// A kind that was not lost again for this long after its repair is at peace.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Default)]
struct Kind {
    losses: u32,
    /// Repairs within the burst so far.
    again: u32,
    /// When the last loss was counted.
    counted: Option<Instant>,
    /// When the last repair was, or is to be.
    repair: Option<Instant>,
}

/// What was lost lately.
#[derive(Default)]
pub(super) struct Fights([Kind; Cause::COUNT]);

impl Fights {
    /// Counts a loss, once for a burst. Returns when to repair it: at once, unless it happens
    /// again and again.
    pub(super) fn lost(&mut self, cause: Cause, now: Instant, gauges: &Gauges) -> Instant {
        let kind = &mut self.0[cause as usize];
        if let (Some(counted), Some(repair)) = (kind.counted, kind.repair)
            && now < counted + BURST
        {
            if now > repair {
                let pause = AGAIN.saturating_mul(1 << kind.again.min(16)).min(BURST);
                kind.again += 1;
                kind.repair = Some(now + pause);
                return now + pause;
            }
            return repair;
        }
        gauges.repairs[cause as usize].fetch_add(1, Relaxed);
        if kind.repair.is_none_or(|at| now > at + MEMORY) {
            *kind = Kind::default();
        }
        kind.counted = Some(now);
        kind.again = 0;
        kind.losses += 1;
        let mut at = now;
        if kind.losses > FREE {
            let doublings = (kind.losses - FREE - 1).min(16);
            let pause = FIRST_PAUSE
                .saturating_mul(1 << doublings)
                .min(LONGEST_PAUSE);
            at = now + pause;
            let text = format!(
                "somebody else removes {} of this client: {} times within about a minute; \
                 the next repair waits {} s",
                cause.what(),
                kind.losses,
                pause.as_secs()
            );
            log::warn!("kernel routes: {text}");
            gauges.set_error(Trouble::Fight, text);
        }
        kind.repair = Some(at);
        at
    }

    /// When the last fight is over; `None` if there is none.
    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        let fights = self.0.iter().filter(|kind| kind.losses > FREE);
        let ends = fights.filter_map(|kind| kind.repair.map(|at| at + MEMORY));
        ends.max().filter(|end| *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route that was deleted as often as it was written took 1,000 messages in seconds.
    #[test]
    fn repairs_within_a_burst_wait_longer_and_longer() {
        let begin = Instant::now();
        let gauges = Gauges::default();
        let mut fights = Fights::default();
        let mut now = begin;
        let mut repairs = 0;
        while now < begin + BURST {
            now = fights.lost(Cause::Route, now, &gauges) + Duration::from_millis(1);
            repairs += 1;
        }
        assert_eq!(repairs, 8);
        assert_eq!(gauges.snapshot().repairs.routes, 1);
    }

    #[test]
    fn repairs_that_are_undone_again_and_again_wait_longer_and_longer() {
        let mut now = Instant::now();
        let gauges = Gauges::default();
        let mut fights = Fights::default();
        let mut pauses = Vec::new();
        for _ in 0..14 {
            let at = fights.lost(Cause::Route, now, &gauges);
            pauses.push((at - now).as_secs());
            let again = at + Duration::from_millis(1);
            assert_eq!(fights.lost(Cause::Route, now, &gauges), at, "of one burst");
            now = again.max(now + BURST);
        }
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(fights.end(now).is_some());
        let at = fights.lost(Cause::Object, now, &gauges);
        assert_eq!(at, now, "another kind is another matter");
        let end = fights.end(now).unwrap();
        assert_eq!(fights.end(end), None);
        let later = end + Duration::from_millis(1);
        assert_eq!(fights.lost(Cause::Route, later, &gauges), later);
        assert_eq!(fights.end(later), None);
        assert_eq!(gauges.snapshot().repairs.routes, 15);
    }
}
