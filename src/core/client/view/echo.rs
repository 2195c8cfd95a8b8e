//! Routes that equal one that this client withdrew a moment ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ServerBit, View};
use crate::core::limit::after;
use crate::core::types::{Route, Vni};

/// Stale copies of routes that this client withdrew, and until when they are not shown.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Since the time was told last.
    fresh: Vec<(Vni, Route)>,
    /// In the order of their ends.
    until: VecDeque<(Instant, (Vni, Route))>,
}

impl View {
    /// This client withdraws a route that legacy servers may have sent back to it.
    ///
    /// Go MetalBond does so in its initial tables, and does not say when the last announcer,
    /// this client, is gone: what such servers have, or had when they were lost, counts for
    /// nothing. An identical route of somebody else's, same next hop and all, is lost with it.
    /// What other servers have stays. What they had stays too, but is not shown for the settle
    /// time.
    pub(in crate::core::client) fn drop_echo(
        &mut self,
        legacy: impl Iterator<Item = ServerBit>,
        (vni, route): (Vni, Route),
    ) {
        let servers = legacy.fold(0, |mask, server| mask | server.0);
        let mut is_fresh = false;
        self.change(vni, &route, |hop| {
            hop.present &= !servers;
            is_fresh = hop.present == 0 && hop.silence();
        });
        if is_fresh {
            self.quiet.fresh.push((vni, route));
        }
    }

    /// Shows again what was quiet for the settle time and is still stale.
    pub(in crate::core::client) fn end_quiet(&mut self, settle_time: Duration, now: Instant) {
        for key in std::mem::take(&mut self.quiet.fresh) {
            let until = after(now, settle_time);
            self.quiet.until.push_back((until, key));
        }
        while let Some((until, (vni, route))) = self.quiet.until.front().copied()
            && until <= now
        {
            self.quiet.until.pop_front();
            self.change(vni, &route, |hop| hop.speak());
        }
    }

    /// When [`Self::end_quiet`] has something to do.
    pub(in crate::core::client) fn quiet_due(&self) -> Option<Instant> {
        self.quiet.until.front().map(|(until, _)| *until)
    }
}
