//! A whole fabric on one server: 100,000 VNIs, 10,000 sessions, 1,000,000 subscriptions and
//! 2,000,000 routes; then a third of the sessions leave.
//!
//! Session `s` announces and subscribes in 100 VNIs from `10 s` on, so that ten sessions meet in
//! each VNI. One thread has all of them: it counts frames, and looks at nothing else.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::healthy::Healthy;
use crate::process::Process;
use crate::wire::{KEEPALIVE, hello, subscribe, update};

/// Full numbers; the size divides them.
const SESSIONS: u32 = 10_000;
const VNIS_OF_SESSION: u32 = 100;
const SESSIONS_OF_VNI: u32 = 10;
/// Routes of a session in a VNI.
const ROUTES: u32 = 2;

/// Nothing may take longer on any machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// Well within the hold time.
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(30);

/// A session: how far it is in what it sends and reads.
struct Conn {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    header: [u8; 4],
    /// Bytes of the header that are read.
    have: usize,
    /// Bytes of the payload to come.
    skip: usize,
}

impl Conn {
    fn write(&mut self) {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Not connected yet.
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(error) => panic!("a session cannot send: {error}"),
            }
        }
        self.out = Vec::new();
        self.sent = 0;
    }

    fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.write();
    }

    /// Reads all there is, and counts frames.
    fn read(&mut self, buffer: &mut [u8], heard: &mut Heard) {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => panic!("the server has closed a session"),
                Ok(count) => self.count(&buffer[..count], heard),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(error) => panic!("a session cannot read: {error}"),
            }
        }
    }

    fn count(&mut self, mut bytes: &[u8], heard: &mut Heard) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (4 - self.have).min(bytes.len());
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == 4 {
                self.have = 0;
                self.skip = u16::from_be_bytes([self.header[1], self.header[2]]).into();
                heard.updates += u64::from(self.header[3] == 5);
                heard.keepalives += u64::from(self.header[3] == KEEPALIVE[3]);
            }
        }
    }
}

/// What all sessions have heard.
#[derive(Default)]
struct Heard {
    updates: u64,
    keepalives: u64,
}

struct Fabric {
    poll: Poll,
    conns: Vec<Option<Conn>>,
    heard: Heard,
    buffer: Vec<u8>,
    last_keepalives: Instant,
}

impl Fabric {
    fn connect(server: SocketAddr, sessions: u32) -> Self {
        let poll = Poll::new().unwrap();
        let mut fabric = Self {
            poll,
            conns: Vec::new(),
            heard: Heard::default(),
            buffer: vec![0; 256 * 1024],
            last_keepalives: Instant::now(),
        };
        // Not more at once than a listener's backlog has room for.
        for first in (0..sessions).step_by(100) {
            let last = sessions.min(first + 100);
            for _ in first..last {
                let mut stream = TcpStream::connect(server).unwrap();
                let token = Token(fabric.conns.len());
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registry = fabric.poll.registry();
                registry.register(&mut stream, token, interest).unwrap();
                fabric.conns.push(Some(Conn {
                    stream,
                    out: [&hello()[..], &KEEPALIVE].concat(),
                    sent: 0,
                    header: [0; 4],
                    have: 0,
                    skip: 0,
                }));
            }
            fabric.run(|heard| heard.keepalives >= u64::from(last));
        }
        fabric
    }

    /// Reads and writes until `is_there`.
    fn run(&mut self, is_there: impl Fn(&Heard) -> bool) {
        let mut events = Events::with_capacity(1024);
        while !is_there(&self.heard) {
            self.poll
                .poll(&mut events, Some(Duration::from_millis(100)))
                .unwrap();
            for event in &events {
                let Some(conn) = &mut self.conns[event.token().0] else {
                    continue;
                };
                if event.is_writable() {
                    conn.write();
                }
                if event.is_readable() {
                    conn.read(&mut self.buffer, &mut self.heard);
                }
            }
            if self.last_keepalives.elapsed() > KEEPALIVE_PAUSE {
                self.last_keepalives = Instant::now();
                let conns = self.conns.iter_mut().flatten();
                conns.for_each(|it| it.send(&KEEPALIVE));
            }
        }
    }
}

/// The VNIs of a session.
fn vnis(session: u32, sessions: u32) -> impl Iterator<Item = u32> {
    let all = sessions * VNIS_OF_SESSION / SESSIONS_OF_VNI;
    let step = VNIS_OF_SESSION / SESSIONS_OF_VNI;
    (0..VNIS_OF_SESSION).map(move |it| (session * step + it) % all)
}

