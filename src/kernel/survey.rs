//! What stands in the kernel, seen and removed without a running client.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::ops::Range;

use ipnet::IpNet;

use super::claim::{Claimed, claim, living};
use super::device::{query_link, tunnels};
use super::message::{self, AF_INET, AF_INET6, Mark, encode_op, kind};
use super::parse::{self, Message, ObjectKind, RouteSeen};
use super::socket::{KernelSocket, Netlink};
use crate::core::kernel_plan::{Op, Place, Stray, Target, errno};
use crate::error::{Error, Result};

/// Messages in one `sendmsg`; the receive buffer has room for all their answers.
const BATCH: usize = 128;

/// A route of a writer, or one of somebody else on a prefix of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelRoute {
    /// Its kernel table.
    pub table: u32,
    /// Its destination.
    pub prefix: IpNet,
    /// Its metric, as the kernel shows it; packets take the lowest.
    pub metric: u32,
    /// Whose it is.
    pub standing: Standing,
    /// The protocol that it carries.
    pub protocol: u8,
    /// The underlay addresses that it leads to; none for a route of somebody else.
    pub next_hops: Vec<Ipv6Addr>,
}

/// Whose a route is, and whether packets take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A writer's.
    Ours,
    /// A writer's, behind a route of somebody else that packets take.
    Shadowed,
    /// Somebody else's, on a prefix of a writer.
    Foreign,
}

/// What [`flush`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// How many routes.
    pub routes: usize,
    /// How many nexthop objects and groups.
    pub nexthop_objects: usize,
}

/// Returns the routes that a writer with this protocol and these nexthop numbers has in the
/// kernel, and those of others on the same prefixes, by table, prefix and metric.
///
/// # Errors
///
/// [`Error::Io`] when the kernel cannot be read.
pub fn survey(protocol: u8, nexthop_ids: Range<u32>) -> Result<Vec<KernelRoute>> {
    let mut survey = Survey::open(protocol, nexthop_ids)?;
    survey.read()?;
    let found = std::mem::take(&mut survey.routes);
    let ours = found.iter().filter(|it| it.target.is_some());
    let prefixes: BTreeSet<(u32, IpNet)> = ours.map(|it| it.key()).collect();
    let mut routes = Vec::new();
    for route in found.iter().filter(|it| prefixes.contains(&it.key())) {
        let metric = route.place.metric;
        let standing = match &route.target {
            Some(_) => Standing::Ours,
            None => Standing::Foreign,
        };
        let target = route.target.as_ref();
        routes.push(KernelRoute {
            table: route.place.table,
            prefix: route.place.prefix,
            metric,
            standing,
            protocol: route.protocol,
            next_hops: target.map_or_else(Vec::new, |it| survey.addresses(it)),
        });
    }
    // Stable: of one place, the kernel's order stays, in which packets take the first.
    routes.sort_by_key(|it| (it.table, it.prefix, it.metric));
    let mut previous: Option<(u32, IpNet)> = None;
    let mut is_behind = false;
    for route in &mut routes {
        let key = (route.table, route.prefix);
        if previous != Some(key) {
            (previous, is_behind) = (Some(key), false);
        }
        match route.standing {
            Standing::Foreign => is_behind = true,
            Standing::Ours if is_behind => route.standing = Standing::Shadowed,
            Standing::Ours | Standing::Shadowed => {}
        }
    }
    Ok(routes)
}

/// Removes the routes of a writer that does not run, in one table or in all, and the nexthop
/// objects that no route leads to after that.
///
/// # Errors
///
/// [`Error::Netlink`] while a writer runs that could take these for its own, and for what the
/// kernel refuses; [`Error::Io`] when the kernel cannot be read.
pub fn flush(protocol: u8, nexthop_ids: Range<u32>, table: Option<u32>) -> Result<Flushed> {
    let _claim = claim(&Claimed {
        protocol,
        ids: nexthop_ids.clone(),
        is_inline: false,
    })?;
    let mut survey = Survey::open(protocol, nexthop_ids)?;
    survey.read()?;
    let mut deletions = Vec::new();
    for route in std::mem::take(&mut survey.routes) {
        if let Some(target) = route.target
            && table.is_none_or(|it| it == route.place.table)
        {
            let stray = Stray::found(route.place, route.protocol, target);
            deletions.push(Op::Sweep(stray));
        }
    }
    survey.execute(&deletions)?;
    // What uses objects of ours now, routes of others among them.
    survey.read()?;
    let unused = survey.unused();
    survey.execute(&unused)?;
    Ok(Flushed {
        routes: deletions.len(),
        nexthop_objects: unused.len(),
    })
}

