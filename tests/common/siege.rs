//! What hostile peers send, and a healthy pair that must not notice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustbond::{MetalBondClient, NoOpHandler, Vni};

use crate::support::{HELLO, KEEPALIVE, Recorder, client, eventually, hop, subscribe, v4};

/// Where the healthy pair has its routes; hostile peers have theirs in VNI 7.
const HEALTHY: Vni = Vni(3);

/// Two clients of a server: one announces and withdraws all the time, the other must hear of
/// each change.
pub(crate) struct Pair {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    _clients: [MetalBondClient; 2],
}

impl Pair {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let recorder = Recorder::default();
        let listener = client(&[server], recorder.clone());
        listener.subscribe(HEALTHY).unwrap();
        let announcer = client(&[server], NoOpHandler);
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (stop, rounds, announcer) = (stop.clone(), rounds.clone(), announcer.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    announcer.announce(HEALTHY, v4(1), hop(1)).unwrap();
                    recorder.wait_for_len(1);
                    announcer.withdraw(HEALTHY, v4(1), hop(1)).unwrap();
                    recorder.wait_for_len(0);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let pair = Self {
            stop,
            rounds,
            thread: Some(thread),
            _clients: [listener, announcer],
        };
        pair.goes_on();
        pair
    }

    /// Waits until routes have gone forth and back once more, from the beginning on.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually("the healthy pair exchanges routes", || {
            self.rounds.load(Ordering::Relaxed) >= before + 2
        });
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok());
    }
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(value.len() as u64), value].concat()
}

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    header(1, u16::try_from(payload.len()).unwrap(), kind)
        .into_iter()
        .chain(payload.iter().copied())
        .collect()
}

fn header(version: u8, length: u16, kind: u8) -> [u8; 4] {
    let [high, low] = length.to_be_bytes();
    [version, high, low, kind]
}

const HOP: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn destination(family: u64, prefix: &[u8], length: u64) -> Vec<u8> {
    let family = if family == 0 {
        vec![]
    } else {
        number(1, family)
    };
    bytes(3, &[family, bytes(2, prefix), number(3, length)].concat())
}

fn next_hop(address: &[u8], more: &[u8]) -> Vec<u8> {
    bytes(4, &[&bytes(1, address), more].concat())
}

/// An UPDATE's payload for VNI 7.
fn update(destination: &[u8], next_hop: &[u8]) -> Vec<u8> {
    [&number(2, 7), destination, next_hop].concat()
}

/// An ordinary one, as others encode it too.
pub(crate) fn good() -> Vec<u8> {
    update(&destination(0, &[10, 9, 9, 9], 32), &next_hop(&HOP, &[]))
}

/// What becomes of an UPDATE.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is counted as malformed, and nothing else happens.
    Dropped,
    /// It is taken, and passed on with this payload.
    Relayed(Vec<u8>),
}

/// Groups so deep, one in the other, that an unknown field 9 begins.
fn groups(depth: usize) -> Vec<u8> {
    [[9 << 3 | 3].repeat(depth), [9 << 3 | 4].repeat(depth)].concat()
}

