//! Other options at the next start: what stands where nobody wants it any more.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::time::Duration;

use rustbond::Vni;
use rustbond::kernel::{self, KernelConfig, KernelWriter, NexthopMode, Standing};

use crate::netns::{DEVICE, in_namespace, ip, make_device};
use crate::writer::*;

/// A device like [`make_device`] makes, beside it.
const SECOND: &str = "overlay-two";

fn make_second_device() {
    ip(&format!(
        "link add {SECOND} type vxlan external gpe dstport 4799 udp6zerocsumrx"
    ));
    ip(&format!("link set {SECOND} up"));
}

/// What an earlier process left: routes of VNI 7 in table 100 and of VNI 8 in table 200.
fn left_by(config: &KernelConfig) {
    let mut tables = BTreeMap::from([(Vni(8), 200)]);
    tables.extend(&config.vni_tables);
    let writer = start(KernelConfig {
        vni_tables: tables,
        ..config.clone()
    });
    for n in 0..20 {
        for vni in [VNI, Vni(8)] {
            writer.add(vni, nth_v4(n, 1));
            writer.add(vni, nth_v6(n, 1));
            writer.add(vni, nth_v6(n, 2));
        }
    }
    writer.flush(WAIT).unwrap();
    writer.shutdown(WAIT).unwrap();
    assert!(table(100).matches("unicast").count() >= 40);
}

/// Lines of `ip route` in table 100 that contain a text.
fn count(text: &str) -> usize {
    let is_route = |line: &&str| line.starts_with("unicast") && line.contains(text);
    table(100).lines().filter(is_route).count()
}

#[test]
fn another_metric_table_or_device_leaves_nothing_behind_and_waits_for_no_server() {
    for mode in [NexthopMode::Auto, NexthopMode::Never] {
        in_namespace("other", move || {
            make_device();
            make_second_device();
            let first = KernelConfig {
                nexthop_objects: mode,
                ..config()
            };
            left_by(&first);
            let in_sync = |writer: &KernelWriter| {
                eventually("in sync", WAIT, || writer.stats().in_sync);
            };

            // VNI 8 is not mapped any more, and the metric is another one.
            let metric = KernelConfig {
                metric: Some(50),
                ..first.clone()
            };
            let writer = start(metric.clone());
            in_sync(&writer);
            assert_eq!(table(200), "");
            assert_eq!((count("metric 50"), count("")), (40, 40));
            writer.shutdown(WAIT).unwrap();

            let device = KernelConfig {
                device: SECOND.into(),
                ..metric.clone()
            };
            let writer = start(device.clone());
            in_sync(&writer);
            let text = table(100);
            assert!(!text.contains(DEVICE), "{text}");
            assert_eq!((count("metric 50"), count("")), (40, 40));
            if mode == NexthopMode::Auto {
                assert_eq!(ip("nexthop show proto 254").lines().count(), 3);
                assert!(!ip("nexthop").contains(DEVICE));
            }
            // Those that are announced stay, the others go with the table.
            writer.add(VNI, nth_v4(0, 1));
            writer.add(VNI, nth_v6(0, 1));
            writer.synced(VNI);
            writer.flush(WAIT).unwrap();
            assert_eq!(count(""), 2);
            writer.shutdown(WAIT).unwrap();

            // From another underlay address, as from another device.
            let source = KernelConfig {
                encap_source: Some(underlay(99)),
                ..device.clone()
            };
            let writer = start(source);
            writer.add(VNI, nth_v4(0, 1));
            writer.add(VNI, nth_v6(0, 1));
            in_sync(&writer);
            let text = table(100);
            assert!(text.contains("src 2001:db8::63 "), "{text}");
            assert!(!text.contains("src :: "), "{text}");
            writer.shutdown(WAIT).unwrap();

            // The device gets another name; what the first one left is removed all the same.
            ip(&format!("link set {SECOND} name renamed"));
            let cleaning = KernelConfig {
                cleanup_on_exit: true,
                ..device
            };
            let writer = KernelWriter::start(cleaning).unwrap();
            writer.shutdown(WAIT).unwrap();
            assert_eq!((table(100), ip("nexthop")), (String::new(), String::new()));
        });
    }
}

