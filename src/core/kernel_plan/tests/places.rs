//! Routes of ours in places that nobody wants them in any more.

use super::*;

/// A plan whose routes have another metric.
fn plan_at(metric: u32, mode: Mode) -> Plan {
    Plan::new(PlanConfig {
        metrics: [metric; 2],
        ..plan_in(mode).config
    })
}

/// Reads the kernel, then runs; after each batch every prefix must still be there.
fn move_in(plan: &mut Plan, model: &mut Model) -> usize {
    model.dump(plan);
    let before = model.resolved();
    let mut count = 0;
    for _ in 0..1000 {
        let mut ops = Vec::new();
        plan.batch(3, &mut ops);
        if ops.is_empty() {
            assert!(plan.is_idle());
            return count;
        }
        count += ops.len();
        let failures = execute(model, &ops, |_| None);
        assert_eq!(failures, [], "{ops:?}");
        plan.completed(&ops, &failures);
        assert_eq!(
            model.resolved(),
            before,
            "made before it is broken: {ops:?}"
        );
    }
    panic!("it does not come to rest");
}

fn places(model: &Model) -> Vec<(u32, u32)> {
    let places = model.routes.keys().map(|it| (it.table, it.metric));
    places.collect()
}

#[test]
fn another_metric_moves_routes_at_once_and_without_a_gap() {
    for mode in [Mode::Objects, Mode::Inline] {
        let (mut plan, mut model) = (plan_in(mode), Model::default());
        for prefix in ["10.0.0.0/24", "10.0.1.0/24", "fd00::/64"] {
            plan.add(Vni(1), &route(prefix, 1));
            plan.add(Vni(1), &route(prefix, 2));
        }
        run(&mut plan, &mut model);
        let mut plan = plan_at(50, mode);
        // No server said anything yet.
        assert_eq!(move_in(&mut plan, &mut model), 6);
        assert_eq!(places(&model), [(100, 50); 3]);
        // What was found with several hops keeps them while they are announced.
        plan.add(Vni(1), &route("10.0.0.0/24", 1));
        assert_eq!(run(&mut plan, &mut model), []);
        plan.add(Vni(1), &route("10.0.0.0/24", 2));
        assert_eq!(run(&mut plan, &mut model), []);
        for vni in 1..=3 {
            plan.synced(Vni(vni));
        }
        run(&mut plan, &mut model);
        assert_eq!(places(&model), [(100, 50)], "nobody announces the rest");
        plan.clear();
        run(&mut plan, &mut model);
        assert_eq!(model, Model::default());
        assert_eq!(plan.catalog.sizes(), [0; 4]);
    }
}

#[test]
fn routes_of_a_table_that_is_not_mapped_any_more_go_at_once() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(3), &route("10.3.0.0/24", 1));
    plan.add(Vni(3), &route("10.4.0.0/24", 9));
    run(&mut plan, &mut model);
    let mut config = plan_in(Mode::Objects).config;
    config.vni_tables.remove(&Vni(3));
    let mut plan = Plan::new(config);
    model.dump(&mut plan);
    // Two routes, and the object that only one of them used.
    assert_eq!(run(&mut plan, &mut model).len(), 3);
    assert_eq!(places(&model), [(100, 0)]);
}

#[test]
fn routes_by_another_device_move_to_new_objects_and_the_old_ones_go() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    for prefix in ["10.0.0.0/24", "fd00::/64"] {
        plan.add(Vni(1), &route(prefix, 1));
        plan.add(Vni(1), &route(prefix, 2));
    }
    run(&mut plan, &mut model);
    let old: Vec<u32> = model.objects.keys().copied().collect();
    let mut plan = plan_in(Mode::Objects);
    plan.begin_resync();
    for (&id, object) in &model.objects {
        if let Nexthop::Hop(address) = object {
            plan.saw_leftover_hop(id, *address);
        }
    }
    for (&id, object) in &model.objects {
        if let Nexthop::Group(members) = object {
            plan.saw_group(id, members);
        }
    }
    for (&place, routes) in &model.routes {
        for installed in routes {
            if let Installed::Ours(target) = installed {
                plan.saw_route(place, PROTOCOL, target);
            }
        }
    }
    plan.end_resync();
    let before = model.resolved();
    let ops = run(&mut plan, &mut model);
    // Two hops and a group, two routes, and all of the old ones.
    assert_eq!(ops.len(), 3 + 2 + 2 + 3, "{ops:?}");
    assert_eq!(model.resolved(), before);
    assert!(old.iter().all(|id| !model.objects.contains_key(id)));
}

