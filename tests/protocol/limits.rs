//! Limits and laggards over real sockets: who passes a limit is refused, nobody else suffers.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::support::{KEEPALIVE, PATIENCE, Raw, eventually, free_address, subscribe, update};
use rustbond::{MetalBondServer, ServerConfig};

fn server(config: ServerConfig) -> MetalBondServer {
    MetalBondServer::start("127.0.0.1:0", config).unwrap()
}

#[test]
fn sessions_past_the_limit_are_closed_and_places_are_given_back() {
    let server = server(ServerConfig {
        max_sessions: 10,
        ..ServerConfig::default()
    });
    let mut peers: Vec<Raw> = (0..10)
        .map(|_| Raw::established(server.local_addr()))
        .collect();
    for _ in 0..20 {
        assert!(Raw::connect(server.local_addr()).closed_by_server());
    }
    assert_eq!(server.stats().refused_sessions, 20);
    assert!(peers.iter_mut().all(|peer| peer.barrier().is_empty()));
    peers.truncate(9);
    eventually("a place is free", || {
        let mut peer = Raw::connect(server.local_addr());
        peer.stream.write_all(&KEEPALIVE).is_ok() && server.stats().sessions == 10
    });
}

#[test]
fn one_address_gets_no_more_than_its_share_of_sessions() {
    let server = MetalBondServer::start(
        "[::]:0",
        ServerConfig {
            max_sessions_per_address: 3,
            ..ServerConfig::default()
        },
    )
    .unwrap();
    let port = server.local_addr().port();
    let held: Vec<Raw> = (0..3)
        .map(|_| Raw::established(([127, 0, 0, 1], port).into()))
        .collect();
    assert!(Raw::connect(([127, 0, 0, 1], port).into()).closed_by_server());
    let mut other = Raw::established(([0, 0, 0, 0, 0, 0, 0, 1], port).into());
    assert!(other.barrier().is_empty(), "another address is served");
    drop(held);
}

#[test]
fn accepts_past_the_rate_are_delayed_and_none_is_lost() {
    let server = server(ServerConfig {
        max_accepts_per_second: 50,
        ..ServerConfig::default()
    });
    let start = std::time::Instant::now();
    let peers: Vec<Raw> = (0..100)
        .map(|_| Raw::connect(server.local_addr()))
        .collect();
    eventually("all are accepted", || server.stats().sessions == 100);
    assert!(start.elapsed() >= Duration::from_millis(900));
    drop(peers);
}

#[test]
fn flood_of_subscriptions_is_refused_and_forgotten() {
    let server = server(ServerConfig {
        max_subscriptions_per_peer: 1000,
        ..ServerConfig::default()
    });
    let mut peer = Raw::established(server.local_addr());
    let mut bytes = Vec::new();
    for vni in 0..200_000_u32 {
        let varint = [vni & 0x7f | 0x80, vni >> 7 & 0x7f | 0x80, vni >> 14];
        bytes.extend([1, 0, 4, 3, 8]);
        bytes.extend(varint.map(|it| u8::try_from(it).unwrap()));
    }
    peer.send(&bytes);
    assert!(peer.barrier().is_empty());
    eventually("the rest is refused", || server.stats().refused == 199_000);
    assert_eq!(server.stats().subscriptions, 1000);
    drop(peer);
    eventually("all is given back", || server.stats().vnis == 0);
}

/// The routes of a table, by number, from the frames of a subscriber.
#[derive(Default)]
struct Table {
    hops: BTreeMap<u32, BTreeSet<u8>>,
    updates: usize,
}

impl Table {
    fn hear(&mut self, frame: &[u8]) {
        if frame[3] != 5 {
            return;
        }
        self.updates += 1;
        let (is_remove, route) = match frame[4..] {
            [8, 1, ref route @ ..] => (true, route),
            ref route => (false, route),
        };
        let number = u32::from_be_bytes([0, route[7], route[8], route[9]]);
        let hops = self.hops.entry(number).or_default();
        let hop = route[route.len() - 1];
        let is_news = if is_remove {
            hops.remove(&hop)
        } else {
            hops.insert(hop)
        };
        assert!(is_news, "nothing that is known, nothing that is absent");
    }

