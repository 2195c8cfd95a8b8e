//! Next hops that cannot be, that are away for a while, and that the kernel refuses.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustbond::kernel::{KernelConfig, vrf_table};
use rustbond::{NextHop, Route, Vni};

use crate::netns::{DEVICE, in_namespace, ip, make_device};
use crate::writer::*;

#[test]
fn next_hop_that_no_tunnel_can_lead_to_is_refused_and_named() {
    in_namespace("hops", || {
        make_device();
        let writer = start(config());
        let bad = [
            ("::", "the unspecified address"),
            ("::1", "the loopback address"),
            ("ff02::1", "a multicast address"),
            ("fe80::1", "a link-local address"),
            ("::ffff:192.0.2.1", "an IPv4 address that is mapped"),
            ("192.0.2.1", "an IPv4 address"),
        ];
        for (n, (address, reason)) in (0..).zip(bad) {
            let address: IpAddr = address.parse().unwrap();
            let mut route = nth_v4(n, 1);
            route.next_hop = NextHop::standard(address);
            writer.add(VNI, route);
            writer.flush(WAIT).unwrap();
            let stats = writer.stats();
            assert_eq!(stats.uninstallable, u64::from(n) + 1);
            let warning = stats.last_warning.unwrap();
            assert!(warning.contains(reason), "{address}: {warning}");
            assert!(warning.contains(&address.to_string()), "{warning}");
        }
        assert_eq!((table(100), ip("nexthop")), (String::new(), String::new()));
    });
}

#[test]
fn destination_with_more_next_hops_than_a_route_has_is_named() {
    in_namespace("many", || {
        make_device();
        let writer = start(config());
        // Two announcements that lead to one address are one next hop.
        let target = NextHop::load_balancer(underlay(1));
        writer.add(VNI, nth_v4(0, 1));
        writer.add(VNI, Route::new(nth_v4(0, 1).destination, target));
        for hop in 2..257 {
            writer.add(VNI, nth_v4(0, hop));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().last_warning, None);
        for hop in 257..600 {
            writer.add(VNI, nth_v4(0, hop));
        }
        writer.flush(WAIT).unwrap();
        let warning = writer.stats().last_warning.unwrap();
        let expected = "10.0.0.0/24 has more than 256 next hops";
        assert!(warning.contains(expected), "{warning}");
        let objects = ip("nexthop show proto 254").lines().count();
        assert_eq!(objects, 256 + 1, "the hops and their group");
    });
}

#[test]
fn prefix_of_two_vnis_in_one_table_leads_to_the_lower_and_is_named() {
    in_namespace("shared", || {
        make_device();
        let writer = start(KernelConfig {
            vni_tables: BTreeMap::from([(Vni(8), 100), (VNI, 100)]),
            ..config()
        });
        writer.add(Vni(8), route("10.0.0.0/24", 8));
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().last_warning, None);
        writer.add(VNI, route("10.0.0.0/24", 7));
        writer.flush(WAIT).unwrap();
        let text = shown("10.0.0.0/24");
        assert!(text.contains("dst 2001:db8::7 "), "{text}");
        assert!(!text.contains("group") && !text.contains("2001:db8::8 "));
        let warning = writer.stats().last_warning.unwrap();
        assert!(warning.contains("10.0.0.0/24"), "{warning}");
        assert!(
            warning.contains("the routes of VNI 7 are used"),
            "{warning}"
        );
        writer.remove(VNI, route("10.0.0.0/24", 7));
        writer.flush(WAIT).unwrap();
        assert!(shown("10.0.0.0/24").contains("dst 2001:db8::8 "));
    });
}

#[test]
fn unreachable_next_hop_leaves_its_group_by_one_message_and_comes_back() {
    in_namespace("track", || {
        make_device();
        for n in 1..=3 {
            ip(&format!("-6 route add {} dev lo", underlay(n)));
        }
        let writer = start(KernelConfig {
            track_nexthops: true,
            ..config()
        });
        for n in 0..200 {
            for hop in 1..=3 {
                writer.add(VNI, nth_v4(n, hop));
            }
        }
        // One that has no other.
        writer.add(VNI, route("11.0.0.0/24", 2));
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        let is_full = || {
            let text = shown("10.0.7.0/24");
            (1..=3).all(|hop| text.contains(&format!("dst {} ", underlay(hop))))
        };
        eventually("all are there", WAIT, || {
            is_full() && writer.stats().unreachable == 0
        });
        let messages = || writer.stats().messages;
        let before = messages();
        ip(&format!("-6 route del {} dev lo", underlay(2)));
        let away = || !shown("10.0.7.0/24").contains("dst 2001:db8::2 ");
        eventually("it is left out", WAIT, away);
        assert!(shown("11.0.0.0/24").contains("dst 2001:db8::2 "));
        assert_eq!(writer.stats().unreachable, 1);
        assert_eq!(messages() - before, 1);
        assert!(writer.stats().in_sync);
        ip(&format!("-6 route add {} dev lo", underlay(2)));
        eventually("it is back", WAIT, is_full);
        assert_eq!(messages() - before, 2);
        // A route that says no is none.
        ip(&format!("-6 route replace unreachable {}", underlay(3)));
        ip(&format!("-6 route del {} dev lo", underlay(3)));
        let away = || !shown("10.0.7.0/24").contains("dst 2001:db8::3 ");
        eventually("it is left out too", WAIT, away);
    });
}

