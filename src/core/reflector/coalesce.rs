//! Law L: a sequence of changes, reduced to what it amounts to, in steps.
//!
//! ```text
//! Changes --> Reduction: the same as known ones? --> their result
//!                        otherwise a Coalescer   --> result, kept for others
//! ```

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::meter::{self, Meter};
use super::pile::Pile;
#[cfg(any(test, feature = "internals"))]
use crate::core::rib::count_frames;
use crate::core::rib::{Mark, SEGMENT_BYTES, Segment, SegmentBuilder, Span};
use crate::core::types::Action;
use crate::core::wire::{frame_len, split_update};

/// Results that are kept for others with the same changes.
const RESULTS: usize = 4;

/// Bytes of changes whose routes share a table of their own: to grow it takes about 0.1 ms.
const PART_BYTES: usize = 64 * 1024;

/// Spans that are compared for a unit.
const COMPARED_SPANS: usize = 8;

/// Routes that are written in a step.
const WRITTEN_AT_ONCE: usize = 64;

/// Changes of one VNI, in order.
#[derive(Debug, Default)]
pub(super) struct Changes {
    spans: Pile<Span>,
    bytes: usize,
    /// The same for the same changes, and hardly ever for others.
    print: u64,
}

impl Changes {
    pub(super) fn push(&mut self, span: Span) {
        self.bytes += span.len();
        self.print = self.print.rotate_left(5) ^ span.print();
        self.print = self.print.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.spans.push(span);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_spans(self) -> Pile<Span> {
        self.spans
    }

    /// Whether there is one frame, which is all that it amounts to.
    fn is_single(&self) -> bool {
        self.spans.len() == 1 && frame_len(self.spans.get(0).bytes()) == self.bytes
    }
}

/// Changes, and what they amount to.
#[derive(Debug)]
pub(super) struct Known {
    changes: Changes,
    result: Vec<Span>,
}

/// What was found for those before. Those who stalled at the same time miss the same.
#[derive(Debug)]
pub(super) struct Results {
    seed: u64,
    known: VecDeque<Arc<Known>>,
    /// Made since the last [`Self::take_made`].
    made: Vec<Arc<Segment>>,
    /// No longer needed, and to be dropped little by little.
    discarded: Vec<Pile<Span>>,
}

impl Results {
    /// `seed` keeps peers from choosing colliding routes.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            known: VecDeque::new(),
            made: Vec::new(),
            discarded: Vec::new(),
        }
    }

    fn keep(&mut self, changes: Changes, result: Vec<Span>) {
        let segments = result.iter().map(|it| Arc::clone(it.segment()));
        self.made.extend(segments);
        self.known.push_front(Arc::new(Known { changes, result }));
        self.forget(RESULTS);
    }

    /// Forgets all but the latest `count` results.
    pub(super) fn forget(&mut self, count: usize) {
        while self.known.len() > count {
            let known = self.known.pop_back().and_then(Arc::into_inner);
            self.discarded.extend(known.map(|it| it.changes.spans));
        }
    }

    /// Segments that were made since the last call.
    pub(super) fn take_made(&mut self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.made)
    }

    /// What is to be dropped, little by little.
    pub(super) fn take_discarded(&mut self) -> Vec<Pile<Span>> {
        std::mem::take(&mut self.discarded)
    }
}

/// Changes on their way to what they amount to.
#[derive(Debug)]
pub(super) enum Reduction {
    /// Known changes that may be the same are looked at, up to `at`.
    Comparing {
        changes: Changes,
        known: Arc<Known>,
        at: usize,
    },
    Coalescing(Box<Coalescer>),
    Done(Vec<Span>),
}

impl Reduction {
    pub(super) fn new(mut changes: Changes, results: &Results) -> Self {
        if changes.is_single() {
            let single = changes.spans.get(0).clone();
            changes.spans.drop_some();
            return Self::Done(vec![single]);
        }
        let is_like = |it: &&Arc<Known>| {
            let other = &it.changes;
            (other.print, other.spans.len()) == (changes.print, changes.spans.len())
        };
        match results.known.iter().find(is_like) {
            Some(known) => Self::Comparing {
                known: Arc::clone(known),
                changes,
                at: 0,
            },
            None => Self::Coalescing(Box::new(Coalescer::new(changes, results.seed))),
        }
    }

