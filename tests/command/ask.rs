//! The commands that ask and change, as their users run them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Stdio;

use crate::double::{self, Reading};
use crate::folder::Folder;
use crate::process::{self, Process, metalbond, run};
use serde_json::Value;

const PREFIX: &str = "10.0.1.0/24";

/// Two servers and a client of both, each with a control socket.
struct World {
    folder: Folder,
    servers: Vec<(Process, SocketAddr)>,
    client: Process,
}

impl World {
    fn new() -> Self {
        let folder = Folder::new();
        let servers = ["a", "b"].map(|name| {
            let path = folder.file(name);
            let server = Process::server(&["--control", &path, "--http", "127.0.0.1:0"]);
            server.0.stderr.expect("control socket at");
            server
        });
        let all = servers.each_ref().map(|it| it.1.to_string()).join(",");
        let client = Process::start(metalbond().args([
            "client",
            "--server",
            &all,
            "--subscribe",
            "100",
            "--announce",
            &format!("100#{PREFIX}#2001:db8::1,200#10.9.0.0/16#2001:db8::1#NAT#1000#2000"),
            "--control",
            &folder.file("c"),
        ]));
        client.stderr.expect("control socket at");
        let world = Self {
            folder,
            servers: servers.into(),
            client,
        };
        for name in ["a", "b"] {
            world.wait(name, &["routes"], |it| it.len() == 2);
        }
        world
    }

    fn at(&self, name: &str) -> String {
        self.folder.file(name)
    }

    /// What a command prints, at a place, having succeeded.
    #[track_caller]
    fn say(&self, name: &str, args: &[&str]) -> String {
        let at = self.at(name);
        let (code, stdout, stderr) = run(&[args, &["--at", &at]].concat());
        assert_eq!((code, &*stderr), (0, ""), "{args:?}");
        stdout
    }

    /// What `show` tells as JSON.
    #[track_caller]
    fn show(&self, name: &str, what: &[&str]) -> Value {
        let args = [&["show"], what, &["-o", "json"]].concat();
        serde_json::from_str(&self.say(name, &args)).unwrap()
    }

