//! Immutable runs of encoded frames, shared by everybody who must send them.

use std::ops::Range;
use std::sync::Arc;

use super::PeerId;
use crate::core::wire::frame_len;

/// Most bytes of a segment.
///
/// Large enough that a `writev` of a few fills a socket, small enough that a
/// subscriber that has sent half of one pins little.
pub(crate) const SEGMENT_BYTES: usize = 64 * 1024;

/// Whole frames, back to back, and which of them came from whom.
#[derive(Debug)]
pub(crate) struct Segment {
    bytes: Box<[u8]>,
    /// Sorted by peer, then start; frames of nobody in particular have no run.
    runs: Box<[Run]>,
    frames: u32,
}

/// Adjacent frames marked with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    peer: PeerId,
    start: u32,
    end: u32,
}

impl Segment {
    /// A segment of so many frames that everybody gets whole.
    pub(crate) fn unmarked(bytes: Vec<u8>, frames: u32) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.into_boxed_slice(),
            runs: Box::default(),
            frames,
        })
    }

    fn runs_of(&self, peer: PeerId) -> &[Run] {
        let start = self.runs.partition_point(|run| run.peer < peer);
        let len = self.runs[start..].partition_point(|run| run.peer == peer);
        &self.runs[start..start + len]
    }
}

/// Some adjacent frames of a segment; starts and ends at frame boundaries when made.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    segment: Arc<Segment>,
    start: u32,
    end: u32,
    /// Of those that were cut out of one segment, the first counts for all.
    frames: u32,
}

impl Span {
    /// All of a segment.
    pub(crate) fn whole(segment: Arc<Segment>) -> Self {
        Self {
            start: 0,
            end: offset(segment.bytes.len()),
            frames: segment.frames,
            segment,
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.segment.bytes[self.start as usize..self.end as usize]
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// How many frames; those of a span that was cut may be counted with another piece.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// Drops the first `count` bytes, which are so many frames.
    ///
    /// # Panics
    ///
    /// In debug builds, if there are fewer.
    pub(crate) fn advance(&mut self, count: usize, frames: u32) {
        debug_assert!(count <= self.len());
        self.start += offset(count);
        self.frames = self.frames.saturating_sub(frames);
    }

    /// Cuts the first `count` bytes off as a span of their own, which are so many frames.
    pub(crate) fn split_front(&mut self, count: usize, frames: u32) -> Self {
        let front = Self {
            segment: Arc::clone(&self.segment),
            start: self.start,
            end: self.start + offset(count),
            frames: frames.min(self.frames),
        };
        self.advance(count, frames);
        front
    }

    /// Hands `push` what remains when the frames marked with `peer` are left out.
    ///
    /// Costs a binary search and the peer's own runs, however many frames there are.
    pub(crate) fn without(mut self, peer: PeerId, push: &mut impl FnMut(Self)) {
        let segment = Arc::clone(&self.segment);
        let runs = segment.runs_of(peer).iter().filter_map(|run| {
            let inside = run.start.max(self.start)..run.end.min(self.end);
            (!inside.is_empty()).then_some(inside)
        });
        let (runs, mut frames) = (runs.collect::<Vec<_>>(), self.frames);
        for run in &runs {
            let own = count_frames(&segment.bytes[run.start as usize..run.end as usize]);
            frames = frames.saturating_sub(own);
        }
        let mut push_piece = |piece: Range<u32>| {
            if !piece.is_empty() {
                push(Self {
                    segment: Arc::clone(&segment),
                    start: piece.start,
                    end: piece.end,
                    frames: std::mem::take(&mut frames),
                });
            }
        };
        for run in runs {
            push_piece(self.start..run.start);
            self.start = run.end;
        }
        push_piece(self.start..self.end);
    }
}

/// Frames on their way to become a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    bytes: Vec<u8>,
    /// In order of start.
    runs: Vec<Run>,
    frames: u32,
}

impl SegmentBuilder {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends a frame marked with `peer`.
    pub(crate) fn push(&mut self, peer: PeerId, frame: &[u8]) {
        let start = offset(self.bytes.len());
        self.bytes.extend_from_slice(frame);
        self.frames += 1;
        let end = offset(self.bytes.len());
        match self.runs.last_mut() {
            _ if peer == PeerId::NOBODY => {}
            Some(last) if last.peer == peer && last.end == start => last.end = end,
            _ => self.runs.push(Run { peer, start, end }),
        }
    }

    /// Appends all frames of a segment with their marks.
    pub(crate) fn extend(&mut self, segment: &Segment) {
        let base = offset(self.bytes.len());
        self.bytes.extend_from_slice(&segment.bytes);
        self.frames += segment.frames;
        let from = self.runs.len();
        self.runs.extend(segment.runs.iter().map(|run| Run {
            peer: run.peer,
            start: run.start + base,
            end: run.end + base,
        }));
        self.runs[from..].sort_unstable_by_key(|run| run.start);
    }

    /// Makes the segment and starts over.
    pub(crate) fn take(&mut self) -> Arc<Segment> {
        let builder = std::mem::take(self);
        let mut runs = builder.runs;
        runs.sort_unstable();
        Arc::new(Segment {
            bytes: builder.bytes.into_boxed_slice(),
            runs: runs.into_boxed_slice(),
            frames: builder.frames,
        })
    }
}

/// How many frames begin in `bytes`.
pub(crate) fn count_frames(mut bytes: &[u8]) -> u32 {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = &bytes[frame_len(bytes).min(bytes.len())..];
        count += 1;
    }
    count
}

/// Offsets inside a segment fit 32 bits by far.
fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("a segment is shorter than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_frames_of_a_peer_are_one_run() {
        let mut builder = SegmentBuilder::default();
        for peer in [1, 2, 1] {
            for _ in 0..100 {
                builder.push(PeerId(peer), b"frame");
            }
        }
        let segment = builder.take();
        assert_eq!(segment.runs_of(PeerId(1)).len(), 2);
        assert_eq!(segment.runs_of(PeerId(2)).len(), 1);
        assert_eq!(segment.frames, 300);
    }
}
