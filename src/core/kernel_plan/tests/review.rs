//! Readings that go on while the kernel is written to.

use super::super::model::Walk;
use super::*;

/// Two plans' worth of routes, all installed.
fn settled(mode: Mode) -> (Plan, Model) {
    let (mut plan, mut model) = (plan_in(mode), Model::default());
    for n in 0..20 {
        plan.add(Vni(1), &route(&format!("10.0.{n}.0/24"), n % 3 + 1));
        plan.add(Vni(1), &route(&format!("fd00:0:0:{n}::/64"), n % 3 + 1));
        plan.add(Vni(1), &route(&format!("fd00:0:0:{n}::/64"), 9));
    }
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    run(&mut plan, &mut model);
    (plan, model)
}

/// Reads everything at once and looks at what was read.
fn review(plan: &mut Plan, model: &Model) -> Verdict {
    let mut walk = Walk::begin(plan);
    while walk.step(plan, model) {}
    conclude(plan)
}

fn conclude(plan: &mut Plan) -> Verdict {
    loop {
        let verdict = plan.review_some(7);
        if verdict != Verdict::More {
            return verdict;
        }
    }
}

#[test]
fn reading_of_what_is_believed_costs_nothing() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = settled(mode);
        assert_eq!(review(&mut plan, &model), Verdict::Done);
        assert!(plan.is_idle() && !plan.is_reviewing());
        assert_eq!(run(&mut plan, &mut model), []);
        assert_eq!(plan.counts().installed, 40);
    }
}

#[test]
fn routes_that_vanished_without_a_word_are_lost_and_repaired() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = settled(mode);
        let before = model.resolved();
        for n in [3, 5] {
            model.take(place(100, format!("10.0.{n}.0/24").parse().unwrap()));
        }
        assert_eq!(review(&mut plan, &model), Verdict::Lost);
        assert_eq!(run(&mut plan, &mut model), [], "repairs wait");
        plan.repair();
        assert_eq!(run(&mut plan, &mut model).len(), 2);
        assert_eq!(model.resolved(), before);
    }
}

#[test]
fn object_that_vanished_without_a_word_takes_only_its_routes_along() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let before = model.resolved();
    let is_first = |object: &Nexthop| *object == Nexthop::Hop(underlay(1));
    let lost = model.objects.iter().find(|(_, it)| is_first(it));
    let lost = *lost.unwrap().0;
    model.delete_object(lost).unwrap();
    let mut walk = Walk::begin(&mut plan);
    while walk.step(&mut plan, &model) {
        plan.lose_objects();
    }
    assert_eq!(conclude(&mut plan), Verdict::Lost);
    plan.repair();
    let ops = run(&mut plan, &mut model);
    assert_eq!(model.resolved(), before);
    // 7 routes to the hop, 7 that have it in their group, the hop and the group.
    assert!(ops.len() < 40, "{}: {ops:?}", ops.len());
}

#[test]
fn changes_during_a_reading_are_written_at_once_and_not_undone_by_it() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = settled(mode);
        // The kernel answered with what it had; then everything changes.
        let before = model.clone();
        let mut walk = Walk::begin(&mut plan);
        for n in 0..20 {
            let prefix = format!("10.0.{n}.0/24");
            match n % 4 {
                0 => plan.remove(Vni(1), &route(&prefix, n % 3 + 1)),
                1 => {
                    plan.add(Vni(1), &route(&prefix, 20 + n));
                    plan.remove(Vni(1), &route(&prefix, n % 3 + 1));
                }
                2 => drop(plan.add(Vni(1), &route(&format!("10.1.{n}.0/24"), n))),
                _ => {}
            }
        }
        let ops = run(&mut plan, &mut model);
        assert!(ops.len() >= 15, "{}", ops.len());
        while walk.step(&mut plan, &before) {}
        // Announced again after the old state was read.
        plan.add(Vni(1), &route("10.0.0.0/24", 1));
        assert_eq!(conclude(&mut plan), Verdict::Done);
        run(&mut plan, &mut model);
        let resolved = model.resolved();
        assert_eq!(resolved.len(), 40 - 4 + 5, "{mode:?}");
        let hops = &resolved[&(100, "10.0.1.0/24".parse().unwrap())];
        assert_eq!(*hops, BTreeSet::from([underlay(21)]));
        assert_eq!(plan.counts().installed, resolved.len());
        assert_eq!(review(&mut plan, &model), Verdict::Done);
        assert_eq!(run(&mut plan, &mut model), [], "it was all true");
    }
}

