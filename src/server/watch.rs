//! The watches of a server: each worker sends what happens there, one receiver decodes it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::core::rib::{SEGMENT_BYTES, Segment, Span};
use crate::core::session::CloseReason;
use crate::core::time::after;
use crate::core::types::Vni;
use crate::core::wire::{HEADER_LEN, decode_update, frame_len};
use crate::error::{Error, Result};
use crate::inspect::{WatchEvent, WatchSource};
use crate::net::Peer;

/// Bytes that wait for the receiver of a watch at most. It has lagged if there are more.
///
/// Four times as many may be held, by references to parts of shared segments.
const BYTES: usize = 16 * 1024 * 1024;

/// Bytes from which on no more of the current routes are sent ahead of the receiver.
const AHEAD: usize = 2 * 1024 * 1024;

/// Shorter changes are copied, so that they hold no segment that has left the log.
const COPIED: usize = SEGMENT_BYTES / 4;

/// Bytes that an entry of the channel costs besides its frames.
const ENTRY: usize = 160;

/// Events handed out by one call, about.
const BATCH: usize = 4096;

/// Watches of one server at most.
const WATCHERS: usize = 16;

/// Something that happened at a worker.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Changes of a VNI, or its table.
    Change((Vni, Vec<Span>)),
    /// All routes that the worker had at the beginning have been sent.
    Current,
    PeerUp(Peer),
    PeerDown(Peer, CloseReason),
}

/// What a watch asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope {
    /// The only VNI that is watched; `None`: all.
    pub(super) vni: Option<Vni>,
    /// The routes that are there already come first.
    pub(super) wants_current: bool,
}

/// A worker's end of a watch.
#[derive(Clone, Debug)]
pub(super) struct WatchSender {
    pub(super) scope: Scope,
    sender: Sender<(Happening, usize)>,
    account: Arc<Account>,
    has_lagged: Arc<AtomicBool>,
    /// What of the current routes is still to be sent; `None`: all is sent.
    begin: Option<Begin>,
}

/// The current routes that a watch is still to be sent.
#[derive(Clone, Debug, Default)]
struct Begin {
    /// VNIs whose tables come. Changes of them are not sent: the tables will have them.
    to_come: BTreeSet<Vni>,
    table: Option<Sending>,
}

/// The table of a VNI that is being sent.
#[derive(Clone, Debug)]
struct Sending {
    vni: Vni,
    /// The rest of it, and the changes that belong behind it.
    rest: VecDeque<Span>,
    /// Bytes of those changes.
    behind: usize,
}

/// The bytes in the channel of a watch.
#[derive(Debug, Default)]
struct Account {
    bytes: AtomicUsize,
    /// A worker waits until there is room.
    is_awaited: AtomicBool,
}

impl Account {
    /// Returns whether more current routes may be sent. If not, the receiver will wake the
    /// workers.
    fn has_room(&self) -> bool {
        if self.bytes.load(Ordering::SeqCst) < AHEAD {
            return true;
        }
        self.is_awaited.store(true, Ordering::SeqCst);
        // The receiver may have taken everything between the two.
        self.bytes.load(Ordering::SeqCst) < AHEAD
    }

    /// Takes bytes off. Returns whether the workers are to be woken.
    fn takes(&self, bytes: usize) -> bool {
        let left = self.bytes.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        left < AHEAD
            && self.is_awaited.load(Ordering::SeqCst)
            && self.is_awaited.swap(false, Ordering::SeqCst)
    }
}

/// The watcher's end.
pub(super) struct WatchReceiver {
    receiver: Receiver<(Happening, usize)>,
    account: Arc<Account>,
    /// Wakes the workers.
    wake: Box<dyn Fn() + Send>,
    has_lagged: Arc<AtomicBool>,
    /// Workers that have not yet sent [`Happening::Current`].
    begin: usize,
    /// Received and not handed out.
    spans: VecDeque<Span>,
    watchers: Arc<AtomicUsize>,
}

