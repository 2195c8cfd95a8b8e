//! Against a real Go MetalBond, whose binary the environment variable `METALBOND_GO` names.
//!
//! It runs at the far end of a veth pair with MTU 1500 and no offloads, as fabrics have them: over
//! loopback no frame is ever cut. Looked at is what the Go program holds, by its `/routes.json`.
//! Without the variable, or without root, `ip` and `ethtool`, the tests say so and pass.
#![cfg(all(feature = "http", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "why a test is skipped")]

#[path = "common/netns.rs"]
mod netns;
#[path = "common/support.rs"]
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use netns::{Namespaces, in_namespace, ip};
use rustbond::{MetalBondClient, MetalBondServer, NoOpHandler, Route, ServerConfig, Vni};
use serde_json::Value;
use support::{Recorder, client, eventually, hop, v4};

const VNI: Vni = Vni(100);
const ROUTES: u32 = 20_000;

/// Routes that come and go while something is killed.
const CHURN: u32 = 2_000;

/// Our end of the link, and that of Go.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The far end of the link, with the Go program.
struct Far {
    namespaces: Namespaces,
    binary: String,
}

/// A running Go program; killed when dropped.
struct Go(Child);

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Far {
    fn start(&self, args: &str) -> Go {
        let mut command = Command::new(&self.binary);
        command.args(args.split(' ')).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.namespaces.enter("go", || command.spawn());
        Go(child.expect("METALBOND_GO starts"))
    }

    /// Returns once it listens.
    fn server(&self, number: u16) -> Go {
        let (listen, http) = (address(number), page(number));
        let server = self.start(&format!(
            "server --listen {listen} --keepalive 2 --http {http}"
        ));
        eventually("the Go server listens", || {
            TcpStream::connect(listen).is_ok()
        });
        server
    }
}

/// The address of a Go server.
fn address(number: u16) -> SocketAddr {
    (FAR, 4711 + 10 * number).into()
}

/// Where a Go program shows its routes.
fn page(number: u16) -> SocketAddr {
    (FAR, 4712 + 10 * number).into()
}

/// Runs `test` at the near end of a link.
fn over_a_link(name: &str, test: impl FnOnce(&Far) + Send + 'static) {
    let Ok(binary) = std::env::var("METALBOND_GO") else {
        eprintln!("SKIPPED: {name}: METALBOND_GO names no Go binary");
        return;
    };
    in_namespace(name, move || {
        let Some(namespaces) = Namespaces::make(&["go"]) else {
            return;
        };
        let path = namespaces.path("go");
        let space = path.rsplit('/').next().unwrap();
        ip(&format!(
            "link add near type veth peer name far netns {space}"
        ));
        set_up("near", NEAR);
        namespaces.enter("go", || set_up("far", FAR));
        test(&Far { namespaces, binary });
    });
}

fn set_up(device: &str, address: Ipv4Addr) {
    ip(&format!("address add {address}/24 dev {device}"));
    ip(&format!("link set {device} mtu 1500 up"));
    let offloads = ["-K", device, "tso", "off", "gso", "off", "gro", "off"];
    let status = Command::new("ethtool").args(offloads).status();
    assert!(status.expect("ethtool is installed").success());
}

/// The destinations and next hops that a Go program shows; `None` while it does not answer.
fn held(page: SocketAddr) -> Option<BTreeSet<(String, String)>> {
    let mut stream = TcpStream::connect(page).ok()?;
    let request = b"GET /routes.json HTTP/1.0\r\n\r\n";
    let mut text = String::new();
    stream.write_all(request).ok()?;
    stream.read_to_string(&mut text).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    let body: Value = serde_json::from_str(body).ok()?;
    let vnet = &body["vnet"][VNI.to_string()];
    let mut held = BTreeSet::new();
    for (key, hops) in vnet.as_object().into_iter().flatten() {
        let key: Value = serde_json::from_str(key).unwrap();
        let prefix = key["Prefix"].as_str().unwrap();
        for hop in hops.as_array().unwrap() {
            let hop = hop["TargetAddress"].as_str().unwrap();
            held.insert((prefix.to_owned(), hop.to_owned()));
        }
    }
    Some(held)
}

