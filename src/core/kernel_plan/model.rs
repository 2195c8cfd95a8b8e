//! A kernel for tests: it does what Linux does with nexthop objects, groups and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::IpNet;

use super::{Op, Place, Plan, Stray, Target, Verb, errno};

/// `EINVAL`, for what refers to an object that does not exist.
pub(crate) const EINVAL: i32 = 22;

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nexthop {
    Hop(Ipv6Addr),
    Group(Vec<u32>),
    /// Of another program.
    Foreign,
}

/// A route: ours, or of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    Ours(Target),
    Foreign,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<u32, Nexthop>,
    /// The routes of each place, in the order in which lookups find them.
    pub(crate) routes: BTreeMap<Place, Vec<Installed>>,
}

/// What plans and models use where a test says nothing else.
pub(crate) const METRICS: [u32; 2] = [0, 1024];
/// The protocol of our routes.
pub(crate) const PROTOCOL: u8 = 254;

#[cfg(test)]
/// The place of a destination at the default metric.
pub(crate) fn place(table: u32, prefix: IpNet) -> Place {
    let metric = METRICS[usize::from(matches!(prefix, IpNet::V6(_)))];
    Place {
        table,
        prefix,
        metric,
    }
}

impl Model {
    /// Does an operation, or says why not.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::AddHop { id, hop, .. } => {
                self.free(*id)?;
                self.objects.insert(*id, Nexthop::Hop(hop.address));
            }
            Op::AddGroup { id, members, .. } => {
                self.free(*id)?;
                self.members(members)?;
                self.objects.insert(*id, Nexthop::Group(members.clone()));
            }
            Op::ReplaceGroup { id, members } => {
                self.members(members)?;
                match self.objects.get_mut(id) {
                    Some(group @ Nexthop::Group(_)) => *group = Nexthop::Group(members.clone()),
                    Some(_) => return Err(EINVAL),
                    None => return Err(errno::ENOENT),
                }
            }
            Op::DeleteObject { id } => self.delete_object(*id)?,
            Op::Route {
                verb,
                place,
                target,
                ..
            } => self.route(*verb, *place, target)?,
            Op::Sweep(Stray { place, target, .. }) => self.route(Verb::Delete, *place, target)?,
        }
        Ok(())
    }

    fn free(&self, id: u32) -> Result<(), i32> {
        if self.objects.contains_key(&id) {
            return Err(errno::EEXIST);
        }
        Ok(())
    }

    fn members(&self, members: &[u32]) -> Result<(), i32> {
        let known = |id| matches!(self.objects.get(id), Some(Nexthop::Hop(_)));
        let distinct: BTreeSet<_> = members.iter().collect();
        if members.is_empty() || distinct.len() < members.len() || !members.iter().all(known) {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Deletes an object, and with it what depends on it.
    pub(crate) fn delete_object(&mut self, id: u32) -> Result<(), i32> {
        self.objects.remove(&id).ok_or(errno::ENOENT)?;
        let mut gone = vec![id];
        self.objects.retain(|&group, object| {
            let Nexthop::Group(members) = object else {
                return true;
            };
            members.retain(|&member| member != id);
            if members.is_empty() {
                gone.push(group);
            }
            !members.is_empty()
        });
        self.keep(
            |route| !matches!(route, Installed::Ours(Target::Object(id)) if gone.contains(id)),
        );
        Ok(())
    }

    pub(crate) fn keep(&mut self, mut stays: impl FnMut(&Installed) -> bool) {
        self.routes.retain(|_, routes| {
            routes.retain(&mut stays);
            !routes.is_empty()
        });
    }

    #[cfg(test)]
    /// Somebody puts a route in place of the first one there.
    pub(crate) fn put(&mut self, place: Place, route: Installed) {
        let routes = self.routes.entry(place).or_default();
        match routes.first_mut() {
            Some(first) => *first = route,
            None => routes.push(route),
        }
    }

    /// Somebody deletes the first route in a place. Returns it.
    pub(crate) fn take(&mut self, place: Place) -> Option<Installed> {
        let routes = self.routes.get_mut(&place)?;
        let route = routes.remove(0);
        if routes.is_empty() {
            self.routes.remove(&place);
        }
        Some(route)
    }

    #[cfg(test)]
    /// Does the same as [`Self::take`], where there may be none.
    pub(crate) fn take_if_any(&mut self, place: Place) -> Option<Installed> {
        self.routes.contains_key(&place).then(|| self.take(place))?
    }

    #[cfg(test)]
    /// The route that a lookup finds in a place.
    pub(crate) fn first(&self, place: Place) -> Option<&Installed> {
        self.routes.get(&place)?.first()
    }

    fn route(&mut self, verb: Verb, place: Place, target: &Target) -> Result<(), i32> {
        let prefix = place.prefix;
        assert_eq!(prefix, prefix.trunc(), "the kernel refuses host bits");
        let ours = Installed::Ours(target.clone());
        if verb == Verb::Delete {
            let routes = self.routes.get_mut(&place).ok_or(errno::ESRCH)?;
            let at = routes.iter().position(|it| *it == ours);
            routes.remove(at.ok_or(errno::ESRCH)?);
            if routes.is_empty() {
                self.routes.remove(&place);
            }
            return Ok(());
        }
        match target {
            Target::Object(id) if !self.objects.contains_key(id) => return Err(EINVAL),
            Target::Inline(hops) => {
                assert!(!hops.is_empty());
                assert!(
                    matches!(prefix, IpNet::V4(_)) || hops.len() == 1,
                    "IPv6 refuses multipath"
                );
            }
            Target::Object(_) => {}
            Target::Via(_) => panic!("a route is written by our device"),
        }
        let routes = self.routes.entry(place).or_default();
        let is_refused = match verb {
            Verb::Add => !routes.is_empty(),
            Verb::Beside | Verb::Delete => routes.contains(&ours),
        };
        if is_refused {
            return Err(errno::EEXIST);
        }
        match (prefix, target) {
            (IpNet::V4(_), Target::Object(_)) => routes.insert(0, ours),
            _ => routes.push(ours),
        }
        Ok(())
    }

    /// Everything down, as when the device goes.
    pub(crate) fn lose_device(&mut self) {
        self.objects.retain(|_, object| *object == Nexthop::Foreign);
        self.keep(|route| *route == Installed::Foreign);
    }

    /// Where each of our routes leads.
    pub(crate) fn resolved(&self) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
        let resolve = |target: &Target| match target {
            Target::Object(id) => self.hops(*id),
            Target::Inline(hops) => hops.iter().copied().collect(),
            Target::Via(hops) => hops.iter().map(|it| it.address).collect(),
        };
        let ours = self.routes.iter().filter_map(|(place, routes)| {
            let first = routes.iter().find_map(|route| match route {
                Installed::Ours(target) => Some(target),
                Installed::Foreign => None,
            });
            Some(((place.table, place.prefix), resolve(first?)))
        });
        ours.collect()
    }

    /// Where the first route of ours in each place leads.
    #[cfg(test)]
    pub(crate) fn places(&self) -> BTreeMap<Place, BTreeSet<Ipv6Addr>> {
        let first = |routes: &[Installed]| {
            routes.iter().find_map(|route| match route {
                Installed::Ours(Target::Object(id)) => Some(self.hops(*id)),
                _ => None,
            })
        };
        let places = self.routes.iter();
        places
            .filter_map(|(place, routes)| Some((*place, first(routes)?)))
            .collect()
    }

    fn hops(&self, id: u32) -> BTreeSet<Ipv6Addr> {
        match &self.objects[&id] {
            Nexthop::Hop(address) => BTreeSet::from([*address]),
            Nexthop::Group(members) => members.iter().flat_map(|&id| self.hops(id)).collect(),
            Nexthop::Foreign => panic!("our route uses somebody else's object"),
        }
    }

    /// Tells a plan what is there.
    pub(crate) fn dump(&self, plan: &mut Plan) {
        plan.begin_resync();
        self.dump_objects(plan);
        for (&place, routes) in &self.routes {
            Self::dump_routes(plan, place, routes);
        }
        plan.end_resync();
    }

    fn dump_objects(&self, plan: &mut Plan) {
        for (&id, object) in &self.objects {
            match object {
                Nexthop::Hop(address) => plan.saw_hop(id, *address),
                Nexthop::Foreign => plan.saw_foreign_object(id),
                Nexthop::Group(_) => {}
            }
        }
        for (&id, object) in &self.objects {
            if let Nexthop::Group(members) = object {
                plan.saw_group(id, members);
            }
        }
    }

    fn dump_routes(plan: &mut Plan, place: Place, routes: &[Installed]) {
        for route in routes {
            match route {
                Installed::Ours(target) => plan.saw_route(place, PROTOCOL, target),
                Installed::Foreign => plan.saw_foreign_route(place),
            }
        }
    }
}

