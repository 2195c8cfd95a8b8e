//! A Unix socket that shows and changes a running server or client.
//!
//! ```text
//! ControlSocket --Stop--> metalbond-control: listener
//!                              | one thread for each of at most 16 connections
//!                              v
//!                         metalbond-request: reads, asks the loops, answers
//! ```
//!
//! It speaks HTTP/1.1, answers all requests that the HTTP server answers, and those that change
//! something. Only the user that runs the process may connect. The thread of a connection waits
//! for its peer, with a time limit; no other thread waits for it.

mod change;
mod connection;
mod context;
mod listener;
mod monitor;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use log::LevelFilter;

use crate::error::{Error, Result};
use crate::inspect::Inspect;
use crate::life::Life;
use crate::net::{Access, Bound, Postbox};
use context::Context;
use listener::{Listener, Stop};

const THREAD_NAME: &str = "metalbond-control";

/// Actions of the program around the server or client. `None`: the program has no such action.
///
/// An action returns a text for the user: its result, or why it failed.
#[derive(Default)]
#[non_exhaustive]
pub struct Actions {
    /// Changes the log level.
    pub set_log_level: Option<Box<dyn Fn(LevelFilter) -> Outcome + Send + Sync>>,
    /// Reads the configuration again.
    pub reload: Option<Box<dyn Fn() -> Outcome + Send + Sync>>,
}

/// The result of an action, or why it failed.
pub type Outcome = std::result::Result<String, String>;

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions")
            .field("set_log_level", &self.set_log_level.is_some())
            .field("reload", &self.reload.is_some())
            .finish()
    }
}

/// A running control socket.
///
/// [`Self::shutdown`] and dropping it stop it. Both end all its threads, wait for them, and remove
/// the socket.
pub struct ControlSocket {
    path: PathBuf,
    postbox: Postbox<Stop>,
    thread: Option<JoinHandle<()>>,
    life: Life,
}

impl ControlSocket {
    /// Listens on a socket at `path`, of mode 0600. Replaces a socket that a dead process left.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made, a living process listens on it, or the file at `path` is no
    /// socket.
    pub fn start(
        path: impl AsRef<Path>,
        inspect: Arc<dyn Inspect>,
        actions: Actions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let bound =
            Bound::new(path, Access::Owner).map_err(Error::io("listen on the control socket"))?;
        let context = Context::new(inspect, actions);
        let (listener, postbox) =
            Listener::new(bound, context).map_err(Error::io("register the control socket"))?;
        let life = Life::default();
        let (guard, ended) = (life.guard(THREAD_NAME, || {}), life.clone());
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || {
                let _guard = guard;
                listener.run();
                ended.stop();
            })
            .map_err(Error::io("start a thread"))?;
        log::info!("control socket at {}", path.display());
        Ok(Self {
            path: path.into(),
            postbox,
            thread: Some(thread),
            life,
        })
    }

    /// Whether the socket's thread still runs, and how it ended. A request of which the thread
    /// panics ends its own connection only.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops it. Responses that are being sent are cut off.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.postbox.post(Stop, 1);
        if thread.join().is_err() {
            log::error!("the control thread had panicked");
        }
    }
}

impl fmt::Debug for ControlSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSocket")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.stop();
    }
}
