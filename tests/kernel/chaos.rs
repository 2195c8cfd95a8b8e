//! Two writers side by side, restarts with other options, and somebody who meddles: every reading
//! is as it is wanted, and no route of somebody else is ever touched.
//!
//! A few hundred steps; `METALBOND_CHAOS_STEPS=20000` makes it long, `METALBOND_CHAOS_SEED=N`
//! replays one. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustbond::kernel::{self, KernelConfig, KernelWriter, NexthopMode};
use rustbond::{IpNet, Route, Vni};

use crate::netns::{DEVICE, in_namespace, ip, make_device};
use crate::writer::*;

/// Steps between two readings.
const READING: u32 = 20;
/// The longest that the kernel may take to become as it is wanted.
const PATIENCE: Duration = Duration::from_secs(40);
const TABLES: [u32; 3] = [100, 101, 102];

/// Table, prefix, metric.
type Place = (u32, IpNet, u32);

fn pick<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

fn prefix(random: &mut fastrand::Rng) -> IpNet {
    let n = random.u32(..10);
    match random.bool() {
        true => nth_v4(n, 1).destination.prefix,
        false => nth_v6(n, 1).destination.prefix,
    }
}

/// A writer and what it is asked for.
struct Side {
    protocol: u8,
    ids: Range<u32>,
    /// Both sides have metrics of their own.
    metrics: [u32; 2],
    metric: u32,
    tables: BTreeMap<Vni, u32>,
    form: NexthopMode,
    wanted: BTreeSet<(Vni, IpNet, u16)>,
    writer: Option<KernelWriter>,
}

impl Side {
    fn new(protocol: u8, start: u32, metrics: [u32; 2]) -> Self {
        Self {
            protocol,
            ids: start..start + 70_000,
            metrics,
            metric: metrics[0],
            tables: BTreeMap::new(),
            form: NexthopMode::Auto,
            wanted: BTreeSet::new(),
            writer: None,
        }
    }

    /// Begins with other options, perhaps after an end that cleans up.
    fn restart(&mut self, random: &mut fastrand::Rng) {
        if let Some(writer) = self.writer.take() {
            writer.shutdown(WAIT).unwrap();
        }
        self.metric = pick(random, &self.metrics);
        self.form = match random.u32(..4) {
            0 => NexthopMode::Never,
            _ => NexthopMode::Auto,
        };
        self.tables = (1..=3)
            .filter_map(|vni| {
                let table = pick(random, &TABLES);
                (vni == 1 || random.bool()).then_some((Vni(vni), table))
            })
            .collect();
        let writer = KernelWriter::start(KernelConfig {
            vni_tables: self.tables.clone(),
            device: DEVICE.into(),
            protocol: self.protocol,
            nexthop_ids: self.ids.clone(),
            metric: Some(self.metric),
            nexthop_objects: self.form,
            cleanup_on_exit: random.u32(..10) == 0,
            ..KernelConfig::default()
        });
        let writer = writer.unwrap();
        for &(vni, prefix, hop) in &self.wanted {
            writer.add(vni, to(prefix, hop));
        }
        for vni in 1..=3 {
            writer.synced(Vni(vni));
        }
        self.writer = Some(writer);
    }

    fn change(&mut self, random: &mut fastrand::Rng) {
        let vni = Vni(random.u32(1..=3));
        let (prefix, hop) = (prefix(random), random.u16(1..=5));
        let Some(writer) = &self.writer else { return };
        if random.u32(..100) < 55 {
            self.wanted.insert((vni, prefix, hop));
            writer.add(vni, to(prefix, hop));
        } else {
            self.wanted.remove(&(vni, prefix, hop));
            writer.remove(vni, to(prefix, hop));
        }
    }

    /// What should be in the kernel: of several VNIs the lowest has a destination.
    fn model(&self) -> BTreeMap<Place, BTreeSet<Ipv6Addr>> {
        let mut model: BTreeMap<Place, (Vni, BTreeSet<Ipv6Addr>)> = BTreeMap::new();
        for &(vni, prefix, hop) in &self.wanted {
            if let Some(&table) = self.tables.get(&vni) {
                let place = (table, prefix, self.metric);
                let (owner, hops) = model.entry(place).or_insert((vni, BTreeSet::new()));
                if *owner == vni {
                    hops.insert(underlay(hop));
                }
            }
        }
        let is_single =
            |prefix: IpNet| self.form == NexthopMode::Never && matches!(prefix, IpNet::V6(_));
        let model = model.into_iter().map(|(place, (_, hops))| {
            let count = if is_single(place.1) { 1 } else { hops.len() };
            (place, hops.into_iter().take(count).collect())
        });
        model.collect()
    }

    /// What is in the kernel, but where somebody else's route stands.
    fn reading(&self, theirs: &BTreeSet<Place>) -> Vec<(Place, BTreeSet<Ipv6Addr>)> {
        let routes = kernel::survey(self.protocol, self.ids.clone()).unwrap();
        let ours = routes
            .into_iter()
            .filter(|it| it.standing != kernel::Standing::Foreign)
            .map(|it| ((it.table, it.prefix, it.metric), it.next_hops));
        let ours = ours.filter(|(place, _)| !theirs.contains(place));
        ours.map(|(place, hops)| (place, hops.into_iter().collect()))
            .collect()
    }

    /// Whether the writer waits because somebody undoes its work again and again.
    fn is_fighting(&self) -> bool {
        let obstacle = self.writer.as_ref().and_then(|it| it.stats().obstacle);
        obstacle.is_some_and(|it| it.contains("somebody else"))
    }
}

fn to(prefix: IpNet, hop: u16) -> Route {
    route(&prefix.to_string(), hop)
}

