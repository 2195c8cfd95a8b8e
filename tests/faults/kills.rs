//! kill -9.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::netns::{DEVICE, Monitor, in_namespace, installed, make_device};
use crate::observer::{Load, Observer, VICTIMS, destinations, table_of};
use crate::process::{Process, metalbond};
use crate::support::{PATIENCE, eventually, v4};

const PORTS: [u16; 2] = [4711, 4712];
const KILLS: usize = 100;
/// Announced all the time: `10.32.0.0` to `10.32.1.243`.
const STABLE: u32 = 500;
const STABLE_BEGIN: u32 = 0x20_0000;

fn start_server(port: u16) -> Process {
    let listen = format!("127.0.0.1:{port}");
    Process::start(metalbond().args(["server", "--keepalive", "1", "-l", &listen]))
}

fn server(port: u16) -> Process {
    let server = start_server(port);
    server.stderr.expect("listening on");
    server
}

/// Kills a server and starts it again, perhaps twice: within its start or its first handshakes.
fn restart(server: Process, port: u16, again: Option<Duration>) -> Process {
    drop(server);
    if let Some(moment) = again {
        let unlucky = start_server(port);
        std::thread::sleep(moment);
        drop(unlucky);
    }
    self::server(port)
}

/// A client that installs, and announces a route.
fn installer() -> Process {
    let route = format!("100#{}#2001:db8::2", v4(VICTIMS).prefix);
    let servers = PORTS.map(|port| format!("127.0.0.1:{port}")).join(",");
    let install = ["--install-routes", "100#100", "--tun", DEVICE];
    let args = [
        "client",
        "-s",
        &servers,
        "--keepalive",
        "1",
        "-a",
        &route,
        "--subscribe=100",
    ];
    Process::start(metalbond().args(args).args(install))
}

/// A hundred times one of three processes is killed at a random moment and started again: two
/// servers, one at a time, and a client that installs. Every other time it is killed once more
/// right after, within its start, its handshakes or its first table.
///
/// Promised: no route that a living server has leaves another client or the kernel for a moment,
/// the kernel's routes outlive who installed them and are taken over, not written again; and
/// whenever it is quiet, all tables and the kernel are equal.
#[test]
fn hundred_kills_lose_no_route_and_leave_none() {
    in_namespace("kills", || {
        make_device();
        let endpoints = PORTS.map(|port| format!("127.0.0.1:{port}"));
        let mut servers = PORTS.map(server);
        let witness = Observer::new(&endpoints);
        let steady = Observer::new(&endpoints);
        let stable: Vec<_> = (0..STABLE)
            .map(|it| steady.announce(STABLE_BEGIN - VICTIMS + it))
            .collect();
        let mut client = installer();
        let mut load = Load::start(&endpoints);
        let is_stable = |it: &String| it.starts_with("10.32.");
        eventually("all are in the kernel", || {
            installed("100").iter().filter(|it| is_stable(it)).count() == STABLE as usize
        });
        let monitor = Monitor::start();
        let mut random = fastrand::Rng::with_seed(100);
        let mut kills = [0; 3];
        for round in 0..KILLS {
            let victim = random.usize(..3);
            kills[victim] += 1;
            // Within the start, the handshake, the tables, or the churn.
            let most = 1 << random.u32(8..18);
            let moment = Duration::from_micros(random.u64(..most));
            let again = random.bool().then_some(moment);
            std::thread::sleep(moment);
            if victim == 2 {
                drop(client);
                if let Some(moment) = again {
                    let unlucky = installer();
                    std::thread::sleep(moment);
                    drop(unlucky);
                }
                client = installer();
            } else {
                // Only one server at a time is away, or not yet read.
                wait_for_both(&[&witness, &steady], &stable);
                std::thread::sleep(moment);
                let [one, other] = servers;
                servers = match victim {
                    0 => [restart(one, PORTS[0], again), other],
                    _ => [one, restart(other, PORTS[1], again)],
                };
            }
            assert!(stable.iter().all(|it| witness.has(it)), "round {round}");
            if round % 20 == 19 {
                wait_for_both(&[&witness, &steady], &stable);
                let (source, left) = load.finish();
                let own = own_route(&witness);
                let expected = left.iter().chain(&stable).copied();
                let expected: BTreeSet<_> = expected.chain([own]).collect();
                for endpoint in &endpoints {
                    eventually("servers agree", || table_of(endpoint) == expected);
                }
                eventually("the witness agrees", || witness.seen.routes() == expected);
                let in_kernel = destinations(expected.iter().filter(|it| **it != own));
                eventually("the kernel agrees", || installed("100") == in_kernel);
                drop(source);
                load = Load::start(&endpoints);
            }
        }
        eprintln!("{kills:?} kills of servers and client");
        let seen = monitor.stop();
        let touched: Vec<&str> = seen.lines().filter(|it| it.contains("10.32.")).collect();
        assert!(touched.is_empty(), "{touched:?}");
        witness.seen.counts();
    });
}

/// Waits until both servers are there and have told all of the stable routes.
fn wait_for_both(observers: &[&Observer; 2], stable: &[(rustbond::Vni, rustbond::Route)]) {
    for observer in observers {
        observer
            .client
            .wait_all_established_timeout(PATIENCE)
            .unwrap();
    }
    let last = stable.last().unwrap();
    eventually("both servers have told all", || {
        let (destination, next_hop) = (last.1.destination, last.1.next_hop);
        let told = observers[0]
            .client
            .get_route_servers(last.0, &destination, &next_hop)
            .unwrap();
        told.is_some_and(|it| it.len() == 2)
    });
}

/// What the installing client announces, once it is there.
fn own_route(witness: &Observer) -> (rustbond::Vni, rustbond::Route) {
    let find = || {
        let routes = witness.seen.routes();
        routes
            .into_iter()
            .find(|(_, it)| it.destination == v4(VICTIMS))
    };
    eventually("the client is there", || find().is_some());
    find().unwrap()
}
