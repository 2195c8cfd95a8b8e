//! What an earlier process or somebody else has in the kernel.

use super::*;

/// What a process leaves that had these routes.
fn left_by(mode: Mode, all: &[(&str, &[u16])]) -> Model {
    let (mut plan, mut model) = (plan_in(mode), Model::default());
    announce(&mut plan, all);
    run(&mut plan, &mut model);
    model
}

fn announce(plan: &mut Plan, all: &[(&str, &[u16])]) {
    for (prefix, hops) in all {
        for &hop in *hops {
            plan.add(Vni(1), &route(prefix, hop));
        }
    }
}

/// The next process, which has read the kernel.
fn next_in(mode: Mode, model: &Model) -> Plan {
    let mut plan = plan_in(mode);
    model.dump(&mut plan);
    plan
}

fn complete(plan: &mut Plan) {
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
}

fn plan_with_one_id() -> Plan {
    Plan::new(PlanConfig {
        nexthop_ids: 1000..1001,
        ..plan_in(Mode::Objects).config
    })
}

#[test]
fn found_route_that_leads_elsewhere_is_written_at_once() {
    for (mode, prefix) in [
        (Mode::Objects, "10.0.0.0/24"),
        (Mode::Objects, "fd00::/64"),
        (Mode::Inline, "10.0.0.0/24"),
        (Mode::Inline, "fd00::/64"),
    ] {
        let mut model = left_by(mode, &[(prefix, &[1])]);
        let mut plan = next_in(mode, &model);
        plan.add(Vni(1), &route(prefix, 2));
        let ops = run(&mut plan, &mut model);
        let hops = |model: &Model| model.resolved().remove(&(100, prefix.parse().unwrap()));
        if mode == Mode::Inline && prefix == "fd00::/64" {
            // It has the lowest hop only, and that one may be announced yet.
            assert_eq!(ops, []);
            complete(&mut plan);
            run(&mut plan, &mut model);
        }
        let expected = Some(BTreeSet::from([underlay(2)]));
        assert_eq!(hops(&model), expected, "{mode:?} {prefix}");
        plan.add(Vni(1), &route(prefix, 1));
        run(&mut plan, &mut model);
        assert!(hops(&model).unwrap().contains(&underlay(1)));
    }
}

#[test]
fn found_route_keeps_a_hop_that_others_lost_until_its_table_is_complete() {
    let all: &[u16] = &[1, 99];
    let mut model = left_by(Mode::Objects, &[("10.0.0.0/24", all), ("10.0.1.0/24", all)]);
    let mut plan = next_in(Mode::Objects, &model);
    announce(&mut plan, &[("10.0.1.0/24", all)]);
    run(&mut plan, &mut model);
    plan.remove(Vni(1), &route("10.0.1.0/24", 99));
    run(&mut plan, &mut model);
    let key = |prefix: &str| (100, prefix.parse().unwrap());
    assert_eq!(model.resolved()[&key("10.0.0.0/24")].len(), 2);
    assert_eq!(model.resolved()[&key("10.0.1.0/24")].len(), 1);
}

#[test]
fn found_objects_stay_for_routes_to_come_until_all_tables_are_complete() {
    let mut model = left_by(
        Mode::Objects,
        &[("10.0.0.0/24", &[1, 2]), ("10.0.1.0/24", &[3])],
    );
    model.routes.clear();
    let mut plan = next_in(Mode::Objects, &model);
    assert_eq!(plan.counts().objects, 4);
    plan.synced(Vni(1));
    plan.synced(Vni(2));
    let all: &[(&str, &[u16])] = &[("10.0.0.0/24", &[1, 2]), ("10.0.1.0/24", &[2])];
    for found in all {
        announce(&mut plan, &[*found]);
        let ops = run(&mut plan, &mut model);
        assert!(matches!(ops[..], [Op::Route { .. }]), "{ops:?}");
    }
    plan.synced(Vni(3));
    let ops = run(&mut plan, &mut model);
    assert!(matches!(ops[..], [Op::DeleteObject { .. }]), "{ops:?}");
    assert_eq!((model.objects.len(), plan.counts().objects), (3, 3));
}

