//! Tables to and from Go peers over a link as fabrics have them: MTU 1500, no segments
//! glued together by offloads, at the speed of a LAN or shaped.
//!
//! The doubles are strict: a frame cut by a segment and a full buffer end the test.
//! Ours runs in a network namespace of its own, at the far end of a veth pair. Needs
//! root, `ip`, `tc` and `ethtool`. Figures are printed, not judged.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "figures, and why a test is skipped")]

#[path = "common/double/mod.rs"]
mod double;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/support.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{self, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use double::Reading::{self, Slow, Strict};
use double::wire::Path;
use double::{Client, Server};
use rustbond::{
    MetalBondClient, MetalBondServer, NoOpHandler, Route, RouteHandler, ServerConfig, Vni,
};
use support::{Recorder, eventually, hop, v4};

const VNI: Vni = Vni(100);
/// Of the modern subscribers beside Go's.
const BIG: Vni = Vni(200);
const ROUTES: u32 = 50_000;

/// The doubles' end of the link, and ours.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A thread in the namespace at the far end.
struct Far {
    calls: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Far {
    /// Runs something there; the threads it starts stay there.
    fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let call = Box::new(move || drop(sender.send(call())));
        self.calls.as_ref().unwrap().send(call).unwrap();
        receiver.recv().unwrap()
    }

    fn server(&self) -> MetalBondServer {
        self.run(|| MetalBondServer::start((FAR, 0), ServerConfig::default()).unwrap())
    }

    fn client(&self, server: SocketAddr, handler: impl RouteHandler) -> MetalBondClient {
        self.run(move || support::client(&[server], handler))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.calls = None;
        drop(self.thread.take().unwrap().join());
    }
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap())
        .args(words)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{command}");
}

fn has(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}

/// Runs `test` at the near end of a link, shaped to so many Mbit/s.
fn over_a_link(name: &str, mbits: Option<u32>, test: impl FnOnce(&Far) + Send + 'static) {
    for tool in ["ip", "tc", "ethtool"] {
        if !has(tool) {
            eprintln!("SKIPPED: {name}: {tool} is not installed");
            return;
        }
    }
    netns::in_namespace(name, move || {
        let (calls, receiver) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, is_ready) = channel();
        let far = std::thread::spawn(move || {
            #[allow(unsafe_code, reason = "unshare(2) and gettid(2) have no wrapper")]
            // SAFETY: no memory is involved; the thread is alone in its new namespace.
            let thread = unsafe {
                assert_eq!(libc::unshare(libc::CLONE_NEWNET), 0);
                libc::gettid()
            };
            ready.send(thread).unwrap();
            for call in receiver {
                call();
            }
        });
        let far = Far {
            calls: Some(calls),
            thread: Some(far),
        };
        let thread = is_ready.recv().unwrap();
        run(&format!(
            "ip link add near type veth peer name far netns {thread}"
        ));
        set_up("near", NEAR, None);
        far.run(move || {
            run("ip link set lo up");
            set_up("far", FAR, mbits);
        });
        test(&far);
    });
}

fn set_up(device: &str, address: Ipv4Addr, mbits: Option<u32>) {
    run(&format!("ip addr add {address}/24 dev {device}"));
    run(&format!("ip link set {device} mtu 1500 up"));
    run(&format!("ethtool -K {device} tso off gso off gro off"));
    if let Some(mbits) = mbits {
        run(&format!(
            "tc qdisc add dev {device} root tbf rate {mbits}mbit burst 16kb latency 400ms"
        ));
    }
}

fn route(number: u32) -> Route {
    Route::new(v4(number), hop(1))
}

fn routes(count: u32) -> Vec<(Vni, Route)> {
    (0..count).map(|it| (VNI, route(it))).collect()
}

fn paths(routes: &[(Vni, Route)]) -> Vec<(u32, Path)> {
    let path = |(vni, route): &(Vni, Route)| {
        let IpAddr::V4(prefix) = route.destination.prefix.addr() else {
            unreachable!("the routes here are IPv4")
        };
        let IpAddr::V6(hop) = route.next_hop.target_address else {
            unreachable!("their next hop is not")
        };
        let path = Path {
            prefix: prefix.octets().to_vec(),
            length: 32,
            hop: hop.octets().to_vec(),
            hop_vni: 0,
            kind: 0,
            ports: (0, 0),
        };
        (vni.0, path)
    };
    routes.iter().map(path).collect()
}

fn announce(client: &MetalBondClient, routes: &[(Vni, Route)]) {
    for (vni, route) in routes {
        let (destination, next_hop) = (route.destination, route.next_hop);
        client.announce(*vni, destination, next_hop).unwrap();
    }
}

