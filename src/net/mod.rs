//! What the loops of server, client and HTTP share: endpoints and peers, streams, the turn of a
//! loop, mailboxes and replies.
//!
//! A new transport is a variant of `Transport` (how an [`Endpoint`] is written) and of
//! [`Stream`] (what its connections can do).

mod conn;
mod endpoint;
mod listen;
mod mailbox;
mod peer;
mod queue;
mod reply;
mod stream;
mod tcp;
mod turn;

pub(crate) use conn::Conn;
pub use endpoint::{Endpoint, Transport};
pub(crate) use listen::listen_on_first;
pub(crate) use mailbox::{MAILBOX_WEIGHT, Mailbox, Postbox};
pub(crate) use peer::{Peer, PeerSelector};
pub(crate) use reply::Reply;
pub(crate) use stream::Stream;
pub(crate) use turn::{READ_BUDGET, Ready, Turn, WRITE_BUDGET, Written};
