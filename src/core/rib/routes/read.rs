//! What the announcements of a VNI look like; nothing here changes one.

use super::{EntryRole, Key, NextHops, PeerId, Routes, Slot};
use crate::core::rib::segment::Mark;
use crate::core::types::Route;

/// Who announces a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core::rib) enum Holders {
    Nobody,
    One(PeerId),
    Several,
}

/// A route at some moment.
#[derive(Clone, Copy, Debug)]
pub(in crate::core::rib) struct State {
    pub(in crate::core::rib) holders: Holders,
    /// Of no meaning if nobody holds it.
    pub(in crate::core::rib) slot: Slot,
}

impl State {
    /// The state as a log has it that is rewritten up to `cursor`.
    pub(in crate::core::rib) fn below(self, cursor: Slot) -> Holders {
        match self.holders {
            Holders::One(_) | Holders::Several if self.slot < cursor => self.holders,
            Holders::Nobody | Holders::One(_) | Holders::Several => Holders::Nobody,
        }
    }
}

impl Routes {
    /// The routes that `peer` announces.
    pub(crate) fn of(&self, hops: &NextHops, peer: PeerId) -> impl Iterator<Item = Route> {
        let first = self.head(peer);
        let entry = |slot: u32| (slot != Slot::NONE).then(|| &self.slots[slot]);
        let listed = std::iter::successors(entry(first), move |it| entry(it.next));
        listed.map(|it| it.key().route(hops))
    }

    /// Who announces a route.
    pub(in crate::core::rib) fn state(&self, hops: &NextHops, route: &Route) -> State {
        let next_hop = hops.find(&route.next_hop);
        let key = next_hop.map(|next_hop| Key::new(&route.destination, next_hop));
        let Some(slot) = key.and_then(|key| self.find(&key)) else {
            return State {
                holders: Holders::Nobody,
                slot: Slot::END,
            };
        };
        let first = &self.slots[slot];
        let holders = match first.sibling {
            Slot::NONE => Holders::One(first.peer),
            _ => Holders::Several,
        };
        State {
            holders,
            slot: Slot(slot),
        }
    }

    /// How many slots there are from `from` on, used or free.
    pub(crate) fn slots_after(&self, from: Slot) -> usize {
        self.slots.end().saturating_sub(from.0) as usize
    }

    /// Every route and whom its announcement is for, at most `budget` slots beginning at
    /// `from`. Returns what comes next, if anything.
    pub(crate) fn visit(
        &self,
        hops: &NextHops,
        from: Slot,
        budget: usize,
        mut each: impl FnMut(Route, Mark),
    ) -> Option<Slot> {
        let end = self.slots.end();
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        let stop = end.min(from.0.saturating_add(budget));
        for slot in from.0..stop {
            if let Some(entry) = self.slots.get(slot)
                && entry.role == EntryRole::First
            {
                each(entry.key().route(hops), entry.mark());
            }
        }
        (stop < end).then_some(Slot(stop))
    }

    /// Every route with all its announcers, at most `budget` slots below `from`; what comes next,
    /// if anything.
    ///
    /// Goes downwards: [`Self::shrink`] moves a route down, where the walk meets it again rather
    /// than never.
    pub(crate) fn walk(
        &self,
        hops: &NextHops,
        from: Slot,
        budget: usize,
        mut each: impl FnMut(Route, &[PeerId]),
    ) -> Option<Slot> {
        let begin = from.0.min(self.slots.end());
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        let stop = begin.saturating_sub(budget);
        let mut peers = Vec::new();
        for slot in (stop..begin).rev() {
            if let Some(entry) = self.slots.get(slot)
                && entry.role == EntryRole::First
            {
                let chain = self.chain(slot).map(|it| self.slots[it].peer);
                peers.clear();
                peers.extend(chain);
                each(entry.key().route(hops), &peers);
            }
        }
        (stop > 0).then_some(Slot(stop))
    }
}
