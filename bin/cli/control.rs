//! The control socket of a server or client, if this binary has it.

#[cfg(feature = "http")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "http")]
use rustbond::http::ControlSocket;
use rustbond::inspect::Inspect;

use crate::cli::failure::Failure;
#[cfg(feature = "http")]
use crate::cli::logging;
use crate::cli::reload::Reload;
use crate::cli::signals::Ender;
use crate::cli::socket::Choice;

/// The actions that the control socket asks of the command itself.
#[cfg(feature = "http")]
pub(crate) use rustbond::http::Actions;

/// No actions: this binary has no control socket.
#[cfg(not(feature = "http"))]
#[derive(Default)]
pub(crate) struct Actions;

/// Returns the actions of a running server or client.
#[cfg(feature = "http")]
pub(crate) fn actions(reload: Reload) -> Actions {
    let mut actions = Actions::default();
    actions.set_log_level = Some(Box::new(|level| {
        logging::set_level(level);
        let level = level.to_string().to_lowercase();
        Ok(format!("logging from level {level} on"))
    }));
    actions.reload = Some(Box::new(move || match reload() {
        Ok(summary) => Ok(summary.to_string()),
        Err(failure) => Err(failure.to_string()),
    }));
    actions
}

/// Returns no actions: this binary has no control socket.
#[cfg(not(feature = "http"))]
pub(crate) fn actions(_: Reload) -> Actions {
    Actions
}

/// A control socket, if one is wanted; removed when dropped.
pub(crate) struct Control {
    #[cfg(feature = "http")]
    socket: Option<ControlSocket>,
}

#[cfg(feature = "http")]
impl Control {
    /// Starts the socket at the place of `--control`, or at the usual place if that is possible.
    pub(crate) fn start(
        choice: Option<&Choice>,
        usual: &str,
        inspect: impl FnOnce() -> Arc<dyn Inspect>,
        actions: Actions,
    ) -> Result<Self, Failure> {
        let socket = match choice {
            Some(Choice::Off) => None,
            Some(Choice::At(path)) => {
                let socket = ControlSocket::start(path, inspect(), actions);
                Some(socket.map_err(|error| {
                    let path = path.display();
                    Failure::RunTime(format!("--control {path}: {error}"))
                })?)
            }
            None => start_usual(Path::new(usual), inspect, actions),
        };
        Ok(Self { socket })
    }
}

/// Starts the socket at the usual place. A failure is logged: nobody asked for this socket.
#[cfg(feature = "http")]
fn start_usual(
    path: &Path,
    inspect: impl FnOnce() -> Arc<dyn Inspect>,
    actions: Actions,
) -> Option<ControlSocket> {
    let folder = path.parent().unwrap_or(path);
    if !folder.is_dir() {
        let folder = folder.display();
        log::info!("no control socket: {folder} is not there; --control PATH says where else");
        return None;
    }
    match ControlSocket::start(path, inspect(), actions) {
        Ok(socket) => Some(socket),
        Err(error) => {
            let path = path.display();
            log::warn!("no control socket: {path}: {error}; --control PATH says where else");
            None
        }
    }
}

#[cfg(not(feature = "http"))]
impl Control {
    /// Starts nothing: this binary has no control socket, and `--control` was refused.
    pub(crate) fn start(
        _: Option<&Choice>,
        _: &str,
        _: impl FnOnce() -> Arc<dyn Inspect>,
        _: Actions,
    ) -> Result<Self, Failure> {
        Ok(Self {})
    }
}

impl Control {
    /// Has the command end when the thread of the socket panics.
    pub(crate) fn end_with(&self, _ender: &Ender) -> Result<(), Failure> {
        #[cfg(feature = "http")]
        if let Some(socket) = &self.socket {
            return _ender.end_with(socket.life());
        }
        Ok(())
    }

    /// Stops listening and removes the socket.
    pub(crate) fn stop(self) {}
}
