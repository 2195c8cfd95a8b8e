//! Among Go peers: our client against a double of Go MetalBond's server, our server
//! against a double of its client. "Row" is a row of what a Go peer does, in `double`.
//! Rows 16 and 17 are tested beside the command: `row_16_...` in `bin/cli/announcement.rs`,
//! `row_17_...` in `http.rs`.
//!
//! The doubles end a test at a cut frame, an overrun, a second SUBSCRIBE, a message
//! type above 5, an UPDATE that Go would not survive.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod double;
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use double::Reading::Strict;
use double::wire::{BALANCER, NAT, Path, STANDARD};
use double::{Client, Server};
use rustbond::{
    ClientConfig, Destination, IpNet, MetalBondClient, NextHop, NoOpHandler, Route, ServerConfig,
    Vni,
};
use support::{KEEPALIVE, PATIENCE, Raw, Recorder, client, eventually, hop, server, v4};

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

/// Rows 1, 2, 10 and 13: both ways through a Go server, live and as initial table.
#[test]
fn rows_1_2_10_13_all_kinds_of_routes_through_a_go_server() {
    let server = Server::start(5, Strict, &[]);
    let recorder = Recorder::default();
    let ours = client(&[server.address()], recorder.clone());
    let go = Client::connect(server.address(), 3, Strict);
    for vni in [VNI, OTHER] {
        ours.subscribe(vni).unwrap();
    }
    server.wait_for_subscriptions(&[VNI.0, OTHER.0]);
    for (vni, path) in paths(&all_kinds(1)) {
        go.announce(vni, &path);
    }
    recorder.wait_for(&all_kinds(1));
    announce(&ours, &all_kinds(2));
    server.wait_for_len(12);
    for vni in [VNI, OTHER] {
        go.subscribe(vni.0);
    }
    // A Go client is sent back its own, but for NAT.
    let mut expected = paths(&all_kinds(2));
    expected.extend(
        paths(&all_kinds(1))
            .into_iter()
            .filter(|(_, path)| path.kind != NAT),
    );
    go.wait_for(&expected);
    let late = Recorder::default();
    let latecomer = client(&[server.address()], late.clone());
    for vni in [VNI, OTHER] {
        latecomer.subscribe(vni).unwrap();
    }
    late.wait_for(&[all_kinds(1), all_kinds(2)].concat());
    withdraw(&ours, &all_kinds(2));
    late.wait_for(&all_kinds(1));
    drop(go);
    late.wait_for(&[]);
    recorder.wait_for(&[]);
    server.faults.check();
}

/// Row 2: a Go server counts nothing but KEEPALIVEs, and asks for them often.
#[test]
fn row_2_keepalives_keep_a_session_with_a_go_server() {
    let server = Server::start(1, Strict, &[]);
    let ours = client(&[server.address()], NoOpHandler);
    // Four intervals: more than the two and a half it waits.
    server.wait_for_keepalives(5);
    assert_eq!(server.accepted(), 1);
    assert!(ours.is_established());
}

/// Row 3: KEEPALIVE only behind the HELLO of the server, and no second HELLO.
#[test]
fn row_3_our_client_says_hello_once_and_keepalive_after_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ours = MetalBondClient::start(&[address], NoOpHandler, ClientConfig::default()).unwrap();
    ours.subscribe(VNI).unwrap();
    let mut peer = Raw::accept(&listener);
    let hello = peer.frame();
    assert_eq!(hello[3], 1);
    assert!(hello.len() <= 256, "row 10: one read of RustBond 0.1");
    assert!(peer.is_silent(), "nothing before the answer");
    peer.send(&[1, 0, 4, 1, 8, 5, 16, 1]);
    assert_eq!(peer.frame(), KEEPALIVE);
    assert!(peer.is_silent(), "nothing before the answer");
    peer.send(&KEEPALIVE);
    assert_eq!(peer.frame(), [1, 0, 2, 3, 8, 100], "SUBSCRIBE");
    assert_eq!(peer.frame(), KEEPALIVE, "row 6: to know when it is read");
}

/// Row 3 the other way round: both end the session of a Go client, and that alone.
#[test]
fn row_3_keepalive_before_hello_and_a_second_hello_end_a_session() {
    let server = server();
    let go = Client::connect(server.local_addr(), 5, Strict);
    let mut early = Raw::connect(server.local_addr());
    early.send(&KEEPALIVE);
    assert!(early.closed_by_server());
    let mut again = Raw::established(server.local_addr());
    again.send(&support::update(0, 100, 1, 1));
    again.barrier();
    go.subscribe(VNI.0);
    go.wait_for_len(1);
    again.send(&support::HELLO);
    assert!(again.closed_by_server());
    go.wait_for_len(0);
}

