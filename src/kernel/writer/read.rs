//! Readings of what the kernel holds: the device, nexthop objects, routes.

use std::io;
use std::net::Ipv6Addr;
use std::time::Instant;

use super::{DATAGRAM, DUMP_TRIES, RESYNC_RETRY, Relaxed, Writer, rare};
use crate::core::kernel_plan::{Mode, Place, Target, Tunnelled, errno};
use crate::kernel::claim::Claimed;
use crate::kernel::device::{Device, query_device, tunnels};
use crate::kernel::message::{self, AF_INET, AF_INET6, flag, kind};
use crate::kernel::parse::{self, Message, ObjectKind, RouteSeen};
use crate::kernel::socket::Netlink;

impl<N: Netlink> Writer<N> {
    /// Reads the device, the nexthop objects and the routes.
    pub(super) fn read_kernel(&mut self, now: Instant) -> io::Result<()> {
        self.find_device()?;
        self.shared.resyncs.fetch_add(1, Relaxed);
        let reads_all_tables = !self.known_everywhere || self.plan.counts().strays > 0;
        // What an earlier process left is not known before it is read.
        let was_known = std::mem::replace(&mut self.known, false);
        let mut consistent = false;
        for _ in 0..DUMP_TRIES {
            if self.dump_all(reads_all_tables, was_known)? {
                consistent = true;
                break;
            }
        }
        self.known = true;
        self.known_everywhere = true;
        if !consistent {
            self.request_resync(now + RESYNC_RETRY);
        }
        self.tell_shadowed(now);
        self.tell_orphans(now);
        Ok(())
    }

    /// Looks for the device.
    fn find_device(&mut self) -> io::Result<()> {
        let device = self.query_device()?;
        let changed = device != self.device;
        self.device = device;
        if let Some(index) = device.index() {
            self.mark.device = index;
        }
        let name = &self.config.device;
        match device.problem(name) {
            Some(text) => {
                if changed || self.is_first_reading {
                    log::warn!("kernel routes: {text}; routes wait for it");
                }
                self.shared.set_error(text);
            }
            None if changed => log::info!("tunnel device {name} is up"),
            None => {}
        }
        self.is_first_reading = false;
        Ok(())
    }

    /// Says once of which routes others stand in the way.
    pub(super) fn tell_shadowed(&mut self, now: Instant) {
        let count = self.plan.counts().shadowed;
        if count > self.shadowed
            && let Some(Place { table, prefix, .. }) = self.plan.shadowed_place()
        {
            let text = format!(
                "{count} of our routes wait because somebody else's stand in their place, \
                 for example {prefix} in table {table}"
            );
            let level = rare(&mut self.shadows, log::Level::Warn, now);
            log::log!(level, "kernel routes: {text}");
            self.shared.set_error(text);
        }
        self.shadowed = count;
    }

    /// Says what a client with another protocol left, which this one leaves alone.
    fn tell_orphans(&mut self, now: Instant) {
        for protocol in std::mem::take(&mut self.orphaned_by) {
            let text = format!(
                "nexthop objects with protocol {protocol} belong to no running client; if one \
                 with other options left them, `metalbond kernel flush --rt-proto {protocol}` \
                 removes them and their routes"
            );
            let level = rare(&mut self.shadows, log::Level::Warn, now);
            log::log!(level, "kernel routes: {text}");
            self.shared.set_warning(text);
        }
    }

    /// Returns whether the kernel calls the dump consistent.
    fn dump_all(&mut self, all_tables: bool, was_known: bool) -> io::Result<bool> {
        self.plan.begin_resync();
        self.writes_while_reading = false;
        let mut consistent = true;
        if all_tables {
            self.claims = self.net.claims();
            self.claims.retain(|it| *it != self.config.claimed);
            consistent &= self.dump_links()?;
        }
        consistent &= self.dump_objects()?;
        self.writes_while_reading = was_known && matches!(self.device, Device::Up { .. });
        if all_tables {
            for family in [AF_INET, AF_INET6] {
                consistent &= self.dump_routes(family, None)?;
            }
        } else {
            for table in self.plan.tables().collect::<Vec<_>>() {
                for family in [AF_INET, AF_INET6] {
                    consistent &= self.dump_routes(family, Some(table))?;
                }
            }
        }
        self.writes_while_reading = false;
        self.plan.end_resync();
        Ok(consistent)
    }

    fn dump_links(&mut self) -> io::Result<bool> {
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        message::encode_link_dump(&mut self.out, self.sequence);
        let mut links = Vec::new();
        let consistent = self.dump(|_, message| {
            if message.kind == kind::NEW_LINK {
                links.extend(parse::link(message.body));
            }
        })?;
        self.tunnels = tunnels(&links);
        Ok(consistent)
    }

    fn dump_objects(&mut self) -> io::Result<bool> {
        let mut groups = Vec::new();
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        message::encode_nexthop_dump(&mut self.out, self.sequence);
        let dumped = self.dump(|writer, message| {
            if let Some(object) = parse::object(message.body) {
                writer.saw_object(object, &mut groups);
            }
        });
        let consistent = match dumped {
            // A kernel without nexthop objects has none of ours.
            Err(error)
                if self.plan.mode() == Mode::Inline
                    && error.raw_os_error() == Some(errno::EOPNOTSUPP) =>
            {
                true
            }
            dumped => dumped?,
        };
        // Objects come in the order of their numbers: a member may come after its group.
        for (id, members) in groups {
            self.plan.saw_group(id, &members);
        }
        Ok(consistent)
    }

