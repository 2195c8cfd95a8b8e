//! What others do to our routes, and that theirs are left alone.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::time::Duration;

use rustbond::kernel::{KernelConfig, KernelWriter};

use crate::netns::{DEVICE, in_namespace, installed, ip, ip_batch, make_device};
use crate::writer::*;

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
fn foreign_changes_of_our_routes_are_repaired_within_a_second() {
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
        assert!(error.contains("is down"), "{error}");
        ip(&format!("link set {DEVICE} up"));
        // The others' routes through the device went with it.
        add_others_on_the_device();
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
fn route_that_was_there_before_us_is_left_alone() {
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
        eventually("it is seen whose they are", WAIT, || {
            writer.stats().shadowed == 2
        });
        let stats = writer.stats();
        assert_eq!((stats.failed, stats.installed), (0, 1));
        assert!(stats.last_error.unwrap().contains("somebody else"));
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

/// It was called refused for 5 s, and how many there had been was told after they came.
#[test]
fn route_in_the_place_of_somebody_elses_is_shadowed_at_once_and_told_as_long_as_that() {
    in_namespace("at-once", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        ip("-4 route add 10.0.0.0/24 dev lo proto static table 100");
        ip("-6 route add fd00::/64 dev lo proto static metric 1024 table 100");
        for prefix in ["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"] {
            writer.add(VNI, route(prefix, 1));
        }
        writer.flush(WAIT).unwrap();
        let stats = writer.stats();
        assert_eq!((stats.shadowed, stats.failed, stats.installed), (2, 0, 1));
        let told = || writer.stats().last_error.unwrap_or_default();
        assert!(told().starts_with("2 of our routes"), "{}", told());
        ip("-4 route del 10.0.0.0/24 table 100 proto static");
        eventually("one comes", WAIT, || writer.stats().installed == 2);
        eventually("one is left", WAIT, || {
            told().starts_with("1 of our routes") && told().contains("fd00::/64")
        });
        assert!(!writer.stats().in_sync);
        ip("-6 route del fd00::/64 table 100 proto static");
        eventually("all come", WAIT, || writer.stats().in_sync);
        assert_eq!((told(), writer.stats().shadowed), (String::new(), 0));
    });
}

/// The new form of the route came beside the old one, and so before theirs.
#[test]
fn route_behind_somebody_elses_stays_behind_it_in_another_form() {
    in_namespace("behind", || {
        make_device();
        for (before, after) in [(fallback(), config()), (config(), fallback())] {
            let writer = start(before);
            writer.synced(VNI);
            writer.add(VNI, route("10.0.0.0/24", 1));
            writer.flush(WAIT).unwrap();
            writer.shutdown(WAIT).unwrap();
            ip("-4 route prepend blackhole 10.0.0.0/24 proto static table 100");

            let writer = start(after);
            writer.add(VNI, route("10.0.0.0/24", 1));
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            let shown_now = shown("10.0.0.0/24");
            assert!(shown_now.starts_with("blackhole"), "{shown_now}");
            eventually("it waits", WAIT, || writer.stats().shadowed == 1);
            ip("-4 route del blackhole 10.0.0.0/24 proto static table 100");
            eventually("it comes", WAIT, || writer.stats().in_sync);
            assert!(shown("10.0.0.0/24").contains("dst 2001:db8::1 "));
            writer.remove(VNI, route("10.0.0.0/24", 1));
            writer.flush(WAIT).unwrap();
            assert_eq!(table(100), "");
            writer.shutdown(WAIT).unwrap();
        }
    });
}

/// The kernel deletes the routes of an object with it, whoever put them there.
#[test]
fn nexthop_object_stays_as_long_as_somebody_elses_route_leads_to_it() {
    in_namespace("borrowed", || {
        make_device();
        let writer = start(config());
        writer.synced(VNI);
        writer.add(VNI, route("10.0.0.0/24", 1));
        writer.add(VNI, route("10.0.1.0/24", 2));
        writer.add(VNI, route("10.0.1.0/24", 3));
        writer.flush(WAIT).unwrap();
        let id_of = |prefix: &str| {
            let line = shown(prefix);
            let mut words = line.split_whitespace().skip_while(|it| *it != "nhid");
            words.nth(1).unwrap().to_owned()
        };
        let ids = [id_of("10.0.0.0/24"), id_of("10.0.1.0/24")];
        for (n, id) in ids.iter().enumerate() {
            ip(&format!(
                "-4 route add 10.5{n}.0.0/16 nhid {id} table 300 proto static"
            ));
        }
        // The destinations: a group leads elsewhere when a member goes.
        let theirs = || {
            let mut all = installed("300");
            all.retain(|it| it.starts_with("10."));
            all
        };
        let before = theirs();
        assert_eq!(before.len(), 2);
        // A whole turn: it has seen them.
        writer.flush(WAIT).unwrap();
        let routes = [("10.0.0.0/24", 1), ("10.0.1.0/24", 2), ("10.0.1.0/24", 3)];
        for (prefix, hop) in routes {
            writer.remove(VNI, route(prefix, hop));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(table(100), "");
        assert_eq!(theirs(), before);
        writer.shutdown(WAIT).unwrap();

        // The next one finds them by reading, and another end leaves them too.
        let writer = start(KernelConfig {
            cleanup_on_exit: true,
            ..config()
        });
        writer.synced(VNI);
        writer.add(VNI, route("10.0.0.0/24", 4));
        writer.flush(WAIT).unwrap();
        assert_eq!(theirs(), before);
        writer.shutdown(WAIT).unwrap();
        assert_eq!(theirs(), before);

        // So does one whose routes do not use objects, for which these are left over.
        let writer = start(fallback());
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert_eq!(theirs(), before);
        writer.shutdown(WAIT).unwrap();

        let writer = start(config());
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        let objects = || ip("nexthop show proto 254").lines().count();
        assert_eq!(objects(), 3, "two, and a group");
        ip("-4 route del 10.50.0.0/16 table 300");
        eventually("one goes", WAIT, || objects() == 2);
        ip("-4 route del 10.51.0.0/16 table 300");
        eventually("all go", WAIT, || objects() == 0);
    });
}

#[test]
fn route_that_was_put_before_ours_is_left_alone() {
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
            writer.stats().shadowed,
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
        // Long before the check of every five minutes.
        eventually("theirs went", WAIT, moved);
        assert!(writer.stats().in_sync);
        for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
            writer.remove(VNI, route(prefix, 3));
        }
        writer.flush(WAIT).unwrap();
        assert!(!table(100).contains("proto 254"), "{}", table(100));
        assert!(theirs().starts_with("blackhole 10.0.1.0/24"));
    });
}

