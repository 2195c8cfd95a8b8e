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
