//! The built command under a service manager, which these tests play.
#![allow(clippy::print_stderr, reason = "who is skipped says so")]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::manager::{Halted, Manager, threads};
use crate::netns;
use crate::process::{Process, metalbond};
use crate::support::{self, PATIENCE, Raw, eventually, subscribe, update};
use rustbond::{MetalBondServer, ServerConfig};

const LOCAL: &str = "127.0.0.1:0";

#[test]
fn server_notifies_ready_status_and_stopping() {
    let manager = Manager::at_path();
    let server = Process::start(
        metalbond()
            .args(["server", "-l", LOCAL])
            .envs(manager.env()),
    );
    let ready = manager.expect("READY=1");
    assert_eq!(ready, "READY=1\nSTATUS=0 peers, 0 VNIs, 0 routes\n");
    let mut peer = Raw::established(server.listens_on("listening on "));
    peer.send(&update(0, 1, 1, 1));
    peer.send(&update(0, 1, 2, 1));
    manager.expect("STATUS=1 peer, 1 VNI, 2 routes\n");
    drop(peer);
    manager.expect("STATUS=0 peers, ");
    server.stop("TERM");
    let said = manager.all();
    assert!(said.contains(&"STOPPING=1\n".into()), "{said:?}");
    let pings = said.iter().filter(|it| it.contains("WATCHDOG")).count();
    assert_eq!(pings, 0, "nobody asked for them: {said:?}");
}

#[test]
fn client_notifies_ready_and_its_servers_and_tables() {
    let manager = Manager::at_abstract_name();
    // Connections are taken, and nobody answers yet.
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    let name = address.to_string();
    let args = ["client", "-s", &name, "--subscribe", "1,2"];
    let client = Process::start(metalbond().args(args).envs(manager.env()));
    manager.expect("READY=1\nSTATUS=0 of 1 server, 0 of 2 VNIs synced, 0 routes\n");
    let server =
        MetalBondServer::start_on([listener.try_into().unwrap()], ServerConfig::default()).unwrap();
    let mut announcer = Raw::established(address);
    announcer.send(&update(0, 1, 1, 1));
    manager.expect("STATUS=1 of 1 server, 2 of 2 VNIs synced, 1 route\n");
    drop((announcer, server));
    manager.expect("STATUS=0 of 1 server, ");
    client.stop("TERM");
    manager.expect("STOPPING=1\n");
}

/// Every loop of a server, halted one after the other: the watchdog must miss each.
#[test]
fn watchdog_is_not_fed_while_a_loop_of_a_server_hangs() {
    let manager = Manager::at_path();
    let args = ["server", "-l", LOCAL, "--http", LOCAL, "--workers", "2"];
    let mut command = metalbond();
    command
        .args(args)
        .envs(manager.env())
        .envs(manager.watchdog());
    let server = Process::start(&mut command);
    let loops = [
        "metalbond-0",
        "metalbond-1",
        "metalbond-accept",
        "metalbond-http",
    ];
    each_loop_is_missed(&manager, &server, &loops);
    server.stop("TERM");
}

#[cfg(feature = "netlink")]
#[test]
fn watchdog_is_not_fed_while_a_loop_of_a_client_hangs() {
    netns::in_namespace("watchdog", || {
        netns::make_device();
        let (server, address) = Process::server(&[]);
        let manager = Manager::at_path();
        let address = address.to_string();
        let install = [
            "--subscribe=1",
            "--install-routes",
            "1#100",
            "--tun",
            netns::DEVICE,
        ];
        let mut command = metalbond();
        command.args(["client", "-s", &address]).args(install);
        command.envs(manager.env()).envs(manager.watchdog());
        let client = Process::start(&mut command);
        each_loop_is_missed(
            &manager,
            &client,
            &["metalbond-client", "metalbond-netlink"],
        );
        client.stop("TERM");
        server.stop("TERM");
    });
}

