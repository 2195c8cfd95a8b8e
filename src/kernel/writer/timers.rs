//! The times that the writer's loop waits for.

use std::time::Instant;

/// What a time is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Reads the kernel's state again.
    Resync,
    /// Reads it again, to see who owns the routes that were refused because they exist.
    Doubt,
    /// Reads it again without a reason.
    Check,
    /// Tries refused routes again.
    Retry,
    /// Writes again what somebody else removed.
    Repair,
    /// Asks which underlay addresses can be reached.
    Ways,
    /// Sees that nobody has undone repairs for a while.
    Peace,
    /// Ends the time without [`Self::Doubt`] after a reading. Wakes nobody.
    DoubtPause,
    /// Ends the time without log lines about refused routes. Wakes nobody.
    LogPause,
}

impl Timer {
    const COUNT: usize = 9;

    /// Those that the loop wakes up for.
    const WAKING: [Self; 7] = [
        Self::Resync,
        Self::Doubt,
        Self::Check,
        Self::Retry,
        Self::Repair,
        Self::Ways,
        Self::Peace,
    ];
}

/// When each timer expires, if it is set.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::COUNT]);

impl Timers {
    pub(super) const fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    pub(super) const fn is_set(&self, timer: Timer) -> bool {
        self.get(timer).is_some()
    }

    /// Whether a timer is set and has expired.
    pub(super) fn is_due(&self, timer: Timer, now: Instant) -> bool {
        self.get(timer).is_some_and(|at| at <= now)
    }

    pub(super) const fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets a timer that is not set; one that is set stays as it is.
    pub(super) fn set_if_unset(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize].get_or_insert(at);
    }

    /// Sets a timer, but not to a later time.
    pub(super) fn set_at_latest(&mut self, timer: Timer, at: Instant) {
        let earliest = self.get(timer).map_or(at, |before| before.min(at));
        self.set(timer, earliest);
    }

    pub(super) const fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// When the loop has to wake up.
    pub(super) fn next(&self) -> Option<Instant> {
        let times = Timer::WAKING.into_iter().filter_map(|it| self.get(it));
        times.min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_keep_the_time_that_their_setter_promises() {
        let now = Instant::now();
        let at = |ms: u64| now + Duration::from_millis(ms);
        let mut timers = Timers::default();
        assert_eq!(timers.next(), None);
        timers.set(Timer::LogPause, at(1));
        assert_eq!(timers.next(), None, "a pause wakes nobody");
        timers.set_at_latest(Timer::Resync, at(20));
        timers.set_at_latest(Timer::Resync, at(10));
        timers.set_at_latest(Timer::Resync, at(30));
        timers.set_if_unset(Timer::Retry, at(40));
        timers.set_if_unset(Timer::Retry, at(5));
        assert_eq!(timers.get(Timer::Resync), Some(at(10)));
        assert_eq!(timers.get(Timer::Retry), Some(at(40)));
        assert_eq!(timers.next(), Some(at(10)));
        assert!(!timers.is_due(Timer::Resync, at(9)) && timers.is_due(Timer::Resync, at(10)));
        timers.clear(Timer::Resync);
        assert!(!timers.is_set(Timer::Resync) && !timers.is_due(Timer::Resync, at(99)));
        assert_eq!(timers.next(), Some(at(40)));
    }
}