fn print_speed(what: &str, count: u32, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    let speed = f64::from(count) / seconds;
    eprintln!("{what}: {count} routes in {seconds:.2} s, {speed:.0} routes/s");
}

/// From our server to a Go client, as initial table and live.
fn to_a_go_client(name: &'static str, mbits: Option<u32>, reading: Reading) {
    over_a_link(name, mbits, move |far| {
        let server = far.server();
        let source = far.client(server.local_addr(), NoOpHandler);
        let routes = routes(ROUTES);
        announce(&source, &routes);
        eventually("the server has them", || {
            server.stats().routes == routes.len()
        });
        let go = Client::connect(server.local_addr(), 5, reading);
        let start = Instant::now();
        go.subscribe(VNI.0);
        go.wait_for_len(routes.len());
        print_speed(name, ROUTES, start);
        go.wait_for(&paths(&routes));
        let more: Vec<_> = (ROUTES..ROUTES + 5000).map(|it| (VNI, route(it))).collect();
        announce(&source, &more);
        go.wait_for_len(routes.len() + more.len());
        go.faults.check();
        let stats = server.stats();
        assert_eq!((stats.legacy_drops, stats.cut_chunks), (0, 0));
    });
}

/// From our client to a Go server, when it comes back and is told everything.
fn to_a_go_server(name: &'static str, mbits: Option<u32>, reading: Reading) {
    over_a_link(name, mbits, move |far| {
        let server = Server::start_on((NEAR, 0).into(), 5, reading, &[]);
        let source = far.client(server.address(), NoOpHandler);
        let routes = routes(ROUTES);
        announce(&source, &routes);
        server.wait_for_len(routes.len());
        let start = Instant::now();
        server.kick();
        server.wait_for_len(routes.len());
        print_speed(name, ROUTES, start);
        let expected = paths(&routes);
        server.wait_for_table(|table| expected.iter().all(|it| table.contains_key(it)));
        assert_eq!(server.accepted(), 2, "no connection was lost");
        server.faults.check();
    });
}

const fn micros(micros: u64) -> Reading {
    Slow(Duration::from_micros(micros))
}

#[test]
fn go_client_that_reads_at_once_gets_a_whole_table() {
    to_a_go_client("to a Go client, LAN, 0 us", None, Strict);
}

#[test]
fn go_client_with_20_microseconds_a_route_gets_a_whole_table() {
    to_a_go_client("to a Go client, LAN, 20 us", None, micros(20));
}

#[test]
fn go_client_with_100_microseconds_a_route_gets_a_whole_table() {
    to_a_go_client("to a Go client, LAN, 100 us", None, micros(100));
}

#[test]
fn go_client_behind_20_mbits_gets_a_whole_table() {
    for (name, reading) in [
        ("to a Go client, 20 Mbit/s, 0 us", Strict),
        ("to a Go client, 20 Mbit/s, 20 us", micros(20)),
        ("to a Go client, 20 Mbit/s, 100 us", micros(100)),
    ] {
        to_a_go_client(name, Some(20), reading);
    }
}

#[test]
fn go_server_that_reads_at_once_gets_a_whole_table() {
    to_a_go_server("to a Go server, LAN, 0 us", None, Strict);
}

#[test]
fn go_server_with_20_microseconds_a_route_gets_a_whole_table() {
    to_a_go_server("to a Go server, LAN, 20 us", None, micros(20));
}

#[test]
fn go_server_with_100_microseconds_a_route_gets_a_whole_table() {
    to_a_go_server("to a Go server, LAN, 100 us", None, micros(100));
}

#[test]
fn go_server_behind_20_mbits_gets_a_whole_table() {
    for (name, reading) in [
        ("to a Go server, 20 Mbit/s, 0 us", Strict),
        ("to a Go server, 20 Mbit/s, 20 us", micros(20)),
        ("to a Go server, 20 Mbit/s, 100 us", micros(100)),
    ] {
        to_a_go_server(name, Some(20), reading);
    }
}

/// How long modern subscribers take for their tables.
fn modern_tables(server: SocketAddr, count: usize, routes: usize) -> Duration {
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let recorder = Recorder::default();
            (support::client(&[server], recorder.clone()), recorder)
        })
        .collect();
    let start = Instant::now();
    for (client, _) in &clients {
        client.subscribe(BIG).unwrap();
    }
    for (_, recorder) in &clients {
        recorder.wait_for_len(routes);
    }
    start.elapsed()
}

