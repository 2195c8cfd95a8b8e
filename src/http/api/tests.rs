use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use serde_json::Value;

use super::*;
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::http::fake::{Fake, peer};
use crate::http::response::Chunk;
use crate::inspect::{Announcers, RouteEntry};

fn ask(fake: &Fake, target: &str) -> Value {
    let cache = SnapshotCache::default();
    let (status, value) = ask_with(fake, &cache, target);
    assert_eq!(status, Status::Ok, "{target}: {value}");
    value
}

fn ask_with(fake: &Fake, cache: &SnapshotCache, target: &str) -> (Status, Value) {
    let mut response = respond(&Request::new("GET", target), fake, cache);
    let mut text = Vec::new();
    loop {
        match response.body.next() {
            Chunk::More(bytes) => text.extend(bytes),
            Chunk::Last(bytes) => {
                text.extend(bytes);
                let value = serde_json::from_slice(&text).unwrap();
                return (response.head.status, value);
            }
        }
    }
}

/// A table with many nested prefixes, in three VNIs, from four announcers.
fn table(random: &mut fastrand::Rng, len: usize) -> Fake {
    let mut entries = Vec::new();
    for _ in 0..len {
        let prefix: IpNet = if random.bool() {
            let host: u32 = 0x0a00_0000 | random.u32(..1 << 10);
            let net = ipnet::Ipv4Net::new(host.into(), random.u8(0..=32)).unwrap();
            // With host bits, as some peers send them.
            if random.bool() {
                net.trunc().into()
            } else {
                net.into()
            }
        } else {
            let host = 0x2001_0db8_u128 << 96 | random.u128(..1 << 10);
            let net = ipnet::Ipv6Net::new(host.into(), random.u8(0..=128)).unwrap();
            net.trunc().into()
        };
        let address = std::net::Ipv6Addr::from(random.u128(1..5));
        let next_hop = match random.u8(0..4) {
            0 => NextHop::standard(address),
            1 => NextHop::nat(address, 1024, random.u16(1025..1027)),
            2 => NextHop::load_balancer(address),
            _ => NextHop {
                hop_type: crate::core::types::NextHopType::from_number(7),
                ..NextHop::standard_with_vni(address, random.u32(0..3))
            },
        };
        let announcers = [random.u32(1..5), random.u32(1..5)];
        let count = random.usize(0..=2);
        entries.push(RouteEntry {
            vni: Vni(random.u32(1..4)),
            route: Route::new(Destination::new(prefix), next_hop),
            announcers: announcers[..count].iter().copied().collect::<Announcers>(),
            is_suppressed: random.bool(),
        });
    }
    let names = (1..5).map(|id| (id, format!("192.0.2.{}:{}", id / 2, id)));
    let snapshot = crate::inspect::Snapshot::new(entries, Vec::new());
    Fake {
        entries: snapshot.entries().to_vec().into(),
        names: names.collect(),
        ..Fake::default()
    }
}

fn key(row: &Value) -> String {
    let mut row = row.clone();
    row["announcers"].take();
    row.to_string()
}

/// Returns the keys of all routes that pass, in order, by testing one by one.
fn expected(fake: &Fake, passes: impl Fn(&RouteEntry) -> bool) -> Vec<String> {
    let entries = fake.entries.lock();
    let passing = entries.iter().filter(|it| passes(it));
    let row = |entry: &RouteEntry| {
        let row = RouteRow::of(entry.vni, &entry.route);
        let mut row = serde_json::to_value(row).unwrap();
        row["suppressed"] = entry.is_suppressed.into();
        key(&row)
    };
    passing.map(row).collect()
}

/// Returns the rows of all pages of a query. Every page has the same total.
fn all_pages(fake: &Fake, query: &str, limit: usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ask(
            fake,
            &format!("/api/v1/routes?{query}&limit={limit}&cursor={cursor}"),
        );
        let page_rows = page["routes"].as_array().unwrap();
        assert!(page_rows.len() <= limit);
        rows.extend(page_rows.iter().map(key));
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => {
                assert_eq!(page["total"], rows.len(), "{query}");
                return rows;
            }
        }
        assert_eq!(page_rows.len(), limit, "only the last page is short");
    }
}

fn is_type(entry: &RouteEntry, number: i32) -> bool {
    entry.route.next_hop.hop_type.number() == number
}

/// Returns the network of length `len` that contains the address of `net`.
fn cut(net: IpNet, len: u8) -> IpNet {
    IpNet::new(net.addr(), len).unwrap().trunc()
}

