//! The HTTP server over real sockets, against what Go MetalBond answered.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, client, eventually, free_address, server};
use rustbond::http::HttpServer;
use rustbond::inspect::Command;
use rustbond::{Destination, MetalBondClient, MetalBondServer, NextHop, NoOpHandler, Route, Vni};
use serde_json::{Value, json};

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

/// A server that announces the seven routes itself, and its HTTP server.
fn golden_server() -> (MetalBondServer, HttpServer) {
    let server = server();
    announce(&server, golden_routes());
    let http = HttpServer::start("127.0.0.1:0", server.inspector()).unwrap();
    (server, http)
}

fn announce(server: &MetalBondServer, routes: impl IntoIterator<Item = (Vni, Route)>) {
    let inspect = server.inspector();
    for (vni, route) in routes {
        inspect.execute(Command::Announce(vni, route)).unwrap();
    }
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
    let (code, head, body) = fetch(server, path);
    assert_eq!(code, 200, "{head}");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    body
}

/// Status, head and body.
fn fetch(server: SocketAddr, path: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (head, body) = exchange(server, &request);
    (status(&head), head, body)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn api(server: SocketAddr, path: &str) -> Value {
    let (code, head, body) = fetch(server, &format!("/api/v1/{path}"));
    assert_eq!(code, 200, "{path}: {body}");
    assert!(
        head.contains("Content-Type: application/json\r\n"),
        "{head}"
    );
    serde_json::from_str(&body).unwrap()
}

/// A body in chunks, put together.
fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).unwrap();
        text += &rest[..length];
        assert_eq!(&rest[length..length + 2], "\r\n");
        body = &rest[length + 2..];
        if length == 0 {
            assert_eq!(body, "");
            return text;
        }
    }
}

fn golden_json(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
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
fn row_17_server_shows_its_routes_as_go_does() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for (vni, route) in golden_routes() {
        announcer
            .announce(vni, route.destination, route.next_hop)
            .unwrap();
    }
    eventually("all routes at the server", || server.stats().routes == 7);
    let shown = server.inspector();
    let http = HttpServer::start("[::1]:0", Arc::clone(&shown)).unwrap();
    let text = get(http.local_addr(), "/routes.json");
    assert_eq!(
        golden_json(&text),
        golden_json(include_str!("../golden/routes.json"))
    );
    let text = get(http.local_addr(), "/routes.yaml");
    assert_eq!(yaml(&text), yaml(include_str!("../golden/routes.yaml")));
    assert_eq!(yaml(&text).len(), 7);
    // The very bytes, but for the date and the version; the media types, and the page elsewhere.
    let address = http.local_addr();
    let (_, head, text) = fetch(address, "/routes.json");
    let without = |text: &str| {
        let lines = text.split('\n');
        let differs = |it: &&str| it.contains("\"date\"") || it.contains("\"metalbondVersion\"");
        lines
            .filter(|it| !differs(it))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let golden = without(include_str!("../golden/routes.json"));
    assert_eq!(without(&text), golden);
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    let (_, head, _) = fetch(address, "/routes.yaml");
    assert!(head.contains("\r\nContent-Type: text/yaml\r\n"), "{head}");
    for path in ["/", "/nothing"] {
        let (code, head, body) = fetch(address, path);
        assert_eq!(code, 200, "{path}");
        assert!(head.contains("\r\nContent-Type: text/html"), "{head}");
        assert!(body.contains("<html"), "{path}");
    }
    http.shutdown();
    assert_eq!(Arc::strong_count(&shown), 1, "what is shown is let go of");
}

#[test]
fn client_shows_the_routes_it_received() {
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
    eventually("all routes", || subscriber.route_count().unwrap() == 7);
    let http = HttpServer::start("127.0.0.1:0", subscriber.inspector()).unwrap();
    let text = get(http.local_addr(), "/routes.json");
    assert_eq!(
        golden_json(&text),
        golden_json(include_str!("../golden/routes.json"))
    );
}

#[test]
fn unknown_paths_and_methods_are_refused_with_a_reason() {
    let (_server, http) = golden_server();
    let address = http.local_addr();
    let ask = |request: &str| {
        let (head, body) = exchange(address, request);
        (status(&head), head, body)
    };
    let (code, _, body) = fetch(address, "/api/v1/nothing");
    assert_eq!(code, 404);
    assert!(body.contains("/api/v1/routes"), "{body}");
    let (code, head, _) = ask("DELETE /routes.json HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(code, 405);
    assert!(head.contains("\r\nAllow: GET, HEAD\r\n"));
    let long_body = "x".repeat(1 << 20);
    let (code, ..) = ask(&format!(
        "POST / HTTP/1.1\r\nContent-Length: 1048576\r\nConnection: close\r\n\r\n{long_body}"
    ));
    assert_eq!(code, 405, "what is still sent does not lose the answer");
    assert_eq!(ask("hello\r\n\r\n").0, 400);
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000));
    assert_eq!(ask(&endless).0, 431);
    for (path, text) in [
        ("routes?vni=-1", "vni=-1: expected a number"),
        ("routes?match=10.0.0", "match=10.0.0: expected an address"),
        ("routes?match=::&within=::/0", "exclude each other"),
        ("routes?type=x", "type=x: expected std, nat, lb or a number"),
        ("routes?limit=0", "limit=0: expected a number from 1"),
        ("routes?cursor=1~2", "cursor=1~2: expected what"),
        ("routes?vni=1&vni=2", "vni is given twice"),
        ("routes?color=red", "unknown parameter color; there are vni"),
        ("peers?state=up", "state=up: expected connecting"),
        ("vnis?peer=a", "unknown parameter peer"),
        ("status?x", "unknown parameter x"),
    ] {
        let (code, _, body) = fetch(address, &format!("/api/v1/{path}"));
        assert_eq!(code, 400, "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        let problem = problem["error"].as_str().unwrap();
        assert!(problem.contains(text), "{path}: {problem}");
    }
}

#[test]
fn head_request_is_answered_without_the_body() {
    let (_server, http) = golden_server();
    let length = get(http.local_addr(), "/routes.json").len();
    let request = "HEAD /routes.json HTTP/1.1\r\nConnection: close\r\n\r\n";
    let (head, body) = exchange(http.local_addr(), request);
    assert!(head.contains(&format!("Content-Length: {length}\r\n")));
    assert!(head.contains("Content-Type: application/json\r\n"));
    assert_eq!(body, "");
}

#[test]
fn connection_is_kept_and_takes_pipelined_requests() {
    let (_server, http) = golden_server();
    let mut stream = TcpStream::connect(http.local_addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    let both = b"GET /healthz HTTP/1.1\r\n\r\nHEAD /api/v1/status HTTP/1.1\r\n\r\n";
    for byte in both {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(both).unwrap();
    let last = b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(last).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 5, "{text}");
    assert_eq!(text.matches("\r\n\r\nok\n").count(), 2, "{text}");
    assert!(text.ends_with("\r\n\r\nready\n"), "{text}");
}

#[test]
fn silent_http_connections_keep_nobody_out() {
    let (_server, http) = golden_server();
    let mut silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(http.local_addr()).unwrap())
        .collect();
    // More than there are places: the request waits until the first lose theirs.
    assert_eq!(get(http.local_addr(), "/healthz"), "ok\n");
    silent[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent[0].read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn idle_kept_connections_give_way_at_once() {
    let (_server, http) = golden_server();
    let started = Instant::now();
    let served: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(http.local_addr()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 15]).unwrap();
            stream
        })
        .collect();
    // Less than the time after which an idle one is closed, 68 times.
    assert!(started.elapsed() < PATIENCE);
    drop(served);
}

