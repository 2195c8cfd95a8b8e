//! The log of a VNI: its changes in order, encoded once, and its initial table at the same time.

use std::sync::Arc;

use foldhash::quality::FixedState;

use super::History;
use super::contest::{Contested, difference};
use super::routes::{Slot, State};
use super::segment::{Mark, SEGMENT_BYTES, SHARED_BYTES, Segment, SegmentBuilder, Span};
use crate::core::types::{Action, Route};

/// A log has a history as long as its live part, and at least so much, before it is compacted.
///
/// Keeps small tables from compacting at every change; there may be many of them.
const HISTORY_BYTES: usize = 2 * 1024;

/// A log of at most so many bytes is one segment without room to grow: there may be many.
const SMALL_BYTES: usize = 1024;

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
    fresh: Option<Box<Fresh>>,
    /// Bytes of the announcements of live routes.
    live_bytes: usize,
    compaction: Option<Box<Compaction>>,
}

/// Changes that subscribers have not been told.
#[derive(Debug, Default)]
struct Fresh {
    frames: SegmentBuilder,
    full: Vec<Arc<Segment>>,
    contested: Option<Box<Contested>>,
}

#[derive(Debug)]
struct Compaction {
    next: Store,
    cursor: Slot,
    /// Where a frame is encoded.
    frame: Vec<u8>,
}

#[derive(Debug, Default)]
struct Store {
    segments: Vec<Arc<Segment>>,
    /// The end of the log, growing.
    open: Option<Box<SegmentBuilder>>,
    bytes: usize,
}

impl Store {
    fn push(&mut self, mark: Mark, action: Action, frame: &[u8]) {
        let open = self.open.get_or_insert_default();
        if open.len() + frame.len() > SEGMENT_BYTES {
            self.segments.push(open.take());
        }
        open.push(mark, action, frame);
        self.bytes += frame.len();
    }

    fn append(&mut self, segment: &Arc<Segment>) {
        let len = segment.len();
        self.bytes += len;
        if self.open.is_none() && self.bytes <= SMALL_BYTES {
            self.append_small(segment);
            return;
        }
        let open = self.open.as_ref().map_or(0, |it| it.len());
        if len >= SHARED_BYTES || open + len > SEGMENT_BYTES {
            self.seal();
        }
        if len >= SHARED_BYTES {
            self.segments.push(Arc::clone(segment));
        } else {
            let (open, segments) = (&mut self.open, &mut self.segments);
            let open = open.get_or_insert_with(|| {
                let mut open = Box::<SegmentBuilder>::default();
                if let Some(last) = segments.pop_if(|last| last.len() <= SMALL_BYTES) {
                    open.extend(&last);
                }
                open
            });
            open.extend(segment);
        }
    }

    fn append_small(&mut self, segment: &Arc<Segment>) {
        let joined = match self.segments.pop() {
            Some(last) => {
                let mut both = SegmentBuilder::default();
                both.extend(&last);
                both.extend(segment);
                both.take()
            }
            None => Arc::clone(segment),
        };
        self.segments.reserve_exact(1);
        self.segments.push(joined);
    }

    /// Makes what is open a segment, joined with the last if both are short.
    fn seal(&mut self) {
        let Some(mut open) = self.open.take().filter(|it| !it.is_empty()) else {
            return;
        };
        let fits = |last: &mut Arc<Segment>| last.len() + open.len() <= SEGMENT_BYTES;
        let segment = match self.segments.pop_if(fits) {
            Some(last) => {
                let mut both = SegmentBuilder::default();
                both.extend(&last);
                both.append(&open);
                both.take()
            }
            None => open.take(),
        };
        self.segments.push(segment);
    }

    fn heap_bytes(&self) -> usize {
        // What is shared with queues counts where it is made.
        let open = self.open.as_ref().map_or(0, |it| it.heap_bytes());
        let sealed = self.bytes - self.open.as_ref().map_or(0, |it| it.len());
        let each = size_of::<Arc<Segment>>() + size_of::<Segment>() + 32;
        open + sealed + self.segments.len() * each
    }
}

impl Fresh {
    /// Appends a frame, as `encode` appends it. Returns its length.
    fn append(&mut self, mark: Mark, action: Action, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let begin = self.frames.len();
        encode(self.frames.tail());
        let len = self.frames.len() - begin;
        if begin + len > SEGMENT_BYTES {
            let frame = self.frames.take_back(len);
            self.end_segment();
            self.frames.tail().extend_from_slice(&frame);
        }
        self.frames.mark(mark, action, len);
        len
    }

