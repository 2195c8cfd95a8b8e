//! What a session has yet to be sent: references to shared frames, and little else.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use crate::core::connection::{Queue, Which};
use crate::core::rib::{Segment, Span, count_frames};
use crate::core::types::Vni;
use crate::core::wire::frame_len;

use super::coalesce::coalesce;

/// Why frames are in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// HELLO or KEEPALIVE: ahead of everything else.
    Control,
    /// Part of an initial table: each route once, nothing to coalesce.
    Table(Vni),
    EndOfRib(Vni),
    /// Changes of a VNI since the table.
    Delta(Vni),
}

#[derive(Debug)]
struct Item {
    span: Span,
    /// Bytes of it that are sent; what remains may begin inside a frame.
    sent: usize,
    kind: Kind,
}

/// The queue of one session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    /// Of them, changes: what can be coalesced, and what the limits are about.
    delta_bytes: usize,
    /// What remained of the changes when they were last coalesced.
    coalesced_bytes: usize,
    /// UPDATEs sent so far.
    updates: u64,
    /// END_OF_RIBs sent so far.
    ends_of_rib: u64,
}

impl Outbox {
    /// Bytes that wait, tables included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of changes that wait.
    pub(crate) fn delta_bytes(&self) -> usize {
        self.delta_bytes
    }

    /// Appends changes of a VNI.
    pub(crate) fn push_delta(&mut self, vni: Vni, span: Span) {
        self.delta_bytes += span.len();
        self.push_back(span, Kind::Delta(vni));
    }

    /// Appends a part of the initial table of a VNI.
    pub(crate) fn push_table(&mut self, vni: Vni, span: Span) {
        self.push_back(span, Kind::Table(vni));
    }

    /// Appends the END_OF_RIB of a VNI.
    pub(crate) fn push_end_of_rib(&mut self, vni: Vni, span: Span) {
        self.push_back(span, Kind::EndOfRib(vni));
    }

    /// UPDATEs sent so far; those of a queued piece count when its last byte is sent.
    pub(crate) fn updates_sent(&self) -> u64 {
        self.updates
    }

    /// END_OF_RIBs sent so far.
    pub(crate) fn ends_of_rib_sent(&self) -> u64 {
        self.ends_of_rib
    }

    fn count_sent(&mut self, kind: Kind, frames: u32) {
        match kind {
            Kind::Table(_) | Kind::Delta(_) => self.updates += u64::from(frames),
            Kind::EndOfRib(_) => self.ends_of_rib += u64::from(frames),
            Kind::Control => {}
        }
    }

    fn push_back(&mut self, span: Span, kind: Kind) {
        self.bytes += span.len();
        self.items.push_back(Item {
            span,
            sent: 0,
            kind,
        });
    }

    /// Drops what waits of a VNI, apart from a frame that was begun.
    pub(crate) fn purge(&mut self, vni: Vni) {
        let keep = self.isolate_begun_frame();
        let begun: Vec<Item> = self.items.drain(..keep).collect();
        self.items.retain(|item| match item.kind {
            Kind::Table(of) | Kind::EndOfRib(of) | Kind::Delta(of) => of != vni,
            Kind::Control => true,
        });
        for item in begun.into_iter().rev() {
            self.items.push_front(item);
        }
        self.recount();
    }

    /// Makes the rest of a frame that was begun an item of its own; how many items that is.
    fn isolate_begun_frame(&mut self) -> usize {
        let Some(front) = self.items.front_mut().filter(|item| item.sent > 0) else {
            return 0;
        };
        let bytes = front.span.bytes();
        let (mut boundary, mut frames) = (0, 0);
        while boundary < front.sent {
            boundary += frame_len(&bytes[boundary..]);
            frames += 1;
        }
        if boundary == front.sent {
            let (kind, counted) = (front.kind, front.span.frames());
            front.span.advance(front.sent, frames);
            front.sent = 0;
            let sent = counted - front.span.frames();
            self.count_sent(kind, sent);
            return 0;
        }
        if boundary < bytes.len() {
            let begun = Item {
                span: front.span.split_front(boundary, frames),
                sent: std::mem::take(&mut front.sent),
                kind: front.kind,
            };
            self.items.push_front(begun);
        }
        1
    }

    /// Whether coalescing would pay for itself: the changes have doubled since the last time.
    pub(crate) fn has_doubled(&self) -> bool {
        self.delta_bytes > 2 * self.coalesced_bytes
    }