/// Lines of `ip route` in a table by a device.
fn count_by(number: u32, device: &str) -> usize {
    let text = table(number);
    let routes = text.lines().filter(|it| it.starts_with("unicast"));
    routes
        .filter(|it| it.contains(&format!(" {device} ")))
        .count()
}

#[test]
fn vni_may_have_a_device_of_its_own_and_the_routes_of_others_do_not_wait_for_it() {
    in_namespace("devices", || {
        make_device();
        let mixed = KernelConfig {
            vni_tables: BTreeMap::from([(VNI, 100), (Vni(8), 200)]),
            vni_devices: BTreeMap::from([(Vni(8), SECOND.into())]),
            ..config()
        };
        let one_table = KernelConfig {
            vni_tables: BTreeMap::from([(VNI, 100), (Vni(8), 100)]),
            ..mixed.clone()
        };
        let text = KernelWriter::start(one_table).err().unwrap().to_string();
        assert!(text.contains("two devices"), "{text}");
        let by = || [(100, DEVICE), (200, SECOND)].map(|(number, it)| count_by(number, it));
        // The second device is missing: its routes wait, the others do not.
        let writer = KernelWriter::start(mixed.clone()).unwrap();
        announce(&writer);
        eventually("those of the first", WAIT, || by() == [20, 0]);
        let obstacle = || writer.stats().obstacle.unwrap_or_default();
        eventually("it is named", WAIT, || obstacle().contains(SECOND));
        make_second_device();
        eventually("both", WAIT, || by() == [20, 20]);
        eventually("all is well", WAIT, || writer.stats().in_sync);
        assert_eq!((count(""), table(200).matches("unicast").count()), (40, 40));
        ip(&format!("link set {SECOND} down"));
        eventually("noticed", WAIT, || obstacle().contains(SECOND));
        writer.add(VNI, route("10.50.0.0/16", 3));
        eventually("the first goes on", WAIT, || {
            shown("10.50.0.0/16").contains("dst 2001:db8::3 ")
        });
        ip(&format!("link set {SECOND} up"));
        writer.remove(VNI, route("10.50.0.0/16", 3));
        eventually("both again", WAIT, || {
            by() == [20, 20] && writer.stats().in_sync
        });
        writer.shutdown(WAIT).unwrap();

        // At the next start both have the first one: the routes move before anybody is heard.
        let writer = start(KernelConfig {
            vni_devices: BTreeMap::new(),
            ..mixed
        });
        eventually("they moved", WAIT, || count_by(200, SECOND) == 0);
        assert_eq!(table(200).matches("unicast").count(), 40);
        announce(&writer);
        eventually("all is well", WAIT, || writer.stats().in_sync);
        assert!(!ip("nexthop").contains(SECOND));
    });
}

/// 40 destinations in each of two VNIs, with all their tables told.
fn announce(writer: &KernelWriter) {
    for n in 0..20 {
        for vni in [VNI, Vni(8)] {
            writer.add(vni, nth_v4(n, 1));
            writer.add(vni, nth_v6(n, 1));
            writer.add(vni, nth_v6(n, 2));
        }
    }
    writer.synced(VNI);
    writer.synced(Vni(8));
}

/// They were tried and refused, with growing pauses.
#[test]
fn routes_whose_device_is_missing_wait_for_it_and_are_not_tried() {
    in_namespace("wait", || {
        make_device();
        let mixed = KernelConfig {
            vni_tables: BTreeMap::from([(VNI, 100), (Vni(8), 200)]),
            vni_devices: BTreeMap::from([(Vni(8), SECOND.into())]),
            ..config()
        };
        let writer = KernelWriter::start(mixed).unwrap();
        announce(&writer);
        let counts = || {
            let stats = writer.stats();
            (stats.desired, stats.installed, stats.waiting, stats.failed)
        };
        let flush = || writer.flush(WAIT).map_err(|error| error.to_string());
        let error = flush().unwrap_err();
        assert!(error.contains(SECOND) && error.contains("wait"), "{error}");
        assert_eq!(counts(), (80, 40, 40, 0));
        let stats = writer.stats();
        assert!(!stats.in_sync);
        assert!(stats.obstacle.unwrap().contains(SECOND));
        assert!(stats.last_error.unwrap().contains(SECOND));
        // Whatever else is written, they are not.
        for n in 0..20 {
            writer.add(VNI, nth_v4(100 + n, 1));
            writer.add(Vni(8), nth_v4(100 + n, 1));
        }
        flush().unwrap_err();
        assert_eq!(counts(), (120, 60, 60, 0));
        assert_eq!(writer.stats().messages, stats.messages + 20);

        make_second_device();
        eventually("they come", WAIT, || counts() == (120, 120, 0, 0));
        eventually("all is well", WAIT, || writer.stats().in_sync);
        assert_eq!((flush(), writer.stats().last_error), (Ok(()), None));
        ip(&format!("link del {SECOND}"));
        eventually("they wait again", WAIT, || {
            let counts = counts();
            assert_eq!(counts.3, 0, "none is refused");
            counts == (120, 60, 60, 0)
        });
        make_second_device();
        eventually("they come again", WAIT, || counts() == (120, 120, 0, 0));
        // The first one is waited for in the same way.
        ip(&format!("link set {DEVICE} down"));
        eventually("noticed", WAIT, || counts() == (120, 60, 60, 0));
        ip(&format!("link set {DEVICE} up"));
        eventually("all is well", WAIT, || writer.stats().in_sync);
    });
}

