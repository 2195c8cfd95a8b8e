//! The core of the client against scripted servers, on a clock of its own.
//!
//! "Go row" is a row of what a Go peer does, as `tests/common/double` lists it.
#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

mod absence;
mod desired;
mod flush;
mod legacy;
mod limits;
mod monitor;
mod notices;
mod own;
mod promise;
mod script;
mod settle;
mod stale;
mod subscribe;
mod time;
mod union;
mod walk;
mod world;

use std::net::Ipv6Addr;

use super::ServerId;
use crate::core::types::{Destination, NextHop, Route, Vni};

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(1);
const V: Vni = Vni(100);
const W: Vni = Vni(200);

fn destination(number: u32) -> Destination {
    Destination::from_ipv4((0x0a00_0000 | number).into(), 32)
}

fn hypervisor(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number)
}

/// Where the client under test lives; nobody else announces that.
const OWN: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);

/// A route of somebody else's.
fn route(number: u32) -> Route {
    Route::new(destination(number), NextHop::standard(hypervisor(1)))
}

/// The same destination behind another hypervisor.
fn other(number: u32) -> Route {
    Route::new(destination(number), NextHop::standard(hypervisor(2)))
}

/// A route of the client's own.
fn own(number: u32) -> Route {
    Route::new(destination(number), NextHop::standard(OWN))
}
