//! The plan against a model kernel: whatever happens, they end up equal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::model::{EINVAL, Installed, Model, Nexthop};
use super::{Failure, Mode, Op, Plan, PlanConfig, Seen, Target, Verb, errno};
use crate::types::{Destination, NextHop, NextHopType, Route, Vni};

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
    loop {
        let mut ops = Vec::new();
        plan.settle(&mut ops);
        if ops.is_empty() {
            plan.batch(16, &mut ops);
        }
        if ops.is_empty() {
            assert!(plan.is_idle());
            return done;
        }
        let failures = execute(model, &ops, |_| None);
        assert_eq!(failures, [], "{ops:?}");
        plan.completed(&ops, &failures);
        done.append(&mut ops);
    }
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
fn what_falls_on_one_destination_is_one_route() {
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
fn what_is_not_for_the_kernel_is_left_out_or_counted() {
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

/// 10 groups of 50 routes, each with hop 99 and another.
fn fifty_routes_in_each_of_ten_groups(plan: &mut Plan) -> Vec<Route> {
    let mut with_99 = Vec::new();
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    for n in 0..500_u16 {
        let destination = Destination::from_ipv4(Ipv4Addr::from(0x0a00_0000 + u32::from(n)), 32);
        let to = |hop| Route::new(destination, NextHop::standard(underlay(hop)));
        plan.add(Vni(1), &to(n % 10));
        plan.add(Vni(1), &to(99));
        with_99.push(to(99));
    }
    with_99
}

#[test]
fn a_hypervisor_that_leaves_costs_one_message() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let with_99 = fifty_routes_in_each_of_ten_groups(&mut plan);
    run(&mut plan, &mut model);
    for route in &with_99 {
        plan.remove(Vni(1), route);
    }
    assert_eq!(plan.settling(), 500);
    let ops = run(&mut plan, &mut model);
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert!(model.resolved().values().all(|hops| hops.len() == 1));
    // It comes back: every route is announced again, and written again.
    for route in &with_99 {
        plan.add(Vni(1), route);
    }
    run(&mut plan, &mut model);
    assert!(model.resolved().values().all(|hops| hops.len() == 2));
}

#[test]
fn a_hypervisor_that_leaves_its_groups_only_costs_a_message_a_group() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let with_99 = fifty_routes_in_each_of_ten_groups(&mut plan);
    plan.add(Vni(1), &route("192.0.2.0/24", 99));
    run(&mut plan, &mut model);
    for route in &with_99 {
        plan.remove(Vni(1), route);
    }
    let ops = run(&mut plan, &mut model);
    assert_eq!(ops.len(), 10, "{ops:?}");
    assert!(model.resolved().values().all(|hops| hops.len() == 1));
}

#[test]
fn routes_that_keep_a_hop_keep_their_group() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let with_99 = fifty_routes_in_each_of_ten_groups(&mut plan);
    run(&mut plan, &mut model);
    for route in &with_99[..250] {
        plan.remove(Vni(1), route);
    }
    run(&mut plan, &mut model);
    let resolved = model.resolved();
    for (n, route) in with_99.iter().enumerate() {
        let hops = &resolved[&(100, route.destination.prefix)];
        assert_eq!(hops.len(), if n < 250 { 1 } else { 2 }, "{route}");
    }
}