/// Returns the kernel table of the VRF device with a name; `None` for a device of another type
/// and if there is none.
///
/// # Errors
///
/// [`Error::Io`] when the kernel cannot be read.
pub fn vrf_table(name: &str) -> Result<Option<u32>> {
    let mut net = KernelSocket::open().map_err(Error::io("open a netlink socket"))?;
    let mut datagram = vec![0; 64 << 10];
    let link = query_link(&mut net, name, 1, &mut datagram);
    let link = link.map_err(Error::io("look for a VRF device"))?;
    Ok(link.and_then(|it| it.vrf_table))
}

/// A route as it was read.
struct Found {
    place: Place,
    protocol: u8,
    /// Where it leads, if it is ours.
    target: Option<Target>,
}

impl Found {
    const fn key(&self) -> (u32, IpNet) {
        (self.place.table, self.place.prefix)
    }
}

/// A reading of the kernel.
struct Survey {
    net: KernelSocket,
    sequence: u32,
    mark: Mark,
    ids: Range<u32>,
    /// Whether routes with our protocol that carry their hops are ours.
    owns_inline: bool,
    tunnels: BTreeSet<u32>,
    hops: BTreeMap<u32, Ipv6Addr>,
    groups: BTreeMap<u32, Vec<u32>>,
    routes: Vec<Found>,
    /// Objects that routes lead to, whoever has them.
    used: BTreeSet<u32>,
}

impl Survey {
    fn open(protocol: u8, ids: Range<u32>) -> Result<Self> {
        let net = KernelSocket::open().map_err(Error::io("open a netlink socket"))?;
        let others = living().into_iter();
        let mut others = others.filter(|it| it.protocol == protocol && it.ids != ids);
        Ok(Self {
            net,
            sequence: 0,
            mark: Mark {
                protocol,
                device: 0,
                more: [message::NO_DEVICE; message::MORE_DEVICES],
                source: Ipv6Addr::UNSPECIFIED,
            },
            owns_inline: others.next().is_none(),
            ids,
            tunnels: BTreeSet::new(),
            hops: BTreeMap::new(),
            groups: BTreeMap::new(),
            routes: Vec::new(),
            used: BTreeSet::new(),
        })
    }

    fn read(&mut self) -> Result<()> {
        self.read_all().map_err(Error::io("read kernel routes"))
    }

    fn read_all(&mut self) -> io::Result<()> {
        let mut links = Vec::new();
        self.dump(message::encode_link_dump, |_, message| {
            links.extend(parse::link(message.body));
        })?;
        self.tunnels = tunnels(&links);
        self.hops.clear();
        self.groups.clear();
        let mut groups = Vec::new();
        let dumped = self.dump(message::encode_nexthop_dump, |survey, message| {
            let object = parse::object(message.body);
            let object = object.filter(|it| it.protocol == survey.mark.protocol);
            match object.map(|it| (it.id, it.kind)) {
                Some((id, ObjectKind::Hop(hop)))
                    if survey.ids.contains(&id) && survey.tunnels.contains(&hop.device) =>
                {
                    survey.hops.insert(id, hop.address);
                }
                Some((id, ObjectKind::Group(members))) if survey.ids.contains(&id) => {
                    groups.push((id, members));
                }
                _ => {}
            }
        });
        match dumped {
            // A kernel without nexthop objects.
            Err(error) if error.raw_os_error() == Some(errno::EOPNOTSUPP) => {}
            dumped => dumped?,
        }
        let is_ours = |members: &[u32]| members.iter().all(|it| self.hops.contains_key(it));
        let groups = groups.into_iter().filter(|(_, members)| is_ours(members));
        self.groups = groups.collect();
        self.routes.clear();
        self.used.clear();
        for family in [AF_INET, AF_INET6] {
            let request = move |buffer: &mut Vec<u8>, sequence| {
                message::encode_route_dump(buffer, sequence, family, None);
            };
            self.dump(request, |survey, message| {
                if let Some(route) = parse::route(message.body).filter(|it| !it.special) {
                    survey.saw_route(&route);
                }
            })?;
        }
        Ok(())
    }

