//! Batches into the kernel, and its answers.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::timers::Timer;
use super::{BATCH, BATCH_BYTES, DATAGRAM, LOG_PAUSE, RESYNC_PAUSE, Writer};
use crate::core::kernel_plan::{Failure, Op, Stray};
use crate::kernel::message::{self, encode_op, kind};
use crate::kernel::parse::{self, Answer};
use crate::kernel::socket::Netlink;
use crate::kernel::stats::Trouble;

/// A burst of withdraws has ended when none came for this long. A longer burst may pause
/// longer, because the sender of a long burst pauses now and then on a busy machine ...
const SETTLE_IDLE: Duration = Duration::from_millis(5);
const SETTLE_IDLE_ROUTE: Duration = Duration::from_micros(10);
const SETTLE_IDLE_LIMIT: Duration = Duration::from_millis(50);
/// ... or when it has lasted for this long, plus the time that it takes to write its routes
/// one by one: waiting for a cheaper way then costs at most twice that time.
const SETTLE_LIMIT: Duration = Duration::from_millis(250);
const SETTLE_ROUTE: Duration = Duration::from_micros(3);
/// A running burst of withdraws.
pub(super) struct Burst {
    began: Instant,
    /// When it last grew.
    grown: Instant,
    /// Routes that lost a hop.
    size: usize,
}

impl Burst {
    /// Returns when the burst is over, unless it grows before that.
    pub(super) fn end(&self) -> Instant {
        let routes = u32::try_from(self.size).unwrap_or(u32::MAX);
        let limit = SETTLE_LIMIT + SETTLE_ROUTE.saturating_mul(routes);
        let idle = SETTLE_IDLE + SETTLE_IDLE_ROUTE.saturating_mul(routes);
        (self.grown + idle.min(SETTLE_IDLE_LIMIT)).min(self.began + limit)
    }
}

impl<N: Netlink> Writer<N> {
    /// Sends the next batch, if there is one. Returns whether there was.
    pub(super) fn write_some(&mut self, now: Instant) -> bool {
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
                // It is not known which operations the kernel carried out.
                Err(error) => self.distrust("write", &error, now),
            }
        }
        self.ops = ops;
        wrote || settled
    }

    /// Sends the next batch of routes that were announced while the kernel is read.
    pub(super) fn write_fresh(&mut self) -> io::Result<()> {
        let mut ops = std::mem::take(&mut self.ops);
        ops.clear();
        self.plan.fresh_batch(BATCH, &mut ops);
        let result = if ops.is_empty() {
            Ok(())
        } else {
            let out = std::mem::take(&mut self.out);
            let datagram = std::mem::replace(&mut self.datagram, vec![0; DATAGRAM]);
            let executed = self.execute(&ops);
            (self.out, self.datagram) = (out, datagram);
            executed.map(|failures| {
                let failures: Vec<Failure> = failures.iter().map(|(it, _)| *it).collect();
                self.plan.completed(&ops, &failures);
            })
        };
        self.ops = ops;
        result
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
        let first = outcome.first_refused;
        if let Some((failure, answer)) = failures.iter().find(|it| Some(it.0.at) == first) {
            let text = describe(&ops[failure.at], answer);
            let is_quiet = self.timers.get(Timer::LogPause).is_some_and(|at| now < at);
            if !is_quiet {
                self.timers.set(Timer::LogPause, now + LOG_PAUSE);
                log::warn!(
                    "kernel routes: refused {} of {}: {text}",
                    outcome.refused,
                    ops.len()
                );
            }
            self.gauges.set_error(Trouble::Refused, text);
        }
        if outcome.resync {
            self.request_resync(now + RESYNC_PAUSE);
        }
        if outcome.doubt {
            let earliest = self.timers.get(Timer::DoubtPause).unwrap_or(now);
            let at = earliest.max(now + RESYNC_PAUSE);
            self.timers.set_if_unset(Timer::Doubt, at);
        }
        if outcome.device {
            match self.query_devices() {
                // The devices are as before; these routes are tried again like others.
                Ok(devices) if devices == self.devices => {}
                Ok(devices) => {
                    self.note_devices(devices);
                    self.devices_changed();
                    self.request_resync(now);
                }
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
            self.gauges.messages.fetch_add(count as u64, Relaxed);
            self.gauges.batches.fetch_add(1, Relaxed);
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
}

fn describe(op: &Op, answer: &Answer) -> String {
    let what = match op {
        Op::AddHop { hop, .. } => format!("nexthop {}", hop.address),
        Op::AddGroup { id, .. } | Op::ReplaceGroup { id, .. } => format!("nexthop group {id}"),
        Op::DeleteObject { id } => format!("deletion of nexthop {id}"),
        Op::Route { verb, place, .. } => {
            format!("{verb:?} {} table {}", place.prefix, place.table)
        }
        Op::Sweep(Stray { place, .. }) => {
            format!("deletion of {} table {}", place.prefix, place.table)
        }
    };
    let error = io::Error::from_raw_os_error(answer.errno);
    match &answer.text {
        Some(text) => format!("{what}: {text}: {error}"),
        None => format!("{what}: {error}"),
    }
}
