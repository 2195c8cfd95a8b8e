//! Servers and clients over real sockets: the counterparts of all that RustBond
//! 0.1 checks, and what crosses connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{PATIENCE, Recorder, client, eventually, free_address, hop, server, v4};
use rustbond::{
    ClientConfig, ClientState, ConnectionState, Destination, Error, Event, EventDetail,
    MetalBondClient, MetalBondServer, NextHop, NoOpHandler, Refused, Route, RouteHandler,
    ServerConfig, ServerId, Vni,
};

const VNI: Vni = Vni(100);

#[test]
fn server_starts_and_stops() {
    let server = server();
    let address = server.local_addr();
    assert_ne!(address.port(), 0);
    server.shutdown().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    MetalBondServer::start(address, ServerConfig::default()).unwrap();
}

#[test]
fn address_in_use_is_named_in_the_error() {
    let server = server();
    let address = server.local_addr();
    let error = MetalBondServer::start(address, ServerConfig::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn client_connects_to_a_server() {
    let server = server();
    let client = client(&[server.local_addr()], NoOpHandler);
    assert_eq!(client.state(), ClientState::FullyConnected);
    assert_eq!(
        client.server_states()[&ServerId(0)],
        ConnectionState::Established
    );
    assert!(client.is_established());
    eventually("the server knows", || server.stats().sessions == 1);
    client.shutdown().unwrap();
    assert_eq!(client.state(), ClientState::Closed);
    assert!(matches!(client.subscribe(VNI), Err(Error::Closed)));
    assert!(matches!(client.wait_established(), Err(Error::Closed)));
    eventually("the session is gone", || server.stats().sessions == 0);
}

#[test]
fn wait_for_a_server_that_is_not_there_times_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = MetalBondClient::connect(&[address], NoOpHandler);
    let waited = client.wait_established_timeout(Duration::from_millis(50));
    assert!(matches!(waited, Err(Error::Timeout)));
    assert_eq!(client.state(), ClientState::Disconnected);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let server = ServerConfig {
        keepalive_interval: 0,
        ..ServerConfig::default()
    };
    let error = MetalBondServer::start("127.0.0.1:0", server).err().unwrap();
    assert!(error.to_string().contains("keepalive_interval"), "{error}");
    let config = ClientConfig::default();
    let error = MetalBondClient::start(&["host"; 33], NoOpHandler, config)
        .err()
        .unwrap();
    assert!(error.to_string().contains("32 at most"), "{error}");
}

#[test]
fn routes_reach_other_clients_and_not_their_announcer() {
    let server = server();
    let [seen_a, seen_b] = [Recorder::default(), Recorder::default()];
    let a = client(&[server.local_addr()], seen_a.clone());
    let b = client(&[server.local_addr()], seen_b.clone());
    a.subscribe(VNI).unwrap();
    b.subscribe(VNI).unwrap();
    a.announce(VNI, v4(1), hop(1)).unwrap();
    let route = Route::new(v4(1), hop(1));
    seen_b.wait_for(&[(VNI, route)]);
    assert_eq!(b.get_received_routes(VNI).unwrap(), [route]);
    assert_eq!(a.get_announced_routes().unwrap(), [(VNI, route)]);
    assert_eq!(server.routes().unwrap(), [(VNI, route)]);
    // An echo would have come before the answer to b's announcement.
    b.announce(VNI, v4(2), hop(2)).unwrap();
    seen_a.wait_for(&[(VNI, Route::new(v4(2), hop(2)))]);
    assert_eq!(seen_a.counts(), (1, 0));
}

#[test]
fn second_announcement_and_withdrawal_of_nothing_are_errors() {
    let server = server();
    let client = client(&[server.local_addr()], NoOpHandler);
    client.announce(VNI, v4(1), hop(1)).unwrap();
    let again = client.announce(VNI, v4(1), hop(1));
    assert!(matches!(again, Err(Error::RouteAlreadyAnnounced)));
    client.withdraw(VNI, v4(1), hop(1)).unwrap();
    let again = client.withdraw(VNI, v4(1), hop(1));
    assert!(matches!(again, Err(Error::RouteNotFound)));
}

#[test]
fn withdrawn_route_leaves_other_clients() {
    let server = server();
    let seen = Recorder::default();
    let subscriber = client(&[server.local_addr()], seen.clone());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    announcer.announce(VNI, v4(2), hop(1)).unwrap();
    seen.wait_for_len(2);
    announcer.withdraw(VNI, v4(1), hop(1)).unwrap();
    seen.wait_for(&[(VNI, Route::new(v4(2), hop(1)))]);
    eventually("the server has one", || server.stats().routes == 1);
}

#[test]
fn routes_of_a_disconnected_client_leave_other_clients() {
    let server = server();
    let seen = Recorder::default();
    let subscriber = client(&[server.local_addr()], seen.clone());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    for number in 0..5000 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    seen.wait_for_len(5000);
    drop(announcer);
    seen.wait_for(&[]);
    assert_eq!(server.stats().routes, 0);
}

#[test]
fn late_subscriber_gets_the_current_table() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let mut expected = Vec::new();
    for number in 0..3000 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
        expected.push((VNI, Route::new(v4(number), hop(1))));
    }
    eventually("the server has all", || server.stats().routes == 3000);
    let seen = Recorder::default();
    let late = client(&[server.local_addr()], seen.clone());
    late.subscribe(VNI).unwrap();
    seen.wait_for(&expected);
    assert_eq!(seen.counts(), (3000, 0));
}

