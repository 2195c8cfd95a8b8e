//! How fast routes reach the kernel, beside a raw netlink loop and `ip -batch`.
//!
//! Every figure comes from a network namespace of its own. `cargo bench --bench kernel`;
//! names of cases as arguments select them, `server-*` and `restart` with a server, its
//! announcers and the installing client as processes of their own. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A benchmark prints.

mod announcer;
mod fed;
mod latency;
#[path = "../../tests/common/netns.rs"]
mod netns;
#[path = "../process/mod.rs"]
mod process;
#[path = "../../tests/common/procfs.rs"]
mod procfs;
mod raw;
mod role;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use netns::{DEVICE, ip, ip_batch, make_device};
use rustbond::kernel::{KernelConfig, KernelWriter};
use rustbond::{Destination, IpNet, NextHop, Route, Vni};

const VNI: Vni = Vni(7);
const OTHER_VNI: Vni = Vni(8);
const TABLE: u32 = 100;
const WAIT: Duration = Duration::from_secs(120);

fn config() -> KernelConfig {
    KernelConfig {
        vni_tables: BTreeMap::from([(VNI, TABLE)]),
        device: DEVICE.into(),
        ..KernelConfig::default()
    }
}

fn start() -> KernelWriter {
    let writer = KernelWriter::start(config()).expect("the namespace has the device");
    writer.flush(WAIT).expect("the device is up");
    writer
}

fn underlay(n: u32) -> Ipv6Addr {
    Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(n + 1))
}

fn prefix(n: u32, v6: bool) -> IpNet {
    if v6 {
        let address = Ipv6Addr::from((0xfd00_u128 << 112) | (u128::from(n) << 64));
        Destination::from_ipv6(address, 64).prefix
    } else {
        Destination::from_ipv4(Ipv4Addr::from(0x0a00_0000 + n), 32).prefix
    }
}

fn route(n: u32, hop: u32, v6: bool) -> Route {
    Route::new(
        Destination::new(prefix(n, v6)),
        NextHop::standard(underlay(hop)),
    )
}

/// Runs a case in a namespace with the device, and takes the device away at the end: that
/// drops the routes at once, where the end of the namespace drops them in the background,
/// to the cost of the next case.
fn measured(name: &str, case: impl FnOnce() + Send + 'static) {
    netns::in_namespace(name, || {
        make_device();
        case();
        ip(&format!("link del {DEVICE}"));
    });
}

/// Routes with our mark that the kernel has.
fn installed() -> usize {
    let count = |family: &str| {
        let text = ip(&format!("{family} route show table {TABLE} proto 254"));
        text.lines().filter(|line| !line.starts_with('\t')).count()
    };
    count("-4") + count("-6")
}

fn rate(name: &str, count: u32, took: Duration) {
    let per_second = f64::from(count) / took.as_secs_f64() / 1000.0;
    println!("  {name:<34} {per_second:>9.1} k/s   {took:>9.1?}");
}

/// One load: `count` routes over `hops` underlay addresses, in, checked, out, checked.
fn load(count: u32, hops: u32, v6: bool) {
    measured("writer", move || {
        let writer = start();
        writer.synced(VNI);
        let begin = Instant::now();
        for n in 0..count {
            writer.add(VNI, route(n, n % hops, v6));
        }
        writer.flush(WAIT).expect("the kernel takes them");
        rate("kernel writer, add", count, begin.elapsed());
        assert_eq!(installed(), count as usize, "{:?}", writer.stats());
        let begin = Instant::now();
        for n in 0..count {
            writer.remove(VNI, route(n, n % hops, v6));
        }
        writer.flush(WAIT).expect("the kernel takes them");
        rate("kernel writer, remove", count, begin.elapsed());
        assert_eq!((installed(), ip("nexthop").as_str()), (0, ""));
    });
    floor(count, hops, v6);
}

/// The same routes by a raw netlink loop, and by `ip -batch`.
fn floor(count: u32, hops: u32, v6: bool) {
    measured("raw", move || {
        let took = raw::install((0..count).map(|n| (prefix(n, v6), n % hops)), underlay);
        rate("raw netlink, prebuilt, batches of 64", count, took);
        assert_eq!(installed(), count as usize);
    });
    measured("batch", move || {
        // Before the clock runs: to the advantage of `ip`.
        let nexthops: Vec<String> = (0..hops).map(nexthop_line).collect();
        ip_batch(&nexthops.concat(), "-6");
        let lines: Vec<String> = (0..count)
            .map(|n| {
                let (prefix, id) = (prefix(n, v6), n % hops + 1);
                format!("route add {prefix} nhid {id} table {TABLE} proto 254\n")
            })
            .collect();
        let begin = Instant::now();
        ip_batch(&lines.concat(), if v6 { "-6" } else { "-4" });
        rate("ip -batch, nexthops made before", count, begin.elapsed());
    });
}

fn nexthop_line(hop: u32) -> String {
    let (id, address) = (hop + 1, underlay(hop));
    format!("nexthop add id {id} encap ip6 dst {address} dev {DEVICE} proto 254\n")
}