/// Row 4: a Go server's own announcements come before its first KEEPALIVE.
#[test]
fn row_4_own_announcements_of_a_go_server_are_seen() {
    let own = [(VNI, standard(1)), (OTHER, standard(2))];
    let server = Server::start(5, Strict, &paths(&own));
    let recorder = Recorder::default();
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let address = server.address();
    drop(server);
    let ours = MetalBondClient::start(&[address.to_string()], recorder.clone(), config).unwrap();
    ours.subscribe(VNI).unwrap();
    let server = Server::start_on(address, 5, Strict, &paths(&own));
    recorder.wait_for(&own[..1]);
    server.kick();
    eventually("the client is back", || server.accepted() >= 2);
    ours.wait_all_established_timeout(PATIENCE).unwrap();
    recorder.wait_for(&own[..1]);
    assert_eq!(recorder.counts(), (1, 0), "and nothing flapped");
}

/// Rows 5, 6 and 7: a second SUBSCRIBE freezes Go, types of messages overtake each
/// other, and UNSUBSCRIBE withdraws the sender's own announcements.
#[test]
fn rows_5_6_7_unsubscribing_and_subscribing_keeps_own_announcements() {
    let server = Server::start(5, Strict, &[]);
    let recorder = Recorder::default();
    let ours = client(&[server.address()], recorder.clone());
    let go = Client::connect(server.address(), 5, Strict);
    go.announce(VNI.0, &path(&standard(1)));
    ours.subscribe(VNI).unwrap();
    let own = all_kinds(9);
    announce(&ours, &own);
    let others = |routes: Vec<(Vni, Route)>| {
        let is_own = |it: &(Vni, Route)| own.contains(it);
        routes
            .into_iter()
            .filter(|it| !is_own(it))
            .collect::<Vec<_>>()
    };
    for round in 0..50 {
        ours.unsubscribe(VNI).unwrap();
        if round % 3 == 0 {
            eventually("nothing is received", || recorder.routes().is_empty());
        }
        ours.subscribe(VNI).unwrap();
        if round % 2 == 0 {
            eventually("the other's route is received", || {
                let received = recorder.routes().into_iter().collect();
                others(received) == [(VNI, standard(1))]
            });
        }
    }
    server.wait_for_subscriptions(&[VNI.0]);
    server.wait_for_table(|table| {
        table.len() == own.len() + 1 && paths(&own).iter().all(|it| table.contains_key(it))
    });
    // What is withdrawn meanwhile stays withdrawn.
    ours.unsubscribe(VNI).unwrap();
    withdraw(&ours, &own);
    ours.subscribe(VNI).unwrap();
    server.wait_for_len(1);
    recorder.wait_for(&[(VNI, standard(1))]);
    server.faults.check();
}

/// Row 8: Go's initial table has our own STANDARD and LB routes in it.
#[test]
fn row_8_echoes_of_a_go_server_end_with_the_announcement() {
    let server = Server::start(5, Strict, &[]);
    let recorder = Recorder::default();
    let ours = client(&[server.address()], recorder.clone());
    let own = all_kinds(9);
    announce(&ours, &own);
    server.wait_for_len(own.len());
    ours.subscribe(VNI).unwrap();
    let balancer = (VNI, own[3].1);
    recorder.wait_for(&[balancer]);
    withdraw(&ours, &own);
    recorder.wait_for(&[]);
    server.wait_for_len(0);
    assert_eq!(recorder.counts(), (1, 1), "nothing leads to ourselves");
}

/// Row 9: of several announcers each is an ADD, the last to leave is the REMOVE.
#[test]
fn row_9_two_announcers_at_a_go_server() {
    let server = Server::start(5, Strict, &[]);
    let recorder = Recorder::default();
    let ours = client(&[server.address()], recorder.clone());
    let [first, second] = [(); 2].map(|()| Client::connect(server.address(), 5, Strict));
    let shared = path(&standard(1));
    first.announce(VNI.0, &shared);
    first.barrier();
    ours.subscribe(VNI).unwrap();
    recorder.wait_for(&[(VNI, standard(1))]);
    second.announce(VNI.0, &shared);
    server.wait_for_table(|table| table.values().eq(&[2]));
    drop(first);
    server.wait_for_table(|table| table.values().eq(&[1]));
    second.announce(VNI.0, &path(&standard(2)));
    recorder.wait_for(&[(VNI, standard(1)), (VNI, standard(2))]);
    second.withdraw(VNI.0, &shared);
    recorder.wait_for(&[(VNI, standard(2))]);
    assert_eq!(recorder.counts(), (2, 1));
}

