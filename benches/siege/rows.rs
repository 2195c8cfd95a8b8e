//! What besiegers do: one function for each kind of siege.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::wire::{announcements, barrier, session, subscribe, unsubscribe, update};

const VNI: u32 = 7;

/// How long a peer that takes nothing is watched.
const UNREAD: Duration = Duration::from_secs(2);

/// Where the siege takes place.
pub(crate) struct Field {
    pub(crate) server: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) control: PathBuf,
    /// The full size divided by this.
    pub(crate) divisor: u32,
}

impl Field {
    fn sized(&self, full: u32) -> u32 {
        (full / self.divisor).max(1)
    }

    /// A session that has announced routes of a VNI.
    fn announcer(&self, vni: u32, routes: u32) -> TcpStream {
        let mut stream = session(self.server);
        stream.write_all(&announcements(vni, 0..routes)).unwrap();
        barrier(&mut stream);
        stream
    }

    fn sessions(&self, count: u32) -> Vec<TcpStream> {
        (0..count).map(|_| session(self.server)).collect()
    }

    /// Sends without reading what comes back, for as long as the server takes it.
    fn push(stream: &mut TcpStream, bytes: &[u8]) {
        stream.set_write_timeout(Some(UNREAD)).unwrap();
        // A peer that is held up or closed sends no more.
        drop(stream.write_all(bytes));
    }

    /// Returns once all that was sent to the server has been served, for a second worker too.
    fn settle(&self) {
        for mut stream in self.sessions(2) {
            barrier(&mut stream);
        }
    }
}

/// Waits, so that what a besieger does not read can pile up.
fn linger() {
    std::thread::sleep(UNREAD);
}

fn toggles(vni: u32, count: u32) -> Vec<u8> {
    let toggle = [subscribe(vni), unsubscribe(vni)].concat();
    toggle.repeat(count as usize)
}

/// A peer shares a route of a large table, and joins it again and again.
pub(crate) fn shared_joins(field: &Field) {
    let _table = field.announcer(VNI, field.sized(200_000));
    let mut besieger = field.announcer(VNI, 1);
    Field::push(&mut besieger, &toggles(VNI, field.sized(4_500)));
    linger();
}

/// A peer joins its own large table again and again.
pub(crate) fn own_joins(field: &Field) {
    let mut besieger = field.announcer(VNI, field.sized(1_000_000));
    Field::push(&mut besieger, &toggles(VNI, 5_000));
    linger();
}

/// A peer unsubscribes with a long queue that it does not read.
pub(crate) fn unread_unsubscribes(field: &Field) {
    let vnis = field.sized(5_000);
    let mut besieger = session(field.server);
    let all = |request: fn(u32) -> Vec<u8>| (1..=vnis).flat_map(request).collect::<Vec<u8>>();
    Field::push(&mut besieger, &all(subscribe));
    let mut source = session(field.server);
    // Changes of so many VNIs are a piece each.
    for round in 0..100 {
        let changes = (1..=vnis).flat_map(|vni| update(false, vni, round));
        source.write_all(&changes.collect::<Vec<u8>>()).unwrap();
    }
    barrier(&mut source);
    field.settle();
    Field::push(&mut besieger, &all(unsubscribe));
    linger();
}

/// Subscribers stall while new routes come.
pub(crate) fn stalled_subscribers(field: &Field) {
    let mut stalled = field.sessions(field.sized(100).max(20));
    for stream in &mut stalled {
        stream.write_all(&subscribe(VNI)).unwrap();
        barrier(stream);
    }
    let _source = field.announcer(VNI, field.sized(1_000_000));
    linger();
}

/// Peers flood the owners of many VNIs from both workers.
pub(crate) fn full_mailboxes(field: &Field) {
    let floods = field.sessions(8);
    let routes = field.sized(100_000);
    std::thread::scope(|scope| {
        for (vni, mut stream) in (1..).zip(floods) {
            scope.spawn(move || {
                stream.write_all(&announcements(vni, 0..routes)).unwrap();
                barrier(&mut stream);
            });
        }
    });
}

/// Many small VNIs have a history.
pub(crate) fn small_histories(field: &Field) {
    let mut besieger = session(field.server);
    let vnis = field.sized(10_000);
    for vni in 1..=vnis {
        besieger.write_all(&update(false, vni, 0)).unwrap();
    }
    for vni in 1..=vnis {
        let flap = [update(false, vni, 1), update(true, vni, 1)].concat();
        besieger.write_all(&flap.repeat(850)).unwrap();
    }
    barrier(&mut besieger);
}