#[test]
fn routes_of_others_that_came_and_went_without_a_word_are_found() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let theirs = place(100, "10.0.4.0/24".parse().unwrap());
    model.put(theirs, Installed::Foreign);
    review(&mut plan, &model);
    plan.repair();
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!((plan.counts().shadowed, plan.counts().installed), (1, 39));
    model.take(theirs);
    review(&mut plan, &model);
    assert_eq!(run(&mut plan, &mut model).len(), 1);
    assert_eq!((plan.counts().shadowed, plan.counts().installed), (0, 40));
}

#[test]
fn route_of_ours_that_nobody_knows_is_deleted_wherever_it_stands() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let id = *model.objects.first_key_value().unwrap().0;
    let stray = Installed::Ours(Target::Object(id));
    let nobody: IpNet = "10.9.0.0/24".parse().unwrap();
    model.put(place(100, nobody), stray.clone());
    model.put(place(777, nobody), stray.clone());
    let beside = place(100, "10.0.1.0/24".parse().unwrap());
    model.routes.get_mut(&beside).unwrap().push(stray);
    let before = plan.counts();
    assert_eq!(review(&mut plan, &model), Verdict::Done);
    let ops = run(&mut plan, &mut model);
    assert_eq!(ops.len(), 3, "{ops:?}");
    assert_eq!(model.routes.values().flatten().count(), 40);
    assert_eq!(plan.counts(), before);
}

/// The kernel tells of routes whose group lost a member; we may have left that group since.
#[test]
fn late_word_of_a_group_that_is_gone_is_no_route_of_somebody_else() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let place = place(100, "10.0.4.0/24".parse().unwrap());
    assert_eq!(plan.route_changed(place, &Seen::Unknown), Change::Unclear);
    assert_eq!((plan.counts().shadowed, plan.counts().installed), (0, 40));
    assert_eq!(review(&mut plan, &model), Verdict::Done);
    assert_eq!(run(&mut plan, &mut model), []);
}

/// Torn answers are read again: what stood last in the first may stand first in the second.
#[test]
fn table_that_is_read_twice_shadows_no_route_by_one_that_stands_behind_it() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let place = place(100, "10.0.4.0/24".parse().unwrap());
    model
        .routes
        .get_mut(&place)
        .unwrap()
        .push(Installed::Foreign);
    let mut walk = Walk::begin(&mut plan);
    for _ in 0..2 {
        walk.again(&mut plan);
        while walk.step(&mut plan, &model) {}
    }
    assert_eq!(conclude(&mut plan), Verdict::Done);
    assert_eq!(plan.counts().shadowed, 0);
}

#[test]
fn object_that_somebody_changed_is_not_judged_in_slices() {
    let (mut plan, mut model) = settled(Mode::Objects);
    let (_, object) = model.objects.iter_mut().next().unwrap();
    *object = Nexthop::Hop(underlay(77));
    assert_eq!(review(&mut plan, &model), Verdict::Unclear);
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    let resolved = model.resolved();
    assert!(!resolved.values().any(|hops| hops.contains(&underlay(77))));
}

/// Deletes a route, puts one of somebody else or takes it away, without a word.
fn meddle(random: &mut Random, model: &mut Model) {
    let prefix = format!("10.0.{}.0/24", random.below(30)).parse().unwrap();
    let place = place(100, prefix);
    match random.below(3) {
        0 => drop(model.take_if_any(place)),
        1 => model.put(place, Installed::Foreign),
        _ => {
            let ids: Vec<u32> = model.objects.keys().copied().collect();
            let at = random.below(ids.len().max(1) as u64);
            if let Some(id) = ids.get(usize::try_from(at).unwrap()) {
                model.delete_object(*id).unwrap();
            }
        }
    }
}

/// Reads until all is found, and writes what is missing.
fn recover(plan: &mut Plan, model: &mut Model) {
    for _ in 0..4 {
        if review(plan, model) == Verdict::Unclear {
            model.dump(plan);
        }
        plan.lose_objects();
        plan.repair();
        plan.retry_all();
        for _ in 0..200 {
            let mut ops = Vec::new();
            plan.settle(&mut ops);
            if ops.is_empty() {
                plan.batch(20, &mut ops);
            }
            let failures = execute(model, &ops, |_| None);
            plan.completed(&ops, &failures);
        }
    }
}