/// Row 11: nothing above type 5, whatever our client does; two servers, one modern.
#[test]
fn row_11_a_go_server_and_ours_side_by_side() {
    let go_server = Server::start(5, Strict, &[]);
    let our_server = server();
    let recorder = Recorder::default();
    let addresses = [go_server.address(), our_server.local_addr()];
    let ours = client(&addresses, recorder.clone());
    let there = Client::connect(addresses[0], 5, Strict);
    let here = Client::connect(addresses[1], 5, Strict);
    ours.subscribe(VNI).unwrap();
    there.announce(VNI.0, &path(&standard(1)));
    here.announce(VNI.0, &path(&standard(1)));
    here.announce(VNI.0, &path(&standard(2)));
    recorder.wait_for(&[(VNI, standard(1)), (VNI, standard(2))]);
    announce(&ours, &all_kinds(9));
    go_server.wait_for_len(7);
    eventually("ours has them too", || our_server.stats().routes == 8);
    // The Go server goes; what ours has too stays.
    there.announce(VNI.0, &path(&standard(3)));
    recorder.wait_for_len(3);
    go_server.faults.check();
    drop(go_server);
    recorder.wait_for(&[(VNI, standard(1)), (VNI, standard(2))]);
    assert_eq!(recorder.counts(), (3, 1));
}

/// Row 14, and the restart of a Go server: it is told everything again.
#[test]
fn row_14_a_go_server_restarts() {
    let server = Server::start(5, Strict, &[]);
    let address = server.address();
    let recorder = Recorder::default();
    let ours = client(&[address], recorder.clone());
    let go = Client::connect(address, 5, Strict);
    ours.subscribe(VNI).unwrap();
    announce(&ours, &all_kinds(9));
    go.announce(VNI.0, &path(&standard(1)));
    recorder.wait_for(&[(VNI, standard(1))]);
    server.faults.check();
    drop(server);
    let server = Server::start_on(address, 5, Strict, &[]);
    let go = Client::connect(address, 5, Strict);
    go.announce(VNI.0, &path(&standard(1)));
    server.wait_for_len(7);
    server.wait_for_subscriptions(&[VNI.0]);
    go.announce(VNI.0, &path(&standard(2)));
    // The echo of an own route may be there too.
    eventually("both are received", || {
        let received = recorder.routes();
        [1, 2]
            .iter()
            .all(|it| received.contains(&(VNI, standard(*it))))
    });
    server.faults.check();
}

/// Twenty thousand routes through a Go server. It sends them as one does that loses
/// clients; a client that reassembles is not lost.
#[test]
fn many_routes_through_a_go_server() {
    let server = Server::start(5, Strict, &[]);
    let recorder = Recorder::default();
    let [from, to] =
        [Recorder::default(), recorder.clone()].map(|it| client(&[server.address()], it));
    let routes: Vec<_> = (0..20_000).map(|it| (VNI, standard(it))).collect();
    announce(&from, &routes[..10_000]);
    server.wait_for_len(10_000);
    to.subscribe(VNI).unwrap();
    announce(&from, &routes[10_000..]);
    recorder.wait_for(&routes);
    withdraw(&from, &routes);
    recorder.wait_for(&[]);
    server.faults.check();
}

/// Row 1: a HELLO without extensions gets none back, the smaller interval, isServer.
#[test]
fn row_1_our_server_answers_a_go_client_as_a_go_server_would() {
    let config = ServerConfig {
        keepalive_interval: 4,
        ..ServerConfig::default()
    };
    let server = rustbond::MetalBondServer::start("127.0.0.1:0", config).unwrap();
    for (asked, answered) in [(2, 2), (4, 4), (60, 4)] {
        let go = Client::connect(server.local_addr(), asked, Strict);
        assert_eq!(go.interval(), Some(answered));
        go.faults.check();
    }
    let mut raw = Raw::connect(server.local_addr());
    raw.send(&[1, 0, 2, 1, 8, 2]);
    assert_eq!(raw.frame(), [1, 0, 4, 1, 8, 2, 16, 1], "not a byte more");
}

