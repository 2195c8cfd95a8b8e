//! What can be seen of servers and clients while they run, and changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::double::Client as GoClient;
use crate::double::Reading::Strict;
use crate::support::{PATIENCE, Raw, Recorder, client, eventually, hop, server, v4};
use rustbond::inspect::{
    Command, Digest, Done, Inspect, PeerKind, PeerState, PeerStatus, Watch, WatchEvent, WatchFrom,
};
use rustbond::{Action, Destination, Error, MetalBondClient, NextHop, NoOpHandler, Route, Vni};

const VNI: Vni = Vni(100);
const OTHER: Vni = Vni(200);

fn route(number: u32) -> Route {
    Route::new(v4(number), hop(1))
}

fn announce(client: &MetalBondClient, vni: Vni, routes: impl IntoIterator<Item = Route>) {
    for route in routes {
        client
            .announce(vni, route.destination, route.next_hop)
            .unwrap();
    }
}

fn digest(inspector: &Arc<dyn Inspect>, vni: Vni) -> Option<Digest> {
    let vnis = inspector.vnis().unwrap();
    vnis.iter()
        .find(|it| it.vni == vni)
        .map(|it| it.table.digest)
}

fn routes(inspector: &Arc<dyn Inspect>) -> BTreeSet<(Vni, Route)> {
    let snapshot = inspector.snapshot(None).unwrap();
    let entries = snapshot.entries().iter();
    entries.map(|it| (it.vni, it.route)).collect()
}

/// What has happened, until `is_enough`.
fn watch_until(
    watch: &mut Watch,
    mut is_enough: impl FnMut(&[WatchEvent]) -> bool,
) -> Vec<WatchEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    while !is_enough(&events) {
        assert!(Instant::now() < deadline, "only {events:?}");
        events.extend(watch.wait(Duration::from_millis(100)).unwrap());
    }
    events
}

/// Applies what a watch tells; a change that changes nothing ends the test.
fn replay(table: &mut BTreeSet<(Vni, Route)>, events: &[WatchEvent]) {
    for event in events {
        match event {
            WatchEvent::Route(vni, Action::Add, route) => assert!(table.insert((*vni, *route))),
            WatchEvent::Route(vni, Action::Remove, route) => assert!(table.remove(&(*vni, *route))),
            _ => {}
        }
    }
}

#[test]
fn servers_and_clients_that_agree_have_one_digest() {
    let servers = [server(), server()];
    let addresses = [servers[0].local_addr(), servers[1].local_addr()];
    let source = client(&addresses, NoOpHandler);
    announce(&source, VNI, (0..1000).map(route));
    let address = std::net::Ipv6Addr::LOCALHOST;
    announce(
        &source,
        VNI,
        [Route::new(v4(1), NextHop::nat(address, 1, 2))],
    );
    announce(
        &source,
        VNI,
        [Route::new(v4(1), NextHop::load_balancer(address))],
    );
    let listener = client(&addresses, NoOpHandler);
    listener.subscribe(VNI).unwrap();
    listener.wait_synced(VNI, PATIENCE).unwrap();
    let [one, other] = [servers[0].inspector(), servers[1].inspector()];
    let theirs = listener.inspector();
    eventually("all agree", || {
        let digests = [&one, &other, &theirs].map(|it| digest(it, VNI));
        digests[0].is_some()
            && digests[0] == digests[1]
            && digests[0] == digests[2]
            && one.status().routes == 1002
    });
    for inspector in [&one, &other, &theirs] {
        let table = inspector.vnis().unwrap()[0].table;
        assert_eq!((table.standard, table.nat), (1000, 1));
        assert_eq!((table.load_balancer, table.other), (1, 0));
        assert_eq!(table.routes(), 1002);
    }
    assert_eq!(theirs.vnis().unwrap()[0].is_synced, Some(true));
    assert_eq!(
        (
            one.vnis().unwrap()[0].subscribers,
            theirs.vnis().unwrap()[0].subscribers
        ),
        (1, 1)
    );
    let before = (digest(&one, VNI), one.generation(), theirs.generation());
    source.withdraw(VNI, v4(7), hop(1)).unwrap();
    eventually("a withdrawal changes it", || digest(&one, VNI) != before.0);
    eventually("at the client too", || {
        digest(&theirs, VNI) == digest(&one, VNI)
    });
    assert_ne!(one.generation(), before.1);
    assert_ne!(theirs.generation(), before.2);
    source.announce(VNI, v4(7), hop(1)).unwrap();
    eventually("the same routes have the same digest", || {
        digest(&one, VNI) == before.0 && digest(&theirs, VNI) == before.0
    });
}