    /// Goes on for one step.
    pub(super) fn step(self, results: &mut Results, meter: &mut Meter) -> Self {
        match self {
            Self::Comparing { changes, known, at } => {
                let steps = meter.steps(1).saturating_mul(COMPARED_SPANS);
                let end = changes.spans.len().min(at.saturating_add(steps));
                meter.charge(1 + (end - at) / COMPARED_SPANS);
                let theirs = &known.changes.spans;
                let is_same = (at..end).all(|it| changes.spans.get(it).is_same(theirs.get(it)));
                if !is_same {
                    return Self::Coalescing(Box::new(Coalescer::new(changes, results.seed)));
                }
                if end < changes.spans.len() {
                    let at = end;
                    return Self::Comparing { changes, known, at };
                }
                results.discarded.push(changes.spans);
                Self::Done(known.result.clone())
            }
            Self::Coalescing(mut coalescer) => {
                if !coalescer.step(meter) {
                    return Self::Coalescing(coalescer);
                }
                let result = coalescer.result.clone();
                results.keep(coalescer.changes, coalescer.result);
                Self::Done(result)
            }
            Self::Done(result) => Self::Done(result),
        }
    }

    /// The changes, to be dropped little by little.
    pub(super) fn into_spans(self) -> Pile<Span> {
        match self {
            Self::Comparing { changes, .. } => changes.spans,
            Self::Coalescing(coalescer) => coalescer.changes.spans,
            Self::Done(_) => Pile::default(),
        }
    }
}

/// What happened to one route.
#[derive(Clone, Copy, Debug)]
struct Story {
    /// The span that has the latest frame about it, and where.
    span: u32,
    at: u32,
    first: Action,
    last: Action,
}

const _: () = assert!(size_of::<Story>() == 12);

/// The shortest sequence with the same effect on every table that takes the whole one.
///
/// A route that ends as it began is not mentioned. The first change of a route tells how it
/// began: an ADD means absent, a REMOVE present.
#[derive(Debug)]
pub(super) struct Coalescer {
    changes: Changes,
    hasher: FixedState,
    /// Spans that are read.
    read: usize,
    /// The stories by route; several tables, so that none takes long to grow.
    parts: Box<[HashTable<u32>]>,
    stories: Pile<Story>,
    /// Stories that are told.
    told: usize,
    segment: SegmentBuilder,
    result: Vec<Span>,
}

impl Coalescer {
    fn new(changes: Changes, seed: u64) -> Self {
        let parts = (changes.bytes / PART_BYTES + 1).next_power_of_two();
        Self {
            changes,
            hasher: FixedState::with_seed(seed),
            read: 0,
            parts: (0..parts).map(|_| HashTable::new()).collect(),
            stories: Pile::default(),
            told: 0,
            segment: SegmentBuilder::default(),
            result: Vec::new(),
        }
    }

    /// Goes on for as long as the meter lasts. Returns whether the result is there.
    fn step(&mut self, meter: &mut Meter) -> bool {
        while !meter.is_spent() {
            if self.read < self.changes.spans.len() {
                let bytes = self.read_span();
                meter.charge(1 + bytes / meter::COALESCED_BYTES);
            } else if self.told < self.stories.len() {
                let end = self.stories.len().min(self.told + WRITTEN_AT_ONCE);
                meter.charge(meter::SLOT * (end - self.told));
                (self.told..end).for_each(|it| self.tell(it));
                self.told = end;
            } else {
                if !self.segment.is_empty() {
                    self.result.push(Span::whole(self.segment.take()));
                }
                return true;
            }
        }
        false
    }