    /// Makes a segment of what there is.
    fn end_segment(&mut self) {
        if !self.frames.is_empty() {
            self.full.push(self.frames.take());
        }
    }

    fn heap_bytes(&self) -> usize {
        let contested = self.contested.as_ref().map_or(0, |it| it.heap_bytes());
        let full: usize = self.full.iter().map(|it| it.heap_bytes()).sum();
        size_of::<Self>() + self.frames.len() + full + contested
    }
}

impl Log {
    /// Logs a change of the route at `slot`, as `encode` appends it.
    pub(crate) fn append(
        &mut self,
        mark: Mark,
        action: Action,
        slot: Slot,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let fresh = self.fresh.get_or_insert_default();
        let len = fresh.append(mark, action, encode);
        if let Some(compaction) = &mut self.compaction
            && slot < compaction.cursor
        {
            compaction.next.push(mark, action, fresh.frames.last(len));
        }
        self.count_live(mark, action, len);
    }

    fn count_live(&mut self, mark: Mark, action: Action, len: usize) {
        match (mark, action) {
            (Mark::Only(_), _) => {}
            (Mark::All | Mark::AllBut(_), Action::Add) => self.live_bytes += len,
            // A withdrawal is its announcement and the action field.
            (Mark::All | Mark::AllBut(_), Action::Remove) => self.live_bytes -= len - 2,
        }
    }

    /// Has nothing of a route logged until [`Self::settle`]; so far the log says that it is as
    /// `before`.
    pub(super) fn contest(&mut self, route: &Route, before: State, hasher: &FixedState) {
        let fresh = self.fresh.get_or_insert_default();
        let contested = fresh
            .contested
            .get_or_insert_with(|| Box::new(Contested::new(hasher)));
        contested.add(route, before);
    }

    /// Whether nothing of a route is logged until [`Self::settle`].
    pub(super) fn is_contested(&self, route: &Route) -> bool {
        let fresh = self.fresh.as_ref();
        let contested = fresh.and_then(|it| it.contested.as_ref());
        contested.is_some_and(|it| it.contains(route))
    }

    /// How many routes [`Self::settle`] has to look at.
    pub(super) fn contested(&self) -> usize {
        let fresh = self.fresh.as_ref();
        let contested = fresh.and_then(|it| it.contested.as_ref());
        contested.map_or(0, |it| it.len())
    }

    /// Logs what changed of contested routes: `now` tells how one is, `encode` appends its frame.
    pub(super) fn settle(
        &mut self,
        now: impl Fn(&Route) -> State,
        encode: impl Fn(&mut Vec<u8>, Action, &Route),
    ) {
        let contested = self.fresh.as_mut().and_then(|it| it.contested.take());
        let Some(contested) = contested else {
            return;
        };
        // Those for single peers come last: one block is skipped at once, while the same frames
        // here and there would shred the segment for every subscriber.
        let mut single = Vec::new();
        for (route, before) in contested.into_routes() {
            let after = now(&route);
            for (mark, action) in difference(before.holders, after.holders) {
                match mark {
                    Mark::All | Mark::AllBut(_) => {
                        self.settle_one(mark, action, |out| encode(out, action, &route));
                    }
                    Mark::Only(peer) => single.push((peer, action, route)),
                }
            }
            if let Some(compaction) = &mut self.compaction {
                let (before, after) = (
                    before.below(compaction.cursor),
                    after.below(compaction.cursor),
                );
                for (mark, action) in difference(before, after) {
                    compaction.frame.clear();
                    encode(&mut compaction.frame, action, &route);
                    compaction.next.push(mark, action, &compaction.frame);
                }
            }
        }
        for (peer, action, route) in single {
            self.settle_one(Mark::Only(peer), action, |out| encode(out, action, &route));
        }
    }

    fn settle_one(&mut self, mark: Mark, action: Action, encode: impl FnOnce(&mut Vec<u8>)) {
        let fresh = self.fresh.get_or_insert_default();
        let len = fresh.append(mark, action, encode);
        self.count_live(mark, action, len);
    }

    pub(crate) fn has_fresh(&self) -> bool {
        self.fresh.is_some()
    }

    /// What was appended since the last call; nothing is contested.
    pub(crate) fn take_fresh(&mut self) -> Vec<Span> {
        debug_assert_eq!(self.contested(), 0);
        let Some(mut fresh) = self.fresh.take() else {
            return Vec::new();
        };
        fresh.end_segment();
        for segment in &fresh.full {
            self.store.append(segment);
        }
        fresh.full.into_iter().map(Span::whole).collect()
    }

