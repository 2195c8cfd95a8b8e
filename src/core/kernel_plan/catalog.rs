//! Announcements of each destination, gathered into sets of hops.
//!
//! ```text
//! route -> announcement set -> announcements (VNI, next hop, host bits)
//!                |                    |
//!                +--> hop set ------> hops (underlay addresses)
//! ```
//!
//! Routes hold the number of an announcement set only: a fabric has thousands of
//! hypervisors and millions of routes, and few distinct sets.

use std::net::{IpAddr, Ipv6Addr};

use super::intern::{Interner, NONE};
use super::{Family, Hop, MAX_HOPS, hops};
use crate::core::types::{NextHop, Vni};

/// What distinguishes two routes that fall on one destination of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Announcement {
    pub(super) vni: Vni,
    pub(super) next_hop: NextHop,
    /// The destination's address where it has host bits, which the kernel does not keep.
    pub(super) host: Option<IpAddr>,
}

/// Side data of a hop set.
pub(super) struct SetUse {
    /// The nexthop object that new routes of this set use, or [`NONE`].
    pub(super) object: u32,
    /// How many routes want this set.
    wanted: u32,
}

/// All shared values. Every number handed out holds a reference until released.
pub(super) struct Catalog {
    /// Side data: how many wanted hop sets the hop is in.
    hops: Interner<Hop, u32>,
    hop_sets: Interner<Box<[u32]>, SetUse>,
    /// Side data: the hop, or [`NONE`] where the address cannot be encapsulated to.
    announcements: Interner<Announcement, u32>,
    /// Side data: the hop sets of IPv4 and of IPv6 routes.
    sets: Interner<Box<[u32]>, [u32; 2]>,
    /// IPv6 routes take the lowest address only; see [`super::Mode::Inline`].
    single_v6: bool,
}

impl Catalog {
    pub(super) fn new(seed: u64, single_v6: bool) -> Self {
        Self {
            hops: Interner::new(seed),
            hop_sets: Interner::new(seed),
            announcements: Interner::new(seed),
            sets: Interner::new(seed),
            single_v6,
        }
    }

    /// The number of an announcement, or [`NONE`] when no route holds it.
    pub(super) fn find_announcement(&self, announcement: &Announcement) -> u32 {
        self.announcements.find(announcement)
    }

    /// `device` is that of its VNI.
    pub(super) fn acquire_announcement(&mut self, announcement: Announcement, device: u8) -> u32 {
        let id = self.announcements.find(&announcement);
        if id != NONE {
            self.announcements.retain(id);
            return id;
        }
        let underlay = hops::underlay(announcement.next_hop.target_address);
        let hop = underlay.map_or(NONE, |address| self.acquire_hop(Hop { device, address }));
        self.announcements.insert(announcement, hop)
    }

    pub(super) fn release_announcement(&mut self, id: u32) {
        if let Some((_, hop)) = self.announcements.release(id)
            && hop != NONE
        {
            self.hops.release(hop);
        }
    }

    pub(super) fn announcement(&self, id: u32) -> &Announcement {
        self.announcements.key(id)
    }

    /// Whether the announcement's underlay address can be encapsulated to.
    pub(super) fn installable(&self, announcement: u32) -> bool {
        *self.announcements.aux(announcement) != NONE
    }

    /// The announcements of a set; none of [`NONE`].
    pub(super) fn members(&self, set: u32) -> &[u32] {
        if set == NONE {
            return &[];
        }
        self.sets.key(set)
    }