/// Makes both ends of a watch on `workers` workers; `watchers` counts the watches of the server.
///
/// # Errors
///
/// [`Error::Busy`] if there are too many.
pub(super) fn channel(
    scope: Scope,
    workers: usize,
    watchers: &Arc<AtomicUsize>,
) -> Result<(WatchSender, WatchReceiver)> {
    let one_more = |count| (count < WATCHERS).then_some(count + 1);
    let counted = watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    if counted.is_err() {
        return Err(Error::Busy);
    }
    // The account bounds the channel.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let account = Arc::new(Account::default());
    let has_lagged = Arc::new(AtomicBool::new(false));
    let sender = WatchSender {
        scope,
        sender,
        account: Arc::clone(&account),
        has_lagged: Arc::clone(&has_lagged),
        begin: None,
    };
    let receiver = WatchReceiver {
        receiver,
        account,
        wake: Box::new(|| {}),
        has_lagged,
        begin: workers,
        spans: VecDeque::new(),
        watchers: Arc::clone(watchers),
    };
    Ok((sender, receiver))
}

impl WatchSender {
    /// Sends what happened. Returns `false` once the receiver is gone or has lagged.
    pub(super) fn feed(&mut self, happened: impl IntoIterator<Item = Happening>) -> bool {
        for happened in happened {
            let happened = match happened {
                Happening::Change((vni, spans)) => {
                    let spans = spans.into_iter().map(without_segment).collect();
                    Happening::Change((vni, spans))
                }
                other => other,
            };
            if !self.send(happened) {
                return false;
            }
        }
        !self.has_lagged.load(Ordering::Relaxed)
    }

    /// Sends what happened as it is.
    fn send(&mut self, happened: Happening) -> bool {
        let cost = cost(&happened);
        let waiting = self.account.bytes.fetch_add(cost, Ordering::SeqCst) + cost;
        if waiting > BYTES {
            self.account.bytes.fetch_sub(cost, Ordering::SeqCst);
            self.give_up();
            return false;
        }
        let is_sent = self.sender.send((happened, cost)).is_ok();
        if !is_sent {
            self.give_up();
        }
        is_sent
    }

    /// Sends the current routes of these VNIs first, step by step.
    pub(super) fn begin_with(&mut self, vnis: BTreeSet<Vni>) {
        self.begin = Some(Begin {
            to_come: vnis,
            table: None,
        });
    }

    /// Sends changes of a VNI, unless its table is still to come. Returns as [`Self::feed`].
    pub(super) fn change(&mut self, vni: Vni, spans: &[Span]) -> bool {
        if self.scope.vni.is_some_and(|it| it != vni) {
            return true;
        }
        if let Some(begin) = &mut self.begin {
            if begin.to_come.contains(&vni) {
                return true;
            }
            if let Some(table) = begin.table.as_mut().filter(|it| it.vni == vni) {
                table.behind += spans.iter().map(|span| span.len() + ENTRY).sum::<usize>();
                table
                    .rest
                    .extend(spans.iter().cloned().map(without_segment));
                if table.behind > BYTES {
                    self.give_up();
                    return false;
                }
                return true;
            }
        }
        self.feed([Happening::Change((vni, spans.to_vec()))])
    }

    /// Returns whether current routes are to be sent and the receiver has room for them.
    pub(super) fn wants_step(&self) -> bool {
        self.begin.is_some() && self.account.has_room()
    }

    /// Sends what is left of a table, as far as there is room. Returns the VNI whose table
    /// [`Self::table`] is to be given next, if it is time for one.
    pub(super) fn step(&mut self) -> Option<Vni> {
        loop {
            if !self.wants_step() || self.has_lagged.load(Ordering::Relaxed) {
                return None;
            }
            let begin = self.begin.as_mut()?;
            let Some(table) = &mut begin.table else {
                let next = begin.to_come.first().copied();
                if next.is_none() {
                    self.begin = None;
                    self.send(Happening::Current);
                }
                return next;
            };
            let vni = table.vni;
            match table.rest.pop_front() {
                Some(span) => {
                    self.send(Happening::Change((vni, vec![span])));
                }
                None => begin.table = None,
            }
        }
    }

