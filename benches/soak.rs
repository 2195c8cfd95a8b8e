//! Random churn near full speed: `cargo bench --bench soak [-- MINUTES]`, one by default.
//!
//! Every second the churn rests until every subscriber's table equals the model's;
//! then memory and descriptors of the server are read. A leak shows as a slope.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking, and prints"
)]

#[path = "fanout/process.rs"]
mod process;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use process::Process;

const ANNOUNCERS: u8 = 8;
const SUBSCRIBERS: usize = 8;
const VNIS: u8 = 4;
/// Routes that an announcer has or has not, in each VNI.
const ROUTES: u32 = 5000;

/// Keepalive 120 s: the rounds between two KEEPALIVEs may take long on a busy machine.
const HELLO: [u8; 6] = [1, 0, 2, 1, 8, 120];
const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

/// What follows the action in an UPDATE: the identity of a route.
fn identity(vni: u8, number: u32, hop: u8) -> Vec<u8> {
    let mut bytes = vec![0x10, vni, 0x1a, 8, 0x12, 4];
    bytes.extend((0x0a00_0000 + number).to_be_bytes());
    bytes.extend([0x18, 32, 0x22, 18, 0x0a, 16, 0x20, 1, 0x0d, 0xb8]);
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hop]);
    bytes
}

fn digest(identity: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish()
}

fn established(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&HELLO).unwrap();
    stream.write_all(&KEEPALIVE).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    stream
}

struct Announcer {
    stream: TcpStream,
    /// By VNI and number.
    has: HashSet<(u8, u32)>,
    hop: u8,
}

impl Announcer {
    fn new(address: SocketAddr, hop: u8) -> Self {
        Self {
            stream: established(address),
            has: HashSet::new(),
            hop,
        }
    }

    /// Turns some routes around; what that does to the digest of all tables.
    fn churn(&mut self, random: &mut fastrand::Rng, count: usize) -> u64 {
        let mut bytes = KEEPALIVE.to_vec();
        let mut difference = 0;
        for _ in 0..count {
            let (vni, number) = (random.u8(1..=VNIS), random.u32(..ROUTES));
            let identity = identity(vni, number, self.hop);
            difference ^= digest(&identity);
            let len = u8::try_from(identity.len()).unwrap();
            if self.has.remove(&(vni, number)) {
                bytes.extend([1, 0, len + 2, 5, 8, 1]);
            } else {
                self.has.insert((vni, number));
                bytes.extend([1, 0, len, 5]);
            }
            bytes.extend(identity);
        }
        self.stream.write_all(&bytes).unwrap();
        // One answer for each KEEPALIVE; they must not fill the socket.
        self.stream.read_exact(&mut [0; 4]).unwrap();
        difference
    }

    fn digest(&self) -> u64 {
        let each = self
            .has
            .iter()
            .map(|(vni, number)| digest(&identity(*vni, *number, self.hop)));
        each.fold(0, |all, one| all ^ one)
    }
}

/// A subscriber that keeps a digest of its table, on a thread of its own.
struct Subscriber {
    stream: TcpStream,
    digest: Arc<AtomicU64>,
    updates: Arc<AtomicU64>,
    leaving: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Subscriber {
    fn new(address: SocketAddr) -> Self {
        let mut stream = established(address);
        for vni in 1..=VNIS {
            stream.write_all(&[1, 0, 2, 3, 8, vni]).unwrap();
        }
        let (digest, updates) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let reader = stream.try_clone().unwrap();
        let (its_digest, its_updates) = (Arc::clone(&digest), Arc::clone(&updates));
        let leaving = Arc::<AtomicBool>::default();
        let told = Arc::clone(&leaving);
        let thread = std::thread::spawn(move || {
            read(reader, &its_digest, &its_updates);
            assert!(told.load(Ordering::SeqCst), "the server closed a session");
        });
        Self {
            stream,
            digest,
            updates,
            leaving,
            thread,
        }
    }

    fn leave(self) -> u64 {
        self.leaving.store(true, Ordering::SeqCst);
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.join().unwrap();
        self.updates.load(Ordering::SeqCst)
    }
}

/// Reads until the end; checks that every message is news.
fn read(mut stream: TcpStream, total: &AtomicU64, updates: &AtomicU64) {
    let mut table = HashSet::new();
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
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
            let digest = digest(identity);
            let is_news = if is_remove {
                table.remove(&digest)
            } else {
                table.insert(digest)
            };
            assert!(is_news, "nothing that is known, nothing that is absent");
            total.fetch_xor(digest, Ordering::SeqCst);
            seen += 1;
        }
        updates.fetch_add(seen, Ordering::SeqCst);
        let taken = buffer.len() - rest.len();
        buffer.drain(..taken);
    }
}

fn main() {
    let minutes = std::env::args()
        .filter_map(|it| it.parse::<u64>().ok())
        .next()
        .unwrap_or(1);
    let server = Process::server(&["--keepalive", "120"]);
    let mut random = fastrand::Rng::with_seed(minutes);
    let mut announcers: Vec<Announcer> = (1..=ANNOUNCERS)
        .map(|hop| Announcer::new(server.address, hop))
        .collect();
    let mut subscribers: Vec<Subscriber> = (0..SUBSCRIBERS)
        .map(|_| Subscriber::new(server.address))
        .collect();
    let (mut sent, mut received, mut expected) = (0_u64, 0_u64, 0_u64);
    let mut memory = Vec::new();
    let start = Instant::now();
    let cpu = server.cpu();
    while start.elapsed() < Duration::from_secs(60 * minutes) {
        let second = Instant::now();
        while second.elapsed() < Duration::from_secs(1) {
            let at = random.usize(..announcers.len());
            expected ^= announcers[at].churn(&mut random, 500);
            sent += 500;
        }
        match random.u8(..4) {
            0 => {
                let at = random.usize(..subscribers.len());
                received += subscribers.swap_remove(at).leave();
                subscribers.push(Subscriber::new(server.address));
            }
            1 => {
                let at = random.usize(..announcers.len());
                expected ^= announcers[at].digest();
                let hop = announcers[at].hop;
                announcers[at] = Announcer::new(server.address, hop);
            }
            _ => {}
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while subscribers
            .iter()
            .any(|it| it.digest.load(Ordering::SeqCst) != expected)
        {
            assert!(Instant::now() < deadline, "tables differ from the model");
            std::thread::sleep(Duration::from_millis(1));
        }
        for subscriber in &mut subscribers {
            subscriber.stream.write_all(&KEEPALIVE).unwrap();
        }
        memory.push(server.resident() as f64 / 1024.0 / 1024.0);
    }
    let cpu = server.cpu() - cpu;
    received += subscribers.into_iter().map(Subscriber::leave).sum::<u64>();
    let quarter = memory.len() / 4;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (early, late) = (
        mean(&memory[quarter..2 * quarter]),
        mean(&memory[memory.len() - quarter..]),
    );
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    println!(
        "{sent} changes, {received} deliveries in {:.1} min, tables equal at {} checkpoints; \
         {:.1} us CPU a change; resident {early:.1} MiB in the second quarter, {late:.1} MiB in the \
         last: {:+.2} MiB a minute; {} descriptors, peak {:.1} MiB",
        minutes,
        memory.len(),
        cpu.as_micros() as f64 / sent as f64,
        (late - early) / (minutes / 2.0),
        server.descriptors(),
        server.peak_mib(),
    );
}
