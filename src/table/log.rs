//! The log of a VNI: its changes in order, encoded once, and its initial table at the same time.

use std::sync::Arc;

use super::PeerId;
use super::routes::Slot;
use super::segment::{SEGMENT_BYTES, Segment, SegmentBuilder, Span};
use crate::types::Action;

/// A log may be this much longer than twice its live part before it is compacted.
///
/// Keeps small tables from compacting at every change.
const SLACK_BYTES: usize = SEGMENT_BYTES;

/// From this size on, what is fresh becomes a segment of the log as it is.
const SHARED_BYTES: usize = SEGMENT_BYTES / 4;

/// Announcements and withdrawals in the order they happened.
///
/// Replayed from the beginning it gives the table; compaction rewrites it, a
/// little at a time, as one announcement for each live route:
///
/// ```text
/// slots   0 ........ cursor ........ end
///         rewritten        to come
/// change  log and next     log only (the rewrite will find it)
/// ```
#[derive(Debug, Default)]
pub(crate) struct Log {
    store: Store,
    /// Logged, and not yet taken by the subscribers.
    fresh: SegmentBuilder,
    full: Vec<Arc<Segment>>,
    fresh_bytes: usize,
    /// Bytes of the announcements of live routes.
    live_bytes: usize,
    compaction: Option<Compaction>,
}

#[derive(Debug)]
struct Compaction {
    next: Store,
    cursor: Slot,
}

#[derive(Debug, Default)]
struct Store {
    segments: Vec<Arc<Segment>>,
    /// The end of the log, growing.
    open: SegmentBuilder,
    bytes: usize,
}

impl Store {
    fn push(&mut self, peer: PeerId, frame: &[u8]) {
        if self.open.len() + frame.len() > SEGMENT_BYTES {
            self.segments.push(self.open.take());
        }
        self.open.push(peer, frame);
        self.bytes += frame.len();
    }

    fn append(&mut self, segment: &Arc<Segment>) {
        let len = Span::whole(Arc::clone(segment)).len();
        self.bytes += len;
        if len >= SHARED_BYTES || self.open.len() + len > SEGMENT_BYTES {
            self.seal();
        }
        if len >= SHARED_BYTES {
            self.segments.push(Arc::clone(segment));
        } else {
            self.open.extend(segment);
        }
    }

    /// Makes what is open a segment, joined with the last if both are short.
    fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let fits = |last: &mut Arc<Segment>| {
            Span::whole(Arc::clone(last)).len() + self.open.len() <= SEGMENT_BYTES
        };
        match self.segments.pop_if(fits) {
            Some(last) => {
                let tail = std::mem::take(&mut self.open).take();
                self.open.extend(&last);
                self.open.extend(&tail);
                self.segments.push(self.open.take());
            }
            None => self.segments.push(self.open.take()),
        }
    }
}

impl Log {
    /// Logs a change that everybody but `by` must hear.
    pub(crate) fn append(&mut self, action: Action, slot: Slot, by: PeerId, frame: &[u8]) {
        if self.fresh.len() + frame.len() > SEGMENT_BYTES {
            self.full.push(self.fresh.take());
        }
        self.fresh.push(by, frame);
        self.fresh_bytes += frame.len();
        match action {
            Action::Add => self.live_bytes += frame.len(),
            // A withdrawal is its announcement and the action field.
            Action::Remove => self.live_bytes -= frame.len() - 2,
        }
        if let Some(compaction) = &mut self.compaction
            && slot < compaction.cursor
        {
            compaction.next.push(by, frame);
        }
    }

    pub(crate) fn has_fresh(&self) -> bool {
        self.fresh_bytes > 0
    }

    /// What was appended since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<Span> {
        if !self.has_fresh() {
            return Vec::new();
        }
        let mut full = std::mem::take(&mut self.full);
        if !self.fresh.is_empty() {
            full.push(self.fresh.take());
        }
        for segment in &full {
            self.store.append(segment);
        }
        self.fresh_bytes = 0;
        full.into_iter().map(Span::whole).collect()
    }

    /// The whole log, for a joiner.
    pub(crate) fn seal(&mut self) -> impl Iterator<Item = Arc<Segment>> + '_ {
        self.store.seal();
        self.store.segments.iter().cloned()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.store.bytes
    }

    /// Whether a compaction is under way or worth beginning.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.compaction.is_some() || self.store.bytes > 2 * self.live_bytes + SLACK_BYTES
    }

    pub(crate) fn begin_compaction(&mut self) {
        self.compaction = Some(Compaction {
            next: Store::default(),
            cursor: Slot::FIRST,
        });
    }

    /// The first slot that is not rewritten yet.
    pub(crate) fn compaction_cursor(&self) -> Option<Slot> {
        self.compaction.as_ref().map(|compaction| compaction.cursor)
    }

    pub(crate) fn rewrite(&mut self, by: PeerId, frame: &[u8]) {
        let compaction = self.compaction.as_mut();
        compaction
            .expect("rewriting is a step of a compaction")
            .next
            .push(by, frame);
    }

    pub(crate) fn compaction_reached(&mut self, slot: Slot) {
        if let Some(compaction) = &mut self.compaction {
            compaction.cursor = slot;
        }
    }

    pub(crate) fn finish_compaction(&mut self) {
        debug_assert!(!self.has_fresh(), "fresh changes would be logged twice");
        if let Some(compaction) = self.compaction.take() {
            self.store = compaction.next;
        }
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn check_invariants(&self, routes: usize) {
        assert_eq!(self.live_bytes == 0, routes == 0);
        assert!(self.store.bytes + self.fresh_bytes >= self.live_bytes);
    }
}
