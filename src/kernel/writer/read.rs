//! What the kernel says: dumps, the device, notifications.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::time::Instant;

use super::{
    DATAGRAM, DUMP_TRIES, Device, NOTIFICATIONS, RESYNC_PAUSE, RESYNC_RETRY, Relaxed, Writer, rare,
};
use crate::core::kernel_plan::{Mode, Seen, Target, errno};
use crate::kernel::message::{self, AF_INET, AF_INET6, flag, kind};
use crate::kernel::parse::{self, Message, ObjectKind, RouteSeen};
use crate::kernel::socket::Netlink;

impl<N: Netlink> Writer<N> {
    /// Reads the device, the nexthop objects and the routes.
    pub(super) fn read_kernel(&mut self, now: Instant) -> io::Result<()> {
        let device = self.query_device()?;
        if device != self.device {
            let name = &self.config.device;
            match device {
                Device::Missing => log::warn!("tunnel device {name} is missing; routes wait"),
                Device::Down { .. } => log::warn!("tunnel device {name} is down; routes wait"),
                Device::Up { index } => log::info!("tunnel device {name} is up, index {index}"),
            }
            self.device = device;
        }
        if let Device::Up { index } | Device::Down { index } = device {
            self.mark.device = index;
        }
        self.shared.resyncs.fetch_add(1, Relaxed);
        self.known = false;
        let mut consistent = false;
        for _ in 0..DUMP_TRIES {
            if self.dump_all()? {
                consistent = true;
                break;
            }
        }
        self.known = true;
        if !consistent {
            self.request_resync(now + RESYNC_RETRY);
        }
        Ok(())
    }

