//! Against a real Go MetalBond, whose binary the environment variable `METALBOND_GO` names.
//!
//! Without it the tests say so and pass. No right is needed: it installs no routes.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "why a test is skipped")]

#[path = "common/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustbond::{MetalBondClient, NoOpHandler, Route, Vni};
use support::{Recorder, client, eventually, free_address, hop, server, v4};

const VNI: Vni = Vni(100);
const ROUTES: u32 = 20_000;

/// A running Go program; killed when dropped.
struct Go(Child);

impl Go {
    fn start(binary: &str, args: &[&str]) -> Self {
        let mut command = Command::new(binary);
        let command = command.args(args).stdin(Stdio::null());
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("METALBOND_GO starts"))
    }

    /// Once it listens.
    fn server(binary: &str, listen: SocketAddr, http: SocketAddr) -> Self {
        let (listen_text, http_text) = (listen.to_string(), http.to_string());
        let args = [
            "server",
            "--listen",
            &listen_text,
            "--keepalive",
            "2",
            "--http",
            &http_text,
        ];
        let server = Self::start(binary, &args);
        eventually("the Go server listens", || {
            TcpStream::connect(listen).is_ok()
        });
        server
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn binary(test: &str) -> Option<String> {
    let binary = std::env::var("METALBOND_GO").ok();
    if binary.is_none() {
        eprintln!("SKIPPED: {test}: METALBOND_GO names no Go binary");
    }
    binary
}

/// How many next hops a `/routes.json` shows; none while nobody answers.
fn shown(http: SocketAddr) -> usize {
    let Ok(mut stream) = TcpStream::connect(http) else {
        return 0;
    };
    let request = b"GET /routes.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut text = String::new();
    if stream.write_all(request).is_err() || stream.read_to_string(&mut text).is_err() {
        return 0;
    }
    text.matches("\"TargetAddress\"").count()
}

fn announce(client: &MetalBondClient, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.announce(VNI, v4(number), hop(1)).unwrap();
    }
}

fn expected(count: u32) -> Vec<(Vni, Route)> {
    (0..count)
        .map(|it| (VNI, Route::new(v4(it), hop(1))))
        .collect()
}

#[test]
fn our_clients_keep_all_routes_while_one_of_two_go_servers_restarts() {
    let Some(binary) = binary("our clients at two Go servers") else {
        return;
    };
    let addresses = [free_address(), free_address()];
    let http = [free_address(), free_address()];
    let _first = Go::server(&binary, addresses[0], http[0]);
    let second = Go::server(&binary, addresses[1], http[1]);
    let source = client(&addresses, NoOpHandler);
    announce(&source, 0..ROUTES);
    for http in http {
        eventually("the Go server has all", || shown(http) == ROUTES as usize);
    }
    let recorder = Recorder::default();
    let ours = client(&addresses, recorder.clone());
    ours.subscribe(VNI).unwrap();
    recorder.wait_for(&expected(ROUTES));
    drop(second);
    let _second = Go::server(&binary, addresses[1], http[1]);
    eventually("it has all again", || shown(http[1]) == ROUTES as usize);
    assert_eq!(recorder.counts(), (ROUTES as usize, 0), "nothing flapped");
    source.shutdown().unwrap();
    recorder.wait_for(&[]);
}

#[test]
fn go_client_keeps_all_routes_while_one_of_our_two_servers_restarts() {
    let Some(binary) = binary("a Go client at two of our servers") else {
        return;
    };
    let servers = [server(), server()];
    let addresses = [servers[0].local_addr(), servers[1].local_addr()];
    let source = client(&addresses, NoOpHandler);
    announce(&source, 0..ROUTES);
    for server in &servers {
        let all = ROUTES as usize;
        eventually("our server has all", || server.stats().routes == all);
    }
    let http = free_address();
    let [first, second, http_text] = [addresses[0], addresses[1], http].map(|it| it.to_string());
    let args = [
        "client",
        "--server",
        &first,
        "--server",
        &second,
        "--subscribe",
        "100",
        "--announce",
        "100#10.255.0.1/32#2001:db8::99",
        "--keepalive",
        "2",
        "--http",
        &http_text,
    ];
    let _go = Go::start(&binary, &args);
    for server in &servers {
        eventually("its route is there", || {
            server.stats().routes == ROUTES as usize + 1
        });
        eventually("its table is sent", || {
            server
                .peers()
                .unwrap()
                .iter()
                .all(|peer| peer.queued_bytes == 0)
        });
    }
    let [_, restarted] = servers;
    drop(restarted);
    let config = rustbond::ServerConfig::default();
    let restarted = rustbond::MetalBondServer::start(addresses[1], config).unwrap();
    eventually("all are back", || {
        restarted.stats().routes == ROUTES as usize + 1
            && restarted
                .peers()
                .unwrap()
                .iter()
                .all(|peer| peer.queued_bytes == 0)
    });
    assert_eq!(restarted.stats().legacy_drops, 0);
}
