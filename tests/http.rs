//! The HTTP server over real sockets, against what Go MetalBond answered.
#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    reason = "tests; clippy does not know helpers for such"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustbond::http::HttpServer;
use rustbond::{Destination, NextHop, NoOpHandler, Route, Vni};
use support::{PATIENCE, client, eventually, server};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The seven routes of the recording.
fn golden_routes() -> Vec<(Vni, Route)> {
    let all = [
        (
            100,
            "10.0.1.0/24",
            NextHop::standard(address("2001:db8::1")),
        ),
        (
            100,
            "10.0.2.1/32",
            NextHop::nat(address("2001:db8::2"), 1024, 2047),
        ),
        (
            100,
            "10.0.3.1/32",
            NextHop::load_balancer(address("2001:db8::3")),
        ),
        (
            100,
            "2001:db8:1::/48",
            NextHop::standard(address("2001:db8::cafe")),
        ),
        (200, "0.0.0.0/0", NextHop::standard(address("2001:db8::4"))),
        (200, "::/0", NextHop::standard(address("2001:db8::4"))),
        (
            16_777_215,
            "192.168.1.1/32",
            NextHop::standard(address("fe80::1")),
        ),
    ];
    all.map(|(vni, prefix, hop)| {
        let destination = Destination::new(prefix.parse().unwrap());
        (Vni(vni), Route::new(destination, hop))
    })
    .into()
}

fn golden_server() -> HttpServer {
    HttpServer::start("127.0.0.1:0", golden_routes).unwrap()
}

fn exchange(server: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    answer(&mut stream)
}

fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.into(), body.into())
}

fn get(server: SocketAddr, path: &str) -> String {
    let (head, body) = exchange(server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    body
}

fn json(text: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
    let date = value["date"].take();
    assert_is_date(date.as_str().unwrap());
    assert!(value["metalbondVersion"].take().is_string());
    value
}

/// The shape of `2006-01-02 15:04:05`.
fn assert_is_date(text: &str) {
    let shape = |it: u8| if it.is_ascii_digit() { b'0' } else { it };
    let shape: Vec<u8> = text.bytes().map(shape).collect();
    assert_eq!(shape, b"0000-00-00 00:00:00", "{text}");
}

/// The blocks of a YAML answer, one a destination with the VNI before it.
fn yaml(text: &str) -> BTreeSet<(String, String)> {
    let (date, rest) = text.split_once('\n').unwrap();
    let date = date.strip_prefix("date: \"").unwrap();
    assert_is_date(date.strip_suffix('"').unwrap());
    let (table, version) = rest.rsplit_once("metalbondversion: ").unwrap();
    assert!(!version.trim().is_empty());
    let table = table.strip_prefix("vnet:\n").unwrap();
    let mut blocks = BTreeSet::new();
    let (mut vni, mut block) = (String::new(), String::new());
    for line in table.lines().chain(["  end:"]) {
        let is_vni = line.starts_with("  ") && !line.starts_with("   ");
        if (is_vni || line.starts_with("    '")) && !block.is_empty() {
            blocks.insert((vni.clone(), std::mem::take(&mut block)));
        }
        if is_vni {
            vni = line.into();
        } else {
            block = block + line + "\n";
        }
    }
    blocks
}

/// Row 17 of what a Go peer does (`double`).
#[test]
fn row_17_a_server_shows_its_routes_as_go_does() {
    let server = Arc::new(server());
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for (vni, route) in golden_routes() {
        announcer
            .announce(vni, route.destination, route.next_hop)
            .unwrap();
    }
    eventually("all routes at the server", || server.stats().routes == 7);
    let shown = Arc::clone(&server);
    let http = HttpServer::start("[::1]:0", move || shown.routes()).unwrap();
    let text = get(http.local_addr(), "/routes.json");
    assert_eq!(json(&text), json(include_str!("golden/routes.json")));
    let text = get(http.local_addr(), "/routes.yaml");
    assert_eq!(yaml(&text), yaml(include_str!("golden/routes.yaml")));
    assert_eq!(yaml(&text).len(), 7);
    http.shutdown();
    assert_eq!(Arc::strong_count(&server), 1, "the source is dropped");
}

#[test]
fn a_client_shows_what_it_received() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let subscriber = client(&[server.local_addr()], NoOpHandler);
    for vni in [100, 200, 16_777_215] {
        subscriber.subscribe(Vni(vni)).unwrap();
    }
    for (vni, route) in golden_routes() {
        announcer
            .announce(vni, route.destination, route.next_hop)
            .unwrap();
    }
    eventually("all routes", || subscriber.route_count() == 7);
    let http = HttpServer::start("127.0.0.1:0", move || subscriber.routes()).unwrap();
    let text = get(http.local_addr(), "/routes.json");
    assert_eq!(json(&text), json(include_str!("golden/routes.json")));
}

