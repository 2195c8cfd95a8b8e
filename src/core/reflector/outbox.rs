//! What a session has yet to be sent: references to shared frames, and little else.

mod leftovers;
mod rewrite;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

pub(crate) use leftovers::Leftovers;
use rewrite::Rewrite;

use crate::core::connection::{Queue, Which};
use crate::core::rib::{PeerId, Segment, Span, count_frames};
use crate::core::types::Vni;
use crate::core::wire::frame_len;

/// Why frames are in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// HELLO or KEEPALIVE: ahead of everything else.
    Control,
    /// Part of an initial table: each route once, nothing to coalesce.
    Table(Vni),
    /// The same, with frames that the session is not sent: it is cut when it comes to the front.
    Uncut(Vni),
    EndOfRib(Vni),
    /// Changes of a VNI since the table.
    Delta(Vni),
}

#[derive(Debug)]
struct Item {
    span: Span,
    /// Bytes of it that are sent; what remains may begin inside a frame.
    sent: u32,
    kind: Kind,
    /// Of the subscription that it belongs to.
    epoch: u32,
}

// There are as many of them as changes wait for peers.
const _: () = assert!(size_of::<Item>() == 40);

impl Item {
    /// How many bytes of it are sent.
    fn sent(&self) -> usize {
        self.sent as usize
    }

    /// How many bytes of it are not.
    fn left(&self) -> usize {
        self.span.len() - self.sent()
    }

    /// Whether it has frames that the session is not sent.
    fn is_uncut(&self) -> bool {
        matches!(self.kind, Kind::Uncut(_))
    }

    /// The bytes that are not sent.
    fn rest(&self) -> &[u8] {
        &self.span.bytes()[self.sent()..]
    }
}

/// The epoch of the rest of a frame, which is sent whatever becomes of its subscription.
const BEGUN: u32 = u32::MAX;

/// Dead items that are dropped at once when something else is done with a queue.
const DROPS_AT_ONCE: usize = 16;

/// Ended subscriptions that are forgotten at once.
const ENDED_AT_ONCE: usize = 1024;

/// Items that are looked at to learn what a queue is like; the rest is taken to be alike.
const LOOKS: usize = 1000;

/// The queue of one session.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    /// Of them, changes: what can be coalesced, and what the limits are about.
    delta_bytes: usize,
    /// What remained of the changes when they were last coalesced.
    coalesced_bytes: usize,
    /// Bytes of the queue itself as they were last counted.
    counted: u32,
    /// What is known of subscriptions while they begin and end.
    flows: Option<Box<Flows>>,
    /// While the changes are coalesced.
    rewrite: Option<Box<Rewrite>>,
    /// UPDATEs sent so far.
    updates: u64,
    /// END_OF_RIBs sent so far.
    ends_of_rib: u64,
}

/// Subscriptions that begin or end, as far as a queue has to know.
#[derive(Debug, Default)]
struct Flows {
    /// Whose tables wait.
    peer: Option<PeerId>,
    /// Those that have ended: what waits of their epoch, or an earlier one, is dead. It is
    /// dropped when it would be sent.
    ended: BTreeMap<Vni, u32>,
    /// Items that tables consist of, for each VNI.
    tables: BTreeMap<Vni, u32>,
    /// VNIs of which no table is left since the last [`Outbox::take_tables_out`].
    tables_out: Vec<Vni>,
}

impl Flows {
    /// About how many bytes it has allocated, with itself.
    fn heap_bytes(&self) -> usize {
        // A tree of such small entries keeps about twice their size.
        const ENTRY: usize = 2 * size_of::<(Vni, u32)>();
        size_of::<Self>()
            + (self.ended.len() + self.tables.len()) * ENTRY
            + self.tables_out.capacity() * size_of::<Vni>()
    }
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

