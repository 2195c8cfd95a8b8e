//! Hypervisors that leave, and what they cost.

use super::*;

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
fn hypervisor_that_leaves_costs_one_message() {
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
fn hypervisor_that_leaves_its_groups_only_costs_a_message_a_group() {
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
fn dump_between_any_two_batches_changes_nothing() {
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
}

#[test]
fn hypervisor_that_comes_back_at_once_costs_nothing() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let with_99 = fifty_routes_in_each_of_ten_groups(&mut plan);
    run(&mut plan, &mut model);
    for route in &with_99 {
        plan.remove(Vni(1), route);
    }
    for route in &with_99 {
        plan.add(Vni(1), route);
    }
    assert_eq!(run(&mut plan, &mut model), []);
}

/// All tables complete, and routes to hops, as if announced before.
fn routes_to(all: &[(&str, &[u16])]) -> (Plan, Model) {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    for (prefix, hops) in all {
        for &hop in *hops {
            plan.add(Vni(1), &route(prefix, hop));
        }
    }
    run(&mut plan, &mut model);
    (plan, model)
}

fn groups(model: &Model) -> usize {
    let is_group = |object: &&Nexthop| matches!(object, Nexthop::Group(_));
    model.objects.values().filter(is_group).count()
}

fn hops_of(model: &Model, prefix: &str) -> Vec<Ipv6Addr> {
    let hops = model.resolved().remove(&(100, prefix.parse().unwrap()));
    hops.unwrap_or_default().into_iter().collect()
}

#[test]
fn hypervisor_of_one_group_leaves_it_by_one_message() {
    let all: &[u16] = &[1, 2];
    let (mut plan, mut model) = routes_to(&[("10.0.0.0/24", all), ("10.0.1.0/24", all)]);
    for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
        plan.remove(Vni(1), &route(prefix, 2));
    }
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::DeleteObject { .. }]), "{ops:?}");
    assert_eq!(hops_of(&model, "10.0.1.0/24"), [underlay(1)]);
}

#[test]
fn route_waits_once_however_many_hops_it_lost_and_not_without_a_loss() {
    let (mut plan, mut model) = routes_to(&[("10.0.0.0/24", &[1, 2, 3])]);
    plan.add(Vni(2), &route("10.0.0.0/24", 3));
    run(&mut plan, &mut model);
    plan.remove(Vni(2), &route("10.0.0.0/24", 3));
    assert_eq!(plan.settling(), 0, "somebody else announces the hop");
    assert_eq!(run(&mut plan, &mut model), []);
    plan.remove(Vni(1), &route("10.0.0.0/24", 3));
    plan.remove(Vni(1), &route("10.0.0.0/24", 2));
    assert_eq!(plan.settling(), 1);
    run(&mut plan, &mut model);
    assert_eq!(hops_of(&model, "10.0.0.0/24"), [underlay(1)]);
}

#[test]
fn route_loses_hop_after_hop() {
    let (mut plan, mut model) = routes_to(&[("10.0.0.0/24", &[1, 2, 3])]);
    for hop in [3, 2] {
        plan.remove(Vni(1), &route("10.0.0.0/24", hop));
        run(&mut plan, &mut model);
        let left: Vec<Ipv6Addr> = (1..hop).map(underlay).collect();
        assert_eq!(hops_of(&model, "10.0.0.0/24"), left);
    }
}

/// The hop that is lost is still the way of another route, so that no deletion will do.
#[test]
fn route_alone_moves_to_the_group_that_has_its_hops() {
    let (mut plan, mut model) = routes_to(&[
        ("10.0.0.0/24", &[1, 2, 3]),
        ("10.0.1.0/24", &[1, 2]),
        ("10.0.2.0/24", &[3]),
    ]);
    plan.remove(Vni(1), &route("10.0.0.0/24", 3));
    run(&mut plan, &mut model);
    assert_eq!(groups(&model), 1);
}

#[test]
fn group_that_changed_is_that_of_its_new_hops_only() {
    let all: &[u16] = &[1, 2, 3];
    let (mut plan, mut model) = routes_to(&[
        ("10.0.0.0/24", all),
        ("10.0.1.0/24", all),
        ("10.0.2.0/24", &[3]),
    ]);
    // Refused, and so it keeps the old set in use.
    for &hop in all {
        plan.add(Vni(1), &route("10.0.3.0/24", hop));
    }
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    let failures = execute(&mut model, &ops, |_| Some(EINVAL));
    plan.completed(&ops, &failures);
    for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
        plan.remove(Vni(1), &route(prefix, 3));
    }
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::ReplaceGroup { .. }]), "{ops:?}");
    plan.add(Vni(1), &route("10.0.4.0/24", 1));
    plan.add(Vni(1), &route("10.0.4.0/24", 2));
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::Route { .. }]), "{ops:?}");
    plan.retry(1);
    run(&mut plan, &mut model);
    assert_eq!(hops_of(&model, "10.0.3.0/24").len(), 3);
    for prefix in ["10.0.0.0/24", "10.0.1.0/24", "10.0.4.0/24"] {
        assert_eq!(hops_of(&model, prefix).len(), 2);
    }
}

#[test]
fn batch_keeps_to_its_limit() {
    let limited = |plan: &mut Plan, model: &mut Model| {
        let mut ops = Vec::new();
        plan.batch(3, &mut ops);
        assert_eq!(execute(model, &ops, |_| None), []);
        plan.completed(&ops, &[]);
        ops.len()
    };
    let (mut plan, mut model) = routes_to(&[("10.9.0.0/16", &[9])]);
    let prefixes: Vec<String> = (0..12).map(|n| format!("10.0.{n}.0/24")).collect();
    for prefix in &prefixes {
        plan.add(Vni(1), &route(prefix, 9));
    }
    for _ in 0..4 {
        assert_eq!(limited(&mut plan, &mut model), 3, "routes");
    }
    for (prefix, hop) in prefixes.iter().zip(10..) {
        plan.add(Vni(1), &route(prefix, hop));
    }
    run(&mut plan, &mut model);
    // Nobody else goes by these hops: each leaves its group by a deletion.
    for (prefix, hop) in prefixes.iter().zip(10..) {
        plan.remove(Vni(1), &route(prefix, hop));
    }
    assert_eq!(limited(&mut plan, &mut model), 3, "hops of groups");
    run(&mut plan, &mut model);
    for (prefix, hop) in prefixes.iter().zip(10..) {
        plan.remove(Vni(1), &route(prefix, 9));
        plan.add(Vni(1), &route(prefix, hop));
    }
    run(&mut plan, &mut model);
    for (prefix, hop) in prefixes.iter().zip(10..) {
        plan.remove(Vni(1), &route(prefix, hop));
    }
    for _ in 0..4 + 4 {
        assert_eq!(limited(&mut plan, &mut model), 3, "routes, then objects");
    }
    assert_eq!(run(&mut plan, &mut model), []);
}

#[test]
fn queue_that_was_long_gives_its_memory_back() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for n in 0..20_000 {
        let destination = Destination::from_ipv4(Ipv4Addr::from(0x0a00_0000 + n), 32);
        let hop = NextHop::standard(underlay(1));
        plan.add(Vni(1), &Route::new(destination, hop));
    }
    let mut ops = Vec::new();
    plan.batch(usize::MAX, &mut ops);
    assert_eq!(execute(&mut model, &ops, |_| None), []);
    plan.completed(&ops, &[]);
    assert!(plan.queue.capacity() < 10_000);
    assert_eq!(plan.counts().installed, 20_000);
}
