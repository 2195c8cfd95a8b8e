//! The table of a VNI and its subscribers' shares, one step at a time.

use crate::core::rib::{NextHops, PeerId, Span, VniTable};
use crate::core::types::{Action, Route, Vni};
use crate::inspect::TableSummary;

/// A change that only one peer hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeForOne {
    pub to: u32,
    pub action: Action,
    pub route: Route,
}

/// Frames, marked with the peers they came from.
pub struct Spans(Vec<Span>);

impl Spans {
    /// The frames that a subscriber is sent.
    pub fn for_peer(&self, peer: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for span in &self.0 {
            let push = &mut |span: Span| bytes.extend_from_slice(span.bytes());
            span.clone().without(PeerId(peer), push);
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
            table: VniTable::new(Vni(1), 1),
            hops: NextHops::new(1),
        }
    }
}

impl Rib {
    pub fn apply(&mut self, peer: u32, action: Action, route: &Route) -> Option<ChangeForOne> {
        let hops = &mut self.hops;
        let told = self.table.apply(hops, PeerId(peer), action, route);
        told.map(ChangeForOne::from)
    }

    /// Withdraws the next route of a peer that is gone; `None` once it has no more.
    pub fn withdraw_one(&mut self, peer: u32) -> Option<Option<ChangeForOne>> {
        let told = self.table.withdraw_one(&mut self.hops, PeerId(peer))?;
        Some(told.map(ChangeForOne::from))
    }

    /// What is fresh, for those who joined before.
    pub fn take_fresh(&mut self) -> Spans {
        Spans(self.table.take_fresh())
    }

    /// The initial table of a peer; with nothing fresh left to take.
    pub fn join(&mut self, peer: u32) -> Spans {
        Spans(self.table.join(&self.hops, PeerId(peer)))
    }

    /// One step of a compaction, wanted or not; with nothing fresh left to take.
    pub fn compact(&mut self, budget: usize) {
        self.table.compact(&self.hops, budget);
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

impl From<crate::core::rib::ChangeForOne> for ChangeForOne {
    fn from(told: crate::core::rib::ChangeForOne) -> Self {
        Self {
            to: told.to.0,
            action: told.action,
            route: told.route,
        }
    }
}
