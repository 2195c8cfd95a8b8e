//! Law L: a sequence of changes, reduced to what it amounts to.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::table::{SEGMENT_BYTES, Segment, Span};
use crate::types::Action;

use super::outbox::updates;

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
pub(crate) fn fold(spans: &[Span], seed: u64) -> Vec<Span> {
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
    pack(told.map(|story| story.last_frame))
}

fn pack<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut bytes = Vec::new();
    let mut close = |bytes: &mut Vec<u8>| {
        if !bytes.is_empty() {
            spans.push(Span::whole(Segment::unmarked(std::mem::take(bytes))));
        }
    };
    for frame in frames {
        if bytes.len() + frame.len() > SEGMENT_BYTES {
            close(&mut bytes);
        }
        bytes.extend_from_slice(frame);
    }
    close(&mut bytes);
    spans
}
