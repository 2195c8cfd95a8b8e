//! Routes and their hops in a real kernel: encapsulation, groups, bursts.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use rustbond::NextHopType;

use crate::netns::{DEVICE, in_namespace, ip, make_device};
use crate::writer::*;

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
fn hypervisor_leaves_a_thousand_groups_in_few_messages() {
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

/// `ip` of iproute2 6.1 shows none of them: its buffer is too small.
#[test]
fn routes_with_many_next_hops_are_read_back() {
    in_namespace("wide", || {
        make_device();
        let announce = |writer: &rustbond::kernel::KernelWriter| {
            for n in 0..50 {
                for hop in 0..250 {
                    writer.add(VNI, nth_v4(n, hop));
                    writer.add(VNI, nth_v6(n, hop));
                }
            }
        };
        let writer = start(config());
        announce(&writer);
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().installed, 100);
        writer.shutdown(WAIT).unwrap();
        let config = config();
        let found = rustbond::kernel::survey(config.protocol, config.nexthop_ids.clone());
        let found = found.unwrap();
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|it| it.next_hops.len() == 250));
        let writer = start(config);
        assert_eq!(writer.stats().settling, 100);
        announce(&writer);
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert_eq!(writer.stats().messages, 0);
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
