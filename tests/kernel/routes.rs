//! The kernel writer against a real kernel, in network namespaces of its own.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::netns::{self, DEVICE, Monitor, in_namespace, ip, ip_batch, make_device};
use rustbond::kernel::{KernelConfig, KernelWriter, NexthopMode};
use rustbond::{Destination, NextHop, NextHopType, Route, Vni};

const VNI: Vni = Vni(7);
const WAIT: Duration = Duration::from_secs(10);

fn config() -> KernelConfig {
    KernelConfig {
        vni_tables: BTreeMap::from([(VNI, 100)]),
        device: DEVICE.into(),
        ..KernelConfig::default()
    }
}

fn fallback() -> KernelConfig {
    KernelConfig {
        nexthop_objects: NexthopMode::Never,
        ..config()
    }
}

fn underlay(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn route(prefix: &str, hop: u16) -> Route {
    let prefix = prefix.parse().unwrap();
    Route::new(Destination::new(prefix), NextHop::standard(underlay(hop)))
}

fn nth_v4(n: u32, hop: u16) -> Route {
    let address = Ipv4Addr::from(0x0a00_0000 + n * 256);
    let destination = Destination::from_ipv4(address, 24);
    Route::new(destination, NextHop::standard(underlay(hop)))
}

fn nth_v6(n: u32, hop: u16) -> Route {
    let address = Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n) << 64);
    let destination = Destination::from_ipv6(address, 64);
    Route::new(destination, NextHop::standard(underlay(hop)))
}

fn table(number: u32) -> String {
    let v4 = ip(&format!("-d -4 route show table {number}"));
    let v6 = ip(&format!("-d -6 route show table {number}"));
    v4 + &v6
}

/// The line of `ip -d route` about a prefix, with the lines that continue it.
fn shown(prefix: &str) -> String {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    ip(&format!("-d {family} route show {prefix} table 100"))
}

fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(config: KernelConfig) -> KernelWriter {
    let writer = KernelWriter::start(config).unwrap();
    writer.flush(WAIT).unwrap();
    writer
}

/// What must stay as it is, whatever we do.
fn others() -> String {
    ip("-4 route add 10.9.0.0/24 dev lo proto static table 100");
    ip("-4 route add 10.9.1.0/24 dev lo proto 254 metric 77 table 100");
    ip("-6 route add fd99::/64 dev lo proto static metric 5 table 100");
    ip(&format!(
        "-4 route add 10.8.0.0/24 dev {DEVICE} proto 254 table 200"
    ));
    ip(&format!("-6 nexthop add id 55 dev {DEVICE} proto 3"));
    ip(&format!(
        "-6 nexthop add id {} dev {DEVICE} proto 254",
        0x4d42_0001
    ));
    others_now()
}