/// A reading in pieces, of a kernel that may change between them.
#[cfg(test)]
pub(crate) struct Walk {
    has_objects: bool,
    after: Option<Place>,
}

#[cfg(test)]
impl Walk {
    /// Begins to read.
    pub(crate) fn begin(plan: &mut Plan) -> Self {
        plan.begin_review();
        Self {
            has_objects: false,
            after: None,
        }
    }

    /// Reads the routes from the first one.
    pub(crate) fn again(&mut self, plan: &mut Plan) {
        plan.begin_routes();
        self.after = None;
    }

    /// Reads all objects, or a few routes. Returns whether there was anything to read.
    pub(crate) fn step(&mut self, plan: &mut Plan, model: &Model) -> bool {
        if !std::mem::replace(&mut self.has_objects, true) {
            model.dump_objects(plan);
            plan.review_objects();
            plan.lose_objects();
            return true;
        }
        let rest = model
            .routes
            .iter()
            .filter(|(it, _)| Some(**it) > self.after);
        let some: Vec<_> = rest.take(5).collect();
        for (place, routes) in &some {
            Model::dump_routes(plan, **place, routes);
        }
        self.after = some.last().map_or(self.after, |(place, _)| Some(**place));
        !some.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv6Addr = Ipv6Addr::LOCALHOST;

    fn group(id: u32, members: &[u32]) -> Op {
        Op::AddGroup {
            object: 0,
            id,
            members: members.to_vec(),
        }
    }

    fn route(verb: Verb, target: Target) -> Op {
        Op::Route {
            route: super::super::RouteId::default(),
            verb,
            place: place(100, "10.0.0.0/24".parse().unwrap()),
            target,
            previous: 0,
        }
    }

    fn with_two_hops() -> Model {
        let mut model = Model::default();
        model.objects.insert(1, Nexthop::Hop(ADDRESS));
        model.objects.insert(2, Nexthop::Hop(ADDRESS));
        model.objects.insert(3, Nexthop::Foreign);
        model
    }

    #[test]
    fn group_has_distinct_hops_and_a_free_number() {
        let mut model = with_two_hops();
        for members in [&[][..], &[1, 1], &[1, 9], &[3]] {
            assert_eq!(model.apply(&group(4, members)), Err(EINVAL), "{members:?}");
        }
        assert_eq!(model.apply(&group(3, &[1])), Err(errno::EEXIST));
        assert_eq!(model.apply(&group(4, &[1, 2])), Ok(()));
        assert_eq!(model.apply(&group(5, &[4])), Err(EINVAL), "of groups");
        let replace = |id, members: &[u32]| Op::ReplaceGroup {
            id,
            members: members.to_vec(),
        };
        assert_eq!(model.apply(&replace(4, &[2])), Ok(()));
        assert_eq!(model.apply(&replace(4, &[])), Err(EINVAL));
        assert_eq!(model.apply(&replace(1, &[2])), Err(EINVAL));
        assert_eq!(model.apply(&replace(9, &[2])), Err(errno::ENOENT));
        assert_eq!(model.objects[&4], Nexthop::Group(vec![2]));
    }

    #[test]
    fn route_is_deleted_by_where_it_leads() {
        let mut model = with_two_hops();
        let to = Target::Object;
        assert_eq!(model.apply(&route(Verb::Delete, to(1))), Err(errno::ESRCH));
        assert_eq!(model.apply(&route(Verb::Add, to(9))), Err(EINVAL));
        assert_eq!(model.apply(&route(Verb::Add, to(1))), Ok(()));
        assert_eq!(model.apply(&route(Verb::Add, to(2))), Err(errno::EEXIST));
        assert_eq!(model.apply(&route(Verb::Delete, to(2))), Err(errno::ESRCH));
        assert_eq!(model.apply(&route(Verb::Delete, to(1))), Ok(()));
        assert_eq!(model.apply(&route(Verb::Add, to(1))), Ok(()));
        assert_eq!(model.apply(&Op::DeleteObject { id: 1 }), Ok(()));
        assert_eq!(model.routes.len(), 0, "it went with its object");
    }

    #[test]
    fn route_goes_before_others_of_its_place_and_is_there_once() {
        let mut model = with_two_hops();
        let to = Target::Object;
        model.apply(&route(Verb::Add, to(1))).unwrap();
        model.apply(&route(Verb::Beside, to(2))).unwrap();
        let twice = model.apply(&route(Verb::Beside, to(2)));
        assert_eq!(twice, Err(errno::EEXIST));
        let place = place(100, "10.0.0.0/24".parse().unwrap());
        assert_eq!(model.first(place), Some(&Installed::Ours(to(2))));
        model.put(place, Installed::Foreign);
        assert_eq!(model.routes[&place].len(), 2, "one of two is replaced");
        assert_eq!(model.take(place), Some(Installed::Foreign));
        assert_eq!(model.first(place), Some(&Installed::Ours(to(1))));
    }

    #[test]
    fn device_takes_with_it_what_is_ours() {
        let mut model = with_two_hops();
        model.apply(&route(Verb::Add, Target::Object(1))).unwrap();
        let foreign = place(100, "10.9.0.0/16".parse().unwrap());
        model.put(foreign, Installed::Foreign);
        model.lose_device();
        assert_eq!(model.objects.keys().collect::<Vec<_>>(), [&3]);
        assert_eq!(model.routes.keys().collect::<Vec<_>>(), [&foreign]);
    }
}
