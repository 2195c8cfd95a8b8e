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
    /// Since when each is refused.
    since: BTreeMap<(ServerId, Vni), Instant>,
    /// When each is to be asked for, unless it is asked for at this moment.
    ask_at: BTreeMap<(ServerId, Vni), Instant>,
    /// Servers may have room again: they are asked as if they had refused just now.
    is_hastened: bool,
}

impl Refusing {
    pub(super) fn contains(&self, server: ServerId, vni: Vni) -> bool {
        self.since.contains_key(&(server, vni))
    }

    /// A table is told.
    pub(super) fn end(&mut self, server: ServerId, vni: Vni) {
        self.since.remove(&(server, vni));
        self.ask_at.remove(&(server, vni));
    }

    /// Servers may have room again.
    pub(super) fn hasten(&mut self) {
        self.is_hastened = !self.since.is_empty();
    }

    /// Returns whether it is the first time.
    fn insert(&mut self, server: ServerId, vni: Vni, now: Instant) -> bool {
        let table = (server, vni);
        let is_first = !self.since.contains_key(&table);
        let since = *self.since.entry(table).or_insert(now);
        let refused = now.saturating_duration_since(since);
        let pause = refused.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.ask_at
            .entry(table)
            .or_insert_with(|| after(now, pause));
        is_first
    }

    fn retain(&mut self, which: impl Fn(ServerId, Vni) -> bool) {
        let which = |table: &(ServerId, Vni)| which(table.0, table.1);
        self.since.retain(|table, _| which(table));
        self.ask_at.retain(|table, _| which(table));
    }

    fn take_due(&mut self, now: Instant) -> Vec<(ServerId, Vni)> {
        if std::mem::take(&mut self.is_hastened) {
            self.since.values_mut().for_each(|it| *it = now);
            let soon = after(now, FIRST_PAUSE);
            self.ask_at.values_mut().for_each(|it| *it = soon.min(*it));
        }
        let is_due = |it: (&(ServerId, Vni), &Instant)| (*it.1 <= now).then_some(*it.0);
        let due: Vec<(ServerId, Vni)> = self.ask_at.iter().filter_map(is_due).collect();
        for table in &due {
            self.ask_at.remove(table);
        }
        due
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
        self.refusing.take_due(now)
    }

    /// When [`Self::take_due_refusals`] has something.
    pub(in crate::core::client) fn refusals_due(&self) -> Option<Instant> {
        self.refusing.ask_at.values().copied().min()
    }

    pub(super) fn forget_refusals(&mut self, which: impl Fn(ServerId, Vni) -> bool) {
        self.lacking.retain(|(server, vni)| !which(*server, *vni));
        self.refusing.retain(|server, vni| !which(server, vni));
        self.asked_again
            .retain(|(server, vni), _| !which(*server, *vni));
    }
}
