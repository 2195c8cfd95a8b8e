//! The netlink thread's loop: changes and notifications in, batches out.
//!
//! ```text
//! KernelWriter (any thread)                     thread "metalbond-netlink"
//!   add, remove, synced, flush --bounded channel--> drain --> plan --> batch --> kernel
//!                                  ^ wakes              notifications, answers <--+
//! ```
//!
//! One [`Writer::turn`] does what is due and says when to come back; it reads no clock.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::handler::log_event;
use super::intake::{Clients, Slot};
use super::message::{self, Mark, encode_op, kind};
use super::parse::{self, Answer};
use super::socket::Netlink;
use super::stats::Shared;
use crate::core::client::Event;
use crate::core::kernel_plan::{Failure, Op, Plan, Scope};
use crate::core::limit::Throttle;
use crate::core::types::{Route, Vni};
use crate::error::Error;
pub(super) use read::query_device;

/// Messages in one `sendmsg`. The default receive buffer holds 256 refusals.
const BATCH: usize = 128;
/// Bytes in one `sendmsg`; a message of 256 inline hops takes 9 KiB.
const BATCH_BYTES: usize = 48 << 10;
/// Changes taken from the channel before the kernel gets a batch again.
const DRAIN: usize = 1 << 15;
/// Notifications read before the kernel gets a batch again.
const NOTIFICATIONS: usize = 1024;
/// Longest datagram: the kernel fills at most 32 KiB of a dump at once.
const DATAGRAM: usize = 64 << 10;

/// A burst of withdraws has ended when none came for this long, and longer the longer it
/// is: who delivers a long one pauses now and then on a busy machine ...
const SETTLE_IDLE: Duration = Duration::from_millis(5);
const SETTLE_IDLE_ROUTE: Duration = Duration::from_micros(10);
const SETTLE_IDLE_LIMIT: Duration = Duration::from_millis(50);
/// ... or has lasted for this long, and for as long as it takes to write its routes one by
/// one: who waits that long for a cheaper way loses as much again at most.
const SETTLE_LIMIT: Duration = Duration::from_millis(250);
const SETTLE_ROUTE: Duration = Duration::from_micros(3);
/// Pause before refused routes are tried again, and how many each time.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_LIMIT: usize = 1024;
/// Pause before a dump, so that a burst of foreign changes takes one.
const RESYNC_PAUSE: Duration = Duration::from_millis(50);
/// Pause before a dump that failed is tried again.
const RESYNC_RETRY: Duration = Duration::from_millis(200);
/// Pause between dumps whose reason is that a route was refused for being there.
const DOUBT_PAUSE: Duration = Duration::from_secs(5);
/// How often a dump that the kernel calls inconsistent is read again.
const DUMP_TRIES: usize = 3;
/// At most one log line about refused routes in this time.
const LOG_PAUSE: Duration = Duration::from_secs(10);
/// At most so many lines of another kind in a minute.
const LINES: u32 = 10;

/// What the handle asks of the thread.
pub(super) enum Command {
    Add(Vni, Route),
    Remove(Vni, Route),
    Synced(Vni),
    /// What a client was told.
    Events(Vec<Event>, Slot),
    Reconfigure(Box<Change>),
    /// All routes of a VNI, as of a moment after the change.
    Received(Vni, Vec<Route>),
    Flush(Sender<Result<(), Error>>),
    Shutdown(Sender<Result<(), Error>>, Instant),
}

/// Other settings.
pub(super) struct Change {
    pub(super) scope: Scope,
    pub(super) check_interval: Duration,
    pub(super) cleanup_on_exit: bool,
    /// VNIs of which all routes will follow.
    pub(super) awaited: BTreeSet<Vni>,
}

/// When to call [`Writer::turn`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At once.
    Again,
    /// On a command, on a notification, or at this time.
    Wait(Instant),
    /// Never.
    Stop,
}

