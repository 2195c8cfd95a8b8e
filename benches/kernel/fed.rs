//! Routes fed by a server: server, announcers and the installing client are processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use rustbond::IpNet;

use crate::announcer::{Announcer, What};
use crate::netns::{DEVICE, Monitor, ip};
use crate::role::{Role, since};
use crate::{TABLE, floor, installed, measured, prefix, rate, underlay};

/// A server and a client of it in this namespace; the client is established.
fn start() -> (Role, String, Role) {
    let (server, address) = Role::server();
    let mut client = Role::client(&address);
    client.ask::<1>("established");
    (server, address, client)
}

/// Nothing of ours is left.
fn assert_empty() {
    assert_eq!((installed(), ip("nexthop").as_str()), (0, ""));
}

/// `count` routes over `hops` underlay addresses: as an initial table, and as a burst.
pub(crate) fn load(count: u32, hops: u32, v6: bool) {
    measured("fed", move || {
        let routes = || (0..count).map(|n| (n, n % hops, v6));
        let (_server, address, mut client) = start();
        let mut announcer = Announcer::connect(&address);
        announcer.send(What::Announce, routes());
        announcer.barrier();
        client.ask::<1>(&format!("target {count} {count}"));
        let cpu = client.cpu();
        let [start] = client.ask("subscribe");
        let [_, end, _] = client.ask("reached");
        rate("initial table, from SUBSCRIBE", count, since(start, end));
        rate(
            "  CPU time of the client in that",
            count,
            client.cpu() - cpu,
        );
        assert_eq!(installed(), count as usize);
        for _ in 0..2 {
            client.ask::<1>("target 0 0");
            let start = announcer.send(What::Withdraw, routes());
            let [_, end, _] = client.ask("reached");
            rate(
                "withdraw, from the first byte sent",
                count,
                since(start, end),
            );
            assert_empty();
            client.ask::<1>(&format!("target {count} {count}"));
            let start = announcer.send(What::Announce, routes());
            let [_, end, _] = client.ask("reached");
            rate("burst, from the first byte sent", count, since(start, end));
            assert_eq!(installed(), count as usize);
        }
        client.ask::<1>("target 0 0");
        drop(announcer);
        client.ask::<3>("reached");
        assert_empty();
    });
    floor(count, hops, v6);
}

/// A hypervisor that is in 1,000 groups with 400,000 routes leaves: its session ends.
pub(crate) fn leave() {
    measured("fed-leave", || {
        const ROUTES: u32 = 400_000;
        let gone = 5000;
        let (_server, address, mut client) = start();
        let mut partners = Announcer::connect(&address);
        let mut leaver = Announcer::connect(&address);
        partners.send(
            What::Announce,
            (0..ROUTES).map(|n| (n, n % 1000, n % 2 == 0)),
        );
        leaver.send(What::Announce, (0..ROUTES).map(|n| (n, gone, n % 2 == 0)));
        partners.barrier();
        leaver.barrier();
        client.ask::<1>(&format!("target {} {ROUTES}", 2 * ROUTES));
        client.ask::<1>("subscribe");
        client.ask::<3>("reached");
        assert_eq!(installed(), ROUTES as usize);
        let [before] = client.ask(&format!("target {ROUTES} {ROUTES}"));
        let start = crate::role::clock();
        drop(leaver);
        let [decided, end, messages] = client.ask("reached");
        println!(
            "  from the end of the session: client knows after {:.1?}, kernel right {:.1?} later, {} messages",
            since(start, decided),
            since(decided, end),
            messages - before
        );
        assert!(!ip("-d nexthop").contains(&underlay(gone).to_string()));
    });
}

/// A client is killed and started again; nothing changed meanwhile.
pub(crate) fn restart() {
    measured("fed-restart", || {
        const ROUTES: u32 = 100_000;
        let routes = || (0..ROUTES).map(|n| (n, n % 64, n % 2 == 0));
        let (_server, address, mut client) = start();
        let mut announcer = Announcer::connect(&address);
        announcer.send(What::Announce, routes());
        announcer.barrier();
        client.ask::<1>("subscribe");
        client.ask::<4>(&format!("complete {ROUTES}"));
        assert_eq!(installed(), ROUTES as usize);
        client.kill();
        let monitor = Monitor::start();
        let start = crate::role::clock();
        let mut client = Role::client(&address);
        client.ask::<1>("subscribe");
        let [complete, end, messages, in_sync] = client.ask(&format!("complete {ROUTES}"));
        let seen = monitor.stop();
        println!(
            "  END_OF_RIB {:.1?} after the start of the process, in sync {:.1?} later, {messages} messages, `ip monitor` saw {} lines",
            since(start, complete),
            since(complete, end),
            seen.lines().count()
        );
        assert_eq!((messages, in_sync, seen.as_str()), (0, 1, ""));
        assert_eq!(installed(), ROUTES as usize);
    });
}

