//! Writes received routes into the Linux kernel.
//!
//! Every route becomes `encap ip6 dst <underlay address>` on a tunnel device, in the table
//! mapped to its VNI, with our protocol and metric. The kernel is reconciled, not told: one
//! thread compares what is wanted with what is there, writes the difference in batches, and
//! reads the kernel again whenever somebody else may have changed it. A route is ours if it has
//! our protocol and leads to a nexthop object of ours, or by a tunnel device with our
//! encapsulation, in whatever table; all others are left alone, and never replaced: no message
//! asks the kernel to replace a route.
//!
//! ```text
//! caller --bounded channel--> "metalbond-netlink": drain, plan (pure), batch, answers
//!                                    ^ notifications of links, routes, nexthops
//! ```
//!
//! [`KernelWriter::install`] starts a client whose routes are installed. A [`KernelWriter`]
//! is also a [`RouteHandler`](crate::RouteHandler), for programs that wrap it in a handler of
//! their own.
//!
//! What one process wrote, the next one adopts: routes found at start stay until
//! [`KernelWriter::synced`] says that the tables are complete. Two writers in one network
//! namespace need different protocols or different `nexthop_ids`; a second one with the same is
//! refused.

mod claim;
mod config;
mod device;
mod handler;
mod intake;
#[cfg(feature = "internals")]
#[allow(missing_docs, reason = "not an interface for anybody else")]
pub(crate) mod internals;
mod message;
mod parse;
mod room;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod sim;
mod socket;
mod stats;
mod survey;
#[cfg(test)]
mod tests;
mod thread;
mod writer;

pub use config::{KernelConfig, NexthopMode};
pub use stats::{KernelRepairs, KernelStatus};
pub use survey::{Flushed, KernelRoute, Standing, flush, survey, vrf_table};
pub use thread::KernelWriter;
