//! Whatever happens, in any order.

use super::*;

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
            let installable =
                routes
                    .iter()
                    .filter_map(|(vni, route)| match route.next_hop.target_address {
                        std::net::IpAddr::V6(address) => Some((vni, address)),
                        std::net::IpAddr::V4(_) => None,
                    });
            let lowest = installable.clone().map(|(vni, _)| vni).min();
            let mut hops: BTreeSet<Ipv6Addr> = installable
                .filter(|(vni, _)| Some(*vni) == lowest)
                .map(|(_, address)| address)
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
                match model.take(key) {
                    Some(Installed::Ours(target)) => Seen::Gone(target),
                    _ => Seen::Left,
                }
            } else if random.chance(50) {
                model.put(key, Installed::Foreign);
                Seen::Replaced
            } else {
                let first = usize::from(key.prefix.addr().is_ipv6());
                let routes = model.routes.get_mut(&key).unwrap();
                routes.insert(first.min(routes.len()), Installed::Foreign);
                Seen::First
            };
            let mut unclear = lost;
            if !lost {
                unclear = plan.route_changed(key, &seen) == Change::Unclear;
                plan.repair();
            }
            unclear
        }
        2 if !ids.is_empty() => {
            let id = ids[usize::try_from(random.below(ids.len() as u64)).unwrap()];
            model.delete_object(id).unwrap();
            let change = plan.object_changed(id, false);
            plan.repair();
            change == Change::Unclear
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
    let was_idle = plan.is_idle();
    let mut ops = Vec::new();
    if random.chance(30) {
        plan.settle(&mut ops);
    } else {
        plan.batch(1 + usize::try_from(random.below(20)).unwrap(), &mut ops);
    }
    assert!(!was_idle || ops.is_empty(), "{ops:?}");
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
        let mut mode = if random.chance(75) {
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
                    // The process is killed and started again, perhaps with other options.
                    if random.chance(30) {
                        mode = match mode {
                            Mode::Objects => Mode::Inline,
                            Mode::Inline => Mode::Objects,
                        };
                    }
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
        let ours = |object: &&Nexthop| **object != Nexthop::Foreign;
        let objects = model.objects.values().filter(ours).count();
        assert_eq!(plan.counts().objects, objects, "seed {seed}");
        // Nothing is left in the kernel or in memory after the end.
        plan.clear();
        settle_down(&mut plan, &mut model, false);
        assert_eq!(model.resolved().len(), 0, "seed {seed}");
        let foreign = |object: &Nexthop| *object == Nexthop::Foreign;
        assert!(
            model.objects.values().all(foreign),
            "seed {seed}: {model:?}"
        );
        assert_eq!(plan.store.len(), 0, "seed {seed}");
        assert_eq!(plan.catalog.sizes(), [0; 4], "seed {seed}");
    }
}

/// Nobody meddles and nothing fails any more, and others' routes are out of the way.
fn settle_down(plan: &mut Plan, model: &mut Model, look: bool) {
    for (place, count) in foreign_routes(model) {
        for _ in 0..count {
            plan.route_changed(place, &Seen::Left);
        }
    }
    model.keep(|route| *route != Installed::Foreign);
    plan.repair();
    for vni in 1..=3 {
        plan.synced(Vni(vni));
    }
    if look {
        model.dump(plan);
    }
    plan.retry_all();
    for _ in 0..2000 {
        let mut ops = Vec::new();
        plan.settle(&mut ops);
        if ops.is_empty() {
            plan.batch(20, &mut ops);
        }
        let failures = execute(model, &ops, |_| None);
        let outcome = plan.completed(&ops, &failures);
        assert!(!outcome.resync, "{failures:?} {ops:?}");
        if outcome.doubt {
            model.dump(plan);
        }
        if ops.is_empty() && plan.is_idle() {
            assert_eq!(plan.counts().failed, 0);
            return;
        }
    }
    panic!("it does not come to rest");
}

fn foreign_routes(model: &Model) -> Vec<(Place, usize)> {
    let is_foreign = |route: &&Installed| **route == Installed::Foreign;
    let counted = model
        .routes
        .iter()
        .map(|(place, routes)| (*place, routes.iter().filter(is_foreign).count()));
    counted.collect()
}
