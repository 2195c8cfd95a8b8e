//! What the HTTP thread receives through its mailbox.

use super::response::Response;

/// One message to the HTTP thread.
#[derive(Debug)]
pub(super) enum Mail {
    /// The thread ends.
    Stop,
    /// A helper made the response to a request of this connection.
    Response(ConnectionId, Response),
}

/// Identifies a connection, even after another one took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId {
    pub(super) place: usize,
    pub(super) serial: u64,
}
