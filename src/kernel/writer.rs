//! The netlink thread's loop: changes and notifications in, batches out.
//!
//! ```text
//! KernelWriter (any thread)                     thread "metalbond-netlink"
//!   add, remove, synced, flush --bounded channel--> drain --> plan --> batch --> kernel
//!                                  ^ wakes              notifications, answers <--+
//! ```
//!
//! One [`Writer::turn`] does what is due and says when to come back; it reads no clock.

mod commands;
mod dump;
mod fights;
mod notice;
mod read;
mod timers;
mod ways;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::claim::Claimed;
use super::device::Device;
use super::message::Mark;
use super::room::{Clients, Slot};
use super::socket::Netlink;
use super::stats::{Gauges, Obstacle, Trouble};
use crate::core::client::Event;
use crate::core::kernel_plan::{Op, Place, Plan, Scope};
use crate::core::limit::Throttle;
use crate::core::types::{Route, Vni};
use crate::error::Error;
use fights::Fights;
use read::{Ongoing, Reason};
use timers::{Timer, Timers};
use ways::Ways;
use write::Burst;

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

/// What handles and clients ask of the thread.
pub(super) enum Command {
    Add(Vni, Route),
    Remove(Vni, Route),
    Synced(Vni),
    /// What a client was told.
    Events(Vec<Event>, Slot),
    Reconfigure(Box<Change>),
    /// All routes of a VNI at some moment after the change was sent.
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
    /// The tunnel devices; most VNIs have the first.
    pub(super) devices: Vec<String>,
    pub(super) check_interval: Duration,
    pub(super) cleanup_on_exit: bool,
    pub(super) track_nexthops: bool,
    pub(super) claimed: Claimed,
}

/// A request to shut down that is not answered yet.
struct Ending {
    reply: Sender<Result<(), Error>>,
    deadline: Instant,
}

/// What the writer shares with other threads.
pub(super) struct Ends {
    pub(super) commands: Receiver<Command>,
    pub(super) clients: Arc<Clients>,
    pub(super) gauges: Arc<Gauges>,
}

/// Owns the plan and the sockets.
pub(super) struct Writer<N> {
    net: N,
    plan: Plan,
    mark: Mark,
    config: WriterConfig,
    /// The tunnel devices as they were seen last.
    devices: Vec<Device>,
    commands: Receiver<Command>,
    clients: Arc<Clients>,
    gauges: Arc<Gauges>,
    sequence: u32,
    ops: Vec<Op>,
    out: Vec<u8>,
    datagram: Vec<u8>,
    flushes: Vec<Sender<Result<(), Error>>>,
    /// No handle is left, and the last one found no room to ask for the end.
    orphaned: bool,
    ending: Option<Ending>,
    /// When this turn of the loop began.
    now: Option<Instant>,
    timers: Timers,
    /// The kernel's state is known: nothing is written before it is.
    known: bool,
    /// All tables were read, not only those of our VNIs.
    known_everywhere: bool,
    /// The last reading is or was one of all tables.
    reads_everywhere: bool,
    /// The kernel is being read, and new routes are written meanwhile.
    writes_while_reading: bool,
    is_first_reading: bool,
    /// The next reading begins from nothing.
    forgets: bool,
    /// A reading that goes on while the kernel is written to.
    review: Option<Ongoing>,
    /// Callers of a flush wait for a reading of tables that are new.
    awaits_reading: bool,
    /// Indices of the devices by which routes of ours may lead.
    tunnels: BTreeSet<u32>,
    /// What other writers claimed at the last reading.
    claims: Vec<Claimed>,
    /// Objects that a writer with other options left: their protocols, and a number with each.
    orphans: BTreeMap<u8, u32>,
    /// The warning about them, while they are there.
    told_orphans: Option<String>,
    fights: Fights,
    ways: Ways,
    /// How many routes of ours wait for others to go, and one of them, when that was last told.
    shadowed: Option<(usize, Place)>,
    burst: Option<Burst>,
    /// Routes removed since [`Change`] announced all routes of a VNI: that list may still
    /// have them.
    removed: BTreeMap<Vni, BTreeSet<Route>>,
    /// Lines about routes of others, about announcements that cannot be installed as they are,
    /// and about readings of the kernel's state.
    shadows: Throttle,
    doubts: Throttle,
    readings: Throttle,
    /// The tables changed, and the kernel's state was not read since.
    is_remapped: bool,
}