    /// The set of `announcements`, which are sorted and distinct; [`NONE`] for no announcement.
    pub(super) fn acquire_set(&mut self, announcements: &[u32]) -> u32 {
        if announcements.is_empty() {
            return NONE;
        }
        let id = self.sets.find(announcements);
        if id != NONE {
            self.sets.retain(id);
            return id;
        }
        // Of several VNIs the lowest one has the destination: tenants are never mixed.
        let installable = announcements
            .iter()
            .map(|&it| (self.announcements.key(it).vni, *self.announcements.aux(it)))
            .filter(|(_, hop)| *hop != NONE);
        let lowest = installable.clone().map(|(vni, _)| vni).min();
        let mut hops: Vec<u32> = installable
            .filter(|(vni, _)| Some(*vni) == lowest)
            .map(|(_, hop)| hop)
            .collect();
        self.order(&mut hops);
        hops.truncate(MAX_HOPS);
        let v4 = self.acquire_hop_set(&hops);
        if self.single_v6 {
            hops.truncate(1);
        }
        let v6 = self.acquire_hop_set(&hops);
        for &announcement in announcements {
            self.announcements.retain(announcement);
        }
        self.sets.insert(announcements.into(), [v4, v6])
    }

    /// Returns whether sorted announcements, one of them new, lead to more hops than a route has.
    /// Looks at powers of two alone beyond twice as many: then each more costs little.
    pub(super) fn exceeds_hops(&self, announcements: &[u32]) -> bool {
        let count = announcements.len();
        if count <= MAX_HOPS || (count > 2 * MAX_HOPS && !count.is_power_of_two()) {
            return false;
        }
        let hops = announcements.iter().map(|&it| *self.announcements.aux(it));
        let mut hops: Vec<u32> = hops.filter(|it| *it != NONE).collect();
        hops.sort_unstable();
        hops.dedup();
        hops.len() > MAX_HOPS
    }

    pub(super) fn release_set(&mut self, set: u32) {
        if set == NONE {
            return;
        }
        if let Some((announcements, hop_sets)) = self.sets.release(set) {
            for &announcement in &announcements {
                self.release_announcement(announcement);
            }
            for hop_set in hop_sets {
                self.release_hop_set(hop_set);
            }
        }
    }

    /// The hops that routes of `family` with these announcements go to; [`NONE`] for none.
    pub(super) fn hop_set(&self, set: u32, family: Family) -> u32 {
        if set == NONE {
            return NONE;
        }
        self.sets.aux(set)[family as usize]
    }

    fn acquire_hop(&mut self, hop: Hop) -> u32 {
        let id = self.hops.find(&hop);
        if id == NONE {
            return self.hops.insert(hop, 0);
        }
        self.hops.retain(id);
        id
    }

    /// Sorts by address, so that every run and every machine uses one order.
    fn order(&self, hops: &mut Vec<u32>) {
        hops.sort_unstable_by_key(|&hop| self.hops.key(hop));
        hops.dedup();
    }

    /// The set of hops in the order of their addresses; [`NONE`] for no hop.
    pub(super) fn acquire_hop_set(&mut self, hops: &[u32]) -> u32 {
        if hops.is_empty() {
            return NONE;
        }
        let id = self.hop_sets.find(hops);
        if id != NONE {
            self.hop_sets.retain(id);
            return id;
        }
        for &hop in hops {
            self.hops.retain(hop);
        }
        let aux = SetUse {
            object: NONE,
            wanted: 0,
        };
        self.hop_sets.insert(hops.into(), aux)
    }

    /// The set of hops with these addresses, in any order, by a device.
    pub(super) fn acquire_addresses(&mut self, device: u8, addresses: &[Ipv6Addr]) -> u32 {
        let hops = addresses.iter().map(|&address| Hop { device, address });
        let taken: Vec<u32> = hops.map(|hop| self.acquire_hop(hop)).collect();
        let set = self.acquire_hops(taken.clone());
        for hop in taken {
            self.hops.release(hop);
        }
        set
    }

    /// The set of these hops, in any order.
    pub(super) fn acquire_hops(&mut self, mut hops: Vec<u32>) -> u32 {
        self.order(&mut hops);
        self.acquire_hop_set(&hops)
    }

    pub(super) fn retain_hop_set(&mut self, set: u32) {
        self.hop_sets.retain(set);
    }

