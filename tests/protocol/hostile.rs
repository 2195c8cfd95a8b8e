//! Hostile peers over real sockets: what each kind of input costs them, and that it costs
//! nobody else anything. The server is attacked by clients, and the client by servers.
//!
//! Promised is, for every case: a payload that is malformed is dropped and counted, and the
//! session goes on; what has no meaning in the stream ends the session, with the reason; all
//! else is taken as it came. A healthy pair exchanges routes through the same server, and the
//! same client, all the while. What clients do is done over TCP and over a Unix socket.
//!
//! Elsewhere: what breaks Go MetalBond (`quirks.rs`), floods and limits (`limits.rs`).

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fort::{Fort, Way};
use crate::siege::{Fate, fatal_anywhere, fatal_before_hello, frame, good, odd_hellos, payloads};
use crate::support::{
    self, HELLO, KEEPALIVE, PATIENCE, Raw, Recorder, eventually, hop, subscribe, v4,
};
use rustbond::inspect::{Inspect, PeerState, PeerStatus};
use rustbond::{ClientConfig, MetalBondClient, MetalBondServer, NoOpHandler, ServerConfig, Vni};

const VNI: Vni = Vni(7);

#[test]
fn meaningless_frames_from_a_client_end_its_session_with_a_reason() {
    Way::each(|way| {
        let mut fort = Fort::new(way, ServerConfig::default());
        for (name, bytes, reason) in fatal_before_hello() {
            let peer = fort.connect();
            fort.ends(peer, &format!("{name} before HELLO"), &bytes, &reason);
        }
        let out_of_place = |kind: u8| format!("message type {kind} out of place");
        for (kind, bytes) in [
            (1, HELLO.to_vec()),
            (3, subscribe(7).to_vec()),
            (4, frame(4, &[8, 7])),
            (5, frame(5, &good())),
            (160, frame(160, &[8, 7])),
        ] {
            let mut peer = fort.connect();
            peer.send(&HELLO);
            fort.ends(
                peer,
                "between HELLO and KEEPALIVE",
                &bytes,
                &out_of_place(kind),
            );
        }
        let established = fatal_anywhere().into_iter().chain([
            ("HELLO".into(), HELLO.to_vec(), out_of_place(1)),
            ("END_OF_RIB".into(), frame(160, &[8, 7]), out_of_place(160)),
        ]);
        for (name, bytes, reason) in established {
            let mut peer = fort.established();
            // What it announced goes with it.
            peer.send(&frame(5, &good()));
            peer.send(&subscribe(7));
            fort.ends(peer, &format!("{name} when established"), &bytes, &reason);
        }
        fort.stands();
    });
}

#[test]
fn malformed_payloads_from_a_client_are_dropped_and_the_rest_relayed() {
    Way::each(|way| {
        let fort = Fort::new(way, ServerConfig::default());
        let mut subscriber = fort.established();
        subscriber.send(&subscribe(7));
        subscriber.barrier();
        let mut peer = fort.established();
        let mut malformed = 0;
        for (name, payload, fate) in payloads() {
            peer.send(&frame(5, &payload));
            match fate {
                Fate::Dropped => malformed += 1,
                Fate::Relayed(expected) => {
                    assert_eq!(subscriber.frame(), frame(5, &expected), "{name}");
                    let withdrawn = [&[8, 1], &expected[..]].concat();
                    peer.send(&frame(5, &withdrawn));
                    assert_eq!(subscriber.frame(), frame(5, &withdrawn), "{name}");
                }
            }
            assert!(peer.barrier().is_empty(), "{name}: no echo");
            assert_eq!(fort.peer(&peer).malformed, malformed, "{name}");
        }
        // The other messages.
        for (kind, payload) in [(3, &[8][..]), (3, &[10, 1, 0]), (4, &[0xff; 12]), (3, &[7])] {
            peer.send(&frame(kind, payload));
            malformed += 1;
        }
        peer.send(&frame(2, &[0xff; 1188]));
        assert_eq!(
            peer.frame(),
            KEEPALIVE,
            "a KEEPALIVE's payload is nobody's business"
        );
        assert!(peer.barrier().is_empty());
        assert_eq!(fort.peer(&peer).malformed, malformed);
        assert!(
            subscriber.barrier().is_empty(),
            "nothing was heard of all that"
        );
        assert_eq!(fort.server.stats().malformed, malformed);
        assert_eq!(fort.server.stats().closed, 0);
        drop((peer, subscriber));
        fort.stands();
    });
}

