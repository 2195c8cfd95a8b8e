//! Whether the threads of a server or client still run, and how they ended.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::core::time::after;
use crate::error::{Error, Result};

/// Says whether a server or client runs, and how it ended.
///
/// Clones tell of the same server or client. They do not keep it running.
///
/// ```
/// # use rustbond::{MetalBondServer, ServerConfig};
/// # fn main() -> rustbond::Result<()> {
/// let server = MetalBondServer::start("[::1]:0", ServerConfig::default())?;
/// let life = server.life();
/// assert!(life.check().is_ok());
/// server.shutdown()?;
/// assert!(life.check().is_err());
/// life.wait()
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Life(Arc<State>);

#[derive(Default)]
struct State {
    phase: Mutex<Phase>,
    ended: Condvar,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Stopped,
    /// The thread of this name panicked.
    Panicked(String),
}

impl Phase {
    fn check(&self) -> Result<()> {
        match self {
            Self::Running => Ok(()),
            Self::Stopped => Err(Error::Closed),
            Self::Panicked(thread) => Err(Error::Panicked(thread.clone())),
        }
    }
}

impl Life {
    /// Returns `Ok` while the server or client runs. Never waits.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown; [`Error::Panicked`] if one of its threads panicked.
    pub fn check(&self) -> Result<()> {
        self.0.phase.lock().check()
    }

    /// Waits until the server or client has ended. Returns `Ok` after a shutdown.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if one of its threads panicked.
    pub fn wait(&self) -> Result<()> {
        let mut phase = self.0.phase.lock();
        while *phase == Phase::Running {
            self.0.ended.wait(&mut phase);
        }
        or_stopped(&phase)
    }

    /// As [`Self::wait`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Panicked`] if one of its threads panicked.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        let until = after(Instant::now(), timeout);
        let mut phase = self.0.phase.lock();
        while *phase == Phase::Running {
            if self.0.ended.wait_until(&mut phase, until).timed_out() {
                return Err(Error::Timeout);
            }
        }
        or_stopped(&phase)
    }

    /// Returns the error of a call that found the threads gone.
    pub(crate) fn error(&self) -> Error {
        self.check().err().unwrap_or(Error::Closed)
    }

    /// Returns what is left to say after a shutdown: whether a thread had panicked before.
    pub(crate) fn verdict(&self) -> Result<()> {
        or_stopped(&self.0.phase.lock())
    }

    /// Marks the end after a shutdown. A panic before stays known.
    pub(crate) fn stop(&self) {
        self.end(Phase::Stopped);
    }

    /// Makes a guard for a thread. If the thread panicks, the guard marks the end and then calls
    /// `at_panic`.
    pub(crate) fn guard<F: FnOnce()>(&self, thread: impl Into<String>, at_panic: F) -> Guard<F> {
        Guard {
            life: self.clone(),
            thread: thread.into(),
            at_panic: Some(at_panic),
        }
    }

    fn end(&self, how: Phase) {
        let mut phase = self.0.phase.lock();
        if *phase == Phase::Running {
            *phase = how;
            self.0.ended.notify_all();
        }
    }
}

fn or_stopped(phase: &Phase) -> Result<()> {
    match phase.check() {
        Err(Error::Closed) => Ok(()),
        other => other,
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&*self.0.phase.lock()).finish()
    }
}

/// Lives as long as a thread. See [`Life::guard`].
pub(crate) struct Guard<F: FnOnce()> {
    life: Life,
    thread: String,
    at_panic: Option<F>,
}

impl<F: FnOnce()> Drop for Guard<F> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        log::error!(
            "the thread {} panicked; everything with it ends",
            self.thread
        );
        self.life
            .end(Phase::Panicked(std::mem::take(&mut self.thread)));
        if let Some(at_panic) = self.at_panic.take() {
            at_panic();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_of_a_thread_is_known_before_and_after_a_shutdown() {
        let life = Life::default();
        assert!(matches!(
            life.wait_timeout(Duration::ZERO),
            Err(Error::Timeout)
        ));
        let guard = life.guard("some-thread", || {});
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("a test");
        });
        let panicked =
            |ended: Result<()>| matches!(ended, Err(Error::Panicked(it)) if it == "some-thread");
        assert!(panicked(life.wait_timeout(Duration::MAX)));
        assert!(panicked(life.wait()));
        assert!(thread.join().is_err());
        life.stop();
        assert!(panicked(life.check()));
        assert!(panicked(life.verdict()));
    }
}
