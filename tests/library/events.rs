//! The ways to consume the same events: channel, watcher, driver; and what shapes them.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, client, eventually, hop, server, v4};
use crossbeam_channel::Receiver;
use rustbond::{
    CloseReason, Driver, Error, Event, EventDetail, MetalBondClient, MetalBondServer, NextHopType,
    NoOpHandler, Route, RouteFilter, RouteMatch, ServerId, Vni,
};

const VNI: Vni = Vni(100);
const OTHER: Vni = Vni(200);

fn builder(server: &MetalBondServer) -> rustbond::Builder {
    MetalBondClient::builder()
        .server(server.local_addr().to_string())
        .retry(Duration::from_millis(20), Duration::from_millis(50))
}

/// Takes events until the routes they amount to are these; they must make sense.
#[track_caller]
fn replay(events: &Receiver<Event>, table: &mut BTreeSet<(Vni, Route)>, len: usize) -> Vec<Event> {
    let mut others = Vec::new();
    while table.len() != len || !events.is_empty() {
        match events.recv_timeout(PATIENCE).expect("an event") {
            Event::RouteAdded(vni, route) => assert!(table.insert((vni, route)), "added twice"),
            Event::RouteRemoved(vni, route) => assert!(table.remove(&(vni, route)), "not there"),
            other => others.push(other),
        }
    }
    others
}

#[test]
fn channel_delivers_events_of_servers_tables_and_routes() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for number in 0..5000 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    announcer.flush(PATIENCE).unwrap();
    let (client, events) = builder(&server).events().unwrap();
    client.subscribe(VNI).unwrap();
    let mut table = BTreeSet::new();
    let mut others = replay(&events, &mut table, 5000);
    while !others.contains(&Event::Synced(VNI)) {
        others.extend(events.recv_timeout(PATIENCE));
    }
    assert_eq!(others[0], Event::ServerUp(ServerId(0)));
    server.shutdown().unwrap();
    let down = events.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        down,
        Event::ServerDown(ServerId(0), CloseReason::PeerClosed)
    );
    drop(client);
    let rest = events.iter().collect::<Vec<_>>();
    assert_eq!(rest, [], "the routes are held, and the channel ends");
}

#[test]
fn unread_channel_delays_no_shutdown() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for number in 0..5000 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    let (client, events) = builder(&server).events().unwrap();
    client.subscribe(VNI).unwrap();
    eventually("it is full", || events.is_full());
    let begin = Instant::now();
    client.shutdown_timeout(PATIENCE).unwrap();
    assert!(begin.elapsed() < PATIENCE / 2);
    assert!(events.iter().count() >= 1024, "what was in it stays in it");
}

#[test]
fn watcher_gets_current_routes_then_changes() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let subscriber = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    let churn = announcer.clone();
    let churner = std::thread::spawn(move || {
        for number in 0..20_000 {
            churn.announce(VNI, v4(number), hop(1)).unwrap();
            if number % 2 == 0 {
                churn.withdraw(VNI, v4(number), hop(1)).unwrap();
            }
        }
    });
    eventually("some are there", || {
        subscriber.route_count().unwrap() > 1000
    });
    let watchers: Vec<_> = (0..3)
        .map(|_| subscriber.watch(EventDetail::Routes).unwrap())
        .collect();
    churner.join().unwrap();
    announcer.flush(PATIENCE).unwrap();
    eventually("all are there", || {
        subscriber.route_count().unwrap() == 10_000
    });
    let expected: BTreeSet<_> = subscriber.routes().unwrap().into_iter().collect();
    for events in &watchers {
        let mut table = BTreeSet::new();
        let others = replay(events, &mut table, 10_000);
        assert_eq!(table, expected);
        assert!(others.contains(&Event::ServerUp(ServerId(0))));
        assert!(others.contains(&Event::Synced(VNI)));
    }
    let most: Vec<_> = (0..5)
        .map(|_| subscriber.watch(EventDetail::Routes))
        .collect();
    let refused: Vec<_> = most.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!(matches!(refused[..], [Error::InvalidConfig(_)]));
    drop((most, watchers));
    subscriber.watch(EventDetail::NextHops).unwrap();
}

