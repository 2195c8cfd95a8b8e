//! The thread of a client: steps its engine, and hands events to the consumers.

use crossbeam_channel::TrySendError;

use super::engine::Engine;
use crate::core::client::ConsumerId;

/// Events handed to a consumer at once: 64 KiB.
const EVENT_BATCH: usize = 1024;

/// Serves until told to stop.
pub(super) fn run(mut engine: Engine) {
    while engine.step(None) {
        let Engine { core, sinks, .. } = &mut engine;
        sinks.retain(|sink| {
            if !core.has_events(sink.consumer) || sink.batches.is_full() {
                return true;
            }
            let batch = core.take_events(sink.consumer, EVENT_BATCH);
            match sink.batches.try_send(batch) {
                Ok(()) => true,
                // Not seen above, so only this thread could have filled it.
                Err(TrySendError::Full(_)) => unreachable!("one thread sends"),
                // Nobody else takes the place of the first; the thread of another says
                // by mail that it is gone.
                Err(TrySendError::Disconnected(_)) if sink.consumer == ConsumerId::FIRST => {
                    core.detach(sink.consumer);
                    false
                }
                Err(TrySendError::Disconnected(_)) => true,
            }
        });
    }
    engine.finish();
}
