//! What the kernel refuses, and what follows.

use super::super::results::Outcome;
use super::*;

/// Does the next batch, of which the kernel refuses what `inject` says.
fn batch(
    plan: &mut Plan,
    model: &mut Model,
    inject: impl FnMut(&Op) -> Option<i32>,
) -> (Vec<Op>, Outcome) {
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    let failures = execute(model, &ops, inject);
    let outcome = plan.completed(&ops, &failures);
    (ops, outcome)
}

/// Refuses routes, not objects.
fn no_routes(errno: i32) -> impl FnMut(&Op) -> Option<i32> {
    move |op| matches!(op, Op::Route { .. }).then_some(errno)
}

fn plan_with_ids(nexthop_ids: std::ops::Range<u32>) -> Plan {
    Plan::new(PlanConfig {
        nexthop_ids,
        ..plan_in(Mode::Objects).config
    })
}

#[test]
fn number_that_turned_out_to_be_taken_is_not_tried_again() {
    let (mut plan, mut model) = (plan_with_ids(1000..1002), Model::default());
    model.objects.insert(1000, Nexthop::Foreign);
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    batch(&mut plan, &mut model, |_| None);
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 1);
    assert_eq!(model.objects[&1000], Nexthop::Foreign);
    plan.remove(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 1);
}

#[test]
fn number_is_used_when_the_kernel_refused_something_else() {
    let (mut plan, mut model) = (plan_with_ids(1000..1001), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    for _ in 0..3 {
        batch(&mut plan, &mut model, |_| Some(errno::EPERM));
        assert_eq!((plan.counts().failed, plan.counts().objects), (1, 0));
        plan.retry_all();
    }
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().len(), 1);
}

#[test]
fn without_numbers_routes_wait_until_one_is_free() {
    let (mut plan, mut model) = (plan_with_ids(1000..1001), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("10.0.1.0/24", 2));
    plan.add(Vni(1), &route("10.0.2.0/24", 1));
    plan.add(Vni(1), &route("10.0.2.0/24", 2));
    run(&mut plan, &mut model);
    assert_eq!((model.routes.len(), plan.counts().failed), (1, 2));
    plan.remove(Vni(1), &route("10.0.0.0/24", 1));
    plan.remove(Vni(1), &route("10.0.2.0/24", 1));
    run(&mut plan, &mut model);
    plan.retry_all();
    run(&mut plan, &mut model);
    assert_eq!((model.routes.len(), plan.counts().failed), (2, 0));
}

#[test]
fn deletion_that_comes_too_late_is_done() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    model.routes.clear();
    plan.remove(Vni(1), &route("10.0.0.0/24", 1));
    let (_, outcome) = batch(&mut plan, &mut model, |_| None);
    assert_eq!(outcome, Outcome::default());
    assert_eq!((plan.counts().failed, plan.store.len()), (0, 0));
    let delete = |plan: &mut Plan, model: &mut Model| batch(plan, model, |_| None);
    model.objects.clear();
    let (ops, outcome) = delete(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::DeleteObject { .. }]), "{ops:?}");
    assert!(!outcome.resync, "it is gone");
}

#[test]
fn object_that_does_not_go_is_looked_at() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    plan.remove(Vni(1), &route("10.0.0.0/24", 1));
    batch(&mut plan, &mut model, |_| None);
    let (ops, outcome) = batch(&mut plan, &mut model, |_| Some(errno::EPERM));
    assert!(matches!(ops[..], [Op::DeleteObject { .. }]), "{ops:?}");
    assert!(outcome.resync);
}

#[test]
fn route_that_the_kernel_has_already_is_shadowed_at_once_and_raises_doubt_once() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    let failed_shadowed = |plan: &Plan| (plan.counts().failed, plan.counts().shadowed);
    let (_, outcome) = batch(&mut plan, &mut model, no_routes(errno::EPERM));
    assert!(!outcome.doubt);
    assert_eq!((outcome.refused, failed_shadowed(&plan)), (1, (1, 0)));
    plan.retry_all();
    let (_, outcome) = batch(&mut plan, &mut model, no_routes(errno::EEXIST));
    assert!(outcome.doubt);
    assert_eq!((outcome.refused, failed_shadowed(&plan)), (0, (0, 1)));
    plan.retry_all();
    let meanwhile = run(&mut plan, &mut model);
    assert!(matches!(meanwhile[..], [Op::DeleteObject { .. }]));
    // A reading finds nobody there, and the kernel says the same again: so it is refused.
    let mut walk = super::super::model::Walk::begin(&mut plan);
    while walk.step(&mut plan, &model) {}
    assert_eq!(plan.review_some(100), Verdict::Done);
    let (_, outcome) = batch(&mut plan, &mut model, no_routes(errno::EEXIST));
    assert!(!outcome.doubt);
    assert_eq!((outcome.refused, failed_shadowed(&plan)), (1, (1, 0)));
    plan.retry_all();
    run(&mut plan, &mut model);
    assert_eq!((failed_shadowed(&plan), model.routes.len()), ((0, 0), 1));
    // Ours is there, and the next time is another matter.
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    let (_, outcome) = batch(&mut plan, &mut model, no_routes(errno::EEXIST));
    assert!(outcome.doubt);
}