/// One hundred thousand routes in VNI 1.
fn large_server() -> (MetalBondServer, HttpServer) {
    let server = server();
    let hop = NextHop::standard(address("2001:db8::1"));
    announce(
        &server,
        (0..100_000_u32).map(|number| {
            let destination = Destination::from_ipv4(number.into(), 32);
            (Vni(1), Route::new(destination, hop))
        }),
    );
    let http = HttpServer::start("127.0.0.1:0", server.inspector()).unwrap();
    (server, http)
}

#[test]
fn slow_http_reader_gets_everything_and_blocks_nobody() {
    let (_server, http) = large_server();
    let mut slow = TcpStream::connect(http.local_addr()).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET /routes.json HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    slow.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(get(http.local_addr(), "/healthz"), "ok\n");
    let (head, body) = answer(&mut slow);
    assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    let table = golden_json(&unchunk(&body));
    assert_eq!(table["vnet"]["1"].as_object().unwrap().len(), 100_000);
    // HTTP/1.0 knows no chunks: the end of the connection is the end.
    let (head, body) = exchange(http.local_addr(), "GET /routes.json HTTP/1.0\r\n\r\n");
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(golden_json(&body), table);
    let mut pages = 0;
    let mut rows = 0;
    let mut path = String::from("routes?limit=30000");
    loop {
        let (code, _, body) = fetch(http.local_addr(), &format!("/api/v1/{path}"));
        assert_eq!(code, 200);
        let page: Value = serde_json::from_str(&unchunk(&body)).unwrap();
        assert_eq!(page["total"], 100_000);
        pages += 1;
        rows += page["routes"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("routes?limit=30000&cursor={next}");
    }
    assert_eq!((pages, rows), (4, 100_000));
}

#[test]
fn api_shows_status_peers_and_routes() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    let subscriber = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(Vni(100)).unwrap();
    for (vni, route) in golden_routes() {
        announcer
            .announce(vni, route.destination, route.next_hop)
            .unwrap();
    }
    eventually("all routes", || subscriber.route_count().unwrap() == 4);
    let http = HttpServer::start("127.0.0.1:0", server.inspector()).unwrap();
    let http = http.local_addr();
    let status = api(http, "status");
    assert_eq!(status["side"], "server");
    assert_eq!(status["ready"], true);
    assert_eq!(status["routes"], 7);
    assert_eq!(status["established"], 2);
    assert_eq!(status["updates_received"], 7);
    assert_eq!(status["listening"], server.local_addr().to_string());
    assert_eq!(status["server"]["subscriptions"], 1);
    let vnis = api(http, "vnis");
    assert_eq!(vnis["total"], 3);
    let first = &vnis["vnis"][0];
    assert_eq!(
        [&first["vni"], &first["std"], &first["nat"], &first["lb"]],
        [&json!(100), &json!(2), &json!(1), &json!(1)]
    );
    let digest = first["digest"].as_str().unwrap();
    assert!(digest.len() == 16 && digest.bytes().all(|it| it.is_ascii_hexdigit()));
    assert_eq!(first["subscribers"], 1);
    let page = api(http, "vnis?limit=2");
    assert_eq!(page["next"], "200");
    let page = api(http, "vnis?limit=2&cursor=200");
    assert_eq!(page["vnis"][0]["vni"], 16_777_215);
    assert_eq!(page["next"], Value::Null);
    let peers = api(http, "peers?state=established&kind=rustbond");
    assert_eq!(peers["total"], 2);
    let peers = peers["peers"].as_array().unwrap();
    let announcing = peers.iter().find(|it| it["routes"] == 7).unwrap();
    assert_eq!(announcing["received"]["update"], 7);
    assert_eq!(announcing["received"]["hello"], 1);
    let name = announcing["name"].as_str().unwrap();
    let one = api(http, &format!("peers?peer={name}"));
    assert_eq!(one["total"], 1);
    assert_eq!(api(http, "peers?peer=127.0.0.1")["total"], 2);
    let routes = api(http, &format!("routes?peer={name}&type=nat"));
    assert_eq!(
        routes["routes"],
        json!([{
            "vni": 100, "prefix": "10.0.2.1/32", "next_hop": "2001:db8::2",
            "target_vni": null, "type": "nat", "port_from": 1024, "port_to": 2047,
            "announcers": [name], "suppressed": false,
        }])
    );
    assert_eq!(routes["generation"], status["generation"]);
}