#[test]
fn peers_are_listed_by_kind_with_their_counts() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.subscribe(VNI).unwrap();
    announce(&ours, OTHER, (0..10).map(route));
    let go = GoClient::connect(server.local_addr(), 5, Strict);
    go.subscribe(OTHER.0);
    go.wait_for_len(10);
    let silent = Raw::connect(server.local_addr());
    let inspector = server.inspector();
    let find = |what: &dyn Fn(&PeerStatus) -> bool| {
        inspector.peers().unwrap().into_iter().find(|it| what(it))
    };
    eventually("all three are there", || {
        inspector.peers().unwrap().len() == 3
    });
    eventually("ours has told all", || {
        find(&|it| it.kind == PeerKind::RustBond).is_some_and(|it| it.routes == 10)
    });
    let peer = find(&|it| it.kind == PeerKind::RustBond).unwrap();
    assert_eq!(
        (peer.state, peer.subscriptions),
        (PeerState::Established, 1)
    );
    assert_eq!((peer.received.hello, peer.received.subscribe), (1, 1));
    assert_eq!((peer.received.update, peer.received.unsubscribe), (10, 0));
    assert_eq!(
        (peer.sent.hello, peer.sent.update, peer.sent.end_of_rib),
        (1, 0, 1)
    );
    assert!(peer.sent.keepalive > 0 && peer.uptime.is_some());
    let peer = find(&|it| it.kind == PeerKind::Legacy).unwrap();
    assert_eq!((peer.sent.update, peer.sent.end_of_rib), (10, 0));
    assert!(peer.legacy_rate.is_some());
    let peer = find(&|it| it.kind == PeerKind::Unknown).unwrap();
    assert_eq!((peer.state, peer.uptime), (PeerState::AwaitHello, None));
    assert_eq!(peer.address, Some(silent.stream.local_addr().unwrap()));

    let status = inspector.status();
    assert_eq!(
        (status.peers, status.established, status.routes),
        (3, 2, 10)
    );
    assert_eq!((status.updates_received, status.updates_sent), (10, 10));
    assert_eq!(status.not_ready, None);
    let view = ours.inspector();
    let peers = view.peers().unwrap();
    assert_eq!(peers[0].name, server.local_addr().to_string());
    assert_eq!(
        (peers[0].state, peers[0].kind),
        (PeerState::Established, PeerKind::RustBond)
    );
    assert_eq!((peers[0].sent.update, peers[0].sent.subscribe), (10, 1));
    assert_eq!(view.announcements().unwrap().len(), 10);
    drop(silent);
    eventually("one leaves", || inspector.peers().unwrap().len() == 2);
}

#[test]
fn route_entry_names_its_announcers() {
    let server = server();
    let sources = [0, 1].map(|_| client(&[server.local_addr()], NoOpHandler));
    announce(&sources[0], VNI, [route(1), route(2)]);
    announce(&sources[1], VNI, [route(2), route(3)]);
    let inspector = server.inspector();
    inspector.execute(Command::Announce(VNI, route(3))).unwrap();
    eventually("all are there", || server.stats().announcements == 5);
    let snapshot = inspector.snapshot(Some(VNI)).unwrap();
    let announcers: Vec<usize> = snapshot
        .of(VNI)
        .iter()
        .map(|it| it.announcers.ids().len())
        .collect();
    assert_eq!(announcers, [1, 2, 2]);
    let third = &snapshot.entries()[2];
    let names = third
        .announcers
        .ids()
        .iter()
        .map(|id| snapshot.name(*id).unwrap());
    assert!(names.collect::<Vec<_>>().contains(&"self"));
    assert!(
        inspector
            .snapshot(Some(OTHER))
            .unwrap()
            .entries()
            .is_empty()
    );
}