/// An operator's routes in the place of ours, put there by replacement.
#[test]
fn route_of_an_operator_is_never_replaced_and_survives_a_flap_of_the_device() {
    in_namespace("shadow", || {
        make_device();
        let writer = start(config());
        let prefixes = ["10.0.0.0/24", "10.0.1.0/24", "fd00:1::/64", "fd00:2::/64"];
        for prefix in prefixes {
            writer.add(VNI, route(prefix, 1));
        }
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert!(writer.stats().in_sync);
        ip("-4 route replace blackhole 10.0.0.0/24 table 100 proto static");
        ip("-6 route replace blackhole fd00:1::/64 table 100 proto static");
        eventually("noticed", WAIT, || writer.stats().shadowed == 2);
        let stats = writer.stats();
        assert!(stats.last_error.unwrap().contains("somebody else"));
        assert!(!stats.in_sync);
        // Added beside ours, and then ours go for a while.
        ip("-4 route append blackhole 10.0.1.0/24 table 100 proto static");
        ip("-6 route append blackhole fd00:2::/64 table 100 proto static");
        let theirs = || {
            ip("-4 route show table 100 proto static") + &ip("-6 route show table 100 proto static")
        };
        let before = theirs();
        assert_eq!(before.lines().count(), 4);
        ip(&format!("link set {DEVICE} down"));
        eventually("down", WAIT, || !writer.stats().device_up);
        ip(&format!("link set {DEVICE} up"));
        eventually("up", WAIT, || writer.stats().shadowed == 4);
        for prefix in prefixes {
            writer.add(VNI, route(prefix, 2));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(theirs(), before);
        ip("-4 route del blackhole 10.0.0.0/24 table 100 proto static");
        ip("-4 route del blackhole 10.0.1.0/24 table 100 proto static");
        ip("-6 route del blackhole fd00:1::/64 table 100 proto static");
        ip("-6 route del blackhole fd00:2::/64 table 100 proto static");
        eventually("ours come", WAIT, || writer.stats().in_sync);
        assert_eq!(writer.stats().last_error, None, "all is well");
        assert_eq!(table(100).matches("dst 2001:db8::2 ").count(), 4);
    });
}

/// DHCP and router advertisements use protocols 16 and 9.
#[test]
fn default_route_of_the_host_is_not_ours_although_it_has_our_protocol_and_table() {
    in_namespace("dhcp", || {
        make_device();
        ip("-4 route add default dev lo proto 16");
        ip("-6 route add default dev lo proto 16 metric 1024");
        let before = ip("-4 route show default") + &ip("-6 route show default");
        let config = KernelConfig {
            vni_tables: BTreeMap::from([(VNI, 254)]),
            protocol: 16,
            cleanup_on_exit: true,
            ..config()
        };
        let writer = start(config);
        writer.add(VNI, route("10.0.0.0/24", 1));
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().installed, 1);
        writer.shutdown(WAIT).unwrap();
        let after = ip("-4 route show default") + &ip("-6 route show default");
        assert_eq!(after, before);
        assert_eq!(ip("-4 route show 10.0.0.0/24"), "");
    });
}

