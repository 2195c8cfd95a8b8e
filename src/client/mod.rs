//! The client: its servers, what its caller wants, and one view of what the servers say.
//!
//! ```text
//! caller --Mail--> metalbond-client --batches of events--> metalbond-handler
//!                  engine: core, sockets                   RouteHandler, or a channel
//!                        |
//!                        +--batches of events--> an Intake: the kernel writer's thread
//!
//! caller's own loop: Driver(engine)
//! ```
//!
//! `mail` lists all that can come to the engine from another thread.

mod builder;
mod config;
mod driver;
mod engine;
mod events;
mod handle;
mod handler;
mod inspector;
#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
mod intake;
mod mail;
mod running;
mod sink;
mod status;
mod worker;

pub use builder::Builder;
pub use config::ClientConfig;
pub use driver::{Driver, FlushToken};
pub use events::Events;
pub use handle::MetalBondClient;
pub use handler::{LoggingHandler, NextHopHandler, NoOpHandler, RouteHandler};
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub(crate) use intake::{ClientWaker, Intake, Room};
pub use status::ClientState;