#[test]
fn routes_of_one_vni_stay_out_of_others() {
    let server = server();
    let [one, both] = [Recorder::default(), Recorder::default()];
    let first = client(&[server.local_addr()], one.clone());
    let second = client(&[server.local_addr()], both.clone());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    first.subscribe(Vni(1)).unwrap();
    second.subscribe(Vni(1)).unwrap();
    second.subscribe(Vni(2)).unwrap();
    announcer.announce(Vni(1), v4(1), hop(1)).unwrap();
    announcer.announce(Vni(2), v4(2), hop(2)).unwrap();
    announcer.announce(Vni(3), v4(3), hop(3)).unwrap();
    let in_one = (Vni(1), Route::new(v4(1), hop(1)));
    one.wait_for(&[in_one]);
    both.wait_for(&[in_one, (Vni(2), Route::new(v4(2), hop(2)))]);
    second.unsubscribe(Vni(1)).unwrap();
    both.wait_for(&[(Vni(2), Route::new(v4(2), hop(2)))]);
    second.subscribe(Vni(1)).unwrap();
    both.wait_for_len(2);
}

#[test]
fn next_hops_of_every_kind_arrive_unchanged() {
    let server = server();
    let seen = Recorder::default();
    let subscriber = client(&[server.local_addr()], seen.clone());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    let address = std::net::Ipv6Addr::LOCALHOST;
    let v6 = |text: &str| Destination::new(text.parse().unwrap());
    let routes = [
        (v4(1), NextHop::nat(address, 1024, 65535)),
        (v4(2), NextHop::load_balancer(address)),
        (v4(3), NextHop::standard_with_vni(address, 77)),
        (v6("2001:db8::/32"), hop(1)),
        (v6("::/0"), hop(2)),
        (v6("0.0.0.0/0"), hop(3)),
        (
            v6("10.1.2.3/8"),
            NextHop::standard(std::net::Ipv4Addr::LOCALHOST),
        ),
    ];
    for (destination, next_hop) in routes {
        announcer.announce(VNI, destination, next_hop).unwrap();
    }
    seen.wait_for(&routes.map(|(destination, next_hop)| (VNI, Route::new(destination, next_hop))));
}

