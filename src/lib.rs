//! RustBond: the MetalBond route reflector and its client, without async.
#![warn(missing_docs)]

mod error;
mod map;
mod session;
mod shard;
mod table;
mod types;
mod wire;

pub use error::{Error, Result};
pub use types::{
    Action, Destination, IpNet, IpVersion, NextHop, NextHopType, Route, UnknownType, Vni,
};
