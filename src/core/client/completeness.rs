//! Which tables are complete, which servers are awaited, and when stale routes go.
//!
//! The core tells what happens to servers, subscriptions and tables, and what time it is. It
//! then takes the answers from [`Completeness::poll_verdict`]: which stale routes to sweep, and
//! which VNIs are synced. Nothing else decides that; nothing here holds a route.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::ServerId;
use crate::core::types::Vni;

/// How long stale routes stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// After the loss of the last server.
    pub(super) hold: Duration,
    /// After a server's table is complete, for other servers, or other announcers, to catch up.
    pub(super) linger: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Remove the stale routes of a VNI.
    Sweep(Vni),
    /// Tell that a VNI is synced: its table is complete, with all that it imports, at all
    /// servers that are awaited.
    Synced(Vni),
}

/// Where a server stands.
#[derive(Debug)]
enum Standing {
    /// Its first connection is due, or it is being dialled, or it shakes hands.
    Coming,
    /// Lost or refused; to be dialled again later.
    Away,
    /// Established, with the VNIs of which it has told the whole table.
    Established(BTreeSet<Vni>),
}

/// How far the table of a subscribed VNI is, at the server that is first with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Loading,
    /// Complete; the consumers are still to be told.
    Complete,
    /// Complete, and the consumers are told.
    Synced,
}

/// Whose table is awaited, once that of one server is complete: what another has would
/// otherwise count as gone, because the first was restarted a moment ago.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// Servers that are established, and those that may soon be.
    AtHand {
        until: Instant,
    },
    /// Servers that are established.
    Established {
        until: Instant,
    },
    Nobody,
}

impl Awaited {
    fn due(self) -> Option<Instant> {
        match self {
            Self::AtHand { until } | Self::Established { until } => Some(until),
            Self::Nobody => None,
        }
    }
}

/// What is known about the completeness of all tables.
#[derive(Debug)]
pub(super) struct Completeness {
    patience: Patience,
    /// From which VNIs routes are copied into another.
    imports: BTreeMap<Vni, BTreeSet<Vni>>,
    servers: BTreeMap<ServerId, Standing>,
    /// The subscribed VNIs.
    tables: BTreeMap<Vni, Progress>,
    /// Whose table is awaited, for those of them that are complete and not synced.
    pending: BTreeMap<Vni, Awaited>,
    /// VNIs that may have stale routes.
    stale: BTreeSet<Vni>,
    /// When the stale routes of a VNI go, if a server is complete then.
    sweeps: BTreeMap<Vni, Instant>,
    /// When all stale routes go, while no server is established.
    hold_until: Option<Instant>,
    verdicts: VecDeque<Verdict>,
}

