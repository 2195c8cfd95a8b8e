//! Two plans side by side on one kernel, restarts with other options, and others who meddle:
//! no route of somebody else is ever touched, and in the end all is as it is wanted.

use std::ops::Range;

use super::*;

/// Who holds a route: this many plans, and somebody else.
const SIDES: usize = 2;

const RANGES: [Range<u32>; SIDES] = [1000..1400, 2000..2400];

/// One plan, what it wants, and the options that a restart changes.
struct Side {
    plan: Plan,
    tables: BTreeMap<Vni, u32>,
    metric: u32,
    wanted: BTreeSet<(Vni, IpNet, u16)>,
}

impl Side {
    fn new(number: usize, random: &mut Random) -> Self {
        let mut side = Self {
            plan: plan_in(Mode::Objects),
            tables: BTreeMap::new(),
            metric: 0,
            wanted: BTreeSet::new(),
        };
        side.restart(number, random);
        side
    }

    /// Begins again with other tables and another metric.
    fn restart(&mut self, number: usize, random: &mut Random) {
        self.tables = (1..=3)
            .filter_map(|vni| {
                let table = 100 + u32::try_from(random.below(3)).unwrap();
                random.chance(80).then_some((Vni(vni), table))
            })
            .collect();
        // Both may want the same place: then one of them is shadowed.
        self.metric = 10 + u32::try_from(random.below(3)).unwrap();
        self.plan = Plan::new(PlanConfig {
            vni_tables: self.tables.clone(),
            metrics: [self.metric; 2],
            nexthop_ids: RANGES[number].clone(),
            ..plan_in(Mode::Objects).config
        });
        for (vni, prefix, hop) in self.wanted.clone() {
            self.plan.add(vni, &route(&prefix.to_string(), hop));
        }
    }

    fn change(&mut self, random: &mut Random) {
        let vni = Vni(1 + u32::try_from(random.below(3)).unwrap());
        let n = random.below(8);
        let prefix: IpNet = match random.below(2) {
            0 => format!("10.0.{n}.0/24").parse().unwrap(),
            _ => format!("fd00:0:0:{n}::/64").parse().unwrap(),
        };
        let hop = 1 + u16::try_from(random.below(5)).unwrap();
        if random.chance(60) {
            self.wanted.insert((vni, prefix, hop));
            self.plan.add(vni, &route(&prefix.to_string(), hop));
        } else {
            self.wanted.remove(&(vni, prefix, hop));
            self.plan.remove(vni, &route(&prefix.to_string(), hop));
        }
    }

    /// Where what is wanted leads: of several VNIs the lowest has a destination.
    fn places(&self) -> BTreeMap<Place, BTreeSet<Ipv6Addr>> {
        let mut places: BTreeMap<Place, (Vni, BTreeSet<Ipv6Addr>)> = BTreeMap::new();
        // In the order of VNIs: the first one has it.
        for &(vni, prefix, hop) in &self.wanted {
            let Some(&table) = self.tables.get(&vni) else {
                continue;
            };
            let place = Place {
                table,
                prefix,
                metric: self.metric,
            };
            let (owner, hops) = places.entry(place).or_insert((vni, BTreeSet::new()));
            if *owner == vni {
                hops.insert(underlay(hop));
            }
        }
        places
            .into_iter()
            .map(|(place, (_, hops))| (place, hops))
            .collect()
    }

    /// Reads the kernel as this side sees it: objects outside its range are not its own.
    fn read(&mut self, number: usize, model: &Model) {
        self.plan.begin_resync();
        let is_ours = |id: &u32| RANGES[number].contains(id);
        for (id, object) in &model.objects {
            match object {
                Nexthop::Hop(address) if is_ours(id) => self.plan.saw_hop(*id, *address),
                Nexthop::Group(_) => {}
                _ => self.plan.saw_foreign_object(*id),
            }
        }
        for (id, object) in &model.objects {
            if let Nexthop::Group(members) = object {
                self.plan.saw_group(*id, members);
            }
        }
        for (&place, routes) in &model.routes {
            for installed in routes {
                match installed {
                    Installed::Ours(target) => self.plan.saw_route(place, PROTOCOL, target),
                    Installed::Foreign => self.plan.saw_foreign_route(place),
                }
            }
        }
        self.plan.end_resync();
    }

