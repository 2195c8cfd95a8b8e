//! The RIB of one VNI: who announces what, and the log that tells it to subscribers.
//!
//! A route is held per announcing peer; peer S sees it exactly when some peer other
//! than S announces it. Every change that all but one peer must hear goes into the
//! log, marked with that one; a change for a single peer is a [`ChangeForOne`].
//!
//! ```text
//! apply --> Routes --> Effect::AllBut --> Log::append --> take_fresh: spans for subscribers
//!                  \-> Effect::Only   --> ChangeForOne: a frame for that peer alone
//! join  --> the log from its beginning, as spans; encoded once for everybody
//! ```

mod log;
mod next_hops;
mod routes;
mod segment;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use next_hops::{NextHopId, NextHops};
pub(crate) use segment::{SEGMENT_BYTES, Segment, Span, count_frames};
pub use summary::{Digest, TableSummary};

use crate::core::types::{Action, Route, Vni};
use crate::core::wire::encode_update;
use log::Log;
pub(crate) use routes::Slot;
use routes::{Effect, Routes};

/// Who announces: a session, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(pub(crate) u32);

impl PeerId {
    /// No session has it: what is marked with it, every subscriber gets.
    pub(crate) const NOBODY: Self = Self(u32::MAX);

    /// This process itself, where it announces in its own name.
    pub(crate) const SELF: Self = Self(u32::MAX - 1);

    /// How many ids sessions have.
    pub(crate) const SESSIONS: u32 = u32::MAX - 1;
}

/// A change that only one peer must hear, if it subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeForOne {
    pub(crate) to: PeerId,
    pub(crate) action: Action,
    pub(crate) route: Route,
}

/// The table of one VNI.
#[derive(Debug)]
pub(crate) struct VniTable {
    vni: Vni,
    routes: Routes,
    log: Log,
    frame: Vec<u8>,
    summary: TableSummary,
}

impl VniTable {
    /// An empty table; `seed` keeps peers from choosing colliding routes.
    pub(crate) fn new(vni: Vni, seed: u64) -> Self {
        Self {
            vni,
            routes: Routes::new(seed),
            log: Log::default(),
            frame: Vec::new(),
            summary: TableSummary::default(),
        }
    }

    /// How many routes somebody announces.
    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    /// The table in numbers.
    pub(crate) fn summary(&self) -> TableSummary {
        self.summary
    }

    /// Whether neither a route nor a peer is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes `peer` announces.
    pub(crate) fn announced_by(&self, peer: PeerId) -> usize {
        self.routes.announced_by(peer)
    }

    /// The routes that `peer` announces.
    pub(crate) fn of(&self, hops: &NextHops, peer: PeerId) -> impl Iterator<Item = Route> {
        self.routes.of(hops, peer)
    }

    /// Announces or withdraws a route of `peer`.
    pub(crate) fn apply(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
        action: Action,
        route: &Route,
    ) -> Option<ChangeForOne> {
        let (slot, effect) = match action {
            Action::Add => self.routes.announce(hops, peer, route),
            Action::Remove => self.routes.withdraw(hops, peer, route),
        };
        self.tell(slot, effect, peer, action, *route)
    }

    /// Withdraws the next route of a peer that is gone; `None` once it has no more.
    pub(crate) fn withdraw_one(
        &mut self,
        hops: &mut NextHops,
        peer: PeerId,
    ) -> Option<Option<ChangeForOne>> {
        let Some((route, slot, effect)) = self.routes.withdraw_any(hops, peer) else {
            self.routes.forget(peer);
            return None;
        };
        Some(self.tell(slot, effect, peer, Action::Remove, route))
    }

    fn tell(
        &mut self,
        slot: Slot,
        effect: Effect,
        by: PeerId,
        action: Action,
        route: Route,
    ) -> Option<ChangeForOne> {
        match effect {
            Effect::Nothing => None,
            Effect::AllBut => {
                match action {
                    Action::Add => self.summary.add(&route),
                    Action::Remove => self.summary.remove(&route),
                }
                self.frame.clear();
                encode_update(&mut self.frame, action, self.vni, &route);
                self.log.append(action, slot, by, &self.frame);
                None
            }
            Effect::Only(to) => Some(ChangeForOne { to, action, route }),
        }
    }

    /// What was logged since the last call, for those who subscribed before.
    pub(crate) fn take_fresh(&mut self) -> Vec<Span> {
        self.log.take_fresh()
    }

    /// Everything `peer` sees now, for a subscriber that joins.
    ///
    /// To be called with nothing fresh left to take, so that the joiner hears
    /// every change either in these spans or after them.
    pub(crate) fn join(&mut self, hops: &NextHops, peer: PeerId) -> Vec<Span> {
        debug_assert!(!self.log.has_fresh());
        if self.routes.needs_private_table(peer) {
            return self.private_table(hops, peer);
        }
        let mut spans = Vec::new();
        for segment in self.log.seal() {
            Span::whole(segment).without(peer, &mut |span| spans.push(span));
        }
        spans
    }

    /// What `peer` sees, encoded for it alone.
    ///
    /// The log marks every change with one peer; where two announced the same
    /// route, it cannot say what each of them sees.
    fn private_table(&mut self, hops: &NextHops, peer: PeerId) -> Vec<Span> {
        let mut log = Log::default();
        self.routes.for_each(hops, |slot, route, announcer| {
            if announcer != peer {
                self.frame.clear();
                encode_update(&mut self.frame, Action::Add, self.vni, &route);
                log.append(Action::Add, slot, PeerId::NOBODY, &self.frame);
            }
        });
        log.take_fresh()
    }

    /// Whether [`Self::compact`] has work.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.log.wants_compaction()
    }

    /// Rewrites up to `budget` routes of a log that has outgrown its table.
    pub(crate) fn compact(&mut self, hops: &NextHops, budget: usize) {
        debug_assert!(!self.log.has_fresh());
        let Some(from) = self.log.compaction_cursor() else {
            self.routes.begin_compaction();
            self.log.begin_compaction();
            return;
        };
        let (vni, log, frame) = (self.vni, &mut self.log, &mut self.frame);
        let next = self.routes.visit(hops, from, budget, |route, announcer| {
            frame.clear();
            encode_update(frame, Action::Add, vni, &route);
            log.rewrite(announcer, frame);
        });
        match next {
            Some(next) => self.log.compaction_reached(next),
            None => {
                self.log.finish_compaction();
                self.routes.finish_compaction();
            }
        }
    }

    /// Every route with all its announcers, at most `budget` slots beginning at `from`; what
    /// comes next, if anything.
    pub(crate) fn walk(
        &self,
        hops: &NextHops,
        from: Slot,
        budget: usize,
        each: impl FnMut(Route, &[PeerId]),
    ) -> Option<Slot> {
        self.routes.walk(hops, from, budget, each)
    }

    /// Bytes of encoded frames that the log holds.
    #[cfg(test)]
    pub(crate) fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn check_invariants(&self) {
        self.routes.check_invariants();
        assert_eq!(self.summary.routes(), self.routes.len());
        self.log.check_invariants(self.routes.len());
    }
}