fn others_now() -> String {
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

#[test]
fn installs_both_families_with_encapsulation_and_removes_all() {
    in_namespace("install", || {
        make_device();
        let before = others();
        let writer = start(config());
        assert!(writer.stats().uses_nexthop_objects);
        let routes = [
            route("10.0.0.0/24", 1),
            route("10.0.1.7/32", 2),
            route("fd00:1::/64", 1),
            route("fd00:2::1/128", 2),
            route("0.0.0.0/0", 1),
            route("::/0", 1),
        ];
        for route in routes {
            writer.add(VNI, route);
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().last_error, None);
        for (prefix, hop) in [
            ("10.0.0.0/24", "2001:db8::1"),
            ("10.0.1.7", "2001:db8::2"),
            ("fd00:1::/64", "2001:db8::1"),
            ("fd00:2::1", "2001:db8::2"),
            ("default", "2001:db8::1"),
        ] {
            let text = shown(prefix);
            assert!(text.contains("proto 254"), "{prefix}: {text}");
            assert!(text.contains(&format!("dst {hop} ")), "{prefix}: {text}");
            assert!(text.contains(DEVICE), "{prefix}: {text}");
        }
        assert!(ip("-6 route show default table 100").contains("nhid"));
        assert_eq!(
            ip("nexthop show proto 254").lines().count(),
            3,
            "two are ours"
        );
        let stats = writer.stats();
        assert_eq!((stats.desired, stats.installed), (6, 6));
        assert!(stats.in_sync);
        for route in routes {
            writer.remove(VNI, route);
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(ip("route show table 100 metric 0 proto 254"), "");
        assert_eq!(ip("-6 route show table 100 proto 254"), "");
        assert_eq!(ip("nexthop show proto 254").lines().count(), 1);
        assert_eq!(writer.stats().installed, 0);
        assert_eq!(others_now(), before);
    });
}

#[test]
fn several_hops_are_one_group_and_shrink_in_place() {
    in_namespace("ecmp", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            // Not in order, and one of them twice under another type.
            writer.add(VNI, route(prefix, 3));
            writer.add(VNI, route(prefix, 1));
            let mut balanced = route(prefix, 1);
            balanced.next_hop.hop_type = NextHopType::LoadBalancerTarget;
            writer.add(VNI, balanced);
        }
        writer.flush(WAIT).unwrap();
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            let text = shown(prefix);
            assert!(text.contains("group"), "{text}");
            assert!(text.contains("dst 2001:db8::1 ") && text.contains("dst 2001:db8::3 "));
        }
        assert_eq!(
            ip("nexthop").matches("group").count(),
            1,
            "both share one group"
        );
        let before = writer.stats().messages;
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            writer.remove(VNI, route(prefix, 3));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(
            writer.stats().messages - before,
            1,
            "the nexthop went, no route"
        );
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            let text = shown(prefix);
            assert!(text.contains("dst 2001:db8::1 ") && !text.contains("2001:db8::3"));
            let mut balanced = route(prefix, 1);
            balanced.next_hop.hop_type = NextHopType::LoadBalancerTarget;
            writer.remove(VNI, balanced);
            writer.remove(VNI, route(prefix, 1));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), "");
        assert_eq!(ip("nexthop"), "");
    });
}

#[test]
fn a_restart_with_an_unchanged_table_writes_nothing() {
    for config in [config(), fallback()] {
        in_namespace("restart", move || {
            make_device();
            let announce = |writer: &KernelWriter| {
                for n in 0..500 {
                    let hop = u16::try_from(n % 7).unwrap();
                    writer.add(VNI, nth_v4(n, hop + 1));
                    writer.add(VNI, nth_v6(n, hop + 2));
                    writer.add(VNI, nth_v4(n, hop + 20));
                    writer.add(VNI, nth_v6(n, hop + 20));
                }
            };
            let writer = start(config.clone());
            announce(&writer);
            writer.add(VNI, nth_v4(5000, 1));
            writer.add(VNI, nth_v6(5000, 1));
            writer.flush(WAIT).unwrap();
            writer.shutdown(WAIT).unwrap();
            let before = (table(100), ip("-d nexthop"));

            let monitor = Monitor::start();
            let writer = start(config.clone());
            announce(&writer);
            writer.add(VNI, nth_v4(5000, 1));
            writer.add(VNI, nth_v6(5000, 1));
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            assert_eq!(writer.stats().messages, 0);
            assert!(writer.stats().in_sync);
            writer.shutdown(WAIT).unwrap();
            assert_eq!(monitor.stop(), "", "nothing changed");
            assert_eq!((table(100), ip("-d nexthop")), before);

            // One that nobody announces any more goes, but not before the table is complete.
            let writer = start(config.clone());
            announce(&writer);
            writer.flush(WAIT).unwrap();
            assert_eq!(table(100), before.0);
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            assert_eq!(writer.stats().messages, 2);
            assert_eq!(writer.stats().installed, 1000);
        });
    }
}

