//! Random churn near full speed: `cargo bench --bench soak [-- MINUTES [rolling]]`, one minute by
//! default.
//!
//! Two servers in processes of their own, a third process with four real clients of both,
//! raw announcers that tell both servers the same, raw subscribers of one server each.
//! While routes churn, peers of every kind leave and come back, and sessions of the real
//! clients are reset.
//!
//! Legacy subscribers are sent to at a pace, so theirs is a calm VNI; the rest is as fast as
//! two cores go: the summary tells how much of the machine was used.
//!
//! Every second the churn rests until all agree: the digest of every VNI on both servers and
//! at every client, what the clients' handlers were told, what raw subscribers heard, and the
//! model; the routes of the servers themselves once a minute. Then sessions and descriptors
//! must be as many as at first, and memory is read: what is resident, and what the allocator
//! has lent, which shows a leak where the former shows what the allocator keeps for itself.
//! After a warm-up and at the end the allocator is asked to give that back, so that what
//! is resident can be compared. Within a second, in-flight changes make tables differ rightly,
//! so nothing is compared then; how much of the time the churn rests is printed.
//!
//! With `rolling`, both servers are killed one after the other once a minute, and are back empty
//! after a second; the announcers return 5 to 9 s later. Nothing is withdrawn meanwhile, so every
//! route that a client is told to remove is a wrong removal. The memory of servers is not judged
//! then.
//!
//! The program ends with 1 when a limit is broken.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "../process/mod.rs"]
mod process;
#[path = "../../tests/common/procfs.rs"]
mod procfs;
mod raw;
mod role;
mod route;
mod trend;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use raw::{Announcer, Subscriber};
use role::Role;
use route::Fingerprints;
use trend::Trend;

const ANNOUNCERS: u8 = 8;
/// Half of them legacy peers, half of them at each server.
const SUBSCRIBERS: usize = 4;
const CLIENTS: usize = 4;
const VNIS: u8 = 4;
/// Routes that an announcer has or has not, in each VNI.
const ROUTES: u32 = 5000;
/// Changes between two looks at the clock.
const BATCH: usize = 500;

/// How long tables may take to agree once the churn rests, on a machine that does other work.
const AGREEMENT: Duration = Duration::from_secs(120);
/// How much what is allocated may grow, in KiB a minute, after the warm-up, as far as that
/// can be told: the slope less three times its standard error. A table's log grows and is
/// compacted, which is worth megabytes.
const SLOPE_KIB: f64 = 32.0;
/// How much more than after the warm-up may be resident at the end, in KiB, both after the
/// allocator has given back what it keeps: a table's log is as long as chance has it, and
/// a page is kept for the sake of anything in it.
const GROWTH_KIB: u32 = 8 * 1024;
/// A warm-up is this part of a run.
const WARM_UP: f64 = 4.0;
/// Runs below that many minutes are too short to judge a slope.
const JUDGED_MINUTES: f64 = 10.0;

/// How long a restarted server is away.
const AWAY: Duration = Duration::from_secs(1);
/// When announcers are back at it, in ms: as Go's.
const RETURN_MS: std::ops::Range<u64> = 5_000..9_000;
/// Between the two restarts, in ms.
const GAP_MS: std::ops::Range<u64> = 0..8_000;
/// Longer than what a client lets a server settle.
const SETTLED: Duration = Duration::from_secs(17);

type Outcome<T> = Result<T, String>;

/// Everything under observation, and what it should look like.
struct Soak {
    random: fastrand::Rng,
    servers: [Role; 2],
    addresses: [SocketAddr; 2],
    clients: Role,
    announcers: Vec<Announcer>,
    subscribers: Vec<Subscriber>,
    /// Of all that is announced.
    expected: Fingerprints,
    /// Descriptors of the servers and the clients when all were there.
    descriptors: Option<[usize; 3]>,
    changes: u64,
    /// Updates to raw subscribers that have left.
    heard: u64,
    /// Raw subscribers that were replaced.
    replaced: u16,
    resets: u64,
    /// Restarts of servers.
    restarts: u64,
    rested: Duration,
    checkpoints: u64,
}