    /// The whole log, for a joiner.
    pub(crate) fn seal(&mut self) -> impl Iterator<Item = Arc<Segment>> + '_ {
        self.store.seal();
        self.store.segments.iter().cloned()
    }

    /// Returns the bytes that it has allocated, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        let fresh = self.fresh.as_ref();
        let compaction = self.compaction.as_ref();
        self.store.heap_bytes()
            + fresh.map_or(0, |it| it.heap_bytes())
            + compaction.map_or(0, |it| size_of::<Compaction>() + it.next.heap_bytes())
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.store.bytes
    }

    /// Whether a compaction is under way or worth beginning.
    pub(crate) fn wants_compaction(&self, history: History) -> bool {
        let allowed = match history {
            History::Usual => self.live_bytes.max(HISTORY_BYTES),
            History::Short => (self.live_bytes / 4).max(HISTORY_BYTES),
            History::Least => self.live_bytes / 16,
        };
        self.is_compacting() || self.store.bytes > self.live_bytes + allowed
    }

    /// Whether a compaction is under way.
    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Begins a compaction, if none is under way. Returns the first slot that is not rewritten.
    pub(crate) fn begin_compaction(&mut self) -> Slot {
        let compaction = self.compaction.get_or_insert_with(|| {
            Box::new(Compaction {
                next: Store::default(),
                cursor: Slot::FIRST,
                frame: Vec::new(),
            })
        });
        compaction.cursor
    }

    /// Writes the announcement of a live route, as `encode` appends it.
    pub(crate) fn rewrite(&mut self, mark: Mark, encode: impl FnOnce(&mut Vec<u8>)) {
        let compaction = self.compaction.as_mut();
        let compaction = compaction.expect("rewriting is a step of a compaction");
        compaction.frame.clear();
        encode(&mut compaction.frame);
        compaction.next.push(mark, Action::Add, &compaction.frame);
    }

    pub(crate) fn compaction_reached(&mut self, slot: Slot) {
        if let Some(compaction) = &mut self.compaction {
            compaction.cursor = slot;
        }
    }

    /// Replaces the log by what was written. Returns the segments of the old one.
    pub(crate) fn finish_compaction(&mut self) -> Vec<Arc<Segment>> {
        debug_assert!(!self.has_fresh(), "fresh changes would be logged twice");
        let Some(mut compaction) = self.compaction.take() else {
            return Vec::new();
        };
        if compaction.next.bytes <= SMALL_BYTES {
            compaction.next.seal();
            compaction.next.segments.shrink_to_fit();
        }
        std::mem::replace(&mut self.store, compaction.next).segments
    }

    /// The segments of the log.
    pub(crate) fn into_segments(self) -> Vec<Arc<Segment>> {
        self.store.segments
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn check_invariants(&self, routes: usize) {
        if self.contested() > 0 {
            return;
        }
        assert_eq!(self.live_bytes == 0, routes == 0);
        let fresh = self.fresh.as_ref();
        let fresh = fresh.map_or(0, |it| {
            it.full.iter().map(|it| it.len()).sum::<usize>() + it.frames.len()
        });
        assert!(self.store.bytes + fresh >= self.live_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    fn append(log: &mut Log, action: Action, frame: &[u8]) {
        log.append(Mark::All, action, Slot::FIRST, |out| {
            out.extend_from_slice(frame);
        });
    }

    /// Logs announcements of so many bytes and takes them.
    fn announce(log: &mut Log, frames: &[usize]) -> Vec<Span> {
        for &len in frames {
            let frame = vec![b'a'; len];
            append(log, Action::Add, &frame);
        }
        log.take_fresh()
    }

    /// Announces and withdraws something, which takes twice `len` bytes and two.
    fn come_and_go(log: &mut Log, len: usize) {
        let announcement = vec![b'a'; len];
        append(log, Action::Add, &announcement);
        let withdrawal = vec![b'w'; len + 2];
        append(log, Action::Remove, &withdrawal);
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
            log.rewrite(Mark::All, |out| out.resize(frame, b'a'));
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
        append(&mut log, Action::Add, b"before");
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
            assert!(!log.wants_compaction(History::Usual));
            come_and_go(&mut log, 1);
            assert!(log.wants_compaction(History::Usual));
        }
    }
}
