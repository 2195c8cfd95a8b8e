//! What is logged, in which form, how much of it; and what happens when nobody reads it.

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Process, metalbond};
use crate::support::{Raw, subscribe, update};
use serde_json::Value;

#[test]
fn json_log_lines_have_peer_and_vni_as_fields() {
    let json = ["--log-format", "json", "--log-level", "debug"];
    let server = Process::start(
        metalbond()
            .args(["server", "-l", "127.0.0.1:0", "--keepalive", "3"])
            .args(json),
    );
    let line: Value = serde_json::from_str(&server.stderr.expect("listening on")).unwrap();
    let text = line["msg"].as_str().unwrap();
    let address: SocketAddr = text.split(' ').nth(2).unwrap().parse().unwrap();
    let client = Process::start(
        metalbond()
            .args(["client", "--subscribe", "7", "-s", &address.to_string()])
            .args(json),
    );
    client.stderr.expect("VNI 7: table complete");
    let mut peer = Raw::established(address);
    let name = peer.stream.local_addr().unwrap().to_string();
    peer.send(&subscribe(9));
    peer.barrier();
    peer.send(&[9; 100]);
    assert!(peer.closed_by_server());
    server.stderr.expect("session ended");
    let (server_lines, client_lines) = (server.stderr.clone(), client.stderr.clone());
    client.stop("TERM");
    server.stop("TERM");

    let parse = |lines: String| -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect(line);
        lines.lines().map(parse).collect()
    };
    let server_lines = parse(server_lines.all());
    for line in &server_lines {
        let time = line["ts"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == 24, "{line}");
        assert!(
            line["target"].is_string() && line["msg"].is_string(),
            "{line}"
        );
    }
    let of_peer: Vec<&Value> = server_lines
        .iter()
        .filter(|it| it["peer"] == name.as_str())
        .collect();
    let found = |part: &str| {
        let has = |it: &&&Value| it["msg"].as_str().unwrap().contains(part);
        (**of_peer.iter().find(has).expect(part)).clone()
    };
    assert_eq!(found("established")["level"], "info");
    let line = found("VNI 9: subscribed");
    assert_eq!((&line["level"], &line["vni"]), (&"debug".into(), &9.into()));
    let line = found("session ended after 0 s");
    assert_eq!(
        (&line["level"], &line["seconds"]),
        (&"warn".into(), &0.into())
    );
    assert!(line["reason"].is_string(), "{line}");
    let synced = parse(client_lines.all());
    let synced = synced
        .iter()
        .find(|it| it["vni"] == 7 && it["level"] == "info");
    assert_eq!(synced.unwrap()["msg"], "VNI 7: table complete");
}

#[test]
fn log_level_is_the_one_asked_for() {
    let all: [(&[&str], Option<&str>, bool, bool); 6] = [
        (&[], None, true, false),
        (&["-v"], None, true, true),
        (&["--log-level", "warn"], None, false, false),
        (&["-v", "--log-level", "info"], None, true, false),
        (&["--log-level", "error"], Some("debug"), true, true),
        (&["-v"], Some("rustbond::server=warn"), false, false),
    ];
    for (args, directives, has_info, has_debug) in all {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut command = metalbond();
        command.args(["server", "-l", &address]).args(args);
        if let Some(directives) = directives {
            command.env("RUST_LOG", directives);
        }
        let server = Process::start(&mut command);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::yield_now();
        }
        let mut peer = Raw::established(address.parse().unwrap());
        peer.send(&subscribe(1));
        peer.barrier();
        let lines = server.stderr.clone();
        server.stop("TERM");
        let lines = lines.all();
        assert_eq!(
            lines.contains(": established"),
            has_info,
            "{args:?} {lines}"
        );
        assert_eq!(
            lines.contains(": subscribed"),
            has_debug,
            "{args:?} {lines}"
        );
    }
}

