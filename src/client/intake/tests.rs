//! A client before a consumer that it hands events to itself.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::client::{ClientState, MetalBondClient, NoOpHandler};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::Error;
use crate::server::{MetalBondServer, ServerConfig};

const PATIENCE: Duration = Duration::from_secs(30);
const VNI: Vni = Vni(7);

/// A consumer that a test opens and closes.
#[derive(Clone)]
struct Gate(Arc<Mutex<State>>);

struct State {
    room: Room,
    events: Vec<Event>,
    longest: usize,
}

impl Intake for Gate {
    fn room(&mut self) -> Room {
        self.0.lock().room
    }

    fn take(&mut self, batch: Vec<Event>) {
        let mut state = self.0.lock();
        assert_eq!(state.room, Room::Free);
        state.longest = state.longest.max(batch.len());
        state.events.extend(batch);
    }
}

impl Gate {
    fn new(room: Room) -> Self {
        Self(Arc::new(Mutex::new(State {
            room,
            events: Vec::new(),
            longest: 0,
        })))
    }

    /// The routes that the events so far amount to, and how many events that took.
    fn table(&self) -> (BTreeSet<Route>, usize) {
        let (mut routes, mut count) = (BTreeSet::new(), 0);
        for event in &self.0.lock().events {
            match event {
                Event::RouteAdded(_, route) => assert!(routes.insert(*route), "added twice"),
                Event::RouteRemoved(_, route) => assert!(routes.remove(route), "never added"),
                _ => continue,
            }
            count += 1;
        }
        (routes, count)
    }
}

fn eventually(what: &str, mut is_reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_reached() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        std::thread::yield_now();
    }
}

fn route(number: u32, hop: u16) -> Route {
    let underlay = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, hop);
    let address = Ipv4Addr::from(0x0a00_0000 + number);
    Route::new(
        Destination::from_ipv4(address, 32),
        NextHop::standard(underlay),
    )
}

/// A server, somebody who announces, a client with a gate, and what wakes that client.
struct World {
    announcer: MetalBondClient,
    client: MetalBondClient,
    gate: Gate,
    waker: ClientWaker,
    _server: MetalBondServer,
}

impl World {
    fn new(room: Room) -> Self {
        let server = MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap();
        let address = [server.local_addr().to_string()];
        let gate = Gate::new(room);
        let mut waker = None;
        let client = MetalBondClient::builder()
            .servers(&address)
            .direct(|it| {
                waker = Some(it);
                gate.clone()
            })
            .unwrap();
        client.subscribe(VNI).unwrap();
        client.wait_synced(VNI, PATIENCE).unwrap();
        Self {
            announcer: MetalBondClient::connect(&address, NoOpHandler),
            client,
            gate,
            waker: waker.unwrap(),
            _server: server,
        }
    }

    fn announce(&self, route: Route) {
        let Route {
            destination,
            next_hop,
        } = route;
        self.announcer.announce(VNI, destination, next_hop).unwrap();
    }

    fn withdraw(&self, route: Route) {
        let Route {
            destination,
            next_hop,
        } = route;
        self.announcer.withdraw(VNI, destination, next_hop).unwrap();
    }

    /// Waits until the client's view is this.
    fn wait_for_view(&self, routes: &BTreeSet<Route>) {
        let is_reached = || {
            let received = self.client.get_received_routes(VNI).unwrap();
            received.into_iter().collect::<BTreeSet<_>>() == *routes
        };
        eventually("the client's view", is_reached);
    }

    fn set_room(&self, room: Room) {
        self.gate.0.lock().room = room;
        (self.waker)();
    }
}

#[test]
fn full_consumer_delays_nobody_and_gets_every_key_once() {
    let world = World::new(Room::Full);
    let mut expected = BTreeSet::new();
    for round in 0..20 {
        for number in 0..50 {
            world.announce(route(number, round));
            if round > 0 {
                world.withdraw(route(number, round - 1));
            }
        }
        expected = (0..50).map(|number| route(number, round)).collect();
        world.wait_for_view(&expected);
    }
    world.client.flush(PATIENCE).unwrap();
    assert_eq!(world.gate.table().1, 0, "nothing is handed to a full one");
    world.set_room(Room::Free);
    eventually("all routes", || world.gate.table().0 == expected);
    assert_eq!(world.gate.table().1, 50, "what changed often is told once");
    // What comes and goes while there is no room is not told at all.
    world.set_room(Room::Full);
    world.announce(route(100, 1));
    expected.insert(route(100, 1));
    world.wait_for_view(&expected);
    world.withdraw(route(100, 1));
    expected.remove(&route(100, 1));
    world.wait_for_view(&expected);
    world.set_room(Room::Free);
    world.announce(route(101, 1));
    expected.insert(route(101, 1));
    eventually("the last route", || world.gate.table().0 == expected);
    assert_eq!(world.gate.table().1, 51);
}

#[test]
fn long_table_is_handed_over_in_batches_without_being_asked() {
    let world = World::new(Room::Full);
    let expected: BTreeSet<Route> = (0..5000).map(|number| route(number, 1)).collect();
    for route in &expected {
        world.announce(*route);
    }
    world.wait_for_view(&expected);
    world.set_room(Room::Free);
    eventually("all routes", || world.gate.table().0 == expected);
    assert!(world.gate.0.lock().longest <= 1024);
}

#[test]
fn client_goes_on_after_its_consumer_is_closed() {
    let world = World::new(Room::Closed);
    world.announce(route(1, 1));
    world.wait_for_view(&BTreeSet::from([route(1, 1)]));
    world.client.shutdown().unwrap();
    assert_eq!(world.gate.table().1, 0);
}

/// A consumer that panics on the client's thread once it is told to.
struct Faulty(Arc<Mutex<bool>>);

impl Intake for Faulty {
    fn room(&mut self) -> Room {
        assert!(!*self.0.lock(), "a test asked for it");
        Room::Free
    }

    fn take(&mut self, _: Vec<Event>) {}
}

/// A controller that reconciles from it would remove everything.
#[test]
fn panicked_client_says_so_and_is_not_empty() {
    let server = MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap();
    let builder = MetalBondClient::builder().server(server.local_addr().to_string());
    let (fault, mut waker) = (Arc::new(Mutex::new(false)), None);
    let client = builder.direct(|it| {
        waker = Some(it);
        Faulty(Arc::clone(&fault))
    });
    let (client, waker) = (client.unwrap(), waker.unwrap());
    client.subscribe(VNI).unwrap();
    client.wait_synced(VNI, PATIENCE).unwrap();
    let waiting = client.clone();
    let waits = std::thread::spawn(move || waiting.life().wait());
    *fault.lock() = true;
    waker();
    let ended = client.life().wait_timeout(PATIENCE);
    let view = client.inspector();
    eventually("it is closed", || client.state() == ClientState::Failed);
    let answers = [
        ended,
        waits.join().unwrap(),
        client.life().check(),
        client.wait_all_established(),
        client.wait_any_established_timeout(PATIENCE),
        client.get_received_routes(VNI).map(drop),
        client.routes().map(drop),
        client.route_count().map(drop),
        client.subscriptions().map(drop),
        client.subscribe(VNI).map(drop),
        client.flush(PATIENCE),
        view.peers().map(drop),
        view.snapshot(None).map(drop),
        client.shutdown(),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let is_said = matches!(&answer, Err(Error::Panicked(it)) if it == "metalbond-client");
        assert!(is_said, "{at}: {answer:?}");
    }
    assert!(view.status().not_ready.unwrap().contains("panicked"));
    assert_eq!(client.connected_count(), 0);
}