/// The whole host is read while 200,000 routes of others stand there: a route that is announced
/// meanwhile is written before the reading ends.
#[test]
fn new_route_is_written_while_the_kernel_is_read() {
    in_namespace("reading", || {
        make_device();
        let theirs: String = (0..200_000_u32)
            .map(|n| {
                let address = std::net::Ipv4Addr::from(0x0b00_0000 + n);
                format!("route add blackhole {address} table 77\n")
            })
            .collect();
        ip_batch(&theirs, "-4");
        let writer = start(config());
        let mut n = 0;
        let mut is_met = || {
            let readings = writer.stats().resyncs;
            // Another table is another reading of all.
            let config = KernelConfig {
                vni_tables: BTreeMap::from([(VNI, 100), (rustbond::Vni(9), 200 + n)]),
                ..config()
            };
            writer.reconfigure(config, |_| Ok(Vec::new())).unwrap();
            writer.add(VNI, nth_v4(n, 1));
            n += 1;
            eventually("it is installed", WAIT, || {
                writer.stats().installed == u64::from(n)
            });
            let is_met = writer.stats().resyncs == readings;
            eventually("all is read", WAIT, || writer.stats().resyncs > readings);
            is_met
        };
        // A busy machine may look too late, but not always.
        assert!((0..50).any(|_| is_met()));
    });
}

#[test]
fn somebody_who_removes_our_routes_again_and_again_is_named_and_waited_for() {
    in_namespace("fight", || {
        make_device();
        let writer = start(config());
        writer.add(VNI, route("10.0.0.0/24", 1));
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        let is_there = || !ip("-4 route show 10.0.0.0/24 table 100").is_empty();
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while writer.stats().obstacle.is_none() {
            assert!(std::time::Instant::now() < end, "{:?}", writer.stats());
            eventually("it is repaired", WAIT, is_there);
            ip("-4 route del 10.0.0.0/24 table 100");
        }
        let stats = writer.stats();
        assert!(stats.obstacle.unwrap().contains("somebody else"));
        assert!(!stats.in_sync);
        assert!(stats.repairs.routes > 5 && stats.messages < 1000);
        eventually("it is repaired after a pause", WAIT, is_there);
    });
}
