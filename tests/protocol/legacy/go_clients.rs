//! Go clients at our server.

use super::{OTHER, VNI, all_kinds, announce, path, paths, standard};
use crate::double::Reading::{Stalled, Strict};
use crate::double::wire::{BALANCER, NAT, Path, STANDARD};
use crate::double::{Client, Server};
use crate::support::{self, KEEPALIVE, Raw, Recorder, client, eventually, hop, server};
use rustbond::{IpNet, MetalBondClient, NoOpHandler, Route, ServerConfig, Vni};
use std::time::Duration;

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
fn rows_8_9_13_go_clients_get_no_echo_and_no_duplicate_from_our_server() {
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
fn row_7_unsubscribed_go_client_keeps_its_announcements_at_our_server() {
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
fn row_12_our_server_relays_unknown_values_unchanged() {
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
fn row_15_our_server_sends_its_handshake_answer_alone() {
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
fn row_15_peer_that_closes_at_an_unknown_value_hurts_nobody_else() {
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
fn rows_11_13_our_client_and_a_go_client_meet_at_our_server() {
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

/// The pace of the legacy peer at a server, in bytes per second.
fn pace(server: &rustbond::MetalBondServer) -> Option<u32> {
    let peers = server.peers().unwrap();
    let mut rates = peers.iter().filter_map(|peer| peer.legacy_rate);
    rates.next()
}

/// A server with so many routes, and their announcer.
fn loaded_server(
    count: u32,
) -> (
    rustbond::MetalBondServer,
    MetalBondClient,
    Vec<(Vni, Route)>,
) {
    let server = server();
    let source = client(&[server.local_addr()], NoOpHandler);
    let routes: Vec<_> = (0..count).map(|it| (VNI, standard(it))).collect();
    announce(&source, &routes);
    let count = routes.len();
    eventually("the server has them", || server.stats().routes == count);
    (server, source, routes)
}

/// Clients of one address are killed at different places of a table, and after it, while routes
/// change all the time. That proves nothing about the pace.
#[test]
fn killed_go_clients_slow_nobody() {
    let (server, source, routes) = loaded_server(20_000);
    let full = ServerConfig::default().legacy_rate;
    let mut random = fastrand::Rng::with_seed(26);
    for round in 0..12 {
        let mut peer = Raw::established(server.local_addr());
        assert_eq!(pace(&server), Some(full), "round {round}");
        peer.send(&support::subscribe(100));
        assert_eq!(peer.frame()[3], 5);
        // Never twice in a row at about the same place; the last of three has the whole table.
        let third = [0, 7_000, 14_000][round % 3];
        for _ in 0..third + random.usize(500..4_000) {
            peer.frame();
        }
        let changed = [(VNI, standard(1_000_000 + u32::try_from(round).unwrap()))];
        announce(&source, &changed);
        drop(peer);
        eventually("it is gone", || server.stats().sessions == 1);
    }
    let go = Client::connect(server.local_addr(), 5, Strict);
    assert_eq!(pace(&server), Some(full));
    go.subscribe(VNI.0);
    go.wait_for_len(routes.len() + 12);
    go.faults.check();
}

/// An overrun by design: each table finds the client's process standing still for ten seconds, at
/// the same route. Two ends say so, half the pace is enough, and the table that was taken forgives.
#[test]
fn go_client_that_stalls_in_each_table_gets_it_at_half_the_pace() {
    let (server, _source, routes) = loaded_server(40_000);
    let full = ServerConfig::default().legacy_rate;
    let stalled = Stalled {
        after: 20_000,
        time: Duration::from_secs(10),
    };
    let mut paces = Vec::new();
    loop {
        let go = Client::connect(server.local_addr(), 5, stalled);
        paces.push(pace(&server).unwrap());
        go.subscribe(VNI.0);
        if go.takes(routes.len()) {
            go.faults.check();
            // The next KEEPALIVE shows the server that all was read.
            eventually("it is forgiven", || {
                go.barrier();
                let _next = Client::connect(server.local_addr(), 5, Strict);
                let peers = server.peers().unwrap();
                peers.iter().any(|it| it.legacy_rate == Some(full))
            });
            break;
        }
        assert_eq!(go.faults.take(), ["overrun"]);
        assert!(paces.len() < 5, "{paces:?}");
        drop(go);
        eventually("it is gone", || server.stats().sessions == 1);
    }
    assert_eq!(paces, [full, full, full / 2]);
}

/// The doubles themselves: what they must find, they find.
#[test]
fn doubles_record_the_faults_they_are_for() {
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