/// What is there all the time is in every snapshot, once, whatever comes and goes.
#[test]
fn snapshot_is_whole_while_routes_come_and_go() {
    const STABLE: u32 = 20_000;
    let server = server();
    let source = client(&[server.local_addr()], NoOpHandler);
    announce(&source, VNI, (0..STABLE).map(route));
    let listener = client(&[server.local_addr()], NoOpHandler);
    listener.subscribe(VNI).unwrap();
    let views = [server.inspector(), listener.inspector()];
    for view in &views {
        eventually("the table is there", || {
            view.status().routes == STABLE as usize
        });
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let churn = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                announce(&source, VNI, (STABLE..STABLE + 500).map(route));
                for number in STABLE..STABLE + 500 {
                    source.withdraw(VNI, v4(number), hop(1)).unwrap();
                }
            }
            source
        }
    });
    for _ in 0..20 {
        for view in &views {
            let snapshot = view.snapshot(None).unwrap();
            let stable = snapshot.entries().iter().take(STABLE as usize);
            assert!(stable.map(|it| it.route).eq((0..STABLE).map(route)));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    drop(churn.join().unwrap());
}

#[test]
fn watch_tells_current_routes_then_every_change() {
    let server = server();
    let source = client(&[server.local_addr()], NoOpHandler);
    announce(&source, VNI, (0..5000).map(route));
    announce(&source, OTHER, (0..10).map(route));
    let listener = client(&[server.local_addr()], NoOpHandler);
    for vni in [VNI, OTHER] {
        listener.subscribe(vni).unwrap();
        listener.wait_synced(vni, PATIENCE).unwrap();
    }
    for view in [server.inspector(), listener.inspector()] {
        eventually("the table is there", || view.status().routes == 5010);
        let mut watch = view.watch(None, WatchFrom::Current).unwrap();
        let mut others = view.watch(Some(OTHER), WatchFrom::Now).unwrap();
        let events = watch_until(&mut watch, |it| it.contains(&WatchEvent::Current));
        watch_until(&mut others, |it| it.contains(&WatchEvent::Current));
        let mut table = BTreeSet::new();
        replay(&mut table, &events);
        assert_eq!(table, routes(&view));
        for number in 0..100 {
            source.withdraw(VNI, v4(number), hop(1)).unwrap();
        }
        announce(&source, OTHER, (10..20).map(route));
        let mut told = 0;
        let events = watch_until(&mut watch, |events| {
            told = events.len();
            told >= 110
        });
        replay(&mut table, &events);
        assert_eq!(table, routes(&view));
        let events = watch_until(&mut others, |events| events.len() >= 10);
        let added = |it: &WatchEvent| matches!(it, WatchEvent::Route(OTHER, Action::Add, _));
        assert!(events.iter().all(added), "{events:?}");
        announce(&source, VNI, (0..100).map(route));
        for number in 10..20 {
            source.withdraw(OTHER, v4(number), hop(1)).unwrap();
        }
        eventually("all is as it was", || view.status().routes == 5010);
    }
}

#[test]
fn watch_tells_of_peers_and_ends_with_its_server() {
    let server = server();
    let inspector = server.inspector();
    let mut watch = inspector.watch(None, WatchFrom::Now).unwrap();
    let ours = client(&[server.local_addr()], NoOpHandler);
    let is_up = |it: &WatchEvent| matches!(it, WatchEvent::PeerUp(_));
    watch_until(&mut watch, |events| events.iter().any(is_up));
    drop(ours);
    let is_down = |it: &WatchEvent| matches!(it, WatchEvent::PeerDown(..));
    watch_until(&mut watch, |events| events.iter().any(is_down));
    server.shutdown().unwrap();
    assert!(matches!(watch.wait(PATIENCE), Err(Error::Closed)));
    assert!(inspector.status().not_ready.is_some());
    assert!(matches!(inspector.snapshot(None), Err(Error::Closed)));
    let announced = inspector.execute(Command::Announce(VNI, route(1)));
    assert!(matches!(announced, Err(Error::Closed)));
}

#[test]
fn watches_past_the_limit_are_refused() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    for view in [server.inspector(), ours.inspector()] {
        let mut watches = Vec::new();
        let refused = loop {
            match view.watch(None, WatchFrom::Now) {
                Ok(watch) => watches.push(watch),
                Err(error) => break error,
            }
            assert!(watches.len() < 100);
        };
        assert!(matches!(refused, Error::Busy));
        drop(watches);
    }
}