#[test]
fn what_is_not_there_or_not_allowed_is_said() {
    let http = golden_server();
    let server = http.local_addr();
    assert_eq!(get(server, "/"), "/routes.json\n/routes.yaml\n");
    let status = |request: &str| {
        let (head, body) = exchange(server, request);
        let status = head.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        (status, head, body)
    };
    let (code, _, body) = status("GET /metrics HTTP/1.1\r\n\r\n");
    assert_eq!(code, 404);
    assert!(body.contains("/routes.json"));
    let (code, head, _) = status("DELETE /routes.json HTTP/1.1\r\n\r\n");
    assert_eq!(code, 405);
    assert!(head.contains("\r\nAllow: GET, HEAD\r\n"));
    let long_body = "x".repeat(1 << 20);
    let (code, ..) = status(&format!(
        "POST / HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n{long_body}"
    ));
    assert_eq!(code, 405, "what is still sent does not lose the answer");
    assert_eq!(status("hello\r\n\r\n").0, 400);
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    assert_eq!(status(&endless).0, 431);
}

#[test]
fn head_is_get_without_the_body() {
    let http = golden_server();
    let length = get(http.local_addr(), "/routes.json").len();
    let (head, body) = exchange(http.local_addr(), "HEAD /routes.json HTTP/1.1\r\n\r\n");
    assert!(head.contains(&format!("Content-Length: {length}\r\n")));
    assert!(head.contains("Content-Type: application/json\r\n"));
    assert_eq!(body, "");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let http = golden_server();
    let mut stream = TcpStream::connect(http.local_addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET / HTTP/1.1\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut stream).1, "/routes.json\n/routes.yaml\n");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let http = golden_server();
    let mut silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(http.local_addr()).unwrap())
        .collect();
    // More than there are places: the request waits until the first lose theirs.
    assert_eq!(get(http.local_addr(), "/"), "/routes.json\n/routes.yaml\n");
    silent[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent[0].read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn who_reads_slowly_gets_everything_and_blocks_nobody() {
    // Far more than the sockets hold.
    let many = || {
        let route = |number: u32| {
            let destination = Destination::from_ipv4(number.into(), 32);
            let hop = NextHop::standard(address("2001:db8::1"));
            (Vni(1), Route::new(destination, hop))
        };
        (0..100_000).map(route).collect()
    };
    let http = HttpServer::start("127.0.0.1:0", many).unwrap();
    let mut slow = TcpStream::connect(http.local_addr()).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET /routes.json HTTP/1.1\r\n\r\n")
        .unwrap();
    slow.read_exact(&mut [0; 5]).unwrap();
    get(http.local_addr(), "/");
    let (_, body) = answer(&mut slow);
    let table = json(&body);
    assert_eq!(table["vnet"]["1"].as_object().unwrap().len(), 100_000);
}

#[test]
fn a_stop_waits_for_nobody() {
    let http = golden_server();
    let server = http.local_addr();
    let silent = TcpStream::connect(server).unwrap();
    let started = std::time::Instant::now();
    drop(http);
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(silent);
    assert!(TcpStream::connect(server).is_err());
}

#[test]
fn an_address_in_use_is_named() {
    let http = golden_server();
    let error = HttpServer::start(http.local_addr(), Vec::new)
        .err()
        .unwrap();
    let address = http.local_addr().to_string();
    assert!(error.to_string().contains(&address), "{error}");
}
