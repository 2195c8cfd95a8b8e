//! What the tables of a shard look like; nothing here changes a route.

use super::{Owned, Owner, Usage};
use crate::core::rib::{PeerId, Slot, Span, TableSummary, VniTable};
use crate::core::types::{Route, Vni};

/// How far a walk over all routes is.
///
/// Between two steps tables may change: what is there all the time is met once, unless its VNI
/// went and came back.
#[derive(Clone, Debug)]
pub(crate) struct RouteCursor {
    /// Those to come, the next one last.
    vnis: Vec<Vni>,
    /// Of the next one, what is below it is to come.
    slot: Slot,
}

impl Owner {
    fn table(&self, vni: Vni) -> Option<&VniTable> {
        self.vnis.get(&vni).map(|owned| &owned.table)
    }

    /// In how many VNIs a peer announces, or waits for the table.
    #[cfg(test)]
    pub(crate) fn present(&self, peer: PeerId) -> usize {
        let announced = self.announcers.get(&peer).map_or(0, |it| it.vnis.len());
        announced + self.joins.waiting(peer)
    }

    /// The VNIs that somebody announces in or subscribes to: table and subscribers.
    pub(crate) fn for_each_vni(&self, mut each: impl FnMut(Vni, TableSummary, usize)) {
        for (&vni, owned) in &self.vnis {
            each(vni, owned.table.summary(), owned.subscribers());
        }
        self.bare
            .for_each(|vni, subscribers| each(vni, TableSummary::default(), subscribers));
    }

    /// How many routes each peer announces here.
    pub(crate) fn for_each_announcer(&self, mut each: impl FnMut(PeerId, usize)) {
        for (&peer, announcer) in &self.announcers {
            each(peer, announcer.routes);
        }
    }

    /// How many routes the process announces here in its own name.
    pub(crate) fn own_count(&self) -> usize {
        let own = self.announcers.get(&PeerId::SELF);
        own.map_or(0, |it| it.routes)
    }

    /// Those routes.
    pub(crate) fn own(&self) -> Vec<(Vni, Route)> {
        let own = self.announcers.get(&PeerId::SELF).into_iter();
        let vnis = own.flat_map(|it| &it.vnis);
        let tables = vnis.filter_map(|vni| Some((*vni, self.table(*vni)?)));
        let routes = tables.flat_map(|(vni, table)| {
            let routes = table.of(&self.hops, PeerId::SELF);
            routes.map(move |route| (vni, route))
        });
        routes.collect()
    }

    /// Returns what the owner has allocated.
    pub(in crate::core::reflector) fn usage(&self) -> Usage {
        // A tree keeps about that much for each VNI of an announcer.
        const ANNOUNCED_VNI: usize = 12;
        Usage {
            tables: self.table_bytes + self.hops.heap_bytes(),
            queues: self.segments.bytes(),
            sessions: self.vnis.allocation_size()
                + self.vnis.len() * (size_of::<Owned>() - size_of::<VniTable>() + ANNOUNCED_VNI)
                + self.bare.heap_bytes(),
        }
    }

    /// The peer that announces most here, and about how many bytes its routes take.
    pub(in crate::core::reflector) fn greatest_announcer(&self) -> Option<(PeerId, usize)> {
        let bytes = self.table_bytes / self.announcements.max(1);
        let sessions = self.announcers.iter().filter(|it| *it.0 != PeerId::SELF);
        let greatest = sessions.max_by_key(|it| it.1.routes);
        greatest.map(|(peer, it)| (*peer, it.routes * bytes))
    }

    /// Announcements that came or went, so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Begins a walk over the routes of one VNI, or of all.
    pub(crate) fn walk(&self, vni: Option<Vni>) -> RouteCursor {
        let mut vnis: Vec<Vni> = match vni {
            Some(vni) => vec![vni],
            None => self.vnis.keys().copied().collect(),
        };
        vnis.sort_unstable_by(|a, b| b.cmp(a));
        RouteCursor {
            vnis,
            slot: Slot::END,
        }
    }

    /// Goes on with a walk for at most `budget` slots, a VNI counting as one; whether it is over.
    pub(crate) fn step(
        &self,
        cursor: &mut RouteCursor,
        mut budget: usize,
        mut each: impl FnMut(Vni, Route, &[PeerId]),
    ) -> bool {
        while let Some(&vni) = cursor.vnis.last() {
            if budget == 0 {
                return false;
            }
            if let Some(table) = self.table(vni) {
                let each = |route, peers: &[PeerId]| each(vni, route, peers);
                let next = table.walk(&self.hops, cursor.slot, budget, each);
                if let Some(next) = next {
                    cursor.slot = next;
                    return false;
                }
                budget = budget.saturating_sub(table.len());
            }
            budget = budget.saturating_sub(1);
            cursor.vnis.pop();
            cursor.slot = Slot::END;
        }
        true
    }

    /// From now on, [`Self::take_watched`] has every change; or not any more.
    pub(crate) fn set_watched(&mut self, is_watched: bool) {
        if is_watched != self.watched.is_some() {
            self.watched = is_watched.then(Vec::new);
        }
    }

    /// What changed since the last call, in order for each VNI.
    pub(crate) fn take_watched(&mut self) -> Vec<(Vni, Vec<Span>)> {
        self.watched
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The table of one VNI or of all; what [`Self::take_watched`] has afterwards belongs to it.
    pub(crate) fn current(&mut self, vni: Option<Vni>) -> Vec<(Vni, Vec<Span>)> {
        let vnis: Vec<Vni> = match vni {
            Some(vni) => vec![vni],
            None => self.vnis.keys().copied().collect(),
        };
        let mut tables = Vec::new();
        for vni in vnis {
            self.flush(vni);
            if let Some(owned) = self.vnis.get_mut(&vni) {
                let mut seen = Vec::new();
                for span in owned.table.join() {
                    span.for_peer(PeerId::NOBODY, &mut |span| seen.push(span));
                }
                tables.push((vni, seen));
            }
        }
        tables
    }
}