    /// Returns whether the kernel calls the dump consistent.
    fn dump_all(&mut self) -> io::Result<bool> {
        self.plan.begin_resync();
        let mut consistent = true;
        let mut groups = Vec::new();
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        message::encode_nexthop_dump(&mut self.out, self.sequence);
        let dumped = self.dump(|writer, message| {
            if let Some(object) = parse::object(message.body) {
                writer.saw_object(object, &mut groups);
            }
        });
        consistent &= match dumped {
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
        for table in self.plan.tables().collect::<Vec<_>>() {
            // Of IPv4 destinations that others have too, the first route counts.
            consistent &= self.dump_routes(AF_INET, table, 0)?;
            consistent &= self.dump_routes(AF_INET6, table, self.mark.protocol)?;
        }
        self.plan.end_resync();
        Ok(consistent)
    }

    fn dump_routes(&mut self, family: u8, table: u32, protocol: u8) -> io::Result<bool> {
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        message::encode_route_dump(&mut self.out, self.sequence, family, table, protocol);
        let mut others = BTreeSet::new();
        self.dump(|writer, message| {
            let Some(route) = parse::route(message.body) else {
                return;
            };
            if route.table != table || !writer.has_our_key(&route) {
                return;
            }
            if writer.has_our_mark(&route) {
                let target = writer.target_of(&route);
                writer.plan.saw_route(table, route.prefix, &target);
                if others.contains(&route.prefix) {
                    writer.plan.foreign_route_first(table, route.prefix);
                }
            } else {
                others.insert(route.prefix);
            }
        })
    }

    fn saw_object(&mut self, object: parse::ObjectSeen, groups: &mut Vec<(u32, Vec<u32>)>) {
        let ours = object.protocol == self.mark.protocol;
        match object.kind {
            ObjectKind::Hop { device, address } if ours && device == self.mark.device => {
                self.plan.saw_hop(object.id, address);
            }
            ObjectKind::Group(members) if ours => groups.push((object.id, members)),
            _ => self.plan.saw_foreign_object(object.id),
        }
    }

    /// Sends the request in `out` and feeds the answers to `each`.
    ///
    /// Returns whether the kernel calls the dump consistent. A table that does not exist is empty.
    fn dump(&mut self, mut each: impl FnMut(&mut Self, &Message<'_>)) -> io::Result<bool> {
        let sequence = self.sequence;
        self.net.send(&self.out)?;
        let mut consistent = true;
        let mut datagram = std::mem::take(&mut self.datagram);
        let result = 'dump: loop {
            let len = match self.net.receive(&mut datagram) {
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

    /// Whether a route is one that this writer may have written.
    fn has_our_mark(&self, route: &RouteSeen) -> bool {
        route.protocol == self.mark.protocol && route.unicast && self.has_our_key(route)
    }

    /// Whether a route stands where one of this writer would.
    fn has_our_key(&self, route: &RouteSeen) -> bool {
        route.metric == self.mark.metric_of(&route.prefix) && !route.special
    }

    fn target_of(&self, route: &RouteSeen) -> Target {
        if let Some(id) = route.object {
            return Target::Object(id);
        }
        let Some(hops) = &route.hops else {
            return Target::Other;
        };
        let by_device = hops.iter().all(|(device, _)| *device == self.mark.device);
        let mut addresses: Vec<Ipv6Addr> = hops.iter().map(|(_, address)| *address).collect();
        addresses.sort_unstable();
        if by_device {
            Target::Inline(addresses)
        } else {
            Target::Other
        }
    }

    /// Reads notifications. Returns whether there may be more.
    pub(super) fn read_notifications(&mut self, now: Instant) -> bool {
        for _ in 0..NOTIFICATIONS {
            let mut datagram = std::mem::take(&mut self.datagram);
            let received = self.net.notification(&mut datagram);
            if let Ok(len) = received {
                for message in parse::messages(&datagram[..len.min(DATAGRAM)]) {
                    self.notified(&message, now);
                }
            }
            self.datagram = datagram;
            match received {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("kernel routes: notifications lost: {error}");
                    self.request_resync(now + RESYNC_PAUSE);
                    if error.raw_os_error() != Some(errno::ENOBUFS) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn notified(&mut self, message: &Message<'_>, now: Instant) {
        match message.kind {
            kind::NEW_LINK | kind::DEL_LINK => {
                let Some(link) = parse::link(message.body) else {
                    return;
                };
                let seen = if link.usable {
                    Device::Up { index: link.index }
                } else {
                    Device::Down { index: link.index }
                };
                let ours = match self.device {
                    Device::Missing => false,
                    Device::Up { index } | Device::Down { index } => index == link.index,
                };
                let named = link.name == self.config.device;
                let unchanged = message.kind == kind::NEW_LINK && named && seen == self.device;
                if (ours || named) && !unchanged {
                    // The kernel drops the routes of a device that goes down, and says nothing.
                    self.request_resync(now);
                }
            }
            kind::NEW_NEXTHOP | kind::DEL_NEXTHOP => {
                let exists = message.kind == kind::NEW_NEXTHOP;
                if let Some(object) = parse::object(message.body)
                    && self.plan.object_changed(object.id, exists)
                {
                    self.request_resync(now + RESYNC_PAUSE);
                }
            }
            kind::NEW_ROUTE | kind::DEL_ROUTE => {
                if let Some(route) = parse::route(message.body)
                    && self.has_our_key(&route)
                {
                    self.route_notified(message, &route, now);
                }
            }
            _ => {}
        }
    }

    fn route_notified(&mut self, message: &Message<'_>, route: &RouteSeen, now: Instant) {
        let ours = self.has_our_mark(route);
        let gone = message.kind == kind::DEL_ROUTE;
        let seen = match (ours, gone) {
            (true, true) => Seen::Gone,
            (true, false) => Seen::Ours(self.target_of(route)),
            (false, false) if message.flags & flag::REPLACE != 0 => Seen::Replaced,
            (false, true) => {
                if self.plan.foreign_route_gone(route.table, route.prefix) {
                    self.request_resync(now + RESYNC_PAUSE);
                }
                return;
            }
            (false, false) => {
                // IPv4 alone has places before ours, and puts there what is not appended.
                let first = route.prefix.addr().is_ipv4() && message.flags & flag::APPEND == 0;
                if first && self.plan.foreign_route_first(route.table, route.prefix) {
                    let RouteSeen { prefix, table, .. } = route;
                    let text = format!("{prefix} table {table}: another route stands before ours");
                    let level = rare(&mut self.shadows, log::Level::Warn, now);
                    log::log!(level, "kernel routes: {text}");
                    self.shared.set_error(text);
                }
                return;
            }
        };
        self.plan.route_changed(route.table, route.prefix, &seen);
    }
}

/// Asks for the device by its name.
///
/// # Errors
///
/// Whatever the kernel says but that there is none.
pub(in crate::kernel) fn query_device(
    net: &mut impl Netlink,
    name: &str,
    sequence: u32,
    datagram: &mut [u8],
) -> io::Result<Device> {
    let mut request = Vec::new();
    message::encode_link_request(&mut request, sequence, name);
    net.send(&request)?;
    loop {
        let len = net.receive(datagram)?.min(datagram.len());
        for message in parse::messages(&datagram[..len]) {
            if message.sequence != sequence {
                continue;
            }
            if message.kind == kind::NEW_LINK
                && let Some(link) = parse::link(message.body)
            {
                let index = link.index;
                return Ok(if link.usable {
                    Device::Up { index }
                } else {
                    Device::Down { index }
                });
            }
            match parse::answer(&message).map_or(0, |answer| answer.errno) {
                errno::ENODEV => return Ok(Device::Missing),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}
