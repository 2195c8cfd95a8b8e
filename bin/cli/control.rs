//! The control socket of a server or client, where that is built in.

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
use crate::cli::socket::Choice;

/// What the socket can have done by the command itself.
#[cfg(feature = "http")]
pub(crate) use rustbond::http::Actions;

/// Nobody can ask for anything.
#[cfg(not(feature = "http"))]
#[derive(Default)]
pub(crate) struct Actions;

/// What a server or client of this command can have done.
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

/// The same, where nobody can ask.
#[cfg(not(feature = "http"))]
pub(crate) fn actions(_: Reload) -> Actions {
    Actions
}

/// A control socket, if there is to be one; removed when dropped.
pub(crate) struct Control {
    #[cfg(feature = "http")]
    _socket: Option<ControlSocket>,
}

#[cfg(feature = "http")]
impl Control {
    /// Starts it where it was asked for, or at the usual place if that can be had.
    pub(crate) fn start(
        choice: Option<&Choice>,
        usual: &str,
        inspect: impl FnOnce() -> Arc<dyn Inspect>,
        actions: Actions,
    ) -> Result<Self, Failure> {
        let _socket = match choice {
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
        Ok(Self { _socket })
    }
}

/// Nobody asked for this one, so it may fail.
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
    /// There is none to start: `--control` was refused.
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
    /// Stops it, and removes it.
    pub(crate) fn stop(self) {}
}