/// Go clients whose threads leave the processor to everybody else: they are many in one
/// machine here, each in one of its own elsewhere.
fn modest_go_clients(server: SocketAddr, count: usize) -> Vec<Client> {
    let connect = move || {
        #[allow(unsafe_code, reason = "setpriority(2) has no wrapper")]
        // SAFETY: no memory is involved; of the calling thread and those it starts.
        let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        assert_eq!(result, 0);
        let client = |_| Client::connect(server, 30, Strict);
        (0..count).map(client).collect()
    };
    in_this_namespace(connect)
}

/// On a thread of its own, which is where this one is.
fn in_this_namespace<T: Send>(call: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(call).join().unwrap())
}

/// 200 Go clients at once; 20 modern ones do not wait for them.
#[test]
fn two_hundred_go_clients_and_twenty_of_ours_get_whole_tables() {
    const EACH: u32 = 5000;
    over_a_link("two hundred", None, |far| {
        let server = far.server();
        let address = server.local_addr();
        let source = far.client(address, NoOpHandler);
        let routes = routes(EACH);
        announce(&source, &routes);
        let big: Vec<_> = (0..ROUTES).map(|it| (BIG, route(it))).collect();
        announce(&source, &big);
        eventually("the server has them", || {
            server.stats().routes == routes.len() + big.len()
        });
        let alone = modern_tables(address, 20, big.len());
        let go = modest_go_clients(address, 200);
        let start = Instant::now();
        for go in &go {
            go.subscribe(VNI.0);
        }
        let beside = modern_tables(address, 20, big.len());
        for go in &go {
            go.wait_for_len(routes.len());
        }
        print_speed("to 200 Go clients", 200 * EACH, start);
        eprintln!(
            "20 modern tables of {ROUTES}: {alone:.0?} alone, {beside:.0?} beside 200 Go clients"
        );
        for go in &go {
            go.faults.check();
        }
        let stats = server.stats();
        assert_eq!((stats.legacy_drops, stats.cut_chunks), (0, 0));
    });
}

/// The network namespace of a thread of this process, as `/proc` names it.
fn namespace(task: &path::Path) -> Option<PathBuf> {
    std::fs::read_link(task.join("ns/net")).ok()
}

/// Seconds of CPU that the threads in some namespaces have taken: those of servers, and all. Other
/// tests of this process have namespaces of their own.
fn cpu(namespaces: &[Option<PathBuf>; 2]) -> (f64, f64) {
    let (mut server, mut all) = (0.0, 0.0);
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if !namespaces.contains(&namespace(&path)) {
            continue;
        }
        // A thread may have ended since it was listed.
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().unwrap().parse();
        let seconds = nanos.unwrap_or(0.0) / 1e9;
        all += seconds;
        let name = read("comm");
        let of_server = name.strip_prefix("metalbond-").unwrap_or_default();
        if of_server.starts_with(|it: char| it.is_ascii_digit()) || of_server.starts_with("acce") {
            server += seconds;
        }
    }
    (server, all)
}

/// Where the time goes when 20 Go clients take 50,000 routes each at once: into reading them. The
/// doubles only read; Go programs take many times their CPU, and the server none more.
#[test]
fn twenty_go_clients_at_once_take_the_time_for_themselves() {
    over_a_link("twenty", None, |far| {
        let server = far.server();
        let address = server.local_addr();
        let source = far.client(address, NoOpHandler);
        let routes = routes(ROUTES);
        announce(&source, &routes);
        let count = routes.len();
        eventually("the server has all", || server.stats().routes == count);
        let clients: Vec<Client> = (0..20)
            .map(|_| Client::connect(address, 5, Strict))
            .collect();
        let own = || namespace(path::Path::new("/proc/thread-self"));
        let namespaces = [own(), far.run(own)];
        let (before, start) = (cpu(&namespaces), Instant::now());
        for go in &clients {
            go.subscribe(VNI.0);
        }
        for go in &clients {
            go.wait_for_len(count);
        }
        let wall = start.elapsed().as_secs_f64();
        let after = cpu(&namespaces);
        let (ours, all) = (after.0 - before.0, after.1 - before.1);
        eprintln!(
            "20 Go clients, {count} routes each: {wall:.2} s; CPU {all:.2} s, of it the server \
             {ours:.2} s, {:.1} %",
            100.0 * ours / all
        );
        for go in &clients {
            go.faults.check();
        }
        assert_eq!(server.stats().legacy_drops, 0);
        assert!(ours <= all / 3.0, "{ours} of {all} s");
    });
}
