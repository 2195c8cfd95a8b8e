//! Sessions that wait for the table of a VNI.

use std::collections::VecDeque;

use crate::core::map::{Map, map};
use crate::core::rib::PeerId;
use crate::core::types::Vni;

/// A session that wants the table of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) peer: PeerId,
    pub(super) vni: Vni,
    pub(super) epoch: u32,
}

/// The joins that wait: sessions take turns, and each has its own in order.
#[derive(Debug)]
pub(super) struct Joins {
    seed: u64,
    of: Map<PeerId, Waiting>,
    /// Each session that waits, once.
    line: VecDeque<PeerId>,
}

/// The joins of one session.
#[derive(Debug)]
struct Waiting {
    /// In order; those that are not wanted any more may stand here, too.
    line: VecDeque<(Vni, u32)>,
    /// The epochs of those that are.
    wanted: Map<Vni, u32>,
}

impl Joins {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            of: map(seed),
            line: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn push(&mut self, join: Join) {
        let waiting = self.of.entry(join.peer).or_insert_with(|| {
            self.line.push_back(join.peer);
            Waiting {
                line: VecDeque::new(),
                wanted: map(self.seed),
            }
        });
        waiting.line.push_back((join.vni, join.epoch));
        waiting.wanted.insert(join.vni, join.epoch);
    }

    /// Takes the session whose turn it is, and its next join if that is still wanted.
    pub(super) fn pop(&mut self) -> Option<Join> {
        let peer = self.line.pop_front()?;
        let waiting = self.of.get_mut(&peer)?;
        let next = waiting.line.pop_front();
        let join = next.filter(|(vni, epoch)| {
            let is_wanted = waiting.wanted.get(vni) == Some(epoch);
            is_wanted && waiting.wanted.remove(vni).is_some()
        });
        if waiting.line.is_empty() {
            self.of.remove(&peer);
        } else {
            self.line.push_back(peer);
        }
        join.map(|(vni, epoch)| Join { peer, vni, epoch })
    }

    /// Forgets a join. Returns whether it waited.
    pub(super) fn cancel(&mut self, peer: PeerId, vni: Vni) -> bool {
        let Some(waiting) = self.of.get_mut(&peer) else {
            return false;
        };
        let has_waited = waiting.wanted.remove(&vni).is_some();
        // So that what is not wanted any more is never most of a line.
        let Waiting { line, wanted } = waiting;
        if line.len() > 2 * wanted.len() + 64 {
            line.retain(|(vni, epoch)| wanted.get(vni) == Some(epoch));
        }
        has_waited
    }

    /// How many joins of a session wait.
    #[cfg(test)]
    pub(super) fn waiting(&self, peer: PeerId) -> usize {
        self.of.get(&peer).map_or(0, |it| it.wanted.len())
    }
}