/// Neither is a way in which this mode writes routes.
#[test]
fn found_hops_that_no_route_can_have_are_replaced() {
    for (prefix, found) in [
        ("10.0.0.0/24", vec![underlay(3)]),
        ("fd00::/64", vec![underlay(1), underlay(2)]),
    ] {
        let (mut plan, mut model) = (plan_in(Mode::Inline), Model::default());
        let key: IpNet = prefix.parse().unwrap();
        let found = Installed::Ours(Target::Inline(found));
        model.put(place(100, key), found);
        model.dump(&mut plan);
        announce(&mut plan, &[(prefix, &[1])]);
        run(&mut plan, &mut model);
        let hops = BTreeSet::from([underlay(1)]);
        assert_eq!(model.resolved(), BTreeMap::from([((100, key), hops)]));
    }
}

#[test]
fn pending_writes_survive_a_reading_of_the_kernel() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    complete(&mut plan);
    announce(&mut plan, &[("10.0.0.0/24", &[1, 2, 3])]);
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    for hop in [3, 2] {
        plan.remove(Vni(1), &route("10.0.0.0/24", hop));
        assert_eq!(plan.settling(), 1);
        model.dump(&mut plan);
        run(&mut plan, &mut model);
        let hops: Vec<usize> = model.resolved().values().map(BTreeSet::len).collect();
        assert_eq!(hops, [usize::from(hop) - 1]);
    }
}

/// A hop that was found twice is not mixed up with a group that shrinks to it.
#[test]
fn group_of_one_is_no_member_of_groups() {
    let mut model = left_by(
        Mode::Objects,
        &[("10.0.0.0/24", &[1, 2]), ("10.0.1.0/24", &[1, 2])],
    );
    // Before the others, so that it is the one that new routes go by.
    model.objects.insert(IDS.start - 1, Nexthop::Foreign);
    let first = *model.objects.keys().nth(1).unwrap();
    model.objects.insert(IDS.end - 1, Nexthop::Hop(underlay(1)));
    for object in model.objects.values_mut() {
        if let Nexthop::Group(members) = object {
            members
                .iter_mut()
                .filter(|it| **it == first)
                .for_each(|it| *it = IDS.end - 1);
        }
    }
    let mut plan = next_in(Mode::Objects, &model);
    complete(&mut plan);
    announce(
        &mut plan,
        &[("10.0.0.0/24", &[1, 2]), ("10.0.1.0/24", &[1, 2])],
    );
    run(&mut plan, &mut model);
    for prefix in ["10.0.0.0/24", "10.0.1.0/24"] {
        plan.remove(Vni(1), &route(prefix, 2));
    }
    run(&mut plan, &mut model);
    announce(
        &mut plan,
        &[("10.0.2.0/24", &[1]), ("10.0.3.0/24", &[1, 3])],
    );
    run(&mut plan, &mut model);
    let hops: Vec<usize> = model.resolved().values().map(BTreeSet::len).collect();
    assert_eq!(hops, [1, 1, 1, 2]);
}

#[test]
fn routes_are_never_missing_while_they_change_from_objects_to_their_own_hops() {
    let all: &[(&str, &[u16])] = &[
        ("10.0.0.0/24", &[1, 2]),
        ("10.0.1.0/24", &[1]),
        ("fd00::/64", &[2, 3]),
    ];
    let mut model = left_by(Mode::Objects, all);
    model.objects.insert(7, Nexthop::Hop(underlay(7)));
    model.objects.insert(8, Nexthop::Group(vec![7]));
    model.objects.insert(1100, Nexthop::Foreign);
    model.objects.insert(1101, Nexthop::Group(vec![7]));
    let mut plan = next_in(Mode::Inline, &model);
    announce(&mut plan, all);
    let work = |plan: &mut Plan, model: &mut Model, refused: bool| {
        for _ in 0..20 {
            let mut ops = Vec::new();
            plan.batch(2, &mut ops);
            assert!(ops.len() <= 2);
            let failures = execute(model, &ops, |op| match op {
                Op::Route { place, .. } if refused => {
                    matches!(place.prefix, IpNet::V6(_)).then_some(EINVAL)
                }
                _ => None,
            });
            plan.completed(&ops, &failures);
            assert_eq!(model.resolved().len(), all.len(), "{ops:?}");
        }
        assert!(plan.is_idle());
    };
    let before = model.objects.clone();
    work(&mut plan, &mut model, true);
    assert_eq!(model.objects, before, "somebody may announce more");
    complete(&mut plan);
    work(&mut plan, &mut model, true);
    assert_eq!(model.objects, before, "one still goes by its objects");
    plan.retry(1);
    work(&mut plan, &mut model, false);
    let left: Vec<u32> = model.objects.keys().copied().collect();
    assert_eq!(left, [7, 8, 1100, 1101], "others' objects are let alone");
    assert!(
        model
            .routes
            .values()
            .flatten()
            .all(|it| matches!(it, Installed::Ours(Target::Inline(_))))
    );
}

