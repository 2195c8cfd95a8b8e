//! How clients and servers live and end: two of everything, and the longest times.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Recorder, client, eventually, hop, server, v4};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustbond::inspect::{Command, WatchEvent, WatchFrom};
use rustbond::probe::{ProbeConfig, probe};
use rustbond::{
    ClientConfig, ClientState, Destination, Error, Event, EventDetail, MetalBondClient,
    MetalBondServer, NextHop, NextHopHandler, NoOpHandler, Route, RouteHandler, ServerConfig, Vni,
};

const VNI: Vni = Vni(100);

/// Long enough for what returns at once although it must not.
const SOON: Duration = Duration::from_millis(200);

/// A handler that stays in its first call until it is let go.
struct Stuck {
    entered: Sender<()>,
    held: Receiver<()>,
}

impl RouteHandler for Stuck {
    fn add_route(&self, _: Vni, _: Route) {
        self.entered.send(()).unwrap();
        assert!(self.held.recv().is_err(), "nothing is sent");
    }

    fn remove_route(&self, _: Vni, _: Route) {}
}

#[test]
fn two_shutdowns_at_once_both_wait_for_the_handler() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    let ((entered, has_entered), (let_go, held)) = (bounded(1), bounded::<()>(0));
    let ours = client(&[server.local_addr()], Stuck { entered, held });
    ours.subscribe(VNI).unwrap();
    has_entered.recv_timeout(PATIENCE).unwrap();
    let (ended, has_ended) = bounded(2);
    let begin = || {
        let (ours, ended) = (ours.clone(), ended.clone());
        std::thread::spawn(move || ended.send(ours.shutdown_timeout(PATIENCE)).unwrap())
    };
    let threads = [begin(), begin()];
    let early = has_ended.recv_timeout(SOON);
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "{early:?}");
    drop(let_go);
    for thread in threads {
        has_ended.recv_timeout(PATIENCE).unwrap().unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn stopped_client_says_so_and_is_not_empty() {
    let server = server();
    let seen = Recorder::default();
    let ours = client(&[server.local_addr()], seen);
    let view = ours.inspector();
    ours.subscribe(VNI).unwrap();
    ours.announce(VNI, v4(1), hop(1)).unwrap();
    ours.wait_synced(VNI, PATIENCE).unwrap();
    let life = ours.life();
    life.check().unwrap();
    ours.shutdown().unwrap();
    life.wait().unwrap();
    assert_eq!(ours.state(), ClientState::Closed);
    let (destination, hop) = (v4(1), hop(1));
    let answers = [
        life.check(),
        ours.is_synced(VNI).map(drop),
        ours.announcement_servers(VNI, &destination, &hop).map(drop),
        ours.get_received_routes(VNI).map(drop),
        ours.routes().map(drop),
        ours.suppressed_routes(VNI).map(drop),
        ours.get_announced_routes().map(drop),
        ours.subscriptions().map(drop),
        ours.synced().map(drop),
        ours.route_count().map(drop),
        ours.is_route_table_empty().map(drop),
        ours.get_route_servers(VNI, &destination, &hop).map(drop),
        ours.watch(EventDetail::Routes).map(drop),
        ours.wait_any_established(),
        view.peers().map(drop),
        view.vnis().map(drop),
        view.snapshot(None).map(drop),
        view.announcements().map(drop),
        view.watch(None, WatchFrom::Current).map(drop),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        assert!(matches!(answer, Err(Error::Closed)), "{at}: {answer:?}");
    }
}

#[test]
fn wait_for_all_servers_of_a_client_without_any_is_no_success() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    for id in ours.servers().into_keys() {
        ours.remove_server(id).unwrap();
    }
    let waited = ours.wait_all_established_timeout(SOON);
    assert!(matches!(waited, Err(Error::Timeout)));
    ours.add_server(server.local_addr().to_string()).unwrap();
    ours.wait_all_established_timeout(PATIENCE).unwrap();
}

/// A connect that fails at once is due again at once with these settings.
#[test]
fn retry_without_a_pause_still_lets_the_client_turn() {
    let (turned, has_turned) = bounded(1);
    std::thread::spawn(move || {
        let mut driver = MetalBondClient::builder()
            .server("127.0.0.1:1")
            .bind(Ipv4Addr::new(192, 0, 2, 1))
            .retry(Duration::ZERO, Duration::ZERO)
            .driver()
            .unwrap();
        driver.process();
        turned.send(driver.poll_timeout()).unwrap();
    });
    let wait = has_turned.recv_timeout(PATIENCE).expect("a turn ends");
    assert!(wait.is_some_and(|it| !it.is_zero()), "{wait:?}");
}

