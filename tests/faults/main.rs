//! Faults on real processes, in network namespaces: what is promised for each stands at its
//! test, and is checked: tables are equal afterwards, others were served throughout, and so are
//! the kernel's routes where a client installs.
//!
//! Nothing is asserted about how fast the machine is, only in what order things happen and that
//! they happen within [`support::PATIENCE`]; keepalives are a second apart, so that silence is
//! noticed after 2.5 s.
//!
//! Needs iproute2, nftables, faketime and the right to make namespaces; says so and passes
//! where they are not.
#![cfg(all(feature = "cli", feature = "netlink", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stderr,
    reason = "who is skipped says so, and what was measured"
)]

#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/support.rs"]
mod support;

mod blocked;
mod clock;
mod connection;
mod descriptors;
mod kills;
mod link;
mod observer;
mod pauses;
mod stage;
