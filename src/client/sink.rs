//! The consumers of a client's events, and the ways to them.

use crossbeam_channel::{Sender, TrySendError};

#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
use super::intake::{Intake, Room};
use crate::core::client::{ConsumerId, Core, Event};

/// Events handed to a consumer at once: 64 KiB.
const EVENT_BATCH: usize = 1024;

/// A consumer and the way to it.
pub(super) struct Sink {
    pub(super) consumer: ConsumerId,
    pub(super) way: Way,
}

/// How events come to a consumer; while that is full, they wait in the core, which coalesces
/// them.
pub(super) enum Way {
    /// Through a channel that holds one batch, to a thread that tells a handler or feeds a
    /// channel.
    Thread(Sender<Vec<Event>>),
    /// Straight to a consumer with a thread of its own.
    #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
    Direct(Box<dyn Intake>),
}

/// What became of the events that wait for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// There are none left, or the consumer will wake the client.
    Enough,
    /// There are more, and room for them.
    #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
    More,
    /// The consumer is gone.
    Gone,
}

impl Sink {
    /// Hands over one batch at most, so that the sockets have their turn.
    pub(super) fn hand_over(&mut self, core: &mut Core) -> Handed {
        let consumer = self.consumer;
        match &mut self.way {
            Way::Thread(batches) => {
                if !core.has_events(consumer) || batches.is_full() {
                    return Handed::Enough;
                }
                match batches.try_send(core.take_events(consumer, EVENT_BATCH)) {
                    Ok(()) => Handed::Enough,
                    // It had room above, and only this thread sends.
                    Err(TrySendError::Full(_)) => unreachable!("one thread sends"),
                    Err(TrySendError::Disconnected(_)) => Handed::Gone,
                }
            }
            #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
            Way::Direct(intake) => match intake.room() {
                Room::Full => Handed::Enough,
                Room::Closed => Handed::Gone,
                Room::Free if !core.has_events(consumer) => Handed::Enough,
                Room::Free => {
                    intake.take(core.take_events(consumer, EVENT_BATCH));
                    match core.has_events(consumer) {
                        true => Handed::More,
                        false => Handed::Enough,
                    }
                }
            },
        }
    }
}