#[test]
fn objects_that_are_not_ours_are_let_alone() {
    let mut model = Model::default();
    model.objects.insert(7, Nexthop::Hop(underlay(1)));
    model.objects.insert(8, Nexthop::Group(vec![7]));
    model.objects.insert(1001, Nexthop::Hop(underlay(1)));
    model.objects.insert(1002, Nexthop::Group(vec![7, 1001]));
    model.objects.insert(1003, Nexthop::Group(vec![1001]));
    model.objects.insert(1200, Nexthop::Group(vec![1001]));
    let mut plan = next_in(Mode::Objects, &model);
    // A group of groups is nothing that we make.
    plan.saw_group(1004, &[1003]);
    plan.saw_group(1005, &[]);
    assert_eq!(plan.counts().objects, 2);
    complete(&mut plan);
    announce(&mut plan, &[("10.0.0.0/24", &[1, 2, 3, 4, 5])]);
    run(&mut plan, &mut model);
    plan.clear();
    run(&mut plan, &mut model);
    // The kernel itself deletes a group that lost its last member.
    let left: Vec<u32> = model.objects.keys().copied().collect();
    assert_eq!(left, [7, 8, 1002]);
}

#[test]
fn number_is_used_once_nobody_else_has_it() {
    for is_told in [true, false] {
        let (mut plan, mut model) = (plan_with_one_id(), Model::default());
        model.objects.insert(1000, Nexthop::Foreign);
        assert_eq!(plan.object_changed(1000, true), Change::None);
        announce(&mut plan, &[("10.0.0.0/24", &[1])]);
        assert_eq!(run(&mut plan, &mut model), []);
        assert_eq!(plan.counts().failed, 1);
        model.objects.clear();
        if is_told {
            assert_eq!(plan.object_changed(1000, false), Change::None);
            plan.retry(1);
        } else {
            model.dump(&mut plan);
        }
        run(&mut plan, &mut model);
        assert_eq!((model.resolved().len(), plan.counts().failed), (1, 0));
        let change = plan.object_changed(1000, true);
        assert_eq!(change, Change::Unclear, "it is ours");
    }
}

/// Two writers wanted one number, and ours was killed before it took its route back.
#[test]
fn route_of_ours_to_an_object_of_somebody_else_is_replaced() {
    for in_slices in [false, true] {
        let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
        complete(&mut plan);
        announce(&mut plan, &[("10.0.0.0/24", &[1])]);
        if in_slices {
            run(&mut plan, &mut model);
        }
        let taken = IDS.start + 7;
        model.objects.insert(taken, Nexthop::Foreign);
        for prefix in ["10.0.0.0/24", "fd00::/64"] {
            let mislaid = Installed::Ours(Target::Object(taken));
            let place = place(100, prefix.parse().unwrap());
            model.routes.entry(place).or_default().insert(0, mislaid);
        }
        if in_slices {
            let mut walk = super::super::model::Walk::begin(&mut plan);
            while walk.step(&mut plan, &model) {}
            assert_eq!(plan.review_some(100), Verdict::Done);
        } else {
            model.dump(&mut plan);
        }
        run(&mut plan, &mut model);
        assert_eq!(plan.counts().shadowed, 0);
        let hops = BTreeSet::from([underlay(1)]);
        let key = (100, "10.0.0.0/24".parse().unwrap());
        assert_eq!(model.resolved(), BTreeMap::from([(key, hops)]));
        assert_eq!(model.routes.values().flatten().count(), 1);
    }
}

#[test]
fn numbers_go_round_in_their_range() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan = Plan::new(PlanConfig {
        nexthop_ids: 1000..1003,
        ..plan.config
    });
    let mut used: Vec<u32> = Vec::new();
    for hop in 1..=6 {
        announce(&mut plan, &[("10.0.0.0/24", &[hop])]);
        run(&mut plan, &mut model);
        used.extend(model.objects.keys());
        plan.remove(Vni(1), &route("10.0.0.0/24", hop));
        run(&mut plan, &mut model);
    }
    assert_eq!(used, [1000, 1001, 1002, 1000, 1001, 1002]);
}