/// Whether a session is of the third that leaves.
fn leaves(session: u32) -> bool {
    session.is_multiple_of(3)
}

/// What the sessions that stay hear when the others leave.
fn withdrawals(sessions: u32) -> u64 {
    let mut leavers = vec![0_u64; (sessions * VNIS_OF_SESSION / SESSIONS_OF_VNI) as usize];
    for session in (0..sessions).filter(|it| leaves(*it)) {
        vnis(session, sessions).for_each(|vni| leavers[vni as usize] += 1);
    }
    let staying = (0..sessions).filter(|it| !leaves(*it));
    let heard = staying.flat_map(|it| vnis(it, sessions));
    heard.map(|vni| leavers[vni as usize]).sum::<u64>() * u64::from(ROUTES)
}

pub(crate) fn run(divisor: u32) {
    let sessions = SESSIONS / divisor;
    let http = crate::free_address();
    let http_text = http.to_string();
    let mut arguments = vec!["--workers", "2", "--http", &http_text, "--keepalive", "60"];
    arguments.extend(crate::MANY);
    let server = Process::server(&arguments);
    let _in_time = crate::within(PATIENCE, server.id());
    let healthy = Healthy::start(server.address);
    std::thread::sleep(crate::QUIET);
    let quiet = healthy.take_worst();

    let begin = Instant::now();
    let mut fabric = Fabric::connect(server.address, sessions);
    let connected = begin.elapsed();
    let begin = Instant::now();
    let all = (0..sessions).zip(fabric.conns.iter_mut().flatten());
    for (session, conn) in all {
        let mut bytes: Vec<u8> = vnis(session, sessions).flat_map(subscribe).collect();
        for vni in vnis(session, sessions) {
            for route in 0..ROUTES {
                bytes.extend(update(false, vni, session * ROUTES + route));
            }
        }
        conn.send(&bytes);
    }
    let others = u64::from((SESSIONS_OF_VNI - 1) * VNIS_OF_SESSION * ROUTES);
    let all = u64::from(sessions) * others;
    fabric.run(|heard| heard.updates >= all);
    let loaded = begin.elapsed();
    let worst_load = healthy.take_worst();
    println!(
        "{sessions} sessions, {} VNIs, {} subscriptions, {} routes:",
        sessions * VNIS_OF_SESSION / SESSIONS_OF_VNI,
        sessions * VNIS_OF_SESSION,
        sessions * VNIS_OF_SESSION * ROUTES
    );
    println!(
        "  connected in {:.1} s; all {all} routes told in {:.1} s, {:.2} M deliveries/s",
        connected.as_secs_f64(),
        loaded.as_secs_f64(),
        all as f64 / loaded.as_secs_f64() / 1e6
    );
    report_memory(&server, http);

    let begin = Instant::now();
    for session in (0..sessions).filter(|it| leaves(*it)) {
        fabric.conns[session as usize] = None;
    }
    let all = all + withdrawals(sessions);
    fabric.run(|heard| heard.updates >= all);
    let left = begin.elapsed();
    let (worst_leave, closed) = healthy.stop();
    println!(
        "  a third left: all withdrawals told in {:.1} s",
        left.as_secs_f64()
    );
    let ms = |it: Duration| it.as_secs_f64() * 1e3;
    println!(
        "  worst answer: quiet {:.1} ms, while loading {:.1} ms, while a third left {:.1} ms; {closed} healthy \
         sessions closed",
        ms(quiet),
        ms(worst_load),
        ms(worst_leave)
    );
    report_memory(&server, http);
    assert_eq!(closed, 0);
}

/// Prints the account by kind beside what the process has.
fn report_memory(server: &Process, http: SocketAddr) {
    let mut stream = std::net::TcpStream::connect(http).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
    let name = "metalbond_server_memory_bytes{";
    let (mut kinds, mut sum) = (String::new(), 0.0);
    for line in text.lines().filter_map(|it| it.strip_prefix(name)) {
        let (kind, bytes) = line.split_once("} ").unwrap();
        let bytes: f64 = bytes.parse().unwrap();
        sum += bytes;
        kinds += &format!(" {kind} {:.0},", mib(bytes));
    }
    println!(
        "  memory in MiB:{kinds} account {:.0}; resident {:.0}, at most {:.0}",
        mib(sum),
        mib(server.resident() as f64),
        server.peak_mib()
    );
}
