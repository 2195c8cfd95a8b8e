//! The thread of a client: steps its engine, and hands events to the consumers.

#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
use std::time::Duration;

use super::engine::Engine;
use super::sink::Handed;
use crate::core::client::ConsumerId;

/// Serves until told to stop.
pub(super) fn run(mut engine: Engine) {
    let mut limit = None;
    while engine.step(limit) {
        limit = None;
        let Engine { core, sinks, .. } = &mut engine;
        sinks.retain_mut(|sink| match sink.hand_over(core) {
            Handed::Enough => true,
            #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
            Handed::More => {
                limit = Some(Duration::ZERO);
                true
            }
            // Nobody else takes the place of the first; the thread of another says by mail
            // that it is gone.
            Handed::Gone if sink.consumer == ConsumerId::FIRST => {
                core.detach(sink.consumer);
                false
            }
            Handed::Gone => true,
        });
    }
    engine.finish();
}