#[test]
fn flood_of_connections_is_no_flood_of_log_lines() {
    let flood = 10_000;
    let quiet = ["--max-accepts-per-second", "100000", "--keepalive", "60"];
    let (server, address) = Process::server(&quiet);
    // It says nothing during the flood.
    let mut peer = Raw::established_by(address, &[1, 0, 2, 1, 8, 60]);
    for number in 0..flood {
        let mut stream = TcpStream::connect(address).unwrap();
        // By turns what is no frame, and a message out of place.
        let bytes: &[u8] = if number % 2 == 0 {
            &[9; 4]
        } else {
            &[1, 0, 0, 2]
        };
        stream.write_all(bytes).unwrap();
        // Both ends are gone, so that no number of ports runs out.
        let read = stream.read(&mut [0; 16]);
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    peer.barrier();
    let lines = server.stderr.clone();
    server.stop("TERM");
    let lines = lines.all();
    assert!(lines.contains("no session: "), "{lines}");
    let count = lines.lines().count();
    let workers = std::thread::available_parallelism().unwrap().get();
    assert!(count <= 20 + 10 * workers, "{count} lines: {lines}");
}

#[test]
fn malformed_messages_and_flapping_sessions_are_no_flood_of_log_lines() {
    let (server, address) = Process::server(&["--workers", "1"]);
    let mut bad = update(0, 1, 1, 1);
    // An address of IPv4 that has one byte less.
    let at = bad.iter().position(|it| *it == 0x12).unwrap();
    bad[at] = 0x1a;
    for _ in 0..600 {
        let mut peer = Raw::established(address);
        for _ in 0..10 {
            peer.send(&bad);
        }
        peer.barrier();
    }
    let lines = server.stderr.clone();
    server.stop("TERM");
    let lines = lines.all();
    for (part, most) in [
        ("message dropped", 10),
        ("established", 300),
        ("ended after", 300),
    ] {
        let count = lines.matches(part).count();
        assert!((1..=most).contains(&count), "{count} lines with {part:?}");
    }
}

/// A process whose standard error is a pipe that is read up to a line, and no further.
struct Muted {
    child: Child,
    stderr: BufReader<PipeReader>,
    line: String,
}

impl Muted {
    fn start(args: &[&str], up_to: &str) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = metalbond();
        command.args(args).stdout(Stdio::piped()).stderr(writer);
        let child = command.spawn().unwrap();
        drop(command);
        // Not a byte more than asked for is taken from the pipe.
        let mut stderr = BufReader::with_capacity(1, reader);
        let mut line = String::new();
        while !line.contains(up_to) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "no {up_to}");
        }
        Self {
            child,
            stderr,
            line,
        }
    }

    fn end(&mut self) {
        let id = self.child.id().to_string();
        let kill = std::process::Command::new("sh")
            .args(["-c", &format!("kill -s TERM {id}")])
            .status();
        assert!(kill.unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Many lines at level debug: more than a pipe and the queue before it take.
fn make_noise(peer: &mut Raw, rounds: usize) {
    let pair = [subscribe(100), [1, 0, 2, 4, 8, 100]].concat();
    for _ in 0..rounds {
        peer.send(&pair.repeat(100));
        peer.barrier();
    }
}

#[test]
fn unread_standard_error_stops_nothing() {
    let debug = ["--log-level", "debug", "--keepalive", "1"];
    let mut server = Muted::start(
        &[
            &["server", "-l", "127.0.0.1:0", "--workers", "1"][..],
            &debug,
        ]
        .concat(),
        "listening on ",
    );
    let (_, rest) = server.line.split_once("listening on ").unwrap();
    let address: SocketAddr = rest.split(' ').next().unwrap().parse().unwrap();
    let name = address.to_string();
    let line = ["client", "-s", &name, "--subscribe", "1"];
    let mut client = Muted::start(&[&line[..], &debug].concat(), "table complete");
    let mut routes = BufReader::new(client.child.stdout.take().unwrap()).lines();

    let mut peer = Raw::established(address);
    make_noise(&mut peer, 100);
    // Sessions live on, routes flow: over more than a timeout of two and a half seconds.
    let until = Instant::now() + Duration::from_secs(4);
    let mut number = 0;
    while Instant::now() < until || number <= 10 {
        number += 1;
        peer.send(&update(0, 1, number, 1));
        let line = routes.next().unwrap().unwrap();
        assert!(line.starts_with("+ VNI 1 10."), "{line}");
        make_noise(&mut peer, 1);
    }

    // The end is orderly too, and does not wait for a reader.
    client.end();
    // Who reads again hears how much is missing.
    let mut lost = 0_u64;
    let mut line = String::new();
    while lost == 0 {
        line.clear();
        assert!(
            server.stderr.read_line(&mut line).unwrap() > 0,
            "nothing was lost"
        );
        if let Some((before, _)) = line.split_once(" lines of the log were lost") {
            lost = before.rsplit(' ').next().unwrap().parse().unwrap();
        }
    }
    assert!(lost > 1000, "{lost} lines");
    // The first peer may have been silent for longer than its hold time.
    make_noise(&mut Raw::established(address), 100);
    server.end();
}

#[test]
fn last_log_line_is_written_before_the_end() {
    for _ in 0..20 {
        let (server, _) = Process::server(&[]);
        let lines = server.stderr.clone();
        server.stop("TERM");
        let lines = lines.all();
        assert!(
            lines
                .trim_end()
                .lines()
                .last()
                .unwrap()
                .contains("stopped listening"),
            "{lines}"
        );
    }
    let (server, address) = Process::server(&[]);
    let address = address.to_string();
    let mut second = Process::start(metalbond().args(["server", "-l", &address]));
    assert_eq!(second.wait().code(), Some(1));
    let lines = second.stderr.all();
    assert!(lines.ends_with(&format!(
        "metalbond: cannot listen on {address}: Address already in use (os error 98)\n"
    )));
    server.stop("TERM");
}
