//! The client: servers, wishes, and one view of what the servers say.
//!
//! ```text
//! caller --Call--> metalbond-client --batches of events--> metalbond-handler
//!                  engine: core, sockets                   RouteHandler, or a channel
//!
//! caller's own loop: Driver(engine)
//! ```

mod backoff;
mod builder;
mod config;
mod core;
mod desired;
mod driver;
mod engine;
mod events;
mod handle;
mod handler;
mod inspector;
mod link;
mod policy;
#[cfg(feature = "internals")]
mod sim;
mod status;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use builder::Builder;
pub use config::ClientConfig;
pub use driver::{Driver, FlushToken};
pub use events::{Event, EventDetail};
pub use handle::MetalBondClient;
pub use handler::{LoggingHandler, NoOpHandler, RouteHandler};
pub use policy::{RouteFilter, RouteMatch};
#[cfg(feature = "internals")]
pub use sim::{ClientSetup, SimClient};
pub use status::{AnnouncementState, Changed, ClientState, ConnectionState, ServerId};
