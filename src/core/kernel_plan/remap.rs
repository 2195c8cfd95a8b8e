//! Other VNIs, tables and types than at the start.

use std::collections::BTreeMap;

use super::{ADOPTED, Plan, RouteId, spot};
use crate::core::types::{NextHopType, Vni};

/// Which routes belong into the kernel, and where.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) vni_tables: BTreeMap<Vni, u32>,
    /// Metrics of IPv4 and of IPv6 routes of VNIs that have others than the rest.
    pub(crate) vni_metrics: BTreeMap<Vni, [u32; 2]>,
    pub(crate) ipv4_only: bool,
    pub(crate) excluded_types: Vec<NextHopType>,
}

impl Plan {
    /// Wants what belongs into `scope` from now on.
    ///
    /// What does not is not wanted any more. What came into it is to be added by the caller,
    /// and the kernel's state to be read again, for tables that are new.
    pub(crate) fn remap(&mut self, scope: Scope) {
        let mut by_vni = BTreeMap::new();
        for (&vni, &table) in &scope.vni_tables {
            let metrics = scope.vni_metrics.get(&vni).copied();
            let metrics = metrics.unwrap_or(self.config.metrics);
            let device = self.config.vni_devices.get(&vni).copied().unwrap_or(0);
            let position = spot::find_or_add(&mut self.tables, table, metrics, device);
            by_vni.insert(vni, position);
        }
        let before = std::mem::replace(&mut self.by_vni, by_vni);
        let left = |(vni, position): &(Vni, u16)| self.by_vni.get(vni) != Some(position);
        let left: Vec<(Vni, u16)> = before.clone().into_iter().filter(left).collect();
        let is_new = |(vni, position): &(&Vni, &u16)| before.get(vni) != Some(position);
        for (vni, position) in self.by_vni.iter().filter(is_new) {
            self.tables[usize::from(*position)].waiting.insert(*vni);
        }
        self.config.vni_tables = scope.vni_tables;
        self.config.vni_metrics = scope.vni_metrics;
        self.config.ipv4_only = scope.ipv4_only;
        self.config.excluded_types = scope.excluded_types;
        for id in self.store.ids() {
            self.fit(id);
        }
        for (vni, position) in left {
            self.no_longer_waits(vni, position);
        }
    }

