//! Readings of what the kernel holds: the device, nexthop objects, routes.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv6Addr;
use std::time::Instant;

use super::dump::{Heard, Reading, Request, Tables};
use super::fights::Cause;
use super::timers::Timer;
use super::{DOUBT_PAUSE, DUMP_TRIES, RESYNC_PAUSE, Relaxed, Writer, rare};
use crate::core::kernel_plan::{Change, Hop, Place, Target, Tunnelled, Verdict};
use crate::kernel::claim::Claimed;
use crate::kernel::device::{Device, query_device};
use crate::kernel::message::NO_DEVICE;
use crate::kernel::parse::{self, ObjectKind, RouteSeen};
use crate::kernel::socket::Netlink;
use crate::kernel::stats::Trouble;

/// Datagrams of a reading, of 32 KiB each, before the kernel gets a batch again.
const SLICE: usize = 2;
/// Destinations that are compared with what was read before the kernel gets a batch again.
const JUDGED: usize = 1 << 15;

/// Why the kernel is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is time to.
    Routine,
    /// Something may differ from what is believed.
    Doubt,
}

/// A reading in slices, while the kernel is written to.
#[derive(Debug)]
pub(super) struct Ongoing {
    reading: Reading,
    pub(super) reason: Reason,
    /// How often the first request was answered and torn.
    tries: usize,
    /// An answer stayed torn.
    is_torn: bool,
}

/// Where a reading in slices stands.
enum Progress {
    More,
    End(Reason),
}

impl<N: Netlink> Writer<N> {
    /// Begins to read: the device at once; objects and routes at once where nothing is known of
    /// them, else in slices, while the kernel is written to.
    pub(super) fn begin_reading(&mut self, reason: Reason, now: Instant) -> io::Result<()> {
        let has_changed = self.find_devices()?;
        self.forgets |= !self.known || has_changed;
        let tables = match self.known_everywhere && self.plan.counts().strays == 0 {
            true => Tables::Ours,
            false => Tables::All,
        };
        // Another client may have come or gone since the last reading.
        self.claims = self.net.claims();
        self.claims.retain(|it| *it != self.config.claimed);
        self.reads_everywhere = tables == Tables::All;
        if self.reads_everywhere {
            self.plan.begin_borrowers();
        }
        let reading = self.reading_of(tables);
        if self.forgets {
            return self.read_from_nothing(reading, now);
        }
        self.plan.begin_review();
        self.review = Some(Ongoing {
            reading,
            reason,
            tries: 0,
            is_torn: false,
        });
        Ok(())
    }

    /// Reads everything, and forgets what was believed.
    fn read_from_nothing(&mut self, mut reading: Reading, now: Instant) -> io::Result<()> {
        // An earlier one may have ended in the middle.
        self.review = None;
        self.net.stop_dump()?;
        // What an earlier process left is not known before it is read.
        let was_known = std::mem::replace(&mut self.known, false);
        let requests = reading.requests.clone();
        let mut is_torn = true;
        for _ in 0..DUMP_TRIES {
            reading.requests.clone_from(&requests);
            is_torn = self.dump_all(&mut reading, was_known)?;
            if !is_torn {
                break;
            }
        }
        self.known = true;
        self.forgets = false;
        self.have_read(is_torn, now);
        Ok(())
    }

    /// Notes that all was read.
    fn have_read(&mut self, is_torn: bool, now: Instant) {
        self.gauges.resyncs.fetch_add(1, Relaxed);
        self.known_everywhere = true;
        self.awaits_reading = false;
        self.gauges.end_error(Trouble::Call);
        self.ways_changed(now);
        if is_torn {
            self.timers.set_if_unset(Timer::Doubt, now + DOUBT_PAUSE);
        } else if self.reads_everywhere {
            self.plan.end_borrowers();
        }
        self.tell_shadowed(now);
        self.tell_orphans(now);
    }

    /// Goes on with a reading in slices. Returns whether there is one.
    pub(super) fn read_on(&mut self, now: Instant) -> bool {
        let Some(mut review) = self.review.take() else {
            return false;
        };
        for _ in 0..SLICE {
            match self.read_part(&mut review, now) {
                Ok(Progress::More) => {}
                Ok(Progress::End(reason)) => {
                    self.tell_read(reason, now);
                    return true;
                }
                Err(error) => {
                    self.stop_reading();
                    self.distrust("read", &error, now);
                    return true;
                }
            }
        }
        self.review = Some(review);
        true
    }

