//! The plan against a model kernel: whatever happens, they end up equal.

mod burst;
mod chaos;
mod found;
mod held;
mod places;
mod refused;
mod review;
mod track;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::model::{EINVAL, Installed, METRICS, Model, Nexthop, PROTOCOL, place};
use super::{
    Change, Failure, Mode, Op, Place, Plan, PlanConfig, Seen, Target, Verb, Verdict, Way, errno,
};
use crate::core::types::{Destination, NextHop, NextHopType, Route, Vni};

/// A small generator, so that every failure can be replayed from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

const IDS: std::ops::Range<u32> = 1000..1200;

fn plan_in(mode: Mode) -> Plan {
    Plan::new(PlanConfig {
        vni_tables: BTreeMap::from([(Vni(1), 100), (Vni(2), 100), (Vni(3), 300)]),
        ipv4_only: false,
        excluded_types: vec![NextHopType::from_number(9)],
        mode,
        nexthop_ids: IDS,
        protocol: PROTOCOL,
        metrics: METRICS,
        vni_metrics: BTreeMap::new(),
        vni_devices: BTreeMap::new(),
        seed: 1,
    })
}

fn underlay(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn route(prefix: &str, hop: u16) -> Route {
    let prefix: IpNet = prefix.parse().unwrap();
    Route::new(Destination::new(prefix), NextHop::standard(underlay(hop)))
}

/// Runs the plan until it has nothing to do; returns the operations done.
fn run(plan: &mut Plan, model: &mut Model) -> Vec<Op> {
    let mut done = Vec::new();
    for _ in 0..1000 {
        let was_idle = plan.is_idle();
        let mut ops = Vec::new();
        plan.settle(&mut ops);
        if ops.is_empty() {
            plan.batch(16, &mut ops);
        }
        plan.assert_counts();
        if ops.is_empty() {
            assert!(plan.is_idle());
            return done;
        }
        assert!(!was_idle, "{ops:?}");
        let failures = execute(model, &ops, |_| None);
        assert_eq!(failures, [], "{ops:?}");
        plan.completed(&ops, &failures);
        done.append(&mut ops);
    }
    panic!("it does not come to rest");
}

fn execute(
    model: &mut Model,
    ops: &[Op],
    mut inject: impl FnMut(&Op) -> Option<i32>,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let result = match inject(op) {
            Some(errno) => Err(errno),
            None => model.apply(op),
        };
        if let Err(errno) = result {
            failures.push(Failure { at, errno });
        }
    }
    failures
}

#[test]
fn law_l_what_ends_as_it_began_costs_nothing() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    assert_eq!(run(&mut plan, &mut model).len(), 2);
    for _ in 0..1000 {
        plan.remove(Vni(1), &route("10.0.0.0/24", 1));
        plan.add(Vni(1), &route("10.0.0.0/24", 2));
        plan.remove(Vni(1), &route("10.0.0.0/24", 2));
        plan.add(Vni(1), &route("10.0.0.0/24", 1));
    }
    assert_eq!(run(&mut plan, &mut model), []);
}

#[test]
fn hops_are_ordered_by_address_and_shared_by_both_families() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for prefix in ["10.0.0.0/24", "fd00::/64"] {
        for hop in [3, 1, 2] {
            plan.add(Vni(1), &route(prefix, hop));
        }
    }
    let ops = run(&mut plan, &mut model);
    assert_eq!(ops.len(), 3 + 1 + 2);
    let members: Vec<_> = ops
        .iter()
        .filter_map(|op| match op {
            Op::AddGroup { members, .. } => Some(members.clone()),
            _ => None,
        })
        .collect();
    let addresses: Vec<_> = members[0].iter().map(|id| &model.objects[id]).collect();
    let hop = |n| Nexthop::Hop(underlay(n));
    assert_eq!(addresses, [&hop(1), &hop(2), &hop(3)]);
}