/// A server announces in its own name, as one peer among others.
#[test]
fn route_announced_by_a_server_reaches_its_clients() {
    let server = server();
    let inspector = server.inspector();
    let recorder = Recorder::default();
    let ours = client(&[server.local_addr()], recorder.clone());
    ours.subscribe(VNI).unwrap();
    let announce = || inspector.execute(Command::Announce(VNI, route(1))).unwrap();
    assert_eq!(
        [announce(), announce()],
        [Done::Changed(1), Done::Unchanged]
    );
    recorder.wait_for(&[(VNI, route(1))]);
    assert_eq!(inspector.announcements().unwrap(), [(VNI, route(1))]);
    assert_eq!(inspector.status().announced, 1);
    ours.announce(VNI, v4(1), hop(1)).unwrap();
    eventually("both announce it", || server.stats().announcements == 2);
    let withdraw = || inspector.execute(Command::Withdraw(VNI, route(1))).unwrap();
    assert_eq!(
        [withdraw(), withdraw()],
        [Done::Changed(1), Done::Unchanged]
    );
    recorder.wait_for(&[]);
    assert_eq!(server.stats().routes, 1, "the client's own is still there");
    let subscribed = inspector.execute(Command::Subscribe(VNI));
    assert!(matches!(subscribed, Err(Error::Unsupported(_))));
}

#[test]
fn client_changed_through_its_inspector_behaves_as_by_its_handle() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    let view = ours.inspector();
    let twice = |command: Command| {
        let done = [0, 1].map(|_| view.execute(command.clone()).unwrap());
        assert_eq!(done, [Done::Changed(1), Done::Unchanged], "{command:?}");
    };
    twice(Command::Subscribe(VNI));
    twice(Command::Announce(VNI, route(1)));
    assert_eq!(ours.get_announced_routes().unwrap(), [(VNI, route(1))]);
    eventually("it is ready", || view.status().not_ready.is_none());
    twice(Command::Withdraw(VNI, route(1)));
    twice(Command::Unsubscribe(VNI));
    assert!(ours.subscriptions().unwrap().is_empty());
}

#[test]
fn server_name_that_does_not_resolve_is_shown_as_such() {
    // RFC 6761: a name below `invalid` never exists.
    let ours = MetalBondClient::connect(&["nowhere.invalid:4711"], NoOpHandler);
    let view = ours.inspector();
    let error = || {
        view.peers()
            .unwrap()
            .first()
            .and_then(|it| it.last_error.clone())
    };
    eventually("the reason is told", || {
        error().as_deref() == Some("name not resolved")
    });
}

