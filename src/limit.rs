//! Reports that a peer can provoke, kept rare.

use std::time::{Duration, Instant};

/// Keeps a report from coming too often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    until: Option<Instant>,
}

impl Quiet {
    /// A report of one kind comes at most this often.
    const INTERVAL: Duration = Duration::from_secs(60);

    /// Whether a report is due; if so, the next is not for a while.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        let is_over = self.until.is_none_or(|until| now >= until);
        if is_over {
            self.until = Some(now + Self::INTERVAL);
        }
        is_over
    }
}