#[test]
fn odd_hellos_from_clients_are_accepted() {
    Way::each(|way| {
        let fort = Fort::new(way, ServerConfig::default());
        for (name, hello) in odd_hellos() {
            let mut peer = fort.connect();
            peer.send(&hello);
            assert_eq!(peer.frame()[3], 1, "{name}");
            peer.send(&KEEPALIVE);
            assert_eq!(peer.frame(), KEEPALIVE, "{name}");
            let status = fort.peer(&peer);
            assert_eq!(status.state, PeerState::Established, "{name}");
            assert_eq!(status.keepalive_interval, 5, "{name}");
        }
        fort.stands();
    });
}

/// A byte now and then is no handshake, and a frame that never ends no sign of life for ever.
#[test]
fn clients_that_dribble_time_out() {
    Way::each(|way| {
        let mut fort = Fort::new(
            way,
            ServerConfig {
                // Long enough for the handshakes of the healthy.
                handshake_timeout: Duration::from_secs(1),
                keepalive_interval: 1,
                ..ServerConfig::default()
            },
        );
        // A HELLO of 1188 bytes would take half a minute at this pace.
        let endless = [&[1, 4, 0xa4, 1], &[9 << 3 | 2, 0xff, 0x7f][..]].concat();
        let mut peer = fort.connect();
        let session = peer.name.clone();
        let mut bytes = endless.into_iter().chain(std::iter::repeat(0));
        let deadline = Instant::now() + PATIENCE;
        while !fort
            .server
            .peers()
            .unwrap()
            .iter()
            .all(|it| it.name != session)
        {
            assert!(Instant::now() < deadline, "still there");
            drop(std::io::Write::write(
                &mut peer.stream,
                &[bytes.next().unwrap()],
            ));
            std::thread::sleep(Duration::from_millis(25));
        }
        assert_eq!(fort.reason(&session), "handshake timed out");
        // Half a frame, then silence.
        for (is_established, bytes, reason) in [
            (false, &HELLO[..5], "handshake timed out"),
            (true, &[1, 4, 0xa4, 5][..], "keepalive timed out"),
            (true, &[1][..], "keepalive timed out"),
        ] {
            let peer = if is_established {
                fort.established()
            } else {
                fort.connect()
            };
            fort.ends(peer, "half a frame", bytes, reason);
        }
        let mut peer = fort.connect();
        peer.send(&HELLO);
        fort.ends(peer, "HELLO alone", &KEEPALIVE[..3], "handshake timed out");
        fort.stands();
    });
}

#[test]
fn frame_that_arrives_in_parts_counts() {
    Way::each(|way| {
        let fort = Fort::new(way, ServerConfig::default());
        let mut peer = fort.established();
        for payload in [vec![0; 1188], vec![]] {
            let bytes = frame(5, &payload);
            peer.send(&bytes[..4]);
            fort.pair.goes_on();
            peer.send(&bytes[4..]);
            assert!(peer.barrier().is_empty());
        }
        assert_eq!(fort.peer(&peer).malformed, 2);
        drop(peer);
        fort.stands();
    });
}

/// Golden frames with a few bytes changed: whatever becomes of each session, it is that alone.
#[test]
fn random_bytes_hurt_nobody_else() {
    Way::each(|way| {
        let fort = Fort::new(way, ServerConfig::default());
        let mut random = fastrand::Rng::with_seed(8);
        let whole: Vec<u8> = [
            &HELLO[..],
            &KEEPALIVE,
            &subscribe(7),
            &frame(5, &good()),
            &frame(5, &good()),
            &KEEPALIVE,
        ]
        .concat();
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.insert(at, random.u8(..)),
                    _ => drop(bytes.remove(at)),
                }
            }
            // The server may have closed before all is written.
            drop(std::io::Write::write_all(
                &mut fort.connect().stream,
                &bytes,
            ));
        }
        fort.stands();
    });
}

