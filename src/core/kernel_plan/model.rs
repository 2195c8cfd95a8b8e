//! A kernel for tests: it does what Linux does with nexthop objects, groups and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::IpNet;

use super::{Op, Plan, Target, Verb, errno};

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
    pub(crate) routes: BTreeMap<(u32, IpNet), Installed>,
}

impl Model {
    /// Does an operation, or says why not.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::AddHop { id, address, .. } => {
                self.free(*id)?;
                self.objects.insert(*id, Nexthop::Hop(*address));
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
                table,
                prefix,
                target,
                ..
            } => self.route(*verb, (*table, *prefix), target)?,
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
        self.routes.retain(
            |_, route| !matches!(route, Installed::Ours(Target::Object(id)) if gone.contains(id)),
        );
        Ok(())
    }

    fn route(&mut self, verb: Verb, key: (u32, IpNet), target: &Target) -> Result<(), i32> {
        assert_eq!(key.1, key.1.trunc(), "the kernel refuses host bits");
        if verb == Verb::Delete {
            let matches = match self.routes.get(&key) {
                Some(Installed::Ours(there)) => *target == Target::Other || there == target,
                Some(Installed::Foreign) | None => false,
            };
            return if matches {
                self.routes.remove(&key);
                Ok(())
            } else {
                Err(errno::ESRCH)
            };
        }
        match target {
            Target::Object(id) if !self.objects.contains_key(id) => return Err(EINVAL),
            Target::Inline(hops) => {
                assert!(!hops.is_empty());
                assert!(
                    matches!(key.1, IpNet::V4(_)) || hops.len() == 1,
                    "IPv6 refuses multipath"
                );
            }
            Target::Object(_) => {}
            Target::Other => panic!("a route leads somewhere"),
        }
        if verb == Verb::Add && self.routes.contains_key(&key) {
            return Err(errno::EEXIST);
        }
        self.routes.insert(key, Installed::Ours(target.clone()));
        Ok(())
    }

    /// Everything down, as when the device goes.
    pub(crate) fn lose_device(&mut self) {
        self.objects.retain(|_, object| *object == Nexthop::Foreign);
        self.routes.retain(|_, route| *route == Installed::Foreign);
    }

    /// Where each of our routes leads.
    pub(crate) fn resolved(&self) -> BTreeMap<(u32, IpNet), BTreeSet<Ipv6Addr>> {
        let resolve = |target: &Target| match target {
            Target::Object(id) => self.hops(*id),
            Target::Inline(hops) => hops.iter().copied().collect(),
            Target::Other => BTreeSet::new(),
        };
        self.routes
            .iter()
            .filter_map(|(key, route)| match route {
                Installed::Ours(target) => Some((*key, resolve(target))),
                Installed::Foreign => None,
            })
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
        let tables: BTreeSet<u32> = plan.tables().collect();
        for (&(table, prefix), route) in &self.routes {
            if let Installed::Ours(target) = route
                && tables.contains(&table)
            {
                plan.saw_route(table, prefix, target);
            }
        }
        plan.end_resync();
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
            table: 100,
            prefix: "10.0.0.0/24".parse().unwrap(),
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
    fn a_group_has_distinct_hops_and_a_free_number() {
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
    fn a_route_is_deleted_by_where_it_leads() {
        let mut model = with_two_hops();
        let to = Target::Object;
        assert_eq!(model.apply(&route(Verb::Delete, to(1))), Err(errno::ESRCH));
        assert_eq!(model.apply(&route(Verb::Add, to(9))), Err(EINVAL));
        for target in [to(1), Target::Other] {
            assert_eq!(model.apply(&route(Verb::Add, to(1))), Ok(()));
            assert_eq!(model.apply(&route(Verb::Add, to(2))), Err(errno::EEXIST));
            assert_eq!(model.apply(&route(Verb::Delete, to(2))), Err(errno::ESRCH));
            assert_eq!(model.apply(&route(Verb::Delete, target)), Ok(()));
        }
        assert_eq!(model.apply(&route(Verb::Replace, to(1))), Ok(()));
        assert_eq!(model.apply(&Op::DeleteObject { id: 1 }), Ok(()));
        assert_eq!(model.routes.len(), 0, "it went with its object");
    }

    #[test]
    fn a_device_takes_with_it_what_is_ours() {
        let mut model = with_two_hops();
        model.apply(&route(Verb::Add, Target::Object(1))).unwrap();
        let foreign = (100, "10.9.0.0/16".parse().unwrap());
        model.routes.insert(foreign, Installed::Foreign);
        model.lose_device();
        assert_eq!(model.objects.keys().collect::<Vec<_>>(), [&3]);
        assert_eq!(model.routes.keys().collect::<Vec<_>>(), [&foreign]);
    }
}