    /// Waits until a list is as it should be.
    #[track_caller]
    fn wait(&self, name: &str, what: &[&str], is_reached: impl Fn(&[Value]) -> bool) {
        let deadline = std::time::Instant::now() + process::PATIENCE;
        loop {
            let list = self.show(name, what);
            if is_reached(list.as_array().unwrap()) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{what:?}: {list:#}");
        }
    }

    fn http(&self, number: usize) -> String {
        let address = self.servers[number].0.listens_on("serving HTTP on ");
        address.to_string()
    }
}

#[test]
fn show_lists_status_peers_routes_and_vnis() {
    let world = World::new();
    for (name, side, routes) in [("a", "server", 2), ("c", "client", 0)] {
        let status = world.show(name, &["status"]);
        assert_eq!(
            (&status["side"], &status["routes"]),
            (&side.into(), &routes.into())
        );
        let text = world.say(name, &["show", "status"]);
        assert!(
            text.contains(side) && text.contains("ready      yes"),
            "{text}"
        );
    }
    let peers = world.say("a", &["show", "peers"]);
    let lines: Vec<&str> = peers.lines().collect();
    assert!(lines[0].starts_with("NAME "), "{peers}");
    assert!(lines[1].contains(" established  rustbond "), "{peers}");
    assert_eq!(world.show("c", &["peers"]).as_array().unwrap().len(), 2);
    let vnis = world.show("a", &["vnis", "--vni", "200"]);
    assert_eq!((&vnis[0]["vni"], &vnis[0]["nat"]), (&200.into(), &1.into()));

    let count = |args: &[&str]| {
        let args = [&["routes"], args].concat();
        world.show("a", &args).as_array().unwrap().len()
    };
    for (args, expected) in [
        (&[][..], 2),
        (&["--vni", "100"], 1),
        (&["--prefix", PREFIX], 1),
        (&["--prefix", "10.0.0.0/8"], 0),
        (&["--within", "10.0.0.0/8"], 2),
        (&["--match", "10.9.8.7"], 1),
        (&["--type", "nat"], 1),
        (&["--peer", "127.0.0.1"], 2),
        (&["--peer", "127.0.0.2"], 0),
        (&["--limit", "1"], 1),
    ] {
        assert_eq!(count(args), expected, "{args:?}");
    }
    let routes = world.say("a", &["show", "routes", "-o", "ndjson"]);
    let routes: Vec<Value> = routes
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(routes[1]["port_to"], 2000);
    assert_eq!(
        world.say("a", &["show", "routes", "--vni", "5", "-o", "json"]),
        "[]\n"
    );

    // The same over HTTP, where nothing can be changed.
    let http = world.http(0);
    let (code, stdout, _) = run(&["show", "routes", "--at", &http]);
    assert_eq!(code, 0);
    assert_eq!(stdout, world.say("a", &["show", "routes"]));
    let (code, _, stderr) = run(&["monitor", "--at", &format!("http://{http}")]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn change_by_command_reaches_a_monitor() {
    let world = World::new();
    let at = world.at("b");
    let mut monitor = Process::start(metalbond().args(["monitor", "--current", "--at", &at]));
    monitor.stdout.expect("\"complete\"");
    let route = "100#10.7.0.0/16#2001:db8::7#LB";
    let text = "VNI 100 10.7.0.0/16 via 2001:db8::7 [LB]";
    assert_eq!(
        world.say("c", &["announce", route]),
        format!("{text}: announced\n")
    );
    let line = monitor.stdout.expect("10.7.0.0/16");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["event"], &event["type"]),
        (&"add".into(), &"lb".into())
    );
    let said = world.say("c", &["announce", route]);
    assert_eq!(said, format!("{text}: announced already\n"));
    let said = world.say("c", &["withdraw", route]);
    assert_eq!(said, format!("{text}: withdrawn\n"));
    monitor.stdout.expect("\"remove\"");
    let said = world.say("c", &["withdraw", route]);
    assert_eq!(said, format!("{text}: not announced here\n"));

    // A server announces in its own name, to its clients.
    world.say("a", &["announce", "100#10.8.0.0/16#2001:db8::8"]);
    world
        .client
        .stdout
        .expect("+ VNI 100 10.8.0.0/16 via 2001:db8::8");

    assert_eq!(
        world.say("c", &["subscribe", "7,8"]),
        "VNI 7: subscribed\nVNI 8: subscribed\n"
    );
    let said = world.say("c", &["unsubscribe", "8", "9"]);
    assert_eq!(said, "VNI 8: unsubscribed\nVNI 9: not subscribed\n");
    let (code, _, stderr) = run(&["subscribe", "7", "--at", &world.at("a")]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("a server has the routes of every VNI"),
        "{stderr}"
    );

    // One of the client's two connections is broken, and it is seen why.
    let said = world.say("b", &["peer", "reset", "127.0.0.1"]);
    assert_eq!(said, "127.0.0.1: 1 connection reset\n");
    monitor.stdout.expect("reset by an operator");
    monitor.stdout.expect("\"peer_up\"");
    let (code, _, stderr) = run(&["peer", "drain", "nobody", "--at", &at]);
    assert_eq!(code, 1);
    assert!(stderr.contains("there is no peer nobody"), "{stderr}");
    let World { mut servers, .. } = world;
    servers.pop().unwrap().0.stop("TERM");
    assert_eq!(monitor.wait().code(), Some(1));
    assert!(monitor.stderr.all().contains("the monitor ended: closed"));
}

#[test]
fn diff_finds_a_planted_difference() {
    let world = World::new();
    let (a, b) = (world.at("a"), world.at("b"));
    let (code, stdout, stderr) = run(&["diff", &a, &b]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(
        stdout.starts_with("no difference between 2 servers"),
        "{stdout}"
    );

    world.say(
        "b",
        &[
            "announce",
            "100#10.8.0.0/16#2001:db8::8,300#::/0#2001:db8::8#NAT#1#2",
        ],
    );
    let expected = format!(
        "--- {a}\n+++ {b}\n+ VNI 100 10.8.0.0/16 via 2001:db8::8\n\
         + VNI 300 ::/0 via 2001:db8::8 [NAT ports 1-2]\n"
    );
    let expected = (1, expected, String::new());
    // A change is accepted before the owners of the tables have had their turn.
    crate::support::eventually("the difference is found", || {
        run(&["diff", &a, &b]) == expected
    });
    let (code, stdout, _) = run(&["diff", &b, &world.http(0), "-o", "ndjson", "--vni", "300"]);
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &line["on"], &line["port_to"]),
        (1, &b.clone().into(), &2.into())
    );
    let (code, stdout, _) = run(&["diff", &a, &a, &b, "-o", "json"]);
    let list: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, list.as_array().unwrap().len()), (1, 2));

    let (code, stdout, stderr) = run(&["diff", &a, &world.at("nothing")]);
    assert_eq!((code, &*stdout), (2, ""));
    assert!(
        stderr.contains("there is no such socket; is it running"),
        "{stderr}"
    );
}

/// Something that listens and does what it is told with each connection.
fn listener(serve: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(&mut stream.unwrap());
        }
    });
    address
}