    fn read_part(&mut self, review: &mut Ongoing, now: Instant) -> io::Result<Progress> {
        if review.reading.requests.is_empty() {
            return Ok(self.conclude(review, now));
        }
        if review.reading.asked.is_none() {
            self.ask(&mut review.reading)?;
        }
        match self.hear(&mut review.reading)? {
            Heard::Part => return Ok(Progress::More),
            // What was seen stays seen: the next try finds what this one left out.
            Heard::Torn if review.tries + 1 < DUMP_TRIES => {
                review.tries += 1;
                review.reading.asked = None;
                return Ok(Progress::More);
            }
            Heard::Torn => review.is_torn = true,
            Heard::All => {}
        }
        review.tries = 0;
        let was_objects = review.reading.requests.front() == Some(&Request::Objects);
        self.heard_all(&mut review.reading);
        if was_objects {
            let change = self.plan.review_objects();
            self.happened(change, Cause::Object, now);
            self.plan.lose_objects();
        }
        Ok(Progress::More)
    }

    /// Compares what was read with what was believed.
    fn conclude(&mut self, review: &Ongoing, now: Instant) -> Progress {
        match self.plan.review_some(JUDGED) {
            Verdict::More => return Progress::More,
            Verdict::Done => {}
            Verdict::Lost => self.happened(Change::Lost, Cause::Route, now),
            Verdict::Unclear => {
                self.forgets = true;
                self.request_resync(now + RESYNC_PAUSE);
            }
        }
        self.have_read(review.is_torn, now);
        Progress::End(review.reason)
    }

    /// Ends a reading in slices; one from nothing follows.
    fn stop_reading(&mut self) {
        self.review = None;
        if let Err(error) = self.net.stop_dump() {
            log::warn!("kernel routes: cannot end a reading: {error}");
        }
    }

    /// Looks for the devices. Returns whether one is not as it was.
    fn find_devices(&mut self) -> io::Result<bool> {
        let devices = self.query_devices()?;
        Ok(self.note_devices(devices))
    }

    /// Notes what the devices are. Returns whether one is not as it was.
    pub(super) fn note_devices(&mut self, devices: Vec<Device>) -> bool {
        let before = std::mem::replace(&mut self.devices, devices);
        let mut held = BTreeSet::new();
        for (number, device) in (0_u8..).zip(&self.devices) {
            let at = usize::from(number);
            let index = device.usable_index().unwrap_or(NO_DEVICE);
            match at {
                0 => self.mark.device = index,
                _ => self.mark.more[at - 1] = index,
            }
            if !device.is_up() {
                held.insert(number);
            }
            let name = &self.config.devices[at];
            let changed = before[at] != *device;
            match device.problem(name) {
                Some(text) if changed || self.is_first_reading => {
                    log::warn!("kernel routes: {text}; routes wait for it");
                }
                Some(_) => {}
                None if changed => log::info!("tunnel device {name} is up"),
                None => {}
            }
        }
        self.plan.hold(held);
        match self.problem() {
            Some(text) => self.gauges.set_error(Trouble::Device, text),
            None => self.gauges.end_error(Trouble::Device),
        }
        let bad = self.devices.iter().position(|it| !it.is_up());
        if let Some(name) = self.config.devices.get(bad.unwrap_or(0)) {
            self.gauges.set_device(name);
        }
        self.is_first_reading = false;
        before != self.devices
    }

    /// Says of how many routes others stand in the way, and names one; logs it if more are.
    pub(super) fn tell_shadowed(&mut self, now: Instant) {
        let Some(place) = self.plan.shadowed_place() else {
            if self.shadowed.take().is_some() {
                self.gauges.end_error(Trouble::Shadowed);
            }
            return;
        };
        let count = self.plan.counts().shadowed;
        let before = self.shadowed.replace((count, place));
        if before == Some((count, place)) {
            return;
        }
        let Place { table, prefix, .. } = place;
        let text = format!(
            "{count} of our routes wait because somebody else's stand in their place, for \
             example {prefix} in table {table}"
        );
        if before.is_none_or(|(before, _)| count > before) {
            let level = rare(&mut self.shadows, log::Level::Warn, now);
            log::log!(level, "kernel routes: {text}");
        }
        self.gauges.set_error(Trouble::Shadowed, text);
    }

    /// Says what a client with other options left, which this one leaves alone; ends that when
    /// it is gone.
    fn tell_orphans(&mut self, now: Instant) {
        let told = self.told_orphans.take();
        for (protocol, id) in std::mem::take(&mut self.orphans) {
            let (which, range) = match protocol == self.mark.protocol {
                true => (
                    format!(", and numbers that are not this one's, as {id},"),
                    " --nexthop-ids FROM-TO",
                ),
                false => (String::new(), ""),
            };
            let text = format!(
                "nexthop objects with protocol {protocol}{which} belong to no running client; if \
                 one with other options left them, `metalbond kernel flush --rt-proto \
                 {protocol}{range}` removes them and their routes"
            );
            let level = rare(&mut self.shadows, log::Level::Warn, now);
            log::log!(level, "kernel routes: {text}");
            self.told_orphans = Some(text.clone());
            self.gauges.set_warning(text);
        }
        if let Some(text) = told.filter(|_| self.told_orphans.is_none()) {
            self.gauges.end_warning(&text);
        }
    }

