//! The watches of a server: each worker sends what happens there, one receiver decodes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::core::rib::Span;
use crate::core::session::CloseReason;
use crate::core::time::after;
use crate::core::types::Vni;
use crate::core::wire::{HEADER_LEN, decode_update, frame_len};
use crate::error::{Error, Result};
use crate::inspect::{WatchEvent, WatchSource};
use crate::net::Peer;

/// Pieces that wait for the receiver of a watch, at most.
///
/// They are references to shared frames, of 64 KiB each at most, that may have left the log.
const PIECES: usize = 4096;

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
    sender: Sender<Happening>,
    /// The receiver is gone, or has lagged.
    has_ended: Arc<AtomicBool>,
}

/// The watcher's end.
#[derive(Debug)]
pub(super) struct WatchReceiver {
    receiver: Receiver<Happening>,
    /// It has lagged; the workers send no more.
    has_ended: Arc<AtomicBool>,
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
    let (sender, receiver) = crossbeam_channel::bounded(PIECES * workers);
    let has_ended = Arc::new(AtomicBool::new(false));
    let sender = WatchSender {
        scope,
        sender,
        has_ended: Arc::clone(&has_ended),
    };
    let receiver = WatchReceiver {
        receiver,
        has_ended,
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
            if let Err(error) = self.sender.try_send(happened) {
                if error.is_full() {
                    self.has_ended.store(true, Ordering::Relaxed);
                }
                return false;
            }
        }
        self.is_wanted()
    }

    /// Returns whether there is a receiver that has not lagged.
    pub(super) fn is_wanted(&self) -> bool {
        !self.has_ended.load(Ordering::Relaxed)
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
        self.has_ended.store(true, Ordering::Relaxed);
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
            if self.has_ended.load(Ordering::Relaxed) {
                return Err(Error::Lagged);
            }
            match self.receiver.recv_deadline(until) {
                Ok(happened) => self.take(happened, &mut events),
                Err(RecvTimeoutError::Timeout) => return Ok(events),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
            }
        }
        while !self.decode(&mut events)
            && let Ok(happened) = self.receiver.try_recv()
        {
            self.take(happened, &mut events);
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
        for _ in 0..2 * PIECES {
            assert!(one.feed([event()]));
        }
        assert!(!one.feed([event()]), "a full channel cuts it off");
        assert!(!other.feed([event()]), "the other workers stop too");
        assert!(matches!(receiver.wait(Duration::ZERO), Err(Error::Lagged)));
        drop(receiver);
        assert_eq!(watchers.load(Ordering::Relaxed), 0);
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
