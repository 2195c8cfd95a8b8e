//! RustBond: the MetalBond route reflector and its client, without async.

mod client;
mod error;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub mod kernel;
mod map;
mod net;
mod random;
mod server;
mod session;
mod shard;
mod table;
mod types;
mod wire;

pub use client::{
    AnnouncementState, Builder, Changed, ClientConfig, ClientState, ConnectionState, Driver, Event,
    EventDetail, FlushToken, LoggingHandler, MetalBondClient, NoOpHandler, RouteFilter,
    RouteHandler, RouteMatch, ServerId,
};
pub use error::{Error, Result};
pub use server::{MetalBondServer, PeerStatus, ServerConfig, ServerStats};
pub use session::CloseReason;
pub use types::{
    Action, Destination, IpNet, IpVersion, NextHop, NextHopType, Route, UnknownType, Vni,
};
pub use wire::FrameError;
