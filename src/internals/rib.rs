//! The table of a VNI and its subscribers' shares, one step at a time.

use crate::core::rib::{History, NextHops, PeerId, Span, VniTable};
use crate::core::types::{Action, Route, Vni};
use crate::inspect::TableSummary;

/// Frames, marked with the peers they came from.
pub struct Spans(Vec<Span>);

impl Spans {
    /// The frames that a subscriber is sent.
    pub fn for_peer(&self, peer: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for span in &self.0 {
            let push = &mut |span: Span| bytes.extend_from_slice(span.bytes());
            span.clone().for_peer(PeerId(peer), push);
        }
        bytes
    }
}

/// The table of VNI 1 and the next hops it refers to.
pub struct Rib {
    table: VniTable,
    hops: NextHops,
}

impl Default for Rib {
    fn default() -> Self {
        Self {
            table: VniTable::new(Vni(1)),
            hops: NextHops::new(1),
        }
    }
}

impl Rib {
    pub fn apply(&mut self, peer: u32, action: Action, route: &Route) {
        let hops = &mut self.hops;
        self.table.apply(hops, PeerId(peer), action, route);
    }

    /// Withdraws the next route of a peer that is gone. Returns `false` once it has no more.
    pub fn withdraw_one(&mut self, peer: u32) -> bool {
        self.table.withdraw_one(&mut self.hops, PeerId(peer))
    }

    /// What is fresh, for those who joined before.
    pub fn take_fresh(&mut self) -> Spans {
        Spans(self.table.take_fresh(&self.hops))
    }

    /// The initial table of a peer; with nothing fresh left to take.
    pub fn join(&mut self) -> Spans {
        Spans(self.table.join())
    }

    /// One step of a compaction, if that can spare something; with nothing fresh left to take.
    pub fn compact(&mut self, budget: usize) {
        self.table.compact(&self.hops, History::Least, budget);
    }

    pub fn announced_by(&self, peer: u32) -> Vec<Route> {
        let routes: Vec<Route> = self.table.of(&self.hops, PeerId(peer)).collect();
        assert_eq!(routes.len(), self.table.announced_by(PeerId(peer)));
        routes
    }

    pub fn summary(&self) -> TableSummary {
        self.table.summary()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty() && self.hops.len() == 0
    }

    /// # Panics
    ///
    /// If the table contradicts itself.
    pub fn check(&self) {
        self.table.check_invariants();
    }
}