#[test]
fn prefixes_that_mask_to_one_destination_are_one_route() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let mut nat = route("10.0.0.9/24", 1);
    nat.next_hop = NextHop::nat(underlay(1), 10, 20);
    let routes = [route("10.0.0.0/24", 1), route("10.0.0.7/24", 1), nat];
    for route in &routes {
        plan.add(Vni(1), route);
        plan.add(Vni(1), route);
        plan.add(Vni(2), route);
    }
    let ops = run(&mut plan, &mut model);
    assert_eq!(ops.len(), 2, "{ops:?}");
    for vni in [Vni(1), Vni(2)] {
        for route in &routes {
            assert_eq!(run(&mut plan, &mut model), []);
            plan.remove(vni, route);
            plan.remove(vni, route);
        }
    }
    assert_eq!(run(&mut plan, &mut model).len(), 2);
    assert_eq!(model, Model::default());
    assert_eq!(plan.catalog.sizes(), [0; 4]);
    assert_eq!(plan.store.len(), 0);
}

#[test]
fn destinations_that_differ_in_host_bits_are_withdrawn_apart() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let routes = [route("10.0.0.7/24", 1), route("10.0.0.9/24", 1)];
    for route in &routes {
        plan.add(Vni(1), route);
    }
    assert_eq!(run(&mut plan, &mut model).len(), 2);
    plan.remove(Vni(1), &routes[0]);
    assert_eq!(run(&mut plan, &mut model), []);
    plan.remove(Vni(1), &routes[1]);
    assert_eq!(run(&mut plan, &mut model).len(), 2);
}

#[test]
fn routes_that_are_not_for_the_kernel_are_left_out_or_counted() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let mut excluded = route("10.0.0.0/24", 1);
    excluded.next_hop.hop_type = NextHopType::from_number(9);
    plan.add(Vni(1), &excluded);
    plan.add(Vni(77), &route("10.0.0.0/24", 1));
    let mut plain = route("10.0.0.0/24", 1);
    plain.next_hop = NextHop::standard(Ipv4Addr::LOCALHOST);
    plan.add(Vni(1), &plain);
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!(plan.counts().uninstallable, 1);
    assert_eq!(plan.counts().desired, 0);
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 1, "it holds nobody back");
    plan.remove(Vni(1), &plain);
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!(plan.counts().uninstallable, 0);
}

#[test]
fn number_that_somebody_else_has_is_not_used() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for id in IDS.start..IDS.start + 5 {
        model.objects.insert(id, Nexthop::Foreign);
    }
    plan.saw_foreign_object(IDS.start);
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    for _ in 0..10 {
        let mut ops = Vec::new();
        plan.batch(16, &mut ops);
        let failures = execute(&mut model, &ops, |_| None);
        let outcome = plan.completed(&ops, &failures);
        assert!(
            !outcome.resync && plan.counts().failed == 0,
            "{ops:?} {failures:?} {:?}",
            plan.counts()
        );
    }
    assert!(plan.is_idle());
    assert_eq!(model.resolved().values().next().unwrap().len(), 2);
}

#[test]
fn one_poisoned_route_holds_nobody_back() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let poisoned: IpNet = "10.0.0.5/32".parse().unwrap();
    for n in 0..40 {
        plan.add(Vni(1), &route(&format!("10.0.0.{n}/32"), 1));
    }
    for (round, errno) in [EINVAL, errno::EPERM, errno::ENODEV]
        .into_iter()
        .enumerate()
    {
        let mut ops = Vec::new();
        plan.batch(16 + round * 100, &mut ops);
        for _ in 0..10 {
            let failures = execute(&mut model, &ops, |op| match op {
                Op::Route { place, .. } if place.prefix == poisoned => Some(errno),
                _ => None,
            });
            let outcome = plan.completed(&ops, &failures);
            assert_eq!(
                outcome.device,
                errno == errno::ENODEV && !failures.is_empty()
            );
            ops.clear();
            plan.batch(16, &mut ops);
        }
        assert_eq!(ops, []);
        assert_eq!(model.resolved().len(), 39);
        assert_eq!(plan.counts().failed, 1);
        plan.retry_all();
    }
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 40);
    assert_eq!(plan.counts().failed, 0);
}