#[test]
fn peer_that_is_reset_comes_back() {
    let server = server();
    let ours = client(&[server.local_addr()], NoOpHandler);
    let inspector = server.inspector();
    let name = inspector.peers().unwrap()[0].name.clone();
    let done = inspector.execute(Command::ResetPeer(name.clone())).unwrap();
    assert_eq!(done, Done::Changed(1));
    eventually("it is back under another name", || {
        let peers = inspector.peers().unwrap();
        let mut back = peers.iter().filter(|it| it.state == PeerState::Established);
        back.next().is_some_and(|it| {
            it.name != name
                && it.flaps == 1
                && it.last_error.as_deref() == Some("reset by an operator")
        })
    });
    let again = inspector.execute(Command::ResetPeer(name));
    assert!(matches!(again, Err(Error::PeerNotFound(_))));
    let view = ours.inspector();
    eventually("it sees that", || {
        view.peers().unwrap()[0].state == PeerState::Established
    });
    let before = view.peers().unwrap()[0].flaps;
    view.execute(Command::ResetPeer(server.local_addr().to_string()))
        .unwrap();
    eventually("it is back again", || {
        let peer = &view.peers().unwrap()[0];
        peer.flaps == before + 1 && peer.state == PeerState::Established
    });
}

/// A drained peer got all that waited for it, and is refused for a while.
#[test]
fn peer_that_is_drained_stays_away_for_the_time() {
    let server = server();
    let inspector = server.inspector();
    let recorder = Recorder::default();
    let ours = client(&[server.local_addr()], recorder.clone());
    ours.subscribe(VNI).unwrap();
    for number in 0..100 {
        inspector
            .execute(Command::Announce(VNI, route(number)))
            .unwrap();
    }
    // Long enough for a client that retries at once to be refused within it.
    let time = Duration::from_secs(2);
    let drained = Instant::now();
    inspector
        .execute(Command::DrainPeer("127.0.0.1".into(), time))
        .unwrap();
    recorder.wait_for_len(100);
    eventually("it is refused", || server.stats().refused_sessions > 0);
    eventually("it comes back", || server.stats().established == 1);
    assert!(drained.elapsed() >= time);
    let view = ours.inspector();
    let name = server.local_addr().to_string();
    view.execute(Command::DrainPeer(name, Duration::from_secs(3600)))
        .unwrap();
    assert_eq!(view.peers().unwrap()[0].state, PeerState::Draining);
    assert_eq!(
        view.status().not_ready.as_deref(),
        Some("no server is established")
    );
    eventually("the server sees it gone", || server.stats().sessions == 0);
}

/// A destination that is announced and suppressed is seen, and marked.
#[test]
fn suppressed_routes_are_marked() {
    let server = server();
    let source = client(&[server.local_addr()], NoOpHandler);
    let ours = client(&[server.local_addr()], NoOpHandler);
    ours.subscribe(VNI).unwrap();
    let destination: Destination = v4(1);
    ours.announce(VNI, destination, hop(2)).unwrap();
    announce(&source, VNI, [route(1), route(2)]);
    let view = ours.inspector();
    eventually("both are there", || view.status().routes == 2);
    let marks: Vec<bool> = view
        .snapshot(None)
        .unwrap()
        .entries()
        .iter()
        .map(|it| it.is_suppressed)
        .collect();
    assert_eq!(marks, [true, false]);
}

#[test]
fn watch_tells_current_routes_of_many_vnis() {
    let server = server();
    let view = server.inspector();
    let vnis = 20_000;
    let source = client(&[server.local_addr()], NoOpHandler);
    for vni in 1..=vnis {
        announce(&source, Vni(vni), [route(1)]);
    }
    eventually("all routes are there", || {
        server.stats().routes == vnis as usize
    });
    let mut watch = view.watch(None, WatchFrom::Current).unwrap();
    let mut count = 0;
    let mut is_over = false;
    let deadline = Instant::now() + PATIENCE;
    while !is_over {
        assert!(Instant::now() < deadline, "only {count} of {vnis}");
        for event in watch.wait(Duration::from_millis(100)).unwrap() {
            match event {
                WatchEvent::Route(..) => count += 1,
                WatchEvent::Current => is_over = true,
                _ => {}
            }
        }
    }
    assert_eq!(count, vnis);
}