/// What the loop needs to know of the configuration.
#[derive(Clone, Debug)]
pub(super) struct WriterConfig {
    pub(super) device: String,
    pub(super) check_interval: Duration,
    pub(super) cleanup_on_exit: bool,
}

/// The tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Missing,
    Down { index: u32 },
    Up { index: u32 },
}

/// A running burst of withdraws.
struct Burst {
    began: Instant,
    /// When it last grew.
    grown: Instant,
    /// Routes that lost a hop.
    size: usize,
}

impl Burst {
    /// When it is over, unless it grows before.
    fn end(&self) -> Instant {
        let routes = u32::try_from(self.size).unwrap_or(u32::MAX);
        let limit = SETTLE_LIMIT + SETTLE_ROUTE.saturating_mul(routes);
        let idle = SETTLE_IDLE + SETTLE_IDLE_ROUTE.saturating_mul(routes);
        (self.grown + idle.min(SETTLE_IDLE_LIMIT)).min(self.began + limit)
    }
}

/// What is owed to who asked for the end.
struct Ending {
    reply: Sender<Result<(), Error>>,
    deadline: Instant,
}

/// What the writer shares with other threads.
pub(super) struct Ends {
    pub(super) commands: Receiver<Command>,
    pub(super) clients: Arc<Clients>,
    pub(super) shared: Arc<Shared>,
}

/// Owns the plan and the sockets.
pub(super) struct Writer<N> {
    net: N,
    plan: Plan,
    mark: Mark,
    config: WriterConfig,
    device: Device,
    commands: Receiver<Command>,
    clients: Arc<Clients>,
    shared: Arc<Shared>,
    sequence: u32,
    ops: Vec<Op>,
    out: Vec<u8>,
    datagram: Vec<u8>,
    flushes: Vec<Sender<Result<(), Error>>>,
    /// No handle is left, and none asked for the end: it found no room to.
    orphaned: bool,
    ending: Option<Ending>,
    /// When to read the kernel's state again; nothing is written while that failed.
    resync_at: Option<Instant>,
    known: bool,
    read_at: Option<Instant>,
    /// When to read it again to see whose the routes are that were refused for being there.
    doubt_at: Option<Instant>,
    check_at: Option<Instant>,
    retry_at: Option<Instant>,
    burst: Option<Burst>,
    logged_at: Option<Instant>,
    /// Of VNIs whose routes are awaited, those removed meanwhile: what is on its way may be
    /// from before.
    removed: BTreeMap<Vni, BTreeSet<Route>>,
    /// Lines about routes of others, and about readings of the kernel's state.
    shadows: Throttle,
    readings: Throttle,
    /// The tables are others: the kernel's state is to be read.
    is_remapped: bool,
}

