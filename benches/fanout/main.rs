//! The whole server against a bare relay of the same bytes, in the same run.
//!
//! `cargo bench --bench fanout [-- NAME...]`. Both run as processes of their own;
//! CPU and memory are the process's, from /proc. The relay looks at nothing: what
//! it costs to move the bytes is the floor.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints"
)]

mod latency;
mod peer;
mod process;
#[path = "../../tests/common/procfs.rs"]
mod procfs;
mod relay;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peer::{Sinks, UPDATE_BYTES, announcer, update};
use process::Process;

const ROUTES: u32 = 100_000;

/// A load's cost: CPU of the process and time from the first byte to the last.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu: Duration,
    wall: Duration,
    deliveries: u64,
}

impl Cost {
    fn cpu_ns(self) -> f64 {
        self.cpu.as_nanos() as f64 / self.deliveries as f64
    }

    fn rate(self) -> f64 {
        self.deliveries as f64 / self.wall.as_secs_f64() / 1e6
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|it| it != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("relay") {
        relay::run(arguments.next().unwrap().parse().unwrap());
    }
    if first.as_deref() == Some("echo") {
        relay::echo();
    }
    process::raise_descriptor_limit();
    let wanted: Vec<String> = first.into_iter().chain(arguments).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    println!(
        "load                              relay ns  server ns   ratio   M deliveries/s  peak MiB"
    );
    if is_wanted("live") {
        live();
    }
    if is_wanted("join") {
        joiners(20);
    }
    if is_wanted("join1000") {
        joiners(1000);
    }
    if is_wanted("fabric") {
        fabric();
    }
    if is_wanted("frozen") {
        frozen();
    }
    if is_wanted("memory") {
        memory();
    }
    if is_wanted("idle") {
        idle();
    }
    if is_wanted("latency") {
        latency::steady();
    }
    if is_wanted("wide") {
        latency::wide();
    }
    if is_wanted("snapshots") {
        latency::snapshots();
    }
}

fn report(load: &str, floor: Cost, ours: Cost, server: &Process) {
    println!(
        "{load:<32} {:>9.1} {:>10.1} {:>7.2} {:>16.1} {:>9.1}",
        floor.cpu_ns(),
        ours.cpu_ns(),
        ours.cpu_ns() / floor.cpu_ns(),
        ours.rate(),
        server.peak_mib(),
    );
}

/// The median run by CPU of three.
fn median(mut run: impl FnMut() -> Cost) -> Cost {
    let mut costs = [run(), run(), run()];
    costs.sort_by_key(|cost| cost.cpu);
    costs[1]
}

/// Routes announced to 100 subscribers, then withdrawn with their announcer.
fn live() {
    let subscribers = 100;
    let deliveries = subscribers as u64 * u64::from(ROUTES);
    let floor = median(|| relay_cost(subscribers, ROUTES));
    let run = || {
        let server = Process::server(&[]);
        let mut sinks = Sinks::subscribed(server.address, subscribers, 1);
        let source = announcer(server.address);
        let bytes = announcements(ROUTES);
        let (announced, source) = cost(&server, deliveries, || {
            let writer = peer::send_in_background(source, bytes);
            sinks.read_bytes(ROUTES as usize * UPDATE_BYTES);
            writer.join().unwrap()
        });
        let (left, ()) = cost(&server, deliveries, || {
            drop(source);
            // A withdrawal is two bytes longer.
            sinks.read_bytes(ROUTES as usize * (UPDATE_BYTES + 2));
        });
        (announced, left, server)
    };
    let mut runs = [run(), run(), run()];
    runs.sort_by_key(|it| it.0.cpu);
    report("100,000 routes live to 100", floor, runs[1].0, &runs[1].2);
    runs.sort_by_key(|it| it.1.cpu);
    report("their announcer leaves", floor, runs[1].1, &runs[1].2);
}

fn announcements(routes: u32) -> Vec<u8> {
    (0..routes).flat_map(|it| update(0, 1, it, 1)).collect()
}

/// Measures what `load` costs a process.
fn cost<T>(process: &Process, deliveries: u64, load: impl FnOnce() -> T) -> (Cost, T) {
    let (cpu, start) = (process.cpu(), Instant::now());
    let result = load();
    let wall = start.elapsed();
    let cost = Cost {
        cpu: process.cpu() - cpu,
        wall,
        deliveries,
    };
    (cost, result)
}

fn relay_cost(sinks: usize, routes: u32) -> Cost {
    let relay = Process::relay(sinks);
    let mut readers = Sinks::connected(relay.address, sinks);
    let source = std::net::TcpStream::connect(relay.address).unwrap();
    let bytes = announcements(routes);
    let deliveries = sinks as u64 * u64::from(routes);
    let (cost, _) = cost(&relay, deliveries, || {
        let writer = peer::send_in_background(source, bytes);
        readers.read_bytes(routes as usize * UPDATE_BYTES);
        writer.join().unwrap()
    });
    cost
}

/// An initial table to many that subscribe at once.
fn joiners(count: usize) {
    let floor = if count <= 100 {
        median(|| relay_cost(count, ROUTES))
    } else {
        relay_cost(count, ROUTES)
    };
    let server = Process::server(&[]);
    let source = loaded(server.address, ROUTES);
    let before = server.resident();
    let run = || {
        let mut sinks = Sinks::established(server.address, count);
        let deliveries = count as u64 * u64::from(ROUTES);
        let (cost, ()) = cost(&server, deliveries, || {
            sinks.subscribe(1);
            sinks.read_bytes(ROUTES as usize * UPDATE_BYTES);
        });
        cost
    };
    let ours = if count <= 100 { median(run) } else { run() };
    let load = format!("initial table of 100,000 to {count}");
    report(&load, floor, ours, &server);
    let grown = server.peak_mib() - before as f64 / 1024.0 / 1024.0;
    println!(
        "    all complete in {:.2} s, memory grew by {grown:.1} MiB",
        ours.wall.as_secs_f64()
    );
    drop(source);
}

/// Announces routes and waits until a subscriber has seen them.
fn loaded(address: SocketAddr, routes: u32) -> std::net::TcpStream {
    loaded_in(address, 1, routes)
}

/// The same in some VNI.
fn loaded_in(address: SocketAddr, vni: u8, routes: u32) -> std::net::TcpStream {
    let source = announcer(address);
    let mut sink = Sinks::subscribed(address, 1, vni);
    let bytes = (0..routes).flat_map(|it| update(0, vni, it, 1)).collect();
    let writer = peer::send_in_background(source, bytes);
    sink.read_bytes(routes as usize * UPDATE_BYTES);
    writer.join().unwrap()
}

/// A hundred hypervisors that announce and subscribe in one VNI.
fn fabric() {
    let (peers, each) = (100_usize, 1000_u32);
    let floor = median(|| relay_cost(peers, ROUTES));
    let run = || {
        let server = Process::server(&[]);
        let mut sinks = Sinks::subscribed(server.address, peers, 1);
        let deliveries = (peers * (peers - 1)) as u64 * u64::from(each);
        let (cost, ()) = cost(&server, deliveries, || {
            sinks.announce_in_turn(each);
            sinks.read_bytes((peers - 1) * each as usize * UPDATE_BYTES);
        });
        (cost, server)
    };
    let mut runs = [run(), run(), run()];
    runs.sort_by_key(|(cost, _)| cost.cpu);
    report(
        "fabric of 100, 1,000 routes each",
        floor,
        runs[1].0,
        &runs[1].1,
    );
}

/// A hundred of a thousand subscribers read nothing during a million updates.
fn frozen() {
    let (routes, rounds) = (5000_u32, 100_u8);
    let server = Process::server(&["--keepalive", "60"]);
    let mut frozen = Sinks::subscribed(server.address, 100, 1);
    let mut healthy = Sinks::subscribed(server.address, 900, 1);
    let mut source = announcer(server.address);
    let first: Vec<u8> = (0..routes).flat_map(|it| update(0, 1, it, 0)).collect();
    source = peer::send_in_background(source, first).join().unwrap();
    let table = routes as usize * UPDATE_BYTES;
    healthy.read_bytes(table);
    frozen.read_bytes(table);
    let before = server.peak_mib();
    let start = Instant::now();
    let mut cpu = server.cpu();
    for round in 0..rounds {
        let replace = |it| [update(1, 1, it, round), update(0, 1, it, round + 1)].concat();
        let bytes: Vec<u8> = (0..routes).flat_map(replace).collect();
        let writer = peer::send_in_background(source, bytes);
        healthy.read_bytes(table * 2 + routes as usize * 2);
        source = writer.join().unwrap();
    }
    cpu = server.cpu() - cpu;
    let wall = start.elapsed();
    let grown = server.peak_mib() - before;
    let read = frozen.read_until_quiet() / 100;
    println!(
        "100 of 1,000 frozen during 1,000,000 updates: the others took {:.1} s, server CPU {:.1} s, \
         memory grew by {grown:.1} MiB, each frozen one then read {} updates where 10,000 differ",
        wall.as_secs_f64(),
        cpu.as_secs_f64(),
        read / (UPDATE_BYTES + 1),
    );
}

/// A million routes held.
fn memory() {
    let server = Process::server(&[]);
    let before = server.resident();
    let count = 1_000_000;
    let source = announcer(server.address);
    let bytes = announcements(count);
    let source = peer::send_in_background(source, bytes).join().unwrap();
    let mut source = peer::barrier(source);
    // A KEEPALIVE is answered by the session's thread; the table's may be behind.
    let mut last = 0;
    loop {
        source = peer::barrier(source);
        let resident = server.resident();
        if resident == last {
            break;
        }
        last = resident;
        std::thread::sleep(Duration::from_millis(300));
    }
    let each = (server.resident() - before) as f64 / f64::from(count);
    println!("1,000,000 IPv4 routes held: {each:.1} B of resident memory a route, log included");
    drop(source);
}

/// Sessions that only keep alive.
fn idle() {
    let (count, seconds) = (4000, Duration::from_secs(20));
    let share = |process: &Process, sinks: &mut Sinks| {
        let (cost, ()) = cost(process, 1, || sinks.keep_alive(seconds));
        cost.cpu.as_secs_f64() / cost.wall.as_secs_f64() * 100.0
    };
    let echo = Process::floor(&["echo"]);
    let floor = share(&echo, &mut Sinks::connected(echo.address, count));
    drop(echo);
    let server = Process::server(&["--keepalive", "5"]);
    let before = server.resident();
    let mut sinks = Sinks::subscribed(server.address, count, 1);
    let each = (server.resident() - before) as f64 / count as f64;
    let ours = share(&server, &mut sinks);
    println!(
        "4,000 idle sessions: {each:.0} B of resident memory a session; at keepalive 5 s {ours:.2} % CPU, \
         a bare echo of the same bytes {floor:.2} %, ratio {:.2}",
        ours / floor
    );
}