/// 1,000,000 routes to 500,000 destinations, half IPv6, two hops each.
pub(crate) fn million() {
    measured("fed-million", || {
        const DESTINATIONS: u32 = 500_000;
        let v6 = |n| n % 2 == 0;
        let routes = || {
            let both = |n| [(n, n % 1000, v6(n)), (n, (n + 1) % 1000, v6(n))];
            (0..DESTINATIONS).flat_map(both)
        };
        let (_server, address, mut client) = start();
        let mut announcer = Announcer::connect(&address);
        announcer.send(What::Announce, routes());
        announcer.barrier();
        client.ask::<1>(&format!("target {} {DESTINATIONS}", 2 * DESTINATIONS));
        let [start] = client.ask("subscribe");
        let [_, end, _] = client.ask("reached");
        let [now, peak] = client.memory();
        rate(
            "initial table, from SUBSCRIBE",
            2 * DESTINATIONS,
            since(start, end),
        );
        println!(
            "  memory of the process: {:.0} B a route, at its peak {:.0}",
            now as f64 / f64::from(2 * DESTINATIONS),
            peak as f64 / f64::from(2 * DESTINATIONS)
        );
        let begin = Instant::now();
        let (dump, hops) = dump();
        assert_eq!(dump.len(), DESTINATIONS as usize);
        for n in 0..DESTINATIONS {
            let mut wanted =
                [underlay(n % 1000), underlay((n + 1) % 1000)].map(|it| it.to_string());
            wanted.sort();
            assert_eq!(hops[&dump[&prefix(n, v6(n))]], wanted, "{n}");
        }
        println!(
            "  the kernel's dump is what is wanted, hop by hop ({:.1?})",
            begin.elapsed()
        );
        client.ask::<1>("target 0 0");
        let start = crate::role::clock();
        drop(announcer);
        let [_, end, _] = client.ask("reached");
        rate(
            "removal, from the end of the session",
            2 * DESTINATIONS,
            since(start, end),
        );
        assert_empty();
        let [now, _] = client.memory();
        println!(
            "  memory of the process after that: {:.1} MB",
            now as f64 / 1e6
        );
    });
}

/// The number of the nexthop object of each of our routes, and the underlay addresses of
/// each object, ascending as text.
fn dump() -> (BTreeMap<IpNet, u32>, BTreeMap<u32, Vec<String>>) {
    fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
        let mut words = line.split_whitespace();
        words.find(|it| *it == word)?;
        words.next()
    }
    let mut singles = BTreeMap::new();
    let mut groups = Vec::new();
    for line in ip("nexthop show").lines() {
        let id: u32 = after(line, "id")
            .and_then(|id| id.parse().ok())
            .expect("an object has a number");
        if let Some(members) = after(line, "group") {
            groups.push((id, members.to_owned()));
        } else if let Some(address) = after(line, "dst") {
            assert!(line.contains(DEVICE), "{line}");
            singles.insert(id, vec![address.to_owned()]);
        }
    }
    let mut hops = singles.clone();
    for (id, members) in groups {
        let address = |id: &str| singles[&id.parse::<u32>().expect("a number")][0].clone();
        let mut addresses: Vec<String> = members.split('/').map(address).collect();
        addresses.sort();
        hops.insert(id, addresses);
    }
    let mut routes = BTreeMap::new();
    for family in ["-4", "-6"] {
        for line in ip(&format!("{family} route show table {TABLE} proto 254")).lines() {
            if line.starts_with(char::is_whitespace) {
                continue;
            }
            let text = line.split_whitespace().next().expect("a line has words");
            let prefix = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let id = after(line, "nhid")
                .and_then(|id| id.parse().ok())
                .expect("a route has an object");
            routes.insert(prefix.expect("a prefix"), id);
        }
    }
    (routes, hops)
}
