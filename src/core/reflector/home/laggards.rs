//! Sessions whose changes are coalesced: one after the other, as far as a turn has room.

use std::collections::VecDeque;

use super::Home;
use crate::core::connection::Queue;
use crate::core::reflector::coalesce::Results;
use crate::core::reflector::meter::Meter;
use crate::core::rib::PeerId;

/// The line of those sessions, and what was found for those before them.
#[derive(Debug)]
pub(super) struct Laggards {
    /// The first one's queue may be half done.
    line: VecDeque<PeerId>,
    /// Kept while somebody stands in line.
    results: Results,
}

impl Laggards {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            line: VecDeque::new(),
            results: Results::new(seed),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether `id` is next.
    pub(super) fn is_first(&self, id: PeerId) -> bool {
        self.line.front() == Some(&id)
    }
}

impl Home {
    /// Has the changes of a session coalesced when its turn in the line has come.
    pub(super) fn stand_in_line(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut peer.is_in_line, true)
        {
            self.laggards.line.push_back(id);
        }
    }

    /// Serves the line.
    pub(in crate::core::reflector) fn coalesce_in_line(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some(&id) = self.laggards.line.front()
        {
            meter.charge(1);
            if self.coalesce(id, meter) {
                self.laggards.line.pop_front();
            }
        }
        let results = &mut self.laggards.results;
        for segment in results.take_made() {
            self.segments.add(&segment);
        }
        if self.laggards.line.is_empty() {
            results.forget(0);
        }
        self.leftovers.push_spans(results.take_discarded());
    }

    /// Goes on with the first of the line. Returns whether its queue is done.
    fn coalesce(&mut self, id: PeerId, meter: &mut Meter) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return true;
        };
        let queue = peer.connection.queue_mut();
        if !queue.is_rewritten() {
            let is_worth_it = u64::from(queue.begin_rewrite(meter));
            peer.counters.coalesced += is_worth_it;
            self.counters.coalesced += is_worth_it;
        }
        let is_done = queue.go_on(&mut self.laggards.results, meter);
        peer.is_in_line = !is_done;
        if is_done {
            self.end_if_too_slow(id);
        }
        self.unblocked(id);
        is_done
    }

    /// To be called when something was dropped from a queue, or moved to where it is sent from.
    pub(super) fn unblocked(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.connection
            .queue_mut()
            .count_bytes(&mut self.queue_bytes);
        if peer.connection.queue().is_empty() {
            // As if it had been sent.
            peer.connection.advance(0, self.now);
        }
        self.ask_for_tables(id);
        self.settle(id);
    }
}