/// Runs `ip`; returns whether it did what it should.
fn tried(args: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(args.split_whitespace());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.unwrap().success()
}

fn family(prefix: IpNet) -> &'static str {
    match prefix {
        IpNet::V4(_) => "-4",
        IpNet::V6(_) => "-6",
    }
}

/// Routes of somebody else: at most one in a place.
#[derive(Default)]
struct Theirs(BTreeSet<Place>);

impl Theirs {
    /// Puts a route, or takes it away.
    fn change(&mut self, random: &mut fastrand::Rng) {
        let metric = pick(random, &[10, 20, 30, 40]);
        let place = (pick(random, &TABLES), prefix(random), metric);
        let (table, prefix, _) = place;
        let family = family(prefix);
        let route = format!("blackhole {prefix} table {table} metric {metric} proto static");
        if self.0.contains(&place) {
            assert!(tried(&format!("{family} route del {route}")), "{route}");
            self.0.remove(&place);
            return;
        }
        let verb = match family {
            "-4" => pick(random, &["add", "append", "prepend", "replace"]),
            _ => pick(random, &["add", "append", "replace"]),
        };
        if tried(&format!("{family} route {verb} {route}")) {
            self.0.insert(place);
        }
    }

    /// What is there of them.
    fn reading() -> BTreeSet<Place> {
        let mut all = BTreeSet::new();
        for (family, max) in [("-4", 32), ("-6", 128)] {
            let text = ip(&format!("{family} route show table all proto static"));
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let after = |name: &str| {
                    let at = words.iter().position(|it| *it == name)?;
                    words.get(at + 1)?.parse::<u32>().ok()
                };
                let prefix = match words[1].contains('/') {
                    true => words[1].to_owned(),
                    false => format!("{}/{max}", words[1]),
                };
                let place = (after("table"), prefix.parse(), after("metric"));
                let (Some(table), Ok(prefix), Some(metric)) = place else {
                    panic!("not understood: {line}");
                };
                assert!(all.insert((table, prefix, metric)), "twice: {line}");
            }
        }
        all
    }
}

/// Deletes a route or an object of a side.
fn meddle(random: &mut fastrand::Rng, side: &Side) {
    if random.bool() {
        let places: Vec<Place> = side.model().into_keys().collect();
        if places.is_empty() {
            return;
        }
        let (table, prefix, metric) = pick(random, &places);
        let (family, protocol) = (family(prefix), side.protocol);
        // It may not be there.
        tried(&format!(
            "{family} route del {prefix} table {table} metric {metric} proto {protocol}"
        ));
        return;
    }
    let text = ip(&format!("nexthop show proto {}", side.protocol));
    let ids: Vec<&str> = text
        .lines()
        .filter_map(|it| it.split_whitespace().nth(1))
        .collect();
    if !ids.is_empty() {
        let id = pick(random, &ids);
        tried(&format!("nexthop del id {id}"));
    }
}

/// Waits until the kernel is as it is wanted.
fn check(sides: &mut [Side; 2], theirs: &Theirs, random: &mut fastrand::Rng, context: &str) {
    assert_eq!(
        Theirs::reading(),
        theirs.0,
        "{context}: others are left alone"
    );
    let end = Instant::now() + PATIENCE;
    for side in sides {
        loop {
            let found = side.reading(&theirs.0);
            let mut model = side.model();
            model.retain(|place, _| !theirs.0.contains(place));
            let as_map: BTreeMap<_, _> = found.iter().cloned().collect();
            if as_map == model && found.len() == model.len() {
                break;
            }
            let stats = side.writer.as_ref().map(KernelWriter::stats);
            assert!(
                Instant::now() < end,
                "{context}: protocol {}\nfound {found:?}\nwanted {model:?}\n{stats:?}\n{}",
                side.protocol,
                TABLES.map(table).concat()
            );
            // It waits for a minute then; the next one does not.
            if side.is_fighting() {
                side.restart(random);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(
        Theirs::reading(),
        theirs.0,
        "{context}: others are left alone"
    );
}

fn chaos(steps: u32, seed: u64) {
    make_device();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sides = [
        Side::new(254, 100_000, [10, 20]),
        Side::new(250, 100_000, [30, 40]),
    ];
    for side in &mut sides {
        side.restart(&mut random);
    }
    let mut theirs = Theirs::default();
    for step in 0..steps {
        let number = random.usize(..2);
        match random.u32(..1000) {
            0..650 => sides[number].change(&mut random),
            650..850 => theirs.change(&mut random),
            850..960 => meddle(&mut random, &sides[number]),
            960..985 => sides[number].restart(&mut random),
            985..995 => {
                ip(&format!("link set {DEVICE} down"));
                ip(&format!("link set {DEVICE} up"));
            }
            _ => {
                ip(&format!("link del {DEVICE}"));
                make_device();
            }
        }
        if step % READING == READING - 1 {
            let context = format!("seed {seed}, step {step}");
            check(&mut sides, &theirs, &mut random, &context);
        }
    }
    for side in &mut sides {
        if let Some(writer) = side.writer.take() {
            drop(writer);
        }
        kernel::flush(side.protocol, side.ids.clone(), None).unwrap();
    }
    assert_eq!(ip("nexthop"), "");
    assert_eq!(Theirs::reading(), theirs.0, "others are left alone");
}

#[test]
fn two_clients_and_a_meddler_leave_each_other_alone_in_a_real_kernel() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let steps = number("METALBOND_CHAOS_STEPS").unwrap_or(300);
    let seed = number("METALBOND_CHAOS_SEED").unwrap_or(1);
    in_namespace("chaos", move || {
        let steps = u32::try_from(steps).unwrap();
        chaos(steps, seed);
    });
}
