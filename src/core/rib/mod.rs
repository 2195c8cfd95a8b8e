//! The RIB of one VNI: who announces what, and the log that tells it to subscribers.
//!
//! A route is held per announcing peer; peer S sees it exactly when some peer other
//! than S announces it. So a change means something to all but one peer, or to one alone:
//!
//! ```text
//! holders of a route      in the log
//! none -> a               ADD, all but a
//! a -> a and b            ADD, only a
//! a and b -> a            REMOVE, only a
//! a -> none               REMOVE, all but a
//! ```
//!
//! Several changes of such a route between two times that changes are handed out are logged as
//! what they amount to (`contest`).
//!
//! With these marks the log, read from its beginning, is right for every peer:
//!
//! ```text
//! apply --> Routes --> Effect --> Log::append --> take_fresh: spans for subscribers
//! join  --> the log from its beginning, as spans; encoded once for everybody
//! ```

mod contest;
mod log;
mod next_hops;
mod routes;
mod segment;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use next_hops::{NextHopId, NextHops};
pub(crate) use segment::{Mark, SEGMENT_BYTES, Segment, SegmentBuilder, Span, count_frames};
use summary::Tally;
pub use summary::{Digest, TableSummary};

use std::sync::Arc;

use crate::core::types::{Action, Route, Vni};
use crate::core::wire::encode_update;
use log::Log;
pub(crate) use routes::Slot;
use routes::{Effect, Holders, Routes, State};

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

/// How much history a log may have before it is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// As much as is live.
    Usual,
    /// A quarter of that: memory is short.
    Short,
    /// Hardly any: memory is needed, and nobody changes the table.
    Least,
}

/// What a step of a compaction did.
#[derive(Debug)]
pub(crate) struct Compacted {
    /// Slots that it visited.
    pub(crate) slots: usize,
    /// The segments of the log that was replaced: some may still be sent.
    pub(crate) old: Vec<Arc<Segment>>,
}

/// The table of one VNI.
#[derive(Debug)]
pub(crate) struct VniTable {
    vni: Vni,
    routes: Routes,
    log: Log,
    tally: Tally,
}

// There may be a table in each of many VNIs.
const _: () = assert!(size_of::<VniTable>() <= 144);

impl VniTable {
    pub(crate) fn new(vni: Vni) -> Self {
        Self {
            vni,
            routes: Routes::new(),
            log: Log::default(),
            tally: Tally::default(),
        }
    }

    /// How many routes somebody announces.
    pub(crate) fn len(&self) -> usize {
        self.tally.routes()
    }

    /// The table in numbers.
    pub(crate) fn summary(&self) -> TableSummary {
        self.tally.summary()
    }

