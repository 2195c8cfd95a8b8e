//! A queue for loom that promises less than any other: what is taken was put in, in order.
//!
//! Other than loom's own it may be used after its end, and no thread learns from it, put in
//! or taken, what others have done before: the mailbox must not depend on that.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use loom::sync::{Arc, atomic::AtomicUsize, atomic::Ordering::Relaxed};

/// The owner's end is gone.
#[derive(Debug)]
pub(super) struct Gone;

struct Queue<T> {
    /// None once the owner's end is gone.
    items: Mutex<Option<VecDeque<T>>>,
    /// Tells loom that the order of what is done to the queue matters.
    uses: AtomicUsize,
}

impl<T> Queue<T> {
    fn with<R>(&self, act: impl FnOnce(&mut Option<VecDeque<T>>) -> R) -> R {
        self.uses.fetch_add(1, Relaxed);
        act(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Sender<T>(Arc<Queue<T>>);

pub(super) struct Receiver<T>(Arc<Queue<T>>);

pub(super) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Queue {
        items: Mutex::new(Some(VecDeque::new())),
        uses: AtomicUsize::new(0),
    });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Sender<T> {
    pub(super) fn send(&self, item: T) -> Result<(), Gone> {
        let put = |items: &mut Option<VecDeque<T>>| items.as_mut().map(|it| it.push_back(item));
        self.0.with(put).ok_or(Gone)
    }
}

impl<T> Receiver<T> {
    pub(super) fn try_recv(&self) -> Result<T, Gone> {
        let take = |items: &mut Option<VecDeque<T>>| items.as_mut()?.pop_front();
        self.0.with(take).ok_or(Gone)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.with(Option::take);
    }
}
