//! Which stale copies may give way where there is no room.

use std::collections::VecDeque;

use super::ages::Cause;
use super::{Completeness, Standing};
use crate::core::client::ServerId;
use crate::core::client::view::Age;
use crate::core::types::Vni;

impl Completeness {
    /// The clocks of stale copies that may give way to routes of servers at hand, oldest first:
    /// those of VNIs of which each session has told the whole table once.
    pub(in crate::core::client) fn spare(&self) -> VecDeque<(Vni, Age)> {
        let mut spare = Vec::new();
        for (vni, state) in self.vnis.iter().filter(|(_, state)| !state.ages.is_empty()) {
            let tells_again = |server: &ServerId| self.asked_again.contains_key(&(*server, *vni));
            let is_loading = |(server, standing): (&ServerId, &Standing)| {
                matches!(standing, Standing::Established { complete, .. }
                    if !complete.contains(vni) && !tells_again(server))
            };
            if self.servers.iter().any(is_loading) {
                continue;
            }
            let is_told_again = self.servers.keys().any(tells_again);
            let which = |cause| cause == Cause::Lost || !is_told_again;
            let clocks = state.ages.of_cause(which);
            spare.extend(clocks.map(|(start, age)| (start, *vni, age)));
        }
        spare.sort_unstable_by_key(|(start, vni, _)| (*start, *vni));
        spare.into_iter().map(|(_, vni, age)| (vni, age)).collect()
    }

    /// Returns whether a session has a table to tell, for the first time or again.
    pub(in crate::core::client) fn is_telling(&self) -> bool {
        let is_loading = |standing: &Standing| match standing {
            Standing::Established { complete, .. } => complete.len() < self.vnis.len(),
            Standing::Coming | Standing::Retrying { .. } | Standing::Away => false,
        };
        self.servers.values().any(is_loading)
    }

    /// Is another number when [`Self::spare`] may have another answer.
    pub(in crate::core::client) fn changes(&self) -> u64 {
        self.changes
    }
}