fn each_loop_is_missed(manager: &Manager, process: &Process, loops: &[&str]) {
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    let threads = threads(process.id());
    for name in loops {
        // The system keeps 15 bytes of a name.
        let known_as = &name[..name.len().min(15)];
        let (thread, _) = threads.iter().find(|(_, it)| it == known_as).unwrap();
        let halted = match Halted::new(*thread) {
            Ok(halted) => halted,
            Err(error) => {
                eprintln!("SKIPPED: no thread of another process can be halted: {error}");
                return;
            }
        };
        process
            .stderr
            .expect(&format!("thread {name} has given no sign of life"));
        manager.all();
        // Several intervals: a watchdog that does not look would be fed in each.
        let heard = manager.all_within(Duration::from_millis(500));
        let is_fed = heard.iter().any(|it| it.contains("WATCHDOG"));
        assert!(!is_fed, "{name} hangs, and yet: {heard:?}");
        drop(halted);
        manager.expect("WATCHDOG=1");
    }
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let manager = Manager::at_path();
    let mut command = metalbond();
    command.args(["server", "-l", LOCAL]).envs(manager.env());
    command.envs(manager.watchdog()).env("WATCHDOG_PID", "1");
    let server = Process::start(&mut command);
    manager.expect("READY=1");
    let _peer = Raw::established(server.listens_on("listening on "));
    manager.expect("STATUS=1 peer");
    server.stop("TERM");
    let said = manager.all();
    assert!(said.iter().all(|it| !it.contains("WATCHDOG")), "{said:?}");
}

#[test]
fn missing_service_manager_changes_nothing() {
    for name in ["/nonexistent/notify", "vsock:2:1234", "@"] {
        let mut command = metalbond();
        command
            .args(["server", "-l", LOCAL])
            .env("NOTIFY_SOCKET", name);
        let server = Process::start(&mut command);
        server.stderr.expect("listening on ");
        server
            .stderr
            .expect("the service manager is not informed: NOTIFY_SOCKET");
        server.stop("TERM");
    }
}

/// A server with a descriptor 3, as a manager passes it.
fn passed(socket: OwnedFd, count: u32, args: &[&str]) -> Process {
    let script = format!("LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_metalbond"), "server"]);
    command.args(args).env_remove("RUST_LOG");
    Process::start(command.stdin(Stdio::from(socket)))
}

#[test]
fn passed_socket_is_listened_on_and_stays_with_the_manager() {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..2 {
        // Connects before the server is there, as what starts it does.
        let early = TcpStream::connect(address).unwrap();
        // An address of nobody: it is not looked at.
        let args = ["--listen", "192.0.2.1:1"];
        let server = passed(listener.try_clone().unwrap().into(), 1, &args);
        assert_eq!(server.listens_on("listening on "), address);
        let mut early = Raw::from(early);
        early.send(&support::HELLO);
        assert_eq!(early.frame()[3], 1);
        server.stop("TERM");
    }
}

#[test]
fn passed_descriptor_that_does_not_listen_is_refused() {
    use socket2::{Domain, Socket, Type};
    let kind = "expected a TCP or Unix socket that listens";
    let unheard = "the socket does not listen";
    let socket = |domain| OwnedFd::from(Socket::new(domain, Type::STREAM, None).unwrap());
    let listener = || TcpListener::bind(LOCAL).unwrap();
    let stream = TcpStream::connect(listener().local_addr().unwrap());
    let all: [(OwnedFd, u32, &str); 5] = [
        (UdpSocket::bind(LOCAL).unwrap().into(), 1, kind),
        (socket(Domain::IPV4), 1, unheard),
        (socket(Domain::UNIX), 1, unheard),
        (std::fs::File::open("/dev/null").unwrap().into(), 1, kind),
        // The second is missing.
        (
            listener().into(),
            2,
            "the passed socket (descriptor 4): Bad file descriptor (os error 9)",
        ),
    ];
    drop(stream);
    for (socket, count, expected) in all {
        let mut server = passed(socket, count, &[]);
        let code = server.wait().code();
        let stderr = server.stderr.all();
        assert!(stderr.ends_with(&format!("{expected}\n")), "{stderr}");
        assert_eq!(code, Some(1), "{stderr}");
    }
}

