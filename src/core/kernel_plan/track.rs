//! Underlay addresses that this host has no route to.
//!
//! A group leads to those of its members that can be reached; to all if none can. One message
//! for a group takes a member out or puts it back, however many routes use the group. A route
//! with one hop keeps it: there is nothing better.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::{Hop, Kind, NONE, Op, Plan};

/// Addresses that cannot be reached, and what follows from a change.
#[derive(Default)]
pub(super) struct Track {
    away: BTreeSet<Ipv6Addr>,
    /// Groups whose members are to be written again.
    groups: BTreeSet<u32>,
    /// Addresses that got an object since they were last asked for; `None` if nobody asks.
    new: Option<Vec<Ipv6Addr>>,
}

impl Track {
    pub(super) fn len(&self) -> usize {
        self.away.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// Notes that an address gets an object.
    pub(super) fn saw(&mut self, address: Ipv6Addr) {
        if let Some(new) = &mut self.new {
            new.push(address);
        }
    }

    /// Forgets what was to be written; a reading tells what is there.
    pub(super) fn clear_groups(&mut self) {
        self.groups.clear();
    }
}

impl Plan {
    /// Notes from now on which addresses get an object.
    pub(crate) fn begin_tracking(&mut self) {
        self.track.new = Some(Vec::new());
    }

    /// Takes the addresses that got an object since the last call.
    pub(crate) fn take_new_addresses(&mut self) -> Vec<Ipv6Addr> {
        self.track
            .new
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Returns the addresses of all objects.
    pub(crate) fn addresses(&self) -> Vec<Ipv6Addr> {
        let singles = self.objects.slots().filter_map(|slot| {
            let object = self.objects.object(slot);
            let is_single = matches!(object.kind, Kind::Single { .. });
            is_single.then(|| self.catalog.lowest(object.set))
        });
        singles.collect()
    }

    /// Notes whether an address can be reached. Returns how many groups change; `None` if that
    /// was known.
    pub(crate) fn reach(&mut self, address: Ipv6Addr, way: Way) -> Option<usize> {
        let is_news = match way {
            Way::Open => self.track.away.remove(&address),
            Way::Closed => self.track.away.insert(address),
        };
        if !is_news {
            return None;
        }
        let mut count = 0;
        for device in self.devices() {
            let hop = self.catalog.find_hop(Hop { device, address });
            let single = self.catalog.find_single(hop);
            if single == NONE {
                continue;
            }
            let slot = self.catalog.object(single);
            if slot != NONE {
                let groups = self.objects.groups(slot);
                self.track.groups.extend(groups);
                count += groups.len();
            }
        }
        Some(count)
    }

    /// Forgets addresses that nobody leads to any more.
    pub(crate) fn forget_unused_addresses(&mut self) {
        let devices = self.devices();
        let Self { track, catalog, .. } = self;
        let is_known = |&address: &Ipv6Addr| {
            let mut hops = devices.iter().map(|&device| Hop { device, address });
            hops.any(|hop| catalog.find_hop(hop) != NONE)
        };
        track.away.retain(is_known);
    }

    /// The devices by which routes lead.
    fn devices(&self) -> BTreeSet<u8> {
        self.tables.iter().map(|it| it.device).collect()
    }

    /// Those of a group's members that it leads to.
    pub(super) fn present(&self, members: &[u32]) -> Vec<u32> {
        if self.track.away.is_empty() {
            return members.to_vec();
        }
        let is_here = |member: &&u32| {
            let set = self.objects.object(**member).set;
            !self.track.away.contains(&self.catalog.lowest(set))
        };
        let here: Vec<u32> = members.iter().filter(is_here).copied().collect();
        match here.is_empty() {
            true => members.to_vec(),
            false => here,
        }
    }

    /// The kernel's numbers of objects of ours.
    pub(super) fn numbers(&self, slots: &[u32]) -> Vec<u32> {
        let objects = slots.iter().map(|&slot| self.objects.object(slot).id);
        objects.collect()
    }

    /// Writes the members of groups again in which somebody came or left.
    pub(super) fn regroup(&mut self, limit: usize, ops: &mut Vec<Op>) {
        while ops.len() < limit
            && let Some(slot) = self.track.groups.pop_first()
        {
            let Some(object) = self.objects.get(slot) else {
                continue;
            };
            let (id, Kind::Group { members }) = (object.id, &object.kind) else {
                continue;
            };
            let members = self.numbers(&self.present(members));
            self.objects.note(id);
            ops.push(Op::ReplaceGroup { id, members });
        }
    }
}

/// Whether this host has a route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    Closed,
}