    /// Whether every route has this next hop alone.
    fn is_at(&self, hop: u8) -> bool {
        self.hops.values().all(|hops| hops.iter().eq([&hop]))
    }
}

/// Reads rounds of `each` updates, and tells `has_read` after each.
fn read_rounds(
    mut subscriber: Raw,
    mut table: Table,
    each: usize,
    rounds: u8,
    has_read: &Sender<()>,
) -> (Raw, Table) {
    for _ in 0..rounds {
        let end = table.updates + each;
        while table.updates < end {
            table.hear(&subscriber.frame());
        }
        has_read.send(()).unwrap();
    }
    (subscriber, table)
}

#[test]
fn frozen_subscriber_delays_nobody_and_catches_up() {
    const ROUTES: u32 = 5000;
    const ROUNDS: u8 = 60;
    let server = server(ServerConfig {
        keepalive_interval: 60,
        ..ServerConfig::default()
    });
    // They say nothing for as long as the test takes.
    let hello = [1, 0, 2, 1, 8, 60];
    let peer = || Raw::established_by(server.local_addr(), &hello);
    let mut announcer = peer();
    let mut subscribers: Vec<Raw> = (0..5).map(|_| peer()).collect();
    for subscriber in &mut subscribers {
        subscriber.send(&subscribe(7));
        subscriber.barrier();
    }
    let first: Vec<u8> = (0..ROUTES).flat_map(|it| update(0, 7, it, 0)).collect();
    announcer.send(&first);
    let mut tables: Vec<Table> = (0..5).map(|_| Table::default()).collect();
    for (subscriber, table) in subscribers.iter_mut().zip(&mut tables) {
        (0..ROUTES).for_each(|_| table.hear(&subscriber.frame()));
    }
    let mut frozen = subscribers.pop().unwrap();
    let mut its_table = tables.pop().unwrap();
    let (sender, has_read) = channel();
    let count = subscribers.len();
    let readers: Vec<_> = subscribers
        .into_iter()
        .zip(tables)
        .map(|(subscriber, table)| {
            let sender = sender.clone();
            let each = 2 * ROUTES as usize;
            std::thread::spawn(move || read_rounds(subscriber, table, each, ROUNDS, &sender))
        })
        .collect();
    for round in 0..ROUNDS {
        let replace = |it| [update(1, 7, it, round), update(0, 7, it, round + 1)].concat();
        announcer.send(&(0..ROUTES).flat_map(replace).collect::<Vec<u8>>());
        // A reader that is rounds behind, on a busy machine, is told the difference alone.
        for _ in 0..count {
            has_read.recv_timeout(PATIENCE).expect("a round is read");
        }
        // Over more than the half second after which the frozen one counts as stalled.
        std::thread::sleep(Duration::from_millis(25));
    }
    let healthy: Vec<(Raw, Table)> = readers.into_iter().map(|it| it.join().unwrap()).collect();
    for (_, table) in &healthy {
        assert!(table.is_at(ROUNDS));
    }
    let queued = server
        .peers()
        .unwrap()
        .iter()
        .map(|it| it.queued_bytes)
        .max()
        .unwrap();
    assert!(queued < 4 << 20, "{queued} bytes wait for the frozen one");
    let before = its_table.updates;
    while !(its_table.hops.len() == ROUTES as usize && its_table.is_at(ROUNDS)) {
        its_table.hear(&frozen.frame());
    }
    let received = its_table.updates - before;
    let differ = 2 * ROUTES as usize;
    println!(
        "the frozen one received {received} updates, {differ} routes differed, {queued} B were queued"
    );
    assert!(
        received <= 2 * differ,
        "{received} updates for {differ} keys"
    );
    frozen.send(&KEEPALIVE);
    assert_eq!(frozen.frame(), KEEPALIVE, "the same session");
    assert_eq!(server.stats().closed, 0);
}