/// Returns whether the prefix of the route contains all of `net`.
fn covers(entry: &RouteEntry, net: IpNet) -> bool {
    let prefix = entry.route.destination.prefix;
    prefix.max_prefix_len() == net.max_prefix_len()
        && prefix.prefix_len() <= net.prefix_len()
        && cut(net, prefix.prefix_len()) == prefix.trunc()
}

/// Returns for each VNI the length of the longest prefix that contains `net` and passes.
fn longest(fake: &Fake, net: IpNet, passes: impl Fn(&RouteEntry) -> bool) -> BTreeMap<Vni, u8> {
    let mut found = BTreeMap::new();
    let entries = fake.entries.lock();
    for entry in entries.iter().filter(|it| covers(it, net) && passes(it)) {
        let len = found.entry(entry.vni).or_insert(0);
        *len = entry.route.destination.prefix.prefix_len().max(*len);
    }
    found
}

#[track_caller]
fn compare(fake: &Fake, query: &str, limit: usize, passes: impl Fn(&RouteEntry) -> bool) {
    let found = all_pages(fake, query, limit);
    assert_eq!(found, expected(fake, passes), "{query}");
}

#[test]
fn filters_and_pages_agree_with_a_linear_search() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..12 {
        let fake = table(&mut random, 400);
        let limit = random.usize(1..500);
        let vni = Vni(random.u32(1..5));
        compare(&fake, "", limit, |_| true);
        compare(&fake, &format!("vni={vni}"), limit, |it| it.vni == vni);
        compare(&fake, "type=lb", limit, |it| is_type(it, 2));
        let query = format!("type=7&vni={vni}");
        compare(&fake, &query, limit, |it| is_type(it, 7) && it.vni == vni);
        let ids = |it: &RouteEntry| it.announcers.ids().to_vec();
        compare(&fake, "peer=192.0.2.1:3", limit, |it| ids(it).contains(&3));
        compare(&fake, "peer=192.0.2.1", limit, |it| {
            ids(it).iter().any(|id| [2, 3].contains(id))
        });
        let hop: std::net::IpAddr = "::2".parse().unwrap();
        compare(&fake, "next_hop=::2", limit, |it| {
            it.route.next_hop.target_address == hop
        });
    }
}

#[test]
fn prefix_filters_agree_with_a_linear_search() {
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..12 {
        let fake = table(&mut random, 400);
        let limit = random.usize(1..500);
        let target = random.usize(..100);
        let target = fake.entries.lock()[target].route.destination.prefix;
        for net in [
            target,
            target.addr().into(),
            "10.0.0.77/30".parse().unwrap(),
        ] {
            let is_longest = |found: &BTreeMap<Vni, u8>, it: &RouteEntry| {
                covers(it, net)
                    && found.get(&it.vni) == Some(&it.route.destination.prefix.prefix_len())
            };
            let found = longest(&fake, net, |_| true);
            let query = format!("match={net}");
            compare(&fake, &query, limit, |it| is_longest(&found, it));
            // The longest among the routes of the type.
            let found = longest(&fake, net, |it| is_type(it, 1));
            let query = format!("match={net}&type=nat");
            compare(&fake, &query, limit, |it| {
                is_type(it, 1) && is_longest(&found, it)
            });
            let query = format!("prefix={net}");
            let prefix = |it: &RouteEntry| it.route.destination.prefix;
            compare(&fake, &query, limit, |it| prefix(it) == net);
            let query = format!("within={net}");
            compare(&fake, &query, limit, |it| {
                let prefix = prefix(it);
                prefix.max_prefix_len() == net.max_prefix_len()
                    && prefix.prefix_len() >= net.prefix_len()
                    && cut(prefix, net.prefix_len()) == net.trunc()
            });
        }
    }
}

#[test]
fn next_page_begins_at_the_right_place_after_the_cursor_route_is_removed() {
    let fake = table(&mut fastrand::Rng::with_seed(1), 50);
    let all = all_pages(&fake, "", usize::MAX);
    let page = ask(&fake, "/api/v1/routes?limit=10");
    fake.entries.lock().remove(9);
    let next = page["next"].as_str().unwrap();
    let page = ask(&fake, &format!("/api/v1/routes?limit=all&cursor={next}"));
    let rows: Vec<String> = page["routes"].as_array().unwrap().iter().map(key).collect();
    assert_eq!(rows, all[10..]);
}

