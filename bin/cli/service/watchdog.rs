//! Tells the service manager's watchdog that all loops turn.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustbond::Heartbeat;

use super::notify::Notifier;

pub(super) const VARIABLES: &[&str] = &["WATCHDOG_USEC", "WATCHDOG_PID"];

/// Checks in one interval of the watchdog: a loop may miss some of them.
const CHECKS: u32 = 4;

/// Returns the interval of the manager's watchdog, if it watches this process.
pub(super) fn interval_from_environment() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|it| *it != 0)
        .map(Duration::from_micros)
}

/// The watching thread. It waits for no other thread.
pub(super) struct Watch {
    pub(super) notifier: Notifier,
    pub(super) heartbeat: Heartbeat,
    pub(super) interval: Duration,
}

impl Watch {
    /// Checks the loops and reports to the manager until `stopped` is disconnected.
    pub(super) fn run(mut self, stopped: &Receiver<()>) {
        let mut alive_at = Instant::now();
        let mut has_complained = false;
        while stopped.recv_timeout(self.interval / CHECKS) == Err(RecvTimeoutError::Timeout) {
            let now = Instant::now();
            if self.heartbeat.silent().next().is_none() {
                self.notifier.alive();
                self.heartbeat.ask();
                (alive_at, has_complained) = (now, false);
            } else if now - alive_at >= self.interval / 2 && !has_complained {
                // Log once, before the manager acts.
                self.complain(now - alive_at);
                has_complained = true;
            }
        }
    }

    fn complain(&self, silence: Duration) {
        for thread in self.heartbeat.silent() {
            log::error!("thread {thread} has given no sign of life for {silence:.1?}");
        }
    }
}
