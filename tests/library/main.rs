//! The public API: servers and clients in this process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/double/mod.rs"]
mod double;
#[path = "../common/folder.rs"]
mod folder;
#[path = "../common/support.rs"]
mod support;

mod client;
mod events;
mod inspect;
mod life;
mod sessions;
mod survival;
mod unix;