    /// Whether an eighth more of changes waits than the last coalescing left: enough to pay
    /// for another, when the peer reads again.
    pub(crate) fn has_grown(&self) -> bool {
        self.delta_bytes > self.coalesced_bytes + self.coalesced_bytes / 8
    }

    /// Reduces the changes to what they amount to, apart from a frame that was begun.
    pub(crate) fn coalesce(&mut self, seed: u64) {
        let keep = self.isolate_begun_frame();
        let mut deltas: BTreeMap<Vni, Vec<Span>> = BTreeMap::new();
        let mut rest = VecDeque::new();
        for (at, item) in self.items.drain(..).enumerate() {
            match item.kind {
                Kind::Delta(vni) if at >= keep => deltas.entry(vni).or_default().push(item.span),
                Kind::Control | Kind::Table(_) | Kind::EndOfRib(_) | Kind::Delta(_) => {
                    rest.push_back(item);
                }
            }
        }
        // Behind the tables: those of a VNI come before its changes, and VNIs do
        // not depend on each other.
        self.items = rest;
        for (vni, spans) in deltas {
            for span in coalesce(&spans, seed) {
                self.push_back(span, Kind::Delta(vni));
            }
        }
        self.recount();
        self.coalesced_bytes = self.delta_bytes;
    }

    fn recount(&mut self) {
        let left = |item: &Item| item.span.len() - item.sent;
        let is_delta = |item: &&Item| matches!(item.kind, Kind::Delta(_));
        self.bytes = self.items.iter().map(left).sum();
        self.delta_bytes = self.items.iter().filter(is_delta).map(left).sum();
    }
}

impl Queue for Outbox {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    // The rest of a frame stands alone; there are no chunks to go on with.
    fn has_begun_chunk(&self) -> bool {
        false
    }

    // One item of them at a time is enough.
    fn has_control(&self) -> bool {
        // It stands first, or behind the rest of a frame.
        let is_control = |item: &Item| item.kind == Kind::Control;
        self.items.iter().take(2).any(is_control)
    }

    // Ahead of everything, at the next frame boundary.
    fn push_control(&mut self, frames: Vec<u8>) {
        debug_assert!(!self.has_control());
        let count = count_frames(&frames);
        let span = Span::whole(Segment::unmarked(frames, count));
        self.bytes += span.len();
        let at = self.isolate_begun_frame();
        let item = Item {
            span,
            sent: 0,
            kind: Kind::Control,
        };
        self.items.insert(at, item);
    }

    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], budget: usize) -> usize {
        let mut left = budget;
        let mut filled = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            if left == 0 {
                break;
            }
            let bytes = &item.span.bytes()[item.sent..];
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    // The rest of a frame that was begun goes first, and counts as a frame.
    fn gather_chunk<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize, which: Which) -> usize {
        let mut left = limit;
        let mut filled = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            let is_urgent = item.kind == Kind::Control || item.sent > 0;
            if which == Which::Urgent && !is_urgent {
                break;
            }
            let bytes = &item.span.bytes()[item.sent..];
            // The front has a whole frame, or the rest of one.
            let mut end = match filled {
                0 if item.sent > 0 => bytes.len(),
                0 => frame_len(bytes),
                _ => 0,
            };
            while end < bytes.len() && end + frame_len(&bytes[end..]) <= left {
                end += frame_len(&bytes[end..]);
            }
            if end == 0 {
                break;
            }
            *slice = IoSlice::new(&bytes[..end]);
            filled += 1;
            left = left.saturating_sub(end);
            if end < bytes.len() {
                break;
            }
        }
        filled
    }

    fn has_urgent(&self) -> bool {
        let front = self.items.front();
        front.is_some_and(|item| item.kind == Kind::Control || item.sent > 0)
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.items.front_mut() {
            let taken = count.min(front.span.len() - front.sent);
            if matches!(front.kind, Kind::Delta(_)) {
                self.delta_bytes -= taken;
            }
            front.sent += taken;
            count -= taken;
            if front.sent < front.span.len() {
                break;
            }
            let (kind, frames) = (front.kind, front.span.frames());
            self.count_sent(kind, frames);
            self.items.pop_front();
        }
        debug_assert_eq!(count, 0, "no more can be sent than was lent");
        if self.items.is_empty() {
            self.coalesced_bytes = 0;
            // A queue that once was long must not cost an idle session its memory.
            if self.items.capacity() > 32 {
                self.items = VecDeque::new();
            }
        }
    }

    fn advance_chunk(&mut self, count: usize) -> bool {
        self.advance(count);
        self.isolate_begun_frame() > 0
    }
}