#[test]
fn default_route_of_the_host_with_our_protocol_is_not_ours() {
    let mut model = Model::default();
    let default = place(100, "0.0.0.0/0".parse().unwrap());
    // A route without a form of ours, as DHCP makes it.
    model.put(default, Installed::Foreign);
    let mut plan = plan_in(Mode::Objects);
    model.dump(&mut plan);
    // One that leads to an object that is not ours.
    plan.begin_resync();
    plan.saw_foreign_object(77);
    plan.saw_route(default, PROTOCOL, &Target::Object(77));
    plan.end_resync();
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    plan.clear();
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!(model.first(default), Some(&Installed::Foreign));
}

#[test]
fn lost_object_marks_its_routes_only() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("10.0.1.0/24", 1));
    plan.add(Vni(1), &route("10.0.1.0/24", 2));
    plan.add(Vni(1), &route("10.0.2.0/24", 3));
    run(&mut plan, &mut model);
    let before = model.resolved();
    let lost = model
        .objects
        .iter()
        .find_map(|(id, object)| (*object == Nexthop::Hop(underlay(1))).then_some(*id));
    model.delete_object(lost.unwrap()).unwrap();
    assert_eq!(plan.object_changed(lost.unwrap(), false), Change::Lost);
    plan.lose_objects();
    assert!(plan.has_losses());
    assert_eq!(
        run(&mut plan, &mut model),
        [],
        "repairs wait to be asked for"
    );
    plan.repair();
    let ops = run(&mut plan, &mut model);
    assert_eq!(model.resolved(), before);
    let is_other = |op: &Op| matches!(op, Op::Route { place, .. } if place.prefix.to_string() == "10.0.2.0/24");
    assert!(!ops.iter().any(is_other), "{ops:?}");
}

/// The kernel refuses what it had before; the end of the reading tells what that is.
#[test]
fn new_route_does_not_wait_for_the_end_of_a_reading() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("10.0.2.0/24", 1));
    run(&mut plan, &mut model);
    // Gone from memory, and still in the kernel.
    plan.remove(Vni(1), &route("10.0.2.0/24", 1));
    let before = model.clone();
    plan.begin_resync();
    for (&id, object) in &before.objects {
        if let Nexthop::Hop(address) = object {
            plan.saw_hop(id, *address);
        }
    }
    for prefix in ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"] {
        plan.add(Vni(1), &route(prefix, 1));
    }
    plan.remove(Vni(1), &route("10.0.3.0/24", 1));
    let mut ops = Vec::new();
    plan.fresh_batch(16, &mut ops);
    assert_eq!(ops.len(), 2, "{ops:?}");
    let failures = execute(&mut model, &ops, |_| None);
    assert_eq!(failures.len(), 1);
    plan.completed(&ops, &failures);
    assert!(
        model
            .first(place(100, "10.0.1.0/24".parse().unwrap()))
            .is_some()
    );
    for (&place, routes) in &model.routes {
        for installed in routes {
            if let Installed::Ours(target) = installed {
                plan.saw_route(place, PROTOCOL, target);
            }
        }
    }
    plan.end_resync();
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!((plan.counts().installed, plan.counts().strays), (3, 0));
}

#[test]
fn two_routes_of_ours_in_one_place_become_one() {
    let (mut plan, mut model) = (plan_in(Mode::Objects), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("fd00::/64", 1));
    run(&mut plan, &mut model);
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    plan.add(Vni(1), &route("fd00::/64", 2));
    // Killed between the new route and the deletion of the old one.
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    execute(&mut model, &ops, |_| None);
    assert!(model.routes.values().all(|routes| routes.len() == 2));
    let mut plan = plan_in(Mode::Objects);
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    assert!(model.routes.values().all(|routes| routes.len() == 1));
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(1), &route("10.0.0.0/24", 2));
    run(&mut plan, &mut model);
    assert_eq!(model.resolved().values().next().unwrap().len(), 2);
}

#[test]
fn device_of_a_vni_has_objects_of_its_own_and_another_one_moves_its_routes() {
    let with = |devices: &[(u32, u8)]| {
        let devices = devices.iter().map(|&(vni, device)| (Vni(vni), device));
        Plan::new(PlanConfig {
            vni_devices: devices.collect(),
            ..plan_in(Mode::Objects).config
        })
    };
    let (mut plan, mut model) = (with(&[(3, 1)]), Model::default());
    plan.add(Vni(1), &route("10.0.0.0/24", 1));
    plan.add(Vni(3), &route("10.0.0.0/24", 1));
    let ops = run(&mut plan, &mut model);
    let devices = ops.iter().filter_map(|op| match op {
        Op::AddHop { hop, .. } => Some(hop.device),
        _ => None,
    });
    assert_eq!(devices.collect::<Vec<_>>(), [0, 1]);
    assert_eq!(model.routes.len(), 2);
    // The model does not tell devices apart: all was found by the first. A hop, a route, and the
    // old ones of both.
    let mut plan = with(&[(3, 1)]);
    assert_eq!(move_in(&mut plan, &mut model), 4);
}
