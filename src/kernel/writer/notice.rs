//! What the kernel tells of changes that others make.

use std::io;
use std::time::Instant;

use super::fights::Cause;
use super::read::place_of;
use super::timers::Timer;
use super::{DATAGRAM, NOTIFICATIONS, RESYNC_PAUSE, Writer};
use crate::core::kernel_plan::{Change, Seen, Target, errno};
use crate::kernel::device::Device;
use crate::kernel::message::{flag, kind};
use crate::kernel::parse::{self, LinkSeen, Message, RouteSeen};
use crate::kernel::socket::Netlink;

impl<N: Netlink> Writer<N> {
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
                self.ways_changed(now);
                if let Some(link) = parse::link(message.body) {
                    self.link_notified(&link, message.kind == kind::NEW_LINK, now);
                }
            }
            kind::NEW_NEXTHOP | kind::DEL_NEXTHOP => {
                if let Some(object) = parse::object(message.body) {
                    let exists = message.kind == kind::NEW_NEXTHOP;
                    let change = self.plan.object_changed(object.id, exists);
                    self.forgets |= change == Change::Unclear;
                    self.happened(change, Cause::Object, now);
                }
            }
            kind::NEW_ROUTE | kind::DEL_ROUTE => {
                if let Some(route) = parse::route(message.body)
                    && !route.special
                {
                    if route.prefix.addr().is_ipv6() {
                        self.ways_changed(now);
                    }
                    let seen = self.seen(message, &route);
                    self.watch_borrowers(&route, &seen);
                    let change = self.plan.route_changed(place_of(&route), &seen);
                    self.happened(change, Cause::Route, now);
                }
            }
            _ => {}
        }
    }

    fn link_notified(&mut self, link: &LinkSeen, exists: bool, now: Instant) {
        let mut devices = self.devices.iter().zip(&self.config.devices);
        let changed = devices.find(|(device, name)| {
            let is_named = link.name == **name;
            let is_unchanged = exists && is_named && Device::of(link) == **device;
            (is_named || device.index() == Some(link.index)) && !is_unchanged
        });
        if let Some((device, _)) = changed {
            let at = match device {
                Device::Up { .. } => self.fights.lost(Cause::Device, now, &self.gauges),
                _ => now,
            };
            self.devices_changed();
            self.request_resync(at);
        }
    }

    /// Notes that the next reading begins from nothing, because devices changed.
    ///
    /// The kernel drops the routes of a device that goes down, and says nothing. One that comes
    /// may be of another kind, and routes may lead by one that goes.
    pub(super) fn devices_changed(&mut self) {
        self.known_everywhere = false;
        self.forgets = true;
    }

    /// Notes who leads to objects of ours.
    fn watch_borrowers(&mut self, route: &RouteSeen, seen: &Seen) {
        match seen {
            Seen::Put(_) | Seen::Gone(_) | Seen::Unknown => {}
            Seen::Left => self.plan.borrower_left(place_of(route)),
            Seen::Replaced => {
                self.plan.borrower_left(place_of(route));
                self.borrowed(route);
            }
            Seen::First | Seen::Behind => self.borrowed(route),
        }
    }

    fn seen(&self, message: &Message<'_>, route: &RouteSeen) -> Seen {
        let exists = message.kind == kind::NEW_ROUTE;
        let target = self.target_of(route);
        let ids = &self.config.claimed.ids;
        let may_be_ours = matches!(&target, Some(Target::Object(id)) if ids.contains(id));
        let ours = target.filter(|it| self.plan.is_ours(it));
        match (ours, exists) {
            (None, true) if may_be_ours => Seen::Unknown,
            (Some(target), true) => Seen::Put(target),
            (Some(target), false) => Seen::Gone(target),
            (None, false) => Seen::Left,
            (None, true) if message.flags & flag::REPLACE != 0 => Seen::Replaced,
            (None, true) if message.flags & flag::APPEND != 0 => Seen::Behind,
            (None, true) => Seen::First,
        }
    }

    pub(super) fn happened(&mut self, change: Change, cause: Cause, now: Instant) {
        match change {
            Change::None => {}
            Change::Unclear => self.request_resync(now + RESYNC_PAUSE),
            Change::Shadowed => self.tell_shadowed(now),
            Change::Lost => {
                if !self.timers.is_set(Timer::Repair) {
                    let at = self.fights.lost(cause, now, &self.gauges);
                    self.timers.set(Timer::Repair, at);
                }
            }
        }
    }
}