/// UPDATE payloads that are not what this implementation would send.
#[allow(clippy::too_many_lines, reason = "a list")]
pub(crate) fn payloads() -> Vec<(String, Vec<u8>, Fate)> {
    let mut all = Vec::new();
    let v4 = destination(0, &[10, 9, 9, 9], 32);
    let hop = next_hop(&HOP, &[]);
    let mut drop = |name: &str, payload: Vec<u8>| all.push((name.into(), payload, Fate::Dropped));

    // Every field is there, so that every kind of field is cut somewhere.
    let ports = [
        number(2, 300),
        number(3, 1),
        number(4, 1024),
        number(5, 2047),
    ]
    .concat();
    let v6 = destination(1, &HOP, 128);
    let full = update(&v6, &next_hop(&HOP, &ports));
    for cut in 0..full.len() {
        drop(&format!("cut after {cut} bytes"), full[..cut].to_vec());
    }
    for size in [0, 3, 5, 15, 17] {
        for (family, length) in [(0, 8), (1, 8)] {
            let wrong = update(&destination(family, &vec![1; size], length), &hop);
            drop(&format!("family {family}, prefix of {size} bytes"), wrong);
        }
        let wrong = update(&v4, &next_hop(&vec![1; size], &[]));
        drop(&format!("next hop of {size} bytes"), wrong);
    }
    drop("IPv4 in 16 bytes", update(&destination(0, &HOP, 32), &hop));
    drop(
        "IPv6 in 4 bytes",
        update(&destination(1, &[10; 4], 32), &hop),
    );
    drop(
        "a third family",
        update(&destination(2, &[10; 4], 32), &hop),
    );
    for length in [33, 129, 256, u64::from(u32::MAX)] {
        let wrong = update(&destination(0, &[10; 4], length), &hop);
        drop(&format!("10.10.10.10/{length}"), wrong);
        if length != 33 {
            let wrong = update(&destination(1, &HOP, length), &hop);
            drop(&format!("2001:db8::9/{length}"), wrong);
        }
    }
    for field in [4, 5] {
        let wrong = next_hop(&HOP, &[number(3, 1), number(field, 65_536)].concat());
        drop("a port past 65535", update(&v4, &wrong));
    }
    drop("no destination", update(&[], &hop));
    drop("no next hop", update(&v4, &[]));
    drop("an endless varint", [good(), vec![0xff; 64]].concat());
    drop(
        "a varint of 11 bytes",
        [&[8], &[0x80; 10][..], &[1], &good()].concat(),
    );
    drop(
        "a length of 2^64-1",
        [vec![9 << 3 | 2], varint(u64::MAX), good()].concat(),
    );
    drop(
        "a length past the end",
        [good(), vec![9 << 3 | 2, 100]].concat(),
    );
    drop("field 0", [good(), vec![0, 0]].concat());
    drop("wire type 6", [good(), vec![9 << 3 | 6]].concat());
    drop("wire type 7", [good(), vec![9 << 3 | 7]].concat());
    drop("a group's end", [good(), vec![9 << 3 | 4]].concat());
    drop("a group without end", [good(), vec![9 << 3 | 3]].concat());
    drop("500 groups deep", [good(), groups(500)].concat());
    drop("500 messages deep", {
        // Of the destination's own number: each seems to hold the next.
        (0..500).fold(Vec::new(), |inner, _| {
            if inner.len() < 1100 {
                bytes(3, &inner)
            } else {
                inner
            }
        })
    });
    for (name, wrong) in [
        ("the action", bytes(1, b"x")),
        ("the VNI", bytes(2, b"x")),
        ("the destination", number(3, 1)),
        ("the next hop", [vec![4 << 3 | 5], vec![0; 4]].concat()),
        ("the family", bytes(3, &bytes(1, b"x"))),
        ("the prefix", bytes(3, &number(2, 1))),
        ("the length", bytes(3, &bytes(3, b"x"))),
        ("the address", bytes(4, &number(1, 1))),
        ("a port", bytes(4, &[vec![4 << 3 | 1], vec![0; 8]].concat())),
    ] {
        drop(&format!("{name} of a wrong type"), [good(), wrong].concat());
    }

    let mut relay = |name: &str, payload: Vec<u8>, as_it_is: Vec<u8>| {
        all.push((name.into(), payload, Fate::Relayed(as_it_is)));
    };
    let unknown = [number(6, 5), bytes(2000, b"?"), vec![9 << 3 | 1; 9]].concat();
    relay("unknown fields", [unknown, good()].concat(), good());
    relay("groups 99 deep", [groups(99), good()].concat(), good());
    relay("all twice", [good(), good()].concat(), good());
    relay("an action of 5", [number(1, 5), good()].concat(), good());
    relay(
        "the last VNI counts",
        [number(2, 99), good()].concat(),
        good(),
    );
    let halves = [
        &number(2, 7)[..],
        &bytes(3, &bytes(2, &[10, 9, 9, 9])),
        &bytes(4, &bytes(1, &[1; 4])),
        &bytes(3, &number(3, 32)),
        &bytes(4, &bytes(1, &HOP)),
    ];
    relay("messages in pieces", halves.concat(), good());
    let long = [vec![2 << 3, 0x87, 0x80, 0x80, 0], v4.clone(), hop.clone()].concat();
    relay("a varint longer than needed", long, good());
    let mut padded = good();
    let rest = 1188 - padded.len() - 4;
    padded.extend(bytes(100, &vec![0xaa; rest]));
    assert_eq!(padded.len(), 1188);
    relay("1188 bytes", padded, good());
    let inverted = [number(3, 1), number(4, 2000), number(5, 1000)].concat();
    let inverted = update(&v4, &next_hop(&HOP, &inverted));
    relay("ports inverted", inverted.clone(), inverted);
    let strange = update(&v4, &next_hop(&[192, 0, 2, 1], &number(3, 77)));
    relay("an unknown type over IPv4", strange.clone(), strange);
    let all_ports = [number(3, 1), number(5, 65_535)].concat();
    let all_ports = update(&v4, &next_hop(&HOP, &all_ports));
    relay("all ports", all_ports.clone(), all_ports);
    all
}