/// The raw subscriber at a place, in a generation.
fn subscriber(servers: &[SocketAddr; 2], at: usize, generation: u16) -> Subscriber {
    let number = (generation << 2) + u16::try_from(at).expect("they are few");
    Subscriber::new(servers[at % 2], at < SUBSCRIBERS / 2, number)
}

impl Soak {
    fn new(seed: u64) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (one, other) = (role::server(any), role::server(any));
        let addresses = [one.1, other.1];
        let subscribe = |at: usize| subscriber(&addresses, at, 0);
        Self {
            random: fastrand::Rng::with_seed(seed),
            servers: [one.0, other.0],
            addresses,
            clients: role::clients(&addresses, CLIENTS),
            announcers: (1..=ANNOUNCERS)
                .map(|hop| Announcer::new(&addresses, hop))
                .collect(),
            subscribers: (0..SUBSCRIBERS).map(subscribe).collect(),
            expected: Fingerprints::default(),
            descriptors: None,
            changes: 0,
            heard: 0,
            replaced: 0,
            resets: 0,
            restarts: 0,
            rested: Duration::ZERO,
            checkpoints: 0,
        }
    }

    /// Churns for a second, and lets somebody leave and come back.
    fn second(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            let at = self.random.usize(..self.announcers.len());
            let turned = self.announcers[at].churn(&mut self.random, BATCH);
            self.expected.turn_all(turned);
            self.changes += BATCH as u64;
        }
        let number = self.random.usize(..1000);
        match self.random.u8(..8) {
            0 => {
                let at = number % SUBSCRIBERS;
                self.replaced += 1;
                let new = subscriber(&self.addresses, at, self.replaced);
                let old = std::mem::replace(&mut self.subscribers[at], new);
                self.heard += old.leave();
            }
            1 => {
                let announcer = &mut self.announcers[number % usize::from(ANNOUNCERS)];
                self.expected.turn_all(announcer.fingerprints());
                *announcer = Announcer::new(&self.addresses, announcer.hop);
            }
            2 => {
                self.clients.ask(&format!("restart {number}"));
            }
            3 => self.resets += self.servers[number % 2].count(&format!("reset {number}")),
            _ => {}
        }
    }

    /// Restarts both servers one after the other, and counts what clients are told to remove.
    fn roll(&mut self) -> Outcome<()> {
        let before = self.clients.count("removed");
        let mut returns = Vec::new();
        for server in 0..self.servers.len() {
            self.servers[server].kill();
            self.wait(AWAY, &mut returns);
            self.servers[server] = role::server(self.addresses[server]).0;
            self.restarts += 1;
            self.resets += CLIENTS as u64;
            for at in (0..SUBSCRIBERS).filter(|at| at % 2 == server) {
                self.replaced += 1;
                let new = subscriber(&self.addresses, at, self.replaced);
                let old = std::mem::replace(&mut self.subscribers[at], new);
                self.heard += old.leave();
            }
            for announcer in 0..self.announcers.len() {
                let back = Duration::from_millis(self.random.u64(RETURN_MS));
                returns.push((Instant::now() + back, server, announcer));
            }
            let gap = Duration::from_millis(self.random.u64(GAP_MS));
            self.wait(gap, &mut returns);
        }
        self.wait(SETTLED, &mut returns);
        self.checkpoint()?;
        match self.clients.count("removed") - before {
            0 => Ok(()),
            wrong => Err(format!("a rolling restart made {wrong} wrong removals")),
        }
    }

    /// Waits, and has announcers return that are due.
    fn wait(&mut self, time: Duration, returns: &mut Vec<(Instant, usize, usize)>) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            for (_, server, at) in returns.extract_if(.., |it| it.0 <= now) {
                self.announcers[at].renew(server, self.addresses[server]);
            }
            let next = returns.iter().map(|it| it.0).chain([until]).min();
            let next = next.unwrap_or(until).min(until);
            if now >= until {
                return;
            }
            std::thread::sleep(next.saturating_duration_since(now));
        }
    }

    /// Why not all is as it should be, if so.
    fn disagreement(&mut self) -> Outcome<()> {
        for (at, subscriber) in self.subscribers.iter().enumerate() {
            if !subscriber.agrees(self.expected) {
                return Err(format!("raw subscriber {at} differs from the model"));
            }
        }
        let [one, other] = self.servers.each_mut().map(|it| it.ask("tables"));
        if one != other {
            return Err(format!("the servers differ: {one} and {other}"));
        }
        let sizes = one.split(' ').filter_map(|it| it.split(':').nth(1));
        let size: usize = sizes.filter_map(|it| it.parse::<usize>().ok()).sum();
        let model: usize = self.announcers.iter().map(Announcer::len).sum();
        if size != model {
            return Err(format!("the servers have {size} routes, the model {model}"));
        }
        let agreed = format!("{one}={}", self.expected.all);
        for (at, client) in self.clients.ask("tables").split('|').enumerate() {
            if client != agreed {
                return Err(format!(
                    "client {at} has {client}, the servers and the model {agreed}"
                ));
            }
        }
        let [one, other] = self.servers.each_mut().map(|it| it.count("sessions"));
        let places = [(one, 0), (other, 1)];
        for (sessions, at) in places {
            let expected = usize::from(ANNOUNCERS) + SUBSCRIBERS / 2 + CLIENTS;
            if sessions != expected as u64 {
                return Err(format!(
                    "server {at} has {sessions} sessions, not {expected}"
                ));
            }
        }
        let descriptors = self.descriptors();
        let first = *self.descriptors.get_or_insert(descriptors);
        if descriptors != first {
            return Err(format!("{descriptors:?} descriptors, not {first:?}"));
        }
        Ok(())
    }

    fn processes(&mut self) -> [&mut Role; 3] {
        let [one, other] = &mut self.servers;
        [one, other, &mut self.clients]
    }

    fn descriptors(&self) -> [usize; 3] {
        [&self.servers[0], &self.servers[1], &self.clients].map(Role::descriptors)
    }

    /// Waits until all agree, and checks what must hold then.
    fn checkpoint(&mut self) -> Outcome<()> {
        let start = Instant::now();
        while let Err(reason) = self.disagreement() {
            if start.elapsed() > AGREEMENT {
                return Err(reason);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.checkpoints.is_multiple_of(60) {
            let [one, other] = self.servers.each_mut().map(|it| it.count("routes"));
            if [one, other] != [self.expected.all; 2] {
                return Err("the routes of the servers differ from the model".into());
            }
        }
        self.checkpoints += 1;
        self.rested += start.elapsed();
        let faults: u64 = self.subscribers.iter().map(Subscriber::faults).sum();
        if faults > 0 {
            return Err(format!("raw subscribers object {faults} times"));
        }
        let faults = self.clients.count("faults");
        if faults > 0 {
            return Err(format!("handlers object {faults} times"));
        }
        let (downs, resets) = (self.clients.count("downs"), self.resets);
        if downs > resets {
            return Err(format!(
                "clients lost {downs} sessions, {resets} were reset"
            ));
        }
        for subscriber in &mut self.subscribers {
            subscriber.keep_alive();
        }
        Ok(())
    }

    /// Has the allocators give back what they can; KiB that are resident after that.
    fn trim(&mut self) -> [u32; 3] {
        self.processes().map(|it| {
            it.count("trim");
            it.resident_kib()
        })
    }

    /// Updates that raw subscribers heard, and events that handlers were told.
    fn deliveries(&mut self) -> (u64, u64) {
        let now: u64 = self.subscribers.iter().map(Subscriber::updates).sum();
        (self.heard + now, self.clients.count("events"))
    }
}

const NAMES: [&str; 3] = ["server 1", "server 2", "clients"];

/// What one process has over time.
#[derive(Default)]
struct Memory {
    resident: Trend,
    allocated: Trend,
}

fn run(minutes: u32, is_rolling: bool) -> Outcome<()> {
    let mut soak = Soak::new(minutes.into());
    let mut memory: [Memory; 3] = Default::default();
    let start = Instant::now();
    let elapsed = || start.elapsed().as_secs_f64() / 60.0;
    let mut next_line = 1.0;
    let mut trimmed = None;
    while elapsed() < f64::from(minutes) {
        soak.second();
        soak.checkpoint()?;
        if elapsed() >= f64::from(minutes) / WARM_UP {
            trimmed.get_or_insert_with(|| soak.trim());
        }
        for (memory, process) in memory.iter_mut().zip(soak.processes()) {
            let allocated = process.count("allocated");
            let allocated = u32::try_from(allocated).unwrap_or(u32::MAX);
            memory.allocated.push(elapsed(), allocated);
            memory.resident.push(elapsed(), process.resident_kib());
        }
        if elapsed() >= next_line {
            if is_rolling {
                soak.roll()?;
            }
            next_line = elapsed().floor() + 1.0;
            let (heard, told) = soak.deliveries();
            println!(
                "{:5.1} min: {} changes, {heard} updates heard, {told} events; resident {:?} KiB, \
                 allocated {:?} KiB, descriptors {:?}, {} resets, {} checkpoints",
                elapsed(),
                soak.changes,
                memory.each_ref().map(|it| it.resident.last()),
                memory.each_ref().map(|it| it.allocated.last()),
                soak.descriptors(),
                soak.resets,
                soak.checkpoints,
            );
        }
    }
    let minutes = elapsed();
    let before = trimmed.unwrap_or_else(|| soak.trim());
    summary(&mut soak, &memory, before, minutes)
}

/// `before`: KiB that were resident after the warm-up.
fn summary(soak: &mut Soak, memory: &[Memory; 3], before: [u32; 3], minutes: f64) -> Outcome<()> {
    let (heard, told) = soak.deliveries();
    let rested = soak.rested.as_secs_f64() / 60.0;
    println!(
        "{} changes at each of two servers, {heard} updates heard, {told} events, {} resets and {} \
         restarts without a wrong removal in {minutes:.1} min, of which {:.0} % rested; all tables equal at {} checkpoints",
        soak.changes,
        soak.resets,
        soak.restarts,
        100.0 * rested / minutes,
        soak.checkpoints,
    );
    let own = procfs::cpu_of_all("self").as_secs_f64();
    let each = soak.processes().map(|it| it.cpu().as_secs_f64());
    let used = own + each.iter().sum::<f64>();
    let cores = std::thread::available_parallelism().map_or(1.0, |it| it.get() as f64);
    println!(
        "{:.0} % of {cores} cores used; {own:.0} s of CPU here, {each:.0?} s in the others",
        100.0 * used / (60.0 * minutes * cores),
    );
    let warm_up = minutes / WARM_UP;
    let after = soak.trim();
    let mut outcome = Ok(());
    for (at, name) in NAMES.iter().enumerate() {
        let Memory {
            resident,
            allocated,
        } = &memory[at];
        let (slope, error) = allocated.slope(warm_up);
        let (before, after) = (before[at], after[at]);
        println!(
            "{name}: allocated {:.0} KiB at the end, {slope:+.1} ± {error:.1} KiB a minute after {warm_up:.1} \
             min; resident {:.0} KiB at most, {:.0} at the end; of that {after} cannot be given \
             back, {before} after the warm-up",
            allocated.last(),
            resident.max(),
            resident.last(),
        );
        let is_restarted = soak.restarts > 0 && at < 2;
        if minutes < JUDGED_MINUTES || is_restarted {
            continue;
        }
        if slope - 3.0 * error > SLOPE_KIB {
            outcome = Err(format!(
                "{name}: what is allocated grows {slope:.1} KiB a minute"
            ));
        }
        if after > before + GROWTH_KIB {
            outcome = Err(format!("{name}: what is resident grew to {after} KiB"));
        }
    }
    if minutes < JUDGED_MINUTES {
        println!("memory is not judged: below {JUDGED_MINUTES:.0} minutes");
    }
    outcome
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", address] => role::serve(address),
        ["clients", count, ref servers @ ..] => {
            role::subscribe(servers, count.parse().expect("a number"));
        }
        _ => {
            let minutes = arguments.iter().find_map(|it| it.parse().ok());
            let is_rolling = arguments.contains(&"rolling");
            if let Err(reason) = run(minutes.unwrap_or(1), is_rolling) {
                println!("FAILED: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