impl Completeness {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            imports: BTreeMap::new(),
            servers: BTreeMap::new(),
            tables: BTreeMap::new(),
            pending: BTreeMap::new(),
            stale: BTreeSet::new(),
            sweeps: BTreeMap::new(),
            hold_until: None,
            verdicts: VecDeque::new(),
        }
    }

    /// Changes how long stale routes stay, from the next loss or completion on.
    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Says that the routes of one VNI are copied into another: the other is synced once both
    /// are complete.
    pub(super) fn import(&mut self, from: Vni, into: Vni) {
        self.imports.entry(into).or_default().insert(from);
    }

    /// A VNI is subscribed to.
    pub(super) fn subscribed(&mut self, vni: Vni) {
        self.tables.insert(vni, Progress::Loading);
    }

    /// A VNI is not subscribed to any more, and has no routes.
    pub(super) fn unsubscribed(&mut self, vni: Vni) {
        self.tables.remove(&vni);
        self.pending.remove(&vni);
        self.sweeps.remove(&vni);
        self.stale.remove(&vni);
        for server in self.servers.values_mut() {
            if let Standing::Established(complete) = server {
                complete.remove(&vni);
            }
        }
        // VNIs that import this one need not wait for it.
        self.announce_all();
    }

    /// A server is new, or is being dialled.
    pub(super) fn coming(&mut self, server: ServerId) {
        self.servers.insert(server, Standing::Coming);
    }

    /// A server could not be reached.
    pub(super) fn unreachable(&mut self, server: ServerId) {
        self.servers.insert(server, Standing::Away);
    }

    /// A server does not count any more.
    pub(super) fn removed(&mut self, server: ServerId) {
        self.servers.remove(&server);
    }

    /// The handshake with a server is complete; its tables are not.
    pub(super) fn established(&mut self, server: ServerId) {
        let complete = BTreeSet::new();
        self.servers.insert(server, Standing::Established(complete));
        self.hold_until = None;
    }

    /// The connection to a server is lost: nobody waits for its tables any more.
    pub(super) fn lost(&mut self, server: ServerId, now: Instant) {
        self.servers.insert(server, Standing::Away);
        self.announce_all();
        if !self.has_established() && self.hold_until.is_none() {
            self.hold_until = Some(now + self.patience.hold);
        }
    }

    /// Routes of a VNI became stale, because a server was lost.
    pub(super) fn became_stale(&mut self, vni: Vni, now: Instant) {
        self.stale.insert(vni);
        if self.is_complete(vni) {
            self.sweep(vni, now);
        }
    }

    /// A server has told the whole table of a VNI.
    pub(super) fn completed(&mut self, server: ServerId, vni: Vni, now: Instant) {
        if let Some(Standing::Established(complete)) = self.servers.get_mut(&server) {
            complete.insert(vni);
        }
        self.sweep(vni, now);
        if let Some(progress @ Progress::Loading) = self.tables.get_mut(&vni) {
            *progress = Progress::Complete;
            let awaited = if self.patience.linger.is_zero() {
                Awaited::Nobody
            } else {
                let until = now + self.patience.linger;
                Awaited::AtHand { until }
            };
            self.pending.insert(vni, awaited);
        }
        if !self.pending.is_empty() {
            let imports = self.imports.iter();
            let into = imports.filter(|(_, sources)| sources.contains(&vni));
            let into = into.map(|(into, _)| *into);
            self.announce(into.chain([vni]).collect());
        }
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        while let Some((&vni, _)) = self.sweeps.iter().find(|(_, at)| **at <= now) {
            self.sweeps.remove(&vni);
            if self.is_complete(vni) {
                self.sweep_now(vni);
            }
        }
        let is_due = |awaited: &Awaited| awaited.due().is_some_and(|due| due <= now);
        if self.pending.values().any(is_due) {
            for awaited in self.pending.values_mut().filter(|it| is_due(it)) {
                *awaited = match *awaited {
                    Awaited::AtHand { .. } => Awaited::Established {
                        until: now + self.patience.hold,
                    },
                    Awaited::Established { .. } | Awaited::Nobody => Awaited::Nobody,
                };
            }
            self.announce_all();
        }
        if self.hold_until.is_some_and(|until| until <= now) {
            self.hold_until = None;
            let stale = std::mem::take(&mut self.stale);
            self.verdicts.extend(stale.into_iter().map(Verdict::Sweep));
        }
    }

    /// When [`Self::handle_timeouts`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sweeps = self.sweeps.values().copied();
        let pending = self.pending.values().filter_map(|it| it.due());
        self.hold_until
            .into_iter()
            .chain(sweeps)
            .chain(pending)
            .min()
    }

    /// The next thing to be done.
    pub(super) fn poll_verdict(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    /// Whether the consumers were told that a VNI is synced; `None` if it is not subscribed to.
    pub(super) fn is_synced(&self, vni: Vni) -> Option<bool> {
        let progress = self.tables.get(&vni)?;
        Some(*progress == Progress::Synced)
    }

    /// The VNIs that are synced.
    pub(super) fn synced(&self) -> impl Iterator<Item = Vni> + '_ {
        let is_synced =
            |(vni, progress): (&Vni, &Progress)| (*progress == Progress::Synced).then_some(*vni);
        self.tables.iter().filter_map(is_synced)
    }

    /// Has the stale routes of a VNI go, now or when the others had time to say that they
    /// have them too.
    ///
    /// Of a route that is on its way through two servers, one may have told the client
    /// when it is killed; the other will.
    fn sweep(&mut self, vni: Vni, now: Instant) {
        if !self.stale.contains(&vni) {
            return;
        }
        if self.patience.linger.is_zero() {
            self.sweep_now(vni);
        } else {
            self.sweeps.insert(vni, now + self.patience.linger);
        }
    }

    fn sweep_now(&mut self, vni: Vni) {
        self.stale.remove(&vni);
        self.verdicts.push_back(Verdict::Sweep(vni));
    }

    fn has_established(&self) -> bool {
        let is_established = |it: &Standing| matches!(it, Standing::Established(_));
        self.servers.values().any(is_established)
    }

    /// Whether some established server has told the whole table of a VNI.
    fn is_complete(&self, vni: Vni) -> bool {
        self.servers.values().any(|server| match server {
            Standing::Established(complete) => complete.contains(&vni),
            Standing::Coming | Standing::Away => false,
        })
    }

    /// Whether the table of a VNI at another server is awaited.
    fn awaits(&self, vni: Vni, awaited: Awaited) -> bool {
        self.servers.values().any(|server| match (server, awaited) {
            (_, Awaited::Nobody)
            | (Standing::Away, Awaited::AtHand { .. } | Awaited::Established { .. })
            | (Standing::Coming, Awaited::Established { .. }) => false,
            (Standing::Coming, Awaited::AtHand { .. }) => true,
            (
                Standing::Established(complete),
                Awaited::AtHand { .. } | Awaited::Established { .. },
            ) => !complete.contains(&vni),
        })
    }

    fn announce_all(&mut self) {
        self.announce(self.pending.keys().copied().collect());
    }

    /// Tells of those of some VNIs that are complete with all that they import, and at all
    /// servers that are awaited.
    fn announce(&mut self, candidates: Vec<Vni>) {
        let is_loading = |vni: &Vni| self.tables.get(vni) == Some(&Progress::Loading);
        let is_whole = |vni: &Vni| {
            let sources = self.imports.get(vni).into_iter().flatten();
            let is_whole = !sources.into_iter().any(is_loading);
            let awaited = self.pending.get(vni);
            is_whole && awaited.is_some_and(|awaited| !self.awaits(*vni, *awaited))
        };
        let whole: Vec<Vni> = candidates.into_iter().filter(is_whole).collect();
        for vni in whole {
            self.pending.remove(&vni);
            self.tables.insert(vni, Progress::Synced);
            self.verdicts.push_back(Verdict::Synced(vni));
        }
    }
}