/// What `ip` prints without the numbers of objects, which a repair may change.
fn without_numbers(text: &str) -> String {
    let mut words = text.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if ["nhid", "id", "group"].contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Deletes our routes of a family one by one: `ip route flush` of iproute2 6.1 cannot delete
/// routes with nexthop objects.
fn delete_all(family: &str) {
    let ours = ip(&format!("{family} route show table 100 proto 254"));
    let deletions: String = ours
        .lines()
        .filter(|line| !line.contains("metric 77") && !line.starts_with('\t'))
        .map(|line| {
            let prefix = line.split_whitespace().next().unwrap();
            format!("route del {prefix} table 100 proto 254\n")
        })
        .collect();
    ip_batch(&deletions, family);
}

#[test]
fn what_others_do_to_our_routes_is_repaired_within_a_second() {
    in_namespace("repair", || {
        make_device();
        let before = others();
        let writer = start(config());
        for n in 0..300 {
            let hop = u16::try_from(n % 5).unwrap();
            writer.add(VNI, nth_v4(n + 0x1_0000, hop));
            writer.add(VNI, nth_v6(n, hop));
            writer.add(VNI, nth_v6(n, hop + 10));
        }
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        let good = || (without_numbers(&table(100)), writer.stats().in_sync);
        let want = good();
        assert!(want.1);
        let repairs = |what: &str| {
            eventually(what, Duration::from_secs(1), || good() == want);
            assert_eq!(others_now(), before, "{what}");
        };
        ip("-4 route del 11.0.0.0/24 table 100");
        repairs("one deletion");
        ip(&format!(
            "-4 route replace 11.0.1.0/24 dev {DEVICE} table 100 proto static"
        ));
        ip("-6 route replace fd00:0:0:7::/64 dev lo table 100 proto boot");
        repairs("replacement");
        ip("-4 route replace blackhole 11.0.1.0/24 table 100 proto static");
        ip("-6 route replace unreachable fd00:0:0:7::/64 table 100 proto 254");
        repairs("replacement by a route that does not forward");
        delete_all("-4");
        delete_all("-6");
        repairs("flush");
        let nexthops = ip("nexthop show proto 254");
        let of_ours = nexthops
            .lines()
            .find(|line| line.contains("encap"))
            .unwrap();
        let id = of_ours.split_whitespace().nth(1).unwrap();
        ip(&format!("nexthop del id {id}"));
        repairs("deletion of a nexthop");
        ip(&format!("link set {DEVICE} down"));
        eventually("noticed", WAIT, || !writer.stats().device_up);
        let error = writer.flush(WAIT).unwrap_err().to_string();
        assert!(error.contains("missing or down"), "{error}");
        ip(&format!("link set {DEVICE} up"));
        // The others' routes through the device went with it.
        ip(&format!(
            "-4 route add 10.8.0.0/24 dev {DEVICE} proto 254 table 200"
        ));
        ip(&format!("-6 nexthop add id 55 dev {DEVICE} proto 3"));
        ip(&format!(
            "-6 nexthop add id {} dev {DEVICE} proto 254",
            0x4d42_0001
        ));
        repairs("down and up");
        ip(&format!("link del {DEVICE}"));
        eventually("noticed", WAIT, || !writer.stats().device_up);
        writer.add(VNI, route("10.200.0.0/16", 1));
        writer.remove(VNI, route("10.200.0.0/16", 1));
        make_device();
        eventually("re-created", Duration::from_secs(1), || good() == want);
        assert_eq!(writer.stats().failed, 0);
    });
}

#[test]
fn a_route_that_was_there_before_us_is_left_alone() {
    in_namespace("conflict", || {
        make_device();
        ip("-4 route add 10.0.0.0/24 dev lo proto static table 100");
        ip("-6 route add fd00::/64 dev lo proto static metric 1024 table 100");
        let before = table(100);
        let writer = start(config());
        writer.add(VNI, route("10.0.0.0/24", 1));
        writer.add(VNI, route("fd00::/64", 1));
        writer.add(VNI, route("10.0.1.0/24", 1));
        writer.flush(WAIT).unwrap();
        let stats = writer.stats();
        assert_eq!((stats.failed, stats.installed), (2, 1));
        assert!(stats.last_error.unwrap().contains("File exists"));
        assert!(!stats.in_sync);
        assert!(shown("10.0.1.0/24").contains("2001:db8::1"));
        writer.remove(VNI, route("10.0.1.0/24", 1));
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), before);
        ip("-4 route del 10.0.0.0/24 table 100");
        ip("-6 route del fd00::/64 table 100");
        eventually("taken over", Duration::from_secs(1), || {
            writer.stats().in_sync
        });
        assert!(shown("fd00::/64").contains("2001:db8::1"));
    });
}

