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
    of: Map<PeerId, VecDeque<(Vni, u32)>>,
    /// Each session that waits; sessions that are gone may stand here, too.
    line: VecDeque<PeerId>,
}

impl Joins {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            of: map(seed),
            line: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn push(&mut self, join: Join) {
        let waiting = self.of.entry(join.peer).or_default();
        if waiting.is_empty() {
            self.line.push_back(join.peer);
        }
        waiting.push_back((join.vni, join.epoch));
    }

    /// Takes the next join. The caller checks whether it is still wanted.
    pub(super) fn pop(&mut self) -> Option<Join> {
        while let Some(peer) = self.line.pop_front() {
            let Some(waiting) = self.of.get_mut(&peer) else {
                continue;
            };
            let next = waiting.pop_front();
            if waiting.is_empty() {
                self.of.remove(&peer);
            } else {
                self.line.push_back(peer);
            }
            if let Some((vni, epoch)) = next {
                return Some(Join { peer, vni, epoch });
            }
        }
        None
    }

    /// Forgets joins of a session that are not wanted any more, once they are most of its own.
    ///
    /// `wanted`: how many still are, at most.
    pub(super) fn tidy(
        &mut self,
        peer: PeerId,
        wanted: usize,
        is_wanted: impl Fn(Vni, u32) -> bool,
    ) {
        if let Some(waiting) = self.of.get_mut(&peer)
            && waiting.len() > 2 * wanted + 64
        {
            waiting.retain(|&(vni, epoch)| is_wanted(vni, epoch));
        }
    }

    /// Forgets the joins of a session that is gone.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.of.remove(&peer);
    }
}