/// A hypervisor that is in 1,000 groups with 400,000 routes leaves.
fn leave() {
    measured("leave", || {
        const ROUTES: u32 = 400_000;
        let writer = start();
        writer.synced(VNI);
        let gone = 5000;
        for n in 0..ROUTES {
            writer.add(VNI, route(n, n % 1000, n % 2 == 0));
            writer.add(VNI, route(n, gone, n % 2 == 0));
        }
        writer.flush(WAIT).expect("the kernel takes them");
        assert_eq!(installed(), ROUTES as usize);
        let before = writer.stats().messages;
        let begin = Instant::now();
        for n in 0..ROUTES {
            writer.remove(VNI, route(n, gone, n % 2 == 0));
        }
        let decided = begin.elapsed();
        writer.flush(WAIT).expect("the kernel takes them");
        println!(
            "  decided in {decided:.1?}, right {:.1?} later, {} messages",
            begin.elapsed() - decided,
            writer.stats().messages - before
        );
        assert!(!ip("-d nexthop").contains(&underlay(gone).to_string()));
    });
}

/// A million routes, half IPv6: 500,000 destinations of two hops each.
fn million(destinations: u32) {
    measured("million", move || {
        let memory = resident();
        let writer = start();
        writer.synced(VNI);
        let begin = Instant::now();
        for n in 0..destinations {
            let v6 = n % 2 == 0;
            writer.add(VNI, route(n, n % 1000, v6));
            writer.add(VNI, route(n, (n + 1) % 1000, v6));
        }
        writer.flush(WAIT).expect("the kernel takes them");
        rate("destinations with two hops", destinations, begin.elapsed());
        let used = resident().saturating_sub(memory);
        println!(
            "  memory: {} B a destination; {:?}",
            used / u64::from(destinations),
            writer.stats()
        );
        let begin = Instant::now();
        assert_eq!(installed(), destinations as usize);
        drop(writer);
        println!("  counted in {:.1?}", begin.elapsed());

        let monitor = netns::Monitor::start();
        let begin = Instant::now();
        let writer = start();
        println!("  adopted in {:.1?}", begin.elapsed());
        for n in 0..destinations {
            let v6 = n % 2 == 0;
            writer.add(VNI, route(n, n % 1000, v6));
            writer.add(VNI, route(n, (n + 1) % 1000, v6));
        }
        let begin = Instant::now();
        writer.synced(VNI);
        writer.flush(WAIT).expect("the kernel takes them");
        let stats = writer.stats();
        println!(
            "  restart: in sync {:.1?} after the table was complete, {} messages",
            begin.elapsed(),
            stats.messages
        );
        assert!(stats.in_sync && stats.messages == 0);
        assert_eq!(monitor.stop(), "", "`ip monitor` is silent");
    });
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

const CASES: [(&str, &str, fn()); 15] = [
    ("v4", "100,000 IPv4 routes, 64 underlay addresses", || {
        load(100_000, 64, false);
    }),
    ("v6", "100,000 IPv6 routes, 64 underlay addresses", || {
        load(100_000, 64, true);
    }),
    (
        "wide",
        "100,000 IPv4 routes, 10,000 underlay addresses",
        || load(100_000, 10_000, false),
    ),
    (
        "million-v4",
        "1,000,000 IPv4 routes, 64 underlay addresses",
        || load(1_000_000, 64, false),
    ),
    (
        "million-v6",
        "1,000,000 IPv6 routes, 64 underlay addresses",
        || load(1_000_000, 64, true),
    ),
    (
        "leave",
        "a hypervisor leaves 1,000 groups, 400,000 routes",
        leave,
    ),
    ("half", "500,000 destinations of 2 hops, half IPv6", || {
        million(500_000);
    }),
    (
        "full",
        "1,000,000 destinations of 2 hops, half IPv6",
        || {
            million(1_000_000);
        },
    ),
    (
        "server-v4",
        "100,000 IPv4 routes from a server, 64 underlay addresses",
        || fed::load(100_000, 64, false),
    ),
    (
        "server-v6",
        "100,000 IPv6 routes from a server, 64 underlay addresses",
        || fed::load(100_000, 64, true),
    ),
    (
        "server-wide",
        "100,000 IPv4 routes from a server, 10,000 underlay addresses",
        || fed::load(100_000, 10_000, false),
    ),
    (
        "server-million",
        "1,000,000 routes from a server, half IPv6, 2 hops each",
        fed::million,
    ),
    (
        "server-leave",
        "a hypervisor leaves the server and 1,000 groups, 400,000 routes",
        fed::leave,
    ),
    (
        "latency",
        "from an announcement to the kernel, 1,000 routes a second",
        latency::latency,
    ),
    (
        "restart",
        "a client with 100,000 routes is killed and started again",
        fed::restart,
    ),
];

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    role::play(&chosen, config());
    for (name, title, run) in CASES {
        if chosen.is_empty() || chosen.iter().any(|choice| choice == name) {
            println!("{name}: {title}");
            run();
        }
    }
}