    fn saw_route(&mut self, route: &RouteSeen) {
        self.used.extend(route.object);
        self.routes.push(Found {
            place: Place {
                table: route.table,
                prefix: route.prefix.trunc(),
                metric: route.metric,
            },
            protocol: route.protocol,
            target: self.target_of(route),
        });
    }

    fn target_of(&self, route: &RouteSeen) -> Option<Target> {
        if route.protocol != self.mark.protocol || !route.unicast {
            return None;
        }
        if let Some(id) = route.object {
            let is_ours = self.hops.contains_key(&id) || self.groups.contains_key(&id);
            return is_ours.then_some(Target::Object(id));
        }
        let hops = route.hops.as_ref().filter(|it| !it.is_empty())?;
        let are_tunnels = hops.iter().all(|hop| self.tunnels.contains(&hop.device));
        (are_tunnels && self.owns_inline).then(|| Target::Via(hops.clone()))
    }

    fn addresses(&self, target: &Target) -> Vec<Ipv6Addr> {
        match target {
            Target::Object(id) => {
                let members = self.groups.get(id).cloned().unwrap_or_else(|| vec![*id]);
                let hops = members.iter().filter_map(|it| self.hops.get(it));
                hops.copied().collect()
            }
            Target::Inline(addresses) => addresses.clone(),
            Target::Via(hops) => hops.iter().map(|it| it.address).collect(),
        }
    }

    /// The deletions of the objects that no route uses: groups before their members.
    fn unused(&self) -> Vec<Op> {
        let mut used = self.used.clone();
        let mut unused = Vec::new();
        for (id, members) in &self.groups {
            if used.contains(id) {
                used.extend(members);
            } else {
                unused.push(*id);
            }
        }
        let hops = self.hops.keys().filter(|id| !used.contains(*id));
        unused.extend(hops);
        let deletion = |id| Op::DeleteObject { id };
        unused.into_iter().map(deletion).collect()
    }

    /// Sends a request and feeds the answers to `each`.
    fn dump(
        &mut self,
        encode: impl Fn(&mut Vec<u8>, u32),
        mut each: impl FnMut(&mut Self, &Message<'_>),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut request = Vec::new();
        encode(&mut request, self.sequence);
        self.net.send(&request)?;
        let mut datagram = vec![0; 64 << 10];
        loop {
            let len = self.net.receive(&mut datagram)?.min(datagram.len());
            for message in parse::messages(&datagram[..len]) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    kind::DONE | kind::ERROR => {
                        return match parse::answer(&message).map_or(0, |it| it.errno) {
                            0 | errno::ENOENT => Ok(()),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    kind::OVERRUN => return Err(io::Error::from_raw_os_error(errno::ENOBUFS)),
                    _ => each(self, &message),
                }
            }
        }
    }

    /// Sends deletions. What is gone already is no failure.
    fn execute(&mut self, ops: &[Op]) -> Result<()> {
        let doing = "write to the kernel";
        for ops in ops.chunks(BATCH) {
            let first = self.sequence + 1;
            let mut out = Vec::new();
            let mut last = 0;
            for op in ops {
                self.sequence += 1;
                last = out.len();
                encode_op(&mut out, op, self.sequence, &self.mark);
            }
            message::request_ack(&mut out[last..]);
            self.net.send(&out).map_err(Error::io(doing))?;
            self.collect(first).map_err(Error::io(doing))?;
        }
        Ok(())
    }

    /// Reads answers up to that of the last message.
    fn collect(&mut self, first: u32) -> io::Result<()> {
        let mut datagram = vec![0; 64 << 10];
        let mut refused = None;
        loop {
            let len = self.net.receive(&mut datagram)?.min(datagram.len());
            for message in parse::messages(&datagram[..len]) {
                if message.kind != kind::ERROR || message.sequence < first {
                    continue;
                }
                match parse::answer(&message).map_or(0, |it| it.errno) {
                    0 | errno::ENOENT | errno::ESRCH => {}
                    errno => refused = Some(io::Error::from_raw_os_error(errno)),
                }
                if message.sequence == self.sequence {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }
}
