//! A queue into a thread that waits in `Poll`.
//!
//! Posting never blocks. A mailbox that holds more than it should says so, and
//! those who feed it stop reading their sockets until it asks for more: what is on
//! its way stays bounded, and no thread waits for another.

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, loom))]
mod queue;
mod sync;

use std::io;

use mio::{Poll, Token, Waker};

use crate::heartbeat::{Beat, Turns};
use sync::{Arc, AtomicBool, AtomicUsize, Ordering, Receiver, Sender, unbounded};

/// Weight (messages about routes) from which on a mailbox usually counts as full.
///
/// About 6 MiB of changes.
pub(crate) const MAILBOX_WEIGHT: usize = 64 * 1024;

/// What gets a thread out of its wait; several times before that are as one.
pub(crate) trait Wake {
    fn wake(&self) -> io::Result<()>;
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

/// What the two ends of a mailbox tell each other.
struct Signals<W> {
    waker: W,
    /// A wake-up is on its way; another would tell nothing new.
    notified: AtomicBool,
    weight: AtomicUsize,
    /// Weight from which on it is full.
    high: usize,
    /// Weight below which it asks for more.
    low: usize,
    /// Somebody stopped reading because of this mailbox.
    missed: AtomicBool,
    /// Of the owner's loop.
    turns: Turns,
}

/// The owner's end.
pub(crate) struct Mailbox<T, W = Waker> {
    receiver: Receiver<(T, usize)>,
    signals: Arc<Signals<W>>,
}

/// The end for everybody else.
pub(crate) struct Postbox<T, W = Waker> {
    sender: Sender<(T, usize)>,
    signals: Arc<Signals<W>>,
}

impl<T, W> Clone for Postbox<T, W> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            signals: Arc::clone(&self.signals),
        }
    }
}

impl<T> Mailbox<T> {
    /// A mailbox that wakes `poll` with `token`, full from a weight of `high` on.
    pub(crate) fn new(poll: &Poll, token: Token, high: usize) -> io::Result<(Self, Postbox<T>)> {
        Ok(Self::with_waker(Waker::new(poll.registry(), token)?, high))
    }
}

impl<T, W: Wake> Mailbox<T, W> {
    /// A mailbox that wakes its owner so, full from a weight of `high` on.
    pub(crate) fn with_waker(waker: W, high: usize) -> (Self, Postbox<T, W>) {
        let signals = Arc::new(Signals {
            waker,
            notified: AtomicBool::new(false),
            weight: AtomicUsize::new(0),
            high,
            low: high / 4,
            missed: AtomicBool::new(false),
            turns: Turns::default(),
        });
        // The queue itself has no bound; the weight has (see the module).
        let (sender, receiver) = unbounded();
        let mailbox = Self {
            receiver,
            signals: Arc::clone(&signals),
        };
        (mailbox, Postbox { sender, signals })
    }

    /// To be called once in each turn, before its last `take`: later posts wake anew.
    pub(crate) fn rearm(&self) {
        // Reads what the last post wrote, and so sees its item: a store would only if the
        // queue itself ordered it.
        self.signals.notified.swap(false, Ordering::SeqCst);
        // Counted behind that: a heartbeat that asks before it is answered by this count, one
        // that asks after it wakes the loop again.
        self.signals.turns.count();
    }

    /// The next item, if there is one.
    pub(crate) fn take(&self) -> Option<T> {
        self.take_weighed().map(|(item, _)| item)
    }

    /// The same, and its weight.
    pub(crate) fn take_weighed(&self) -> Option<(T, usize)> {
        let (item, weight) = self.receiver.try_recv().ok()?;
        self.signals.weight.fetch_sub(weight, Ordering::SeqCst);
        Some((item, weight))
    }

    /// Whether somebody waits for room that there is again; asked once, answered once.
    pub(crate) fn has_room_for_waiters(&self) -> bool {
        self.signals.weight.load(Ordering::SeqCst) < self.signals.low
            && self.signals.missed.load(Ordering::SeqCst)
            && self.signals.missed.swap(false, Ordering::SeqCst)
    }
}

impl<T, W: Wake> Postbox<T, W> {
    /// Posts an item; `false` if the owner is gone.
    pub(crate) fn post(&self, item: T, weight: usize) -> bool {
        self.signals.weight.fetch_add(weight, Ordering::SeqCst);
        let posted = self.sender.send((item, weight)).is_ok();
        self.wake();
        posted
    }

    /// The owner's loop, to see whether it turns.
    pub(crate) fn beat(&self, thread: impl Into<String>) -> Beat
    where
        T: Send + 'static,
        W: Send + Sync + 'static,
    {
        let postbox = self.clone();
        Beat::new(thread, self.signals.turns.clone(), move || postbox.wake())
    }

    /// Wakes the owner.
    pub(crate) fn wake(&self) {
        if !self.signals.notified.swap(true, Ordering::SeqCst)
            && let Err(error) = self.signals.waker.wake()
        {
            // Only a full eventfd fails, and that wakes too.
            log::debug!("waking a thread: {error}");
        }
    }

    /// Whether the owner is behind; it will wake everybody when it is not any more.
    pub(crate) fn is_full(&self) -> bool {
        if self.signals.weight.load(Ordering::SeqCst) < self.signals.high {
            return false;
        }
        self.signals.missed.store(true, Ordering::SeqCst);
        // The owner may have caught up between the two. If it has not, what it does to the
        // weight comes after this, and it will see that somebody waits.
        self.signals.weight.fetch_add(0, Ordering::SeqCst) >= self.signals.low
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn post_wakes_once_until_rearmed() {
        let mut poll = Poll::new().unwrap();
        let (mailbox, postbox) = Mailbox::new(&poll, Token(7), 100).unwrap();
        let mut events = mio::Events::with_capacity(4);
        for round in 0..3 {
            postbox.post(round, 1);
            postbox.post(round, 1);
            poll.poll(&mut events, None).unwrap();
            assert!(events.iter().any(|event| event.token() == Token(7)));
            mailbox.rearm();
            assert_eq!(std::iter::from_fn(|| mailbox.take()).count(), 2);
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty());
        }
    }

    #[test]
    fn full_mailbox_says_when_there_is_room() {
        let poll = Poll::new().unwrap();
        let (mailbox, postbox) = Mailbox::new(&poll, Token(7), 100).unwrap();
        postbox.post((), 99);
        assert!(!postbox.is_full());
        postbox.post((), 1);
        assert!(postbox.is_full());
        assert!(!mailbox.has_room_for_waiters());
        mailbox.take();
        assert!(mailbox.has_room_for_waiters());
        assert!(!mailbox.has_room_for_waiters(), "asked once, answered once");
        assert!(!postbox.is_full());
    }

    #[test]
    fn posting_to_nobody_is_said() {
        let poll = Poll::new().unwrap();
        let (mailbox, postbox) = Mailbox::new(&poll, Token(7), 100).unwrap();
        drop(mailbox);
        assert!(!postbox.post((), 1));
    }
}
