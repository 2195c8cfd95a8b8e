//! Consumers that take a client's events on the client's own thread.

use crate::core::client::Event;

/// Whether a consumer can take a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It takes one now.
    Free,
    /// It takes none now, and wakes the client as soon as it does.
    Full,
    /// It takes none any more.
    Closed,
}

/// A consumer with a thread of its own: it takes events batch by batch, and never waits.
///
/// While it is full, events stay in the client, which coalesces them by route.
pub(crate) trait Intake: Send + Sync {
    /// Whether a batch can be taken. Called once in each turn of the client, and before
    /// each [`Self::take`].
    fn room(&mut self) -> Room;

    /// Takes a batch. Called after [`Self::room`] returned [`Room::Free`].
    fn take(&mut self, batch: Vec<Event>);
}

/// Wakes a client's thread, from any thread; the client then asks for room again.
pub(crate) type ClientWaker = Box<dyn Fn() + Send>;

#[cfg(test)]
mod tests;