#[test]
fn route_of_two_announcers_stays_until_both_left() {
    let server = server();
    let seen = Recorder::default();
    let subscriber = client(&[server.local_addr()], seen.clone());
    let [a, b] = [(); 2].map(|()| client(&[server.local_addr()], NoOpHandler));
    subscriber.subscribe(VNI).unwrap();
    a.announce(VNI, v4(1), hop(1)).unwrap();
    b.announce(VNI, v4(1), hop(1)).unwrap();
    b.announce(VNI, v4(1), hop(2)).unwrap();
    seen.wait_for_len(2);
    a.withdraw(VNI, v4(1), hop(1)).unwrap();
    b.announce(VNI, v4(9), hop(9)).unwrap();
    seen.wait_for_len(3);
    drop(b);
    seen.wait_for(&[]);
    assert_eq!(seen.counts(), (3, 3), "each route once");
}

#[test]
fn routes_of_several_servers_are_one_view() {
    let servers = [server(), server()];
    let both = [servers[0].local_addr(), servers[1].local_addr()];
    let seen = Recorder::default();
    let subscriber = client(&both, seen.clone());
    subscriber.subscribe(VNI).unwrap();
    let to_both = client(&both, NoOpHandler);
    let to_first = client(&both[..1], NoOpHandler);
    let to_second = client(&both[1..], NoOpHandler);
    to_both.announce(VNI, v4(1), hop(1)).unwrap();
    to_first.announce(VNI, v4(2), hop(2)).unwrap();
    to_second.announce(VNI, v4(2), hop(3)).unwrap();
    seen.wait_for_len(3);
    let of_first =
        |it: &MetalBondClient| it.get_route_servers(VNI, &v4(1), &hop(1)).unwrap().unwrap();
    eventually("both servers have it", || of_first(&subscriber).len() == 2);
    assert_eq!(subscriber.route_count().unwrap(), 3);
    to_first.withdraw(VNI, v4(2), hop(2)).unwrap();
    seen.wait_for_len(2);
    to_second.withdraw(VNI, v4(2), hop(3)).unwrap();
    seen.wait_for(&[(VNI, Route::new(v4(1), hop(1)))]);
    to_both.withdraw(VNI, v4(1), hop(1)).unwrap();
    seen.wait_for(&[]);
    assert_eq!(seen.counts(), (3, 3));
}

#[test]
fn stop_of_one_of_two_servers_removes_nothing_the_other_has() {
    let [stays, stops] = [server(), server()];
    let both = [stays.local_addr(), stops.local_addr()];
    let seen = Recorder::default();
    let subscriber = client(&both, seen.clone());
    subscriber.subscribe(VNI).unwrap();
    let announcer = client(&both, NoOpHandler);
    let only_there = client(&both[1..], NoOpHandler);
    for number in 0..100 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    only_there.announce(VNI, v4(1000), hop(2)).unwrap();
    seen.wait_for_len(101);
    stops.shutdown().unwrap();
    seen.wait_for_len(100);
    assert_eq!(seen.counts(), (101, 1), "only what nobody else has");
    // What is announced while a server is down reaches it when it is back.
    announcer.announce(VNI, v4(200), hop(1)).unwrap();
    announcer.withdraw(VNI, v4(0), hop(1)).unwrap();
    seen.wait_for_len(100);
    let back = MetalBondServer::start(both[1], ServerConfig::default()).unwrap();
    eventually("it has everything again", || {
        back.routes().unwrap().len() == 101
    });
    eventually("and the same but for one", || {
        let routes = back.routes().unwrap();
        stays
            .routes()
            .unwrap()
            .iter()
            .all(|route| routes.contains(route))
    });
}