/// Resets at every moment of a session's life, hundreds at once; 2,000 silent ones beside them.
#[test]
fn silent_connections_and_storms_of_resets_leave_nothing() {
    Way::each(|way| {
        let fort = Fort::new(
            way,
            ServerConfig {
                handshake_timeout: Duration::from_secs(2),
                ..ServerConfig::default()
            },
        );
        let silent: Vec<Raw> = (0..2000).map(|_| fort.connect()).collect();
        fort.pair.goes_on();
        let moments: [&[&[u8]]; 5] = [
            &[],
            &[&HELLO[..3]],
            &[&HELLO],
            &[&HELLO, &KEEPALIVE, &subscribe(7), &frame(5, &good())],
            &[&HELLO, &KEEPALIVE, &[1, 4, 0xa4, 5, 0, 0]],
        ];
        for _ in 0..4 {
            for moment in moments {
                let storm: Vec<Raw> = (0..50).map(|_| fort.connect()).collect();
                for mut peer in storm {
                    peer.send(&moment.concat());
                    let socket = socket2::Socket::from(peer.stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            fort.pair.goes_on();
        }
        fort.stands();
        drop(silent);
    });
}

/// A client of a good server and of a hostile one, which the test plays.
struct Traveller {
    client: MetalBondClient,
    inspector: Arc<dyn Inspect>,
    good_server: MetalBondServer,
    source: MetalBondClient,
    listener: TcpListener,
    recorder: Recorder,
    /// The client's latest connection to the hostile server.
    next: Option<Raw>,
    rounds: u32,
}

impl Traveller {
    fn new(handshake_timeout: Duration) -> Self {
        let good_server = MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Recorder::default();
        let config = ClientConfig {
            keepalive_interval: 1,
            handshake_timeout,
            retry_min: Duration::from_millis(5),
            retry_max: Duration::from_millis(10),
            settle_time: Duration::ZERO,
            ..ClientConfig::default()
        };
        let servers = [good_server.local_addr(), listener.local_addr().unwrap()];
        let servers = servers.map(|it| it.to_string());
        let client = MetalBondClient::start(&servers, recorder.clone(), config).unwrap();
        client.subscribe(VNI).unwrap();
        client.announce(VNI, v4(77), hop(77)).unwrap();
        Self {
            inspector: client.inspector(),
            source: support::client(&[good_server.local_addr()], NoOpHandler),
            client,
            good_server,
            listener,
            recorder,
            next: None,
            rounds: 0,
        }
    }

    fn accept(&mut self) -> Raw {
        let next = self.next.take();
        let mut raw = next.unwrap_or_else(|| Raw::accept(&self.listener));
        assert_eq!(raw.frame()[3], 1, "the client says HELLO");
        raw
    }

    /// A connection whose handshake is complete, and all of what the client says then.
    fn established(&mut self) -> Raw {
        let mut raw = self.accept();
        raw.send(&[1, 0, 4, 1, 8, 5, 16, 1]);
        assert_eq!(raw.frame(), KEEPALIVE);
        raw.send(&KEEPALIVE);
        raw
    }

    fn status(&self) -> PeerStatus {
        let name = self.listener.local_addr().unwrap().to_string();
        let mut peers = self.inspector.peers().unwrap().into_iter();
        peers.find(|it| it.name == name).unwrap()
    }

    /// Routes of the good server still come and go.
    #[track_caller]
    fn goes_on(&mut self) {
        let before = self.recorder.routes().len();
        self.rounds += 1;
        let route = v4(1000 + self.rounds);
        self.source.announce(VNI, route, hop(1)).unwrap();
        self.recorder.wait_for_len(before + 1);
        self.source.withdraw(VNI, route, hop(1)).unwrap();
        self.recorder.wait_for_len(before);
    }

    /// Sends bytes, after which the client must end the session for this reason.
    #[track_caller]
    fn ends(&mut self, mut raw: Raw, name: &str, bytes: &[u8], reason: &str) {
        raw.send(bytes);
        assert!(raw.closed_by_server(), "{name}: the client hangs up");
        // It comes back, and by then it knows why it went.
        self.next = Some(Raw::accept(&self.listener));
        assert_eq!(self.status().last_error.as_deref(), Some(reason), "{name}");
    }

    fn stands(mut self) {
        self.goes_on();
        assert_eq!(self.recorder.counts().0, self.recorder.counts().1);
        assert_eq!(self.good_server.stats().closed, 0);
        assert!(self.client.shutdown().is_ok());
    }
}

#[test]
fn meaningless_frames_from_a_server_end_its_session_with_a_reason() {
    let mut traveller = Traveller::new(Duration::from_secs(10));
    for (name, bytes, reason) in fatal_before_hello() {
        let raw = traveller.accept();
        traveller.ends(raw, &format!("{name} before HELLO"), &bytes, &reason);
    }
    traveller.goes_on();
    let out_of_place = |kind: u8| format!("message type {kind} out of place");
    let hello = [1, 0, 4, 1, 8, 5, 16, 1];
    for (kind, bytes) in [
        (1, hello.to_vec()),
        (3, subscribe(7).to_vec()),
        (4, frame(4, &[8, 7])),
        (160, frame(160, &[8, 7])),
    ] {
        let mut raw = traveller.accept();
        raw.send(&hello);
        traveller.ends(
            raw,
            "between HELLO and KEEPALIVE",
            &bytes,
            &out_of_place(kind),
        );
    }
    let established = fatal_anywhere().into_iter().chain([
        ("HELLO".into(), hello.to_vec(), out_of_place(1)),
        ("SUBSCRIBE".into(), subscribe(7).to_vec(), out_of_place(3)),
        ("UNSUBSCRIBE".into(), frame(4, &[8, 7]), out_of_place(4)),
        (
            "END_OF_RIB of who offers none".into(),
            frame(160, &[8, 7]),
            out_of_place(160),
        ),
    ]);
    for (name, bytes, reason) in established {
        let mut raw = traveller.established();
        raw.send(&frame(5, &good()));
        traveller.ends(raw, &format!("{name} when established"), &bytes, &reason);
    }
    // What the hostile server said goes once the good one, which is complete, does not say so.
    traveller.recorder.wait_for_len(0);
    traveller.stands();
}

#[test]
fn malformed_payloads_from_a_server_are_dropped_and_the_rest_counts() {
    let mut traveller = Traveller::new(Duration::from_secs(10));
    let mut raw = traveller.established();
    eventually("established", || {
        traveller.status().state == PeerState::Established
    });
    let mut malformed = 0;
    for (name, payload, fate) in payloads() {
        raw.send(&frame(5, &payload));
        match fate {
            Fate::Dropped => malformed += 1,
            Fate::Relayed(same) => {
                eventually(&name, || traveller.recorder.routes().len() == 1);
                // Once more is no news, and of what is withdrawn twice only the first.
                raw.send(&frame(5, &same));
                let withdrawn = frame(5, &[&[8, 1], &same[..]].concat());
                raw.send(&[withdrawn.clone(), withdrawn].concat());
                eventually(&name, || traveller.recorder.routes().is_empty());
            }
        }
        // A client asks now and then; this one is a server that answers before it is asked.
        raw.send(&KEEPALIVE);
        eventually(&name, || traveller.status().malformed == malformed);
    }
    assert_eq!(traveller.status().state, PeerState::Established);
    // Of a VNI that nobody asked for.
    let foreign = [&[16, 8][..], &good()[2..]].concat();
    raw.send(&frame(5, &foreign));
    traveller.goes_on();
    assert_eq!(
        traveller.inspector.snapshot(None).unwrap().entries().len(),
        0
    );
    assert_eq!(traveller.status().malformed, malformed);
    assert_eq!(traveller.status().flaps, 0);
    traveller.stands();
}

#[test]
fn odd_hellos_from_servers_are_accepted() {
    let mut traveller = Traveller::new(Duration::from_secs(10));
    for (name, hello) in odd_hellos() {
        let mut raw = traveller.accept();
        raw.send(&hello);
        assert_eq!(raw.frame(), KEEPALIVE, "{name}");
        raw.send(&KEEPALIVE);
        eventually(name, || traveller.status().state == PeerState::Established);
        assert_eq!(traveller.status().keepalive_interval, 1, "{name}");
    }
    traveller.stands();
}

#[test]
fn servers_that_dribble_hang_or_reset_are_left() {
    let mut traveller = Traveller::new(Duration::from_secs(1));
    let raw = traveller.accept();
    traveller.ends(raw, "silence", &[], "handshake timed out");
    let raw = traveller.accept();
    traveller.ends(raw, "half a HELLO", &[1, 0, 4, 1, 8], "handshake timed out");
    let raw = traveller.established();
    traveller.ends(
        raw,
        "half an UPDATE",
        &[1, 4, 0xa4, 5, 0],
        "keepalive timed out",
    );
    for moment in [&[][..], &[1, 0, 4], &[1, 0, 4, 1, 8, 5, 16, 1, 1, 0]].repeat(10) {
        let mut raw = traveller.accept();
        raw.send(moment);
        let socket = socket2::Socket::from(raw.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    traveller.goes_on();
    traveller.stands();
}
