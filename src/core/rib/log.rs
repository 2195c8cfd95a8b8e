//! The log of a VNI: its changes in order, encoded once, and its initial table at the same time.

use std::sync::Arc;

use super::PeerId;
use super::routes::Slot;
use super::segment::{SEGMENT_BYTES, Segment, SegmentBuilder, Span};
use crate::core::types::Action;

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

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// Logs announcements of so many bytes and takes them.
    fn announce(log: &mut Log, frames: &[usize]) -> Vec<Span> {
        for &len in frames {
            let frame = vec![b'a'; len];
            log.append(Action::Add, Slot::FIRST, PeerId::NOBODY, &frame);
        }
        log.take_fresh()
    }

    /// Announces and withdraws something, which takes twice `len` bytes and two.
    fn come_and_go(log: &mut Log, len: usize) {
        log.append(Action::Add, Slot::FIRST, PeerId::NOBODY, &vec![b'a'; len]);
        let withdrawal = vec![b'w'; len + 2];
        log.append(Action::Remove, Slot::FIRST, PeerId::NOBODY, &withdrawal);
        log.take_fresh();
    }

    fn lens(spans: &[Span]) -> Vec<usize> {
        spans.iter().map(Span::len).collect()
    }

    fn whole(log: &mut Log) -> Vec<Span> {
        log.seal().map(Span::whole).collect()
    }

    #[test]
    fn segments_are_filled_to_the_last_byte() {
        let frames = [KIB; SEGMENT_BYTES / KIB + 1];
        let filled = [SEGMENT_BYTES, KIB];
        let mut log = Log::default();
        assert_eq!(lens(&announce(&mut log, &frames)), filled);
        assert_eq!(lens(&whole(&mut log)), filled);

        let mut log = Log::default();
        for frame in frames {
            announce(&mut log, &[frame]);
        }
        assert_eq!(lens(&whole(&mut log)), filled, "one by one");

        log.begin_compaction();
        for frame in frames {
            log.rewrite(PeerId::NOBODY, &vec![b'a'; frame]);
        }
        log.finish_compaction();
        assert_eq!(lens(&whole(&mut log)), filled, "rewritten");
    }

    #[test]
    fn short_ends_are_joined_as_long_as_they_fit() {
        let mut log = Log::default();
        announce(&mut log, &[KIB]);
        assert_eq!(lens(&whole(&mut log)), [KIB]);
        announce(
            &mut log,
            &[SEGMENT_BYTES / 8, SHARED_BYTES - SEGMENT_BYTES / 8 - 1],
        );
        assert_eq!(lens(&whole(&mut log)), [KIB + SHARED_BYTES - 1]);
        let mut rest = SEGMENT_BYTES - KIB - SHARED_BYTES + 1;
        while rest > 0 {
            let len = rest.min(10 * KIB);
            announce(&mut log, &[len]);
            rest -= len;
        }
        assert_eq!(lens(&whole(&mut log)), [SEGMENT_BYTES]);
        announce(&mut log, &[1]);
        assert_eq!(lens(&whole(&mut log)), [SEGMENT_BYTES, 1]);
    }

    #[test]
    fn what_is_large_is_shared_in_its_place_and_not_copied() {
        let mut log = Log::default();
        log.append(Action::Add, Slot::FIRST, PeerId::NOBODY, b"before");
        log.take_fresh();
        let large = announce(&mut log, &[SHARED_BYTES]);
        for _ in 0..60 {
            announce(&mut log, &[KIB]);
        }
        let spans = whole(&mut log);
        assert_eq!(lens(&spans), [6, SHARED_BYTES, 60 * KIB]);
        assert_eq!(spans[0].bytes(), b"before");
        assert!(std::ptr::eq(spans[1].bytes(), large[0].bytes()));
    }

    #[test]
    fn a_compaction_is_worth_it_past_twice_the_live_bytes_and_a_segment() {
        let mut log = Log::default();
        announce(&mut log, &[KIB]);
        come_and_go(&mut log, (KIB + SLACK_BYTES) / 2 - 1);
        assert_eq!(log.bytes(), 2 * KIB + SLACK_BYTES);
        assert!(!log.wants_compaction());
        come_and_go(&mut log, 1);
        assert!(log.wants_compaction());
    }
}
