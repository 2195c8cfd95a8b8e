//! Our client at a Go server.

use std::net::TcpListener;
use std::time::Duration;

use super::{OTHER, VNI, all_kinds, announce, path, paths, standard, withdraw};
use crate::double::Reading::Strict;
use crate::double::wire::NAT;
use crate::double::{Client, Server};
use crate::support::{self, KEEPALIVE, PATIENCE, Raw, Recorder, client, eventually, server};
use rustbond::{ClientConfig, MetalBondClient, NoOpHandler, Route, Vni};
/// Rows 1, 2, 10 and 13: both ways through a Go server, live and as initial table.
#[test]
fn rows_1_2_10_13_all_kinds_of_routes_pass_a_go_server() {
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
fn row_3_our_client_sends_hello_once_and_keepalive_after_the_answer() {
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
fn row_4_own_announcements_of_a_go_server_are_received() {
    let own = [(VNI, standard(1)), (OTHER, standard(2))];
    let server = Server::start(5, Strict, &paths(&own));
    let recorder = Recorder::default();
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
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
fn rows_5_6_7_unsubscribe_and_subscribe_keep_own_announcements() {
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
fn row_9_route_of_two_announcers_at_a_go_server_stays_until_both_left() {
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
fn row_11_client_of_a_go_server_and_ours_sends_go_no_new_type() {
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
fn row_14_restarted_go_server_is_told_everything_again() {
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
fn twenty_thousand_routes_pass_a_go_server() {
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