#[test]
fn a_route_that_was_put_before_ours_is_left_alone() {
    in_namespace("prepend", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        writer.add(VNI, route("10.0.0.0/24", 1));
        writer.add(VNI, route("10.0.1.0/24", 1));
        writer.flush(WAIT).unwrap();
        ip("-4 route prepend blackhole 10.0.0.0/24 proto static table 100");
        ip("-4 route prepend 10.0.0.0/24 dev lo proto static table 100");
        ip("-4 route append blackhole 10.0.1.0/24 proto static table 100");
        let theirs = || ip("-4 route show table 100 proto static");
        let before = theirs();
        eventually("noticed", WAIT, || writer.stats().last_error.is_some());
        let change = |writer: &KernelWriter, from, to| {
            for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
                writer.add(VNI, route(prefix, to));
                writer.remove(VNI, route(prefix, from));
            }
            writer.flush(WAIT).unwrap();
        };
        change(&writer, 1, 2);
        assert_eq!(theirs(), before);
        assert_eq!(
            writer.stats().failed,
            1,
            "it cannot change before theirs goes"
        );
        assert!(shown("10.0.1.0/24").contains("dst 2001:db8::2 "));
        drop(writer);

        // The next process finds it as it is.
        let writer = start(config());
        for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
            writer.add(VNI, route(prefix, 2));
        }
        writer.synced(VNI);
        change(&writer, 2, 3);
        assert_eq!(theirs(), before);
        ip("-4 route del 10.0.0.0/24 dev lo proto static table 100");
        ip("-4 route del blackhole 10.0.0.0/24 proto static table 100");
        let moved = || shown("10.0.0.0/24").contains("dst 2001:db8::3 ");
        eventually("theirs went", Duration::from_secs(1), moved);
        assert!(writer.stats().in_sync);
        for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
            writer.remove(VNI, route(prefix, 3));
        }
        writer.flush(WAIT).unwrap();
        assert!(!table(100).contains("proto 254"), "{}", table(100));
        assert!(theirs().starts_with("blackhole 10.0.1.0/24"));
    });
}

#[test]
fn another_way_of_naming_hops_leaves_nothing_behind() {
    in_namespace("modes", || {
        make_device();
        let before = others();
        for config in [config(), fallback(), config(), fallback()] {
            let uses_objects = config.nexthop_objects == NexthopMode::Auto;
            let writer = start(config);
            for n in 0x1_0000..0x1_0200 {
                for hop in [1, 2] {
                    writer.add(VNI, nth_v4(n, hop));
                    writer.add(VNI, nth_v6(n, hop));
                }
            }
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            let stats = writer.stats();
            assert_eq!((stats.installed, stats.failed), (1024, 0));
            let ours = ip("nexthop show proto 254").lines().count() - 1;
            assert_eq!(ours, if uses_objects { 3 } else { 0 });
            assert_eq!(others_now(), before);
        }
    });
}

#[test]
fn without_nexthop_objects_routes_carry_their_hops() {
    in_namespace("fallback", || {
        make_device();
        let writer = start(fallback());
        assert!(!writer.stats().uses_nexthop_objects);
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            writer.add(VNI, route(prefix, 2));
            writer.add(VNI, route(prefix, 1));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().failed, 0, "{:?}", writer.stats());
        assert_eq!(ip("nexthop"), "");
        let v4 = shown("10.0.0.0/24");
        assert!(v4.contains("dst 2001:db8::1 ") && v4.contains("dst 2001:db8::2 "));
        let v6 = shown("fd00::/64");
        assert!(v6.contains("dst 2001:db8::1 ") && !v6.contains("dst 2001:db8::2 "));
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            writer.remove(VNI, route(prefix, 1));
        }
        writer.flush(WAIT).unwrap();
        let text = table(100);
        assert_eq!(text.matches("dst 2001:db8::2 ").count(), 2, "{text}");
        assert!(!text.contains("2001:db8::1"), "{text}");
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            writer.remove(VNI, route(prefix, 2));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), "");
    });
}

