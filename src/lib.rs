//! RustBond: the MetalBond route reflector and its client, without async.
#![warn(missing_docs)]

mod error;
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub mod kernel;
mod types;

pub use error::{Error, Result};
pub use types::{
    Action, Destination, IpNet, IpVersion, NextHop, NextHopType, Route, UnknownType, Vni,
};
