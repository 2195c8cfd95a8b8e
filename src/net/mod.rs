//! What the loops of server, client and HTTP share: endpoints and peers, streams, the turn of a
//! loop, mailboxes and replies.
//!
//! A new transport is a variant of `Transport` (what an [`Endpoint`] says) and of
//! [`Stream`] (what its connections can do).

mod conn;
mod endpoint;
mod listen;
mod mailbox;
mod peer;
mod queue;
mod reply;
mod socket_file;
mod stream;
mod tcp;
mod turn;
mod unix;

pub(crate) use conn::Conn;
pub use endpoint::Endpoint;
pub use listen::Listener;
pub(crate) use listen::{Acceptance, listen_on_first};
pub(crate) use mailbox::{MAILBOX_WEIGHT, Mailbox, Postbox};
pub(crate) use peer::{Peer, PeerSelector, Source};
pub(crate) use reply::Reply;
pub(crate) use socket_file::connect_path;
#[cfg(feature = "http")]
pub(crate) use socket_file::{Access, Bound};
pub(crate) use stream::Stream;
pub(crate) use turn::{READ_BUDGET, Ready, Turn, WRITE_BUDGET, Waiting, Written};