    /// Writes a batch; reads the kernel when the answers leave doubt.
    fn work(&mut self, number: usize, model: &mut Model) -> bool {
        let mut ops = Vec::new();
        self.plan.settle(&mut ops);
        if ops.is_empty() {
            self.plan.batch(16, &mut ops);
        }
        let foreign = foreign(model);
        let failures = execute(model, &ops, |_| None);
        assert_eq!(
            self::foreign(model),
            foreign,
            "others are left alone: {ops:?}"
        );
        let outcome = self.plan.completed(&ops, &failures);
        if outcome.resync || outcome.doubt {
            self.read(number, model);
        }
        !ops.is_empty() || outcome.doubt
    }
}

/// The routes of somebody else, by place.
fn foreign(model: &Model) -> BTreeMap<Place, usize> {
    let mut counts = BTreeMap::new();
    for (place, routes) in &model.routes {
        let count = routes.iter().filter(|it| **it == Installed::Foreign);
        let count = count.count();
        if count > 0 {
            counts.insert(*place, count);
        }
    }
    counts
}

/// Puts, replaces or deletes a route; both sides are told, or neither.
fn meddle(random: &mut Random, sides: &mut [Side; SIDES], model: &mut Model) -> bool {
    let place = Place {
        table: 100 + u32::try_from(random.below(3)).unwrap(),
        prefix: format!("10.0.{}.0/24", random.below(8)).parse().unwrap(),
        metric: 10 + u32::try_from(random.below(3)).unwrap(),
    };
    let seen = match random.below(4) {
        0 if !model.routes.contains_key(&place) => {
            model.put(place, Installed::Foreign);
            Seen::First
        }
        1 if model.routes.contains_key(&place) => {
            model.put(place, Installed::Foreign);
            Seen::Replaced
        }
        2 if model.routes.contains_key(&place) => match model.take(place) {
            Some(Installed::Ours(target)) => Seen::Gone(target),
            _ => Seen::Left,
        },
        3 if random.chance(5) => {
            model.lose_device();
            return true;
        }
        _ => return false,
    };
    if random.chance(20) {
        return true;
    }
    let mut is_unclear = false;
    for side in sides {
        is_unclear |= side.plan.route_changed(place, &seen) == Change::Unclear;
        side.plan.repair();
    }
    is_unclear
}

fn settle(sides: &mut [Side; SIDES], model: &mut Model) {
    model.keep(|route| *route != Installed::Foreign);
    for _ in 0..3 {
        for (number, side) in sides.iter_mut().enumerate() {
            for vni in 1..=3 {
                side.plan.synced(Vni(vni));
            }
            side.read(number, model);
            side.plan.retry_all();
            let mut rounds = 0;
            while side.work(number, model) || !side.plan.is_idle() {
                rounds += 1;
                assert!(rounds < 2000, "it does not come to rest");
            }
        }
    }
}

fn chaos(steps: usize, seeds: Range<u64>) {
    for seed in seeds {
        let mut random = Random(seed);
        let mut model = Model::default();
        let mut sides = [0, 1].map(|number| Side::new(number, &mut random));
        for _ in 0..steps {
            let number = usize::try_from(random.below(2)).unwrap();
            match random.below(20) {
                0..8 => sides[number].change(&mut random),
                8..16 => {
                    sides[number].work(number, &mut model);
                }
                16..19 => {
                    if meddle(&mut random, &mut sides, &mut model) {
                        for (number, side) in sides.iter_mut().enumerate() {
                            side.read(number, &model);
                        }
                    }
                }
                _ if random.chance(20) => {
                    sides[number].restart(number, &mut random);
                    sides[number].read(number, &model);
                }
                _ => sides[number].plan.retry(8),
            }
            sides[number].plan.assert_counts();
        }
        settle(&mut sides, &mut model);
        let wanted = [sides[0].places(), sides[1].places()];
        let mut both = wanted[0].clone();
        for (place, hops) in &wanted[1] {
            both.entry(*place).or_insert_with(|| hops.clone());
        }
        let resolved = model.places();
        let places: Vec<_> = resolved.keys().copied().collect();
        assert_eq!(
            places,
            both.keys().copied().collect::<Vec<_>>(),
            "seed {seed}"
        );
        for (place, hops) in &resolved {
            let of = wanted.iter().filter_map(|it| it.get(place));
            assert!(of.into_iter().any(|it| it == hops), "seed {seed} {place:?}");
        }
    }
}

#[test]
fn two_plans_and_a_meddler_leave_each_other_alone() {
    chaos(1000, 0..40);
}

#[test]
fn two_plans_and_a_meddler_leave_each_other_alone_for_long() {
    chaos(20_000, 100..120);
}
