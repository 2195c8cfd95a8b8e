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