/// What ends a session, whatever has been said before, and the reason.
pub(crate) fn fatal_anywhere() -> Vec<(String, Vec<u8>, String)> {
    let mut all = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>, reason: String| all.push((name, bytes, reason));
    for version in [0, 2, 255] {
        let reason = format!("protocol version {version} instead of 1");
        add(
            format!("version {version}"),
            header(version, 0, 2).into(),
            reason.clone(),
        );
        add(format!("version {version} alone"), vec![version], reason);
    }
    for kind in [0, 6, 159, 255] {
        let reason = format!("unknown message type {kind}");
        add(
            format!("type {kind}"),
            header(1, 0, kind).into(),
            reason.clone(),
        );
        let with_body = frame(kind, &[0; 100]);
        add(format!("type {kind} with a body"), with_body, reason);
    }
    for length in [1189_u16, 65_535] {
        let reason = format!("payload of {length} bytes, 1188 allowed");
        for kind in [1, 2, 5] {
            let alone = header(1, length, kind).to_vec();
            let with_body = [alone.clone(), vec![0; length.into()]].concat();
            add(
                format!("type {kind}, length {length}"),
                alone,
                reason.clone(),
            );
            add(
                format!("type {kind}, length {length} with a body"),
                with_body,
                reason.clone(),
            );
        }
    }
    let greetings: [(&str, &[u8]); 6] = [
        (
            "HTTP request",
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        ),
        ("HTTP answer", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("TLS hello", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("TLS alert", &[0x15, 3, 3, 0, 2, 2, 40]),
        ("SSH banner", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("BGP marker", &[0xff; 29]),
    ];
    for (name, bytes) in greetings {
        let reason = format!("protocol version {} instead of 1", bytes[0]);
        add(name.into(), bytes.into(), reason);
    }
    all
}

/// What ends a session whose HELLO has not come, and the reason.
pub(crate) fn fatal_before_hello() -> Vec<(String, Vec<u8>, String)> {
    let mut all = fatal_anywhere();
    let mut add = |name: &str, bytes: Vec<u8>, reason: &str| {
        all.push((name.into(), bytes, reason.into()));
    };
    let early: [(u8, Vec<u8>); 5] = [
        (2, KEEPALIVE.to_vec()),
        (3, subscribe(7).to_vec()),
        (4, frame(4, &number(1, 7))),
        (5, frame(5, &good())),
        (160, frame(160, &number(1, 7))),
    ];
    for (kind, bytes) in early {
        add(
            "too early",
            bytes,
            &format!("message type {kind} out of place"),
        );
    }
    add("no interval", frame(1, &[]), "keepalive interval 0");
    add(
        "interval 0",
        frame(1, &number(1, 0)),
        "keepalive interval 0",
    );
    let unreadable: [&[u8]; 8] = [
        &[8],
        &[8, 0x80],
        &[0xff; 20],
        &bytes(1, b"x"),
        &[8, 5, 0xc2, 0x3e, 5, 1],
        &[[8, 5].to_vec(), number(1000, 1)].concat(),
        &[[8, 5].to_vec(), bytes(1000, &bytes(1, b"x"))].concat(),
        &[[8, 5].to_vec(), groups(500)].concat(),
    ];
    for payload in unreadable {
        add("a broken HELLO", frame(1, payload), "unreadable HELLO");
    }
    all
}

/// HELLOs that are odd, and good enough.
pub(crate) fn odd_hellos() -> Vec<(&'static str, Vec<u8>)> {
    let with = |more: &[u8]| frame(1, &[&HELLO[4..], more].concat());
    vec![
        (
            "unknown fields",
            with(&[number(7, 1), bytes(99, b"?")].concat()),
        ),
        ("fields twice", with(&HELLO[4..])),
        (
            "an interval of 2^32-1",
            frame(1, &number(1, u32::MAX.into())),
        ),
        ("1188 bytes", with(&bytes(99, &[0; 1188 - 2 - 4]))),
        (
            "extensions of another version",
            with(&bytes(1000, &number(1, 0))),
        ),
        (
            "a node id of 3 bytes",
            with(&bytes(1000, &[number(1, 1), bytes(3, b"abc")].concat())),
        ),
        (
            "all capabilities",
            with(&bytes(1000, &[number(1, 9), number(2, u64::MAX)].concat())),
        ),
        ("a server's", with(&number(2, 1))),
    ]
}