#[test]
fn client_without_a_server_is_healthy_but_not_ready() {
    let nobody = free_address().to_string();
    let config = rustbond::ClientConfig::default();
    let client = MetalBondClient::start(&[nobody], NoOpHandler, config).unwrap();
    client.subscribe(Vni(1)).unwrap();
    let http = HttpServer::start("127.0.0.1:0", client.inspector()).unwrap();
    assert_eq!(get(http.local_addr(), "/healthz"), "ok\n");
    let (code, _, body) = fetch(http.local_addr(), "/readyz");
    assert_eq!(code, 503);
    assert!(body.len() > 5 && body.ends_with('\n'), "{body}");
    let status = api(http.local_addr(), "status");
    assert_eq!(status["ready"], false);
    assert_eq!(status["not_ready"], body.trim_end());
}

#[test]
fn page_brings_all_it_needs_and_loads_nothing_else() {
    let (_server, http) = golden_server();
    let (code, head, html) = fetch(http.local_addr(), "/");
    assert_eq!(code, 200);
    assert!(
        head.contains("Content-Security-Policy: default-src 'none';"),
        "{head}"
    );
    assert!(!head.contains("unsafe-"), "{head}");
    for path in ["/page.js", "/page.css"] {
        assert!(html.contains(&format!("\"{}\"", &path[1..])));
        get(http.local_addr(), path);
    }
    let all = html + &get(http.local_addr(), "/page.js") + &get(http.local_addr(), "/page.css");
    // The name of a vocabulary is no address that is loaded.
    let all = all.replace("http://www.w3.org/2000/svg", "");
    for elsewhere in ["http://", "https://", "@import", "innerHTML", "eval("] {
        assert!(!all.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn http_server_with_a_silent_connection_stops_at_once() {
    let (_server, http) = golden_server();
    let server = http.local_addr();
    let silent = TcpStream::connect(server).unwrap();
    let started = Instant::now();
    drop(http);
    assert!(started.elapsed() < Duration::from_secs(2));
    drop(silent);
    assert!(TcpStream::connect(server).is_err());
}

#[test]
fn address_in_use_is_named_in_the_error() {
    let (server, http) = golden_server();
    let error = HttpServer::start(http.local_addr(), server.inspector())
        .err()
        .unwrap();
    let address = http.local_addr().to_string();
    assert!(error.to_string().contains(&address), "{error}");
}
