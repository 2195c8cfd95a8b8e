//! When the command ends: at SIGINT, at SIGTERM, or when it has nothing left to do.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use rustbond::Life;

use crate::cli::failure::Failure;

/// Why to end.
#[derive(Debug)]
pub(crate) enum Reason {
    Interrupt,
    Terminate,
    /// Nobody reads the output, and the command has no other work.
    NobodyReads,
    /// Something failed.
    Failed(Failure),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupt => f.write_str("SIGINT"),
            Self::Terminate => f.write_str("SIGTERM"),
            Self::NobodyReads => f.write_str("nobody reads the output"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// Can ask the command to end.
#[derive(Clone, Debug)]
pub(crate) struct Ender(SyncSender<Reason>);

impl Ender {
    /// Asks the command to end; only the first call has an effect.
    pub(crate) fn end(&self, reason: Reason) {
        if self.0.try_send(reason).is_err() {
            log::debug!("already shutting down");
        }
    }
}

impl Ender {
    /// Ends the command with a failure when one of the threads of `life` panics, so that the
    /// service manager starts it again: it must not live on without a part of it.
    pub(crate) fn end_with(&self, life: Life) -> Result<(), Failure> {
        let ender = self.clone();
        let watch = move || {
            if let Err(error) = life.wait() {
                ender.end(Reason::Failed(error.into()));
            }
        };
        let thread = std::thread::Builder::new().name("metalbond-life".into());
        let spawned = thread.spawn(watch);
        spawned
            .map(drop)
            .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))
    }
}

/// Waits for the end.
#[derive(Debug)]
pub(crate) struct Ending(Receiver<Reason>);

impl Ending {
    /// Waits until the command is asked to end.
    ///
    /// # Errors
    ///
    /// The failure that is the reason.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        match self.0.recv() {
            Ok(Reason::Failed(failure)) => Err(failure),
            Ok(reason) => {
                log::info!("ending: {reason}");
                Ok(())
            }
            // Every `Ender` is gone: nothing can ask any more.
            Err(_) => Ok(()),
        }
    }
}

/// Signals that follow the first within this time are that one again: `timeout`, for one, sends
/// its signal to the process and to its group.
const DOUBLED: Duration = Duration::from_secs(1);

/// Catches SIGINT and SIGTERM from here on. The first signal asks for the end; one that comes
/// more than a second later ends the process at once.
pub(crate) fn catch() -> Result<(Ender, Ending), Failure> {
    let failed = |error| Failure::RunTime(format!("cannot catch signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (sender, receiver) = sync_channel(1);
    let ender = Ender(sender);
    let at_signal = ender.clone();
    let forward = move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever() {
            if first.is_some_and(|first| first.elapsed() >= DOUBLED) {
                low_level::exit(128 + signal);
            }
            first.get_or_insert_with(Instant::now);
            at_signal.end(match signal {
                SIGINT => Reason::Interrupt,
                _ => Reason::Terminate,
            });
        }
    };
    std::thread::Builder::new()
        .name("metalbond-signals".into())
        .spawn(forward)
        .map_err(failed)?;
    Ok((ender, Ending(receiver)))
}

/// A catcher of SIGHUP.
pub(crate) struct Hangups(Signals);

/// Catches SIGHUP from here on: it never ends the process.
pub(crate) fn catch_hangups() -> Result<Hangups, Failure> {
    let signals = Signals::new([SIGHUP]);
    let signals =
        signals.map_err(|error| Failure::RunTime(format!("cannot catch SIGHUP: {error}")));
    signals.map(Hangups)
}

impl Hangups {
    /// Calls `act` at each SIGHUP, on a thread of its own. Signals during a call count as one.
    pub(crate) fn call(self, act: impl Fn() + Send + 'static) -> Result<(), Failure> {
        let Self(mut signals) = self;
        let thread = std::thread::Builder::new().name("metalbond-reload".into());
        let spawned = thread.spawn(move || signals.forever().for_each(|_| act()));
        spawned
            .map(drop)
            .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))
    }
}

/// Runs the last steps of `what` on a thread, and returns after `limit` if they are not done.
pub(crate) fn within(limit: Duration, what: &str, steps: impl FnOnce() + Send + 'static) {
    let (done, is_done) = sync_channel::<()>(1);
    let run = move || {
        steps();
        drop(done);
    };
    match std::thread::Builder::new().spawn(run) {
        Ok(_) => {
            // Nothing is sent: the drop of the sender is the signal.
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                log::warn!("{what} did not stop within {limit:?}");
            }
        }
        Err(error) => log::error!("cannot start a thread: {error}"),
    }
}
