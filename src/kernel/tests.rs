//! The loop against a kernel made of bytes that can fail any call.

mod double;
mod intake;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use ipnet::IpNet;

use super::claim::Claimed;
use super::message::Mark;
use super::room::Clients;
use super::stats::Gauges;
use super::writer::{Change, Command, Ends, Next, Writer, WriterConfig};
use crate::core::kernel_plan::model::{EINVAL, Installed, place};
use crate::core::kernel_plan::{Mode, Plan, PlanConfig, Scope, errno};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::Error;
use double::Net;

const DEVICE: u32 = 5;
const MARK: Mark = Mark {
    protocol: 254,
    device: DEVICE,
    more: [super::message::NO_DEVICE; 7],
    source: Ipv6Addr::UNSPECIFIED,
};
const ENOMEM: i32 = 12;
const EAGAIN: i32 = 11;

/// A writer, its kernel, and a clock that jumps.
struct Bench {
    net: Net,
    writer: Writer<Net>,
    commands: Sender<Command>,
    clients: Arc<Clients>,
    gauges: Arc<Gauges>,
    now: Instant,
}

impl Bench {
    fn new(net: Net, mode: Mode) -> Self {
        let plan = Plan::new(PlanConfig {
            vni_tables: BTreeMap::from([(Vni(1), 100)]),
            ipv4_only: false,
            excluded_types: Vec::new(),
            mode,
            nexthop_ids: 1000..70_000,
            protocol: 254,
            metrics: [0, 1024],
            vni_metrics: BTreeMap::new(),
            vni_devices: BTreeMap::new(),
            seed: 1,
        });
        let config = WriterConfig {
            devices: vec!["tun".into()],
            check_interval: Duration::from_secs(60),
            cleanup_on_exit: false,
            track_nexthops: false,
            claimed: Claimed {
                protocol: 254,
                ids: 1000..70_000,
                is_inline: mode == Mode::Inline,
            },
        };
        let (commands, receiver) = bounded(100_000);
        let clients = Arc::<Clients>::default();
        let gauges = Arc::new(Gauges::default());
        let writer = Writer::new(
            net.clone(),
            plan,
            MARK,
            config,
            Ends {
                commands: receiver,
                clients: Arc::clone(&clients),
                gauges: Arc::clone(&gauges),
            },
        );
        Self {
            net,
            writer,
            commands,
            clients,
            gauges,
            now: Instant::now(),
        }
    }

    fn up(mode: Mode) -> Self {
        let net = Net::default();
        net.0.borrow_mut().link = Some((DEVICE, true));
        Self::new(net, mode)
    }

    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
    }

    fn add(&self, prefix: &str, hop: u16) {
        self.send(Command::Add(Vni(1), route(prefix, hop)));
    }

    fn remove(&self, prefix: &str, hop: u16) {
        self.send(Command::Remove(Vni(1), route(prefix, hop)));
    }

    fn flush(&self) -> Receiver<Result<(), Error>> {
        let (reply, answer) = bounded(1);
        self.send(Command::Flush(reply));
        answer
    }

    /// Lets the writer run for at most `limit` until it is in sync; returns whether it is.
    fn settle(&mut self, limit: Duration) -> bool {
        let end = self.now + limit;
        loop {
            match self.writer.turn(self.now) {
                Next::Stop => return true,
                Next::Again => self.now += Duration::from_micros(10),
                Next::Wait(_) if self.gauges.snapshot().in_sync => return true,
                Next::Wait(at) => {
                    assert!(at > self.now, "a wait that does not wait");
                    self.now = at;
                }
            }
            if self.now > end {
                return false;
            }
        }
    }

    fn resolved(&self) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
        self.net.0.borrow().model.resolved()
    }
}

