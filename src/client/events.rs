//! A channel of events that ends with its receiver.

use std::fmt;
use std::ops::Deref;

use crossbeam_channel::Receiver;

use super::mail::{Command, Mail};
use crate::core::client::{ConsumerId, Event};
use crate::net::Postbox;

/// The events of a client, out of a channel: a [`Receiver`], as which it can be used.
///
/// Dropping it ends the consumer at once, and frees its place for another. A clone of the
/// [`Receiver`] in it does not keep the consumer: it has what was sent so far, and then ends.
pub struct Events {
    receiver: Receiver<Event>,
    consumer: ConsumerId,
    postbox: Postbox<Mail>,
}

impl Events {
    pub(super) fn new(
        receiver: Receiver<Event>,
        consumer: ConsumerId,
        postbox: Postbox<Mail>,
    ) -> Self {
        Self {
            receiver,
            consumer,
            postbox,
        }
    }
}

impl Deref for Events {
    type Target = Receiver<Event>;

    fn deref(&self) -> &Self::Target {
        &self.receiver
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = crossbeam_channel::Iter<'a, Event>;

    /// Waits for each event; ends when the client does.
    fn into_iter(self) -> Self::IntoIter {
        self.receiver.iter()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let detach = Command::Detach(self.consumer);
        self.postbox.post(Mail::Command(detach), 1);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("waiting", &self.receiver.len())
            .finish_non_exhaustive()
    }
}
