//! The protocol over real sockets, with peers of every kind: old, odd and hostile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/double/mod.rs"]
mod double;
#[path = "../common/folder.rs"]
mod folder;
#[cfg(all(feature = "netlink", target_os = "linux"))]
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/siege.rs"]
mod siege;
#[path = "../common/support.rs"]
mod support;

mod fort;
mod hostile;
mod legacy;
mod limits;
mod quirks;
mod sessions;
