//! Bodies: complete, or made piece by piece while they are sent.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// Bytes of a chunk. A chunk ends with the first step that reaches this size.
const CHUNK: usize = 64 * 1024;

/// Most steps for a chunk. A filter may skip many items, and the chunk is then short.
const STEPS_MAX: usize = 1024;

/// Items that a list reads in a step.
const ITEMS_PER_STEP: usize = 32;

/// The body of a response.
pub(crate) enum Body {
    /// The complete body.
    Whole(Cow<'static, [u8]>),
    /// A body that is made while it is sent.
    Stream(Box<dyn Source>),
}

/// Makes a body, a little in each step.
pub(crate) trait Source: Send {
    /// Appends a few bytes, or none. Returns whether there is more to come.
    fn step(&mut self, to: &mut Vec<u8>) -> bool;
}

/// A chunk of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// More chunks follow. This one may be empty.
    More(Vec<u8>),
    /// The last chunk. It may be empty.
    Last(Vec<u8>),
}

impl Body {
    /// Returns a stream, or a complete body if the first chunk is all.
    pub(crate) fn stream(source: impl Source + 'static) -> Self {
        let mut source: Box<dyn Source> = Box::new(source);
        match fill(&mut *source) {
            Chunk::Last(bytes) => Self::Whole(bytes.into()),
            Chunk::More(bytes) => Self::Stream(Box::new(Begun {
                first: bytes,
                rest: source,
            })),
        }
    }

    /// Makes the next chunk. The first chunk of [`Body::Whole`] is all of it.
    pub(crate) fn next(&mut self) -> Chunk {
        match self {
            Self::Whole(bytes) => Chunk::Last(std::mem::take(bytes).into_owned()),
            Self::Stream(source) => fill(&mut **source),
        }
    }

    /// Returns the length in bytes, if it is known.
    pub(crate) fn len(&self) -> Option<usize> {
        match self {
            Self::Whole(bytes) => Some(bytes.len()),
            Self::Stream(_) => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            Some(len) => write!(f, "Whole({len} bytes)"),
            None => f.write_str("Stream"),
        }
    }
}

fn fill(source: &mut dyn Source) -> Chunk {
    let mut bytes = Vec::new();
    for _ in 0..STEPS_MAX {
        if !source.step(&mut bytes) {
            return Chunk::Last(bytes);
        }
        if bytes.len() >= CHUNK {
            break;
        }
    }
    Chunk::More(bytes)
}

/// A source whose first chunk is already made.
struct Begun {
    first: Vec<u8>,
    rest: Box<dyn Source>,
}

impl Source for Begun {
    fn step(&mut self, to: &mut Vec<u8>) -> bool {
        if self.first.is_empty() {
            self.rest.step(to)
        } else {
            to.append(&mut self.first);
            true
        }
    }
}

/// Makes `{"total":…,"next":…,"NAME":[…]}`, item by item.
pub(crate) struct List<I> {
    head: Vec<u8>,
    items: I,
    is_first: bool,
}

impl<I, T> List<I>
where
    I: Iterator<Item = Option<T>> + Send,
    T: Serialize,
{
    /// The fields of the object `head` stand before the items. `None` leaves an item out.
    pub(crate) fn new(head: &impl Serialize, name: &str, items: I) -> Self {
        let mut text = Vec::new();
        write_json(&mut text, head);
        let brace = text.pop();
        debug_assert_eq!(brace, Some(b'}'), "the head is an object");
        text.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        Self {
            head: text,
            items,
            is_first: true,
        }
    }
}

impl<I, T> Source for List<I>
where
    I: Iterator<Item = Option<T>> + Send,
    T: Serialize,
{
    fn step(&mut self, to: &mut Vec<u8>) -> bool {
        to.append(&mut self.head);
        for _ in 0..ITEMS_PER_STEP {
            match self.items.next() {
                Some(Some(item)) => {
                    let separator: &[u8] = if self.is_first { b"\n" } else { b",\n" };
                    to.extend_from_slice(separator);
                    self.is_first = false;
                    write_json(to, &item);
                }
                Some(None) => {}
                None => {
                    to.extend_from_slice(b"\n]}\n");
                    return false;
                }
            }
        }
        true
    }
}

/// Appends a value as JSON.
pub(crate) fn write_json(to: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(to, value)
        .expect("writing to a Vec does not fail, and all keys are strings");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mut body: Body) -> String {
        let mut all = Vec::new();
        loop {
            match body.next() {
                Chunk::More(bytes) => all.extend(bytes),
                Chunk::Last(bytes) => {
                    all.extend(bytes);
                    return String::from_utf8(all).unwrap();
                }
            }
        }
    }

    #[test]
    fn short_list_is_complete_and_long_list_is_a_stream() {
        let head = serde_json::json!({ "total": 3 });
        for (len, is_whole) in [(0_u32, true), (10, true), (100_000, false)] {
            let items = (0..len).map(|it| (it % 2 == 0).then_some(it));
            let body = Body::stream(List::new(&head, "numbers", items));
            assert_eq!(body.len().is_some(), is_whole, "{len}");
            let value: serde_json::Value = serde_json::from_str(&text(body)).unwrap();
            assert_eq!(value["total"], 3);
            let numbers = value["numbers"].as_array().unwrap();
            assert_eq!(numbers.len(), len as usize / 2);
        }
    }

    #[test]
    fn chunk_ends_even_if_a_filter_skips_every_item() {
        let head = serde_json::json!({ "total": 0 });
        let items = (0..10_000_000).map(|_| None::<u8>);
        let mut body = Body::stream(List::new(&head, "none", items));
        assert!(matches!(body.next(), Chunk::More(_)));
        assert_eq!(body.next(), Chunk::More(Vec::new()));
    }
}