    /// Brings the bytes of all queues up to date with this one, without the frames themselves.
    pub(crate) fn count_bytes(&mut self, all: &mut usize) {
        let rewrite = self.rewrite.as_ref().map_or(0, |it| it.heap_bytes());
        let flows = self.flows.as_ref().map_or(0, |it| it.heap_bytes());
        let bytes = self.items.capacity() * size_of::<Item>() + rewrite + flows;
        let before = self.counted();
        if bytes != before {
            self.counted = u32::try_from(bytes).unwrap_or(u32::MAX);
            *all = *all - before + self.counted();
        }
    }

    /// Those bytes as they were last counted.
    pub(crate) fn counted(&self) -> usize {
        self.counted as usize
    }

    /// Returns about how many bytes would be free without this queue: of frames that others
    /// hold, too, a share.
    pub(crate) fn holds(&self) -> usize {
        let holds = |items: &VecDeque<Item>| {
            let step = items.len() / LOOKS + 1;
            let looked_at = items.iter().step_by(step);
            let shares = looked_at.map(|it| it.left() / Arc::strong_count(it.span.segment()));
            shares.sum::<usize>() * step
        };
        let rewrite = self.rewrite.as_ref();
        let rewritten = rewrite.map_or(0, |it| it.queues().map(holds).sum());
        holds(&self.items) + rewritten + self.counted()
    }

    /// Appends changes of a VNI.
    pub(crate) fn push_delta(&mut self, vni: Vni, epoch: u32, span: Span) {
        self.delta_bytes += span.len();
        self.push_back(span, Kind::Delta(vni), epoch);
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
            Kind::Table(_) | Kind::Uncut(_) | Kind::Delta(_) => self.updates += u64::from(frames),
            Kind::EndOfRib(_) => self.ends_of_rib += u64::from(frames),
            Kind::Control => {}
        }
    }

    /// Whether something that waits may be dead.
    fn has_ended(&self) -> bool {
        self.flows.as_ref().is_some_and(|it| !it.ended.is_empty())
    }

    /// Whether subscriptions that have ended are to be forgotten by [`Self::begin_rewrite`]: so
    /// that they are never many more than what waits.
    pub(crate) fn wants_sweep(&self) -> bool {
        let ended = self.flows.as_ref().map_or(0, |it| it.ended.len());
        ended > self.items.len() + ENDED_AT_ONCE && self.rewrite.is_none()
    }

    fn push_back(&mut self, span: Span, kind: Kind, epoch: u32) {
        self.bytes += span.len();
        let item = Item {
            span,
            sent: 0,
            kind,
            epoch,
        };
        match (&mut self.rewrite, kind) {
            (Some(rewrite), Kind::Delta(_)) => rewrite.push_behind(item),
            // Tables come before the changes of their VNI in any case.
            (
                _,
                Kind::Control
                | Kind::Table(_)
                | Kind::Uncut(_)
                | Kind::EndOfRib(_)
                | Kind::Delta(_),
            ) => self.items.push_back(item),
        }
        self.cut_front();
    }

    /// Ends a subscription: what waits of it is not sent, apart from a frame that was begun.
    pub(crate) fn end(&mut self, vni: Vni, epoch: u32) {
        if self.isolate_begun_frame() > 0
            && let Some(begun) = self.items.front_mut()
        {
            begun.epoch = BEGUN;
        }
        if self.is_empty() {
            return;
        }
        let flows = self.flows.get_or_insert_default();
        flows.ended.insert(vni, epoch);
        self.drop_dead(DROPS_AT_ONCE);
    }

    /// Whether an item cannot be sent as it is.
    fn stops(&self, item: &Item) -> bool {
        self.flows.is_some() && (item.is_uncut() || self.is_dead(item))
    }

    fn is_dead(&self, item: &Item) -> bool {
        let Some(flows) = &self.flows else {
            return false;
        };
        let (Kind::Table(vni) | Kind::Uncut(vni) | Kind::EndOfRib(vni) | Kind::Delta(vni)) =
            item.kind
        else {
            return false;
        };
        item.epoch != BEGUN
            && flows
                .ended
                .get(&vni)
                .is_some_and(|ended| item.epoch <= *ended)
    }

    /// Drops dead items at the front, at most `count`. Returns how many.
    pub(crate) fn drop_dead(&mut self, count: usize) -> usize {
        let mut dropped = 0;
        while dropped < count && self.has_dead_front() {
            if let Some(item) = self.items.pop_front() {
                self.discount(&item);
            }
            dropped += 1;
        }
        self.cut_front();
        if self.is_empty() {
            if !self.wants_sweep()
                && let Some(flows) = &mut self.flows
            {
                flows.ended.clear();
            }
            self.coalesced_bytes = 0;
        }
        dropped
    }

    /// Whether nothing can be sent before [`Self::drop_dead`] has been called again.
    pub(crate) fn has_dead_front(&self) -> bool {
        self.items.front().is_some_and(|item| self.is_dead(item))
    }

    /// Takes note that an item is dropped.
    fn discount(&mut self, item: &Item) {
        let left = item.left();
        self.bytes -= left;
        if matches!(item.kind, Kind::Delta(_)) {
            self.delta_bytes -= left;
        }
        self.count_out(item.kind);
    }

    /// Makes the rest of a frame that was begun an item of its own; how many items that is.
    fn isolate_begun_frame(&mut self) -> usize {
        let Some(front) = self.items.front_mut().filter(|item| item.sent > 0) else {
            return 0;
        };
        let bytes = front.span.bytes();
        let (mut boundary, mut frames) = (0, 0);
        let sent = front.sent();
        while boundary < sent {
            boundary += frame_len(&bytes[boundary..]);
            frames += 1;
        }
        if boundary == sent {
            let (kind, counted) = (front.kind, front.span.frames());
            front.span.advance(sent, frames);
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
                epoch: front.epoch,
            };
            if let Kind::Table(vni) | Kind::EndOfRib(vni) = begun.kind {
                self.count_table(vni);
            }
            self.items.push_front(begun);
        }
        1
    }

    /// Whether the changes have doubled since they were last coalesced, so that coalescing them
    /// again could pay for itself.
    pub(crate) fn has_doubled(&self) -> bool {
        self.delta_bytes > 2 * self.coalesced_bytes
    }

    /// Whether an eighth more of changes waits than the last coalescing left: enough to pay
    /// for another, when the peer reads again.
    pub(crate) fn has_grown(&self) -> bool {
        self.delta_bytes > self.coalesced_bytes + self.coalesced_bytes / 8
    }
}

