//! The client: its servers, what its caller wants, and one view of what the servers say.
//!
//! ```text
//! caller --Mail--> metalbond-client --batches of events--> metalbond-handler
//!                  engine: core, sockets                   RouteHandler, or a channel
//!
//! caller's own loop: Driver(engine)
//! ```
//!
//! `mail` lists all that can come to the engine from another thread.

mod builder;
mod config;
mod driver;
mod engine;
mod handle;
mod handler;
mod inspector;
mod mail;
mod running;
mod status;
mod worker;

pub use builder::Builder;
pub use config::ClientConfig;
pub use driver::{Driver, FlushToken};
pub use handle::MetalBondClient;
pub use handler::{LoggingHandler, NoOpHandler, RouteHandler};
pub use status::ClientState;
