//! Peers that speak bytes: they keep nothing but their tables, so that the server is what works.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};

use crate::route::{CALM, Fingerprints, fingerprint, identity};
use crate::{ROUTES, VNIS};

/// Keepalive 120 s: the rounds between two KEEPALIVEs may take long on a busy machine.
const LEGACY_HELLO: [u8; 6] = [1, 0, 2, 1, 8, 120];
/// The same with the capability of reading a stream.
const STREAM_HELLO: [u8; 13] = [1, 0, 9, 1, 8, 120, 0xc2, 0x3e, 4, 8, 1, 0x10, 1];
const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

/// A session that is established, from an address of this host.
fn established(address: SocketAddr, from: Ipv4Addr, hello: &[u8]) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&address.into())?;
        Ok(TcpStream::from(socket))
    };
    let connected: std::io::Result<TcpStream> = connect();
    let mut stream = connected.expect("the server accepts");
    stream.set_nodelay(true).expect("a socket has this option");
    let mut talk = || {
        stream.write_all(hello)?;
        stream.write_all(&KEEPALIVE)?;
        for _ in 0..2 {
            let mut header = [0; 4];
            stream.read_exact(&mut header)?;
            stream.read_exact(&mut vec![0; usize::from(header[2])])?;
        }
        Ok(())
    };
    let done: std::io::Result<()> = talk();
    done.expect("the server shakes hands");
    stream
}

/// Announces at every server alike.
pub(crate) struct Announcer {
    streams: Vec<TcpStream>,
    /// By VNI and number.
    has: HashSet<(u8, u32)>,
    pub(crate) hop: u8,
}

impl Announcer {
    pub(crate) fn new(servers: &[SocketAddr], hop: u8) -> Self {
        let connect =
            |address: &SocketAddr| established(*address, Ipv4Addr::LOCALHOST, &LEGACY_HELLO);
        Self {
            streams: servers.iter().map(connect).collect(),
            has: HashSet::new(),
            hop,
        }
    }

    /// How many routes it announces.
    pub(crate) fn len(&self) -> usize {
        self.has.len()
    }

    /// Turns some routes around; what that does to the fingerprints.
    pub(crate) fn churn(&mut self, random: &mut fastrand::Rng, count: usize) -> Fingerprints {
        let mut bytes = KEEPALIVE.to_vec();
        let mut difference = Fingerprints::default();
        for _ in 0..count {
            let vni = match random.u8(..40) {
                0 => CALM,
                _ => random.u8(CALM + 1..=VNIS),
            };
            let number = random.u32(..ROUTES);
            let identity = identity(vni, number, self.hop);
            difference.turn(vni, fingerprint(&identity));
            let len = u8::try_from(identity.len()).expect("it is short");
            if self.has.remove(&(vni, number)) {
                bytes.extend([1, 0, len + 2, 5, 8, 1]);
            } else {
                self.has.insert((vni, number));
                bytes.extend([1, 0, len, 5]);
            }
            bytes.extend(identity);
        }
        for stream in &mut self.streams {
            stream.write_all(&bytes).expect("the server reads");
        }
        for stream in &mut self.streams {
            // One answer for each KEEPALIVE; they must not fill the socket.
            let answer = stream.read_exact(&mut [0; 4]);
            answer.expect("the server answers");
        }
        difference
    }

    /// Comes back to a server that was restarted, and tells it everything.
    pub(crate) fn renew(&mut self, server: usize, address: SocketAddr) {
        let mut stream = established(address, Ipv4Addr::LOCALHOST, &LEGACY_HELLO);
        let mut bytes = Vec::new();
        for (vni, number) in &self.has {
            let identity = identity(*vni, *number, self.hop);
            let len = u8::try_from(identity.len()).expect("it is short");
            bytes.extend([1, 0, len, 5]);
            bytes.extend(identity);
        }
        stream.write_all(&bytes).expect("the server reads");
        self.streams[server] = stream;
    }