/// Row 2: our server answers each KEEPALIVE, and sends none by itself.
#[test]
fn row_2_our_server_answers_the_keepalives_of_a_go_client() {
    let server = server();
    let go = Client::connect(server.local_addr(), 1, Strict);
    go.wait_for_replies(5);
    assert_eq!(server.stats().closed, 0);
    go.faults.check();
}

/// Rows 8, 9 and 13 the other way round: our server to Go clients. No echo at all, no
/// duplicate, and ports of NAT routes as they came.
#[test]
fn rows_8_9_13_go_clients_at_our_server() {
    let server = server();
    let [first, second, third] = [(); 3].map(|()| Client::connect(server.local_addr(), 5, Strict));
    let routes = paths(&all_kinds(1));
    for (vni, path) in &routes {
        first.announce(*vni, path);
    }
    first.barrier();
    // Live and as initial table, with the announcer among the subscribers.
    for go in [&first, &second] {
        go.subscribe(VNI.0);
        go.subscribe(OTHER.0);
    }
    second.wait_for(&routes);
    for (vni, path) in &routes {
        third.announce(*vni, path);
    }
    first.wait_for(&routes);
    drop(third);
    first.wait_for(&[]);
    second.wait_for(&routes);
    let (vni, gone) = &routes[0];
    first.withdraw(*vni, gone);
    second.wait_for(&routes[1..]);
    drop(first);
    second.wait_for(&[]);
    assert_eq!(second.adds(), routes.len(), "each was added once");
}

/// Row 7 the other way round: our server keeps what an unsubscribing client announced.
#[test]
fn row_7_a_go_client_unsubscribes_from_our_server() {
    let server = server();
    let [one, two] = [(); 2].map(|()| Client::connect(server.local_addr(), 5, Strict));
    one.announce(VNI.0, &path(&standard(1)));
    two.announce(VNI.0, &path(&standard(2)));
    for go in [&one, &two] {
        go.barrier();
        go.subscribe(VNI.0);
    }
    two.wait_for(&paths(&[(VNI, standard(1))]));
    for _ in 0..20 {
        one.unsubscribe(VNI.0);
        one.barrier();
        one.subscribe(VNI.0);
        one.wait_for(&paths(&[(VNI, standard(2))]));
    }
    two.wait_for(&paths(&[(VNI, standard(1))]));
    assert_eq!(two.adds(), 1);
}

/// Row 12: IPv4 next hops and unknown types are relayed, an unknown action is ADD.
#[test]
fn row_12_what_our_server_relays_as_it_came() {
    let server = server();
    let [from, to] = [(); 2].map(|()| Client::connect(server.local_addr(), 5, Strict));
    let recorder = Recorder::default();
    let ours = client(&[server.local_addr()], recorder.clone());
    to.subscribe(VNI.0);
    ours.subscribe(VNI).unwrap();
    let odd = Path {
        hop: vec![192, 0, 2, 1],
        kind: 7,
        ..path(&standard(1))
    };
    let host_bits: IpNet = "10.1.2.3/8".parse().unwrap();
    let host_bits = path(&Route::new(host_bits.into(), hop(1)));
    from.announce(VNI.0, &odd);
    from.announce(VNI.0, &host_bits);
    to.wait_for(&[(VNI.0, odd), (VNI.0, host_bits)]);
    recorder.wait_for_len(2);
    // Action 5, in front of a route that is not there yet.
    let mut frame = support::update(5, 100, 9, 1);
    from.send_raw(&frame);
    to.wait_for_len(3);
    frame[5] = 1;
    from.send_raw(&frame);
    to.wait_for_len(2);
}

/// Row 15: RustBond 0.1 drops what follows a KEEPALIVE of the handshake in its segment.
/// Our client says nothing there (`row_3_our_client_...`), and our server neither: its
/// answer stands alone, whatever the client sent along.
#[test]
fn row_15_our_server_answers_the_handshake_alone() {
    let server = server();
    let from = Client::connect(server.local_addr(), 5, Strict);
    from.announce(VNI.0, &path(&standard(1)));
    from.barrier();
    let mut old = Raw::connect(server.local_addr());
    old.send(&support::HELLO);
    assert_eq!(old.frame()[3], 1);
    old.send(&KEEPALIVE);
    assert_eq!(old.frame(), KEEPALIVE);
    assert!(old.is_silent());
    old.send(&support::subscribe(100));
    assert_eq!(old.frame()[3], 5);
}

