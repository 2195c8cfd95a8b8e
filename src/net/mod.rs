//! What the threads of server and client share: mailboxes and sockets.

mod mailbox;
mod socket;

pub(crate) use mailbox::{Mailbox, Postbox};
pub(crate) use socket::{Conn, dial, tune};