    /// Reads all that is asked for. Returns whether something changed meanwhile.
    fn dump_all(&mut self, reading: &mut Reading, was_known: bool) -> io::Result<bool> {
        self.plan.begin_resync();
        self.writes_while_reading = false;
        let mut is_torn = false;
        while let Some(request) = reading.requests.front() {
            self.writes_while_reading =
                matches!(request, Request::Routes(..)) && was_known && self.is_any_up();
            self.ask(reading)?;
            is_torn |= self.hear_out(reading)? == Heard::Torn;
            self.heard_all(reading);
        }
        self.writes_while_reading = false;
        self.plan.end_resync();
        Ok(is_torn)
    }

    /// Reads until the answer ends; writes routes that are new meanwhile.
    fn hear_out(&mut self, reading: &mut Reading) -> io::Result<Heard> {
        loop {
            let heard = self.hear(reading)?;
            if heard != Heard::Part {
                return Ok(heard);
            }
            // The dump of a million routes takes a second: nobody waits for it.
            if self.flushes.is_empty() && self.ending.is_none() {
                self.drain();
            }
            if self.writes_while_reading {
                self.write_fresh()?;
            }
        }
    }

    pub(super) fn saw_route(&mut self, route: &RouteSeen) {
        let place = place_of(route);
        match self.target_of(route) {
            Some(target) => self.plan.saw_route(place, route.protocol, &target),
            None => {
                self.plan.saw_foreign_route(place);
                self.borrowed(route);
            }
        }
    }

    /// Notes that somebody else's route may lead to an object of ours.
    pub(super) fn borrowed(&mut self, route: &RouteSeen) {
        let Some(id) = route.object else {
            return;
        };
        if self.plan.borrow_object(id, place_of(route))
            && let Some(now) = self.now
        {
            let level = rare(&mut self.shadows, log::Level::Warn, now);
            log::log!(
                level,
                "kernel routes: somebody else's route to {} in table {} leads to nexthop object \
                 {id} of this client, which stays as long as that route",
                route.prefix,
                route.table
            );
        }
    }

    pub(super) fn saw_object(
        &mut self,
        object: parse::ObjectSeen,
        groups: &mut Vec<(u32, Vec<u32>)>,
    ) {
        let ours = object.protocol == self.mark.protocol;
        if let ObjectKind::Hop(hop) = &object.kind
            && self.is_orphan(object.id, object.protocol, hop)
        {
            self.orphans.insert(object.protocol, object.id);
        }
        match object.kind {
            ObjectKind::Hop(hop) if ours && self.written_by(&hop).is_some() => {
                let device = self.written_by(&hop).unwrap_or_default();
                let address = hop.address;
                self.plan.saw_hop_by(object.id, Hop { device, address });
            }
            ObjectKind::Hop(hop) if ours && self.tunnels.contains(&hop.device) => {
                self.plan.saw_leftover_hop(object.id, hop.address);
            }
            ObjectKind::Group(members) if ours => groups.push((object.id, members)),
            _ => self.plan.saw_foreign_object(object.id),
        }
    }

    /// Whether a writer with other options wrote an object, and no writer lives that has it: one
    /// in our range with another protocol, or a tunnel with our protocol elsewhere.
    fn is_orphan(&self, id: u32, protocol: u8, hop: &Tunnelled) -> bool {
        let is_in_range = self.config.claimed.ids.contains(&id);
        let is_anothers = match protocol == self.mark.protocol {
            true => !is_in_range && self.tunnels.contains(&hop.device),
            false => is_in_range,
        };
        let lives = |it: &Claimed| it.protocol == protocol && it.ids.contains(&id);
        is_anothers && !self.claims.iter().any(lives)
    }

    /// The device by which this writer would write such an object, if it would.
    fn written_by(&self, hop: &Tunnelled) -> Option<u8> {
        let device = self.mark.device_of(hop.device);
        device.filter(|_| hop.source == self.mark.source)
    }

    /// Whether a route carries an encapsulation as this writer would write it.
    fn is_as_written(&self, hop: &Tunnelled) -> bool {
        hop.device == self.mark.device && hop.source == self.mark.source
    }

    /// Whether routes with our protocol that carry their hops are ours: no other writer has the
    /// protocol as well.
    fn owns_inline(&self) -> bool {
        let is_ours = |it: &Claimed| it.protocol == self.mark.protocol;
        self.config.claimed.is_inline || !self.claims.iter().any(is_ours)
    }

    pub(super) fn query_devices(&mut self) -> io::Result<Vec<Device>> {
        let mut devices = Vec::with_capacity(self.config.devices.len());
        for name in &self.config.devices {
            self.sequence = self.sequence.wrapping_add(1);
            let (net, datagram) = (&mut self.net, &mut self.datagram);
            devices.push(query_device(net, name, self.sequence, datagram)?);
        }
        Ok(devices)
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
