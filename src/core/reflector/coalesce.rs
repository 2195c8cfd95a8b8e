//! Law L: a sequence of changes, reduced to what it amounts to.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::core::rib::{Mark, SEGMENT_BYTES, SegmentBuilder, Span};
#[cfg(any(test, feature = "internals"))]
use crate::core::rib::{Segment, count_frames};
use crate::core::types::Action;
use crate::core::wire::{frame_len, split_update};

/// What happened to one route.
struct Story<'a> {
    key: &'a [u8],
    first: Action,
    last: Action,
    last_frame: &'a [u8],
}

/// The shortest sequence with the same effect on every table that takes the whole one.
///
/// A route that ends as it began is not mentioned. The first change of a route
/// tells how it began: an ADD means absent, a REMOVE present. `seed` keeps peers
/// from choosing colliding routes.
pub(crate) fn coalesce(spans: &[Span], seed: u64) -> Vec<Span> {
    let hasher = FixedState::with_seed(seed);
    let mut stories: Vec<Story<'_>> = Vec::new();
    let mut index: HashTable<u32> = HashTable::new();
    for (action, key, frame) in spans.iter().flat_map(updates) {
        let entry = index.entry(
            hasher.hash_one(key),
            |&at| stories[at as usize].key == key,
            |&at| hasher.hash_one(stories[at as usize].key),
        );
        match entry {
            Entry::Occupied(entry) => {
                let story = &mut stories[*entry.get() as usize];
                story.last = action;
                story.last_frame = frame;
            }
            Entry::Vacant(entry) => {
                entry.insert(u32::try_from(stories.len()).expect("a queue is below 4 GiB"));
                stories.push(Story {
                    key,
                    first: action,
                    last: action,
                    last_frame: frame,
                });
            }
        }
    }
    let told = stories.iter().filter(|story| story.first == story.last);
    pack(told.map(|story| (story.last, story.last_frame)))
}

/// The action, key and bytes of every UPDATE frame in a span.
fn updates(span: &Span) -> impl Iterator<Item = (Action, &[u8], &[u8])> {
    let mut bytes = span.bytes();
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (frame, rest) = bytes.split_at(frame_len(bytes));
        bytes = rest;
        let (action, key) = split_update(frame);
        Some((action, key, frame))
    })
}

fn pack<'a>(frames: impl Iterator<Item = (Action, &'a [u8])>) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut builder = SegmentBuilder::default();
    for (action, frame) in frames {
        if builder.len() + frame.len() > SEGMENT_BYTES {
            spans.push(Span::whole(builder.take()));
        }
        builder.push(Mark::All, action, frame);
    }
    if !builder.is_empty() {
        spans.push(Span::whole(builder.take()));
    }
    spans
}

/// [`coalesce`] on plain bytes.
#[cfg(any(test, feature = "internals"))]
pub(crate) fn coalesce_frames(frames: &[u8]) -> Vec<u8> {
    let span = Span::whole(Segment::unmarked(frames.to_vec(), count_frames(frames), 0));
    let coalesced = coalesce(&[span], 1);
    coalesced
        .iter()
        .flat_map(|span| span.bytes().to_vec())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::core::types::{Destination, NextHop, Route, Vni};
    use crate::core::wire::encode_update;

    fn apply(frames: &[u8], table: &mut BTreeSet<Vec<u8>>) -> usize {
        let span = Span::whole(Segment::unmarked(frames.to_vec(), count_frames(frames), 0));
        let mut count = 0;
        for (action, key, _) in updates(&span) {
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

    /// Coalesced changes are cut into segments as all else is, between frames.
    #[test]
    fn long_results_are_cut_into_full_segments() {
        let frame = [1, 0, 1, 5, 0];
        let most = SEGMENT_BYTES / frame.len();
        let count = 2 * most + 1;
        let spans = pack(std::iter::repeat_n((Action::Add, &frame[..]), count));
        let shape: Vec<_> = spans.iter().map(|it| (it.len(), it.frames())).collect();
        let full = (most * frame.len(), u32::try_from(most).unwrap());
        assert_eq!(shape, [full, full, (frame.len(), 1)]);
        // One that fits exactly.
        let exact = [&[0; SEGMENT_BYTES / 2][..]; 3];
        let spans = pack(exact.into_iter().map(|it| (Action::Add, it)));
        let shape: Vec<_> = spans.iter().map(|it| (it.len(), it.frames())).collect();
        assert_eq!(shape, [(SEGMENT_BYTES, 2), (SEGMENT_BYTES / 2, 1)]);
    }
}