    /// Of all that it announces.
    pub(crate) fn fingerprints(&self) -> Fingerprints {
        let mut sum = Fingerprints::default();
        for (vni, number) in &self.has {
            sum.turn(*vni, fingerprint(&identity(*vni, *number, self.hop)));
        }
        sum
    }
}

/// A subscriber that keeps a fingerprint of its table, on a thread of its own.
pub(crate) struct Subscriber {
    stream: TcpStream,
    state: Arc<State>,
    thread: JoinHandle<()>,
    is_legacy: bool,
}

#[derive(Default)]
struct State {
    fingerprint: AtomicU64,
    updates: AtomicU64,
    is_leaving: AtomicBool,
    /// Updates that were no news, and an end that nobody asked for.
    faults: AtomicU64,
}

impl Subscriber {
    /// Of all VNIs, or as a legacy peer of the calm one; each from an address of its own, as
    /// hypervisors have, because the server remembers which legacy peers had trouble.
    pub(crate) fn new(address: SocketAddr, is_legacy: bool, number: u16) -> Self {
        let (hello, vnis): (&[u8], _) = match is_legacy {
            true => (&LEGACY_HELLO, CALM..=CALM),
            false => (&STREAM_HELLO, 1..=VNIS),
        };
        let [high, low] = number.to_be_bytes();
        let from = Ipv4Addr::new(127, 1, high, low);
        let mut stream = established(address, from, hello);
        for vni in vnis {
            let subscribed = stream.write_all(&[1, 0, 2, 3, 8, vni]);
            subscribed.expect("the server reads");
        }
        let reader = stream.try_clone().expect("a descriptor is left");
        let state = Arc::<State>::default();
        let its_state = Arc::clone(&state);
        let thread = std::thread::spawn(move || read(reader, &its_state));
        Self {
            stream,
            state,
            thread,
            is_legacy,
        }
    }

    /// Whether it has what it is to have of all these routes.
    pub(crate) fn agrees(&self, with: Fingerprints) -> bool {
        let expected = if self.is_legacy { with.calm } else { with.all };
        self.state.fingerprint.load(Ordering::SeqCst) == expected
    }

    pub(crate) fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }

    pub(crate) fn updates(&self) -> u64 {
        self.state.updates.load(Ordering::SeqCst)
    }

    pub(crate) fn keep_alive(&mut self) {
        // That the session ended shows as a fault.
        drop(self.stream.write_all(&KEEPALIVE));
    }

    /// Ends the session; how many updates came.
    pub(crate) fn leave(self) -> u64 {
        self.state.is_leaving.store(true, Ordering::SeqCst);
        // It may have ended before, which its thread has counted.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
        self.thread.join().expect("the reader does not panic");
        self.state.updates.load(Ordering::SeqCst)
    }
}

/// Reads until the end; checks that every message is news.
fn read(mut stream: TcpStream, state: &State) {
    let mut table = HashSet::new();
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..count]);
        let mut rest = buffer.as_slice();
        let mut seen = 0;
        while let Some(frame) = rest
            .get(..4)
            .and_then(|it| rest.get(..4 + usize::from(it[2])))
        {
            rest = &rest[frame.len()..];
            if frame[3] != 5 {
                continue;
            }
            let (is_remove, identity) = match frame[4..] {
                [8, 1, ref identity @ ..] => (true, identity),
                ref identity => (false, identity),
            };
            let fingerprint = fingerprint(identity);
            let is_news = if is_remove {
                table.remove(&fingerprint)
            } else {
                table.insert(fingerprint)
            };
            state
                .faults
                .fetch_add(u64::from(!is_news), Ordering::SeqCst);
            state.fingerprint.fetch_xor(fingerprint, Ordering::SeqCst);
            seen += 1;
        }
        state.updates.fetch_add(seen, Ordering::SeqCst);
        let taken = buffer.len() - rest.len();
        buffer.drain(..taken);
    }
    if !state.is_leaving.load(Ordering::SeqCst) {
        state.faults.fetch_add(1, Ordering::SeqCst);
    }
}
