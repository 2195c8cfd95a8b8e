//! Among Go peers: our client against a double of Go MetalBond's server, our server
//! against a double of its client. "Row" is a row of what a Go peer does, in `double`.
//! Rows 16 and 17 are tested beside the command: `row_16_...` in `bin/cli/announcement.rs`,
//! `row_17_...` in `tests/operations/http.rs`.
//!
//! The doubles end a test at a cut frame, an overrun, a second SUBSCRIBE, a message
//! type above 5, an UPDATE that Go would not survive.

mod go_clients;
mod go_servers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::double::wire::Path;
use crate::support::{hop, v4};
use rustbond::{Destination, MetalBondClient, NextHop, Route, Vni};
const VNI: Vni = Vni(100);
const OTHER: Vni = Vni(16_777_215);

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A route as the double has it.
fn path(route: &Route) -> Path {
    let hop = &route.next_hop;
    Path {
        prefix: octets(route.destination.prefix.addr()),
        length: route.destination.prefix.prefix_len().into(),
        hop: octets(hop.target_address),
        hop_vni: hop.target_vni.map_or(0, Into::into),
        kind: hop.hop_type.number().try_into().unwrap(),
        ports: (hop.nat_port_range_from.into(), hop.nat_port_range_to.into()),
    }
}

fn paths(routes: &[(Vni, Route)]) -> Vec<(u32, Path)> {
    routes
        .iter()
        .map(|(vni, route)| (vni.0, path(route)))
        .collect()
}

fn standard(number: u32) -> Route {
    Route::new(v4(number), hop(1))
}

fn v6(number: u16) -> Destination {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number);
    Destination::from_ipv6(address, 128)
}

/// One of each kind, in two VNIs.
fn all_kinds(host: u16) -> Vec<(Vni, Route)> {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
    let number = u32::from(host) * 256;
    // A destination of one's own is suppressed: hosts of two parities do not meet.
    let default = match host % 2 {
        0 => Destination::from_ipv4(Ipv4Addr::UNSPECIFIED, 0),
        _ => Destination::from_ipv6(Ipv6Addr::UNSPECIFIED, 0),
    };
    vec![
        (VNI, Route::new(v4(number), NextHop::standard(address))),
        (VNI, Route::new(v6(host), NextHop::standard(address))),
        (
            VNI,
            Route::new(v4(number + 1), NextHop::nat(address, 1024, 65535)),
        ),
        (
            VNI,
            Route::new(v4(number + 2), NextHop::load_balancer(address)),
        ),
        (
            VNI,
            Route::new(v4(number + 3), NextHop::standard_with_vni(address, 7)),
        ),
        (OTHER, Route::new(default, NextHop::standard(address))),
    ]
}

fn announce(client: &MetalBondClient, routes: &[(Vni, Route)]) {
    for (vni, route) in routes {
        client
            .announce(*vni, route.destination, route.next_hop)
            .unwrap();
    }
}

fn withdraw(client: &MetalBondClient, routes: &[(Vni, Route)]) {
    for (vni, route) in routes {
        client
            .withdraw(*vni, route.destination, route.next_hop)
            .unwrap();
    }
}
