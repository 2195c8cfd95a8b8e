//! Everything that is pure: bytes, instants and commands go in; bytes, events and the next
//! deadline come out.
//!
//! There is no socket, clock, thread, channel, lock, atomic, randomness or log in here, so that
//! each part can be tested step by step and replayed from a seed. The lints below and
//! `tests/tidy` hold that line.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

pub(crate) mod arena;
pub(crate) mod client;
pub(crate) mod connection;
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub(crate) mod kernel_plan;
pub(crate) mod limit;
pub(crate) mod map;
pub(crate) mod pace;
pub(crate) mod parted;
pub(crate) mod reflector;
pub(crate) mod rib;
#[cfg(test)]
pub(crate) mod scripted;
pub(crate) mod session;
pub(crate) mod slab;
pub(crate) mod status;
pub(crate) mod time;
pub(crate) mod types;
pub(crate) mod wire;