    /// Takes the table of the next VNI. Changes of the VNI are sent behind it.
    pub(super) fn table(&mut self, vni: Vni, spans: impl IntoIterator<Item = Span>) {
        if let Some(begin) = &mut self.begin {
            begin.to_come.remove(&vni);
            begin.table = Some(Sending {
                vni,
                rest: spans.into_iter().collect(),
                behind: 0,
            });
        }
    }

    /// Ends the watch: the receiver is gone or has lagged.
    pub(super) fn give_up(&self) {
        self.has_lagged.store(true, Ordering::Relaxed);
    }

    /// Returns the bytes that all workers have sent and the receiver has not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.account.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether nobody takes what is sent.
    pub(super) fn is_lost(&self) -> bool {
        self.has_lagged.load(Ordering::Relaxed)
    }
}

/// Returns a span that holds not much more than its own bytes.
fn without_segment(span: Span) -> Span {
    match span.len() < COPIED {
        // Nothing coalesces what is watched: its removals need no count.
        true => Span::whole(Segment::unmarked(span.bytes().to_vec(), span.frames(), 0)),
        false => span,
    }
}

/// Returns the bytes that an entry of a channel holds.
fn cost(happened: &Happening) -> usize {
    match happened {
        Happening::Change((_, spans)) => {
            spans.iter().map(|span| span.len() + ENTRY).sum::<usize>() + ENTRY
        }
        Happening::Current | Happening::PeerUp(_) | Happening::PeerDown(..) => ENTRY,
    }
}