impl Queue for Outbox {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.rewrite.is_none()
    }

    fn is_blocked(&self) -> bool {
        match self.items.front() {
            Some(front) => self.is_dead(front),
            None => self.rewrite.is_some(),
        }
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
        let span = Span::whole(Segment::unmarked(frames, count, 0));
        self.bytes += span.len();
        let at = self.isolate_begun_frame();
        let item = Item {
            span,
            sent: 0,
            kind: Kind::Control,
            epoch: BEGUN,
        };
        self.items.insert(at, item);
    }

    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>], budget: usize) -> usize {
        let mut left = budget;
        let mut filled = 0;
        for (slice, item) in slices.iter_mut().zip(&self.items) {
            if left == 0 || self.stops(item) {
                break;
            }
            let bytes = item.rest();
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
            if self.stops(item) || (which == Which::Urgent && !is_urgent) {
                break;
            }
            let bytes = item.rest();
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
            let taken = count.min(front.left());
            if matches!(front.kind, Kind::Delta(_)) {
                self.delta_bytes -= taken;
            }
            count -= taken;
            if taken < front.left() {
                front.sent += u32::try_from(taken).expect("a segment is shorter than 4 GiB");
                break;
            }
            let (kind, frames) = (front.kind, front.span.frames());
            self.count_sent(kind, frames);
            self.count_out(kind);
            self.items.pop_front();
        }
        if self.has_ended() {
            self.drop_dead(DROPS_AT_ONCE);
        }
        self.cut_front();
        debug_assert_eq!(count, 0, "no more can be sent than was lent");
        if self.is_empty() {
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
