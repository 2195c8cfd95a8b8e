//! Room for clients in the writer's channel, and news of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};

use parking_lot::Mutex;

use crate::client::ClientWaker;

/// The clients that hand events to the writer, and whether one of them waits for room.
#[derive(Default)]
pub(super) struct Clients {
    is_awaited: AtomicBool,
    wakers: Mutex<Vec<(Arc<AtomicUsize>, ClientWaker)>>,
}

impl Clients {
    /// Wakes the clients if one of them found no room. The writer calls this after it took
    /// commands.
    pub(super) fn wake(&self) {
        if self.is_awaited.swap(false, SeqCst) {
            for (_, wake) in &*self.wakers.lock() {
                wake();
            }
        }
    }

    /// Adds a client, known by its count of batches that wait.
    pub(super) fn join(&self, client: &Arc<AtomicUsize>, waker: ClientWaker) {
        self.wakers.lock().push((Arc::clone(client), waker));
    }

    /// Removes a client.
    pub(super) fn leave(&self, client: &Arc<AtomicUsize>) {
        let mut wakers = self.wakers.lock();
        wakers.retain(|(other, _)| !Arc::ptr_eq(other, client));
    }

    /// How many clients there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wakers.lock().len()
    }

    /// Has the clients woken when the writer next takes commands.
    ///
    /// The caller looks for room once more after this: either it sees what the writer took
    /// before, or the writer sees that a client waits.
    pub(super) fn await_room(&self) {
        self.is_awaited.store(true, SeqCst);
        fence(SeqCst);
    }
}

/// One of a client's batches that wait; given back when the writer takes the batch.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// Counts one more batch that waits.
    pub(super) fn take(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(Arc::clone(waiting))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
