//! A queue is rewritten, a step at a time: its changes are reduced to what they amount to.
//!
//! ```text
//! input --> tables ----------------------> items: sent meanwhile
//!       \-> changes by VNI --> Reduction -> items
//! changes pushed meanwhile --> behind ----> items, at the end
//! ```
//!
//! A VNI's tables come before its changes, and VNIs do not depend on each other: so each part can
//! be sent as soon as it stands among the items. Between two steps anything may happen to the
//! queue.

use std::collections::{BTreeMap, VecDeque};

use super::{Item, Kind, LOOKS, Outbox};
use crate::core::reflector::coalesce::{Changes, Reduction, Results};
use crate::core::reflector::meter::{self, Meter};
use crate::core::reflector::pile::Pile;
use crate::core::rib::Span;
use crate::core::types::Vni;

/// What becomes of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// They are coalesced.
    Coalesce,
    /// Only those that nobody wants are dropped.
    Sweep,
}

/// A VNI, and the epoch of the subscription.
type Flow = (Vni, u32);

/// The parts of a queue that is rewritten.
#[derive(Debug)]
pub(super) struct Rewrite {
    purpose: Purpose,
    /// Not looked at.
    input: VecDeque<Item>,
    changes: BTreeMap<Flow, Changes>,
    /// The changes that are reduced at this moment, and their bytes.
    reducing: Option<(Flow, usize, Reduction)>,
    /// Changes pushed meanwhile.
    behind: VecDeque<Item>,
    /// Subscriptions that had ended before: nothing of them is left in the end.
    ended: BTreeMap<Vni, u32>,
    /// What remained of the changes.
    reduced_bytes: usize,
    /// Spans among the changes.
    spans: usize,
}

impl Rewrite {
    pub(super) fn push_behind(&mut self, item: Item) {
        self.behind.push_back(item);
    }

    /// Returns about how many bytes it has allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        // A span, a story and its place in the index, a group for each VNI.
        const FRAME: usize = 12 + 10;
        const FRAME_BYTES: usize = 50;
        const GROUP: usize = 100;
        let reducing = self.reducing.as_ref().map_or(0, |it| it.1);
        (self.input.capacity() + self.behind.capacity()) * size_of::<Item>()
            + self.spans * size_of::<Span>()
            + self.changes.len() * GROUP
            + reducing / FRAME_BYTES * FRAME
    }

    /// The parts that are still queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = &VecDeque<Item>> {
        [&self.input, &self.behind].into_iter()
    }

    /// Takes changes of one VNI out.
    pub(super) fn take_spans(&mut self) -> Option<Pile<Span>> {
        match self.reducing.take() {
            Some((_, _, reduction)) => Some(reduction.into_spans()),
            None => self.changes.pop_first().map(|it| it.1.into_spans()),
        }
    }

    /// Takes some item or other out of the parts that are still queues.
    pub(super) fn take_item(&mut self) -> Option<Item> {
        self.input.pop_front().or_else(|| self.behind.pop_front())
    }

    /// Forgets a subscription that had ended. Returns `false` if none is left.
    pub(super) fn forget_one(&mut self) -> bool {
        self.ended.pop_first().is_some()
    }

    fn has_ended(&self, item: &Item, vni: Vni) -> bool {
        self.ended.get(&vni).is_some_and(|it| item.epoch <= *it)
    }
}

impl Outbox {
    /// Whether the queue is rewritten at this moment.
    pub(crate) fn is_rewritten(&self) -> bool {
        self.rewrite.is_some()
    }

    /// Begins to reduce the changes to what they amount to, apart from a frame that was begun,
    /// by [`Self::go_on`]. Returns whether that is worth the effort.
    ///
    /// Changes that can hardly shrink stay as they are: shared with all who must send them.
    pub(crate) fn begin_rewrite(&mut self, meter: &mut Meter) -> bool {
        meter.charge(1 + LOOKS.min(self.items.len()) / 2);
        let is_worth_it = self.can_shrink();
        if is_worth_it {
            self.begin(Purpose::Coalesce);
        } else {
            self.coalesced_bytes = self.delta_bytes;
            if self.wants_sweep() {
                self.begin(Purpose::Sweep);
            }
        }
        is_worth_it
    }