/// All that a client's caller may give.
fn longest() -> ClientConfig {
    ClientConfig {
        handshake_timeout: Duration::MAX,
        stale_time: Duration::MAX,
        settle_time: Duration::MAX,
        retry_min: Duration::MAX,
        retry_max: Duration::MAX,
        keepalive_interval: u32::MAX,
        ..ClientConfig::default()
    }
}

#[test]
fn longest_times_of_a_client_panic_nowhere() {
    let (server, other) = (server(), server());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    announcer.flush(PATIENCE).unwrap();
    let addresses = [server.local_addr(), other.local_addr()].map(|it| it.to_string());
    let ours = MetalBondClient::start(&addresses, NoOpHandler, longest()).unwrap();
    ours.subscribe(VNI).unwrap();
    ours.wait_any_established_timeout(Duration::MAX).unwrap();
    ours.wait_all_established_timeout(Duration::MAX).unwrap();
    ours.wait_synced(VNI, Duration::MAX).unwrap();
    ours.flush(Duration::MAX).unwrap();
    ours.reconfigure(longest()).unwrap();
    let view = ours.inspector();
    let mut watch = view.watch(None, WatchFrom::Current).unwrap();
    watch.wait(Duration::MAX).unwrap();
    eventually("it is there", || ours.route_count().unwrap() == 1);
    server.shutdown().unwrap();
    // Losses count linger, then hold; a server that is left is not dialled for `MAX`.
    eventually("it is lost", || ours.connected_count() == 1);
    let drain = Command::DrainPeer(other.local_addr().to_string(), Duration::MAX);
    view.execute(drain).unwrap();
    eventually("both are lost", || ours.connected_count() == 0);
    assert_eq!(ours.route_count().unwrap(), 1, "held for a century");
    let waited = ours.wait_any_established_timeout(SOON);
    assert!(matches!(waited, Err(Error::Timeout)));
    ours.life().check().unwrap();
    ours.shutdown_timeout(Duration::MAX).unwrap();
}

#[test]
fn longest_times_of_a_server_panic_nowhere() {
    let config = ServerConfig {
        handshake_timeout: Duration::MAX,
        keepalive_interval: u32::MAX,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config.clone()).unwrap();
    let view = server.inspector();
    let mut watch = view.watch(None, WatchFrom::Now).unwrap();
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.wait_established().unwrap();
    watch.wait(Duration::MAX).unwrap();
    server.reconfigure(config).unwrap();
    let probed = ProbeConfig {
        timeout: Duration::MAX,
        pause: Duration::MAX,
        ..ProbeConfig::default()
    };
    let probed = ProbeConfig { count: 1, ..probed };
    probe(&server.endpoints()[0], &probed).unwrap();
    let drain = server.drain(Duration::MAX);
    assert!(matches!(drain.wait(SOON), Err(Error::Timeout)));
    let name = view.peers().unwrap()[0].name.clone();
    view.execute(Command::DrainPeer(name, Duration::MAX))
        .unwrap();
    server.life().check().unwrap();
    server.shutdown().unwrap();
    drain.wait(Duration::MAX).unwrap();
}

/// A peer that was drained for ever must not be taken back at once.
#[test]
fn peer_drained_for_the_longest_time_is_refused() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.wait_established().unwrap();
    let view = server.inspector();
    let name = view.peers().unwrap()[0].name.clone();
    view.execute(Command::DrainPeer(name, Duration::MAX))
        .unwrap();
    eventually("it is gone", || ours.connected_count() == 0);
    let refused = server.stats().refused_sessions;
    eventually("it is refused", || {
        server.stats().refused_sessions > refused
    });
    assert_eq!(ours.connected_count(), 0);
}

#[test]
fn watches_that_ended_quietly_leave_room_for_others() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.wait_established().unwrap();
    for view in [ours.inspector(), server.inspector()] {
        for round in 0..20 {
            let watches: Vec<_> = (0..7)
                .map(|_| view.watch(None, WatchFrom::Now))
                .collect::<Result<_, _>>()
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            drop(watches);
        }
    }
    // The same for channels, the one that the client was made with among them.
    let builder = MetalBondClient::builder().server(server.local_addr().to_string());
    let (ours, first) = builder.events().unwrap();
    drop(first);
    for _ in 0..3 {
        let watches: Result<Vec<_>, _> = (0..8).map(|_| ours.watch(EventDetail::Routes)).collect();
        watches.unwrap();
    }
}