#[test]
fn routes_that_a_client_left_under_another_protocol_are_named_and_can_be_flushed() {
    in_namespace("protocol", || {
        make_device();
        let before = others();
        left_by(&config());
        let protocol = 77;
        let writer = start(KernelConfig {
            protocol,
            ..config()
        });
        for n in 0..20 {
            writer.add(VNI, nth_v4(n, 1));
        }
        eventually("theirs stand there", WAIT, || writer.stats().shadowed == 20);
        let warning = writer.stats().last_warning.unwrap();
        assert!(warning.contains("kernel flush --rt-proto 254"), "{warning}");
        let ids = config().nexthop_ids;
        let shadowed = kernel::survey(254, ids.clone()).unwrap();
        let of_ours = |table: u32| shadowed.iter().filter(|it| it.table == table).count();
        assert_eq!((of_ours(100), of_ours(200)), (40, 40));
        let some = kernel::flush(254, ids.clone(), Some(200)).unwrap();
        assert_eq!((some.routes, some.nexthop_objects), (40, 0));
        let all = kernel::flush(254, ids.clone(), None).unwrap();
        assert_eq!((all.routes, all.nexthop_objects), (40, 3));
        assert_eq!(others_now(), before);
        eventually("ours come", WAIT, || writer.stats().in_sync);
        assert_eq!((count("proto 77"), count("proto static")), (20, 2));
        let running = kernel::flush(protocol, ids.clone(), None).unwrap_err();
        assert!(running.to_string().contains("another client"), "{running}");

        // A route of somebody else that packets take, and one that they do not.
        ip("-4 route add blackhole 10.0.1.0/24 table 100 metric 7 proto static");
        ip("-4 route prepend blackhole 10.0.2.0/24 table 100 proto static");
        let routes = kernel::survey(protocol, ids).unwrap();
        let of = |prefix: &str| {
            let of = routes.iter().filter(|it| it.prefix.to_string() == prefix);
            of.map(|it| it.standing).collect::<Vec<_>>()
        };
        assert_eq!(of("10.0.0.0/24"), [Standing::Ours]);
        assert_eq!(of("10.0.1.0/24"), [Standing::Ours, Standing::Foreign]);
        assert_eq!(of("10.0.2.0/24"), [Standing::Foreign, Standing::Shadowed]);
        assert_eq!(routes.len(), 22);
        let hops = &routes[0].next_hops;
        assert_eq!(hops[..], [underlay(1)]);
    });
}