/// A kernel that makes no IPv6 objects on the device refuses all.
#[test]
fn refused_routes_are_tried_again_less_and_less_often() {
    in_namespace("refused", || {
        make_device();
        let writer = start(config());
        // The kernel shows each thread the settings of its namespace.
        let knob = format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6");
        std::fs::write(&knob, "1").unwrap();
        let routes = 500;
        for n in 0..routes {
            writer.add(VNI, nth_v4(n, 1));
        }
        eventually("all are refused", WAIT, || {
            writer.stats().failed == u64::from(routes)
        });
        assert!(writer.stats().last_error.is_some());
        // Tries after 0.25, 0.75, 1.75 and 3.75 s; every 0.25 s they would be 12.
        let begin = Instant::now();
        eventually("3 s", WAIT, || begin.elapsed() > Duration::from_secs(3));
        let messages = writer.stats().messages;
        let tries = messages / u64::from(routes);
        assert!(tries <= 6, "{messages} messages");
        std::fs::write(&knob, "0").unwrap();
        eventually("the kernel takes them", WAIT, || {
            writer.stats().installed == 500
        });
        eventually("all is well", WAIT, || writer.stats().in_sync);
        assert_eq!(writer.stats().last_error, None);
    });
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn name_of_a_vrf_device_is_that_of_its_table() {
    in_namespace("vrf", || {
        make_device();
        assert_eq!(vrf_table("no-such-device").unwrap(), None);
        assert_eq!(vrf_table(DEVICE).unwrap(), None, "it is no VRF");
        let made = std::process::Command::new("ip")
            .args(["link", "add", "name", "red", "type", "vrf", "table", "4321"])
            .status();
        if !made.unwrap().success() {
            eprintln!("SKIPPED: the kernel has no VRF devices");
            return;
        }
        assert_eq!(vrf_table("red").unwrap(), Some(4321));
    });
}

#[test]
fn vni_may_have_a_metric_of_its_own_and_another_one_moves_its_routes() {
    in_namespace("metrics", || {
        make_device();
        let of = |metric| KernelConfig {
            vni_tables: BTreeMap::from([(VNI, 100), (Vni(8), 100)]),
            vni_metrics: BTreeMap::from([(Vni(8), metric)]),
            ..config()
        };
        let writer = start(of(50));
        for n in 0..20 {
            writer.add(VNI, nth_v4(n, 1));
            writer.add(Vni(8), nth_v4(n, 2));
            writer.add(Vni(8), nth_v6(n, 2));
        }
        writer.flush(WAIT).unwrap();
        let count = |metric: &str| {
            let text = table(100);
            let routes = text.lines().filter(|it| it.starts_with("unicast"));
            routes.filter(|it| it.contains(metric)).count()
        };
        assert_eq!((count("metric 50"), count("")), (40, 60));
        assert_eq!(writer.stats().last_warning, None, "they do not meet");
        let received = |vni: Vni| {
            assert_eq!(vni, Vni(8));
            let routes = (0..20).flat_map(|n| [nth_v4(n, 2), nth_v6(n, 2)]);
            Ok(routes.collect())
        };
        writer.reconfigure(of(60), received).unwrap();
        writer.synced(Vni(8));
        eventually("they move", WAIT, || {
            (count("metric 60"), count("metric 50"), count("")) == (40, 0, 60)
        });
        writer.shutdown(WAIT).unwrap();
        let writer = start(of(70));
        for n in 0..20 {
            writer.add(VNI, nth_v4(n, 1));
            writer.add(Vni(8), nth_v4(n, 2));
            writer.add(Vni(8), nth_v6(n, 2));
        }
        writer.synced(VNI);
        writer.synced(Vni(8));
        eventually("they move", WAIT, || {
            (count("metric 70"), count("metric 60"), count("")) == (40, 0, 60)
        });
        writer.shutdown(WAIT).unwrap();
    });
}