#[test]
fn keepalive_is_answered_before_queued_updates() {
    let server = server(ServerConfig::default());
    let mut announcer = Raw::established(server.local_addr());
    let bytes: Vec<u8> = (0..200_000).flat_map(|it| update(0, 7, it, 1)).collect();
    announcer.send(&bytes);
    announcer.barrier();
    eventually("all are there", || server.stats().routes == 200_000);
    let mut slow = Raw::established(server.local_addr());
    slow.send(&subscribe(7));
    // What is on its way already, at most: the kernel's queues, not the table.
    eventually("the table is queued", || {
        server
            .peers()
            .unwrap()
            .iter()
            .any(|it| it.queued_bytes > 1 << 20)
    });
    slow.send(&KEEPALIVE);
    let mut bytes = 0;
    let mut buffer = Vec::new();
    loop {
        let frame = slow.frame();
        if frame[..] == KEEPALIVE {
            break;
        }
        bytes += frame.len();
    }
    assert!(bytes < 7_200_000 / 2, "{bytes} bytes before the answer");
    slow.stream.set_nonblocking(true).unwrap();
    let _ = slow.stream.read_to_end(&mut buffer);
}

/// A server process that may open few files.
#[cfg(feature = "cli")]
struct Poor(std::process::Child);

#[cfg(feature = "cli")]
impl Poor {
    fn start(address: std::net::SocketAddr, files: usize) -> Self {
        let command = format!(
            "ulimit -n {files}; exec {} server --listen {address}",
            env!("CARGO_BIN_EXE_metalbond")
        );
        let mut shell = std::process::Command::new("bash");
        let child = shell
            .args(["-c", &command])
            .env("RUST_LOG", "error")
            .spawn()
            .unwrap();
        eventually("it listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self(child)
    }

    /// Time on a CPU so far.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let nanos = tasks.map(|task| {
            let path = task.unwrap().path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    }
}

#[cfg(feature = "cli")]
impl Drop for Poor {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[cfg(feature = "cli")]
#[test]
fn server_without_descriptors_pauses_accepting_and_does_not_spin() {
    let address = free_address();
    let server = Poor::start(address, 40);
    let mut healthy = Raw::established(address);
    let crowd: Vec<Raw> = (0..100).map(|_| Raw::connect(address)).collect();
    let (start, before) = (std::time::Instant::now(), server.cpu());
    while start.elapsed() < Duration::from_secs(1) {
        assert!(healthy.barrier().is_empty(), "served all the while");
        std::thread::sleep(Duration::from_millis(20));
    }
    let spent = server.cpu() - before;
    assert!(
        spent < Duration::from_millis(500),
        "{spent:?} of CPU in a second"
    );
    drop(crowd);
    let mut late = Raw::established(address);
    assert!(
        late.barrier().is_empty(),
        "accepted when there is room again"
    );
}

#[test]
fn connections_that_reset_cost_the_others_no_accepts() {
    let server = server(ServerConfig {
        max_accepts_per_second: 50,
        ..ServerConfig::default()
    });
    for _ in 0..400 {
        let stream = std::net::TcpStream::connect(server.local_addr()).unwrap();
        // Closing it resets it.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    let start = std::time::Instant::now();
    let mut healthy = Raw::established(server.local_addr());
    assert!(healthy.barrier().is_empty());
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}, 400 take 7 s");
}

#[test]
fn peer_past_its_vnis_is_refused_until_it_leaves_one() {
    let server = server(ServerConfig {
        workers: std::num::NonZeroUsize::MIN,
        max_vnis: 4,
        max_vnis_per_peer: 3,
        ..ServerConfig::default()
    });
    let mut one = Raw::established(server.local_addr());
    for vni in 1..=5 {
        one.stream.write_all(&update(0, vni, 1, 1)).unwrap();
    }
    one.barrier();
    let is = |vnis, routes, refused| {
        let stats = server.stats();
        (stats.vnis, stats.routes, stats.refused) == (vnis, routes, refused)
    };
    eventually("two VNIs are refused", || is(3, 3, 2));
    one.stream.write_all(&update(0, 1, 2, 1)).unwrap();
    one.stream.write_all(&update(1, 2, 1, 1)).unwrap();
    one.stream.write_all(&update(0, 5, 1, 1)).unwrap();
    one.barrier();
    eventually("another VNI takes the place of the old one", || is(3, 4, 2));
    let mut other = Raw::established(server.local_addr());
    for vni in 6..=7 {
        other.stream.write_all(&update(0, vni, 1, 2)).unwrap();
    }
    other.stream.write_all(&update(0, 1, 1, 2)).unwrap();
    other.barrier();
    eventually("the fifth VNI is refused, an old one is not", || {
        is(4, 6, 3)
    });
}
