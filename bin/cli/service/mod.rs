//! The service manager: sockets that it passes, and reports to it.
//!
//! [`Environment::take`] reads what the manager passes (sd_listen_fds(3), sd_notify(3)). A
//! [`Service`] reports that the command is ready, its status, and that its loops turn. Without a
//! manager both do nothing.

mod activation;
mod notify;
mod watchdog;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustbond::Heartbeat;

use crate::cli::reload::Reload;
use activation::Passed;
use notify::Notifier;
use watchdog::Watch;

/// What a service manager passes in environment variables.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) sockets: Passed,
    notifier: Option<Notifier>,
    watchdog: Option<Duration>,
}

impl Environment {
    /// Reads the variables and removes them, so that no child process inherits them.
    ///
    /// Must be called before any thread is started: threads share the environment.
    pub(crate) fn take() -> Self {
        let environment = Self {
            sockets: Passed::from_environment(),
            notifier: Notifier::from_environment(),
            watchdog: watchdog::interval_from_environment(),
        };
        let mine = [
            activation::VARIABLES,
            notify::VARIABLES,
            watchdog::VARIABLES,
        ];
        for variable in mine.into_iter().flatten() {
            #[allow(
                unsafe_code,
                reason = "there is no other way to change the environment"
            )]
            // SAFETY: no other thread runs yet.
            unsafe {
                std::env::remove_var(variable);
            }
        }
        environment
    }
}

/// Formats a number of things, as `2 peers`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// How often the status is checked for changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Reports to the service manager.
#[derive(Debug)]
pub(crate) struct Service {
    notifier: Option<Notifier>,
    /// Dropped to end the threads.
    stop: Sender<()>,
    stopped: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Reports that the command is ready, and from then on each change of `status`. Reports to
    /// the manager's watchdog as long as all loops of `heartbeat` turn.
    pub(crate) fn start(
        environment: Environment,
        heartbeat: Heartbeat,
        status: impl Fn() -> String + Send + 'static,
    ) -> Self {
        let Environment {
            notifier, watchdog, ..
        } = environment;
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let mut service = Self {
            notifier,
            stop,
            stopped,
            threads: Vec::new(),
        };
        let Some(notifier) = service.notifier.clone() else {
            return service;
        };
        let first = status();
        notifier.ready(&first);
        if let Some(interval) = watchdog {
            let watch = Watch {
                notifier: notifier.clone(),
                heartbeat,
                interval,
            };
            service.spawn("metalbond-watch", move |stopped| watch.run(stopped));
        }
        service.spawn("metalbond-status", move |stopped| {
            report(&notifier, stopped, first, status);
        });
        service
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Receiver<()>) + Send + 'static) {
        let stopped = self.stopped.clone();
        let thread = std::thread::Builder::new().name(name.into());
        match thread.spawn(move || run(&stopped)) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => log::error!("the service manager is not kept informed: {error}"),
        }
    }

    /// Wraps a reload so that it is reported to the manager.
    pub(crate) fn tell_of(&self, reload: Reload) -> Reload {
        let Some(notifier) = self.notifier.clone() else {
            return reload;
        };
        Arc::new(move || {
            let _reloading = notifier.reloading();
            reload()
        })
    }

    /// Reports that the command is about to end.
    pub(crate) fn stopping(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.stopping();
        }
    }

    /// Stops the threads, and with them drops `status`.
    pub(crate) fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread for the service manager had panicked");
            }
        }
    }
}

/// Reports each change of the status until `stopped` is disconnected.
///
/// Runs on a thread of its own: `status` may have to wait for a loop that hangs.
fn report(
    notifier: &Notifier,
    stopped: &Receiver<()>,
    mut known: String,
    status: impl Fn() -> String,
) {
    while stopped.recv_timeout(STATUS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let status = status();
        if status != known && notifier.status(&status) {
            known = status;
        }
    }
}