#[test]
fn snapshot_is_reused_until_the_table_changes() {
    let fake = table(&mut fastrand::Rng::with_seed(1), 50);
    let cache = SnapshotCache::default();
    for target in ["/api/v1/routes", "/api/v1/routes?vni=1"] {
        ask_with(&fake, &cache, target);
    }
    let taken = |fake: &Fake| fake.snapshots.load(Ordering::Relaxed);
    assert_eq!(taken(&fake), 1);
    fake.generation.fetch_add(1, Ordering::Relaxed);
    // The old snapshot may be used for a short time.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ask_with(&fake, &cache, "/api/v1/routes").1["generation"] != "1" {
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(taken(&fake), 2);
}

#[test]
fn snapshot_above_the_limit_is_refused() {
    let fake = table(&mut fastrand::Rng::with_seed(1), 50);
    let cache = SnapshotCache::default();
    let mut held = Vec::new();
    let mut refused = None;
    for number in 1..=100 {
        fake.generation.store(number, Ordering::Relaxed);
        // Longer than a snapshot of a changing table is reused.
        std::thread::sleep(std::time::Duration::from_millis(5));
        match cache.get(&fake, None) {
            Ok(shared) => held.push(shared),
            Err(busy) => {
                refused = Some(busy);
                break;
            }
        }
    }
    let response = refused.expect("there is a limit").response();
    assert_eq!(response.head.status, Status::ServiceUnavailable);
    assert!(response.head.headers.iter().any(|it| it.0 == "Retry-After"));
    held.clear();
    assert!(
        cache.get(&fake, None).is_ok(),
        "a dropped snapshot makes room"
    );
}

#[test]
fn peer_names_are_escaped_and_found() {
    let evil = "a\"b\\c\n<script>\u{1}é";
    let fake = Fake::default();
    *fake.peers.lock() = vec![
        peer(evil),
        peer("[2001:db8::1]:4711"),
        peer("server.example:4711"),
    ];
    fake.peers.lock()[0].last_error = Some(evil.into());
    let all = ask(&fake, "/api/v1/peers");
    assert_eq!(all["total"], 3);
    let names: Vec<&str> = all["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["[2001:db8::1]:4711", evil, "server.example:4711"]);
    assert_eq!(all["peers"][1]["last_error"], evil);
    assert_eq!(all["peers"][1]["keepalive_age_seconds"], 0.25);
    for peer in ["2001:db8:0::1", "%5B2001:db8::1%5D:4711", "server.example"] {
        let found = ask(&fake, &format!("/api/v1/peers?peer={peer}"));
        assert_eq!(found["total"], 1, "{peer}");
    }
    let page = ask(&fake, "/api/v1/peers?limit=1&cursor=%5B2001:db8::1%5D:4711");
    assert_eq!(page["peers"][0]["name"], evil);
}

#[test]
fn target_may_be_a_whole_url() {
    for target in ["/healthz", "/healthz?x=1", "http://a.example:80/healthz"] {
        let request = Request::new("GET", target);
        assert!(
            matches!(Query::parse(&request), Ok(Query::Health)),
            "{target}"
        );
    }
    for target in ["http://a.example/nothing", "//healthz", "/healthz/", "/api"] {
        let query = Query::parse(&Request::new("GET", target));
        assert!(
            matches!(query, Ok(Query::Page(page::Asset::Html))),
            "{target}"
        );
    }
    for target in ["", "*", "http://a.example/api/v1/nothing", "/api/"] {
        let response = Query::parse(&Request::new("GET", target)).unwrap_err();
        assert_eq!(response.head.status, Status::NotFound, "{target}");
    }
    let response = Query::parse(&Request::new("PUT", "/api/v1/peers?x=1")).unwrap_err();
    assert_eq!(response.head.status, Status::MethodNotAllowed);
}

#[test]
fn process_that_ended_is_unavailable_and_not_empty() {
    let fake = Fake::default();
    fake.has_ended.store(true, Ordering::Relaxed);
    let targets = [
        "/metrics",
        "/routes.json",
        "/routes.yaml",
        "/api/v1/peers",
        "/api/v1/vnis",
        "/api/v1/routes",
    ];
    for target in targets {
        let request = Request::new("GET", target);
        let response = respond(&request, &fake, &SnapshotCache::default());
        assert_eq!(response.head.status, Status::ServiceUnavailable, "{target}");
    }
}
