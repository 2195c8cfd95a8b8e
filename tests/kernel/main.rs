//! Routes in the kernel, in network namespaces.
#![cfg(all(feature = "netlink", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/support.rs"]
mod support;

mod chaos;
mod datapath;
#[cfg(feature = "cli")]
mod endurance;
mod hops;
#[cfg(feature = "cli")]
mod install;
mod others;
mod places;
mod routes;
mod starts;
mod writer;
