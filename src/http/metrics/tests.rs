use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::core::types::Vni;
use crate::http::fake::{Fake, peer};
use crate::http::response::{Body, Chunk};
use crate::inspect::TableSummary;

/// Returns the whole text.
fn scrape(fake: &Fake) -> String {
    let mut body = response(fake).unwrap().body;
    let mut text = Vec::new();
    loop {
        match body.next() {
            Chunk::More(bytes) => text.extend(bytes),
            Chunk::Last(bytes) => {
                text.extend(bytes);
                return String::from_utf8(text).unwrap();
            }
        }
    }
}

type Labels = BTreeMap<String, String>;

/// Parses the text strictly: each family stands once, HELP and TYPE come first, no series stands
/// twice.
fn parse(text: &str) -> BTreeMap<(String, Labels), f64> {
    let mut series = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family: Option<(String, bool)> = None;
    let mut lines = text.lines();
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{help}");
            assert!(seen.insert(name.to_owned()), "{name} stands twice");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let (typed, kind) = kind.split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert!(["gauge", "counter"].contains(&kind), "{kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            family = Some((name.to_owned(), kind == "counter"));
            continue;
        }
        let (rest, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match rest.split_once('{') {
            None => (rest, Labels::new()),
            Some((name, labels)) => (name, parse_labels(labels)),
        };
        let (current, is_counter) = family.as_ref().expect("a family first");
        assert_eq!(name, current);
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'));
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && (!is_counter || value >= 0.0));
        let old = series.insert((name.to_owned(), labels), value);
        assert!(old.is_none(), "twice: {line}");
    }
    series
}

/// `name="value",…}` with `\\`, `\"` and `\n` in values.
fn parse_labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'));
        let mut text = String::new();
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().expect("a closing quote") {
                (at, '"') => break at + 1,
                (_, '\\') => text.push(match letters.next().unwrap().1 {
                    'n' => '\n',
                    it @ ('\\' | '"') => it,
                    other => panic!("\\{other}"),
                }),
                (_, it) => text.push(it),
            }
        };
        assert!(labels.insert(name.into(), text).is_none());
        match &value[end..] {
            "}" => return labels,
            more => rest = more.strip_prefix(',').unwrap(),
        }
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pair = |it: &(&str, &str)| (it.0.into(), it.1.into());
    pairs.iter().map(pair).collect()
}

#[test]
fn text_can_be_read_by_prometheus() {
    let evil = "a\"b\\c\nd{} é";
    let fake = Fake::default();
    let mut one = peer(evil);
    one.received.update = 17;
    one.queued_bytes = 4096;
    one.flaps = 2;
    *fake.peers.lock() = vec![one, peer("b"), peer("b")];
    let table = TableSummary {
        nat: 5,
        digest: digest_of_a_route(),
        ..TableSummary::default()
    };
    *fake.vnis.lock() = vec![VniStatus {
        vni: Vni(100),
        table,
        subscribers: 3,
        is_synced: Some(true),
    }];
    let series = parse(&scrape(&fake));
    let value = |name: &str, pairs: &[(&str, &str)]| {
        let key = (name.to_owned(), labels(pairs));
        *series.get(&key).unwrap_or_else(|| panic!("no {key:?}"))
    };
    let updates = [
        ("peer", evil),
        ("direction", "received"),
        ("type", "update"),
    ];
    assert_eq!(value("metalbond_peer_messages_total", &updates), 17.0);
    assert_eq!(
        value("metalbond_peer_queue_bytes", &[("peer", evil)]),
        4096.0
    );
    assert_eq!(value("metalbond_peer_flaps", &[("peer", evil)]), 2.0);
    assert_eq!(
        value("metalbond_peer_keepalive_age_seconds", &[("peer", "b")]),
        0.25
    );
    let established = [("peer", evil), ("state", "established")];
    assert_eq!(value("metalbond_peer_state", &established), 1.0);
    assert_eq!(value("metalbond_peers", &[("state", "established")]), 3.0);
    assert_eq!(
        value("metalbond_vni_routes", &[("vni", "100"), ("type", "nat")]),
        5.0
    );
    assert_eq!(value("metalbond_vni_subscribers", &[("vni", "100")]), 3.0);
    let digest = value("metalbond_vni_digest", &[("vni", "100")]);
    assert_eq!(digest, table.digest.to_u48() as f64);
    assert!(digest > 0.0);
    assert_eq!(value("metalbond_ready", &[]), 1.0);
    let build = [("version", env!("CARGO_PKG_VERSION")), ("side", "server")];
    assert_eq!(value("metalbond_build_info", &build), 1.0);
    assert!(value("process_start_time_seconds", &[]) > 1e9);
}

/// Returns the digest of a table with one route.
fn digest_of_a_route() -> crate::inspect::Digest {
    let mut table = TableSummary::default();
    let destination = crate::core::types::Destination::from_ipv4([10, 0, 0, 1].into(), 32);
    let hop = crate::core::types::NextHop::standard([192, 0, 2, 1]);
    table.add(&crate::core::types::Route::new(destination, hop));
    table.digest
}

#[test]
fn series_of_a_peer_that_left_disappear() {
    let fake = Fake::default();
    *fake.peers.lock() = vec![peer("stays"), peer("leaves")];
    assert!(scrape(&fake).contains("peer=\"leaves\""));
    fake.peers.lock().pop();
    let text = scrape(&fake);
    assert!(!text.contains("leaves"));
    assert!(text.contains("metalbond_peer_up{peer=\"stays\"} 1\n"));
}

#[test]
fn text_of_ten_thousand_peers_comes_in_pieces() {
    let fake = Fake::default();
    *fake.peers.lock() = (0..10_000).map(|it| peer(&format!("peer-{it}"))).collect();
    let mut body = response(&fake).unwrap().body;
    assert!(matches!(body, Body::Stream(_)));
    let mut largest = 0;
    let mut all = String::new();
    loop {
        let (Chunk::More(bytes) | Chunk::Last(bytes)) = body.next();
        largest = largest.max(bytes.len());
        if bytes.is_empty() {
            break;
        }
        all += std::str::from_utf8(&bytes).unwrap();
    }
    assert!(largest < 256 * 1024, "{largest}");
    assert_eq!(parse(&all).len() / 10_000, 25);
}

#[test]
fn readme_lists_every_metric() {
    let readme = include_str!("../../../README.md");
    let whole = families::WHOLE.iter().map(|it| it.name);
    let names = whole
        .chain(families::PEER.iter().map(|it| it.name))
        .chain(families::VNI.iter().map(|it| it.name));
    for name in names {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}
