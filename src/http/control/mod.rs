//! A Unix socket to look at a running server or client, and to change it.
//!
//! ```text
//! ControlSocket --Stop--> metalbond-control: listener
//!                              | one thread for each of at most 16 connections
//!                              v
//!                         metalbond-request: reads, asks the loops, answers
//! ```
//!
//! It speaks HTTP/1.1 with the router of the HTTP server, and answers requests that change
//! something besides. Only the user that runs the process may connect. A thread for each
//! connection may wait for its peer, with a limit; nobody waits for the thread.

mod change;
mod connection;
mod listener;
mod monitor;
mod path;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use log::LevelFilter;

use crate::error::{Error, Result};
use crate::inspect::Inspect;
use crate::net::Postbox;
use listener::{Listener, Shared, Stop};
use path::Bound;

/// What is done by the program around the server or client, if it can be done.
///
/// An action returns what became of it, or why it failed, in words for its user.
#[derive(Default)]
#[non_exhaustive]
pub struct Actions {
    /// Changes from which level on is logged.
    pub set_log_level: Option<Box<dyn Fn(LevelFilter) -> Outcome + Send + Sync>>,
    /// Reads the configuration again.
    pub reload: Option<Box<dyn Fn() -> Outcome + Send + Sync>>,
}

/// What became of an action.
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
/// Stops when told to by [`Self::shutdown`], or when dropped; both end all its threads, wait
/// for them, and remove the socket.
pub struct ControlSocket {
    path: PathBuf,
    postbox: Postbox<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl ControlSocket {
    /// Listens on a socket at `path`, of mode 0600. One that a dead process left is replaced.
    ///
    /// # Errors
    ///
    /// A path that cannot be listened on, also because a living process does or because
    /// something else than a socket is there.
    pub fn start(
        path: impl AsRef<Path>,
        inspect: Arc<dyn Inspect>,
        actions: Actions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let bound = Bound::new(path).map_err(Error::io("listen on the control socket"))?;
        let shared = Shared::new(inspect, actions);
        let (listener, postbox) =
            Listener::new(bound, shared).map_err(Error::io("register the control socket"))?;
        let thread = std::thread::Builder::new()
            .name("metalbond-control".into())
            .spawn(move || listener.run())
            .map_err(Error::io("start a thread"))?;
        log::info!("control socket at {}", path.display());
        Ok(Self {
            path: path.into(),
            postbox,
            thread: Some(thread),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops it; who is being answered is cut off.
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
