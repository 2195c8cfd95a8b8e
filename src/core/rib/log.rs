//! The log of a VNI: its changes in order, encoded once, and its initial table at the same time.

use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashSet;

use super::routes::Slot;
use super::segment::{Mark, SEGMENT_BYTES, Segment, SegmentBuilder, Span};
use crate::core::types::Action;

/// A log has a history as long as its live part, and at least so much, before it is compacted.
///
/// Keeps small tables from compacting at every change; there may be many of them.
const HISTORY_BYTES: usize = 2 * 1024;

/// From this size on, what is fresh becomes a segment of the log as it is.
const SHARED_BYTES: usize = SEGMENT_BYTES / 4;

/// Announcements and withdrawals in the order they happened.
///
/// Each is marked with who must hear it, so that replayed from the beginning the log gives
/// every peer the table that it sees. Compaction rewrites it, a little at a time, as one
/// announcement for each live route:
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
    /// Of what is fresh, frames for single peers: they follow the others as one block.
    aside: Option<Box<Aside>>,
    full: Vec<Arc<Segment>>,
    fresh_bytes: usize,
    /// Bytes of the announcements of live routes.
    live_bytes: usize,
    compaction: Option<Box<Compaction>>,
}

/// Frames for single peers that wait for the end of a segment.
///
/// One block among the frames of all is skipped at once; the same frames here and there
/// would shred the segment for every subscriber.
#[derive(Debug)]
struct Aside {
    frames: SegmentBuilder,
    /// The routes they are about: the next change of one for others must not overtake them.
    slots: HashSet<Slot, FixedState>,
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
    fn push(&mut self, mark: Mark, action: Action, frame: &[u8]) {
        if self.open.len() + frame.len() > SEGMENT_BYTES {
            self.segments.push(self.open.take());
        }
        self.open.push(mark, action, frame);
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
    /// Logs a change of the route at `slot`.
    ///
    /// `seed` keeps peers from choosing colliding slots.
    pub(crate) fn append(
        &mut self,
        mark: Mark,
        action: Action,
        slot: Slot,
        frame: &[u8],
        seed: u64,
    ) {
        let aside_bytes = self.aside.as_ref().map_or(0, |it| it.frames.len());
        if self.fresh.len() + aside_bytes + frame.len() > SEGMENT_BYTES {
            self.end_fresh_segment();
        }
        self.fresh_bytes += frame.len();
        match mark {
            Mark::Only(_) => {
                let aside = self.aside.get_or_insert_with(|| {
                    Box::new(Aside {
                        frames: SegmentBuilder::default(),
                        slots: HashSet::with_hasher(FixedState::with_seed(seed)),
                    })
                });
                aside.frames.push(mark, action, frame);
                aside.slots.insert(slot);
            }
            Mark::All | Mark::AllBut(_) => {
                if let Some(aside) = self.aside.take_if(|it| it.slots.contains(&slot)) {
                    self.fresh.append(&aside.frames);
                }
                self.fresh.push(mark, action, frame);
                match action {
                    Action::Add => self.live_bytes += frame.len(),
                    // A withdrawal is its announcement and the action field.
                    Action::Remove => self.live_bytes -= frame.len() - 2,
                }
            }
        }
        if let Some(compaction) = &mut self.compaction
            && slot < compaction.cursor
        {
            compaction.next.push(mark, action, frame);
        }
    }

    /// Makes a segment of what is fresh.
    fn end_fresh_segment(&mut self) {
        if let Some(aside) = self.aside.take() {
            self.fresh.append(&aside.frames);
        }
        if !self.fresh.is_empty() {
            self.full.push(self.fresh.take());
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
        self.end_fresh_segment();
        let full = std::mem::take(&mut self.full);
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
        self.compaction.is_some() || self.has_outgrown()
    }

    fn has_outgrown(&self) -> bool {
        self.store.bytes > self.live_bytes + self.live_bytes.max(HISTORY_BYTES)
    }

    /// Begins a compaction, if none is under way. Returns the first slot that is not rewritten.
    pub(crate) fn begin_compaction(&mut self) -> Slot {
        let compaction = self.compaction.get_or_insert_with(|| {
            Box::new(Compaction {
                next: Store::default(),
                cursor: Slot::FIRST,
            })
        });
        compaction.cursor
    }

    pub(crate) fn rewrite(&mut self, mark: Mark, frame: &[u8]) {
        let compaction = self.compaction.as_mut();
        compaction
            .expect("rewriting is a step of a compaction")
            .next
            .push(mark, Action::Add, frame);
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
            log.append(Mark::All, Action::Add, Slot::FIRST, &frame, 1);
        }
        log.take_fresh()
    }

    /// Announces and withdraws something, which takes twice `len` bytes and two.
    fn come_and_go(log: &mut Log, len: usize) {
        let announcement = vec![b'a'; len];
        log.append(Mark::All, Action::Add, Slot::FIRST, &announcement, 1);
        let withdrawal = vec![b'w'; len + 2];
        log.append(Mark::All, Action::Remove, Slot::FIRST, &withdrawal, 1);
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
            log.rewrite(Mark::All, &vec![b'a'; frame]);
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
    fn large_spans_are_shared_in_their_place_and_not_copied() {
        let mut log = Log::default();
        log.append(Mark::All, Action::Add, Slot::FIRST, b"before", 1);
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
    fn compaction_is_worth_it_once_the_history_is_as_long_as_what_lives() {
        for live in [1, 100, HISTORY_BYTES, 3 * KIB, SEGMENT_BYTES] {
            let mut log = Log::default();
            announce(&mut log, &[live]);
            come_and_go(&mut log, live.max(HISTORY_BYTES) / 2 - 1);
            assert_eq!(log.bytes() - live, live.max(HISTORY_BYTES));
            assert!(!log.wants_compaction());
            come_and_go(&mut log, 1);
            assert!(log.wants_compaction());
        }
    }
}
