//! The server as peers see it byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::support::{HELLO, KEEPALIVE, Raw, eventually, server, subscribe, update};
use rustbond::{MetalBondServer, ServerConfig};

/// The announcements and withdrawals among frames, by VNI and what follows it.
fn replay(frames: &[Vec<u8>], table: &mut BTreeSet<Vec<u8>>) {
    for frame in frames.iter().filter(|frame| frame[3] == 5) {
        let (is_remove, route) = match frame[4..] {
            [8, 1, ref route @ ..] => (true, route.to_vec()),
            ref route => (false, route.to_vec()),
        };
        if is_remove {
            assert!(table.remove(&route), "REMOVE of an absent route");
        } else {
            assert!(table.insert(route), "duplicate ADD");
        }
    }
}

/// What an UPDATE says about, without its action.
fn route(vni: u8, number: u32, hop: u8) -> Vec<u8> {
    update(0, vni, number, hop)[4..].to_vec()
}

#[test]
fn legacy_client_is_answered_as_go_does() {
    let server = server();
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[1, 0, 2, 1, 8, 2]);
    assert_eq!(
        peer.frame(),
        [1, 0, 4, 1, 8, 2, 16, 1],
        "the smaller interval"
    );
    peer.send(&KEEPALIVE);
    assert_eq!(peer.frame(), KEEPALIVE);
}

#[test]
fn session_sent_byte_by_byte_works() {
    let server = server();
    let mut peer = Raw::connect(server.local_addr());
    let mut bytes = HELLO.to_vec();
    bytes.extend(KEEPALIVE);
    bytes.extend(subscribe(7));
    bytes.extend(update(0, 7, 1, 1));
    for byte in bytes {
        peer.send(&[byte]);
    }
    eventually("all arrived", || server.stats().routes == 1);
    assert_eq!(server.stats().subscriptions, 1);
}

#[test]
fn handshake_and_updates_in_one_segment_count() {
    let server = server();
    let mut peer = Raw::connect(server.local_addr());
    let mut bytes = HELLO.to_vec();
    bytes.extend(KEEPALIVE);
    bytes.extend(subscribe(7));
    for number in 0..20 {
        bytes.extend(update(0, 7, number, 1));
    }
    peer.send(&bytes);
    eventually("all arrived", || server.stats().routes == 20);
}

#[test]
fn stream_cut_anywhere_is_understood() {
    let server = server();
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut peer = Raw::connect(server.local_addr());
        let mut bytes = HELLO.to_vec();
        bytes.extend(KEEPALIVE);
        for number in 0..500 {
            bytes.extend(update(0, 7, number, 1));
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(random.usize(1..200).min(rest.len()));
            peer.send(piece);
            rest = later;
        }
        eventually("all arrived", || server.stats().routes == 500);
        drop(peer);
        eventually("all withdrawn", || server.stats().routes == 0);
    }
}

#[test]
fn hundred_thousand_updates_in_one_write_arrive() {
    let server = server();
    let mut subscriber = Raw::established(server.local_addr());
    subscriber.send(&subscribe(7));
    subscriber.barrier();
    let mut announcer = Raw::established(server.local_addr());
    let count = 100_000;
    let bytes: Vec<u8> = (0..count).flat_map(|it| update(0, 7, it, 1)).collect();
    let writer = std::thread::spawn(move || {
        announcer.send(&bytes);
        announcer
    });
    let frames: Vec<Vec<u8>> = (0..count).map(|_| subscriber.frame()).collect();
    let mut table = BTreeSet::new();
    replay(&frames, &mut table);
    assert_eq!(table.len(), count as usize);
    drop(writer.join().unwrap());
    let frames: Vec<Vec<u8>> = (0..count).map(|_| subscriber.frame()).collect();
    replay(&frames, &mut table);
    assert!(table.is_empty(), "all withdrawn with their announcer");
}

#[test]
fn silent_connections_leave_room_for_a_peer() {
    let server = server();
    let silent: Vec<Raw> = (0..200)
        .map(|_| Raw::connect(server.local_addr()))
        .collect();
    eventually("all are accepted", || server.stats().sessions == 200);
    let mut peer = Raw::established(server.local_addr());
    assert!(peer.barrier().is_empty(), "served beside them");
    drop(silent);
    eventually("and let go", || server.stats().sessions == 1);
}

#[test]
fn unsubscribe_ends_the_flow_and_keeps_own_announcements() {
    let server = server();
    let [mut a, mut b] = [(); 2].map(|()| Raw::established(server.local_addr()));
    a.send(&subscribe(7));
    a.send(&update(0, 7, 1, 1));
    a.barrier();
    a.send(&[1, 0, 2, 4, 8, 7]);
    assert!(a.barrier().is_empty());
    b.send(&update(0, 7, 2, 2));
    b.send(&subscribe(7));
    let mut seen = b.barrier();
    while seen.is_empty() {
        seen.push(b.frame());
    }
    assert_eq!(seen[0], update(0, 7, 1, 1), "still announced");
    assert!(a.barrier().is_empty(), "nothing for who unsubscribed");
}