impl<N: Netlink> Writer<N> {
    pub(super) fn new(net: N, plan: Plan, mark: Mark, config: WriterConfig, ends: Ends) -> Self {
        Self {
            net,
            plan,
            mark,
            config,
            device: Device::Missing,
            commands: ends.commands,
            clients: ends.clients,
            shared: ends.shared,
            sequence: 0,
            ops: Vec::new(),
            out: Vec::new(),
            datagram: vec![0; DATAGRAM],
            flushes: Vec::new(),
            orphaned: false,
            ending: None,
            resync_at: None,
            known: false,
            read_at: None,
            doubt_at: None,
            check_at: None,
            retry_at: None,
            burst: None,
            logged_at: None,
            removed: BTreeMap::new(),
            shadows: Throttle::new(LINES),
            readings: Throttle::new(LINES),
            is_remapped: false,
        }
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Instant) -> Next {
        let mut again = self.read_notifications(now);
        // What was asked for before a flush is finished before more is taken.
        if self.flushes.is_empty() && self.ending.is_none() {
            again |= self.drain();
        }
        if std::mem::take(&mut self.is_remapped) {
            self.request_resync(now);
        }
        self.read_kernel_if_due(now);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.plan.retry(RETRY_LIMIT);
        }
        let wrote = self.write_some(now);
        if self.plan.counts().failed > 0 {
            self.retry_at.get_or_insert(now + RETRY);
        }
        self.publish();
        if self.answer(now) || self.orphaned {
            return Next::Stop;
        }
        if wrote || again {
            return Next::Again;
        }
        self.next_wake(now)
    }

    fn next_wake(&self, now: Instant) -> Next {
        let burst = self.burst.as_ref().map(Burst::end);
        let ending = self.ending.as_ref().map(|ending| ending.deadline);
        [
            self.resync_at,
            self.doubt_at,
            self.retry_at,
            self.check_at,
            burst.filter(|_| self.can_write()),
            ending,
        ]
        .into_iter()
        .flatten()
        .min()
        .map_or(Next::Wait(now + self.config.check_interval), Next::Wait)
    }

    const fn can_write(&self) -> bool {
        self.known && matches!(self.device, Device::Up { .. })
    }

    /// Takes commands. Returns whether there may be more.
    fn drain(&mut self) -> bool {
        let has_more = self.take_commands();
        self.clients.wake();
        has_more
    }

    fn take_commands(&mut self) -> bool {
        let mut taken = 0;
        while taken < DRAIN {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(error) => {
                    self.orphaned = error.is_disconnected();
                    return false;
                }
            };
            taken += 1;
            match command {
                Command::Add(vni, route) => self.add(vni, route),
                Command::Remove(vni, route) => self.remove(vni, route),
                Command::Synced(vni) => self.plan.synced(vni),
                Command::Events(events, _slot) => {
                    taken += events.len();
                    events.into_iter().for_each(|event| self.told(event));
                }
                Command::Reconfigure(change) => self.reconfigure(*change),
                Command::Received(vni, routes) => {
                    let removed = self.removed.remove(&vni).unwrap_or_default();
                    for route in routes.iter().filter(|it| !removed.contains(it)) {
                        self.plan.add(vni, route);
                    }
                }
                Command::Flush(reply) => {
                    self.flushes.push(reply);
                    return false;
                }
                Command::Shutdown(reply, deadline) => {
                    self.ending = Some(Ending { reply, deadline });
                    if self.config.cleanup_on_exit {
                        self.plan.clear();
                    }
                    return false;
                }
            }
        }
        true
    }

    fn add(&mut self, vni: Vni, route: Route) {
        if let Some(removed) = self.removed.get_mut(&vni) {
            removed.remove(&route);
        }
        self.plan.add(vni, &route);
    }

    fn remove(&mut self, vni: Vni, route: Route) {
        if let Some(removed) = self.removed.get_mut(&vni) {
            removed.insert(route);
        }
        self.plan.remove(vni, &route);
    }

    /// Takes an event of a client.
    fn told(&mut self, event: Event) {
        log_event(&event);
        match event {
            Event::RouteAdded(vni, route) => self.add(vni, route),
            Event::RouteRemoved(vni, route) => self.remove(vni, route),
            Event::Synced(vni) => self.plan.synced(vni),
            // Not about the kernel, or in a form that the client does not use here.
            Event::NextHopsChanged(..)
            | Event::Current
            | Event::ServerUp(_)
            | Event::ServerDown(..) => {}
        }
    }

    fn reconfigure(&mut self, change: Change) {
        self.config.check_interval = change.check_interval;
        self.config.cleanup_on_exit = change.cleanup_on_exit;
        let awaited = change.awaited.into_iter();
        self.removed = awaited.map(|vni| (vni, BTreeSet::new())).collect();
        self.plan.remap(change.scope);
        self.is_remapped = true;
    }

    /// Sends the next batch, if there is one. Returns whether there was.
    fn write_some(&mut self, now: Instant) -> bool {
        if !self.can_write() {
            return false;
        }
        let mut ops = std::mem::take(&mut self.ops);
        ops.clear();
        let settled = self.burst_is_over(now);
        if settled {
            self.plan.settle(&mut ops);
        } else {
            self.plan.batch(BATCH, &mut ops);
        }
        let wrote = !ops.is_empty();
        if wrote {
            match self.execute(&ops) {
                Ok(failures) => self.complete(&ops, &failures, now),
                // What was done is not known.
                Err(error) => self.distrust("write", &error, now),
            }
        }
        self.ops = ops;
        wrote || settled
    }

    fn burst_is_over(&mut self, now: Instant) -> bool {
        let settling = self.plan.settling();
        if settling == 0 {
            self.burst = None;
            return false;
        }
        let burst = self.burst.get_or_insert(Burst {
            began: now,
            grown: now,
            size: 0,
        });
        if settling > burst.size {
            (burst.grown, burst.size) = (now, settling);
        }
        let over = now >= burst.end() || !self.flushes.is_empty() || self.ending.is_some();
        if over {
            self.burst = None;
        }
        over
    }

    fn complete(&mut self, ops: &[Op], failures: &[(Failure, Answer)], now: Instant) {
        let plain: Vec<Failure> = failures.iter().map(|(failure, _)| *failure).collect();
        let outcome = self.plan.completed(ops, &plain);
        if let Some((failure, answer)) = failures.first() {
            let text = describe(&ops[failure.at], answer);
            if self.logged_at.is_none_or(|at| now >= at + LOG_PAUSE) {
                self.logged_at = Some(now);
                log::warn!(
                    "kernel routes: refused {} of {}: {text}",
                    failures.len(),
                    ops.len()
                );
            }
            self.shared.set_error(text);
        }
        if outcome.resync {
            self.request_resync(now + RESYNC_PAUSE);
        }
        if outcome.doubt {
            let earliest = self.read_at.map_or(now, |at| at + DOUBT_PAUSE);
            let at = earliest.max(now + RESYNC_PAUSE);
            self.doubt_at.get_or_insert(at);
        }
        if outcome.device {
            match self.query_device() {
                // Only these routes: they are tried again as others are.
                Ok(device) if device == self.device => {}
                Ok(_) => self.request_resync(now),
                Err(error) => self.distrust("write", &error, now),
            }
        }
    }

    /// Sends operations and collects the refusals, in order.
    fn execute(&mut self, ops: &[Op]) -> io::Result<Vec<(Failure, Answer)>> {
        let mut failures = Vec::new();
        let mut done = 0;
        while done < ops.len() {
            self.out.clear();
            let first = self.sequence.wrapping_add(1);
            let (mut count, mut last) = (0, 0);
            while let Some(op) = ops.get(done + count)
                && count < BATCH
                && self.out.len() < BATCH_BYTES
            {
                self.sequence = self.sequence.wrapping_add(1);
                last = self.out.len();
                encode_op(&mut self.out, op, self.sequence, &self.mark);
                count += 1;
            }
            message::request_ack(&mut self.out[last..]);
            self.net.send(&self.out)?;
            self.shared.messages.fetch_add(count as u64, Relaxed);
            self.shared.batches.fetch_add(1, Relaxed);
            self.collect(first, count, done, &mut failures)?;
            done += count;
        }
        Ok(failures)
    }

    /// Reads answers up to that of the last of `count` messages from sequence number `first`.
    fn collect(
        &mut self,
        first: u32,
        count: usize,
        offset: usize,
        failures: &mut Vec<(Failure, Answer)>,
    ) -> io::Result<()> {
        loop {
            let len = self.net.receive(&mut self.datagram)?;
            for message in parse::messages(&self.datagram[..len.min(DATAGRAM)]) {
                // Answers to what an earlier error cut short are older.
                let at = message.sequence.wrapping_sub(first) as usize;
                if message.kind != kind::ERROR || at >= count {
                    continue;
                }
                let Some(answer) = parse::answer(&message) else {
                    continue;
                };
                if answer.errno != 0 {
                    let at = offset + at;
                    let errno = answer.errno;
                    failures.push((Failure { at, errno }, answer));
                }
                if at + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    /// Reads the kernel again at `at`, or before if that was asked for.
    fn request_resync(&mut self, at: Instant) {
        self.resync_at = Some(self.resync_at.map_or(at, |before| before.min(at)));
    }

    /// A call failed: what the kernel holds is not known until it is read.
    fn distrust(&mut self, doing: &str, error: &io::Error, now: Instant) {
        log::warn!("kernel routes: cannot {doing}: {error}; reading the kernel's state again");
        self.shared
            .set_error(format!("cannot {doing} routes: {error}"));
        self.known = false;
        self.resync_at = Some(now + RESYNC_RETRY);
    }

    fn read_kernel_if_due(&mut self, now: Instant) {
        let check = self.check_at.is_none_or(|at| at <= now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !check && !due(self.resync_at) && !due(self.doubt_at) {
            return;
        }
        self.resync_at = None;
        self.doubt_at = None;
        let is_routine = check && self.read_at.is_some();
        self.read_at = Some(now);
        self.check_at = Some(now + self.config.check_interval);
        if let Err(error) = self.read_kernel(now) {
            self.distrust("read", &error, now);
            return;
        }
        let level = match is_routine {
            true => log::Level::Debug,
            false => rare(&mut self.readings, log::Level::Info, now),
        };
        let counts = self.plan.counts();
        log::log!(
            level,
            "kernel routes: state read, {} installed, {} desired",
            counts.installed,
            counts.desired
        );
    }

    /// Answers who waits for what is done. Returns whether that was all.
    fn answer(&mut self, now: Instant) -> bool {
        let done = self.plan.is_idle() && self.can_write();
        if done || !matches!(self.device, Device::Up { .. }) && self.known {
            for reply in self.flushes.drain(..) {
                let result = if done {
                    Ok(())
                } else {
                    Err(Error::Netlink(format!(
                        "tunnel device {} is missing or down: routes wait",
                        self.config.device
                    )))
                };
                // Who no longer waits needs no answer.
                drop(reply.try_send(result));
            }
        }
        let Some(ending) = &self.ending else {
            return false;
        };
        // Without its device the kernel has none of our routes.
        let nothing_left = done || self.known && !self.can_write();
        if !nothing_left && now < ending.deadline {
            return false;
        }
        let result = if nothing_left {
            Ok(())
        } else {
            Err(Error::Timeout)
        };
        drop(ending.reply.try_send(result));
        true
    }

    fn publish(&self) {
        let counts = self.plan.counts();
        let up = matches!(self.device, Device::Up { .. });
        let in_sync = self.can_write()
            && self.plan.is_idle()
            && counts.failed == 0
            && self.resync_at.is_none()
            && self.commands.is_empty();
        self.shared.publish(&counts, up, in_sync);
    }

    /// Where the writer publishes.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether commands wait, for the thread to look at before it sleeps.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty() && self.flushes.is_empty() && self.ending.is_none()
    }
}

/// The level for a line that should be rare: that given, or debug when it is not.
fn rare(throttle: &mut Throttle, level: log::Level, now: Instant) -> log::Level {
    if let Some(count) = throttle.take_held(now) {
        log::log!(
            level,
            "kernel routes: {count} more lines like the next in the last minute"
        );
    }
    if throttle.admits(now) {
        level
    } else {
        log::Level::Debug
    }
}

fn describe(op: &Op, answer: &Answer) -> String {
    let what = match op {
        Op::AddHop { address, .. } => format!("nexthop {address}"),
        Op::AddGroup { id, .. } | Op::ReplaceGroup { id, .. } => format!("nexthop group {id}"),
        Op::DeleteObject { id } => format!("deletion of nexthop {id}"),
        Op::Route {
            verb,
            table,
            prefix,
            ..
        } => format!("{verb:?} {prefix} table {table}"),
    };
    let error = io::Error::from_raw_os_error(answer.errno);
    match &answer.text {
        Some(text) => format!("{what}: {text}: {error}"),
        None => format!("{what}: {error}"),
    }
}