#[test]
fn sockets_passed_to_another_process_are_left_alone() {
    let mut command = metalbond();
    command.args(["server", "-l", LOCAL]);
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]);
    let server = Process::start(&mut command);
    server.stderr.expect("listening on 127.0.0.1:");
    server.stop("TERM");
}

#[test]
fn draining_server_closes_sessions_one_by_one_and_accepts_none() {
    const SESSIONS: u32 = 10;
    let seconds = Duration::from_secs(1);
    let (mut server, address) = Process::server(&["--workers", "1", "--drain", "1"]);
    let peers: Vec<Raw> = (0..SESSIONS).map(|_| Raw::established(address)).collect();
    let before = Instant::now();
    server.signal("TERM");
    server.stderr.expect("draining 10 sessions");
    assert!(TcpStream::connect(address).is_err(), "it listens no more");
    let ends = peers.into_iter().map(|peer| {
        std::thread::spawn(move || {
            assert!(peer.closed_by_server());
            Instant::now()
        })
    });
    let ends: Vec<_> = ends.collect();
    let mut ends: Vec<Instant> = ends.into_iter().map(|it| it.join().unwrap()).collect();
    assert_eq!(server.wait().code(), Some(0));
    ends.sort_unstable();
    // Sessions may be closed late, on a slow machine, and never early.
    for (place, end) in (0..).zip(&ends) {
        assert!(*end - before >= seconds * place / SESSIONS, "the {place}th");
    }
    assert!(server.stderr.all().contains(": drained by an operator"));
}

#[test]
fn drain_without_sessions_ends_at_once() {
    let (server, _) = Process::server(&["--drain", "86400"]);
    server.stop("TERM");
}

#[test]
fn drained_peer_gets_its_queue_and_its_routes_leave() {
    let config = ServerConfig {
        workers: NonZeroUsize::MIN,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start(LOCAL, config).unwrap();
    let mut first = Raw::established(server.local_addr());
    for number in 0..1000 {
        first.send(&update(0, 1, number, 1));
    }
    first.barrier();
    let mut second = Raw::established(server.local_addr());
    second.send(&subscribe(1));
    eventually("it is subscribed", || server.stats().subscriptions == 1);
    let drain = server.drain(Duration::ZERO);
    let frames = std::iter::from_fn(|| second.try_frame());
    let added = frames.filter(|it| it.len() == update(0, 1, 0, 1).len());
    assert_eq!(added.count(), 1000, "a table that was cut");
    drain.wait(PATIENCE).unwrap();
    eventually("no routes are left", || server.stats().routes == 0);
    server.shutdown().unwrap();
}

#[test]
fn reload_is_notified_at_its_begin_and_end() {
    let manager = Manager::at_path();
    let path = std::env::temp_dir().join(format!("metalbond-{}.toml", std::process::id()));
    std::fs::write(&path, "[server]\ndrain = 0\n").unwrap();
    let mut command = metalbond();
    command.args(["server", "-l", LOCAL, "--config"]).arg(&path);
    let server = Process::start(command.envs(manager.env()));
    manager.expect("READY=1");
    for drain in ["86400", "wrong"] {
        std::fs::write(&path, format!("[server]\ndrain = \"{drain}\"\n")).unwrap();
        server.signal("HUP");
        manager.expect("RELOADING=1\nMONOTONIC_USEC=");
        manager.expect("READY=1\n");
    }
    std::fs::remove_file(&path).unwrap();
    let _peer = Raw::established(server.listens_on("listening on "));
    // The time of the first reload holds: the end does not come by itself.
    server.signal("TERM");
    server.stderr.expect("draining 1 session");
    server.signal("TERM");
}