    /// Takes the changes of the next span. Returns how many bytes they are.
    fn read_span(&mut self) -> usize {
        let spans = &self.changes.spans;
        let bytes = spans.get(self.read).bytes();
        let number = u32::try_from(self.read).expect("a queue is below 4 GiB");
        let mut at = 0;
        while at < bytes.len() {
            let frame = &bytes[at..at + frame_len(&bytes[at..])];
            let (action, key) = split_update(frame);
            let hash = self.hasher.hash_one(key);
            let key_of = |&it: &u32| split_update(frame_of(spans, self.stories.get(it as usize))).1;
            let entry = part_of(&mut self.parts, hash).entry(
                hash,
                |it| key_of(it) == key,
                |it| self.hasher.hash_one(key_of(it)),
            );
            let mut story = Story {
                span: number,
                at: u32::try_from(at).expect("a span is below 4 GiB"),
                first: action,
                last: action,
            };
            match entry {
                Entry::Occupied(entry) => {
                    let known = self.stories.get_mut(*entry.get() as usize);
                    story.first = known.first;
                    *known = story;
                }
                Entry::Vacant(entry) => {
                    let next = self.stories.len();
                    entry.insert(u32::try_from(next).expect("a queue is below 4 GiB"));
                    self.stories.push(story);
                }
            }
            at += frame.len();
        }
        self.read += 1;
        bytes.len()
    }

    /// Appends a story to the result, unless the route ends as it began.
    fn tell(&mut self, number: usize) {
        let story = self.stories.get(number);
        if story.first == story.last {
            let frame = frame_of(&self.changes.spans, story);
            if self.segment.len() + frame.len() > SEGMENT_BYTES {
                self.result.push(Span::whole(self.segment.take()));
            }
            self.segment.push(Mark::All, story.last, frame);
        }
    }
}

/// The latest frame about a route.
fn frame_of<'a>(spans: &'a Pile<Span>, story: &Story) -> &'a [u8] {
    let bytes = &spans.get(story.span as usize).bytes()[story.at as usize..];
    &bytes[..frame_len(bytes)]
}

/// The table for a hash. A table uses the lower and the highest bits itself.
fn part_of(parts: &mut [HashTable<u32>], hash: u64) -> &mut HashTable<u32> {
    let mask = parts.len() - 1;
    let bits = usize::try_from(hash >> 32 & 0xff_ffff).expect("24 bits");
    &mut parts[bits & mask]
}