/// Waits until a Go program shows exactly these routes, its own apart.
#[track_caller]
fn wait_held(page: SocketAddr, expected: &[(Vni, Route)]) {
    let text = |it: &(Vni, Route)| {
        let (destination, hop) = (it.1.destination, it.1.next_hop);
        (destination.to_string(), hop.target_address.to_string())
    };
    let expected: BTreeSet<_> = expected.iter().map(text).collect();
    eventually("the Go program holds the routes", || {
        held(page).is_some_and(|mut held| {
            held.retain(|it| it.0 != OWN);
            held == expected
        })
    });
}

/// What the Go client announces.
const OWN: &str = "10.255.0.1/32";

fn expected(count: u32) -> Vec<(Vni, Route)> {
    let route = |it| (VNI, Route::new(v4(it), hop(1)));
    (0..count).map(route).collect()
}

fn announce(client: &MetalBondClient, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.announce(VNI, v4(number), hop(1)).unwrap();
    }
}

/// Announces and withdraws; every second route stays.
fn churn(client: &MetalBondClient) {
    announce(client, ROUTES..ROUTES + CHURN);
    for number in (ROUTES..ROUTES + CHURN).filter(|it| it % 2 == 0) {
        client.withdraw(VNI, v4(number), hop(1)).unwrap();
    }
}

/// The routes that are left after [`churn`].
fn churned() -> Vec<(Vni, Route)> {
    let mut all = expected(ROUTES + CHURN);
    let mut number = 0;
    all.retain(|_| {
        number += 1;
        number <= ROUTES || number % 2 == 0
    });
    all
}

#[test]
fn our_clients_keep_all_routes_while_one_of_two_go_servers_is_killed() {
    over_a_link("go servers", |far| {
        let addresses = [address(0), address(1)];
        let _first = far.server(0);
        let mut second = Some(far.server(1));
        let source = client(&addresses, NoOpHandler);
        announce(&source, 0..ROUTES);
        for number in 0..2 {
            wait_held(page(number), &expected(ROUTES));
        }
        let recorder = Recorder::default();
        let ours = client(&addresses, recorder.clone());
        ours.subscribe(VNI).unwrap();
        recorder.wait_for(&expected(ROUTES));
        drop(second.take());
        second = Some(far.server(1));
        wait_held(page(1), &expected(ROUTES));
        assert_eq!(recorder.counts(), (ROUTES as usize, 0), "nothing flapped");
        // Again, in the middle of changes.
        drop(second.take());
        churn(&source);
        let _second = far.server(1);
        recorder.wait_for(&churned());
        for number in 0..2 {
            wait_held(page(number), &churned());
        }
        source.shutdown().unwrap();
        recorder.wait_for(&[]);
    });
}

#[test]
fn go_client_holds_every_route_of_our_servers_after_kills_and_changes() {
    over_a_link("go client", |far| {
        let start = |port: u16| MetalBondServer::start((NEAR, port), ServerConfig::default());
        let [first, second] = [4711, 4721].map(|port| start(port).unwrap());
        let addresses = [first.local_addr(), second.local_addr()];
        let source = client(&addresses, NoOpHandler);
        announce(&source, 0..ROUTES);
        for server in [&first, &second] {
            let all = ROUTES as usize;
            eventually("our server has all", || server.stats().routes == all);
        }
        let [one, two] = addresses;
        let args = format!(
            "client --server {one} --server {two} --subscribe 100 --announce 100#{OWN}#2001:db8::99 \
             --keepalive 2 --http {}",
            page(0)
        );
        // Killed at different moments of its table, and after it.
        for part in [0, 7_000, 14_000] {
            let _go = far.start(&args);
            eventually("a part of its table", || {
                held(page(0)).is_some_and(|it| it.len() > part)
            });
        }
        let go = far.start(&args);
        wait_held(page(0), &expected(ROUTES));
        let full = ServerConfig::default().legacy_rate;
        let is_full = |server: &MetalBondServer| {
            let peers = server.peers().unwrap();
            let mut paces = peers.iter().filter_map(|it| it.legacy_rate);
            paces.all(|it| it == full)
        };
        assert!(is_full(&first) && is_full(&second), "kills slow nobody");
        churn(&source);
        wait_held(page(0), &churned());
        drop(second);
        let second = start(4721).unwrap();
        let all = churned().len() + 1;
        eventually("our server has all again", || second.stats().routes == all);
        wait_held(page(0), &churned());
        assert_eq!(first.stats().legacy_drops + second.stats().legacy_drops, 0);
        drop(go);
    });
}
