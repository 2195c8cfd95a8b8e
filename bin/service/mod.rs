//! Life under a service manager: sockets that it passes, and what it is told.
//!
//! [`Environment::take`] reads what the manager says (sd_listen_fds(3), sd_notify(3)); a
//! [`Service`] tells it that the command is ready, how it fares, and that its loops turn. Without
//! a manager both do nothing.

mod activation;
mod notify;
mod watchdog;

use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use rustbond::Heartbeat;

pub(crate) use activation::Passed;
pub(crate) use notify::Notifier;

/// What a service manager passes in environment variables.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) sockets: Passed,
    notifier: Option<Notifier>,
    watchdog: Option<std::time::Duration>,
}

impl Environment {
    /// Reads the variables and removes them, so that nothing inherits what is meant for this
    /// process.
    ///
    /// To be called first of all: the environment belongs to no thread.
    pub(crate) fn take() -> Self {
        let environment = Self {
            sockets: Passed::from_environment(),
            notifier: Notifier::from_environment(),
            watchdog: watchdog::interval_from_environment(),
        };
        let mine = [activation::VARIABLES, notify::VARIABLES, watchdog::VARIABLES];
        for variable in mine.into_iter().flatten() {
            #[allow(unsafe_code, reason = "there is no other way to change the environment")]
            // SAFETY: no other thread runs yet.
            unsafe {
                std::env::remove_var(variable);
            }
        }
        environment
    }
}

/// What a service manager is told; stops when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    notifier: Option<Notifier>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Says that the command is ready, and from then on what `status` says, when that changes.
    ///
    /// The manager's watchdog hears of it as long as all loops of `heartbeat` turn. `status` is
    /// asked only then.
    pub(crate) fn start(
        environment: Environment,
        heartbeat: Heartbeat,
        status: impl Fn() -> String + Send + 'static,
    ) -> Self {
        let Environment {
            notifier, watchdog, ..
        } = environment;
        let mut service = Self {
            notifier,
            stop: None,
            thread: None,
        };
        let Some(notifier) = service.notifier.clone() else {
            return service;
        };
        let first = status();
        notifier.ready(&first);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let watch = watchdog::Watch::new(notifier, heartbeat, watchdog, first);
        let thread = std::thread::Builder::new().name("metalbond-notify".into());
        match thread.spawn(move || watch.run(&stopped, status)) {
            Ok(thread) => {
                service.stop = Some(stop);
                service.thread = Some(thread);
            }
            Err(error) => log::error!("the service manager is not kept informed: {error}"),
        }
        service
    }

    /// What tells of a reload, from any thread.
    #[allow(dead_code, reason = "for the reload of the configuration")]
    pub(crate) fn notifier(&self) -> Option<Notifier> {
        self.notifier.clone()
    }

    /// Says that the command is about to end.
    pub(crate) fn stopping(&self) {
        if let Some(notifier) = &self.notifier {
            notifier.stopping();
        }
    }

    /// Lets go of `status` and `heartbeat`, once it is through with the call it is in.
    pub(crate) fn stop(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread for the service manager had panicked");
        }
    }
}