    fn begin(&mut self, purpose: Purpose) {
        debug_assert!(self.rewrite.is_none());
        let begun = self.isolate_begun_frame();
        let mut input = std::mem::take(&mut self.items);
        while self.items.len() < begun || input.front().is_some_and(|it| it.kind == Kind::Control) {
            self.items.extend(input.pop_front());
        }
        let flows = self.flows.as_mut();
        let ended = flows.map(|it| std::mem::take(&mut it.ended));
        self.rewrite = Some(Box::new(Rewrite {
            purpose,
            input,
            changes: BTreeMap::new(),
            reducing: None,
            behind: VecDeque::new(),
            ended: ended.unwrap_or_default(),
            reduced_bytes: 0,
            spans: 0,
        }));
    }

    /// Whether coalescing could take an eighth off the changes.
    ///
    /// What cancels out is pairs of a withdrawal and an announcement.
    fn can_shrink(&self) -> bool {
        let (mut bytes, mut removed) = (0, 0);
        for item in self.items.iter().step_by(self.items.len() / LOOKS + 1) {
            if matches!(item.kind, Kind::Delta(_)) && !self.is_dead(item) {
                bytes += item.span.len();
                removed += item.span.removed_bytes();
            }
        }
        bytes > 0 && 2 * removed.min(bytes - removed) >= bytes / 8
    }

    /// Goes on rewriting for as long as the meter lasts. Returns whether that is over.
    pub(crate) fn go_on(&mut self, results: &mut Results, meter: &mut Meter) -> bool {
        let Some(mut rewrite) = self.rewrite.take() else {
            return true;
        };
        let is_over = self.rewrite_some(&mut rewrite, results, meter);
        if !is_over {
            self.rewrite = Some(rewrite);
        }
        self.cut_front();
        is_over
    }

    fn rewrite_some(
        &mut self,
        rewrite: &mut Rewrite,
        results: &mut Results,
        meter: &mut Meter,
    ) -> bool {
        while !meter.is_spent() {
            if let Some(item) = rewrite.input.pop_front() {
                meter.charge(meter::ITEM);
                self.sort(rewrite, item, meter);
            } else if let Some((flow, bytes, reduction)) = rewrite.reducing.take() {
                match reduction.step(results, meter) {
                    Reduction::Done(result) => {
                        rewrite.reduced_bytes += self.put_back(flow, bytes, result);
                    }
                    on @ (Reduction::Comparing { .. } | Reduction::Coalescing(_)) => {
                        rewrite.reducing = Some((flow, bytes, on));
                    }
                }
            } else if let Some((flow, changes)) = rewrite.changes.pop_first() {
                meter.charge(meter::JOIN);
                let bytes = changes.bytes();
                rewrite.reducing = Some((flow, bytes, Reduction::new(changes, results)));
            } else if let Some(item) = rewrite.behind.pop_front() {
                meter.charge(1);
                self.items.push_back(item);
            } else if rewrite.ended.pop_first().is_some() {
                meter.charge(1);
            } else {
                self.coalesced_bytes = rewrite.reduced_bytes;
                return true;
            }
        }
        false
    }

    /// Puts an item where it is to wait, unless nobody wants it.
    fn sort(&mut self, rewrite: &mut Rewrite, item: Item, meter: &mut Meter) {
        let (is_delta, vni) = match item.kind {
            Kind::Delta(vni) => (true, vni),
            Kind::Table(vni) | Kind::Uncut(vni) | Kind::EndOfRib(vni) => (false, vni),
            Kind::Control => {
                self.items.push_back(item);
                return;
            }
        };
        if self.is_dead(&item) || rewrite.has_ended(&item, vni) {
            self.discount(&item);
            return;
        }
        match rewrite.purpose {
            Purpose::Coalesce if is_delta => {
                meter.charge(meter::VNI);
                rewrite.spans += 1;
                let changes = rewrite.changes.entry((vni, item.epoch)).or_default();
                changes.push(item.span);
            }
            Purpose::Coalesce => self.items.push_back(item),
            Purpose::Sweep => {
                if is_delta {
                    rewrite.reduced_bytes += item.left();
                }
                self.items.push_back(item);
            }
        }
    }

    /// Puts what changes amount to among the items, if somebody still wants it. Returns how many
    /// bytes that is.
    fn put_back(&mut self, (vni, epoch): Flow, bytes: usize, result: Vec<Span>) -> usize {
        self.bytes -= bytes;
        self.delta_bytes -= bytes;
        let before = self.delta_bytes;
        for span in result {
            let item = Item {
                span,
                sent: 0,
                kind: Kind::Delta(vni),
                epoch,
            };
            if self.is_dead(&item) {
                break;
            }
            self.bytes += item.left();
            self.delta_bytes += item.left();
            self.items.push_back(item);
        }
        self.delta_bytes - before
    }
}