impl Drop for WatchReceiver {
    fn drop(&mut self) {
        self.end();
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WatchReceiver {
    /// Has the workers send no more.
    pub(super) fn end(&self) {
        self.has_lagged.store(true, Ordering::Relaxed);
    }

    /// Has `wake` called when there is room for more of the current routes.
    pub(super) fn on_room(&mut self, wake: impl Fn() + Send + 'static) {
        self.wake = Box::new(wake);
    }

    /// Takes an entry of the channel off the account.
    fn settle(&self, bytes: usize) {
        if self.account.takes(bytes) {
            (self.wake)();
        }
    }

    /// Takes one more happening. Its changes are to be decoded before the next.
    fn take(&mut self, happened: Happening, events: &mut Vec<WatchEvent>) {
        match happened {
            Happening::Change((_, spans)) => self.spans.extend(spans),
            Happening::Current => {
                self.begin = self.begin.saturating_sub(1);
                if self.begin == 0 {
                    events.push(WatchEvent::Current);
                }
            }
            Happening::PeerUp(peer) => events.push(WatchEvent::PeerUp(peer.to_string())),
            Happening::PeerDown(peer, reason) => {
                let (name, reason) = (peer.to_string(), reason.to_string());
                events.push(WatchEvent::PeerDown(name, reason));
            }
        }
    }

    /// Decodes changes. Returns whether one call hands out no more.
    fn decode(&mut self, events: &mut Vec<WatchEvent>) -> bool {
        while events.len() < BATCH {
            let Some(span) = self.spans.pop_front() else {
                return false;
            };
            let mut bytes = span.bytes();
            while !bytes.is_empty() {
                let (frame, rest) = bytes.split_at(frame_len(bytes));
                // The log holds what was encoded here.
                if let Ok(update) = decode_update(&frame[HEADER_LEN..]) {
                    events.push(WatchEvent::Route(update.vni, update.action, update.route));
                }
                bytes = rest;
            }
        }
        true
    }
}

impl WatchSource for WatchReceiver {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        let until = after(Instant::now(), timeout);
        let mut events = Vec::new();
        while !self.decode(&mut events) && events.is_empty() {
            if self.has_lagged.load(Ordering::Relaxed) {
                return Err(Error::Lagged);
            }
            match self.receiver.recv_deadline(until) {
                Ok((happened, cost)) => {
                    self.take(happened, &mut events);
                    self.settle(cost);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(events),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
            }
        }
        while !self.decode(&mut events)
            && let Ok((happened, cost)) = self.receiver.try_recv()
        {
            self.take(happened, &mut events);
            self.settle(cost);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Happening {
        Happening::PeerUp(Peer::at(([127, 0, 0, 1], 4711).into()))
    }

    #[test]
    fn receiver_that_takes_nothing_is_cut_off() {
        let watchers = Arc::default();
        let (mut one, mut receiver) = channel(Scope::default(), 2, &watchers).unwrap();
        let mut other = one.clone();
        for _ in 0..BYTES / ENTRY {
            assert!(one.feed([event()]));
        }
        assert!(!one.feed([event()]), "a full channel cuts it off");
        assert!(!other.feed([event()]), "the other workers stop too");
        assert!(matches!(receiver.wait(Duration::ZERO), Err(Error::Lagged)));
        drop(receiver);
        assert_eq!(watchers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn unread_watch_holds_a_bounded_number_of_bytes() {
        let (mut sender, receiver) = channel(Scope::default(), 1, &Arc::default()).unwrap();
        let segment = Segment::unmarked(vec![0; SEGMENT_BYTES], 1, 0);
        let part = Span::whole(Arc::clone(&segment)).split_front(COPIED - 1, 1);
        let mut spans = 0;
        while sender.change(Vni(1), std::slice::from_ref(&part)) {
            spans += 1;
        }
        assert!(spans >= 1000, "{spans}");
        assert!(receiver.account.bytes.load(Ordering::Relaxed) <= BYTES);
        drop(part);
        assert_eq!(Arc::strong_count(&segment), 1, "short parts are copied");
    }

    #[test]
    fn changes_before_a_table_are_left_out_and_those_after_it_follow() {
        let (mut sender, mut receiver) = channel(Scope::default(), 1, &Arc::default()).unwrap();
        let span = |byte: u8, len| [Span::whole(Segment::unmarked(vec![byte; len], 1, 0))];
        let (walked, new) = (Vni(1), Vni(2));
        sender.begin_with([walked].into());
        assert!(sender.change(walked, &span(1, 1)));
        assert!(sender.change(new, &span(2, 1)));
        assert_eq!(sender.step(), Some(walked));
        let table = (0..64).flat_map(|_| span(3, SEGMENT_BYTES));
        sender.table(walked, table);
        assert_eq!(sender.step(), None, "the receiver is behind");
        assert!(sender.change(walked, &span(4, 1)));
        assert!(!sender.wants_step());
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        receiver.on_room(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut heard = Vec::new();
        loop {
            while let Ok((happened, cost)) = receiver.receiver.try_recv() {
                receiver.settle(cost);
                match happened {
                    Happening::Change((_, spans)) => heard.push(spans[0].bytes()[0]),
                    _ => heard.push(0),
                }
            }
            if !sender.wants_step() {
                break;
            }
            assert_eq!(sender.step(), None);
        }
        let expected = [vec![2], vec![3; 64], vec![4, 0]].concat();
        assert_eq!(heard, expected);
        assert!(woken.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn watch_ends_with_its_workers() {
        let (mut sender, mut receiver) = channel(Scope::default(), 1, &Arc::default()).unwrap();
        assert!(sender.feed([event()]));
        drop(sender);
        assert_eq!(receiver.wait(Duration::ZERO).unwrap().len(), 1);
        assert!(matches!(receiver.wait(Duration::ZERO), Err(Error::Closed)));
    }

    #[test]
    fn dropped_receiver_ends_the_watch() {
        let (mut sender, receiver) = channel(Scope::default(), 1, &Arc::default()).unwrap();
        drop(receiver);
        assert!(!sender.feed([event()]));
    }
}