#[test]
fn two_writers_live_side_by_side_with_other_numbers_and_a_second_one_is_refused() {
    in_namespace("two", || {
        make_device();
        let first = start(config());
        let text = KernelWriter::start(config()).err().unwrap().to_string();
        assert!(text.contains("another client"), "{text}");
        assert!(text.contains("protocol 254"), "{text}");
        let range = KernelConfig::default().nexthop_ids;
        let overlapping = KernelConfig {
            nexthop_ids: range.start + 1..range.end + 1,
            ..config()
        };
        assert!(KernelWriter::start(overlapping).is_err());
        let other = KernelConfig {
            vni_tables: BTreeMap::from([(Vni(8), 200)]),
            nexthop_ids: 1_000_000..1_100_000,
            ..config()
        };
        let inline = KernelConfig {
            nexthop_objects: NexthopMode::Never,
            ..other.clone()
        };
        let text = KernelWriter::start(inline).err().unwrap().to_string();
        assert!(text.contains("another client"), "{text}");
        let second = start(other);
        for n in 0..100 {
            first.add(VNI, nth_v4(n, 1));
            second.add(Vni(8), nth_v4(n, 2));
        }
        first.synced(VNI);
        second.synced(Vni(8));
        let both = || {
            first.flush(WAIT).unwrap();
            second.flush(WAIT).unwrap();
            let tables = [100, 200].map(|it| table(it).matches("unicast").count());
            (tables, first.stats().in_sync && second.stats().in_sync)
        };
        eventually("both", WAIT, || both() == ([100, 100], true));
        ip(&format!("link set {DEVICE} down"));
        eventually("down", WAIT, || !first.stats().device_up);
        ip(&format!("link set {DEVICE} up"));
        eventually("both are back", WAIT, || both() == ([100, 100], true));
        let before = [first.stats(), second.stats()].map(|it| it.messages);
        // Each reads everything once more, and finds nothing to do.
        for vni in [VNI, Vni(8)] {
            let writer = if vni == VNI { &first } else { &second };
            let resyncs = writer.stats().resyncs;
            let config = KernelConfig {
                vni_tables: BTreeMap::from([(vni, if vni == VNI { 100 } else { 200 })]),
                ..config()
            };
            writer.reconfigure(config, |_| Ok(Vec::new())).unwrap();
            eventually("read", WAIT, || writer.stats().resyncs > resyncs);
        }
        let after = [first.stats(), second.stats()].map(|it| it.messages);
        assert_eq!(after, before);
        first.shutdown(WAIT).unwrap();
        // Its place is free.
        start(config()).shutdown(WAIT).unwrap();
        assert_eq!(table(200).matches("unicast").count(), 100);
    });
}

#[test]
fn routes_that_a_client_left_under_other_nexthop_numbers_are_named_until_they_are_flushed() {
    in_namespace("numbers", || {
        make_device();
        let left = config();
        left_by(&left);
        let ids = 100_000..200_000;
        let writer = start(KernelConfig {
            nexthop_ids: ids.clone(),
            check_interval: Duration::from_secs(1),
            ..config()
        });
        for n in 0..20 {
            writer.add(VNI, nth_v4(n, 1));
        }
        eventually("theirs stand there", WAIT, || writer.stats().shadowed == 20);
        let warning = writer.stats().last_warning.unwrap();
        let advice = "`metalbond kernel flush --rt-proto 254 --nexthop-ids FROM-TO`";
        assert!(warning.contains(advice), "{warning}");
        let number = |it: &str| it.parse().is_ok_and(|it| left.nexthop_ids.contains(&it));
        let mut words = warning.split([' ', ',']);
        assert!(words.any(number), "{warning} names one of them");

        kernel::flush(254, left.nexthop_ids.clone(), None).unwrap();
        eventually("ours come", WAIT, || writer.stats().in_sync);
        eventually("nothing is left", WAIT, || {
            writer.stats().last_warning.is_none()
        });
    });
}

/// One that was there already, and one that comes later.
#[test]
fn objects_of_clients_that_run_are_not_called_left_over() {
    in_namespace("beside", || {
        make_device();
        let often = Duration::from_secs(1);
        let with = |protocol, nexthop_ids, table| KernelConfig {
            protocol,
            nexthop_ids,
            vni_tables: BTreeMap::from([(VNI, table)]),
            check_interval: often,
            ..config()
        };
        let ids = config().nexthop_ids;
        let mut writers = Vec::new();
        for (protocol, ids, table) in [(254, &ids, 100), (254, &(1..70_000), 200), (77, &ids, 300)]
        {
            let writer = start(with(protocol, ids.clone(), table));
            for n in 0..20 {
                writer.add(VNI, nth_v4(n, 1));
            }
            writer.synced(VNI);
            writers.push(writer);
        }
        for writer in &writers {
            eventually("all is there", WAIT, || writer.stats().in_sync);
            let before = writer.stats().resyncs;
            eventually("it was read again", WAIT, || {
                writer.stats().resyncs > before + 1
            });
            assert_eq!(writer.stats().last_warning, None);
        }
    });
}