#[test]
fn routes_survive_a_restart_of_the_only_server() {
    let address = free_address();
    let first = MetalBondServer::start(address, ServerConfig::default()).unwrap();
    let seen = Recorder::default();
    let subscriber = client(&[address], seen.clone());
    let announcer = client(&[address], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    announcer.announce(VNI, v4(2), hop(1)).unwrap();
    seen.wait_for_len(2);
    first.shutdown().unwrap();
    let lost = |it: &MetalBondClient| it.state() == ClientState::Disconnected;
    eventually("both notice", || lost(&subscriber) && lost(&announcer));
    announcer.withdraw(VNI, v4(2), hop(1)).unwrap();
    assert_eq!(seen.counts(), (2, 0), "held");
    let second = MetalBondServer::start(address, ServerConfig::default()).unwrap();
    announcer.wait_established_timeout(PATIENCE).unwrap();
    eventually("announced again", || second.stats().routes == 1);
}

#[test]
fn server_that_comes_late_gets_everything() {
    let early = server();
    let late_address = free_address();
    let seen = Recorder::default();
    let addresses = [early.local_addr().to_string(), late_address.to_string()];
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let client = MetalBondClient::start(&addresses, seen.clone(), config).unwrap();
    client.subscribe(VNI).unwrap();
    client.announce(VNI, v4(1), hop(1)).unwrap();
    client.wait_any_established_timeout(PATIENCE).unwrap();
    let late = MetalBondServer::start(late_address, ServerConfig::default()).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    eventually("it has the route", || late.stats().routes == 1);
    eventually("and the subscription", || late.stats().subscriptions == 1);
}

#[test]
fn handler_may_call_the_client_and_may_panic() {
    struct Meddler {
        client: Arc<std::sync::OnceLock<MetalBondClient>>,
        calls: Arc<AtomicUsize>,
    }
    impl RouteHandler for Meddler {
        fn add_route(&self, vni: Vni, route: Route) {
            let client = self.client.get().unwrap();
            assert!(client.get_received_routes(vni).unwrap().contains(&route));
            self.calls.fetch_add(1, Ordering::SeqCst);
            assert_ne!(route.destination, v4(1), "this one panics on purpose");
        }
        fn remove_route(&self, _: Vni, _: Route) {}
    }
    let server = server();
    let (cell, calls) = (Arc::default(), Arc::<AtomicUsize>::default());
    let meddler = Meddler {
        client: Arc::clone(&cell),
        calls: Arc::clone(&calls),
    };
    let subscriber = client(&[server.local_addr()], meddler);
    assert!(cell.set(subscriber.clone()).is_ok());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    announcer.announce(VNI, v4(2), hop(1)).unwrap();
    eventually("both are told", || calls.load(Ordering::SeqCst) == 2);
    subscriber.shutdown().unwrap();
}

/// What a server refuses because of a limit is seen at the client that was refused, and the other
/// way round.
#[test]
fn refusals_are_told_to_who_was_refused() {
    let config = ServerConfig {
        max_subscriptions_per_peer: 1,
        max_routes_per_peer: 1,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
    let client = client(&[server.local_addr()], NoOpHandler);
    let events = client.watch(EventDetail::Routes).unwrap();
    client.subscribe(Vni(1)).unwrap();
    client.subscribe(Vni(2)).unwrap();
    for number in 1..4 {
        client.announce(Vni(3), v4(number), hop(1)).unwrap();
    }
    let mut refused = Vec::new();
    while refused.len() < 2 {
        if let Event::Refused(_, vni, what, why) = events.recv_timeout(PATIENCE).unwrap() {
            refused.push((vni, what, why.to_string()));
        }
    }
    refused.sort();
    let of_limit = |what: &str| format!("the session is at its limit of {what}");
    let expected = [
        (Vni(2), Refused::Subscription, of_limit("subscriptions")),
        (Vni(3), Refused::Announcement, of_limit("routes")),
    ];
    assert_eq!(refused, expected);
    let peer = &client.inspector().peers().unwrap()[0];
    assert!(
        peer.last_notice
            .as_deref()
            .is_some_and(|it| it.contains("limit of"))
    );
    assert!(peer.notices >= 2);
}