/// What [`settled`] has, and these.
fn expected(
    mode: Mode,
    wanted: BTreeSet<(String, u16)>,
) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
    let mut expected: BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> = BTreeMap::new();
    let key = |text: &str| (100, text.parse().unwrap());
    for n in 0..20_u16 {
        let hop = underlay(n % 3 + 1);
        let v6 = match mode {
            Mode::Objects => BTreeSet::from([hop, underlay(9)]),
            Mode::Inline => BTreeSet::from([hop]),
        };
        expected.insert(key(&format!("10.0.{n}.0/24")), BTreeSet::from([hop]));
        expected.insert(key(&format!("fd00:0:0:{n}::/64")), v6);
    }
    for (prefix, hop) in wanted {
        let hops = expected.entry(key(&prefix)).or_default();
        hops.insert(underlay(hop));
    }
    expected
}

#[test]
fn whatever_changes_while_the_kernel_is_read_the_next_readings_find_the_rest() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mode = match random.below(4) {
            0 => Mode::Inline,
            _ => Mode::Objects,
        };
        let (mut plan, mut model) = settled(mode);
        let mut wanted: BTreeSet<(String, u16)> = BTreeSet::new();
        let mut walk = None;
        for _ in 0..300 {
            let hop = 1 + u16::try_from(random.below(5)).unwrap();
            match random.below(8) {
                0..3 => {
                    let key = (format!("10.7.{}.0/24", random.below(10)), hop);
                    if random.chance(50) {
                        plan.add(Vni(2), &route(&key.0, hop));
                        wanted.insert(key);
                    } else {
                        plan.remove(Vni(2), &route(&key.0, hop));
                        wanted.remove(&key);
                    }
                }
                3 => {
                    let mut ops = Vec::new();
                    match random.chance(30) {
                        true => plan.settle(&mut ops),
                        false => plan.batch(5, &mut ops),
                    }
                    let failures = execute(&mut model, &ops, |_| None);
                    plan.completed(&ops, &failures);
                }
                4 if random.chance(20) => meddle(&mut random, &mut model),
                _ => {
                    let running = walk.get_or_insert_with(|| Walk::begin(&mut plan));
                    if !running.step(&mut plan, &model) && plan.review_some(9) != Verdict::More {
                        walk = None;
                    }
                    plan.lose_objects();
                    plan.repair();
                }
            }
        }
        while plan.is_reviewing() {
            let running = walk.get_or_insert_with(|| Walk::begin(&mut plan));
            if !running.step(&mut plan, &model) {
                plan.review_some(9);
            }
        }
        model.keep(|it| *it != Installed::Foreign);
        recover(&mut plan, &mut model);
        let expected = expected(mode, wanted);
        assert_eq!(model.resolved(), expected, "seed {seed} {mode:?}");
        assert_eq!(plan.counts().installed, expected.len(), "seed {seed}");
        assert_eq!((plan.counts().failed, plan.counts().shadowed), (0, 0));
    }
}

#[test]
fn new_route_waits_for_no_other_table() {
    let (mut plan, _) = (plan_in(Mode::Objects), Model::default());
    for n in 0..2000_u32 {
        let destination = Destination::from_ipv4(Ipv4Addr::from(0x0a00_0000 + n), 32);
        plan.add(
            Vni(1),
            &Route::new(destination, NextHop::standard(underlay(1))),
        );
    }
    plan.add(Vni(3), &route("192.0.2.0/24", 1));
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    let of_other = |op: &Op| matches!(op, Op::Route { place, .. } if place.table == 300);
    assert!(ops.iter().any(of_other), "{ops:?}");
}

#[test]
fn new_routes_go_before_the_repair_of_many() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for n in 0..2000_u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + n);
        let destination = Destination::from_ipv4(address, 32);
        plan.add(
            Vni(1),
            &Route::new(destination, NextHop::standard(underlay(1))),
        );
    }
    run(&mut plan, &mut model);
    model.lose_device();
    model.dump(&mut plan);
    plan.add(Vni(1), &route("192.0.2.0/24", 1));
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    let is_new = |op: &Op| matches!(op, Op::Route { place, .. } if place.prefix.to_string() == "192.0.2.0/24");
    assert!(ops.iter().any(is_new), "{ops:?}");
}
