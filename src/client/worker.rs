//! The thread of a client: steps its engine, and hands events to the consumer.

use crossbeam_channel::Sender;

use super::engine::Engine;
use super::events::Event;

/// Events handed to the consumer at once.
const EVENT_BATCH: usize = 1024;

/// Serves until told to stop.
///
/// `consumer` holds one batch; while it is full, events wait in the core, which
/// coalesces them.
pub(super) fn run(mut engine: Engine, consumer: &Sender<Vec<Event>>) {
    while engine.step(None) {
        if engine.core.has_events() && !consumer.is_full() {
            let batch = engine.core.take_events(EVENT_BATCH);
            if consumer.try_send(batch).is_err() {
                log::trace!("the consumer is gone");
            }
        }
    }
    engine.finish();
}
