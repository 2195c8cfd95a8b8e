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

mod netns;
mod process;
mod support;

#[path = "faults/blocked.rs"]
mod blocked;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/connection.rs"]
mod connection;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/link.rs"]
mod link;
#[path = "faults/observer.rs"]
mod observer;
#[path = "faults/pauses.rs"]
mod pauses;
#[path = "faults/stage.rs"]
mod stage;
