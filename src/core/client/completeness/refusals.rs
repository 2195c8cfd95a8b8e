//! Tables that servers refuse to tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Completeness, Standing};
use crate::core::client::ServerId;
use crate::core::limit::after;
use crate::core::types::Vni;

/// A table that was refused is asked for again after this time, then after twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// The longest time between two such requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The tables that servers refuse, and when they are asked again.
#[derive(Debug, Default)]
pub(super) struct Refusing {
    tables: BTreeMap<(ServerId, Vni), Refusal>,
}

#[derive(Debug)]
struct Refusal {
    /// `None` once it is asked for.
    ask_at: Option<Instant>,
    pause: Duration,
}

impl Refusing {
    pub(super) fn contains(&self, server: ServerId, vni: Vni) -> bool {
        self.tables.contains_key(&(server, vni))
    }

    /// A table is told.
    pub(super) fn end(&mut self, server: ServerId, vni: Vni) {
        self.tables.remove(&(server, vni));
    }

    /// Servers may have room again: all are asked after the first pause.
    pub(super) fn hasten(&mut self) {
        for refusal in self.tables.values_mut() {
            let early = refusal.pause - FIRST_PAUSE;
            refusal.ask_at = refusal.ask_at.map(|at| at.checked_sub(early).unwrap_or(at));
            refusal.pause = FIRST_PAUSE;
        }
    }

    /// Returns whether it is the first time.
    fn insert(&mut self, server: ServerId, vni: Vni, now: Instant) -> bool {
        let refusal = self.tables.entry((server, vni));
        let is_first = matches!(refusal, std::collections::btree_map::Entry::Vacant(_));
        let refusal = refusal.or_insert(Refusal {
            ask_at: None,
            pause: FIRST_PAUSE / 2,
        });
        if refusal.ask_at.is_none() {
            refusal.pause = (2 * refusal.pause).min(LONGEST_PAUSE);
            refusal.ask_at = Some(after(now, refusal.pause));
        }
        is_first
    }

    fn retain(&mut self, which: impl Fn(ServerId, Vni) -> bool) {
        self.tables.retain(|(server, vni), _| which(*server, *vni));
    }
}

impl Completeness {
    /// A server refuses to tell the table of a VNI, or to go on with it: it does not count for
    /// it. Returns whether that is news.
    ///
    /// One that was asked to tell its table again has it all the same, and is waited for.
    pub(in crate::core::client) fn refuses(
        &mut self,
        server: ServerId,
        vni: Vni,
        now: Instant,
    ) -> bool {
        self.changes += 1;
        if let Some(Standing::Established { complete, .. }) = self.servers.get_mut(&server) {
            complete.remove(&vni);
        }
        let is_news = self.refusing.insert(server, vni, now);
        self.judge_where_it_counts(vni, now);
        is_news
    }

    /// Takes the refused tables that are to be asked for again.
    pub(in crate::core::client) fn take_due_refusals(
        &mut self,
        now: Instant,
    ) -> Vec<(ServerId, Vni)> {
        let mut due = Vec::new();
        for (table, refusal) in &mut self.refusing.tables {
            if refusal.ask_at.take_if(|at| *at <= now).is_some() {
                due.push(*table);
            }
        }
        due
    }

    /// When [`Self::take_due_refusals`] has something.
    pub(in crate::core::client) fn refusals_due(&self) -> Option<Instant> {
        let refusals = self.refusing.tables.values();
        refusals.filter_map(|it| it.ask_at).min()
    }

    pub(super) fn forget_refusals(&mut self, which: impl Fn(ServerId, Vni) -> bool) {
        self.lacking.retain(|(server, vni)| !which(*server, *vni));
        self.refusing.retain(|server, vni| !which(server, vni));
        self.asked_again
            .retain(|(server, vni), _| !which(*server, *vni));
    }
}