    /// Returns the bytes that it has allocated, its log included, with itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.routes.heap_bytes() + self.log.heap_bytes()
    }

    /// How many bytes more one more route may take: a large table grows by leaps.
    pub(crate) fn growth(&self) -> usize {
        self.routes.growth()
    }

    /// Whether no route is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.tally.routes() == 0
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
    ) {
        let (slot, effect) = match action {
            Action::Add => self.routes.announce(hops, peer, route),
            Action::Remove => self.routes.withdraw(hops, peer, route),
        };
        self.log(hops, slot, effect, peer, action, route);
    }

    /// Withdraws the next route of a peer that is gone. Returns `false` once it has no more.
    pub(crate) fn withdraw_one(&mut self, hops: &mut NextHops, peer: PeerId) -> bool {
        let Some((route, slot, effect)) = self.routes.withdraw_any(hops, peer) else {
            return false;
        };
        self.log(hops, slot, effect, peer, Action::Remove, &route);
        true
    }

    fn log(
        &mut self,
        hops: &NextHops,
        slot: Slot,
        effect: Effect,
        by: PeerId,
        action: Action,
        route: &Route,
    ) {
        match (effect, action) {
            (Effect::Nothing, _) => return,
            (Effect::AllBut, Action::Add) => self.tally.add(route),
            (Effect::AllBut, Action::Remove) => self.tally.remove(route),
            (Effect::Only(_), _) => {}
        }
        if self.log.contested() > 0 && self.log.is_contested(route) {
            return;
        }
        let holders = match (effect, action) {
            (Effect::Nothing | Effect::AllBut, _) => {
                let vni = self.vni;
                self.log.append(Mark::AllBut(by), action, slot, |frame| {
                    encode_update(frame, action, vni, route);
                });
                return;
            }
            (Effect::Only(peer), Action::Add) => Holders::One(peer),
            (Effect::Only(_), Action::Remove) => Holders::Several,
        };
        let before = State { holders, slot };
        self.log.contest(route, before, hops.hasher());
    }

    /// How many routes [`Self::take_fresh`] has to look at.
    pub(crate) fn contested(&self) -> usize {
        self.log.contested()
    }

    /// What changed since the last call, for those who subscribed before.
    pub(crate) fn take_fresh(&mut self, hops: &NextHops) -> Vec<Span> {
        let (vni, routes) = (self.vni, &self.routes);
        let encode = |frame: &mut Vec<u8>, action, route: &_| {
            encode_update(frame, action, vni, route);
        };
        self.log.settle(|route| routes.state(hops, route), encode);
        self.log.take_fresh()
    }

    /// The log, for a subscriber that joins: what a peer gets of it ([`Span::for_peer`]) is what
    /// it sees now.
    ///
    /// To be called with nothing fresh left to take, so that the joiner hears
    /// every change either in these spans or after them.
    pub(crate) fn join(&mut self) -> Vec<Span> {
        debug_assert!(!self.log.has_fresh());
        self.log.seal().map(Span::whole).collect()
    }

    /// Whether [`Self::compact`] has begun and not finished.
    pub(crate) fn is_compacting(&self) -> bool {
        self.log.is_compacting()
    }

    /// Whether [`Self::compact`] has work.
    pub(crate) fn wants_compaction(&self, history: History) -> bool {
        self.wants_rewriting(history) || self.routes.is_sparse()
    }

    /// Whether the log has outgrown its table.
    pub(crate) fn wants_rewriting(&self, history: History) -> bool {
        self.log.wants_compaction(history)
    }

    /// The segments of its log.
    pub(crate) fn into_segments(self) -> Vec<Arc<Segment>> {
        self.log.into_segments()
    }

    /// Rewrites up to `budget` routes of a log that has outgrown its table; or, if it has not,
    /// gives back memory of routes that are gone.
    pub(crate) fn compact(
        &mut self,
        hops: &NextHops,
        history: History,
        budget: usize,
    ) -> Compacted {
        debug_assert!(!self.log.has_fresh());
        if !self.log.wants_compaction(history) {
            return Compacted {
                slots: self.routes.shrink(budget),
                old: Vec::new(),
            };
        }
        let from = self.log.begin_compaction();
        let (vni, log) = (self.vni, &mut self.log);
        let next = self.routes.visit(hops, from, budget, |route, mark| {
            log.rewrite(mark, |frame| {
                encode_update(frame, Action::Add, vni, &route);
            });
        });
        let slots = self.routes.slots_after(from).min(budget);
        match next {
            Some(next) => self.log.compaction_reached(next),
            None => {
                let old = self.log.finish_compaction();
                return Compacted { slots, old };
            }
        }
        Compacted {
            slots,
            old: Vec::new(),
        }
    }

    /// Every route with all its announcers, at most `budget` slots below `from`, first
    /// [`Slot::END`]; what comes next, if anything.
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
    pub(crate) fn logged_bytes(&self) -> usize {
        self.log.bytes()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn check_invariants(&self) {
        self.routes.check_invariants(self.tally.routes());
        self.log.check_invariants(self.tally.routes());
    }
}
