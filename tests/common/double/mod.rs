//! A double of Go MetalBond in both roles, over real TCP, with blocking threads.
//!
//! It behaves as the Go program was seen to, and records as *faults* what would
//! have hurt that. It shares no code with the library.
//!
//! What a Go peer does; tests name these rows:
//!
//! 1. The server's HELLO has the smaller of the two intervals, and isServer.
//! 2. Only the dialling side sends KEEPALIVE by itself, the server answers each.
//!    Nothing but KEEPALIVE re-arms the timeout, two and a half intervals.
//! 3. KEEPALIVE in the wrong state ends the session; a second HELLO drops all the
//!    peer's subscriptions and routes.
//! 4. A server sends its own announcements to every client before its first
//!    KEEPALIVE, and in no table.
//! 5. A second SUBSCRIBE of a VNI freezes the server for ever.
//! 6. Each type of message takes a channel of its own; types overtake each other.
//! 7. UNSUBSCRIBE withdraws the sender's own announcements of the VNI.
//! 8. The initial table has no order, one UPDATE for each announcer, and the
//!    subscriber's own STANDARD and LB routes, not its NAT routes.
//! 9. An ADD is repeated for each further announcer; REMOVE goes out for the last
//!    one, and not to that one.
//! 10. Unknown fields are ignored.
//! 11. An unknown message type stops the reader.
//! 12. Any action but 1 is ADD; next hops of IPv4 and of unknown types are relayed.
//! 13. Ports are encoded for NAT only.
//! 14. A client comes back after seconds, and tells everything again.
//! 15. RustBond 0.1 loses what follows KEEPALIVE in a segment of the handshake, and
//!     closes at an IPv4 next hop or an unknown type.
//! 16. The command writes an announcement as `V#prefix#nexthop`, RustBond 0.1 with `@`.
//! 17. Keys in `/routes.json` are JSON in a string, those of YAML are in lower case.
#![allow(dead_code, reason = "every test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod server;
pub(crate) mod wire;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "as above")]
pub(crate) use client::Client;
#[allow(unused_imports, reason = "as above")]
pub(crate) use server::Server;
use wire::Message;

/// Waits until the state is no longer as `is_waited_for` says. Returns whether that was in time.
fn wait_while<'a, T>(
    (state, changed): (MutexGuard<'a, T>, &Condvar),
    patience: Duration,
    is_waited_for: impl Fn(&T) -> bool,
) -> (MutexGuard<'a, T>, bool) {
    let waited = changed.wait_timeout_while(state, patience, |state| is_waited_for(state));
    let (state, timeout) = waited.unwrap();
    (state, !timeout.timed_out())
}

/// How a double reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As Go does: one read, whole frames or nothing. A cut frame and a full buffer
    /// are faults, and end the connection.
    Strict,
    /// As strict, and takes so long for each route.
    Slow(Duration),
    /// As strict, and reads nothing for `time`, once, when it has had so many routes.
    Stalled { after: usize, time: Duration },
}

/// What went wrong, in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Vec<String>>>);

impl Faults {
    pub(crate) fn record(&self, fault: impl Into<String>) {
        self.0.lock().unwrap().push(fault.into());
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(*self.0.lock().unwrap(), Vec::<String>::new());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Go's buffer, and what it makes of what is read into it.
struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    reading: Reading,
    /// Routes so far.
    routes: usize,
    faults: Faults,
}

/// Why nothing was read.
enum Nothing {
    /// The moment has come.
    Due,
    /// The connection is over.
    Closed,
}

impl Reader {
    fn new(stream: TcpStream, reading: Reading, faults: Faults) -> Self {
        Self {
            stream,
            buffer: vec![0; 65_535],
            reading,
            routes: 0,
            faults,
        }
    }

    /// The frames of one read.
    fn read(&mut self, until: Instant) -> Result<Vec<Vec<u8>>, Nothing> {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Err(Nothing::Due);
        }
        self.stream.set_read_timeout(Some(wait)).unwrap();
        let count = match self.stream.read(&mut self.buffer) {
            Ok(0) => return Err(Nothing::Closed),
            Ok(count) => count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                    return Err(Nothing::Due);
                }
                _ => return Err(Nothing::Closed),
            },
        };
        if count == self.buffer.len() {
            self.faults.record("overrun");
            return Err(Nothing::Closed);
        }
        self.split(&self.buffer[..count])
    }

    fn split(&self, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Nothing> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            if bytes[0] != 1 {
                self.faults.record(format!("version {}", bytes[0]));
                return Err(Nothing::Closed);
            }
            let length = bytes.get(1..3).map(|it| [it[0], it[1]]);
            let length = length.map(|it| 4 + usize::from(u16::from_be_bytes(it)));
            let whole = length.and_then(|length| bytes.split_at_checked(length));
            let Some((frame, rest)) = whole else {
                self.faults.record("cut frame");
                return Err(Nothing::Closed);
            };
            frames.push(frame.to_vec());
            bytes = rest;
        }
        Ok(frames)
    }

    /// The messages of one read; what Go would not survive ends the connection.
    fn messages(&mut self, until: Instant) -> Result<Vec<Message>, Nothing> {
        let mut messages = Vec::new();
        for frame in self.read(until)? {
            if frame[3] == 1 && frame.len() > 256 {
                self.faults.record("a HELLO of more than one 256-byte read");
            }
            match Message::decode(&frame) {
                Ok(Message::Unknown(number)) => {
                    self.faults.record(format!("message type {number}"));
                    return Err(Nothing::Closed);
                }
                Ok(message) => messages.push(message),
                Err(fault) => {
                    self.faults.record(fault);
                    return Err(Nothing::Closed);
                }
            }
        }
        let is_route = |it: &&Message| matches!(it, Message::Update { .. });
        let count = messages.iter().filter(is_route).count();
        self.routes += count;
        // Meanwhile nothing is read: this is what the tests are about.
        match self.reading {
            Reading::Slow(each) => std::thread::sleep(each * u32::try_from(count).unwrap()),
            Reading::Stalled { after, time } if self.routes >= after => {
                self.reading = Reading::Strict;
                std::thread::sleep(time);
            }
            Reading::Strict | Reading::Stalled { .. } => {}
        }
        Ok(messages)
    }
}

#[test]
fn full_buffer_is_recorded_as_an_overrun() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener)
        .set_recv_buffer_size(200_000)
        .unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut sender, &[1, 0, 0, 2].repeat(20_000)).unwrap();
    let mut buffer = vec![0; 65_535];
    while stream.peek(&mut buffer).unwrap() < buffer.len() {
        std::thread::yield_now();
    }
    let faults = Faults::default();
    let mut reader = Reader::new(stream, Reading::Strict, faults.clone());
    let until = Instant::now() + Duration::from_secs(30);
    assert!(matches!(reader.messages(until), Err(Nothing::Closed)));
    assert_eq!(faults.take(), ["overrun"]);
}