/// Its old one is still to be deleted there: nobody else's stands in the way.
#[test]
fn route_that_finds_an_old_one_of_ours_in_its_place_is_not_called_shadowed() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let prefixes = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"];
    for prefix in prefixes {
        plan.add(Vni(1), &route(prefix, 1));
    }
    run(&mut plan, &mut model);
    for prefix in prefixes {
        plan.add(Vni(1), &route(prefix, 2));
        plan.remove(Vni(1), &route(prefix, 1));
    }
    let mut ops = Vec::new();
    plan.settle(&mut ops);
    assert_eq!(ops, []);
    batch(&mut plan, &mut model, |_| None);
    assert_eq!(plan.counts().strays, 3);
    let mut small = |plan: &mut Plan| {
        let mut ops = Vec::new();
        plan.batch(2, &mut ops);
        let failures = execute(&mut model, &ops, |_| None);
        plan.completed(&ops, &failures);
        failures.len()
    };
    plan.remove(Vni(1), &route(prefixes[2], 2));
    assert_eq!(small(&mut plan), 0);
    plan.add(Vni(1), &route(prefixes[2], 2));
    assert_eq!(small(&mut plan), 1, "the kernel has the old one");
    let counts = plan.counts();
    assert_eq!((counts.shadowed, counts.failed, counts.strays), (0, 0, 1));
    run(&mut plan, &mut model);
    let counts = plan.counts();
    assert_eq!(
        (counts.installed, counts.shadowed, counts.failed),
        (3, 0, 0)
    );
    assert_eq!(model.resolved().len(), 3);
}

#[test]
fn route_behind_somebody_elses_is_not_changed_until_theirs_goes() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let behind = place(100, "10.0.0.0/24".parse().unwrap());
    for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
        plan.add(Vni(1), &route(prefix, 1));
    }
    run(&mut plan, &mut model);
    let routes = model.routes.get_mut(&behind).unwrap();
    routes.insert(0, Installed::Foreign);
    assert_eq!(plan.route_changed(behind, &Seen::First), Change::Shadowed);
    let elsewhere = place(100, "10.9.0.0/16".parse().unwrap());
    assert_eq!(plan.route_changed(elsewhere, &Seen::First), Change::None);
    for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
        plan.add(Vni(1), &route(prefix, 2));
    }
    run(&mut plan, &mut model);
    let hops = |model: &Model| model.resolved().values().map(BTreeSet::len).collect();
    assert_eq!(plan.counts().shadowed, 1);
    let resolved: Vec<usize> = hops(&model);
    assert_eq!(resolved, [1, 2], "others are not held back");
    model.dump(&mut plan);
    assert_eq!(run(&mut plan, &mut model), [], "a reading shows the same");
    model.take(behind);
    let change = plan.route_changed(behind, &Seen::Left);
    assert_eq!(change, Change::Unclear, "another one may stand there");
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    let resolved: Vec<usize> = hops(&model);
    assert_eq!((resolved, plan.counts().shadowed), (vec![2, 2], 0));
}

#[test]
fn refused_routes_cost_one_message_a_try_and_are_tried_more_and_more_rarely() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    batch(&mut plan, &mut model, no_routes(EINVAL));
    let mut tries = Vec::new();
    for round in 1..=1000 {
        plan.retry(10);
        let (ops, _) = batch(&mut plan, &mut model, no_routes(EINVAL));
        assert!(ops.len() <= 1, "an object is made and deleted: {ops:?}");
        if !ops.is_empty() {
            tries.push(round);
        }
        assert_eq!(run(&mut plan, &mut model), []);
    }
    assert_eq!(tries, [1, 3, 7, 15, 31, 63, 127, 255, 511, 767]);
    assert_eq!(model.objects.len(), 1);
    plan.remove(Vni(1), &route("10.0.0.0/24", 1));
    run(&mut plan, &mut model);
    assert_eq!(model, Model::default(), "its object went with it");
}

#[test]
fn refused_routes_take_turns() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    let prefixes = ["10.0.0.0/24", "10.0.1.0/24", "fd00::/64", "fd01::/64"];
    for prefix in prefixes {
        plan.add(Vni(1), &route(prefix, 1));
    }
    let refuse = |plan: &mut Plan, model: &mut Model| batch(plan, model, no_routes(EINVAL)).0;
    refuse(&mut plan, &mut model);
    let mut tried = Vec::new();
    while tried.len() < 2 * prefixes.len() {
        plan.retry(1);
        for op in refuse(&mut plan, &mut model) {
            match op {
                Op::Route { place, .. } => tried.push(place.prefix),
                op => panic!("{op:?}"),
            }
        }
    }
    let (once, twice) = tried.split_at(prefixes.len());
    assert_eq!(once, twice);
    assert_eq!(once.iter().collect::<BTreeSet<_>>().len(), prefixes.len());
    assert_eq!(plan.counts().failed, prefixes.len());
}
