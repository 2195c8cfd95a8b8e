//! A door for the simulation: a plan and the model of a kernel that it writes to.
#![allow(missing_docs, reason = "not an interface for anybody else")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::IpNet;

use crate::core::kernel_plan::model::{EINVAL, Installed, METRICS, Model, PROTOCOL};
use crate::core::kernel_plan::{Failure, Mode, Op, Plan, PlanConfig, Seen, errno};
use crate::core::types::{Route, Vni};

/// Numbers of nexthop objects: enough for what a simulation has at a time.
const IDS: std::ops::Range<u32> = 1000..9000;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelWork {
    pub operations: usize,
    /// The kernel is to be read again.
    pub resync: bool,
    pub doubt: bool,
}

/// The plan of one process and the kernel of its host, which outlives it.
pub struct SimKernel {
    config: PlanConfig,
    plan: Plan,
    model: Model,
}

impl SimKernel {
    /// `has_objects`: routes name nexthop objects.
    pub fn new(vni_tables: BTreeMap<Vni, u32>, has_objects: bool, seed: u64) -> Self {
        let config = PlanConfig {
            vni_tables,
            ipv4_only: false,
            excluded_types: Vec::new(),
            mode: match has_objects {
                true => Mode::Objects,
                false => Mode::Inline,
            },
            nexthop_ids: IDS,
            protocol: PROTOCOL,
            metrics: METRICS,
            vni_metrics: BTreeMap::new(),
            vni_devices: BTreeMap::new(),
            seed,
        };
        Self {
            plan: Plan::new(config.clone()),
            model: Model::default(),
            config,
        }
    }

    /// Another process begins on the same host.
    pub fn restart(&mut self) {
        self.plan = Plan::new(self.config.clone());
        self.model.dump(&mut self.plan);
    }

    /// The host begins anew.
    pub fn reboot(&mut self) {
        self.model = Model::default();
        self.restart();
    }

    pub fn add(&mut self, vni: Vni, route: &Route) {
        self.plan.add(vni, route);
    }

    pub fn remove(&mut self, vni: Vni, route: &Route) {
        self.plan.remove(vni, route);
    }

    pub fn synced(&mut self, vni: Vni) {
        self.plan.synced(vni);
    }

    pub fn retry(&mut self) {
        self.plan.retry(1024);
    }

    /// Reads the kernel.
    pub fn resync(&mut self) {
        self.model.dump(&mut self.plan);
    }

    /// Routes that lost a hop and wait for the end of the burst.
    pub fn settling(&self) -> usize {
        self.plan.settling()
    }

    pub fn is_idle(&self) -> bool {
        self.plan.is_idle()
    }

    /// Operations that are to be tried again.
    pub fn failed(&self) -> usize {
        let counts = self.plan.counts();
        counts.failed + counts.strays
    }

    /// Plans what waited for the end of a burst, and writes it.
    pub fn settle(&mut self, fails: impl FnMut() -> Option<i32>) -> KernelWork {
        let mut ops = Vec::new();
        self.plan.settle(&mut ops);
        self.write(&ops, fails)
    }

    /// Writes the next batch, of about `limit` operations.
    pub fn batch(&mut self, limit: usize, fails: impl FnMut() -> Option<i32>) -> KernelWork {
        let mut ops = Vec::new();
        self.plan.batch(limit, &mut ops);
        self.write(&ops, fails)
    }

    fn write(&mut self, ops: &[Op], mut fails: impl FnMut() -> Option<i32>) -> KernelWork {
        let mut failures = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            let result = fails().map_or_else(|| self.model.apply(op), Err);
            if let Err(errno) = result {
                failures.push(Failure { at, errno });
            }
        }
        let outcome = self.plan.completed(ops, &failures);
        KernelWork {
            operations: ops.len(),
            resync: outcome.resync || outcome.device,
            doubt: outcome.doubt,
        }
    }

    /// Errors that the kernel may answer with for no fault of ours.
    pub fn errors() -> [i32; 4] {
        [errno::EPERM, EINVAL, errno::ENODEV, errno::ENOBUFS]
    }

    /// Somebody deletes the route of number `at`, and a notification tells; `false` if there
    /// is none.
    pub fn meddle(&mut self, at: usize, is_told: bool) -> bool {
        let count = self.model.routes.len();
        let Some(place) = self.model.routes.keys().nth(at % count.max(1)).copied() else {
            return false;
        };
        if let Some(Installed::Ours(target)) = self.model.take(place)
            && is_told
        {
            self.plan.route_changed(place, &Seen::Gone(target));
            self.plan.repair();
        }
        true
    }

    /// The tunnel device goes and comes back; the kernel dropped what led there.
    pub fn lose_device(&mut self) {
        self.model.lose_device();
    }

    /// Where each route leads, by table.
    pub fn resolved(&self) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
        self.model.resolved()
    }

    /// Whether IPv6 routes have one hop at most.
    pub fn has_single_v6(&self) -> bool {
        self.config.mode == Mode::Inline
    }
}