#[test]
fn a_number_that_somebody_else_has_is_not_used() {
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
        while !ops.is_empty() {
            let failures = execute(&mut model, &ops, |op| match op {
                Op::Route { prefix, .. } if *prefix == poisoned => Some(errno),
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
        assert_eq!(model.resolved().len(), 39);
        assert_eq!(plan.counts().failed, 1);
        plan.retry(10);
    }
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 40);
    assert_eq!(plan.counts().failed, 0);
}

#[test]
fn ours_is_taken_back_and_theirs_is_left() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let (a, b): (IpNet, IpNet) = ("10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap());
    model.routes.insert((100, b), Installed::Foreign);
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    // Replaced while nobody looked.
    model.routes.insert((100, a), Installed::Foreign);
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
    assert!(matches!(model.routes[&(100, a)], Installed::Ours(_)));
    assert_eq!(model.routes[&(100, b)], Installed::Foreign);
    assert_eq!(plan.counts().failed, 1);
    // Replaced, and said so.
    model.routes.insert((100, a), Installed::Foreign);
    plan.route_changed(100, a, &Seen::Replaced);
    run(&mut plan, &mut model);
    assert!(matches!(model.routes[&(100, a)], Installed::Ours(_)));
    model.routes.remove(&(100, b));
    plan.foreign_route_gone(100, b);
    run(&mut plan, &mut model);
    assert_eq!(plan.counts().failed, 0);
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
                    table: 300,
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
                    table: 100,
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
fn a_found_route_that_is_withdrawn_does_not_wait_for_its_table() {
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

/// What should be in the kernel, kept the simple way.
#[derive(Default)]
struct Wanted(BTreeMap<(u32, IpNet), BTreeSet<(Vni, Route)>>);

impl Wanted {
    /// Announces or withdraws something.
    fn change(&mut self, random: &mut Random, plan: &mut Plan, hops: u64) {
        let (vni, route) = random_route(random, hops);
        let table = if vni == Vni(3) { 300 } else { 100 };
        let routes = self.0.entry((table, route.destination.prefix.trunc()));
        if random.chance(55) {
            plan.add(vni, &route);
            routes.or_default().insert((vni, route));
        } else {
            plan.remove(vni, &route);
            routes.or_default().remove(&(vni, route));
        }
    }

    fn resolved(&self, mode: Mode) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
        let hops = |routes: &BTreeSet<(Vni, Route)>, prefix: IpNet| {
            let mut hops: BTreeSet<Ipv6Addr> = routes
                .iter()
                .filter_map(|(_, route)| match route.next_hop.target_address {
                    std::net::IpAddr::V6(address) => Some(address),
                    std::net::IpAddr::V4(_) => None,
                })
                .collect();
            if mode == Mode::Inline && matches!(prefix, IpNet::V6(_)) {
                hops = hops.into_iter().take(1).collect();
            }
            hops
        };
        self.0
            .iter()
            .map(|(key, routes)| (*key, hops(routes, key.1)))
            .filter(|(_, hops)| !hops.is_empty())
            .collect()
    }
}

fn random_route(random: &mut Random, hops: u64) -> (Vni, Route) {
    let vni = u32::try_from(random.below(3)).unwrap() + 1;
    let n = u8::try_from(random.below(12)).unwrap();
    let prefix: IpNet = match random.below(3) {
        0 => format!("10.0.{n}.{}/24", random.below(2)).parse().unwrap(),
        1 => format!("10.0.0.{n}/32").parse().unwrap(),
        _ => format!("fd00:0:0:{n}::{}/64", random.below(2))
            .parse()
            .unwrap(),
    };
    let address = underlay(u16::try_from(random.below(hops)).unwrap());
    let next_hop = match random.below(8) {
        0 => NextHop::nat(address, 1, u16::try_from(random.below(3)).unwrap()),
        1 => NextHop::load_balancer(address),
        2 => NextHop::standard(Ipv4Addr::LOCALHOST),
        _ => NextHop::standard(address),
    };
    (Vni(vni), Route::new(Destination::new(prefix), next_hop))
}

/// Somebody else changes something of ours; whether they say so is up to chance.
fn meddle(random: &mut Random, plan: &mut Plan, model: &mut Model) -> bool {
    let keys: Vec<_> = model.routes.keys().copied().collect();
    let ids: Vec<_> = model.objects.keys().copied().collect();
    let lost = random.chance(20);
    match random.below(5) {
        0 | 1 if !keys.is_empty() => {
            let key = keys[usize::try_from(random.below(keys.len() as u64)).unwrap()];
            let seen = if random.chance(50) {
                model.routes.remove(&key);
                Seen::Gone
            } else {
                model.routes.insert(key, Installed::Foreign);
                Seen::Replaced
            };
            if !lost {
                plan.route_changed(key.0, key.1, &seen);
            }
            lost
        }
        2 if !ids.is_empty() => {
            let id = ids[usize::try_from(random.below(ids.len() as u64)).unwrap()];
            model.delete_object(id).unwrap();
            plan.object_changed(id, false);
            true
        }
        3 => {
            let id = IDS.start + u32::try_from(random.below(200)).unwrap();
            if model.objects.contains_key(&id) {
                return false;
            }
            model.objects.insert(id, Nexthop::Foreign);
            false
        }
        4 if random.chance(10) => {
            model.lose_device();
            true
        }
        _ => false,
    }
}

fn one_batch(random: &mut Random, plan: &mut Plan, model: &mut Model, percent: u64) -> bool {
    let mut ops = Vec::new();
    if random.chance(30) {
        plan.settle(&mut ops);
    } else {
        plan.batch(1 + usize::try_from(random.below(20)).unwrap(), &mut ops);
    }
    let mut inject = |_: &Op| {
        let errnos = [errno::EPERM, EINVAL, errno::ENODEV, errno::ENOBUFS];
        let errno = errnos[usize::try_from(random.below(4)).unwrap()];
        random.chance(percent).then_some(errno)
    };
    let failures = execute(model, &ops, &mut inject);
    let outcome = plan.completed(&ops, &failures);
    outcome.resync || outcome.doubt || outcome.device
}

#[test]
fn whatever_happens_the_kernel_ends_as_desired() {
    for seed in 0..400_u64 {
        let mut random = Random(seed);
        let mode = if random.chance(75) {
            Mode::Objects
        } else {
            Mode::Inline
        };
        let (mut plan, mut model, mut wanted) =
            (plan_in(mode), Model::default(), Wanted::default());
        let (meddling, failing) = (random.below(3) * 10, random.below(3) * 10);
        let hops = 2 + random.below(5);
        model.objects.insert(7, Nexthop::Foreign);
        let mut resync = false;
        for _ in 0..400 {
            match random.below(10) {
                0..5 => wanted.change(&mut random, &mut plan, hops),
                5..8 => resync |= one_batch(&mut random, &mut plan, &mut model, failing),
                8 if random.chance(meddling) => {
                    resync |= meddle(&mut random, &mut plan, &mut model);
                }
                8 if random.chance(5) => {
                    // The process is killed and started again.
                    plan = plan_in(mode);
                    model.dump(&mut plan);
                    for (vni, route) in wanted.0.values().flatten() {
                        plan.add(*vni, route);
                    }
                }
                9 if random.chance(10) => {
                    plan.synced(Vni(u32::try_from(random.below(3)).unwrap() + 1))
                }
                9 => plan.retry(usize::try_from(random.below(5)).unwrap()),
                _ => {}
            }
            if resync && random.chance(50) {
                model.dump(&mut plan);
                resync = false;
            }
        }
        // Where nobody meddled, what the plan believes must be true without a look.
        settle_down(&mut plan, &mut model, resync || meddling > 0);
        assert_eq!(
            model.resolved(),
            wanted.resolved(mode),
            "seed {seed}, {mode:?}"
        );
        assert_eq!(
            plan.counts().installed,
            model.resolved().len(),
            "seed {seed}"
        );
        assert_eq!(plan.counts().desired, model.resolved().len(), "seed {seed}");
        // Nothing is left in the kernel or in memory after the end.
        plan.clear();
        settle_down(&mut plan, &mut model, false);
        assert_eq!(model.resolved().len(), 0, "seed {seed}");
        if mode == Mode::Objects {
            let foreign = |object: &Nexthop| *object == Nexthop::Foreign;
            assert!(
                model.objects.values().all(foreign),
                "seed {seed}: {model:?}"
            );
        }
        assert_eq!(plan.store.len(), 0, "seed {seed}");
        assert_eq!(plan.catalog.sizes(), [0; 4], "seed {seed}");
    }
}

/// Nobody meddles and nothing fails any more, and others' routes are out of the way.
fn settle_down(plan: &mut Plan, model: &mut Model, look: bool) {
    model.routes.retain(|_, route| *route != Installed::Foreign);
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    if look {
        model.dump(plan);
    }
    plan.retry(usize::MAX);
    for _ in 0..2000 {
        let mut ops = Vec::new();
        plan.settle(&mut ops);
        if ops.is_empty() {
            plan.batch(20, &mut ops);
        }
        let failures = execute(model, &ops, |_| None);
        let outcome = plan.completed(&ops, &failures);
        assert!(!outcome.resync, "{failures:?} {ops:?}");
        if ops.is_empty() && plan.is_idle() {
            assert_eq!(plan.counts().failed, 0);
            return;
        }
    }
    panic!("it does not come to rest");
}

#[test]
fn a_dump_between_any_two_batches_changes_nothing() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let with_99 = fifty_routes_in_each_of_ten_groups(&mut plan);
    run(&mut plan, &mut model);
    for route in &with_99[..250] {
        plan.remove(Vni(1), route);
    }
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    let after = model.clone();
    model.dump(&mut plan);
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!(model, after);
    assert_eq!(
        model
            .resolved()
            .values()
            .filter(|hops| hops.len() == 1)
            .count(),
        250
    );
    let other = Target::Other;
    plan.saw_route(100, "10.9.0.0/16".parse().unwrap(), &other);
    assert_eq!(plan.counts().installed, 501);
}
