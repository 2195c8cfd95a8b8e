//! Initial tables: whose parts still wait, and what of them the session is sent.
//!
//! A log that has every other frame from the session itself is a million pieces for it. They are
//! cut a segment at a time, when the segment comes to the front of the queue.

use std::collections::btree_map::Entry;

use super::{Item, Kind, Outbox};
use crate::core::rib::{PeerId, Span};
use crate::core::types::Vni;

impl Outbox {
    /// Appends a part of the log of a VNI, as the initial table of `peer`, whose queue this is.
    pub(crate) fn push_table(&mut self, peer: PeerId, vni: Vni, epoch: u32, part: Span) {
        let kind = match part.is_whole_for(peer) {
            true => Kind::Table(vni),
            false => Kind::Uncut(vni),
        };
        self.count_table(vni);
        self.flows.get_or_insert_default().peer = Some(peer);
        self.push_back(part, kind, epoch);
    }

    /// Appends the END_OF_RIB of a VNI.
    pub(crate) fn push_end_of_rib(&mut self, vni: Vni, epoch: u32, span: Span) {
        self.count_table(vni);
        self.push_back(span, Kind::EndOfRib(vni), epoch);
    }

    /// Cuts what comes first out of frames that the session is not sent.
    #[inline]
    pub(super) fn cut_front(&mut self) {
        if self.flows.is_some() {
            self.cut_table();
        }
    }

    fn cut_table(&mut self) {
        while let Some(front) = self.items.front()
            && let Kind::Uncut(vni) = front.kind
            && !self.is_dead(front)
            && let Some(whole) = self.items.pop_front()
        {
            let Some(peer) = self.flows.as_ref().and_then(|it| it.peer) else {
                unreachable!("a table that waits has a peer");
            };
            let mut pieces = Vec::new();
            whole
                .span
                .clone()
                .for_peer(peer, &mut |piece| pieces.push(piece));
            self.bytes -= whole.span.len();
            for span in pieces.into_iter().rev() {
                self.bytes += span.len();
                self.count_table(vni);
                self.items.push_front(Item {
                    span,
                    kind: Kind::Table(vni),
                    ..whole
                });
            }
            self.count_out(Kind::Uncut(vni));
        }
    }

    pub(super) fn count_table(&mut self, vni: Vni) {
        let flows = self.flows.get_or_insert_default();
        *flows.tables.entry(vni).or_insert(0) += 1;
    }

    /// Takes note that an item has left the queue.
    pub(super) fn count_out(&mut self, kind: Kind) {
        let (Kind::Table(vni) | Kind::Uncut(vni) | Kind::EndOfRib(vni)) = kind else {
            return;
        };
        if let Some(flows) = &mut self.flows
            && let Entry::Occupied(mut items) = flows.tables.entry(vni)
        {
            *items.get_mut() -= 1;
            if *items.get() == 0 {
                items.remove();
                flows.tables_out.push(vni);
            }
        }
    }

    /// Whether a part of a table of a VNI waits, of whatever subscription.
    pub(crate) fn has_table(&self, vni: Vni) -> bool {
        let flows = self.flows.as_ref();
        flows.is_some_and(|it| it.tables.contains_key(&vni))
    }

    /// VNIs of which no table is left since the last call.
    pub(crate) fn take_tables_out(&mut self) -> Vec<Vni> {
        let Some(flows) = &mut self.flows else {
            return Vec::new();
        };
        let out = std::mem::take(&mut flows.tables_out);
        if flows.tables.is_empty() && flows.ended.is_empty() {
            self.flows = None;
        }
        out
    }
}
