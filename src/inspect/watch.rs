//! What happens, as it happens.

use std::time::Duration;

use crate::core::types::{Action, Route, Vni};
use crate::error::Result;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A route came or went.
    Route(Vni, Action, Route),
    /// All that was so when the watching began has been told.
    Current,
    /// A handshake is complete; the peer's name.
    PeerUp(String),
    /// A session ended; the peer's name, and why.
    PeerDown(String, String),
}

/// With what a [`Watch`] begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the next change.
    #[default]
    Now,
    /// With all routes that there are, then [`WatchEvent::Current`], then each change.
    Current,
}

/// Tells what happens; ends when dropped.
pub struct Watch {
    pub(crate) source: Box<dyn WatchSource>,
}

/// Where a [`Watch`] has its events from.
pub(crate) trait WatchSource: Send {
    /// What happened since the last call; waits for something, at most `timeout`.
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>>;
}

impl Watch {
    /// What happened since the last call; waits for something at most that long, and returns
    /// nothing then.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) once there is nothing to watch any more,
    /// [`Error::Panicked`](crate::Error::Panicked) if that is why,
    /// [`Error::Lagged`](crate::Error::Lagged) if more happened between two calls than is kept.
    pub fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        self.source.wait(timeout)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
