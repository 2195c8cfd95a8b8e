//! What happens at a server, for those who watch it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::core::rib::Span;
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::core::wire::{HEADER_LEN, decode_update, frame_len};
use crate::error::{Error, Result};
use crate::inspect::{WatchEvent, WatchSource};

/// Pieces that wait for somebody who watches, at most.
///
/// They are references to shared frames, of 64 KiB each at most, that may have left the log.
const PIECES: usize = 4096;

/// Changes handed out at once, about.
const BATCH: usize = 4096;

/// How many may watch a server at once.
const WATCHERS: usize = 16;

/// Something that happened at a worker.
#[derive(Clone, Debug)]
pub(super) enum Tapped {
    /// Changes of a VNI, or its table.
    Change((Vni, Vec<Span>)),
    /// What this worker had at the beginning is told.
    Current,
    PeerUp(SocketAddr),
    PeerDown(SocketAddr, CloseReason),
}

/// A worker's end of a watch.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    /// The only VNI that is watched.
    pub(super) vni: Option<Vni>,
    sender: Sender<Tapped>,
    has_lagged: Arc<AtomicBool>,
}

/// The watcher's end.
#[derive(Debug)]
pub(super) struct Spout {
    receiver: Receiver<Tapped>,
    has_lagged: Arc<AtomicBool>,
    /// Workers that have yet to tell what they have.
    begin: usize,
    /// Received and not handed out.
    spans: VecDeque<Span>,
    watchers: Arc<AtomicUsize>,
}

/// Both ends of a watch on so many workers; `watchers` counts those there are.
pub(super) fn tap(
    vni: Option<Vni>,
    workers: usize,
    watchers: &Arc<AtomicUsize>,
) -> Result<(Tap, Spout)> {
    let one_more = |count| (count < WATCHERS).then_some(count + 1);
    let counted = watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    if counted.is_err() {
        return Err(Error::Busy);
    }
    let (sender, receiver) = crossbeam_channel::bounded(PIECES * workers);
    let has_lagged = Arc::new(AtomicBool::new(false));
    let tap = Tap {
        vni,
        sender,
        has_lagged: Arc::clone(&has_lagged),
    };
    let spout = Spout {
        receiver,
        has_lagged,
        begin: workers,
        spans: VecDeque::new(),
        watchers: Arc::clone(watchers),
    };
    Ok((tap, spout))
}

impl Tap {
    /// Passes on what happened; `false` once nobody hears it any more.
    pub(super) fn feed(&mut self, happened: impl IntoIterator<Item = Tapped>) -> bool {
        for happened in happened {
            if let Err(error) = self.sender.try_send(happened) {
                if error.is_full() {
                    self.has_lagged.store(true, Ordering::Relaxed);
                }
                return false;
            }
        }
        !self.has_lagged.load(Ordering::Relaxed)
    }
}

impl Drop for Spout {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spout {
    /// Takes one more thing that happened; changes are to be decoded before the next.
    fn take(&mut self, happened: Tapped, events: &mut Vec<WatchEvent>) {
        match happened {
            Tapped::Change((_, spans)) => self.spans.extend(spans),
            Tapped::Current => {
                self.begin = self.begin.saturating_sub(1);
                if self.begin == 0 {
                    events.push(WatchEvent::Current);
                }
            }
            Tapped::PeerUp(address) => events.push(WatchEvent::PeerUp(address.to_string())),
            Tapped::PeerDown(address, reason) => {
                let (name, reason) = (address.to_string(), reason.to_string());
                events.push(WatchEvent::PeerDown(name, reason));
            }
        }
    }

    /// Decodes changes; whether as many as are handed out at once.
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

impl WatchSource for Spout {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        let until = Instant::now() + timeout;
        let mut events = Vec::new();
        while !self.decode(&mut events) && events.is_empty() {
            if self.has_lagged.load(Ordering::Relaxed) {
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

    fn event() -> Tapped {
        Tapped::PeerUp(([127, 0, 0, 1], 4711).into())
    }

    #[test]
    fn who_does_not_take_what_happens_is_cut_off() {
        let watchers = Arc::default();
        let (mut one, mut spout) = tap(None, 2, &watchers).unwrap();
        let mut other = one.clone();
        for _ in 0..2 * PIECES {
            assert!(one.feed([event()]));
        }
        assert!(!one.feed([event()]), "nobody waits for it");
        assert!(!other.feed([event()]), "no worker goes on");
        assert!(matches!(spout.wait(Duration::ZERO), Err(Error::Lagged)));
        drop(spout);
        assert_eq!(watchers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_watch_ends_with_its_workers() {
        let (mut tap, mut spout) = tap(None, 1, &Arc::default()).unwrap();
        assert!(tap.feed([event()]));
        drop(tap);
        assert_eq!(spout.wait(Duration::ZERO).unwrap().len(), 1);
        assert!(matches!(spout.wait(Duration::ZERO), Err(Error::Closed)));
    }

    #[test]
    fn an_end_that_is_dropped_is_fed_no_more() {
        let (mut tap, spout) = tap(None, 1, &Arc::default()).unwrap();
        drop(spout);
        assert!(!tap.feed([event()]));
    }
}
