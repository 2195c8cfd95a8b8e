//! Routes whose device is not there.

use super::*;

/// VNI 1 by the first device, VNI 3 by the second, which is held back.
fn held() -> Plan {
    let mut plan = Plan::new(PlanConfig {
        vni_devices: BTreeMap::from([(Vni(3), 1)]),
        ..plan_in(Mode::Objects).config
    });
    plan.hold(BTreeSet::from([1]));
    for n in 0..5 {
        plan.add(Vni(1), &route(&format!("10.0.{n}.0/24"), 1));
        plan.add(Vni(3), &route(&format!("10.0.{n}.0/24"), 1));
    }
    plan
}

#[test]
fn routes_of_a_device_that_is_not_there_wait_and_are_not_tried() {
    let (mut plan, mut model) = (held(), Model::default());
    run(&mut plan, &mut model);
    let counts = plan.counts();
    assert_eq!((counts.desired, counts.installed), (10, 5));
    assert_eq!((counts.waiting, counts.failed), (5, 0));
    assert_eq!(model.objects.len(), 1, "nor are their objects");
    plan.remove(Vni(3), &route("10.0.4.0/24", 1));
    assert_eq!(run(&mut plan, &mut model), []);
    assert_eq!(plan.counts().waiting, 4);

    plan.hold(BTreeSet::new());
    model.dump(&mut plan);
    run(&mut plan, &mut model);
    assert_eq!((plan.counts().installed, plan.counts().waiting), (9, 0));
}

/// The device went after the batch was put together.
#[test]
fn refused_routes_of_a_device_that_turns_out_to_be_gone_wait_with_the_others() {
    let (mut plan, mut model) = (held(), Model::default());
    plan.hold(BTreeSet::new());
    let mut ops = Vec::new();
    plan.batch(16, &mut ops);
    let of_second = |op: &Op| match op {
        Op::AddHop { hop, .. } => hop.device == 1,
        Op::Route { place, .. } => place.table == 300,
        _ => false,
    };
    let refuse = |op: &Op| of_second(op).then_some(errno::ENODEV);
    let failures = execute(&mut model, &ops, refuse);
    assert!(plan.completed(&ops, &failures).device);
    assert!(plan.counts().failed > 0);
    plan.hold(BTreeSet::from([1]));
    let counts = plan.counts();
    assert_eq!((counts.failed, counts.waiting), (0, 5));
    plan.retry_all();
    run(&mut plan, &mut model);
    assert_eq!((plan.counts().failed, model.routes.len()), (0, 5));
}
