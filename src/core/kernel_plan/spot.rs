//! Where the routes of a VNI belong.

use std::collections::BTreeSet;

use super::{Family, Place, Plan};
use crate::core::types::Vni;

/// A kernel table, and the metrics and the device of our routes there. Of one table and
/// metric there is one device.
pub(super) struct Spot {
    pub(super) table: u32,
    /// Of IPv4 and of IPv6 routes, as the kernel shows them.
    pub(super) metrics: [u32; 2],
    /// By which they lead; see [`super::Hop::device`].
    pub(super) device: u8,
    /// VNIs that are not complete yet.
    pub(super) waiting: BTreeSet<Vni>,
    /// Destinations that are announced and not in the kernel.
    pub(super) absent: usize,
}

impl Spot {
    /// Whether all its VNIs are complete.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The position of a spot, old or new.
///
/// # Panics
///
/// For more than 65,536 of them; the configuration allows fewer.
pub(super) fn find_or_add(spots: &mut Vec<Spot>, table: u32, metrics: [u32; 2], device: u8) -> u16 {
    let is_it = |it: &Spot| it.table == table && it.metrics == metrics && it.device == device;
    let known = spots.iter().position(is_it);
    let position = known.unwrap_or(spots.len());
    if known.is_none() {
        spots.push(Spot {
            table,
            metrics,
            device,
            waiting: BTreeSet::new(),
            absent: 0,
        });
    }
    u16::try_from(position).expect("the configuration allows 65,535 tables")
}

impl Plan {
    /// The spot that a place belongs to.
    pub(super) fn position(&self, place: &Place) -> Option<u16> {
        let family = Family::of(place.prefix) as usize;
        let is_it = |it: &Spot| it.table == place.table && it.metrics[family] == place.metric;
        let position = self.tables.iter().position(is_it);
        position.and_then(|position| u16::try_from(position).ok())
    }

    /// The spots of a table.
    pub(super) fn positions_in(&self, table: u32) -> Vec<u16> {
        let spots = (0_u16..).zip(&self.tables);
        let of_table = spots.filter(|(_, it)| it.table == table);
        of_table.map(|(position, _)| position).collect()
    }
}
