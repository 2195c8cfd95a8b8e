//! What the threads of server and client share: mailboxes and sockets.

mod mailbox;
mod socket;

pub(crate) use mailbox::{MAILBOX_WEIGHT, Mailbox, Postbox};
pub(crate) use socket::{Conn, tune};
