//! Which servers have told their tables, which are awaited, and when stale routes go.
//!
//! A server *speaks* for a VNI when it is established and has told the whole table. It *vouches*
//! when its announcers had time to return to it since it started. A server is *at hand* when it
//! may still tell: it loads, shakes hands, is dialled for the first time, or was lost a moment
//! ago. One predicate, [`Completeness::has_spoken`], answers for sweeps, `Settled` and `Synced`.
//!
//! The core tells what happens to servers, subscriptions and tables, and what time it is. It
//! then takes the answers from [`Completeness::poll_verdict`]. Nothing here holds a route.

mod ages;
mod refusals;
mod spare;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::ServerId;
use super::view::Age;
use crate::core::limit::after;
use crate::core::types::Vni;
use ages::Ages;
pub(super) use ages::Cause;
use refusals::Refusing;

/// A server that never completes its table is waited for as long as stale copies stay, and at
/// least so long.
const TABLE_TIME: Duration = Duration::from_secs(60);

/// How long servers are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The longest that a copy of a lost server's route stays.
    pub(super) stale_time: Duration,
    /// How long after its start a server does not vouch for what is missing, and how long after
    /// its loss it is awaited.
    pub(super) settle_time: Duration,
}

impl Patience {
    /// How long a server may take to tell a table.
    fn table_time(&self) -> Duration {
        self.stale_time.max(TABLE_TIME)
    }

    /// How long copies stay that are stale for a reason.
    fn time(&self, cause: Cause) -> Duration {
        match cause {
            Cause::Lost => self.stale_time,
            Cause::AskedAgain => self.table_time(),
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Remove all stale copies of a VNI: every server at hand has spoken, and vouches.
    Sweep(Vni),
    /// Remove the stale copies of one age: the stale time is over.
    Expire(Vni, Age),
    /// Tell that every server at hand has told the table of a VNI, and of all that it imports.
    Synced(Vni),
    /// Tell that they vouch for it too.
    Settled(Vni),
}

/// Whether the servers that speak must vouch too: whether nothing of their tables was refused,
/// and their announcers had time to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vouching {
    NotNeeded,
    Needed,
}

/// Where a server stands.
#[derive(Debug)]
enum Standing {
    /// Its first connection is due or being made, or a handshake is under way.
    Coming,
    /// Lost a moment ago: the first retries run.
    Retrying {
        handshake: Handshake,
        /// The first attempt that fails after this moment ends the waiting.
        until: Instant,
        at_most: Instant,
        /// The VNIs whose table it was about to tell when it was lost.
        loading: BTreeSet<Vni>,
    },
    /// Not awaited; to be dialled again later.
    Away,
    Established {
        since: Instant,
        vouches_from: Instant,
        /// The VNIs of which it has told the whole table.
        complete: BTreeSet<Vni>,
    },
}

/// Whether the network lost a server: it may have lost its announcers at the same time, however
/// long it has been up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    CutOff,
}

/// Whether a server that was lost is connected again, and a handshake is under way. How that
/// ends is waited for, even if the first retries are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    None,
    UnderWay,
}

/// What is known of a subscribed VNI.
#[derive(Debug)]
struct VniState {
    /// When it was subscribed to; `None` until the core tells the time.
    asked_since: Option<Instant>,
    is_synced: bool,
    is_settled: bool,
    /// When its stale copies became stale.
    ages: Ages,
    /// The stale time ended before the servers told the table again.
    is_expired: bool,
}

impl VniState {
    fn is_open(&self) -> bool {
        !self.is_synced || !self.is_settled || self.is_expired || !self.ages.is_empty()
    }
}

