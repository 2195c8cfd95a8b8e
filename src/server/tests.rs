use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::core::rib::PeerId;
use crate::core::types::{Action, Destination, NextHop};
use crate::core::wire::{KEEPALIVE_FRAME, encode_update};
use crate::inspect::WatchFrom;

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

fn with_two_workers() -> MetalBondServer {
    let config = ServerConfig {
        workers: NonZeroUsize::new(2).unwrap(),
        ..ServerConfig::default()
    };
    MetalBondServer::start("127.0.0.1:0", config).unwrap()
}

/// Half a server would keep its peers, and tell them half of the routes.
#[test]
fn panic_of_a_worker_ends_the_whole_server_and_is_said() {
    let server = with_two_workers();
    let (life, view) = (server.life(), server.inspector());
    let mut watch = view.watch(None, WatchFrom::Now).unwrap();
    let mut sessions = [peer(server.local_addr()), peer(server.local_addr())];
    let request = Box::new(Request::Panic);
    server.inspector.workers[1].post(WorkerMail::Request(request), 1);
    let is_said = |result: Result<()>| match result {
        Err(Error::Panicked(thread)) => assert_eq!(thread, "metalbond-1"),
        other => panic!("{other:?}"),
    };
    is_said(life.wait_timeout(Duration::from_secs(60)));
    for session in &mut sessions {
        // Zero bytes or a reset: the peer goes elsewhere at once.
        assert!(!matches!(session.read(&mut [0; 64]), Ok(1..)));
    }
    is_said(loop {
        if let Err(error) = watch.wait(Duration::from_secs(60)) {
            break Err(error);
        }
    });
    is_said(view.peers().map(drop));
    is_said(view.vnis().map(drop));
    is_said(view.snapshot(None).map(drop));
    is_said(view.snapshot(Some(Vni(1))).map(drop));
    is_said(view.announcements().map(drop));
    is_said(server.routes().map(drop));
    let status = view.status();
    assert_eq!(status.listening, []);
    assert!(status.not_ready.unwrap().contains("metalbond-1 panicked"));
    is_said(server.shutdown());
}

/// What happens between the return and the registration would be lost.
#[test]
fn watch_is_registered_at_every_worker_when_its_call_returns() {
    let server = with_two_workers();
    let (go_on, held) = crossbeam_channel::bounded::<()>(0);
    let (began, has_begun) = crate::net::Reply::channel();
    let hang = Box::new(Request::Hang { began, held });
    server.inspector.workers[1].post(WorkerMail::Request(hang), 1);
    has_begun.recv().unwrap();
    let view = server.inspector();
    let (returned, has_returned) = crossbeam_channel::bounded(1);
    let caller = std::thread::spawn(move || {
        returned.send(view.watch(None, WatchFrom::Now)).unwrap();
    });
    let early = has_returned.recv_timeout(Duration::from_millis(200));
    assert!(early.is_err(), "{early:?}");
    drop(go_on);
    has_returned.recv().unwrap().unwrap();
    caller.join().unwrap();
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
