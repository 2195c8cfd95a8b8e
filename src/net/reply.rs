//! The way back to a thread that asks a loop for something.

use crossbeam_channel::{Receiver, Sender};

/// Takes one answer. If it is dropped instead, the asker learns that there is none.
#[derive(Debug)]
pub(crate) struct Reply<T>(Sender<T>);

impl<T> Reply<T> {
    /// A reply and the end at which the answer arrives.
    pub(crate) fn channel() -> (Self, Receiver<T>) {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        (Self(sender), receiver)
    }

    /// Answers without ever blocking: the channel has room for the one answer.
    pub(crate) fn send(self, answer: T) {
        // An asker that is gone needs no answer.
        self.0.try_send(answer).ok();
    }
}
