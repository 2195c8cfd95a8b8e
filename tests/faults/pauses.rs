//! Processes that stand still.

use std::collections::BTreeSet;

use rustbond::{CloseReason, ConnectionState, ServerId};

use crate::observer::{Load, Observer, VICTIMS, table_of};
use crate::process::{Lines, Process};
use crate::support::{PATIENCE, eventually, v4};

/// The table that the printed lines amount to; a line that is no news ends the test.
fn replay(lines: &Lines) -> BTreeSet<String> {
    let mut table = BTreeSet::new();
    for line in lines.so_far() {
        match line.split_at_checked(1) {
            Some(("+", route)) => assert!(table.insert(route.to_owned()), "{line}"),
            Some(("-", route)) => assert!(table.remove(route), "{line}"),
            _ => panic!("{line}"),
        }
    }
    table
}

fn subscriber(server: std::net::SocketAddr, keepalive: &str, number: u32) -> Process {
    let route = format!("100#{}#2001:db8::2", v4(VICTIMS + number).prefix);
    let args = ["--subscribe", "100", "--keepalive", keepalive, "-a", &route];
    Process::client(server, &args)
}

/// Subscribers are stopped (SIGSTOP) under load, three for long and three for a moment, where
/// silence is noticed after 2.5 s and after 150 s.
///
/// Promised: of those who are silent for too long, the routes go everywhere else and the session
/// ends; what waits for them is bounded; nobody else loses anything or waits. When they go on,
/// the former come back, the latter have never been away, and what each has printed amounts to
/// the table of one that never stopped.
#[test]
fn stopped_subscribers_delay_nobody_and_catch_up() {
    let (strict, strict_at) = Process::server(&["--keepalive", "1"]);
    let (patient, patient_at) = Process::server(&["--keepalive", "60"]);
    let endpoints = [strict_at, patient_at].map(|it| it.to_string());
    let witness = Observer::new(&endpoints);
    let own = |number: u32| {
        witness
            .seen
            .routes()
            .iter()
            .any(|(_, it)| it.destination == v4(VICTIMS + number))
    };
    let steady = subscriber(strict_at, "1", 10);
    let long = [0, 1, 2].map(|it| subscriber(strict_at, "1", it));
    let short = [3, 4, 5].map(|it| subscriber(patient_at, "60", it));
    eventually("all are there", || (0..6).all(own) && own(10));
    let load = Load::start(&endpoints);
    witness.is_served();
    for process in long.iter().chain(&short) {
        process.signal("STOP");
    }
    eventually("the silent are forgotten", || !(0..3).any(own));
    assert!((3..6).all(own), "nobody misses the others yet");
    witness.is_served();
    for process in long.iter().chain(&short) {
        process.signal("CONT");
    }
    eventually("they come back", || (0..3).all(own));
    witness.is_served();
    let (_source, expected) = load.finish();
    let text = |number: u32| format!("{}", v4(number).prefix);
    let is_expected = |process: &Process, own: u32| {
        let table = replay(&process.stdout);
        let has = |number: u32| table.iter().any(|it| it.contains(&text(number)));
        // Three others of the same server, or two, and the load.
        let others: Vec<u32> = if own < 3 || own == 10 {
            vec![0, 1, 2, 10]
        } else {
            vec![3, 4, 5]
        };
        let others: Vec<u32> = others.into_iter().filter(|it| *it != own).collect();
        table.len() == expected.len() + others.len()
            && others.iter().all(|it| has(VICTIMS + it))
            && expected.iter().all(|(_, route)| {
                table
                    .iter()
                    .any(|it| it.contains(&format!("{} ", route.destination.prefix)))
            })
    };
    let all = long
        .iter()
        .zip(0..)
        .chain(short.iter().zip(3..))
        .chain([(&steady, 10)]);
    for (process, own) in all {
        eventually("what was printed is right", || is_expected(process, own));
    }
    for process in short.iter().chain([&steady]) {
        let lines = process.stderr.so_far();
        let sessions = lines.iter().filter(|it| it.contains("established")).count();
        assert_eq!(sessions, 1, "the same session: {lines:?}");
    }
    assert_eq!(witness.losses(), []);
    strict.stop("TERM");
    patient.stop("TERM");
}

/// One of two servers is stopped (SIGSTOP) under load, and goes on.
///
/// Promised: its clients notice after 2.5 s of silence, remove nothing because of it and are
/// served by the other; when it goes on, its dead sessions end, theirs are made anew, and both
/// servers have the same table.
#[test]
fn stopped_server_is_left_and_taken_back() {
    let servers = [(); 2].map(|()| Process::server(&["--keepalive", "1"]));
    let endpoints = servers.each_ref().map(|(_, address)| address.to_string());
    let (witness, steady) = (Observer::new(&endpoints), Observer::new(&endpoints));
    let stable = [0, 1, 2].map(|it| steady.announce(it));
    let load = Load::start(&endpoints);
    eventually("all are there", || stable.iter().all(|it| witness.has(it)));
    let state = |at: usize| witness.client.server_states()[&ServerId(at)];
    for at in [0, 1] {
        servers[at].0.signal("STOP");
        eventually("it is noticed", || {
            state(at) != ConnectionState::Established
        });
        for _ in 0..10 {
            witness.is_served();
            assert!(stable.iter().all(|it| witness.has(it)));
        }
        servers[at].0.signal("CONT");
        eventually("it is back", || state(at) == ConnectionState::Established);
        steady
            .client
            .wait_all_established_timeout(PATIENCE)
            .unwrap();
        steady.client.flush(PATIENCE).unwrap();
        eventually("both have told all", || {
            stable.iter().all(|(vni, route)| {
                let (destination, next_hop) = (route.destination, route.next_hop);
                let told = witness
                    .client
                    .get_route_servers(*vni, &destination, &next_hop)
                    .unwrap();
                told.is_some_and(|it| it.len() == 2)
            })
        });
    }
    assert!(witness.losses().contains(&CloseReason::Silent));
    let (source, mut expected) = load.finish();
    source.wait_all_established_timeout(PATIENCE).unwrap();
    expected.extend(stable);
    for endpoint in &endpoints {
        eventually("the servers agree", || table_of(endpoint) == expected);
    }
    witness
        .seen
        .wait_for(&expected.into_iter().collect::<Vec<_>>());
    for (server, _) in servers {
        server.stop("TERM");
    }
}