/// Eight peers, three VNIs, over real sockets.
#[test]
fn random_walk_ends_where_the_model_does() {
    let server = server();
    for seed in 0..5 {
        let mut walk = Walk::new(&server, seed);
        for _ in 0..3000 {
            walk.step();
        }
        walk.check();
    }
}

struct Walk<'a> {
    server: &'a MetalBondServer,
    random: fastrand::Rng,
    peers: Vec<Peer>,
    announced: BTreeMap<(u8, Vec<u8>), BTreeSet<usize>>,
}

struct Peer {
    raw: Raw,
    tables: BTreeMap<u8, BTreeSet<Vec<u8>>>,
}

impl<'a> Walk<'a> {
    fn new(server: &'a MetalBondServer, seed: u64) -> Self {
        let peer = |_| Peer {
            raw: Raw::established(server.local_addr()),
            tables: BTreeMap::new(),
        };
        Self {
            server,
            random: fastrand::Rng::with_seed(seed),
            peers: (0..8).map(peer).collect(),
            announced: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let at = self.random.usize(..self.peers.len());
        let vni = self.random.u8(1..=3);
        let peer = &mut self.peers[at];
        match self.random.u32(..100) {
            0..90 => {
                let (number, hop) = (self.random.u32(..30), self.random.u8(1..3));
                let action = self.random.u8(..2);
                peer.raw.send(&update(action, vni, number, hop));
                let announcers = self.announced.entry((vni, route(vni, number, hop)));
                if action == 0 {
                    announcers.or_default().insert(at);
                } else {
                    announcers.or_default().remove(&at);
                }
            }
            90..94 if !peer.tables.contains_key(&vni) => {
                peer.raw.send(&subscribe(vni));
                peer.tables.insert(vni, BTreeSet::new());
            }
            94..97 if peer.tables.contains_key(&vni) => {
                peer.raw.send(&[1, 0, 2, 4, 8, vni]);
                self.read(at);
                self.peers[at].tables.remove(&vni);
            }
            97 => {
                *peer = Peer {
                    raw: Raw::established(self.server.local_addr()),
                    tables: BTreeMap::new(),
                };
                for announcers in self.announced.values_mut() {
                    announcers.remove(&at);
                }
            }
            _ => self.read(at),
        }
    }

    /// Takes what has come so far.
    fn read(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        for frame in peer.raw.barrier() {
            let remove = usize::from(frame[4] == 8) * 2;
            let vni = frame[4 + remove + 1];
            let table = peer.tables.get_mut(&vni).expect("only what was asked for");
            replay(&[frame], table);
        }
    }

    fn check(&mut self) {
        for at in 0..self.peers.len() {
            let vnis: Vec<u8> = self.peers[at].tables.keys().copied().collect();
            for vni in vnis {
                let sees = |((of, route), announcers): (&(u8, Vec<u8>), &BTreeSet<usize>)| {
                    (*of == vni && announcers.iter().any(|it| *it != at)).then(|| route.clone())
                };
                let expected: BTreeSet<_> = self.announced.iter().filter_map(sees).collect();
                eventually("the table of the model", || {
                    self.read(at);
                    self.peers[at].tables[&vni] == expected
                });
            }
        }
    }
}

#[test]
fn subscriber_that_stops_reading_delays_nobody() {
    let config = ServerConfig {
        keepalive_interval: 60,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
    // They say nothing for as long as the test takes.
    let peer = || Raw::established_by(server.local_addr(), &[1, 0, 2, 1, 8, 60]);
    let [mut stuck, mut healthy] = [peer(), peer()];
    stuck.send(&subscribe(7));
    healthy.send(&subscribe(7));
    healthy.barrier();
    let mut announcer = peer();
    let count = 200_000;
    let bytes: Vec<u8> = (0..count).flat_map(|it| update(0, 7, it, 1)).collect();
    let writer = std::thread::spawn(move || announcer.stream.write_all(&bytes).map(|()| announcer));
    for _ in 0..count {
        healthy.frame();
    }
    let announcer = writer.join().unwrap().unwrap();
    assert!(
        server
            .peers()
            .unwrap()
            .iter()
            .any(|peer| peer.queued_bytes > 0)
    );
    // It reads at last, and has missed nothing.
    let mut table = BTreeSet::new();
    while table.len() < count as usize {
        replay(&[stuck.frame()], &mut table);
    }
    drop(announcer);
}