    pub(super) fn release_hop_set(&mut self, set: u32) {
        if set == NONE {
            return;
        }
        if let Some((hops, _)) = self.hop_sets.release(set) {
            for &hop in &hops {
                self.hops.release(hop);
            }
        }
    }

    /// The hops of a set, by address.
    pub(super) fn hops(&self, set: u32) -> &[u32] {
        self.hop_sets.key(set)
    }

    /// Whether every hop of `part` is in `whole`.
    pub(super) fn is_subset(&self, part: u32, whole: u32) -> bool {
        let whole = self.hop_sets.key(whole);
        self.hop_sets
            .key(part)
            .iter()
            .all(|hop| whole.contains(hop))
    }

    /// The lowest address of a set.
    pub(super) fn lowest(&self, set: u32) -> Ipv6Addr {
        self.address(self.hops(set)[0])
    }

    pub(super) fn address(&self, hop: u32) -> Ipv6Addr {
        self.hops.key(hop).address
    }

    /// The number of a hop, or [`NONE`]; takes no reference.
    pub(super) fn find_hop(&self, hop: Hop) -> u32 {
        self.hops.find(&hop)
    }

    pub(super) fn hop(&self, hop: u32) -> Hop {
        *self.hops.key(hop)
    }

    /// The device by which a set leads.
    pub(super) fn device(&self, set: u32) -> u8 {
        self.hop(self.hops(set)[0]).device
    }

    /// The set that holds nothing but `hop`, or [`NONE`]; takes no reference.
    pub(super) fn find_single(&self, hop: u32) -> u32 {
        if hop == NONE || !self.hops.contains(hop) {
            return NONE;
        }
        self.hop_sets.find([hop].as_slice())
    }

    pub(super) fn object(&self, hop_set: u32) -> u32 {
        self.hop_sets.aux(hop_set).object
    }

    pub(super) fn set_object(&mut self, hop_set: u32, object: u32) {
        self.hop_sets.aux_mut(hop_set).object = object;
    }

    /// As [`Self::set_object`], where there is none.
    pub(super) fn offer_object(&mut self, hop_set: u32, object: u32) {
        let known = &mut self.hop_sets.aux_mut(hop_set).object;
        if *known == NONE {
            *known = object;
        }
    }

    /// Forgets which objects exist.
    pub(super) fn forget_objects(&mut self) {
        for id in self.hop_sets.ids() {
            self.hop_sets.aux_mut(id).object = NONE;
        }
    }

    /// One more route wants the set.
    pub(super) fn want(&mut self, hop_set: u32) {
        if hop_set == NONE {
            return;
        }
        let aux = self.hop_sets.aux_mut(hop_set);
        aux.wanted += 1;
        if aux.wanted == 1 {
            for &hop in self.hop_sets.key(hop_set) {
                *self.hops.aux_mut(hop) += 1;
            }
        }
    }

    /// One route less wants the set; pushes the hops that nobody wants any more.
    pub(super) fn unwant(&mut self, hop_set: u32, unwanted: &mut Vec<u32>) {
        if hop_set == NONE {
            return;
        }
        let aux = self.hop_sets.aux_mut(hop_set);
        aux.wanted -= 1;
        if aux.wanted == 0 {
            for &hop in self.hop_sets.key(hop_set) {
                let sets = self.hops.aux_mut(hop);
                *sets -= 1;
                if *sets == 0 {
                    unwanted.push(hop);
                }
            }
        }
    }

    /// Whether a route wants the set.
    pub(super) fn is_set_wanted(&self, hop_set: u32) -> bool {
        self.hop_sets.aux(hop_set).wanted > 0
    }

    pub(super) fn is_wanted(&self, hop: u32) -> bool {
        self.hops.contains(hop) && *self.hops.aux(hop) > 0
    }

    /// How many values are stored, to find leaks.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        [
            self.hops.len(),
            self.hop_sets.len(),
            self.announcements.len(),
            self.sets.len(),
        ]
    }
}