#[test]
fn at_the_end_routes_stay_unless_they_shall_not() {
    for mode in [NexthopMode::Auto, NexthopMode::Never] {
        in_namespace("cleanup", move || {
            make_device();
            let before = others();
            let config = KernelConfig {
                nexthop_objects: mode,
                ..config()
            };
            let writer = start(config.clone());
            for n in 0x1_0000..0x1_0400 {
                writer.add(VNI, nth_v4(n, 1));
                writer.add(VNI, nth_v6(n, 1));
                writer.add(VNI, nth_v6(n, 2));
            }
            // What was submitted is written before the end.
            drop(writer);
            let ours = || {
                table(100)
                    .lines()
                    .filter(|line| line.contains("proto 254 scope") && line.starts_with("unicast"))
                    .count()
            };
            assert_eq!(ours(), 2048 + 1);
            let cleaning = KernelConfig {
                cleanup_on_exit: true,
                ..config
            };
            let writer = KernelWriter::start(cleaning).unwrap();
            writer.shutdown(WAIT).unwrap();
            writer.shutdown(WAIT).unwrap();
            assert!(!writer.stats().running);
            assert!(matches!(writer.flush(WAIT), Err(rustbond::Error::Closed)));
            assert_eq!(ours(), 1);
            assert_eq!(ip("nexthop show proto 254").lines().count(), 1);
            assert_eq!(others_now(), before);
        });
    }
}

#[test]
fn vnis_share_tables_and_some_routes_are_left_out() {
    in_namespace("tables", || {
        make_device();
        let writer = start(KernelConfig {
            vni_tables: BTreeMap::from([(Vni(1), 100), (Vni(2), 100), (Vni(3), 70_000)]),
            excluded_types: vec![NextHopType::Nat],
            metric: Some(42),
            ipv4_only: true,
            protocol: 99,
            ..config()
        });
        let shared = route("10.0.0.9/24", 1);
        writer.add(Vni(1), shared);
        writer.add(Vni(2), shared);
        writer.add(Vni(3), shared);
        writer.add(Vni(4), route("10.4.0.0/24", 1));
        writer.add(Vni(1), route("fd00::/64", 1));
        let mut nat = route("10.5.0.0/24", 1);
        nat.next_hop = NextHop::nat(underlay(1), 1, 2);
        writer.add(Vni(1), nat);
        let mut plain = route("10.6.0.0/24", 1);
        plain.next_hop = NextHop::standard(Ipv4Addr::LOCALHOST);
        writer.add(Vni(1), plain);
        writer.flush(WAIT).unwrap();
        let text = ip("-d route show table all proto 99");
        assert_eq!(text.matches("10.0.0.0/24").count(), 2, "{text}");
        assert_eq!(text.matches("metric 42").count(), 2, "{text}");
        assert!(text.contains("table 70000"), "{text}");
        assert_eq!(writer.stats().uninstallable, 1);
        assert_eq!(writer.stats().desired, 2);
        writer.remove(Vni(1), shared);
        writer.flush(WAIT).unwrap();
        assert!(shown("10.0.0.0/24").contains("2001:db8::1"));
        writer.remove(Vni(2), shared);
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), "");
    });
}

#[test]
fn bad_starts_say_why() {
    in_namespace("starts", || {
        let missing = KernelWriter::start(config()).err().unwrap().to_string();
        assert_eq!(missing, format!("tunnel device {DEVICE} does not exist"));
        make_device();
        netns::drop_net_admin();
        let refused = KernelWriter::start(config()).err().unwrap().to_string();
        assert!(refused.contains("CAP_NET_ADMIN"), "{refused}");
    });
}

#[test]
fn a_hypervisor_leaves_a_thousand_groups_in_few_messages() {
    in_namespace("leave", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        let gone = 9999;
        for n in 0..20_000_u32 {
            let partner = u16::try_from(n % 1000).unwrap();
            writer.add(VNI, nth_v4(n, partner));
            writer.add(VNI, nth_v4(n, gone));
        }
        writer.flush(WAIT).unwrap();
        assert!(writer.stats().in_sync);
        let before = writer.stats().messages;
        for n in 0..20_000 {
            writer.remove(VNI, nth_v4(n, gone));
        }
        writer.flush(WAIT).unwrap();
        let messages = writer.stats().messages - before;
        assert!(messages <= 1000, "{messages} messages");
        assert!(!table(100).contains("2001:db8::270f"));
        assert_eq!(
            ip("-4 route show table 100").matches("nhid").count(),
            20_000
        );
    });
}

#[test]
fn flaps_collapse() {
    in_namespace("flaps", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        for _ in 0..1000 {
            writer.add(VNI, route("10.0.0.0/24", 1));
            writer.remove(VNI, route("10.0.0.0/24", 1));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), "");
        assert!(writer.stats().in_sync);
    });
}
