//! What is announced, and what a policy makes of it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use rustbond::{Destination, IpNet, NextHop, NextHopType, Route, RouteFilter, RouteMatch, Vni};

/// Destinations of single announcements; few, so that many share one.
const DESTINATIONS: u16 = 16;

/// Blocks of underlay addresses: of one client each, and of all.
const OWN: u16 = 0xfd00;
const SHARED: u16 = 0xfd01;
const CONFIGURED: u16 = 0xfd02;

/// Pairs of VNIs: where there is a policy, routes of the first appear in the second too.
pub(crate) const IMPORTS: [(Vni, Vni); 3] = [(Vni(1), Vni(2)), (Vni(2), Vni(4)), (Vni(3), Vni(2))];

/// How many routes there are to announce one by one.
pub(crate) const ROUTES: u16 = DESTINATIONS * 4;

/// From this number on, several clients may announce the same.
pub(crate) const SHARED_FROM: u16 = DESTINATIONS * 3;

/// The route of a number that a client may announce.
pub(crate) fn route(client: usize, shares: bool, number: u16) -> Route {
    let destination = destination(number % DESTINATIONS);
    let own = underlay(OWN, client);
    let hop = match number / DESTINATIONS % 4 {
        0 => NextHop::standard(own),
        1 => NextHop::nat(own, 1024, 2047),
        2 => NextHop::load_balancer(own),
        _ if shares => NextHop::standard(underlay(SHARED, usize::from(number % 3))),
        _ => NextHop::standard_with_vni(own, 7),
    };
    Route::new(destination, hop)
}

/// One of many routes of a client.
pub(crate) fn bulk_route(client: usize, number: u16) -> Route {
    let hop = NextHop::standard(underlay(OWN, client));
    Route::new(destination(1000 + number), hop)
}

fn destination(number: u16) -> Destination {
    if number.is_multiple_of(3) {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        return Destination::from_ipv6(address, 128);
    }
    Destination::from_ipv4((0x0a00_0000 + u32::from(number)).into(), 32)
}

/// A route that all servers announce themselves.
pub(crate) fn configured_route(number: u16) -> Route {
    let hop = NextHop::standard(underlay(CONFIGURED, usize::from(number % 2)));
    Route::new(destination(number % DESTINATIONS), hop)
}

/// What a client with a policy takes of what it hears.
pub(crate) fn filter() -> RouteFilter {
    let within = IpNet::new(Ipv4Addr::new(10, 0, 0, 0).into(), 29).expect("it is short enough");
    RouteFilter::new()
        .accept(RouteMatch::any().vni(Vni(2)).within(within))
        .reject(RouteMatch::any().vni(Vni(2)))
        .reject(RouteMatch::any().hop_type(NextHopType::LoadBalancerTarget))
}

/// A route as it appears where it is imported.
pub(crate) fn imported(from: Vni, route: Route) -> Route {
    let own = NonZeroU32::new(from.0);
    let next_hop = NextHop {
        target_vni: route.next_hop.target_vni.or(own),
        ..route.next_hop
    };
    Route::new(route.destination, next_hop)
}

/// Where the routes that only one client announces lead.
pub(crate) fn own_underlay(client: usize) -> Ipv6Addr {
    underlay(OWN, client)
}

fn underlay(block: u16, number: usize) -> Ipv6Addr {
    let number = u16::try_from(number).expect("few hosts");
    Ipv6Addr::new(block, 0, 0, 0, 0, 0, 0, 1 + number)
}