/// What is known about the completeness of all tables.
#[derive(Debug)]
pub(super) struct Completeness {
    patience: Patience,
    /// From which VNIs routes are copied into another.
    imports: BTreeMap<Vni, BTreeSet<Vni>>,
    servers: BTreeMap<ServerId, Standing>,
    /// The tables of servers of which something was refused, for want of room.
    lacking: BTreeSet<(ServerId, Vni)>,
    /// The tables that servers refuse to tell: they do not count for them.
    refusing: Refusing,
    /// Since when a server has been telling a table again.
    asked_again: BTreeMap<(ServerId, Vni), Instant>,
    /// The subscribed VNIs.
    vnis: BTreeMap<Vni, VniState>,
    /// Those of them that were subscribed to since the core last told the time.
    fresh: Vec<Vni>,
    /// How often a table was completed, or its copies became stale or went.
    changes: u64,
    /// No deadline is earlier.
    due: Option<Instant>,
    verdicts: VecDeque<Verdict>,
}

impl Completeness {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            imports: BTreeMap::new(),
            servers: BTreeMap::new(),
            lacking: BTreeSet::new(),
            refusing: Refusing::default(),
            asked_again: BTreeMap::new(),
            vnis: BTreeMap::new(),
            fresh: Vec::new(),
            changes: 0,
            due: None,
            verdicts: VecDeque::new(),
        }
    }

    /// Changes how long stale copies stay, those that are stale already included, and how long
    /// servers settle, from the next loss or handshake on.
    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
        self.due = self.next_due(None);
    }

    /// Says that the routes of one VNI are copied into another: the other is synced once both
    /// are complete.
    pub(super) fn import(&mut self, from: Vni, into: Vni) {
        self.imports.entry(into).or_default().insert(from);
    }

    /// A VNI is subscribed to.
    pub(super) fn subscribed(&mut self, vni: Vni) {
        let state = VniState {
            asked_since: None,
            is_synced: false,
            is_settled: false,
            ages: Ages::default(),
            is_expired: false,
        };
        self.vnis.insert(vni, state);
        self.fresh.push(vni);
    }

    /// A VNI is not subscribed to any more, and has no routes.
    pub(super) fn unsubscribed(&mut self, vni: Vni) {
        self.vnis.remove(&vni);
        self.forget_refusals(|_, of| of == vni);
        self.refusing.hasten();
        for server in self.servers.values_mut() {
            match server {
                Standing::Established { complete: of, .. }
                | Standing::Retrying { loading: of, .. } => {
                    of.remove(&vni);
                }
                Standing::Coming | Standing::Away => {}
            }
        }
    }

    /// A server is new.
    pub(super) fn coming(&mut self, server: ServerId) {
        self.servers.insert(server, Standing::Coming);
    }

    /// The connection to a server is made; the handshake begins.
    pub(super) fn connected(&mut self, server: ServerId) {
        match self.servers.get_mut(&server) {
            Some(standing @ Standing::Away) => *standing = Standing::Coming,
            Some(Standing::Retrying { handshake, .. }) => *handshake = Handshake::UnderWay,
            Some(Standing::Coming | Standing::Established { .. }) | None => {}
        }
    }

    /// A server could not be reached, or the handshake failed.
    pub(super) fn failed(&mut self, server: ServerId, now: Instant) {
        self.forget_refusals(|of, _| of == server);
        match self.servers.get_mut(&server) {
            Some(Standing::Retrying {
                until, handshake, ..
            }) if now < *until => {
                *handshake = Handshake::None;
                return;
            }
            Some(standing) => *standing = Standing::Away,
            None => return,
        }
        self.evaluate(now);
    }

    /// A server does not count any more.
    pub(super) fn removed(&mut self, server: ServerId, now: Instant) {
        self.servers.remove(&server);
        self.forget_refusals(|of, _| of == server);
        self.evaluate(now);
    }

    /// The handshake with a server is complete; its tables are not. `uptime`: how long it has
    /// had announcers, as far as is known.
    pub(super) fn established(&mut self, server: ServerId, uptime: Duration, now: Instant) {
        self.changes += 1;
        let settling = self.patience.settle_time.saturating_sub(uptime);
        let vouches_from = after(now, settling);
        let standing = Standing::Established {
            since: now,
            vouches_from,
            complete: BTreeSet::new(),
        };
        self.servers.insert(server, standing);
        self.note((vouches_from > now).then_some(vouches_from));
        self.note(now.checked_add(self.patience.table_time()));
    }

    /// The session with a server is over. The caller marks its routes and calls
    /// [`Self::evaluate`].
    pub(super) fn lost(&mut self, server: ServerId, now: Instant) {
        self.forget_refusals(|of, _| of == server);
        let Some(standing) = self.servers.get_mut(&server) else {
            return;
        };
        let settle_time = self.patience.settle_time;
        let loading = match standing {
            Standing::Established { complete, .. } => {
                let all = self.vnis.keys().copied();
                all.filter(|vni| !complete.contains(vni)).collect()
            }
            Standing::Retrying { loading, .. } => std::mem::take(loading),
            Standing::Coming | Standing::Away => BTreeSet::new(),
        };
        let until = after(now, settle_time);
        // An attempt that is due by then may be the one that works.
        let at_most = after(until, settle_time);
        if until > now {
            *standing = Standing::Retrying {
                handshake: Handshake::None,
                until,
                at_most,
                loading,
            };
            self.note(Some(at_most));
        } else {
            *standing = Standing::Away;
        }
    }

    /// A server that is lost is not tried for a while.
    pub(super) fn drained(&mut self, server: ServerId) {
        let Some(Standing::Retrying { until, at_most, .. }) = self.servers.get_mut(&server) else {
            return;
        };
        *at_most = *until;
        let due = *at_most;
        self.note(Some(due));
    }

    /// Returns the age of what becomes stale at `now`.
    pub(super) fn age(&self, vni: Vni, cause: Cause, now: Instant) -> Age {
        let state = self.vnis.get(&vni);
        state.map_or(Age::FIRST, |it| it.ages.of(cause, now, &self.patience))
    }

    /// Routes of a VNI became stale.
    pub(super) fn became_stale(&mut self, vni: Vni, age: Age, cause: Cause, now: Instant) {
        self.changes += 1;
        if let Some(state) = self.vnis.get_mut(&vni) {
            state.ages.begin(age, cause, now);
            let due = state.ages.due(&self.patience);
            self.note(due);
        }
    }

    /// A server has told the whole table of a VNI.
    pub(super) fn completed(&mut self, server: ServerId, vni: Vni, now: Instant) {
        self.changes += 1;
        if let Some(Standing::Established { complete, .. }) = self.servers.get_mut(&server) {
            complete.insert(vni);
            self.asked_again.remove(&(server, vni));
            self.refusing.end(server, vni);
        }
        self.judge_where_it_counts(vni, now);
    }

    /// A route of a server's was refused: its table of the VNI is not whole.
    pub(super) fn refused(&mut self, server: ServerId, vni: Vni) {
        self.lacking.insert((server, vni));
    }

    /// All that was refused of a server's table is withdrawn.
    pub(super) fn whole(&mut self, server: ServerId, vni: Vni, now: Instant) {
        self.lacking.remove(&(server, vni));
        self.judge_where_it_counts(vni, now);
    }

    /// A server is to tell the table of a VNI again.
    pub(super) fn asked_again(&mut self, server: ServerId, vni: Vni, now: Instant) {
        self.changes += 1;
        self.lacking.remove(&(server, vni));
        if let Some(Standing::Established { complete, .. }) = self.servers.get_mut(&server) {
            complete.remove(&vni);
            self.asked_again.entry((server, vni)).or_insert(now);
            self.note(now.checked_add(self.patience.table_time()));
        }
    }

    /// Returns whether a server knows best what a VNI has: it has told the whole table, and its
    /// announcers had time to return to it.
    pub(super) fn vouches(&self, server: ServerId, vni: Vni, now: Instant) -> bool {
        match self.servers.get(&server) {
            Some(Standing::Established {
                vouches_from,
                complete,
                ..
            }) => {
                let is_whole = !self.lacking.contains(&(server, vni));
                *vouches_from <= now && complete.contains(&vni) && is_whole
            }
            Some(Standing::Coming | Standing::Retrying { .. } | Standing::Away) | None => false,
        }
    }

    /// Returns whether a session is established.
    pub(super) fn has_established(&self) -> bool {
        let is_established = |it: &Standing| matches!(it, Standing::Established { .. });
        self.servers.values().any(is_established)
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        for vni in std::mem::take(&mut self.fresh) {
            if let Some(state) = self.vnis.get_mut(&vni) {
                state.asked_since.get_or_insert(now);
                self.note(now.checked_add(self.patience.table_time()));
            }
        }
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        for (vni, state) in &mut self.vnis {
            while let Some(age) = state.ages.take_over(now, &self.patience) {
                state.is_expired = true;
                self.changes += 1;
                self.verdicts.push_back(Verdict::Expire(*vni, age));
            }
        }
        for standing in self.servers.values_mut() {
            if let Standing::Retrying {
                handshake: Handshake::None,
                at_most,
                ..
            } = standing
                && *at_most <= now
            {
                *standing = Standing::Away;
            }
        }
        self.evaluate(now);
        self.due = self.next_due(Some(now));
    }

    /// When [`Self::handle_timeouts`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The next thing to be done.
    pub(super) fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    /// Whether the consumers were told that a VNI is synced, and no routes went since because the
    /// servers did not return in time; `None` if it is not subscribed to.
    pub(super) fn is_synced(&self, vni: Vni) -> Option<bool> {
        let state = self.vnis.get(&vni)?;
        Some(state.is_synced && !state.is_expired)
    }

    /// Whether the consumers were told that a VNI is settled.
    pub(super) fn is_settled(&self, vni: Vni) -> bool {
        self.vnis.get(&vni).is_some_and(|state| state.is_settled)
    }

    /// The VNIs that are synced, each with whether it is settled too.
    pub(super) fn synced(&self) -> impl Iterator<Item = (Vni, bool)> + '_ {
        let synced = self.vnis.iter().filter(|(_, state)| state.is_synced);
        synced.map(|(vni, state)| (*vni, state.is_settled))
    }

    /// Judges all VNIs that something is to be said about.
    pub(super) fn evaluate(&mut self, now: Instant) {
        let open = self.vnis.iter().filter(|(_, state)| state.is_open());
        for vni in open.map(|(vni, _)| *vni).collect::<Vec<_>>() {
            self.judge(vni, now);
        }
    }

    /// Judges a VNI, and those into which it is imported.
    fn judge_where_it_counts(&mut self, vni: Vni, now: Instant) {
        let imports = self.imports.iter();
        let into = imports.filter(|(_, sources)| sources.contains(&vni));
        let into: Vec<Vni> = into.map(|(into, _)| *into).collect();
        for vni in [vni].into_iter().chain(into) {
            self.judge(vni, now);
        }
    }

    fn judge(&mut self, vni: Vni, now: Instant) {
        let Some(state) = self.vnis.get(&vni).filter(|state| state.is_open()) else {
            return;
        };
        let (is_synced, is_settled) = (state.is_synced, state.is_settled);
        let returns = state.is_expired && self.is_whole(vni, Vouching::NotNeeded, now);
        let sweeps = !state.ages.is_empty() && self.has_spoken(vni, Vouching::Needed, now);
        let syncs = !is_synced && self.is_whole(vni, Vouching::NotNeeded, now);
        let settles =
            (is_synced || syncs) && !is_settled && self.is_whole(vni, Vouching::Needed, now);
        let Some(state) = self.vnis.get_mut(&vni) else {
            return;
        };
        if returns {
            state.is_expired = false;
        }
        if sweeps {
            state.ages.clear();
            self.changes += 1;
            self.verdicts.push_back(Verdict::Sweep(vni));
        }
        if syncs {
            state.is_synced = true;
            self.verdicts.push_back(Verdict::Synced(vni));
        }
        if settles {
            state.is_settled = true;
            self.verdicts.push_back(Verdict::Settled(vni));
        }
    }

    /// Whether the servers have spoken for a VNI and for all that it imports, or had enough time
    /// to do so.
    fn is_whole(&self, vni: Vni, vouching: Vouching, now: Instant) -> bool {
        let has_spoken =
            |vni: &Vni| self.has_spoken(*vni, vouching, now) || self.is_overdue(*vni, now);
        let sources = self.imports.get(&vni).into_iter().flatten();
        let mut subscribed = sources.filter(|from| self.vnis.contains_key(from));
        has_spoken(&vni) && subscribed.all(has_spoken)
    }

    /// Whether at least one server speaks for a VNI, all that do vouch if that is needed, and
    /// nobody is at hand who may still tell.
    fn has_spoken(&self, vni: Vni, vouching: Vouching, now: Instant) -> bool {
        let asked_since = self.vnis.get(&vni).and_then(|state| state.asked_since);
        let is_awaited = |(server, standing): (&ServerId, &Standing)| match standing {
            Standing::Coming => true,
            Standing::Away => false,
            Standing::Retrying { loading, .. } => {
                vouching == Vouching::Needed || loading.contains(&vni)
            }
            Standing::Established {
                since,
                vouches_from,
                complete,
            } => {
                let of = (*server, vni);
                if complete.contains(&vni) {
                    let vouches = *vouches_from <= now && !self.lacking.contains(&of);
                    vouching == Vouching::Needed && !vouches
                } else {
                    let again = self.asked_again.get(&of);
                    if again.is_none() && self.refusing.contains(*server, vni) {
                        return false;
                    }
                    let since = again.map_or(*since, |again| *again);
                    let begin = asked_since.map(|asked| asked.max(since));
                    begin.is_none_or(|it| !is_past(it, self.patience.table_time(), now))
                }
            }
        };
        self.speakers(vni).next().is_some() && !self.servers.iter().any(is_awaited)
    }

    /// The servers that have told the whole table of a VNI.
    fn speakers(&self, vni: Vni) -> impl Iterator<Item = &Standing> {
        self.servers.values().filter(move |standing| {
            matches!(standing, Standing::Established { complete, .. } if complete.contains(&vni))
        })
    }

    /// Whether a server that speaks for a VNI has been there for so long that all others had
    /// time to tell their tables as well, or could not.
    fn is_overdue(&self, vni: Vni, now: Instant) -> bool {
        let asked_since = self.vnis.get(&vni).and_then(|state| state.asked_since);
        let table_time = self.patience.table_time();
        let has_waited = |since: Instant| {
            asked_since.is_some_and(|asked| is_past(asked.max(since), table_time, now))
        };
        self.speakers(vni).any(|standing| match standing {
            Standing::Established { since, .. } => has_waited(*since),
            Standing::Coming | Standing::Retrying { .. } | Standing::Away => false,
        })
    }

    fn note(&mut self, deadline: Option<Instant>) {
        self.due = self.due.into_iter().chain(deadline).min();
    }

    /// Returns the next deadline after `now`; any, without it.
    fn next_due(&self, now: Option<Instant>) -> Option<Instant> {
        let table_time = self.patience.table_time();
        let ends = self.vnis.values().filter(|it| it.is_open());
        let ends = ends.flat_map(|state| {
            let asked = state.asked_since;
            let asked = asked.and_then(|it| it.checked_add(table_time));
            state.ages.due(&self.patience).into_iter().chain(asked)
        });
        let servers = self
            .servers
            .values()
            .flat_map(|standing| match *standing {
                Standing::Coming | Standing::Away => [None, None],
                Standing::Retrying { at_most, .. } => [Some(at_most), None],
                Standing::Established {
                    since,
                    vouches_from,
                    ..
                } => [Some(vouches_from), since.checked_add(table_time)],
            })
            .flatten();
        let again = self.asked_again.values();
        let again = again.filter_map(|it| it.checked_add(table_time));
        let is_ahead = |due: &Instant| now.is_none_or(|now| *due > now);
        ends.chain(servers).chain(again).filter(is_ahead).min()
    }
}

/// Whether `time` is over since `start`.
fn is_past(start: Instant, time: Duration, now: Instant) -> bool {
    start.checked_add(time).is_some_and(|end| end <= now)
}
