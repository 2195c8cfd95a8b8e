//! RustBond: the [MetalBond](https://github.com/ironcore-dev/metalbond) route
//! reflector for overlay networks and its client, synchronous and without an async
//! runtime.
//!
//! A hypervisor announces "prefix P of virtual network (VNI) V is behind my
//! underlay address A"; servers hand that to all who subscribed to V; clients
//! program it into their data plane.
//!
//! # Quick start
//!
//! ```no_run
//! use rustbond::{MetalBondServer, ServerConfig};
//!
//! # fn main() -> rustbond::Result<()> {
//! let server = MetalBondServer::start("[::]:4711", ServerConfig::default())?;
//! // ... server.shutdown()?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use rustbond::{MetalBondClient, Route, RouteHandler, Vni};
//!
//! struct MyHandler;
//! impl RouteHandler for MyHandler {
//!     fn add_route(&self, vni: Vni, route: Route) { /* handle add */ }
//!     fn remove_route(&self, vni: Vni, route: Route) { /* handle remove */ }
//! }
//!
//! # fn main() -> rustbond::Result<()> {
//! let client = MetalBondClient::connect(&["[::1]:4711", "[::1]:4712"], MyHandler);
//! client.wait_any_established()?;
//! client.subscribe(Vni(100))?;
//! # Ok(())
//! # }
//! ```
//!
//! [`guide`] has three complete clients: with a handler, with a channel, and with a poll
//! loop of one's own.
//!
//! # A tour of the code
//!
//! The core takes bytes, instants and commands, and returns bytes, events and the
//! next deadline; it holds no socket, clock, thread, channel, lock or randomness,
//! so that it can be tested step by step. The shell around it has the threads and
//! the sockets. `tests/tidy` and the lints of clippy keep them apart.
//!
//! | `core` | |
//! |---|---|
//! | `wire` | frames out of a stream cut anywhere; the messages |
//! | `session` | the state machine of both roles; `session/close` has the reasons to close |
//! | `connection` | a session with its send queue, pace and send hold, for both roles |
//! | `pace` | how fast a legacy peer is sent to |
//! | `rib` | the RIB of a VNI: who announces what, and the log that is sent to subscribers |
//! | `reflector` | a shard of a server: a router, the sessions at their home, the tables at their owner |
//! | `client` | servers, what the caller wants, completeness of tables, the union view, events |
//! | `status` | what is told of peers, VNIs and routes |
//! | `kernel_plan` | what to write so that the kernel holds what is wanted |
//!
//! | shell | |
//! |---|---|
//! | `net` | endpoints and streams (a new transport goes here), the turn of a loop, mailboxes that wake it |
//! | `server` | acceptor and workers, one thread each |
//! | `client` | an engine that is stepped: by a thread, or by the caller's loop; one thread for the handler |
//! | `kernel` | the netlink writer's thread |
//! | `http` | the page, the API, metrics and the routing table over HTTP |
//! | `probe` | one handshake on the caller's thread |
//! | `heartbeat` | whether the loops turn, for a watchdog |
//! | `life` | whether the threads still run, and how they ended |
//!
//! | a new | begins in |
//! |---|---|
//! | message type | `core/wire/frame.rs` (`MessageType`); the compiler asks `core/session` in which state it is allowed |
//! | transport | `core/types.rs` (`Transport`), `net/endpoint.rs` (how it is written), `net/stream.rs` (`Stream`) and `net/listen.rs` (`Listener`) |
//! | reason to close | `core/session/close.rs` (`CloseReason`); the compiler asks for its text and whose fault it is |
//! | option | `bin/cli/options/table.rs`: one row, and the field that it fills |
//! | metric | `http/metrics/families.rs` |
//! | answer of the API | `http/api` for what is shown, `http/control` for what is changed |
//!
//! The way of an update through a server: `server::worker` reads it,
//! `session` decodes it, `reflector` passes it to the owner of its VNI, `rib` appends
//! it to the log if it changes something, and the owner sends one reference to
//! each shard that has subscribers, which queue it and write it out. It is encoded
//! once; a subscriber that joins later is sent the same log from its beginning.
//!
//! Where this differs from what one might expect: routes announced by two peers are
//! told to each of the two by a change of its own, because each must see the route
//! exactly when *another* announces it. The log marks each change with who must hear it, so
//! that, read from its beginning, it is right for every peer (`core::rib`).

mod client;
mod core;
mod error;
pub mod guide;
mod heartbeat;
#[cfg(feature = "http")]
pub mod http;
pub mod inspect;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub mod kernel;
mod life;
mod net;
pub mod probe;
mod random;
mod server;

pub use crate::core::client::{
    AnnouncementState, Changed, ConnectionState, Event, EventDetail, Refused, RouteFilter,
    RouteMatch, ServerId,
};
pub use crate::core::pace::LegacyPacing;
pub use crate::core::session::{CloseReason, Fault};
pub use crate::core::types::{
    Action, Destination, IpNet, IpVersion, NextHop, NextHopType, Route, Transport, UnknownType, Vni,
};
pub use crate::core::wire::{FrameError, NoticeCode};
pub use client::{
    Builder, ClientConfig, ClientState, Driver, Events, FlushToken, LoggingHandler,
    MetalBondClient, NextHopHandler, NoOpHandler, RouteHandler,
};
pub use error::{Error, Result};
pub use heartbeat::Heartbeat;
pub use inspect::ServerStats;
pub use life::Life;
pub use net::{Endpoint, Listener};
pub use server::{Drain, MetalBondServer, ServerConfig};

/// The programs of the README, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
