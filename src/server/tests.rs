use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::core::rib::PeerId;
use crate::core::types::{Action, Destination, NextHop};
use crate::core::wire::{KEEPALIVE_FRAME, encode_update};

/// A session that has shaken hands.
fn peer(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[1, 0, 2, 1, 8, 5]).unwrap();
    stream.write_all(&KEEPALIVE_FRAME).unwrap();
    let mut reply = [0; 8 + 4];
    stream.read_exact(&mut reply).unwrap();
    stream
}

/// Two shards that announce to each other all the time, through mailboxes that hold
/// next to nothing: neither may wait for the other for ever, and nothing is lost.
#[test]
fn full_mailboxes_in_both_directions_at_once() {
    let config = ServerConfig {
        workers: NonZeroUsize::new(2).unwrap(),
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start_with("127.0.0.1:0", config, 8).unwrap();
    let topology = Topology::new(2);
    let owned_by = |shard| {
        (1..)
            .map(Vni)
            .find(|vni| topology.owner(*vni) == shard)
            .unwrap()
    };
    // Sessions are dealt out in turn: peer 0 lives on shard 0, peer 1 on shard 1.
    let peers = [0, 1].map(|id| (topology.home(PeerId(id)), peer(server.local_addr())));
    let count = 100_000;
    let writers = peers.map(|(home, mut stream)| {
        let vni = owned_by(1 - home);
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            for number in 0..count {
                let destination = Destination::from_ipv4(number.into(), 32);
                let route = Route::new(destination, NextHop::standard([0; 16]));
                encode_update(&mut bytes, Action::Add, vni, &route);
            }
            stream.write_all(&bytes).unwrap();
            stream
        })
    });
    let held = writers.map(|writer| writer.join().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.stats().routes < 2 * count as usize {
        assert!(
            Instant::now() < deadline,
            "stuck at {} routes",
            server.stats().routes
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(server.stats().held_up > 0, "the mailboxes were full");
    drop(held);
}

#[test]
fn hanging_worker_is_silent_until_it_goes_on() {
    let config = ServerConfig {
        workers: NonZeroUsize::new(2).unwrap(),
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_for = |heartbeat: &Heartbeat, silent: &[&str]| {
        while heartbeat.silent().collect::<Vec<_>>() != silent {
            assert!(Instant::now() < deadline, "{heartbeat:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let mut heartbeat = server.heartbeat();
    let names: Vec<&str> = heartbeat.names().collect();
    assert_eq!(names, ["metalbond-0", "metalbond-1", "metalbond-accept"]);
    wait_for(&heartbeat, &[]);
    let (go_on, held) = crossbeam_channel::bounded::<()>(0);
    let (began, has_begun) = crate::net::Reply::channel();
    let hang = Box::new(Request::Hang { began, held });
    server.inspector.workers[1].post(WorkerMail::Request(hang), 1);
    has_begun.recv().unwrap();
    heartbeat.ask();
    wait_for(&heartbeat, &["metalbond-1"]);
    drop(go_on);
    wait_for(&heartbeat, &[]);
    server.shutdown().unwrap();
}

/// A worker hangs with a full mailbox for longer than the hold time. The sessions of the other
/// worker that feed it wait; the others are answered, and none is ended as silent.
#[test]
fn full_owner_holds_up_the_sessions_that_feed_it_and_no_other() {
    let config = ServerConfig {
        workers: NonZeroUsize::new(2).unwrap(),
        keepalive_interval: 1,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start_with("127.0.0.1:0", config, 8).unwrap();
    let topology = Topology::new(2);
    let there = (1..)
        .map(Vni)
        .find(|vni| topology.owner(*vni) == 1)
        .unwrap();
    // Sessions are dealt out in turn: the first and the third live on worker 0.
    let mut sessions = [(); 3].map(|()| peer(server.local_addr()));
    let (go_on, held) = crossbeam_channel::bounded::<()>(0);
    let (began, has_begun) = crate::net::Reply::channel();
    let hang = Box::new(Request::Hang { began, held });
    server.inspector.workers[1].post(WorkerMail::Request(hang), 1);
    has_begun.recv().unwrap();
    let mut flood = Vec::new();
    for number in 0..20_000_u32 {
        let route = Route::new(
            Destination::from_ipv4(number.into(), 32),
            NextHop::standard([0; 16]),
        );
        encode_update(&mut flood, Action::Add, there, &route);
    }
    let [feeder, _, healthy] = &mut sessions;
    let mut writer = feeder.try_clone().unwrap();
    let flooding = std::thread::spawn(move || writer.write_all(&flood));
    healthy
        .set_read_timeout(Some(Duration::from_millis(1500)))
        .unwrap();
    let begin = Instant::now();
    let mut answered = 0;
    while begin.elapsed() < Duration::from_secs(4) {
        healthy.write_all(&KEEPALIVE_FRAME).unwrap();
        healthy.read_exact(&mut [0; 4]).expect("an answer");
        answered += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(answered > 5 && server.stats().held_up > 0);
    drop(go_on);
    flooding.join().unwrap().expect("the feeder is not closed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.stats().routes < 20_000 {
        assert!(Instant::now() < deadline, "{:?}", server.stats());
        std::thread::sleep(Duration::from_millis(2));
    }
}
