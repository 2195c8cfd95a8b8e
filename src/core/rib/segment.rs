//! Immutable runs of encoded frames, shared by everybody who must send them.

use std::ops::Range;
use std::sync::Arc;

use super::PeerId;
use crate::core::types::Action;
use crate::core::wire::frame_len;

/// Most bytes of a segment.
///
/// Large enough that a `writev` of a few fills a socket, small enough that a
/// subscriber that has sent half of one pins little.
pub(crate) const SEGMENT_BYTES: usize = 64 * 1024;

/// From this size on, what is fresh becomes a segment of the log as it is.
pub(super) const SHARED_BYTES: usize = SEGMENT_BYTES / 4;

/// Who gets a frame.
///
/// A peer announces for itself; once several sessions of a node announce together, the
/// marks name the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Every subscriber.
    All,
    /// Every subscriber but this one.
    AllBut(PeerId),
    /// This subscriber alone.
    Only(PeerId),
}

/// Whole frames, back to back, and who gets which of them.
#[derive(Debug)]
pub(crate) struct Segment {
    bytes: Box<[u8]>,
    /// Frames marked "all but". Sorted by peer, then start.
    all_but: Box<[Run]>,
    /// Frames marked "only"; `None` in most segments.
    only: Option<Box<OnlyRuns>>,
    frames: u32,
    /// How many of the frames are withdrawals.
    removals: u32,
}

/// The frames of a segment that one subscriber gets alone.
#[derive(Debug)]
struct OnlyRuns {
    /// Sorted by peer, then start.
    runs: Vec<Run>,
    /// The same frames, whoever gets them: adjacent runs are one block. Sorted by start.
    blocks: Vec<Run>,
}

/// Adjacent frames with the same mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    peer: PeerId,
    start: u32,
    end: u32,
    frames: u32,
}

impl Run {
    /// The part of it inside a range of bytes, with its frames counted.
    fn clipped(&self, start: u32, end: u32, bytes: &[u8]) -> Option<Self> {
        if start <= self.start && self.end <= end {
            return Some(*self);
        }
        let (start, end) = (start.max(self.start), end.min(self.end));
        (start < end).then(|| Self {
            peer: self.peer,
            start,
            end,
            frames: count_frames(&bytes[start as usize..end as usize]),
        })
    }
}

impl Segment {
    /// How many bytes of frames it has.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes that it has allocated, with itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let only = self.only.as_ref();
        let runs = self.all_but.len() + only.map_or(0, |it| 2 * it.runs.len());
        // Two counters belong to a shared thing.
        size_of::<Self>() + 16 + self.bytes.len() + runs * size_of::<Run>()
    }

    /// A segment of so many frames that everybody gets whole, some of them withdrawals.
    pub(crate) fn unmarked(bytes: Vec<u8>, frames: u32, removals: u32) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.into_boxed_slice(),
            all_but: Box::default(),
            only: None,
            frames,
            removals,
        })
    }
}