/// Row 15: RustBond 0.1 closes its connection at an IPv4 next hop or an unknown type. It
/// is sent them again when it is back; nobody else is hurt.
#[test]
fn row_15_a_peer_that_closes_at_what_it_does_not_know() {
    let server = server();
    let [from, to] = [(); 2].map(|()| Client::connect(server.local_addr(), 5, Strict));
    to.subscribe(VNI.0);
    let odd = Path {
        hop: vec![192, 0, 2, 1],
        ..path(&standard(1))
    };
    from.announce(VNI.0, &odd);
    to.wait_for(&[(VNI.0, odd)]);
    for _ in 0..3 {
        let mut old = Raw::established(server.local_addr());
        old.send(&support::subscribe(100));
        assert_eq!(old.frame()[3], 5);
    }
    eventually("they are gone", || server.stats().sessions == 2);
    to.barrier();
    to.wait_for_len(1);
}

/// Rows 11 and 13: between our client and a Go client through our server.
#[test]
fn rows_11_13_our_client_and_a_go_client_at_our_server() {
    let server = server();
    let recorder = Recorder::default();
    let ours = client(&[server.local_addr()], recorder.clone());
    let go = Client::connect(server.local_addr(), 5, Strict);
    for vni in [VNI, OTHER] {
        ours.subscribe(vni).unwrap();
        go.subscribe(vni.0);
    }
    announce(&ours, &all_kinds(1));
    go.wait_for(&paths(&all_kinds(1)));
    for (vni, path) in paths(&all_kinds(2)) {
        go.announce(vni, &path);
    }
    recorder.wait_for(&all_kinds(2));
    ours.shutdown().unwrap();
    go.wait_for(&[]);
    assert!(go.adds() >= all_kinds(1).len());
    go.faults.check();
}

/// A peer that goes while it is sent a table is sent half as fast when it is back.
#[test]
fn who_goes_during_a_table_gets_half_the_pace() {
    let server = server();
    let source = client(&[server.local_addr()], NoOpHandler);
    let routes: Vec<_> = (0..5000).map(|it| (VNI, standard(it))).collect();
    announce(&source, &routes);
    eventually("the server has them", || server.stats().routes == 5000);
    let full = ServerConfig::default().legacy_rate;
    let pace = || {
        let peers = server.peers();
        let mut rates = peers.iter().filter_map(|peer| peer.legacy_rate);
        rates.next()
    };
    for halvings in 0..3 {
        let mut peer = Raw::established(server.local_addr());
        assert_eq!(pace(), Some(full >> halvings));
        peer.send(&support::subscribe(100));
        assert_eq!(peer.frame()[3], 5);
        // Past the first burst.
        let sent: usize = (0..600).map(|_| peer.frame().len()).sum();
        assert!(sent > 16 << 10, "{sent} bytes");
        drop(peer);
        eventually("it is counted", || {
            server.stats().legacy_drops == halvings + 1 && server.stats().sessions == 1
        });
    }
    // Only the pace is another: the table comes whole.
    let go = Client::connect(server.local_addr(), 5, Strict);
    go.subscribe(VNI.0);
    go.wait_for(&paths(&routes));
    go.faults.check();
}

/// The doubles themselves: what they must find, they find.
#[test]
fn the_doubles_find_what_they_are_for() {
    let server = Server::start(5, Strict, &[]);
    let twice = Client::connect(server.address(), 5, Strict);
    twice.subscribe(1);
    twice.barrier();
    twice.subscribe(1);
    twice.wait_for_end();
    let faults = server.faults.take();
    assert!(faults[0].starts_with("a second SUBSCRIBE"), "{faults:?}");
    for (bytes, expected) in [
        (&[1, 0, 2, 160, 8, 1][..], "message type 160"),
        (&[1, 0, 2, 3, 8], "cut frame"),
        (&[1, 0, 2, 5, 16, 1], "UPDATE without destination"),
    ] {
        let go = Client::connect(server.address(), 5, Strict);
        go.send_raw(bytes);
        go.wait_for_end();
        assert_eq!(server.faults.take(), [expected]);
    }
    assert_eq!((STANDARD, NAT, BALANCER), (0, 1, 2));
}