/// The first consumer's slot is given to another while its end is still on its way.
#[test]
fn watch_outlives_the_consumer_whose_slot_it_has() {
    let server = server();
    for round in 0..20 {
        let builder = MetalBondClient::builder().server(server.local_addr().to_string());
        let (ours, first) = builder.events().unwrap();
        drop(first);
        let second = ours.watch(EventDetail::Routes).unwrap();
        ours.subscribe(VNI).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let is_synced = |event: &Event| *event == Event::Synced(VNI);
        while !is_synced(&second.recv_deadline(deadline).expect("an event")) {}
        ours.unsubscribe(VNI).unwrap();
        ours.subscribe(VNI).unwrap();
        while !is_synced(&second.recv_deadline(deadline).expect("an event")) {}
        assert!(ours.shutdown().is_ok(), "round {round}");
    }
}

/// A change that is made after the call returned is in the watch, whoever makes it.
#[test]
fn watch_of_a_server_begins_before_its_call_returns() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.wait_established().unwrap();
    for number in 0..100 {
        let mut watch = server.inspector().watch(None, WatchFrom::Now).unwrap();
        ours.announce(Vni(number), v4(number), hop(1)).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let is_it = |it: &WatchEvent| matches!(it, WatchEvent::Route(Vni(at), ..) if *at == number);
        while !watch.wait(PATIENCE).unwrap().iter().any(is_it) {
            assert!(Instant::now() < deadline, "round {number}");
        }
    }
}

/// What a handler of next hops was told.
struct Sets(Sender<(Destination, Vec<NextHop>)>);

impl NextHopHandler for Sets {
    fn next_hops_changed(&self, _: Vni, destination: Destination, next_hops: &[NextHop]) {
        self.0.send((destination, next_hops.to_vec())).unwrap();
    }
}

#[test]
fn handler_of_next_hops_is_told_whole_sets() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let (sets, told) = crossbeam_channel::unbounded();
    let builder = || MetalBondClient::builder().server(server.local_addr().to_string());
    let ours = builder().next_hop_handler(Sets(sets)).unwrap();
    ours.subscribe(VNI).unwrap();
    let expect = |expected: &[NextHop]| {
        let deadline = Instant::now() + PATIENCE;
        while told.recv_deadline(deadline).expect("the set") != (v4(1), expected.to_vec()) {}
    };
    announcer.announce(VNI, v4(1), hop(2)).unwrap();
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    expect(&[hop(1), hop(2)]);
    announcer.withdraw(VNI, v4(1), hop(2)).unwrap();
    announcer.withdraw(VNI, v4(1), hop(1)).unwrap();
    expect(&[]);
    // A handler of routes would be told nothing.
    let refused = builder().detail(EventDetail::NextHops).handler(NoOpHandler);
    assert!(matches!(refused, Err(Error::InvalidConfig(_))));
}

#[test]
fn subscription_beyond_max_vnis_is_refused_and_the_others_go_on() {
    let server = server();
    let config = ClientConfig {
        max_vnis: 1,
        ..ClientConfig::default()
    };
    let servers = [server.local_addr().to_string()];
    let ours = MetalBondClient::start(&servers, NoOpHandler, config.clone()).unwrap();
    ours.subscribe(VNI).unwrap();
    let refused = ours.subscribe(Vni(7));
    assert!(matches!(refused, Err(Error::TooManyVnis(1))), "{refused:?}");
    ours.wait_synced(VNI, PATIENCE).unwrap();
    ours.subscribe(VNI).unwrap();
    let config = ClientConfig {
        max_vnis: 2,
        ..config
    };
    assert_eq!(ours.reconfigure(config).unwrap(), Vec::<&str>::new());
    ours.subscribe(Vni(7)).unwrap();
}

#[test]
fn routes_beyond_max_routes_are_counted_and_come_when_the_limit_is_raised() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for number in 1..=5 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    announcer.flush(PATIENCE).unwrap();
    let seen = Recorder::default();
    let config = ClientConfig {
        max_routes: 3,
        ..ClientConfig::default()
    };
    let servers = [server.local_addr().to_string()];
    let ours = MetalBondClient::start(&servers, seen.clone(), config.clone()).unwrap();
    let view = ours.inspector();
    ours.subscribe(VNI).unwrap();
    ours.wait_synced(VNI, PATIENCE).unwrap();
    seen.wait_for_len(3);
    let status = view.status();
    let stats = status.client.unwrap();
    assert_eq!((stats.refused_routes, stats.missing_routes), (2, 2));
    assert!(status.not_ready.unwrap().contains("2 routes are missing"));
    ours.reconfigure(ClientConfig::default()).unwrap();
    seen.wait_for_len(5);
    eventually("ready again", || view.status().not_ready.is_none());
    let stats = view.status().client.unwrap();
    assert_eq!((stats.refused_routes, stats.missing_routes), (2, 0));
}