impl<N: Netlink> Writer<N> {
    pub(super) fn new(
        net: N,
        mut plan: Plan,
        mark: Mark,
        config: WriterConfig,
        ends: Ends,
    ) -> Self {
        let mut ways = Ways::default();
        if config.track_nexthops {
            plan.begin_tracking();
            ways.begin();
        }
        Self {
            net,
            plan,
            mark,
            devices: vec![Device::Missing; config.devices.len()],
            config,
            commands: ends.commands,
            clients: ends.clients,
            gauges: ends.gauges,
            sequence: 0,
            ops: Vec::new(),
            out: Vec::new(),
            datagram: vec![0; DATAGRAM],
            flushes: Vec::new(),
            orphaned: false,
            ending: None,
            timers: Timers::default(),
            known: false,
            known_everywhere: false,
            reads_everywhere: false,
            writes_while_reading: false,
            is_first_reading: true,
            forgets: true,
            review: None,
            awaits_reading: false,
            tunnels: BTreeSet::new(),
            claims: Vec::new(),
            orphans: BTreeMap::new(),
            told_orphans: None,
            fights: Fights::default(),
            ways,
            shadowed: None,
            burst: None,
            removed: BTreeMap::new(),
            shadows: Throttle::new(LINES),
            doubts: Throttle::new(LINES),
            now: None,
            readings: Throttle::new(LINES),
            is_remapped: false,
        }
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Instant) -> Next {
        self.now = Some(now);
        let mut again = self.read_notifications(now);
        // A reading from nothing finds out by itself.
        if !(self.forgets && self.timers.is_due(Timer::Resync, now)) {
            self.plan.lose_objects();
        }
        // Commands before a flush are carried out before later ones are taken.
        if self.flushes.is_empty() && self.ending.is_none() {
            again |= self.drain();
        }
        if std::mem::take(&mut self.is_remapped) {
            self.known_everywhere = false;
            self.awaits_reading = true;
            self.request_resync(now);
        }
        self.read_kernel_if_due(now);
        again |= self.read_on(now);
        // What a try changes is left out of a reading that goes on.
        if self.timers.is_due(Timer::Retry, now) && self.review.is_none() {
            self.timers.clear(Timer::Retry);
            self.plan.retry(RETRY_LIMIT);
        }
        if self.timers.is_due(Timer::Repair, now) {
            self.timers.clear(Timer::Repair);
            self.plan.repair();
        }
        again |= self.ask_ways(now);
        let wrote = self.write_some(now);
        if self.plan.has_refused() {
            self.timers.set_if_unset(Timer::Retry, now + RETRY);
        }
        match self.fights.end(now) {
            Some(end) => self.timers.set(Timer::Peace, end),
            None if self.timers.is_set(Timer::Peace) => {
                self.timers.clear(Timer::Peace);
                self.gauges.end_error(Trouble::Fight);
            }
            None => {}
        }
        self.end_troubles(now);
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
        let burst = burst.filter(|_| self.can_write());
        let times = [self.timers.next(), burst, ending];
        let next = times.into_iter().flatten().min();
        next.map_or(Next::Wait(now + self.config.check_interval), Next::Wait)
    }

    /// Whether the kernel takes what is to be written. What only deletes needs no device.
    fn can_write(&self) -> bool {
        let only_deletes = self.ending.is_some() && self.config.cleanup_on_exit;
        self.known && (only_deletes || self.is_any_up())
    }

    /// Whether a device takes routes; those by others wait, and are tried again.
    fn is_any_up(&self) -> bool {
        self.devices.iter().any(|it| it.is_up())
    }

    /// Why routes wait, if some do.
    fn problem(&self) -> Option<String> {
        let mut devices = self.devices.iter().zip(&self.config.devices);
        devices.find_map(|(device, name)| device.problem(name))
    }

    /// Reads the kernel again at `at`, or before if that was asked for.
    fn request_resync(&mut self, at: Instant) {
        self.timers.set_at_latest(Timer::Resync, at);
    }

    /// Notes that a call failed: the kernel's state is unknown until it is read.
    fn distrust(&mut self, doing: &str, error: &io::Error, now: Instant) {
        log::warn!("kernel routes: cannot {doing}: {error}; reading the kernel's state again");
        let text = format!("cannot {doing} routes: {error}");
        self.gauges.set_error(Trouble::Call, text);
        self.known = false;
        self.forgets = true;
        self.timers.set(Timer::Resync, now + RESYNC_RETRY);
    }