#[test]
fn probe_reports_what_a_server_is() {
    let probe = |address: SocketAddr, args: &[&str]| {
        run(&[&["probe", &address.to_string()], args].concat())
    };
    let (_server, address) = Process::server(&["--keepalive", "7"]);
    let (code, stdout, stderr) = probe(address, &["-o", "json", "--count", "3"]);
    assert_eq!((code, &*stderr), (0, ""));
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&found["kind"], &found["is_server"]),
        (&"rustbond".into(), &true.into())
    );
    assert_eq!(found["keepalive_interval_seconds"], 7);
    assert_eq!(
        found["capabilities"],
        serde_json::json!(["STREAM", "END_OF_RIB", "NOTICE"])
    );
    assert_eq!(found["node_id"].as_str().unwrap().len(), 32);
    let trips = &found["round_trips"];
    assert_eq!(trips["count"], 3);
    let seconds = ["min_seconds", "median_seconds", "max_seconds"].map(|it| trips[it].as_f64());
    assert!(seconds[0] > Some(0.0) && seconds.is_sorted(), "{trips}");

    let go = double::Server::start(2, Reading::Strict, &[]);
    let (code, stdout, _) = probe(go.address(), &[]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("legacy, Go MetalBond or RustBond 0.1, server"),
        "{stdout}"
    );
    assert!(stdout.contains("every 2 s"), "{stdout}");
    go.faults.check();
}

#[test]
fn probe_of_something_else_names_it() {
    let banner = listener(|stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap());
    let echo = listener(|stream| {
        let mut buffer = [0; 64];
        let count = stream.read(&mut buffer).unwrap();
        stream.write_all(&buffer[..count]).unwrap();
        // Until the probe has gone.
        drop(stream.read(&mut buffer));
    });
    let closed = listener(|stream| {
        // What is unread would make the end a reset.
        drop(stream.read(&mut [0; 64]));
    });
    let silent = listener(|stream| drop(stream.read_to_end(&mut Vec::new())));
    let refused = crate::support::free_address();
    for (address, words) in [
        (
            banner,
            "this is not MetalBond (protocol version 83 instead of 1): \"SSH-2.0-OpenSSH_9.2\"",
        ),
        (closed, "closed the connection without an answer"),
        (silent, "no answer to HELLO within 1s"),
        (refused, "connection refused, nothing listens there"),
    ] {
        let (code, stdout, stderr) = run(&["probe", &address.to_string(), "--timeout", "1"]);
        assert_eq!((code, &*stdout), (1, ""));
        assert!(stderr.contains(words), "{stderr}");
    }
    // It answers HELLO with HELLO, and says that it is no server.
    let (_, stdout, _) = run(&["probe", &echo.to_string(), "--timeout", "1"]);
    assert_eq!(stdout, "");
}

/// What a command writes to a terminal of so many columns.
fn on_a_terminal(columns: u16, args: &[&str], environment: &[(&str, &str)]) -> String {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let none: *mut libc::c_char = std::ptr::null_mut();
    #[allow(unsafe_code, reason = "the standard library makes no terminals")]
    // SAFETY: the pointers are to valid places; those that are none ask for nothing.
    let (mut ours, theirs) = unsafe {
        let made = libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            none.cast(),
            none.cast(),
            &raw const size,
        );
        assert_eq!(made, 0);
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    };
    let mut command = metalbond();
    command
        .args(args)
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS");
    command
        .env("TERM", "xterm")
        .envs(environment.iter().copied());
    let mut child = command.stdout(Stdio::from(theirs)).spawn().unwrap();
    drop(command);
    let mut text = Vec::new();
    // Its end is an error, once nobody has the terminal open any more.
    drop(ours.read_to_end(&mut text));
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

/// A text without what makes it bold or coloured.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

#[test]
fn table_is_cut_to_its_terminal_and_whole_in_a_pipe() {
    let world = World::new();
    let at = world.at("a");
    let args = ["show", "peers", "--at", &at];
    let piped = world.say("a", &["show", "peers"]);
    assert!(!piped.contains('\x1b'));
    let wide = on_a_terminal(200, &args, &[]);
    assert!(wide.contains("\x1b[32mestablished\x1b[0m"), "{wide}");
    assert!(plain(&wide).contains("LAST ERROR"), "{wide}");
    for columns in [40, 60, 80] {
        let text = plain(&on_a_terminal(columns, &args, &[]));
        assert!(
            text.contains("NAME") && text.contains("established"),
            "{text}"
        );
        for line in text.lines() {
            assert!(line.chars().count() <= columns.into(), "{columns}: {line}");
        }
    }
    let text = on_a_terminal(200, &args, &[("NO_COLOR", "1"), ("COLUMNS", "60")]);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|it| it.chars().count() <= 60), "{text}");
}