/// The runs of a peer among runs sorted by peer.
fn runs_of(runs: &[Run], peer: PeerId) -> &[Run] {
    let start = runs.partition_point(|run| run.peer < peer);
    let len = runs[start..].partition_point(|run| run.peer == peer);
    &runs[start..start + len]
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

    /// Whose part it is.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.segment.bytes[self.start as usize..self.end as usize]
    }

    /// Whether it is the same part of the same segment.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
            && (self.start, self.end) == (other.start, other.end)
    }

    /// Returns a number that is the same for the same part of the same segment, for as long as
    /// somebody holds it.
    pub(crate) fn print(&self) -> u64 {
        let part = u64::from(self.start) << 32 | u64::from(self.end);
        part ^ (Arc::as_ptr(&self.segment) as u64).rotate_left(16)
    }

    /// Whether the log of its table has the segment itself, and no copy of it.
    pub(crate) fn is_in_log(&self) -> bool {
        self.segment.bytes.len() >= SHARED_BYTES
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// How many frames; those of a span that was cut may be counted with another piece.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// About how many of the bytes are withdrawals, by their share of the segment.
    pub(crate) fn removed_bytes(&self) -> usize {
        match self.segment.removals {
            0 => 0,
            removals => self.len() * removals as usize / self.segment.frames.max(1) as usize,
        }
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

    /// Whether `peer` gets all of the segment that it is part of.
    pub(crate) fn is_whole_for(&self, peer: PeerId) -> bool {
        self.segment.only.is_none() && runs_of(&self.segment.all_but, peer).is_empty()
    }

    /// Hands `push` what `peer` gets of the span.
    ///
    /// Costs a binary search and the peer's own runs, however many frames there are; in a
    /// segment with frames for single peers, their blocks too.
    pub(crate) fn for_peer(mut self, peer: PeerId, push: &mut impl FnMut(Self)) {
        // Nearly every subscriber gets nearly every segment whole.
        if self.is_whole_for(peer) {
            push(self);
            return;
        }
        let segment = Arc::clone(&self.segment);
        let clip = |run: &Run| run.clipped(self.start, self.end, &segment.bytes);
        let own = runs_of(&segment.all_but, peer);
        let mut left_out: Vec<Run> = own.iter().filter_map(clip).collect();
        let mut frames = self.frames;
        for run in &left_out {
            frames = frames.saturating_sub(run.frames);
        }
        if let Some(only) = &segment.only {
            let mut own = runs_of(&only.runs, peer).iter().filter_map(clip).peekable();
            for mut block in only.blocks.iter().filter_map(clip) {
                frames = frames.saturating_sub(block.frames);
                while let Some(run) = own.next_if(|run| run.start < block.end) {
                    frames += run.frames;
                    left_out.push(Run {
                        end: run.start,
                        ..block
                    });
                    block.start = run.end;
                }
                left_out.push(block);
            }
            left_out.sort_unstable_by_key(|run| run.start);
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
        let mut start = self.start;
        for run in left_out.iter().filter(|run| run.start < run.end) {
            push_piece(start..run.start);
            start = run.end;
        }
        self.start = start;
        push_piece(self.start..self.end);
    }
}

/// Frames on their way to become a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    bytes: Vec<u8>,
    /// In order of start.
    all_but: Vec<Run>,
    /// In order of start.
    only: Vec<Run>,
    frames: u32,
    removals: u32,
}

impl SegmentBuilder {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the bytes that it has allocated, with itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        let runs = self.all_but.capacity() + self.only.capacity();
        size_of::<Self>() + self.bytes.capacity() + runs * size_of::<Run>()
    }

    /// Appends a frame.
    pub(crate) fn push(&mut self, mark: Mark, action: Action, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.mark(mark, action, frame.len());
    }

    /// Lends the end of the bytes to append a frame to, which is then to be marked by
    /// [`Self::mark`] or taken off by [`Self::take_back`].
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes off the last `len` bytes, which are not marked.
    pub(crate) fn take_back(&mut self, len: usize) -> Vec<u8> {
        self.bytes.split_off(self.bytes.len() - len)
    }

    /// The last bytes.
    pub(crate) fn last(&self, len: usize) -> &[u8] {
        &self.bytes[self.bytes.len() - len..]
    }

    /// Marks the last `len` bytes as a frame.
    pub(crate) fn mark(&mut self, mark: Mark, action: Action, len: usize) {
        let end = offset(self.bytes.len());
        let start = end - offset(len);
        self.frames += 1;
        self.removals += u32::from(action == Action::Remove);
        let (runs, peer) = match mark {
            Mark::All => return,
            Mark::AllBut(peer) => (&mut self.all_but, peer),
            Mark::Only(peer) => (&mut self.only, peer),
        };
        match runs.last_mut() {
            Some(last) if last.peer == peer && last.end == start => {
                last.end = end;
                last.frames += 1;
            }
            _ => {
                if runs.is_empty() {
                    // Most segments have one run.
                    runs.reserve_exact(1);
                }
                runs.push(Run {
                    peer,
                    start,
                    end,
                    frames: 1,
                });
            }
        }
    }

    /// Appends all frames of a segment with their marks.
    pub(crate) fn extend(&mut self, segment: &Segment) {
        let base = offset(self.bytes.len());
        self.bytes.extend_from_slice(&segment.bytes);
        let only = segment.only.as_ref().map_or(&[][..], |it| &it.runs);
        append(&mut self.all_but, &segment.all_but, base);
        append(&mut self.only, only, base);
        self.frames += segment.frames;
        self.removals += segment.removals;
    }

    /// Appends what another builder has, with its marks.
    pub(crate) fn append(&mut self, other: &Self) {
        let base = offset(self.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        append(&mut self.all_but, &other.all_but, base);
        append(&mut self.only, &other.only, base);
        self.frames += other.frames;
        self.removals += other.removals;
    }

    /// Makes the segment and starts over.
    pub(crate) fn take(&mut self) -> Arc<Segment> {
        let builder = std::mem::take(self);
        let (mut all_but, only) = (builder.all_but, builder.only);
        all_but.sort_unstable();
        Arc::new(Segment {
            bytes: builder.bytes.into_boxed_slice(),
            all_but: all_but.into_boxed_slice(),
            only: OnlyRuns::new(only).map(Box::new),
            frames: builder.frames,
            removals: builder.removals,
        })
    }
}

impl OnlyRuns {
    /// `runs` in order of start; `None` if there are none.
    fn new(mut runs: Vec<Run>) -> Option<Self> {
        if runs.is_empty() {
            return None;
        }
        let mut blocks: Vec<Run> = Vec::new();
        for run in &runs {
            match blocks.last_mut() {
                Some(last) if last.end == run.start => {
                    last.end = run.end;
                    last.frames += run.frames;
                }
                _ => blocks.push(Run {
                    peer: PeerId::NOBODY,
                    ..*run
                }),
            }
        }
        runs.sort_unstable();
        Some(Self { runs, blocks })
    }
}

/// Appends runs of a segment that begins at `base`, and puts them in order of start.
fn append(to: &mut Vec<Run>, runs: &[Run], base: u32) {
    let from = to.len();
    to.extend(runs.iter().map(|run| Run {
        start: run.start + base,
        end: run.end + base,
        ..*run
    }));
    to[from..].sort_unstable_by_key(|run| run.start);
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
                builder.push(Mark::AllBut(PeerId(peer)), Action::Add, b"frame");
            }
        }
        let segment = builder.take();
        assert_eq!(runs_of(&segment.all_but, PeerId(1)).len(), 2);
        assert_eq!(runs_of(&segment.all_but, PeerId(2)).len(), 1);
        assert_eq!(segment.frames, 300);
    }
}
