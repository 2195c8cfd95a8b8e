//! What waited for sessions that are gone: it is dropped a little at a time.

use std::collections::VecDeque;

use super::Outbox;
use crate::core::reflector::meter::{self, Meter};
use crate::core::reflector::pile::Pile;
use crate::core::rib::Span;

/// A queue with fewer items is dropped at once.
const FEW: usize = 64;

/// Queues and changes that nobody needs any more.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    queues: VecDeque<Outbox>,
    spans: Vec<Pile<Span>>,
}

impl Leftovers {
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.spans.is_empty()
    }

    pub(crate) fn push_queue(&mut self, queue: Outbox) {
        let ended = queue.flows.as_ref().map_or(0, |it| it.ended.len());
        if queue.items.len() + ended > FEW || queue.rewrite.is_some() {
            self.queues.push_back(queue);
        }
    }

    pub(crate) fn push_spans(&mut self, spans: Vec<Pile<Span>>) {
        self.spans.extend(spans);
    }

    /// Drops for as long as the meter lasts.
    pub(crate) fn drop_some(&mut self, meter: &mut Meter) {
        while !meter.is_spent() {
            if let Some(spans) = self.spans.last_mut() {
                let dropped = spans.drop_some();
                meter.charge(1 + meter::ITEM * dropped);
                if spans.len() == 0 {
                    self.spans.pop();
                }
            } else if let Some(queue) = self.queues.front_mut() {
                meter.charge(meter::ITEM);
                if !queue.drop_one(&mut self.spans) {
                    self.queues.pop_front();
                }
            } else {
                return;
            }
        }
    }
}

impl Outbox {
    /// Drops an item, or moves changes to `spans`. Returns `false` if nothing is left.
    fn drop_one(&mut self, spans: &mut Vec<Pile<Span>>) -> bool {
        if self.items.pop_back().is_some() {
            return true;
        }
        if let Some(flows) = &mut self.flows
            && (flows.ended.pop_first().is_some() || flows.tables.pop_first().is_some())
        {
            return true;
        }
        let Some(rewrite) = &mut self.rewrite else {
            return false;
        };
        if let Some(changes) = rewrite.take_spans() {
            spans.push(changes);
            return true;
        }
        rewrite.take_item().is_some() || rewrite.forget_one()
    }
}
