//! Tells the service manager that all loops turn, and how the command fares.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustbond::Heartbeat;

use super::notify::Notifier;

pub(super) const VARIABLES: &[&str] = &["WATCHDOG_USEC", "WATCHDOG_PID"];

/// How often the loops are asked and the status is looked at, if the watchdog does not want it
/// more often.
const TICK: Duration = Duration::from_secs(1);

/// Looks in one interval of the watchdog.
const TICKS: u32 = 4;

/// The interval in which the manager wants to hear of this process, if it does.
pub(super) fn interval_from_environment() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    if number("WATCHDOG_PID").is_some_and(|pid: u64| pid != std::process::id().into()) {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|it| *it != 0)
        .map(Duration::from_micros)
}

/// What the thread knows.
pub(super) struct Watch {
    notifier: Notifier,
    heartbeat: Heartbeat,
    /// The watchdog's.
    interval: Option<Duration>,
    /// As the manager knows it.
    status: String,
    /// When every loop had last given a sign of life.
    alive_at: Instant,
    has_complained: bool,
}

impl Watch {
    pub(super) fn new(
        notifier: Notifier,
        heartbeat: Heartbeat,
        interval: Option<Duration>,
        status: String,
    ) -> Self {
        Self {
            notifier,
            heartbeat,
            interval,
            status,
            alive_at: Instant::now(),
            has_complained: false,
        }
    }

    /// Looks and tells until `stopped` is disconnected.
    pub(super) fn run(mut self, stopped: &Receiver<()>, status: impl Fn() -> String) {
        let tick = self.interval.map_or(TICK, |it| TICK.min(it / TICKS));
        while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            self.look(&status);
        }
    }

    fn look(&mut self, status: impl Fn() -> String) {
        if self.heartbeat.silent().next().is_some() {
            self.complain();
            return;
        }
        self.alive_at = Instant::now();
        self.has_complained = false;
        if self.interval.is_some() {
            self.notifier.alive();
        }
        self.heartbeat.ask();
        let status = status();
        if status != self.status && self.notifier.status(&status) {
            self.status = status;
        }
    }

    /// Says once, before the manager acts, who does not turn.
    fn complain(&mut self) {
        let silence = self.alive_at.elapsed();
        let patience = self.interval.unwrap_or(TICK * TICKS) / 2;
        if silence < patience || std::mem::replace(&mut self.has_complained, true) {
            return;
        }
        for thread in self.heartbeat.silent() {
            log::error!("thread {thread} has given no sign of life for {silence:.1?}");
        }
    }
}
