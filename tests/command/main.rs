//! The built command: arguments, configuration, log, control socket.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "http")]
#[path = "../common/double/mod.rs"]
mod double;
#[cfg(feature = "http")]
#[path = "../common/folder.rs"]
mod folder;
#[cfg(all(feature = "netlink", target_os = "linux"))]
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/support.rs"]
mod support;

#[cfg(feature = "http")]
mod ask;
#[cfg(feature = "http")]
mod client;
mod config;
#[cfg(feature = "http")]
mod control;
mod logs;
#[cfg(feature = "http")]
mod panics;
mod run;
mod unix;