/// A peer subscribes to and leaves ever other VNIs.
pub(crate) fn fleeting_subscriptions(field: &Field) {
    let mut besieger = session(field.server);
    let vnis = field.sized(4_000_000);
    for first in (0..vnis).step_by(10_000) {
        let chunk = first..vnis.min(first + 10_000);
        let pairs = chunk.flat_map(|vni| [subscribe(vni), unsubscribe(vni)].concat());
        besieger.write_all(&pairs.collect::<Vec<u8>>()).unwrap();
        barrier(&mut besieger);
    }
}

/// Peers subscribe to VNIs that nobody announces in.
pub(crate) fn empty_subscriptions(field: &Field) {
    let mut besiegers = field.sessions(40);
    let each = field.sized(16_000);
    for (number, stream) in (0..).zip(&mut besiegers) {
        let vnis = number * each..(number + 1) * each;
        stream
            .write_all(&vnis.flat_map(subscribe).collect::<Vec<u8>>())
            .unwrap();
        barrier(stream);
    }
}

/// Of two peers that share a route, one flaps it among other changes.
pub(crate) fn shared_flaps(field: &Field) {
    let mut subscribers = field.sessions(field.sized(4_000));
    for stream in &mut subscribers {
        stream.write_all(&subscribe(VNI)).unwrap();
        barrier(stream);
    }
    let _other = field.announcer(VNI, 1);
    let mut besieger = session(field.server);
    for round in 0..field.sized(2_000) {
        let flap = [
            update(false, VNI, 0),
            update(false, VNI, 1 + round),
            update(true, VNI, 0),
        ];
        besieger.write_all(&flap.concat()).unwrap();
    }
    barrier(&mut besieger);
    linger();
}

/// A monitor of many VNIs reads nothing while routes change.
pub(crate) fn unread_monitor(field: &Field) {
    let mut source = session(field.server);
    for vni in 1..=field.sized(20_000) {
        source.write_all(&update(false, vni, 0)).unwrap();
    }
    barrier(&mut source);
    let mut monitor = UnixStream::connect(&field.control).unwrap();
    let request = "GET /api/v1/monitor?current=true HTTP/1.1\r\nHost: localhost\r\n\r\n";
    monitor.write_all(request.as_bytes()).unwrap();
    monitor
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut begin = [0; 12];
    monitor.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let flap = [
        announcements(VNI, 1..1000),
        (1..1000).flat_map(|it| update(true, VNI, it)).collect(),
    ];
    for _ in 0..field.sized(1_000) {
        source.write_all(&flap.concat()).unwrap();
    }
    barrier(&mut source);
}

/// Many sessions subscribe to many VNIs at the same time.
pub(crate) fn mass_subscription(field: &Field) {
    let mut besiegers = field.sessions(field.sized(5_000));
    let all: Vec<u8> = (1..=400).flat_map(subscribe).collect();
    for stream in &mut besiegers {
        Field::push(stream, &all);
    }
    field.settle();
    linger();
}

/// Many peers announce one route, and leave.
pub(crate) fn crowded_route(field: &Field) {
    let mut besiegers = field.sessions(field.sized(1_500));
    let all = announcements(VNI, 0..field.sized(300));
    for stream in &mut besiegers {
        stream.write_all(&all).unwrap();
    }
    for stream in &mut besiegers {
        barrier(stream);
    }
    drop(besiegers);
    linger();
}

/// One address connects and resets all the time; others want in.
pub(crate) fn resets(field: &Field) -> Duration {
    let until = Instant::now() + UNREAD;
    let mut worst = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < until {
                // Without a port left there is a pause.
                if let Ok(stream) = TcpStream::connect(field.server) {
                    let socket = socket2::SockRef::from(&stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
        });
        while Instant::now() < until {
            let begin = Instant::now();
            drop(session(field.server));
            worst = worst.max(begin.elapsed());
        }
    });
    worst
}

/// Half requests take all places of the HTTP server; somebody asks for its health.
pub(crate) fn half_requests(field: &Field) -> Duration {
    let half = (0..64).map(|_| {
        let mut stream = TcpStream::connect(field.http).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        stream
    });
    let _half: Vec<TcpStream> = half.collect();
    let begin = Instant::now();
    let mut stream = TcpStream::connect(field.http).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    begin.elapsed()
}

/// Subscribers read slowly while the table is rewritten again and again.
pub(crate) fn slow_readers(field: &Field) {
    let routes = field.sized(100_000);
    let mut source = field.announcer(VNI, routes);
    let mut slow = field.sessions(40);
    for stream in &mut slow {
        stream.write_all(&subscribe(VNI)).unwrap();
    }
    let mut buffer = [0; 4096];
    for round in 0..10 {
        for number in 0..routes {
            source
                .write_all(&update(round % 2 == 0, VNI, number))
                .unwrap();
        }
        barrier(&mut source);
        for stream in &mut slow {
            stream
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            // One that the server has closed has nothing.
            drop(stream.read(&mut buffer));
        }
    }
}