#[test]
fn route_of_somebody_else_is_left_whoever_came_first() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let (a, b) = (
        place(100, "10.0.0.0/24".parse().unwrap()),
        place(100, "fd00::/64".parse().unwrap()),
    );
    model.put(b, Installed::Foreign);
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    let is_shadowed = |plan: &Plan, model: &Model, count: usize| {
        assert_eq!(plan.counts().shadowed, count);
        assert_eq!(plan.counts().failed, 0);
        assert!(plan.is_idle());
        assert_eq!(model.first(b), Some(&Installed::Foreign));
    };
    // Replaced while nobody looked.
    model.put(a, Installed::Foreign);
    model.dump(&mut plan);
    plan.add(Vni(1), &route("fd00::/64", 1));
    for _ in 0..4 {
        let mut ops = Vec::new();
        plan.batch(16, &mut ops);
        let failures = execute(&mut model, &ops, |_| None);
        if plan.completed(&ops, &failures).doubt {
            model.dump(&mut plan);
        }
    }
    is_shadowed(&plan, &model, 2);
    assert_eq!(model.first(a), Some(&Installed::Foreign));
    model.take(a);
    assert_eq!(plan.route_changed(a, &Seen::Left), Change::None);
    run(&mut plan, &mut model);
    assert!(matches!(model.first(a), Some(Installed::Ours(_))));
    // Replaced, and said so.
    model.put(a, Installed::Foreign);
    assert_eq!(plan.route_changed(a, &Seen::Replaced), Change::Shadowed);
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    // The object that ours used goes, and theirs stays.
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::DeleteObject { .. }]), "{ops:?}");
    is_shadowed(&plan, &model, 2);
    for place in [a, b] {
        model.take(place);
        plan.route_changed(place, &Seen::Left);
    }
    run(&mut plan, &mut model);
    assert_eq!((plan.counts().shadowed, plan.counts().failed), (0, 0));
    assert_eq!(model.resolved().len(), 2);
}

#[test]
fn found_routes_stay_until_their_table_is_complete() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = (plan_in(mode), Model::default());
        for prefix in ["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"] {
            plan.add(Vni(1), &route(prefix, 1));
            plan.add(Vni(1), &route(prefix, 2));
        }
        plan.add(Vni(3), &route("10.3.0.0/24", 2));
        run(&mut plan, &mut model);
        let before = model.clone();
        let mut plan = plan_in(mode);
        model.dump(&mut plan);
        assert_eq!(run(&mut plan, &mut model), []);
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            for hop in [2, 1] {
                plan.add(Vni(2), &route(prefix, hop));
                assert_eq!(run(&mut plan, &mut model), []);
            }
        }
        plan.synced(Vni(3));
        let ops = run(&mut plan, &mut model);
        assert!(
            matches!(
                ops[..],
                [Op::Route {
                    verb: Verb::Delete,
                    place: Place { table: 300, .. },
                    ..
                }]
            ),
            "{ops:?}"
        );
        plan.synced(Vni(1));
        assert_eq!(run(&mut plan, &mut model), []);
        plan.synced(Vni(2));
        let ops = run(&mut plan, &mut model);
        assert!(
            matches!(
                ops[..],
                [Op::Route {
                    verb: Verb::Delete,
                    place: Place { table: 100, .. },
                    ..
                }]
            ),
            "{ops:?}"
        );
        assert_eq!(model.objects, before.objects);
    }
}

/// What is said to be gone is not kept for the sake of a table that is not complete.
#[test]
fn found_route_that_is_withdrawn_does_not_wait_for_its_table() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = (plan_in(mode), Model::default());
        let found = route("10.0.0.0/24", 1);
        plan.add(Vni(1), &found);
        run(&mut plan, &mut model);
        assert_eq!(model.routes.len(), 1);
        let mut plan = plan_in(mode);
        model.dump(&mut plan);
        plan.add(Vni(1), &found);
        assert_eq!(run(&mut plan, &mut model), []);
        plan.remove(Vni(1), &found);
        run(&mut plan, &mut model);
        assert_eq!(model.routes.len(), 0);
    }
}
