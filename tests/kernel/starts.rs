//! How a writer begins and ends: what it finds, and what it leaves.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rustbond::kernel::{KernelConfig, KernelWriter, NexthopMode};
use rustbond::{NextHop, NextHopType, Vni};

use crate::netns::{self, DEVICE, Monitor, in_namespace, ip, make_device};
use crate::writer::*;

#[test]
fn restart_with_an_unchanged_table_writes_nothing() {
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

/// The way back to Go MetalBond, which deletes the routes of its protocol one by one at its start
/// and dies on one with a nexthop id.
#[test]
fn routes_of_the_inline_form_can_be_deleted_as_go_does_it() {
    in_namespace("way-back", || {
        make_device();
        for config in [config(), fallback()] {
            let writer = start(config);
            for n in 0..50 {
                for hop in [1, 2] {
                    writer.add(VNI, nth_v4(n, hop));
                    writer.add(VNI, nth_v6(n, hop));
                }
            }
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            assert_eq!(writer.stats().installed, 100);
            writer.shutdown(WAIT).unwrap();
        }
        assert_eq!(ip("nexthop show proto 254"), "");
        for family in ["-4", "-6"] {
            let routes = ip(&format!("{family} route show table 100 proto 254"));
            assert!(!routes.contains("nhid"), "{routes}");
            // Lines that begin with a space belong to the route before.
            let begins = routes.lines().filter(|line| !line.starts_with([' ', '\t']));
            let prefixes: Vec<&str> = begins.filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(prefixes.len(), 50, "{routes}");
            for prefix in prefixes {
                ip(&format!("{family} route del {prefix} table 100 proto 254"));
            }
        }
        assert_eq!(table(100), "");
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

/// The events of a prefix in `ip monitor`, in order: whether it was deleted.
fn events(text: &str, prefix: &str) -> Vec<bool> {
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let is_deleted = line.starts_with("Deleted");
        let line = line.strip_prefix("Deleted ").unwrap_or(line);
        line.starts_with(&format!("{prefix} "))
            .then_some(is_deleted)
    });
    lines.collect()
}

#[test]
fn another_kernel_form_makes_routes_before_it_breaks_them() {
    in_namespace("forms", || {
        make_device();
        let announce = |writer: &KernelWriter| {
            for n in 0..50 {
                writer.add(VNI, nth_v4(n, 1));
                writer.add(VNI, nth_v6(n, 1));
            }
        };
        let writer = start(config());
        announce(&writer);
        writer.flush(WAIT).unwrap();
        writer.shutdown(WAIT).unwrap();
        for (config, has_objects) in [(fallback(), false), (config(), true)] {
            let monitor = Monitor::start();
            let writer = start(config);
            announce(&writer);
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            eventually("they moved", WAIT, || writer.stats().in_sync);
            writer.shutdown(WAIT).unwrap();
            let text = monitor.stop();
            for prefix in ["10.0.7.0/24", "fd00:0:0:7::/64"] {
                assert_eq!(events(&text, prefix), [false, true], "{prefix}");
            }
            assert_eq!(ip("nexthop").is_empty(), !has_objects);
            assert_eq!(table(100).matches("unicast").count(), 100);
        }
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
fn routes_stay_after_a_failure_even_if_they_shall_not() {
    in_namespace("abandon", move || {
        make_device();
        let config = KernelConfig {
            cleanup_on_exit: true,
            ..config()
        };
        let writer = start(config.clone());
        writer.add(VNI, nth_v4(1, 1));
        writer.flush(WAIT).unwrap();
        let before = table(100);
        assert!(before.contains("10.0.1.0/24"), "{before}");
        writer.abandon(WAIT).unwrap();
        assert!(!writer.stats().running);
        assert_eq!(table(100), before);
        // The next one adopts them, and removes them at its orderly end.
        let writer = start(config);
        writer.shutdown(WAIT).unwrap();
        assert_eq!(table(100), "");
    });
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
        let refused = || KernelWriter::start(config()).err().unwrap().to_string();
        ip(&format!("link add {DEVICE} type bridge"));
        let text = refused();
        assert!(text.contains("does not encapsulate"), "{text}");
        ip(&format!("link del {DEVICE}"));
        ip(&format!(
            "link add {DEVICE} type vxlan id 7 remote ::1 dstport 4791"
        ));
        let text = refused();
        assert!(text.contains("one fixed address"), "{text}");
        ip(&format!("link del {DEVICE}"));
        make_device();
        netns::drop_net_admin();
        let text = refused();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    });
}

#[test]
fn missing_device_is_waited_for() {
    in_namespace("missing", || {
        let writer = KernelWriter::start(config()).unwrap();
        writer.add(VNI, route("10.0.0.0/24", 1));
        let text = writer.flush(WAIT).unwrap_err().to_string();
        assert!(text.contains("does not exist"), "{text}");
        let stats = writer.stats();
        assert!(stats.uses_nexthop_objects && !stats.device_up && !stats.in_sync);
        assert!(stats.obstacle.unwrap().contains(DEVICE));
        ip(&format!("link add {DEVICE} type bridge"));
        ip(&format!("link set {DEVICE} up"));
        let is_unfit = || {
            let text = writer.stats().obstacle;
            text.is_some_and(|it| it.contains("does not encapsulate"))
        };
        eventually("one of another kind is refused", WAIT, is_unfit);
        assert_eq!(table(100), "");
        ip(&format!("link del {DEVICE}"));
        make_device();
        eventually("it comes", WAIT, || writer.stats().obstacle.is_none());
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert!(shown("10.0.0.0/24").contains("dst 2001:db8::1 "));
        eventually("all is well", WAIT, || writer.stats().in_sync);
        assert_eq!(writer.stats().last_error, None);
    });
}

#[test]
fn largest_numbers_are_written_and_adopted() {
    in_namespace("largest", || {
        make_device();
        let config = KernelConfig {
            vni_tables: BTreeMap::from([(Vni(u32::MAX), u32::MAX)]),
            metric: Some(u32::MAX),
            protocol: 255,
            nexthop_ids: u32::MAX - 65_536..u32::MAX,
            ..config()
        };
        for writes in [true, false] {
            let writer = start(config.clone());
            for n in 0..2 {
                writer.add(Vni(u32::MAX), nth_v4(0, n));
                writer.add(Vni(u32::MAX), nth_v6(0, n));
            }
            writer.synced(Vni(u32::MAX));
            writer.flush(WAIT).unwrap();
            let stats = writer.stats();
            assert!(stats.in_sync, "{stats:?}");
            // How many at first depends on what comes in one batch.
            assert_eq!((stats.installed, stats.messages > 0), (2, writes));
            writer.shutdown(WAIT).unwrap();
        }
        let flushed = rustbond::kernel::flush(255, config.nexthop_ids.clone(), None).unwrap();
        assert_eq!((flushed.routes, flushed.nexthop_objects), (2, 3));
    });
}

/// More were called installed than wanted.
#[test]
fn routes_of_an_earlier_process_are_counted_apart_until_they_settle() {
    in_namespace("settling", || {
        make_device();
        let writer = start(config());
        for n in 0..22 {
            writer.add(VNI, nth_v4(n, 1));
        }
        writer.flush(WAIT).unwrap();
        writer.shutdown(WAIT).unwrap();

        let writer = start(config());
        let counts = || {
            let stats = writer.stats();
            (stats.desired, stats.installed, stats.settling)
        };
        assert_eq!(counts(), (0, 0, 22));
        for n in 0..20 {
            writer.add(VNI, nth_v4(n, 1));
        }
        writer.flush(WAIT).unwrap();
        assert_eq!(counts(), (20, 20, 2));
        writer.synced(VNI);
        writer.flush(WAIT).unwrap();
        assert_eq!(counts(), (20, 20, 0));
        assert_eq!(table(100).matches("unicast").count(), 20);
    });
}