    fn dump_routes(&mut self, family: u8, table: Option<u32>) -> io::Result<bool> {
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        message::encode_route_dump(&mut self.out, self.sequence, family, table);
        self.dump(|writer, message| {
            let Some(route) = parse::route(message.body) else {
                return;
            };
            if route.special || table.is_some_and(|it| it != route.table) {
                return;
            }
            let place = place_of(&route);
            match writer.target_of(&route) {
                Some(target) => writer.plan.saw_route(place, route.protocol, &target),
                None => writer.plan.saw_foreign_route(place),
            }
        })
    }

    fn saw_object(&mut self, object: parse::ObjectSeen, groups: &mut Vec<(u32, Vec<u32>)>) {
        let ours = object.protocol == self.mark.protocol;
        match object.kind {
            ObjectKind::Hop(hop) if ours && self.is_as_written(&hop) => {
                self.plan.saw_hop(object.id, hop.address);
            }
            ObjectKind::Hop(hop) if ours && self.tunnels.contains(&hop.device) => {
                self.plan.saw_leftover_hop(object.id, hop.address);
            }
            ObjectKind::Group(members) if ours => groups.push((object.id, members)),
            ObjectKind::Hop(_) if self.is_of_no_writer(object.id, object.protocol) => {
                self.orphaned_by.insert(object.protocol);
                self.plan.saw_foreign_object(object.id);
            }
            _ => self.plan.saw_foreign_object(object.id),
        }
    }

    /// Whether an object in our range carries another protocol, and no writer lives that has it.
    fn is_of_no_writer(&self, id: u32, protocol: u8) -> bool {
        let lives = |it: &Claimed| it.protocol == protocol && it.ids.contains(&id);
        protocol != self.mark.protocol
            && self.config.claimed.ids.contains(&id)
            && !self.claims.iter().any(lives)
    }

    /// Whether an encapsulation is as this writer would write it.
    fn is_as_written(&self, hop: &Tunnelled) -> bool {
        hop.device == self.mark.device && hop.source == self.mark.source
    }

    /// Whether routes with our protocol that carry their hops are ours: no other writer has the
    /// protocol as well.
    fn owns_inline(&self) -> bool {
        let is_ours = |it: &Claimed| it.protocol == self.mark.protocol;
        self.config.claimed.is_inline || !self.claims.iter().any(is_ours)
    }

    /// Sends the request in `out` and feeds the answers to `each`.
    ///
    /// Returns whether the kernel calls the dump consistent. A table that does not exist is empty.
    fn dump(&mut self, mut each: impl FnMut(&mut Self, &Message<'_>)) -> io::Result<bool> {
        let sequence = self.sequence;
        self.net.dump(&self.out)?;
        let mut consistent = true;
        let mut datagram = std::mem::take(&mut self.datagram);
        let result = 'dump: loop {
            let len = match self.net.dumped(&mut datagram) {
                Ok(len) => len.min(DATAGRAM),
                Err(error) => break Err(error),
            };
            for message in parse::messages(&datagram[..len]) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & flag::DUMP_INTERRUPTED == 0;
                match message.kind {
                    kind::DONE | kind::ERROR => {
                        let answer = parse::answer(&message);
                        break 'dump match answer.map_or(0, |answer| answer.errno) {
                            0 | errno::ENOENT => Ok(consistent),
                            errno => Err(io::Error::from_raw_os_error(errno)),
                        };
                    }
                    kind::OVERRUN => break 'dump Err(io::Error::from_raw_os_error(errno::ENOBUFS)),
                    _ => each(self, &message),
                }
            }
            // The dump of a million routes takes a second: nobody waits for it.
            if self.flushes.is_empty() && self.ending.is_none() {
                self.drain();
            }
            if self.writes_while_reading
                && let Err(error) = self.write_fresh()
            {
                break Err(error);
            }
        };
        self.datagram = datagram;
        result
    }

    pub(super) fn query_device(&mut self) -> io::Result<Device> {
        self.sequence = self.sequence.wrapping_add(1);
        query_device(
            &mut self.net,
            &self.config.device,
            self.sequence,
            &mut self.datagram,
        )
    }

    /// Where a route leads that carries our protocol and has a form of ours; `None` for all
    /// others, which are somebody else's.
    pub(super) fn target_of(&self, route: &RouteSeen) -> Option<Target> {
        let is_ours = route.protocol == self.mark.protocol;
        if !route.unicast || !is_ours {
            return None;
        }
        if let Some(id) = route.object {
            return Some(Target::Object(id));
        }
        if !self.owns_inline() {
            return None;
        }
        let hops = route.hops.as_ref().filter(|hops| !hops.is_empty())?;
        if hops.iter().all(|hop| self.is_as_written(hop)) {
            let mut addresses: Vec<Ipv6Addr> = hops.iter().map(|it| it.address).collect();
            addresses.sort_unstable();
            return Some(Target::Inline(addresses));
        }
        let are_tunnels = hops.iter().all(|hop| self.tunnels.contains(&hop.device));
        are_tunnels.then(|| Target::Via(hops.clone()))
    }
}

/// Where a route stands.
pub(super) fn place_of(route: &RouteSeen) -> Place {
    Place {
        table: route.table,
        prefix: route.prefix.trunc(),
        metric: route.metric,
    }
}