fn underlay(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn route(prefix: &str, hop: u16) -> Route {
    let prefix: IpNet = prefix.parse().unwrap();
    Route::new(Destination::new(prefix), NextHop::standard(underlay(hop)))
}

const SECOND: Duration = Duration::from_secs(1);

/// 150 IPv4 and 150 IPv6 destinations, each with one or two hops.
fn announce(bench: &Bench) {
    for n in 0..150_u16 {
        for prefix in [format!("10.0.{n}.0/24"), format!("fd00:0:0:{n}::/64")] {
            bench.add(&prefix, n % 5);
            if n % 2 == 0 {
                bench.add(&prefix, 50);
            }
        }
    }
}

#[test]
fn writer_recovers_from_any_one_call_that_fails() {
    for mode in [Mode::Objects, Mode::Inline] {
        let calls = whole_story(mode, None);
        assert!(calls > 30, "{calls}");
        for at in 1..=calls {
            for errno in [errno::ENOBUFS, ENOMEM, EAGAIN, errno::EPERM] {
                whole_story(mode, Some((at, errno)));
            }
        }
    }
}

/// Announces, meddles, withdraws; the kernel must follow within a second each time. Returns
/// how many calls that took.
fn whole_story(mode: Mode, fail: Option<(usize, i32)>) -> usize {
    let mut bench = Bench::up(mode);
    bench.net.0.borrow_mut().fail = fail;
    let context = format!("{mode:?} {fail:?}");
    announce(&bench);
    bench.send(Command::Synced(Vni(1)));
    assert!(bench.settle(SECOND), "{context}");
    let full = bench.resolved();
    assert_eq!(full.len(), 300, "{context}");

    // A lost notification is found by the next one, or by the check: so there are two.
    let keys: Vec<_> = full.keys().copied().take(20).collect();
    for key in keys {
        bench.net.0.borrow_mut().delete_route(key);
    }
    assert!(bench.settle(SECOND), "{context}");
    let missing_notification = bench.resolved() != full;
    if missing_notification {
        bench.now += Duration::from_secs(60);
        assert!(bench.settle(SECOND), "{context}");
    }
    assert_eq!(bench.resolved(), full, "{context}");

    bench.net.0.borrow_mut().set_link(Some((DEVICE, false)));
    bench.settle(SECOND);
    bench.net.0.borrow_mut().set_link(None);
    bench.settle(SECOND);
    let answer = bench.flush();
    bench.settle(SECOND);
    assert!(answer.try_recv().unwrap().is_err(), "{context}");
    bench.net.0.borrow_mut().set_link(Some((DEVICE, true)));
    assert!(bench.settle(SECOND), "{context}");
    assert_eq!(bench.resolved(), full, "{context}");

    for n in 0..150_u16 {
        for prefix in [format!("10.0.{n}.0/24"), format!("fd00:0:0:{n}::/64")] {
            bench.remove(&prefix, 50);
            if n > 3 {
                bench.remove(&prefix, n % 5);
            }
        }
    }
    let answer = bench.flush();
    assert!(bench.settle(SECOND), "{context}");
    assert!(matches!(answer.try_recv(), Ok(Ok(()))), "{context}");
    assert_eq!(bench.resolved().len(), 8, "{context}");
    let kernel = bench.net.0.borrow();
    kernel.calls
}

#[test]
fn route_of_somebody_else_holds_nobody_back_and_ours_comes_when_it_goes() {
    let mut bench = Bench::up(Mode::Objects);
    let foreign: IpNet = "10.0.7.0/24".parse().unwrap();
    let key = place(100, foreign);
    bench.net.0.borrow_mut().model.put(key, Installed::Foreign);
    announce(&bench);
    let answer = bench.flush();
    assert!(!bench.settle(SECOND));
    assert!(answer.try_recv().unwrap().is_ok());
    let stats = bench.gauges.snapshot();
    assert_eq!(
        (stats.shadowed, stats.desired, stats.installed),
        (1, 300, 299)
    );
    assert!(stats.last_error.unwrap().contains("10.0.7.0/24"));
    assert_eq!(bench.resolved().len(), 299);
    bench.net.0.borrow_mut().delete_route((100, foreign));
    assert!(bench.settle(SECOND));
    assert_eq!(bench.resolved().len(), 300);
}

#[test]
fn routes_that_flap_while_the_writer_is_busy_cost_no_message() {
    let mut bench = Bench::up(Mode::Objects);
    bench.add("10.0.0.0/24", 1);
    assert!(bench.settle(SECOND));
    let before = bench.net.0.borrow().changes;
    for _ in 0..1000 {
        bench.remove("10.0.0.0/24", 1);
        bench.add("10.0.0.0/24", 2);
        bench.remove("10.0.0.0/24", 2);
        bench.add("10.0.0.0/24", 1);
    }
    assert!(bench.settle(SECOND));
    assert_eq!(bench.net.0.borrow().changes, before);
}

#[test]
fn route_removed_before_the_rest_arrives_does_not_come_back() {
    let mut bench = Bench::up(Mode::Objects);
    bench.add("10.0.0.0/24", 1);
    assert!(bench.settle(SECOND));
    let vni = Vni(2);
    bench.send(Command::Reconfigure(Box::new(Change {
        scope: Scope {
            vni_tables: BTreeMap::from([(vni, 200)]),
            vni_metrics: BTreeMap::new(),
            ipv4_only: false,
            excluded_types: Vec::new(),
        },
        check_interval: Duration::from_secs(60),
        cleanup_on_exit: false,
        awaited: BTreeSet::from([vni]),
    })));
    // Somebody looked at all routes here; these changes overtake what was seen.
    let seen: Vec<Route> = (1..=4)
        .map(|n| route(&format!("10.2.{n}.0/24"), n))
        .collect();
    bench.send(Command::Remove(vni, seen[0]));
    bench.send(Command::Remove(vni, seen[1]));
    bench.send(Command::Add(vni, seen[1]));
    bench.send(Command::Add(vni, route("10.2.5.0/24", 5)));
    bench.send(Command::Received(vni, seen.clone()));
    bench.send(Command::Remove(vni, seen[3]));
    // A removal from before the next look is none after it.
    bench.send(Command::Received(vni, vec![seen[3]]));
    bench.send(Command::Remove(vni, seen[3]));
    assert!(bench.settle(SECOND));
    let routes: Vec<String> = bench
        .resolved()
        .keys()
        .map(|(table, prefix)| format!("{table} {prefix}"))
        .collect();
    assert_eq!(
        routes,
        ["200 10.2.2.0/24", "200 10.2.3.0/24", "200 10.2.5.0/24"]
    );
}

#[test]
fn route_that_lost_a_hop_waits_for_others_to_lose_it() {
    let mut bench = Bench::up(Mode::Objects);
    bench.send(Command::Synced(Vni(1)));
    announce(&bench);
    assert!(bench.settle(SECOND));
    let before = bench.net.0.borrow().changes;
    for n in (0..150_u16).step_by(2) {
        // One after the other, with the writer running in between.
        for prefix in [format!("10.0.{n}.0/24"), format!("fd00:0:0:{n}::/64")] {
            bench.remove(&prefix, 50);
            for _ in 0..5 {
                bench.writer.turn(bench.now);
                bench.now += Duration::from_micros(200);
            }
        }
    }
    let last = bench.now;
    assert!(bench.settle(SECOND));
    assert!(bench.now - last < Duration::from_millis(20));
    assert_eq!(bench.net.0.borrow().changes - before, 1);
    assert!(bench.resolved().values().all(|hops| hops.len() == 1));
}

#[test]
fn long_burst_of_withdraws_with_pauses_costs_one_message() {
    let mut bench = Bench::up(Mode::Objects);
    bench.send(Command::Synced(Vni(1)));
    let prefix = |n: u16| format!("10.{}.{}.0/24", n >> 8, n & 255);
    for n in 0..20_000 {
        bench.add(&prefix(n), n % 10);
        bench.add(&prefix(n), 50);
    }
    assert!(bench.settle(SECOND));
    let before = bench.net.0.borrow().changes;
    let began = bench.now;
    for n in 0..20_000 {
        bench.remove(&prefix(n), 50);
        if n % 500 == 499 {
            bench.writer.turn(bench.now);
            // As long as a thread waits for its turn on a busy machine.
            bench.now += Duration::from_millis(if n < 1000 { 2 } else { 8 });
        }
    }
    assert!(bench.now - began > Duration::from_millis(250));
    let last = bench.now;
    assert!(bench.settle(SECOND));
    assert!(bench.now - last < Duration::from_millis(20));
    assert_eq!(bench.net.0.borrow().changes - before, 1);
}

#[test]
fn shutdown_ends_by_its_deadline_when_every_write_fails() {
    let mut bench = Bench::up(Mode::Objects);
    bench.settle(SECOND);
    // Every write fails: what was submitted cannot be written.
    announce(&bench);
    let deadline = bench.now + SECOND;
    let (reply, answer) = bounded(1);
    bench.send(Command::Shutdown(reply, deadline));
    let mut turns = 0;
    loop {
        let calls = bench.net.0.borrow().calls;
        bench.net.0.borrow_mut().fail = Some((calls + 2, EINVAL));
        match bench.writer.turn(bench.now) {
            Next::Stop => break,
            Next::Again => bench.now += Duration::from_millis(1),
            Next::Wait(at) => bench.now = at,
        }
        turns += 1;
        assert!(turns < 5000, "it does not end");
    }
    assert!(bench.now <= deadline + Duration::from_millis(1));
    assert!(matches!(answer.try_recv(), Ok(Err(Error::Timeout))));
}
