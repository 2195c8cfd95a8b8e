//! The network between hosts fails.

use std::time::Instant;

use rustbond::{CloseReason, ConnectionState, ServerId};

use crate::netns::{DEVICE, installed, make_device};
use crate::observer::{Load, Observer, destinations, table_of};
use crate::stage::Stage;
use crate::support::{PATIENCE, eventually};

/// A host cannot be reached, reach, or both, or its cable is out.
///
/// Promised, with keepalives a second apart:
/// - who hears nothing notices after 2.5 s, and not before: the server, the host or both; where
///   one notices, its FIN tells the other if that can hear;
/// - the host's own routes go everywhere else, with its session;
/// - the host keeps what it has, in its tables and in its kernel, for as long as `hold`;
/// - nobody else loses a session or waits;
/// - when the network is back, all tables are equal, and no route came or went twice.
#[test]
fn hosts_that_are_cut_off_are_dropped_and_come_back_with_their_routes() {
    const VICTIMS: [&str; 4] = ["deaf", "mute", "hole", "cable"];
    let hosts = [
        "server", "source", "witness", "deaf", "mute", "hole", "cable",
    ];
    let Some(stage) = Stage::new("cut", &hosts) else {
        return;
    };
    let _server = stage.server("server");
    let endpoint = stage.endpoint("server");
    let observe = |host: &str| stage.on(host, || Observer::new(&[&endpoint]));
    let witness = observe("witness");
    let victims = VICTIMS.map(observe);
    let load = stage.on("source", || Load::start(&[&endpoint]));
    stage.on("hole", make_device);
    let install = format!("--subscribe 100 --install-routes 100#100 --tun {DEVICE}");
    let installer = format!("client -s {endpoint} --keepalive 1 {install}");
    let _installer = stage.start("hole", &installer);
    let own = [0, 1, 2, 3].map(|it| victims[usize::try_from(it).unwrap()].announce(it));
    for route in &own {
        eventually("all are there", || witness.has(route));
    }
    eventually("and in the kernel", || {
        stage.on("hole", || installed("100")).len() > 400
    });

    let start = Instant::now();
    stage.lose_to("deaf");
    stage.lose_from("mute");
    stage.lose_to("hole");
    stage.lose_from("hole");
    stage.cable("cable", "down");
    witness.is_served();
    for (route, name) in own.iter().zip(VICTIMS) {
        eventually("the others forget them", || !witness.has(route));
        eprintln!("{name}: forgotten within {:?}", start.elapsed());
    }
    for (victim, name) in victims.iter().zip(VICTIMS) {
        eventually("the host notices", || !victim.losses().is_empty());
        eprintln!("{name}: {:?} within {:?}", victim.losses(), start.elapsed());
    }
    for at in [0, 2, 3] {
        assert_eq!(victims[at].losses(), [CloseReason::Silent]);
    }
    witness.is_served();
    let held = victims.each_ref().map(|it| it.seen.counts());
    let in_kernel = stage.on("hole", || installed("100"));
    witness.is_served();
    assert_eq!(victims.each_ref().map(|it| it.seen.counts()), held);
    assert_eq!(stage.on("hole", || installed("100")), in_kernel);
    assert!(in_kernel.len() > 400, "held in the kernel");

    stage.lose_nothing();
    stage.cable("cable", "up");
    let (_source, mut expected) = load.finish();
    expected.extend(own);
    let all: Vec<_> = expected.iter().copied().collect();
    for observer in victims.iter().chain([&witness]) {
        eventually("all tables are equal", || {
            // A client is not told what it announces itself.
            let own = observer.client.inspector().announcements().unwrap();
            let all = all.iter().filter(|it| !own.contains(it));
            observer.seen.routes().iter().eq(all)
        });
        assert!(!observer.seen.routes().is_empty());
        observer.seen.counts();
    }
    let table = stage.on("witness", || table_of(&endpoint));
    assert_eq!(table, expected);
    let in_kernel = destinations(&expected);
    eventually("the kernel too", || {
        stage.on("hole", || installed("100")) == in_kernel
    });
    assert_eq!(witness.losses(), []);
}

/// One of two servers cannot be reached, then cannot answer, then its cable is out.
///
/// Promised: no client removes or adds a route because of it, what changes meanwhile comes over
/// the other server, and the server that is back has the same table as the other.
#[test]
fn server_that_is_cut_off_takes_no_route_with_it() {
    let Some(stage) = Stage::new("half", &["one", "other", "source", "witness"]) else {
        return;
    };
    let _servers = ["one", "other"].map(|host| stage.server(host));
    let endpoints = ["one", "other"].map(|host| stage.endpoint(host));
    let witness = stage.on("witness", || Observer::new(&endpoints));
    let steady = stage.on("source", || Observer::new(&endpoints));
    let stable = [0, 1, 2].map(|it| steady.announce(it));
    let load = stage.on("source", || Load::start(&endpoints));
    for (round, host) in ["one", "other", "one"].into_iter().enumerate() {
        let server = ServerId(round % 2);
        let state = || witness.client.server_states()[&server];
        match round {
            0 => stage.lose_to(host),
            1 => stage.lose_from(host),
            _ => stage.cable(host, "down"),
        }
        eventually("it is noticed", || state() != ConnectionState::Established);
        witness.is_served();
        assert!(stable.iter().all(|it| witness.has(it)));
        stage.lose_nothing();
        stage.cable(host, "up");
        eventually("it is back", || state() == ConnectionState::Established);
        steady
            .client
            .wait_all_established_timeout(PATIENCE)
            .unwrap();
        for (vni, route) in &stable {
            eventually("both have told all", || {
                let told = witness
                    .client
                    .get_route_servers(*vni, &route.destination, &route.next_hop)
                    .unwrap();
                told.is_some_and(|it| it.len() == 2)
            });
        }
    }
    let (source, mut expected) = load.finish();
    source.wait_all_established_timeout(PATIENCE).unwrap();
    expected.extend(stable);
    for endpoint in &endpoints {
        eventually("the servers have the same", || {
            stage.on("witness", || table_of(endpoint)) == expected
        });
    }
    witness
        .seen
        .wait_for(&expected.iter().copied().collect::<Vec<_>>());
}
