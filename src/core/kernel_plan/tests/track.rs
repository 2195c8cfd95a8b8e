//! Underlay addresses that cannot be reached for a while.

use super::*;

/// Where a route leads, by the last groups of its hops.
fn hops(model: &Model, prefix: &str) -> Vec<u16> {
    let resolved = model.resolved();
    let hops = &resolved[&(100, prefix.parse().unwrap())];
    hops.iter().map(|it| it.segments()[7]).collect()
}

fn with_groups() -> (Plan, Model) {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.begin_tracking();
    for n in 0..30 {
        for hop in [1, 2, 3] {
            plan.add(Vni(1), &route(&format!("10.0.{n}.0/24"), hop));
        }
        plan.add(Vni(1), &route(&format!("10.1.{n}.0/24"), 1));
    }
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    run(&mut plan, &mut model);
    (plan, model)
}

#[test]
fn unreachable_member_leaves_its_group_by_one_message_and_comes_back_by_one() {
    let (mut plan, mut model) = with_groups();
    assert_eq!(plan.take_new_addresses().len(), 3);
    assert_eq!(plan.addresses(), [1, 2, 3].map(underlay));
    assert_eq!(plan.reach(underlay(1), Way::Closed), Some(1));
    assert_eq!(plan.reach(underlay(1), Way::Closed), None);
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::ReplaceGroup { .. }]), "{ops:?}");
    assert_eq!(hops(&model, "10.0.7.0/24"), [2, 3]);
    assert_eq!(hops(&model, "10.1.7.0/24"), [1], "it has no other");
    // A group that is made meanwhile is made without it.
    plan.add(Vni(1), &route("10.2.0.0/24", 1));
    plan.add(Vni(1), &route("10.2.0.0/24", 4));
    run(&mut plan, &mut model);
    assert_eq!(hops(&model, "10.2.0.0/24"), [4]);
    assert_eq!(plan.reach(underlay(1), Way::Open), Some(2));
    assert_eq!(run(&mut plan, &mut model).len(), 2);
    assert_eq!(hops(&model, "10.0.7.0/24"), [1, 2, 3]);
    assert_eq!(hops(&model, "10.2.0.0/24"), [1, 4]);
}

#[test]
fn group_of_which_no_member_can_be_reached_keeps_all() {
    let (mut plan, mut model) = with_groups();
    for hop in [1, 2, 3] {
        plan.reach(underlay(hop), Way::Closed);
        run(&mut plan, &mut model);
    }
    assert_eq!(hops(&model, "10.0.0.0/24"), [1, 2, 3]);
    assert_eq!(plan.counts().unreachable, 3);
    plan.reach(underlay(2), Way::Open);
    run(&mut plan, &mut model);
    assert_eq!(hops(&model, "10.0.0.0/24"), [2]);
}

/// The kernel deletes a group, and its routes, with its last member.
#[test]
fn hypervisor_that_leaves_while_the_others_cannot_be_reached_takes_no_route_along() {
    let (mut plan, mut model) = with_groups();
    for hop in [1, 2] {
        plan.reach(underlay(hop), Way::Closed);
    }
    run(&mut plan, &mut model);
    assert_eq!(hops(&model, "10.0.0.0/24"), [3]);
    for n in 0..30 {
        plan.remove(Vni(1), &route(&format!("10.0.{n}.0/24"), 3));
    }
    for _ in 0..100 {
        let mut ops = Vec::new();
        plan.settle(&mut ops);
        if ops.is_empty() {
            plan.batch(4, &mut ops);
        }
        let failures = execute(&mut model, &ops, |_| None);
        assert_eq!(failures, []);
        plan.completed(&ops, &failures);
        assert_eq!(model.resolved().len(), 60, "{ops:?}");
    }
    assert!(plan.is_idle());
    assert_eq!(hops(&model, "10.0.0.0/24"), [1, 2]);
}

#[test]
fn reading_finds_groups_as_they_were_made() {
    let (mut plan, mut model) = with_groups();
    plan.reach(underlay(1), Way::Closed);
    run(&mut plan, &mut model);
    plan.begin_review();
    for (&id, object) in &model.objects {
        if let Nexthop::Hop(address) = object {
            plan.saw_hop(id, *address);
        }
    }
    for (&id, object) in &model.objects {
        if let Nexthop::Group(members) = object {
            plan.saw_group(id, members);
        }
    }
    assert_eq!(plan.review_objects(), Change::None);
    for (&place, routes) in &model.routes {
        if let [Installed::Ours(target)] = &routes[..] {
            plan.saw_route(place, PROTOCOL, target);
        }
    }
    assert_eq!(plan.review_some(1000), Verdict::Done);
    assert_eq!(run(&mut plan, &mut model), []);
    // From nothing, the routes move to a group that has all.
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    assert_eq!(hops(&model, "10.0.0.0/24"), [2, 3]);
    plan.reach(underlay(1), Way::Open);
    run(&mut plan, &mut model);
    assert_eq!(hops(&model, "10.0.0.0/24"), [1, 2, 3]);
    plan.clear();
    run(&mut plan, &mut model);
    plan.forget_unused_addresses();
    assert_eq!(model, Model::default());
}