    fn read_kernel_if_due(&mut self, now: Instant) {
        let check = !self.timers.is_set(Timer::Check) || self.timers.is_due(Timer::Check, now);
        let has_reason =
            self.timers.is_due(Timer::Resync, now) || self.timers.is_due(Timer::Doubt, now);
        // A reading that goes on may have passed what is in doubt: another one follows it.
        let must_wait = self.review.is_some() && !self.forgets;
        if !check && !has_reason || must_wait {
            return;
        }
        self.timers.clear(Timer::Resync);
        self.timers.clear(Timer::Doubt);
        // Somebody may have put a route of ours anywhere.
        self.known_everywhere &= !check;
        // The first reading sets it.
        let reason = match check && self.timers.is_set(Timer::DoubtPause) {
            true => Reason::Routine,
            false => Reason::Doubt,
        };
        self.timers.set(Timer::DoubtPause, now + DOUBT_PAUSE);
        let next_check = now + self.config.check_interval;
        self.timers.set(Timer::Check, next_check);
        match self.begin_reading(reason, now) {
            Ok(()) if self.review.is_none() => self.tell_read(reason, now),
            Ok(()) => {}
            Err(error) => self.distrust("read", &error, now),
        }
    }

    /// Says that the kernel's state was read.
    fn tell_read(&mut self, reason: Reason, now: Instant) {
        let level = match reason {
            Reason::Routine => log::Level::Debug,
            Reason::Doubt => rare(&mut self.readings, log::Level::Info, now),
        };
        let counts = self.plan.counts();
        log::log!(
            level,
            "kernel routes: state read, {} installed, {} desired",
            counts.installed,
            counts.desired
        );
    }

    /// Answers the callers that wait. Returns whether the writer is to end.
    fn answer(&mut self, now: Instant) -> bool {
        let done = self.plan.is_idle() && self.can_write() && !self.awaits_reading;
        let is_stuck = self.known && !self.can_write();
        if done || is_stuck {
            let is_waiting = is_stuck || self.plan.counts().waiting > 0;
            let problem = self.problem().filter(|_| is_waiting);
            for reply in self.flushes.drain(..) {
                let result = match &problem {
                    Some(problem) => Err(Error::Netlink(format!("{problem}: routes wait"))),
                    None => Ok(()),
                };
                // A caller that no longer waits needs no answer.
                drop(reply.try_send(result));
            }
        }
        let Some(ending) = &self.ending else {
            return false;
        };
        // Without its device the kernel has none of our routes.
        let nothing_left = done || is_stuck;
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

    /// Forgets errors that are over.
    fn end_troubles(&mut self, now: Instant) {
        if !self.plan.is_idle() {
            return;
        }
        self.tell_shadowed(now);
        if !self.plan.has_refused() && !self.timers.is_set(Timer::Resync) {
            self.gauges.end_error(Trouble::Refused);
        }
    }

    fn publish(&self) {
        let counts = self.plan.counts();
        let fights = self.timers.is_set(Timer::Peace);
        let in_sync = self.can_write()
            && self.plan.is_idle()
            && counts.waiting == 0
            && counts.failed == 0
            && counts.shadowed == 0
            && counts.strays == 0
            && !self.plan.has_losses()
            && !fights
            && !self.timers.is_set(Timer::Resync)
            && !self.is_in_doubt()
            && self.commands.is_empty();
        let bad = self.devices.iter().find(|it| !it.is_up());
        let obstacle = match (bad, fights) {
            (Some(Device::Missing), _) => Obstacle::Missing,
            (Some(Device::Unfit { .. }), _) => Obstacle::Unfit,
            (Some(Device::Down { .. }), _) => Obstacle::Down,
            (Some(Device::Up { .. }) | None, true) => Obstacle::Fight,
            (Some(Device::Up { .. }) | None, false) => Obstacle::None,
        };
        self.gauges.publish(&counts, obstacle, in_sync);
    }

    /// Whether a reading goes on that has a reason.
    fn is_in_doubt(&self) -> bool {
        let reason = self.review.as_ref().map(|it| it.reason);
        reason == Some(Reason::Doubt)
    }

    /// Where the writer publishes.
    pub(super) fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// Whether commands wait, for the thread to look at before it sleeps.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty() && self.flushes.is_empty() && self.ending.is_none()
    }
}

/// Returns the level for a line that should be rare: `level`, or debug if there were many.
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
