//! From an announcement to the route in another host's kernel, through a server.
//!
//! Server and client are processes; a netlink socket here hears when the kernel has a route.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use socket2::SockRef;

use crate::announcer::{Announcer, What};
use crate::netns::ip_batch;
use crate::role::{Role, clock, since};
use crate::{OTHER_VNI, VNI, measured, raw};

/// Routes a second.
const RATE: u32 = 1000;
/// The measured routes, far from all others.
const FIRST: u32 = 0x0060_0000;

/// What was measured.
pub(crate) struct Report {
    sent: BTreeMap<u32, u64>,
    heard: BTreeMap<u32, u64>,
}

impl Report {
    fn print(&self, title: &str) {
        let mut times: Vec<Duration> = Vec::new();
        for (n, sent) in &self.sent {
            let heard = self.heard.get(n).expect("every route arrives");
            times.push(since(*sent, *heard));
        }
        times.sort_unstable();
        let at = |share: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let at = (times.len() as f64 * share) as usize;
            times[at.min(times.len() - 1)]
        };
        println!(
            "  {title:<34} p50 {:>9.1?}   p99 {:>9.1?}   longest {:>9.1?}   of {}",
            at(0.5),
            at(0.99),
            at(1.0),
            times.len()
        );
    }
}

/// Hears of every new IPv4 route in this namespace.
struct Ear(Socket);

impl Ear {
    fn open() -> Self {
        const IPV4_ROUTES: u32 = 7;
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        socket.bind_auto().expect("an address");
        socket.add_membership(IPV4_ROUTES).expect("a group");
        raw::enlarge(&socket, 512 << 20);
        let timeout = Some(Duration::from_millis(50));
        SockRef::from(&socket)
            .set_read_timeout(timeout)
            .expect("a socket has options");
        Self(socket)
    }

    /// Notes when the measured routes came, until all did.
    fn hear(&mut self, numbers: Range<u32>, heard: &mut BTreeMap<u32, u64>) {
        let mut buffer = vec![0; 64 << 10];
        let end = Instant::now() + crate::WAIT;
        while heard.len() < numbers.len() {
            assert!(Instant::now() < end, "heard of {} routes", heard.len());
            match self.0.recv(&mut &mut buffer[..], 0) {
                Ok(len) => {
                    let now = clock();
                    if let Some(n) = raw::new_route(&buffer[..len]).and_then(number)
                        && numbers.contains(&n)
                    {
                        heard.entry(n).or_insert(now);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("the kernel told more than there was room for: {error}"),
            }
        }
    }
}

/// The number of a measured route.
fn number(address: [u8; 4]) -> Option<u32> {
    let n = u32::from_be_bytes(address).checked_sub(0x0a00_0000 + FIRST)?;
    (n < FIRST).then_some(n)
}

/// Announces `count` routes at the rate while `meanwhile` runs; returns when each was sent and
/// when the kernel had it.
fn flow(address: &str, first: u32, count: u32, meanwhile: impl FnOnce() + Send) -> Report {
    let mut announcer = Announcer::connect(address);
    let mut report = Report {
        sent: BTreeMap::new(),
        heard: BTreeMap::new(),
    };
    let Report { sent, heard } = &mut report;
    let mut ear = Ear::open();
    std::thread::scope(|scope| {
        let hearing = scope.spawn(move || ear.hear(first..first + count, heard));
        let other = scope.spawn(meanwhile);
        let begin = Instant::now();
        for n in 0..count {
            let due = begin + Duration::from_secs(n.into()) / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let route = (FIRST + first + n, n % 64, false);
            let at = announcer.send_to(OTHER_VNI, What::Announce, std::iter::once(route));
            sent.insert(first + n, at);
        }
        hearing.join().expect("the ear hears");
        other.join().expect("the others are announced");
    });
    // Its end would withdraw them.
    std::mem::forget(announcer);
    report
}

/// 1,000 routes a second: alone, while a million others are installed, and when they are there.
pub(crate) fn latency() {
    const MILLION: u32 = 1_000_000;
    measured("latency", || {
        let (_server, address) = Role::server();
        let mut client = Role::pair(&address);
        client.ask::<1>("established");
        client.ask::<1>("subscribe");
        client.ask::<1>("also");
        flow(&address, 0, 2000, || {}).print("warm-up");
        flow(&address, 10_000, 10_000, || {}).print("1,000 routes a second");
        let mut others = Announcer::connect(&address);
        let report = flow(&address, 30_000, 20_000, || {
            std::thread::sleep(Duration::from_secs(1));
            let routes = (0..MILLION).map(|n| (n, n % 64, n % 2 == 0));
            others.send_to(VNI, What::Announce, routes);
        });
        report.print("while 1,000,000 others come");
        flow(&address, 60_000, 10_000, || {}).print("with 1,000,000 others there");
        // Somebody has the kernel read, over and over.
        let report = flow(&address, 80_000, 10_000, || {
            for n in 0..5 {
                std::thread::sleep(Duration::from_secs(1));
                client.ask::<1>(&format!("read {n}"));
            }
        });
        report.print("while all are read again");
        // Notifications that are lost have the kernel read, too.
        let report = flow(&address, 100_000, 10_000, || {
            std::thread::sleep(Duration::from_secs(1));
            for verb in ["add", "del"].repeat(4) {
                let line = |n: u32| {
                    let address = Ipv4Addr::from(0xc000_0000 + n);
                    format!("route {verb} blackhole {address} table 7777\n")
                };
                ip_batch(&(0..25_000).map(line).collect::<String>(), "-4");
            }
        });
        report.print("while others change 200,000 routes");
    });
}
