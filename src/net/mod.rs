//! What the threads of server and client share: mailboxes and sockets.

mod listen;
mod mailbox;
mod queue;
mod socket;

pub(crate) use listen::listen_on_first;
pub(crate) use mailbox::{MAILBOX_WEIGHT, Mailbox, Postbox};
pub(crate) use socket::{Conn, dial, tune};
