//! The thread of a client: steps its engine, and hands events to the consumers.

#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
use std::time::Duration;

use super::engine::Engine;
use super::sink::Handed;

/// Serves until told to stop.
pub(super) fn run(engine: &mut Engine) {
    let mut limit = None;
    while engine.step(limit) {
        limit = None;
        let Engine { core, sinks, .. } = engine;
        sinks.retain_mut(|sink| match sink.hand_over(core) {
            Handed::Enough => true,
            #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
            Handed::More => {
                limit = Some(Duration::ZERO);
                true
            }
            Handed::Gone => {
                core.detach(sink.consumer);
                false
            }
        });
    }
    engine.finish();
}
