//! A client's kernel writer: what its thread does, without the thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use rustbond::internals::sim::{KernelWork, SimKernel};
use rustbond::{Event, IpNet, Route, Vni};

use super::script::VNIS;

const RETRY: Duration = Duration::from_millis(250);
const RESYNC_PAUSE: Duration = Duration::from_millis(50);
const DOUBT_PAUSE: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// The table of a VNI.
fn table(vni: Vni) -> u32 {
    100 + vni.0
}

/// The writer and what it waits for.
pub(crate) struct Kernel {
    pub(crate) kernel: SimKernel,
    /// Operations that fail for no reason.
    pub(crate) percent: u8,
    /// Of this process.
    synced: BTreeSet<Vni>,
    retry_at: Option<Instant>,
    resync_at: Option<Instant>,
    settle_at: Option<Instant>,
}

impl Kernel {
    pub(crate) fn new(has_objects: bool, seed: u64) -> Self {
        let tables = (1..=VNIS).map(|vni| (Vni(vni), table(Vni(vni))));
        Self {
            kernel: SimKernel::new(tables.collect(), has_objects, seed),
            percent: 0,
            synced: BTreeSet::new(),
            retry_at: None,
            resync_at: None,
            settle_at: None,
        }
    }

    /// A new process; on a new host if nothing is left of the old one.
    pub(crate) fn restart(&mut self, is_new_host: bool) {
        match is_new_host {
            true => self.kernel.reboot(),
            false => self.kernel.restart(),
        }
        self.synced.clear();
        (self.retry_at, self.resync_at, self.settle_at) = (None, None, None);
    }

    /// Somebody changed something and it was seen, or it is time to look.
    pub(crate) fn distrust(&mut self, now: Instant) {
        self.resync_at.get_or_insert(now + RESYNC_PAUSE);
    }

    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::RouteAdded(vni, route) => self.kernel.add(*vni, route),
            Event::RouteRemoved(vni, route) => self.kernel.remove(*vni, route),
            Event::Settled(vni) => {
                self.synced.insert(*vni);
                self.kernel.synced(*vni);
            }
            _ => {}
        }
    }

    /// Does what is due; when to come back.
    pub(crate) fn turn(&mut self, now: Instant, random: &mut fastrand::Rng) -> Option<Instant> {
        if self.resync_at.take_if(|at| *at <= now).is_some() {
            self.kernel.resync();
        }
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.kernel.retry();
        }
        let percent = self.percent;
        let errors = SimKernel::errors();
        let limit = random.usize(1..40);
        let mut inject = || {
            let fails = random.u8(..100) < percent;
            fails.then(|| errors[random.usize(..errors.len())])
        };
        let is_over = self.settle_at.is_some_and(|at| at <= now) && self.kernel.settling() > 0;
        let work = if self.kernel.settling() == 0 {
            self.settle_at = None;
            self.kernel.batch(limit, &mut inject)
        } else if is_over {
            self.settle_at = None;
            self.kernel.settle(&mut inject)
        } else {
            self.settle_at.get_or_insert(now + SETTLE_PAUSE);
            self.kernel.batch(limit, &mut inject)
        };
        self.note(work, now);
        let is_busy = work.operations > 0 || is_over;
        let soon = is_busy.then(|| now + Duration::from_millis(1));
        let waits = [self.retry_at, self.resync_at, self.settle_at, soon];
        waits.into_iter().flatten().min()
    }

    fn note(&mut self, work: KernelWork, now: Instant) {
        if work.resync {
            self.distrust(now);
        } else if work.doubt {
            self.resync_at.get_or_insert(now + DOUBT_PAUSE);
        }
        if self.kernel.failed() > 0 {
            self.retry_at.get_or_insert(now + RETRY);
        }
    }

    /// What is wrong at rest, where the client told of these routes.
    pub(crate) fn check(&self, told: &BTreeSet<(Vni, Route)>) -> Result<(), String> {
        if !self.kernel.is_idle() || self.kernel.failed() > 0 {
            return Err("the plan is not idle".into());
        }
        let mut wanted: BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> = BTreeMap::new();
        for (vni, route) in told {
            let IpAddr::V6(hop) = route.next_hop.target_address else {
                continue;
            };
            let key = (table(*vni), route.destination.prefix.trunc());
            wanted.entry(key).or_default().insert(hop);
        }
        for ((_, prefix), hops) in &mut wanted {
            if self.kernel.has_single_v6() && matches!(prefix, IpNet::V6(_)) {
                *hops = hops.iter().take(1).copied().collect();
            }
        }
        // Where nothing was complete, what an earlier process left stays.
        let complete: BTreeSet<u32> = self.synced.iter().map(|it| table(*it)).collect();
        let mut installed = self.kernel.resolved();
        installed.retain(|key, _| complete.contains(&key.0) || wanted.contains_key(key));
        if installed != wanted {
            let missing = wanted.iter().find(|it| installed.get(it.0) != Some(it.1));
            let surplus = installed.iter().find(|it| !wanted.contains_key(it.0));
            return Err(format!(
                "kernel: {missing:?} is missing, {surplus:?} is there"
            ));
        }
        Ok(())
    }
}
