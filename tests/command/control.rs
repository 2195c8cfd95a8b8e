//! The control socket, with real processes.
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::folder::Folder;
use crate::process::{self, PATIENCE, Process, run};
use crate::support::{Raw, eventually, update};
use serde_json::{Value, json};

/// A server with a control socket.
fn server(folder: &Folder, args: &[&str]) -> (Process, std::net::SocketAddr, String) {
    let path = folder.file("server.sock");
    let all = [&["--control", &path], args].concat();
    let (server, address) = Process::server(&all);
    server.stderr.expect("control socket at");
    (server, address, path)
}

/// A client with a control socket.
fn client(folder: &Folder, server: std::net::SocketAddr, args: &[&str]) -> (Process, String) {
    let path = folder.file("client.sock");
    let all = [&["--control", &path], args].concat();
    let client = Process::client(server, &all);
    client.stderr.expect("control socket at");
    (client, path)
}

/// What one request is answered, head and body; the body as it is.
fn request(path: &str, text: &str) -> (String, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.into(), body.into())
}

fn get(path: &str, target: &str) -> Value {
    let text = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (head, body) = request(path, &text);
    assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
    serde_json::from_str(&body).unwrap()
}

/// Status and body of a request that changes something.
fn change(path: &str, method: &str, target: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let (head, body) = request(
        path,
        &format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    );
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn control_socket_is_private_and_removed_at_the_end() {
    let folder = Folder::new();
    let (server, address, path) = server(&folder, &[]);
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let (client, _) = client(&folder, address, &[]);
    assert_eq!(folder.len(), 4, "two sockets and their locks");
    client.stop("TERM");
    server.stop("INT");
    assert_eq!(folder.len(), 0);
}

#[test]
fn control_socket_refuses_another_user() {
    #[allow(unsafe_code, reason = "the standard library has no geteuid")]
    // SAFETY: it only reads the process's user.
    let user = unsafe { libc::geteuid() };
    if user != 0 {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (_server, _, path) = server(&folder, &[]);
    // The build's folder may be closed to others.
    let command = folder.file("metalbond");
    // Copied by another process: a child that another test starts meanwhile must not inherit a
    // descriptor that writes to the file, or the file cannot be executed.
    let copied = std::process::Command::new("cp")
        .args([env!("CARGO_BIN_EXE_metalbond"), &command])
        .status();
    assert!(copied.unwrap().success());
    let mut show = std::process::Command::new(&command);
    std::os::unix::process::CommandExt::uid(&mut show, 65_534);
    show.args(["show", "status", "--at", &path]);
    let (code, stdout, stderr) = process::finish(&mut show);
    assert_eq!((code, &*stdout), (1, ""), "{stderr}");
    assert!(
        stderr.contains("permission denied; only the user"),
        "{stderr}"
    );
}

#[test]
fn control_socket_of_a_dead_process_is_replaced_and_of_a_live_one_kept() {
    let folder = Folder::new();
    let path = folder.file("server.sock");
    drop(UnixListener::bind(&path).unwrap());
    let (_server, _, path) = server(&folder, &[]);
    let args = ["server", "--listen", "127.0.0.1:0", "--control", &path];
    let (code, _, stderr) = run(&args);
    assert_eq!(code, 1);
    assert!(stderr.contains("another process listens there"), "{stderr}");
    assert_eq!(get(&path, "/api/v1/status")["side"], "server");

    let file = folder.file("file");
    fs::write(&file, "precious").unwrap();
    for (path, words) in [
        (&*file, "something else than a socket is there"),
        ("/nonexistent/a.sock", "No such file or directory"),
    ] {
        let args = ["server", "--listen", "127.0.0.1:0", "--control", path];
        let (code, _, stderr) = run(&args);
        assert_eq!(code, 1, "{path}");
        assert!(stderr.contains(words), "{stderr}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn server_without_a_place_for_its_control_socket_runs_without() {
    if Path::new("/run/metalbond").exists() {
        eprintln!("SKIPPED: /run/metalbond is there on this machine");
        return;
    }
    let (server, _) = Process::server(&[]);
    server
        .stderr
        .expect("no control socket: /run/metalbond is not there");
    server.stop("TERM");
    let (server, _) = Process::server(&["--control", "off"]);
    server.signal("TERM");
    assert!(!server.stderr.all().contains("control socket"));
    let (code, _, stderr) = run(&["show", "status"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("is a server or a client running?"),
        "{stderr}"
    );
}

#[test]
fn control_socket_speaks_plain_http() {
    let folder = Folder::new();
    let (_server, _, path) = server(&folder, &[]);
    assert_eq!(get(&path, "/api/v1/status")["ready"], true);
    assert_eq!(get(&path, "/api/v1/routes?vni=5")["total"], 0);

    // Several requests on one connection, the last without a body.
    let text = "GET /healthz HTTP/1.1\r\n\r\nGET /api/v1/nothing HTTP/1.1\r\n\r\n\
                POST /api/v1/subscriptions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"vni\":1}\
                HEAD /api/v1/status HTTP/1.1\r\nConnection: close\r\n\r\n";
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let statuses = answers
        .lines()
        .filter_map(|it| it.strip_prefix("HTTP/1.1 "));
    let statuses: Vec<&str> = statuses.map(|it| &it[..3]).collect();
    assert_eq!(statuses, ["200", "404", "409", "200"], "{answers}");
    assert!(answers.ends_with("\r\n\r\n"), "{answers}");

    let (head, body) = request(&path, "GET /api/v1/monitor?current=x HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(body.contains("true or false"), "{body}");
    let (head, _) = request(&path, "no request at all\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let (head, _) = request(
        &path,
        "POST /api/v1/status HTTP/1.1\r\nConnection: close\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");

    if curl().arg("--version").output().is_err() {
        eprintln!("SKIPPED: the part with curl, which is not installed");
        return;
    }
    let url = "http://localhost/api/v1/announcements";
    let body = r#"{"vni":1,"prefix":"10.0.0.0/8","next_hop":"::1"}"#;
    let output = curl()
        .args(["-sS", "--unix-socket", &path, "-d", body, url])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"{\"changed\":1}\n", "{output:?}");
}

fn curl() -> std::process::Command {
    std::process::Command::new("curl")
}

#[test]
fn changes_over_the_control_socket_return_their_result() {
    let folder = Folder::new();
    let (_server, address, on_server) = server(&folder, &[]);
    let (_client, on_client) = client(&folder, address, &[]);
    let route = r#"{"vni":9,"prefix":"10.0.0.0/8","next_hop":"::1","type":"lb"}"#;
    let vni = r#"{"vni":9}"#;
    let changed = |count| (200, json!({ "changed": count }));
    for path in [&on_server, &on_client] {
        let announcements = "/api/v1/announcements";
        assert_eq!(change(path, "POST", announcements, route), changed(1));
        assert_eq!(change(path, "POST", announcements, route), changed(0));
        assert_eq!(change(path, "DELETE", announcements, route), changed(1));
        assert_eq!(change(path, "DELETE", announcements, route), changed(0));
        for (method, target, body, status) in [
            ("POST", "/api/v1/announcements", "{}", 400),
            ("PUT", "/api/v1/announcements", route, 405),
            ("POST", "/api/v1/peers/nobody/reset", "", 404),
            ("POST", "/api/v1/log", r#"{"level":"loud"}"#, 400),
            ("POST", "/api/v1/other", "", 404),
        ] {
            let (found, answer) = change(path, method, target, body);
            assert_eq!(found, status, "{method} {target}");
            assert!(answer["error"].is_string(), "{answer}");
        }
    }
    let subscriptions = "/api/v1/subscriptions";
    assert_eq!(change(&on_client, "POST", subscriptions, vni), changed(1));
    assert_eq!(change(&on_client, "POST", subscriptions, vni), changed(0));
    assert_eq!(change(&on_client, "DELETE", subscriptions, vni), changed(1));
    let (status, answer) = change(&on_server, "POST", subscriptions, vni);
    assert_eq!(status, 409, "{answer}");
}

/// A monitor, and the lines that it has written so far.
struct Monitor {
    stream: BufReader<UnixStream>,
    lines: Vec<Value>,
}

impl Monitor {
    /// Starts a monitor of HTTP/1.0, whose lines come without chunks. Returns when it watches.
    fn start(path: &str, parameters: &str) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /api/v1/monitor?{parameters} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "no whole head");
        }
        let lines = Vec::new();
        Self { stream, lines }
    }

    /// Reads a line. Returns `false` at the end of the stream.
    fn read(&mut self) -> bool {
        let mut line = String::new();
        let is_line = self.stream.read_line(&mut line).unwrap() > 0;
        if is_line {
            self.lines.push(serde_json::from_str(&line).unwrap());
        }
        is_line
    }

    /// Reads until it has told such an event.
    #[track_caller]
    fn expect(&mut self, is_it: impl Fn(&Value) -> bool) {
        while !self.lines.iter().any(&is_it) {
            assert!(self.read(), "not told: {:#?}", self.lines);
        }
    }

    /// Reads to the end. Returns all lines.
    fn finish(mut self) -> Vec<Value> {
        while self.read() {}
        self.lines
    }
}

/// Whether a line tells this event of a route.
fn is_route(event: &str, vni: u32, prefix: &str) -> impl Fn(&Value) -> bool {
    move |it| it["event"] == event && it["vni"] == vni && it["prefix"] == prefix
}

#[test]
fn monitor_tells_current_routes_then_changes_then_why_it_ends() {
    let folder = Folder::new();
    let (server, address, path) = server(&folder, &[]);
    let mut peer = Raw::established(address);
    peer.send(&update(0, 7, 1, 1));
    peer.send(&update(0, 8, 1, 1));
    // An answer comes before the owners of the tables have had their turn.
    eventually("both routes are in the tables", || {
        get(&path, "/api/v1/status")["routes"] == 2
    });
    let mut all = Monitor::start(&path, "current=true");
    let mut one = Monitor::start(&path, "vni=8");
    all.expect(|it| it["event"] == "complete");
    peer.send(&update(0, 7, 2, 1));
    peer.send(&update(1, 8, 1, 1));
    all.expect(is_route("add", 7, "10.0.0.2/32"));
    all.expect(is_route("remove", 8, "10.0.0.1/32"));
    one.expect(is_route("remove", 8, "10.0.0.1/32"));
    drop(peer);
    all.expect(is_route("remove", 7, "10.0.0.1/32"));
    all.expect(is_route("remove", 7, "10.0.0.2/32"));
    all.expect(|it| it["event"] == "peer_down");
    one.expect(|it| it["event"] == "peer_down");
    server.stop("TERM");
    let all = all.finish();
    let complete = all.iter().position(|it| it["event"] == "complete");
    let mut current: Vec<_> = all[..complete.unwrap()].iter().collect();
    current.retain(|it| !it["vni"].is_null());
    assert_eq!(current.len(), 2, "{all:#?}");
    for vni in [7, 8] {
        assert!(all.iter().any(is_route("current", vni, "10.0.0.1/32")));
    }
    let down = all.iter().find(|it| it["event"] == "peer_down").unwrap();
    assert_eq!(down["reason"], "closed by peer");
    assert_eq!(all.last().unwrap()["event"], "end");
    assert!(
        all.iter()
            .all(|it| it["time"].as_str().unwrap().ends_with('Z'))
    );
    let one = one.finish();
    let routes = one.iter().filter(|it| !it["vni"].is_null());
    let routes: Vec<_> = routes.map(|it| (&it["vni"], &it["event"])).collect();
    assert_eq!(routes, [(&json!(8), &json!("remove"))], "{one:#?}");
}

#[test]
fn monitor_that_does_not_read_is_cut_off_and_delays_nobody() {
    // What waits for a monitor is counted in bytes, and a change of a VNI has its own: short
    // changes of many VNIs fill it with few lines.
    const VNIS: u8 = 100;
    const TURNS: u32 = 600;
    let folder = Folder::new();
    let (server, address, path) = server(&folder, &["--workers", "1"]);
    let slow = Monitor::start(&path, "");
    let mut peer = Raw::established(address);
    let [add, remove] = [0, 1].map(|action| {
        let all = (1..=VNIS).flat_map(|vni| update(action, vni, 0, 1));
        all.collect::<Vec<u8>>()
    });
    // Few turns, because a monitor that takes nothing for long is closed without a word.
    for turn in 0..TURNS {
        peer.send(if turn.is_multiple_of(2) {
            &add
        } else {
            &remove
        });
        peer.barrier();
    }
    eventually("all count", || {
        get(&path, "/api/v1/status")["updates_received"] == u32::from(VNIS) * TURNS
    });
    let told = slow.finish();
    assert!(told.len() < usize::from(VNIS) * TURNS as usize);
    let last = told.last().unwrap();
    assert_eq!(last["event"], "end");
    assert_eq!(last["reason"], "too slow: changes were lost");
    // Before that, nothing is left out.
    let routes = told.iter().filter(|it| !it["vni"].is_null());
    for (number, event) in (0..).zip(routes) {
        let is_added = (number / u32::from(VNIS)).is_multiple_of(2);
        let change = if is_added { "add" } else { "remove" };
        assert_eq!(event["event"], change, "line {number}");
    }
    server.stop("TERM");
}

#[test]
fn control_connections_past_the_limit_are_turned_away() {
    let folder = Folder::new();
    let (server, _, path) = server(&folder, &[]);
    let mut monitors: Vec<Monitor> = (0..16).map(|_| Monitor::start(&path, "")).collect();
    let mut one_more = UnixStream::connect(&path).unwrap();
    let mut answer = String::new();
    one_more.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let (code, _, stderr) = run(&["show", "status", "--at", &path]);
    assert_eq!(code, 1);
    assert!(stderr.contains("too many control connections"), "{stderr}");
    // One that leaves makes room, though nothing happens that it could be told.
    drop(monitors.pop());
    eventually("there is room", || {
        run(&["show", "status", "--at", &path]).0 == 0
    });
    // The rest are no reason not to end.
    server.stop("TERM");
    assert_eq!(folder.len(), 0);
}

#[test]
fn wrong_arguments_of_asking_commands_are_refused_in_one_line() {
    let all: [(&[&str], &str); 12] = [
        (
            &["show"],
            "no command; expected status, peers, routes or vnis",
        ),
        (
            &["show", "nothing"],
            "unknown command; expected status, peers",
        ),
        (
            &["show", "routes", "--vni", "x"],
            "--vni x: expected a VNI from 0",
        ),
        (
            &["show", "routes", "--prefix", "x"],
            "--prefix x: expected a prefix",
        ),
        (
            &["show", "routes", "--prefix", "::/0", "--match", "::1"],
            "excludes",
        ),
        (
            &["show", "peers", "-o", "xml"],
            "--output xml: expected table, json or ndjson",
        ),
        (
            &["show", "peers", "--at", "https://a:1"],
            "--at https://a:1: expected the path",
        ),
        (
            &["announce"],
            "<ROUTE>...: is required; expected VNI#PREFIX#NEXTHOP",
        ),
        (&["log", "loud"], "<LEVEL> loud: expected off, error, warn"),
        (
            &["diff", "127.0.0.1:1"],
            "<SERVER>: expected at least two servers",
        ),
        (&["probe", "a b"], "<HOST> a b: expected a host"),
        (
            &["subscribe", "1", "--at", "127.0.0.1:1"],
            "give the path of a control socket",
        ),
    ];
    for (args, words) in all {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, &*stdout), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