    /// Takes out what does not belong to a destination any more.
    fn fit(&mut self, id: RouteId) {
        let Some(state) = self.store.get(id) else {
            return;
        };
        let is_left_out = self.leaves_out(self.store.prefix(id));
        self.scratch.clear();
        let mut uninstallable = 0;
        let members = self.catalog.members(state.desired);
        for &member in members {
            let announcement = self.catalog.announcement(member);
            let stays = !is_left_out
                && self.by_vni.get(&announcement.vni) == Some(&state.table)
                && !self
                    .config
                    .excluded_types
                    .contains(&announcement.next_hop.hop_type);
            if stays {
                self.scratch.push(member);
            } else if !self.catalog.installable(member) {
                uninstallable += 1;
            }
        }
        if self.scratch.len() == members.len() {
            if is_left_out && state.flags & ADOPTED != 0 {
                self.store.state_mut(id).flags &= !ADOPTED;
                self.enqueue(id);
            }
            return;
        }
        self.counts.uninstallable -= uninstallable;
        self.store.state_mut(id).flags &= !ADOPTED;
        self.drop_carried(id);
        self.desire_scratch(id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{METRICS, Model, PROTOCOL};
    use super::super::{Mode, PlanConfig};
    use super::*;
    use crate::core::types::{Destination, NextHop, Route};

    fn scope(vni_tables: &[(u32, u32)]) -> Scope {
        let tables = vni_tables.iter().map(|&(vni, table)| (Vni(vni), table));
        Scope {
            vni_tables: tables.collect(),
            vni_metrics: BTreeMap::new(),
            ipv4_only: false,
            excluded_types: Vec::new(),
        }
    }

    fn plan(mode: Mode) -> Plan {
        Plan::new(PlanConfig {
            vni_tables: scope(&[(1, 100), (2, 100), (3, 300)]).vni_tables,
            ipv4_only: false,
            excluded_types: Vec::new(),
            mode,
            nexthop_ids: 1000..1200,
            protocol: PROTOCOL,
            metrics: METRICS,
            vni_metrics: BTreeMap::new(),
            vni_devices: BTreeMap::new(),
            seed: 1,
        })
    }

    fn route(prefix: &str, hop: NextHop) -> Route {
        Route::new(Destination::new(prefix.parse().unwrap()), hop)
    }

    fn hop(number: u16) -> NextHop {
        NextHop::standard(std::net::Ipv6Addr::new(
            0x2001, 0xdb8, 0, 0, 0, 0, 0, number,
        ))
    }

    /// Runs the plan until it has nothing to do; the routes in the kernel then.
    fn run(plan: &mut Plan, model: &mut Model) -> Vec<(u32, String)> {
        loop {
            let mut ops = Vec::new();
            plan.settle(&mut ops);
            if ops.is_empty() {
                plan.batch(16, &mut ops);
            }
            if ops.is_empty() {
                break;
            }
            for op in &ops {
                model.apply(op).unwrap();
            }
            plan.completed(&ops, &[]);
        }
        assert!(plan.is_idle());
        let ours = model.resolved().into_keys();
        ours.map(|(table, prefix)| (table, prefix.to_string()))
            .collect()
    }

    fn installed(all: &[(u32, &str)]) -> Vec<(u32, String)> {
        all.iter()
            .map(|(table, it)| (*table, it.to_string()))
            .collect()
    }

    #[test]
    fn vni_that_leaves_its_table_takes_only_its_own_with_it() {
        for mode in [Mode::Objects, Mode::Inline] {
            let (mut plan, mut model) = (plan(mode), Model::default());
            plan.add(Vni(1), &route("10.0.0.0/24", hop(1)));
            plan.add(Vni(2), &route("10.0.0.0/24", hop(2)));
            plan.add(Vni(1), &route("10.1.0.0/24", hop(1)));
            plan.add(Vni(3), &route("10.3.0.0/24", hop(1)));
            run(&mut plan, &mut model);
            plan.remap(scope(&[(2, 100), (3, 300)]));
            let left = [(100, "10.0.0.0/24"), (300, "10.3.0.0/24")];
            assert_eq!(run(&mut plan, &mut model), installed(&left));
            plan.add(Vni(1), &route("10.1.0.0/24", hop(1)));
            assert_eq!(run(&mut plan, &mut model), installed(&left));
            // To another table, and back in at a new one.
            plan.remap(scope(&[(1, 400), (2, 100), (3, 100)]));
            assert_eq!(run(&mut plan, &mut model), installed(&left[..1]));
            plan.add(Vni(1), &route("10.1.0.0/24", hop(1)));
            plan.add(Vni(3), &route("10.3.0.0/24", hop(1)));
            let moved = [
                (100, "10.0.0.0/24"),
                (100, "10.3.0.0/24"),
                (400, "10.1.0.0/24"),
            ];
            assert_eq!(run(&mut plan, &mut model), installed(&moved));
            plan.remap(scope(&[]));
            assert_eq!(run(&mut plan, &mut model), []);
        }
    }

    /// It was announced, so there is nothing to wait for.
    #[test]
    fn found_route_leaves_with_its_vni_although_its_table_is_not_complete() {
        let (mut plan, mut model) = (plan(Mode::Objects), Model::default());
        plan.add(Vni(1), &route("10.0.0.0/24", hop(1)));
        run(&mut plan, &mut model);
        let mut plan = Plan::new(plan.config);
        model.dump(&mut plan);
        plan.add(Vni(1), &route("10.0.0.0/24", hop(1)));
        assert_eq!(run(&mut plan, &mut model).len(), 1);
        plan.remap(scope(&[(2, 100), (3, 300)]));
        assert_eq!(run(&mut plan, &mut model), []);
    }

    #[test]
    fn types_and_families_come_and_go() {
        let (mut plan, mut model) = (plan(Mode::Objects), Model::default());
        let ipv4: std::net::IpAddr = [192, 0, 2, 1].into();
        let nat = NextHop::nat(hop(1).target_address, 1, 2);
        plan.add(Vni(1), &route("10.0.0.0/24", nat));
        plan.add(Vni(1), &route("10.0.0.0/24", NextHop::standard(ipv4)));
        plan.add(Vni(1), &route("fd00::/64", hop(1)));
        assert_eq!(plan.counts().uninstallable, 1);
        run(&mut plan, &mut model);
        let all = scope(&[(1, 100), (2, 100), (3, 300)]);
        plan.remap(Scope {
            excluded_types: vec![NextHopType::Nat],
            ..all.clone()
        });
        let left = [(100, "fd00::/64")];
        assert_eq!(run(&mut plan, &mut model), installed(&left));
        plan.remap(Scope {
            excluded_types: vec![NextHopType::Nat, NextHopType::Standard],
            ..all.clone()
        });
        assert_eq!(run(&mut plan, &mut model), []);
        assert_eq!(plan.counts().uninstallable, 0);
        plan.remap(all.clone());
        plan.add(Vni(1), &route("fd00::/64", hop(1)));
        assert_eq!(run(&mut plan, &mut model), installed(&left));
        plan.remap(Scope {
            ipv4_only: true,
            ..all
        });
        assert_eq!(run(&mut plan, &mut model), []);
    }

    /// Servers announce them still, or cannot be reached.
    #[test]
    fn ipv6_routes_of_an_earlier_process_go_at_once_if_only_ipv4_is_wanted() {
        for mode in [Mode::Objects, Mode::Inline] {
            let (mut plan, mut model) = (plan(mode), Model::default());
            for prefix in ["10.0.0.0/24", "fd00::/64"] {
                plan.add(Vni(1), &route(prefix, hop(1)));
            }
            run(&mut plan, &mut model);
            let before = (plan.config, model.clone());

            let left = installed(&[(100, "10.0.0.0/24")]);
            let mut next = Plan::new(PlanConfig {
                ipv4_only: true,
                ..before.0.clone()
            });
            model.dump(&mut next);
            assert_eq!(run(&mut next, &mut model), left);

            let (config, mut model) = before;
            let mut next = Plan::new(config);
            model.dump(&mut next);
            assert_eq!(run(&mut next, &mut model).len(), 2);
            next.remap(Scope {
                ipv4_only: true,
                ..scope(&[(1, 100), (2, 100), (3, 300)])
            });
            assert_eq!(run(&mut next, &mut model), left);
        }
    }

    #[test]
    fn routes_of_an_earlier_process_go_when_nobody_waits_for_them() {
        let (mut plan, mut model) = (plan(Mode::Inline), Model::default());
        plan.add(Vni(1), &route("10.0.0.0/24", hop(1)));
        run(&mut plan, &mut model);
        let mut next = Plan::new(PlanConfig {
            vni_tables: scope(&[(1, 100), (2, 100)]).vni_tables,
            ..plan.config.clone()
        });
        model.dump(&mut next);
        next.synced(Vni(2));
        assert_eq!(run(&mut next, &mut model).len(), 1);
        // VNI 1 was waited for, and is not any more.
        next.remap(scope(&[(2, 100)]));
        assert_eq!(run(&mut next, &mut model), []);
    }
}