/// Coalesces plain bytes, in spans of a few frames and the smallest steps.
#[cfg(any(test, feature = "internals"))]
pub(crate) fn coalesce_frames(frames: &[u8]) -> Vec<u8> {
    const SPAN_BYTES: usize = 1000;
    let mut changes = Changes::default();
    let mut rest = frames;
    while !rest.is_empty() {
        let mut end = 0;
        while end < rest.len().min(SPAN_BYTES) {
            end += frame_len(&rest[end..]);
        }
        let span;
        (span, rest) = rest.split_at(end);
        let segment = Segment::unmarked(span.to_vec(), count_frames(span), 0);
        changes.push(Span::whole(segment));
    }
    let mut results = Results::new(1);
    let mut reduction = Reduction::new(changes, &results);
    loop {
        match reduction.step(&mut results, &mut Meter::of(1)) {
            Reduction::Done(spans) => {
                return spans.iter().flat_map(|it| it.bytes().to_vec()).collect();
            }
            on @ (Reduction::Comparing { .. } | Reduction::Coalescing(_)) => reduction = on,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::types::{Destination, NextHop, Route, Vni};
    use crate::core::wire::encode_update;

    fn apply(frames: &[u8], table: &mut BTreeSet<Vec<u8>>) -> usize {
        let (mut rest, mut count) = (frames, 0);
        while !rest.is_empty() {
            let frame;
            (frame, rest) = rest.split_at(frame_len(rest));
            let (action, key) = split_update(frame);
            count += 1;
            let is_news = match action {
                Action::Add => table.insert(key.to_vec()),
                Action::Remove => table.remove(key),
            };
            assert!(is_news);
        }
        count
    }

    /// Law L, for random tables and random valid sequences of changes.
    #[test]
    fn coalesced_changes_have_the_effect_of_all_changes() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let route = |number: u32| {
                let hop = NextHop::standard(std::net::Ipv6Addr::from(u128::from(number % 3)));
                Route::new(Destination::from_ipv4((number / 3).into(), 32), hop)
            };
            let keys = random.u32(1..40);
            let mut present: BTreeSet<u32> = (0..keys).filter(|_| random.bool()).collect();
            let before: BTreeSet<u32> = present.clone();
            let (mut start, mut changes) = (Vec::new(), Vec::new());
            for &number in &before {
                encode_update(&mut start, Action::Add, Vni(1), &route(number));
            }
            for _ in 0..random.usize(..300) {
                let number = random.u32(..keys);
                let action = if present.remove(&number) {
                    Action::Remove
                } else {
                    present.insert(number);
                    Action::Add
                };
                encode_update(&mut changes, action, Vni(1), &route(number));
            }
            let mut all = BTreeSet::new();
            apply(&start, &mut all);
            let mut coalesced = all.clone();
            apply(&changes, &mut all);
            let told = apply(&coalesce_frames(&changes), &mut coalesced);
            assert_eq!(coalesced, all, "seed {seed}");
            let differ = before.symmetric_difference(&present).count();
            assert_eq!(told, differ, "seed {seed}: no more than what differs");
        }
    }

    fn changes(numbers: std::ops::Range<u32>) -> Changes {
        let mut changes = Changes::default();
        for number in numbers {
            let hop = NextHop::standard(std::net::Ipv6Addr::LOCALHOST);
            let route = Route::new(Destination::from_ipv4(number.into(), 32), hop);
            let mut frame = Vec::new();
            encode_update(&mut frame, Action::Add, Vni(1), &route);
            changes.push(Span::whole(Segment::unmarked(frame, 1, 0)));
        }
        changes
    }

    fn reduce(changes: Changes, results: &mut Results) -> (Vec<Span>, usize) {
        let (mut reduction, mut steps) = (Reduction::new(changes, results), 0);
        loop {
            let mut meter = Meter::of(100);
            reduction = reduction.step(results, &mut meter);
            steps += 1;
            assert!(meter.used() <= 100 + 200, "{} in one step", meter.used());
            if let Reduction::Done(result) = reduction {
                return (result, steps);
            }
        }
    }

    /// Coalesced changes are cut into segments as all else is, between frames.
    #[test]
    fn long_results_are_cut_into_full_segments() {
        let (result, steps) = reduce(changes(0..5000), &mut Results::new(1));
        assert!(steps > 100, "{steps} steps");
        let frames: u32 = result.iter().map(Span::frames).sum();
        assert_eq!(frames, 5000);
        let each = result[0].len() / result[0].frames() as usize;
        let (last, full) = result.split_last().unwrap();
        assert!(full.len() > 1 && last.len() <= SEGMENT_BYTES);
        for span in full {
            assert!((SEGMENT_BYTES - each + 1..=SEGMENT_BYTES).contains(&span.len()));
        }
    }

    #[test]
    fn same_changes_are_reduced_once_and_shared() {
        let mut results = Results::new(1);
        let (first, slow) = reduce(changes(0..3000), &mut results);
        let again = || {
            let mut copy = Changes::default();
            let spans = &results.known[0].changes.spans;
            (0..spans.len()).for_each(|it| copy.push(spans.get(it).clone()));
            copy
        };
        let (same, mut other) = (again(), again());
        other.push(changes(5000..5001).spans.get(0).clone());
        assert_eq!(results.take_made().len(), first.len());
        let (shared, fast) = reduce(same, &mut results);
        assert!(first.iter().zip(&shared).all(|(a, b)| a.is_same(b)));
        assert!(fast * 10 < slow, "{fast} steps, {slow} the first time");
        assert!(results.take_made().is_empty());
        let (longer, _) = reduce(other, &mut results);
        assert!(!longer[0].is_same(&first[0]));
        results.forget(0);
        let left: usize = results.take_discarded().iter().map(Pile::len).sum();
        assert_eq!(left, 3000 + 3000 + 3001);
    }
}
