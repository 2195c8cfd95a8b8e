//! Sessions whose changes are coalesced: one after the other, as far as a turn has room.

use std::collections::VecDeque;

use super::Home;
use crate::core::reflector::coalesce::coalesce;
use crate::core::reflector::meter::{self, Meter};
use crate::core::rib::{PeerId, Span};

/// Results that are kept for others with the same changes.
const RESULTS: usize = 4;

/// The line of those sessions, and what was found for those before them.
#[derive(Debug)]
pub(super) struct Laggards {
    line: VecDeque<PeerId>,
    meter: Meter,
    /// Changes, and what they amount to. Those who stalled at the same time miss the same. Kept
    /// while somebody stands in line.
    results: VecDeque<(Vec<Span>, Vec<Span>)>,
}

impl Laggards {
    pub(super) fn new() -> Self {
        Self {
            line: VecDeque::new(),
            meter: Meter::full(),
            results: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Returns what changes amount to; shared with all who asked for the same.
    fn reduce(&mut self, changes: Vec<Span>, seed: u64, new: &mut impl FnMut(&Span)) -> Vec<Span> {
        let is_same = |other: &[Span]| {
            other.len() == changes.len() && other.iter().zip(&changes).all(|(a, b)| a.is_same(b))
        };
        self.meter.charge(changes.len() / 8);
        if let Some((_, result)) = self.results.iter().find(|it| is_same(&it.0)) {
            return result.clone();
        }
        let bytes: usize = changes.iter().map(Span::len).sum();
        self.meter.charge(bytes / meter::COALESCED_BYTES);
        let result = coalesce(&changes, seed);
        result.iter().for_each(new);
        self.results.truncate(RESULTS - 1);
        self.results.push_front((changes, result.clone()));
        result
    }
}

impl Home {
    /// Coalesces the changes of a session, now or when its turn in the line has come.
    pub(super) fn coalesce(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !self.laggards.meter.is_spent() {
            self.coalesce_now(id);
        } else if !std::mem::replace(&mut peer.is_in_line, true) {
            self.laggards.line.push_back(id);
        }
    }

    fn coalesce_now(&mut self, id: PeerId) {
        let seed = self.config.seed;
        let (laggards, segments) = (&mut self.laggards, &mut self.segments);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.is_in_line = false;
        laggards.meter.charge(1);
        let new = &mut |span: &Span| segments.add(span.segment());
        let is_worth_it = peer.coalesce(|changes| laggards.reduce(changes, seed, new));
        self.counters.coalesced += u64::from(is_worth_it);
        self.purging.push_back(id);
    }

    /// Serves the line.
    pub(super) fn coalesce_in_line(&mut self) {
        self.laggards.meter = Meter::full();
        while !self.laggards.meter.is_spent()
            && let Some(id) = self.laggards.line.pop_front()
        {
            self.coalesce_now(id);
        }
        if self.laggards.is_empty() {
            self.laggards.results.clear();
        }
    }
}
