//! What tests of the kernel writer have in common.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::netns::{DEVICE, ip};
use rustbond::kernel::{KernelConfig, KernelWriter, NexthopMode};
use rustbond::{Destination, NextHop, Route, Vni};

pub(crate) const VNI: Vni = Vni(7);
pub(crate) const WAIT: Duration = Duration::from_secs(10);

pub(crate) fn config() -> KernelConfig {
    KernelConfig {
        vni_tables: BTreeMap::from([(VNI, 100)]),
        device: DEVICE.into(),
        ..KernelConfig::default()
    }
}

pub(crate) fn fallback() -> KernelConfig {
    KernelConfig {
        nexthop_objects: NexthopMode::Never,
        ..config()
    }
}

pub(crate) fn underlay(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

pub(crate) fn route(prefix: &str, hop: u16) -> Route {
    let prefix = prefix.parse().unwrap();
    Route::new(Destination::new(prefix), NextHop::standard(underlay(hop)))
}

pub(crate) fn nth_v4(n: u32, hop: u16) -> Route {
    let address = Ipv4Addr::from(0x0a00_0000 + n * 256);
    let destination = Destination::from_ipv4(address, 24);
    Route::new(destination, NextHop::standard(underlay(hop)))
}

pub(crate) fn nth_v6(n: u32, hop: u16) -> Route {
    let address = Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n) << 64);
    let destination = Destination::from_ipv6(address, 64);
    Route::new(destination, NextHop::standard(underlay(hop)))
}

pub(crate) fn table(number: u32) -> String {
    let v4 = ip(&format!("-d -4 route show table {number}"));
    let v6 = ip(&format!("-d -6 route show table {number}"));
    v4 + &v6
}

/// The line of `ip -d route` about a prefix, with the lines that continue it.
pub(crate) fn shown(prefix: &str) -> String {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    ip(&format!("-d {family} route show {prefix} table 100"))
}

pub(crate) fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn start(config: KernelConfig) -> KernelWriter {
    let writer = KernelWriter::start(config).unwrap();
    writer.flush(WAIT).unwrap();
    writer
}

/// What must stay as it is, whatever we do.
pub(crate) fn others() -> String {
    ip("-4 route add 10.9.0.0/24 dev lo proto static table 100");
    ip("-4 route add 10.9.1.0/24 dev lo proto 254 metric 77 table 100");
    ip("-6 route add fd99::/64 dev lo proto static metric 5 table 100");
    add_others_on_the_device();
    others_now()
}

/// Those of [`others`] that go when the tunnel device goes down.
pub(crate) fn add_others_on_the_device() {
    ip(&format!(
        "-4 route add 10.8.0.0/24 dev {DEVICE} proto 254 table 200"
    ));
    ip(&format!("-6 nexthop add id 55 dev {DEVICE} proto 3"));
    ip(&format!(
        "-6 nexthop add id {} dev {DEVICE} proto 254",
        0x4d42_0001
    ));
}

pub(crate) fn others_now() -> String {
    [
        "-d -4 route show table 100 proto static",
        "-d -4 route show table 100 metric 77",
        "-d -6 route show table 100 proto static",
        "-d -4 route show table 200",
        "-d nexthop show id 55",
        &format!("-d nexthop show id {}", 0x4d42_0001),
    ]
    .map(ip)
    .join("")
}