#[test]
fn watcher_of_next_hops_gets_whole_sets() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let (subscriber, events) = builder(&server)
        .detail(EventDetail::NextHops)
        .events()
        .unwrap();
    subscriber.subscribe(VNI).unwrap();
    let expect = |expected: &[u16]| {
        let expected: Vec<_> = expected.iter().map(|it| hop(*it)).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match events.recv_deadline(deadline).expect("the set") {
                Event::NextHopsChanged(VNI, destination, hops) if hops[..] == expected[..] => {
                    assert_eq!(destination, v4(1));
                    return;
                }
                Event::RouteAdded(..) | Event::RouteRemoved(..) => panic!("not asked for"),
                _ => {}
            }
        }
    };
    announcer.announce(VNI, v4(1), hop(2)).unwrap();
    expect(&[2]);
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    expect(&[1, 2]);
    announcer.withdraw(VNI, v4(1), hop(2)).unwrap();
    expect(&[1]);
    announcer.withdraw(VNI, v4(1), hop(1)).unwrap();
    expect(&[]);
}

#[test]
fn filters_and_imports_shape_received_routes() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for vni in [VNI, OTHER] {
        announcer.announce(vni, v4(1), hop(1)).unwrap();
        let nat = rustbond::NextHop::nat(std::net::Ipv6Addr::LOCALHOST, 1, 2);
        announcer.announce(vni, v4(2), nat).unwrap();
    }
    announcer.flush(PATIENCE).unwrap();
    let filter = RouteFilter::new().reject(RouteMatch::any().hop_type(NextHopType::Nat));
    let (client, events) = builder(&server)
        .filter(filter)
        .import(VNI, OTHER)
        .events()
        .unwrap();
    client.subscribe(VNI).unwrap();
    client.subscribe(OTHER).unwrap();
    let mut table = BTreeSet::new();
    let mut others = replay(&events, &mut table, 3);
    while !others.contains(&Event::Synced(OTHER)) {
        others.extend(events.recv_timeout(PATIENCE));
    }
    let position = |event| others.iter().position(|it| *it == event);
    assert!(
        position(Event::Synced(VNI)).is_some(),
        "it is complete first"
    );
    let copy = rustbond::NextHop::standard_with_vni(hop(1).target_address, VNI.0);
    let expected = [Route::new(v4(1), hop(1)), Route::new(v4(1), copy)];
    assert_eq!(client.get_received_routes(OTHER).unwrap(), expected);
    let servers = client
        .get_route_servers(OTHER, &v4(1), &copy)
        .unwrap()
        .unwrap();
    assert_eq!(servers, [ServerId(0)].into());
    client.unsubscribe(VNI).unwrap();
    replay(&events, &mut table, 1);
    assert_eq!(client.get_received_routes(OTHER).unwrap(), expected[..1]);
}

#[test]
fn bound_source_address_is_used() {
    let server = server();
    let from = std::net::Ipv4Addr::new(127, 0, 0, 99);
    let (client, _events) = builder(&server).bind(from).events().unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
    let peers = server.peers().unwrap();
    assert_eq!(peers[0].address.unwrap().ip(), from);
    let v6 = builder(&server).bind(std::net::Ipv6Addr::LOCALHOST);
    let (client, _events) = v6.events().unwrap();
    let waited = client.wait_established_timeout(Duration::from_millis(200));
    assert!(matches!(waited, Err(Error::Timeout)), "the other family");
}

