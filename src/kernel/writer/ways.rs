//! Whether this host has a route to the underlay addresses that routes lead to.
//!
//! The kernel is asked for the way of a packet to each address: when the address is new, and
//! soon after routes or devices of the host changed.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::timers::Timer;
use super::{BATCH, DATAGRAM, Writer};
use crate::core::kernel_plan::{Way, errno};
use crate::kernel::message::{self, kind};
use crate::kernel::parse;
use crate::kernel::socket::Netlink;

/// Pause before the kernel is asked again, so that a burst of changes takes one round.
const PAUSE: Duration = Duration::from_millis(100);

/// Addresses that are to be asked for; `None` if nobody wants to know.
#[derive(Debug, Default)]
pub(super) struct Ways(Option<VecDeque<Ipv6Addr>>);

impl Ways {
    pub(super) fn begin(&mut self) {
        self.0 = Some(VecDeque::new());
    }

    pub(super) const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl<N: Netlink> Writer<N> {
    /// Notes that a way may be another one.
    pub(super) fn ways_changed(&mut self, now: Instant) {
        if self.ways.is_on() {
            self.timers.set_if_unset(Timer::Ways, now + PAUSE);
        }
    }

    /// Asks for some addresses. Returns whether there are more.
    pub(super) fn ask_ways(&mut self, now: Instant) -> bool {
        let Some(due) = &mut self.ways.0 else {
            return false;
        };
        due.extend(self.plan.take_new_addresses());
        if self.timers.is_due(Timer::Ways, now) {
            self.timers.clear(Timer::Ways);
            self.plan.forget_unused_addresses();
            *due = self.plan.addresses().into();
        }
        if due.is_empty() {
            return false;
        }
        let some: Vec<Ipv6Addr> = due.drain(..due.len().min(BATCH)).collect();
        let has_more = !due.is_empty();
        if let Err(error) = self.ask_for(&some) {
            self.distrust("follow next hops of", &error, now);
        }
        has_more
    }

    fn ask_for(&mut self, addresses: &[Ipv6Addr]) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        self.out.clear();
        for address in addresses {
            self.sequence = self.sequence.wrapping_add(1);
            message::encode_way_request(&mut self.out, self.sequence, *address);
        }
        self.net.send(&self.out)?;
        let mut left = addresses.len();
        while left > 0 {
            let mut datagram = std::mem::take(&mut self.datagram);
            let received = self.net.receive(&mut datagram);
            if let Ok(len) = received {
                for message in parse::messages(&datagram[..len.min(DATAGRAM)]) {
                    let at = message.sequence.wrapping_sub(first) as usize;
                    if let Some(address) = addresses.get(at) {
                        left -= 1;
                        self.way(*address, way_of(&message));
                    }
                }
            }
            self.datagram = datagram;
            received?;
        }
        Ok(())
    }

    fn way(&mut self, address: Ipv6Addr, way: Option<Way>) {
        let Some(way) = way else {
            return;
        };
        let Some(groups) = self.plan.reach(address, way) else {
            return;
        };
        match way {
            Way::Open => log::info!(
                "kernel routes: next hop {address} can be reached again, back in {groups} groups"
            ),
            Way::Closed => log::warn!(
                "kernel routes: no route to next hop {address}, left out of {groups} groups"
            ),
        }
    }
}

/// What the kernel's answer means; `None` if it is no answer to that.
fn way_of(message: &parse::Message<'_>) -> Option<Way> {
    if message.kind == kind::NEW_ROUTE {
        return Some(Way::Open);
    }
    match parse::answer(message)?.errno {
        // Blackholes and prohibitions are routes that say so.
        errno::ENETUNREACH | errno::EHOSTUNREACH | errno::EACCES | errno::EINVAL => {
            Some(Way::Closed)
        }
        _ => None,
    }
}
