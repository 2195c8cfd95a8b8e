//! What operators and machines see: HTTP, the page, the service manager, packages, hosts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "http")]
#[path = "../common/browser.rs"]
mod browser;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../common/manager.rs"]
mod manager;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../common/netns.rs"]
mod netns;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../common/process.rs"]
mod process;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../common/procfs.rs"]
mod procfs;
#[path = "../common/support.rs"]
mod support;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../../benches/siege/wire.rs"]
mod wire;

#[cfg(feature = "http")]
mod http;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod memory;
#[cfg(all(feature = "cli", feature = "netlink", target_os = "linux"))]
mod namespaces;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod packaging;
#[cfg(feature = "http")]
mod page;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod service;