/// Waits as a program with a poll loop of its own does.
fn turn(driver: &mut Driver, limit: Duration) {
    let wait = driver.poll_timeout().map_or(limit, |due| due.min(limit));
    let mut pollfd = libc::pollfd {
        fd: driver.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let wait_ms = i32::try_from(wait.as_micros().div_ceil(1000)).expect("seconds");
    // SAFETY: one valid pollfd.
    #[allow(unsafe_code, reason = "nothing wraps poll")]
    let result = unsafe { libc::poll(&raw mut pollfd, 1, wait_ms) };
    assert!(result >= 0);
    driver.process();
}

#[test]
fn driver_does_what_a_client_does_without_a_thread() {
    let servers = [server(), server()];
    let mut driver = builder(&servers[0]).keepalive(1).driver().unwrap();
    driver.announce(VNI, v4(1), hop(1)).unwrap();
    driver.subscribe(VNI).unwrap();
    let flush = driver.flush();
    assert_eq!(
        driver.poll_timeout(),
        Some(Duration::ZERO),
        "it wants to begin"
    );
    let deadline = Instant::now() + PATIENCE;
    while !driver.is_flushed(&flush) {
        assert!(Instant::now() < deadline);
        turn(&mut driver, PATIENCE);
    }
    driver.end_flush(flush);
    eventually("it is in the table", || servers[0].stats().routes == 1);
    let other = client(&[servers[0].local_addr()], NoOpHandler);
    for number in 2..3000 {
        other.announce(VNI, v4(number), hop(2)).unwrap();
    }
    let mut table = BTreeSet::new();
    while table.len() < 2998 || !driver.is_synced(VNI).unwrap() {
        assert!(Instant::now() < deadline);
        turn(&mut driver, PATIENCE);
        for event in driver.events() {
            if let Event::RouteAdded(vni, route) = event {
                assert!(table.insert((vni, route)));
            }
        }
    }
    assert_eq!(driver.received_routes(VNI).len(), 2998);
    let added = driver
        .add_server(servers[1].local_addr().to_string())
        .unwrap();
    // Keepalives hold both sessions for longer than their timeout.
    let until = Instant::now() + Duration::from_millis(3000);
    while Instant::now() < until {
        turn(&mut driver, until.saturating_duration_since(Instant::now()));
    }
    assert_eq!(servers[1].stats().routes, 1);
    let downs = driver
        .events()
        .filter(|it| matches!(it, Event::ServerDown(..)));
    assert_eq!(downs.count(), 0);
    driver.remove_server(added);
    turn(&mut driver, Duration::ZERO);
    eventually("it left", || servers[1].stats().sessions == 0);
    drop(driver);
    eventually("it left both", || servers[0].stats().sessions == 1);
}

#[test]
fn driver_resolves_names_without_blocking() {
    let server = server();
    let name = format!("localhost:{}", server.local_addr().port());
    let mut driver = MetalBondClient::builder().server(name).driver().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !driver.events().any(|it| it == Event::ServerUp(ServerId(0))) {
        assert!(Instant::now() < deadline);
        turn(&mut driver, PATIENCE);
    }
}

#[test]
fn handler_that_does_not_return_is_left_behind() {
    struct Stuck {
        begun: crossbeam_channel::Sender<()>,
        release: Receiver<()>,
    }
    impl rustbond::RouteHandler for Stuck {
        fn add_route(&self, _: Vni, _: Route) {
            self.begun.send(()).unwrap();
            assert_eq!(self.release.recv(), Err(crossbeam_channel::RecvError));
        }
        fn remove_route(&self, _: Vni, _: Route) {}
    }
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    announcer.announce(VNI, v4(1), hop(1)).unwrap();
    let (release, stuck) = crossbeam_channel::bounded(0);
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let stuck = Stuck {
        begun,
        release: stuck,
    };
    let client = builder(&server).handler(stuck).unwrap();
    client.subscribe(VNI).unwrap();
    client.wait_synced(VNI, PATIENCE).unwrap();
    // Until the handler has begun, there is nothing to wait for.
    has_begun.recv_timeout(PATIENCE).unwrap();
    let waited = client.shutdown_timeout(Duration::from_millis(100));
    assert!(matches!(waited, Err(Error::Timeout)));
    eventually("the connection is closed", || server.stats().sessions == 1);
    drop::<crossbeam_channel::Sender<()>>(release);
    client.shutdown_timeout(PATIENCE).unwrap();
}
