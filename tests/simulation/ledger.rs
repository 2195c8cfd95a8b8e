//! What a client was told, and when it may forget it.
//!
//! A ledger stands beside each client. It knows the frames that the client reads, and of the
//! world what a client can only be told: when a server process was started, and how a connection
//! ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rustbond::{IpNet, NextHopType, Route, Vni};

use super::agenda::{Agenda, Key};
use super::client::Call;
use super::monitor::{Monitor, News};
use super::route::{IMPORTS, filter, imported};
use super::script::{ClientPlan, SERVERS, VNIS};

/// Losses in one stale time from which on their copies may share a clock.
const CLOCKS: usize = 32;

/// Parts of the stale time by which a shared clock may be early.
const SHARES: u32 = 31;

/// What a server means for the stale copies of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may still tell: nothing may go.
    Awaited,
    /// It is not expected to say anything.
    Away,
    /// It has told all, and its announcers had time to return.
    Vouches,
}

/// Why the announcers of a server may be on their way back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    None,
    /// A session or an attempt ended, and the far end said so.
    Restarted,
    /// It ended in silence.
    CutOff,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    is_legacy: bool,
    /// Its first attempt is due or under way.
    is_first: bool,
    doubt: Doubt,
    lost_at: Option<Instant>,
    established: Option<Established>,
}

#[derive(Clone, Copy, Debug)]
struct Established {
    since: Instant,
    vouches_from: Instant,
}

/// The routes that a client held when servers were lost that had them, and when that was.
type Copies = BTreeMap<Vni, BTreeMap<Route, [Option<Instant>; SERVERS]>>;

/// The connections of a client.
pub(crate) type Monitors = [Option<Monitor>; SERVERS];

type Standings = [[Standing; VNIS as usize]; SERVERS];

/// What a client was told, and when it may forget it.
#[derive(Debug)]
pub(crate) struct Ledger {
    plan: ClientPlan,
    peers: [Peer; SERVERS],
    /// When each VNI was subscribed to.
    subscribed: BTreeMap<Vni, Instant>,
    /// How many STANDARD routes the client announces to each network.
    own: BTreeMap<(Vni, IpNet), usize>,
    /// What it has announced at any time.
    ever_own: BTreeSet<(Vni, Route)>,
    /// When it withdrew that last.
    withdrawn: BTreeMap<(Vni, Route), Instant>,
    /// What it must hold, unless it is told otherwise.
    copies: Copies,
    /// What it may hold.
    memory: Copies,
    /// When sessions were lost, as far as it matters.
    losses: Vec<Instant>,
    standings: Standings,
    /// Something was said of or by a server since the standings were looked at.
    is_stirred: bool,
    /// When the client had its last turn: nothing changes in it between two.
    judged_at: Option<Instant>,
    pub(crate) agenda: Agenda,
}

impl Ledger {
    pub(crate) fn new(plan: ClientPlan, is_modern: [bool; SERVERS]) -> Self {
        let peer = |server: usize| Peer {
            is_legacy: !(plan.setup.is_modern && is_modern[server]),
            is_first: true,
            doubt: Doubt::None,
            lost_at: None,
            established: None,
        };
        Self {
            plan,
            peers: std::array::from_fn(peer),
            subscribed: BTreeMap::new(),
            own: BTreeMap::new(),
            ever_own: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
            copies: Copies::new(),
            memory: Copies::new(),
            losses: Vec::new(),
            standings: [[Standing::Awaited; VNIS as usize]; SERVERS],
            is_stirred: true,
            judged_at: None,
            agenda: Agenda::default(),
        }
    }

    /// A new process knows nothing of what the one before was told.
    pub(crate) fn restart(&mut self) {
        let is_modern = self.peers.map(|peer| !peer.is_legacy);
        *self = Self::new(self.plan, is_modern);
    }

    /// The client has done what its program asked for.
    pub(crate) fn called(&mut self, call: Call, now: Instant) {
        match call {
            Call::Subscribe(vni) => {
                self.subscribed.insert(vni, now);
            }
            Call::Unsubscribe(vni) => {
                self.subscribed.remove(&vni);
                self.copies.remove(&vni);
                self.memory.remove(&vni);
                self.agenda.touch_all(vni);
                self.touch_imports(vni);
            }
            Call::Announce(vni, route) => {
                if let Some(network) = network(&route) {
                    *self.own.entry((vni, network)).or_default() += 1;
                    self.touch_imports(vni);
                }
                self.ever_own.insert((vni, route));
            }
            Call::Withdraw(vni, route) => {
                if let Some(network) = network(&route) {
                    let count = self.own.get_mut(&(vni, network));
                    *count.expect("it was announced") -= 1;
                    self.touch_imports(vni);
                }
                self.withdrawn.insert((vni, route), now);
                self.agenda.touch((vni, route));
                let audible_at = now + self.plan.setup.settle_time;
                self.agenda.schedule(audible_at, [(vni, route)]);
            }
        }
    }

    /// Each route that a VNI may be imported as has changed.
    fn touch_imports(&mut self, from: Vni) {
        for (_, into) in IMPORTS.iter().filter(|it| it.0 == from) {
            if self.plan.has_policy {
                self.agenda.touch_all(*into);
            }
        }
    }

    /// An attempt at a server succeeded.
    pub(crate) fn reached(&mut self) {
        self.is_stirred = true;
    }

    /// An attempt at a server failed.
    pub(crate) fn failed(&mut self, server: usize, doubt: Doubt) {
        self.is_stirred = true;
        let peer = &mut self.peers[server];
        peer.is_first = false;
        peer.doubt = peer.doubt.max(doubt);
    }

    /// The client has read what a server sent.
    pub(crate) fn read(&mut self, server: usize, monitor: &mut Monitor, now: Instant) {
        self.is_stirred = true;
        let settle_time = self.plan.setup.settle_time;
        let peer = &mut self.peers[server];
        if monitor.is_established && peer.established.is_none() {
            let vouches_from = match (peer.is_legacy, peer.doubt) {
                (_, Doubt::CutOff) | (true, Doubt::Restarted) => now + settle_time,
                (false, Doubt::None | Doubt::Restarted) => monitor.started() + settle_time,
                (true, Doubt::None) => now,
            };
            *peer = Peer {
                is_first: false,
                doubt: peer.doubt.min(Doubt::Restarted),
                lost_at: None,
                established: Some(Established {
                    since: now,
                    vouches_from,
                }),
                ..*peer
            };
        }
        let vouches = peer.established.is_some_and(|it| it.vouches_from <= now);
        for news in monitor.take_news() {
            let key = match news {
                News::Added(vni, route) => (vni, route),
                News::Removed {
                    vni,
                    route,
                    is_complete,
                } => {
                    // The stale copies of others are older than this.
                    if vouches
                        && is_complete
                        && let Some(copies) = self.copies.get_mut(&vni)
                    {
                        copies.remove(&route);
                    }
                    (vni, route)
                }
            };
            self.agenda.touch(key);
        }
    }

    /// The client lets go of a connection.
    pub(crate) fn lost(&mut self, server: usize, monitor: &Monitor, doubt: Doubt, now: Instant) {
        self.failed(server, doubt);
        let peer = &mut self.peers[server];
        if peer.established.take().is_none() {
            return;
        }
        peer.lost_at = Some(now);
        let stale_time = self.plan.setup.stale_time;
        self.losses.retain(|at| now < *at + stale_time);
        self.losses.push(now);
        for vni in self.subscribed.keys() {
            let routes = monitor.routes(*vni);
            let routes = routes.filter(|route| takes(&self.plan, *vni, route));
            let routes: Vec<Route> = routes.copied().collect();
            let keys = routes.iter().map(|route| (*vni, *route));
            self.agenda.schedule(now + stale_time, keys);
            for route in routes {
                for copies in [&mut self.copies, &mut self.memory] {
                    let of_vni = copies.entry(*vni).or_default();
                    of_vni.entry(route).or_default()[server] = Some(now);
                }
            }
        }
    }

    /// Judges within a turn, if something has changed.
    pub(crate) fn judge_news(&mut self, monitors: &Monitors, now: Instant) {
        if self.is_stirred {
            self.judge(monitors, now);
        }
    }

    /// After something happened: forgets the copies that the client may have removed.
    ///
    /// What happened between two calls has no order: what was right before or is right after is
    /// taken as right.
    pub(crate) fn judge(&mut self, monitors: &Monitors, now: Instant) {
        let standings: Standings = std::array::from_fn(|server| {
            std::array::from_fn(|vni| {
                let vni = Vni(vni as u32 + 1);
                self.standing(server, monitors[server].as_ref(), vni, now)
            })
        });
        for (at, vni) in (1..=VNIS).map(Vni).enumerate() {
            let both = |server: usize| [self.standings[server][at], standings[server][at]];
            let vouches = |server| both(server).contains(&Standing::Vouches);
            let is_awaited = |server| both(server) == [Standing::Awaited; 2];
            if (0..SERVERS).any(vouches) && !(0..SERVERS).any(is_awaited) {
                self.copies.remove(&vni);
            }
        }
        self.standings = standings;
        self.is_stirred = false;
        self.judged_at = Some(now);
    }

    fn standing(
        &self,
        server: usize,
        monitor: Option<&Monitor>,
        vni: Vni,
        now: Instant,
    ) -> Standing {
        let peer = &self.peers[server];
        let setup = &self.plan.setup;
        let Some(monitor) = monitor else {
            let is_fresh = |lost_at: Instant| now < lost_at + setup.settle_time;
            let is_awaited = peer.is_first || peer.lost_at.is_some_and(is_fresh);
            return if is_awaited {
                Standing::Awaited
            } else {
                Standing::Away
            };
        };
        let Some(established) = peer.established else {
            return Standing::Awaited;
        };
        let asked = self.subscribed.get(&vni).copied().unwrap_or(now);
        let is_late = asked.max(established.since) + setup.stale_time <= now;
        let vouches = established.vouches_from <= now;
        match (monitor.is_complete(vni), is_late) {
            (true, _) if vouches => Standing::Vouches,
            (false, true) => Standing::Away,
            (true | false, _) => Standing::Awaited,
        }
    }

    /// Why the client must hold a route, if it must.
    pub(crate) fn must_hold(
        &self,
        monitors: &Monitors,
        (vni, route): (Vni, Route),
    ) -> Option<String> {
        let native = self.must_hold_native(monitors, (vni, route));
        native.or_else(|| {
            let mut sources = self.sources(vni, route);
            sources.find_map(|source| {
                let why = self.must_hold_native(monitors, source)?;
                Some(format!("in VNI {}, {why}", source.0))
            })
        })
    }

    fn must_hold_native(&self, monitors: &Monitors, (vni, route): (Vni, Route)) -> Option<String> {
        let now = self.judged_at?;
        if !self.subscribed.contains_key(&vni) || !takes(&self.plan, vni, &route) {
            return None;
        }
        let is_own = self.ever_own.contains(&(vni, route));
        let counts = |server: &usize| !(is_own && self.peers[*server].is_legacy);
        let has = |server: &usize| {
            let monitor = monitors[*server].as_ref();
            monitor.is_some_and(|it| it.has_told(vni, &route))
        };
        if let Some(server) = (0..SERVERS).filter(counts).find(has) {
            return Some(format!("server {server} has told it"));
        }
        let lost = self.copies.get(&vni)?.get(&route)?;
        let setup = &self.plan.setup;
        let withdrawn = self.withdrawn.get(&(vni, route));
        if withdrawn.is_some_and(|at| now < *at + setup.settle_time) {
            return None;
        }
        let stays = match self.losses.len() > CLOCKS {
            true => setup.stale_time - setup.stale_time / SHARES,
            false => setup.stale_time,
        };
        let mut counting = (0..SERVERS).filter(counts);
        counting.find_map(|server| {
            let lost_at = lost[server].filter(|at| now < *at + stays)?;
            let since = now - lost_at;
            Some(format!(
                "server {server} had it, was lost {since:?} ago, and nobody vouched since"
            ))
        })
    }

    /// Whether the client may hold a route.
    pub(crate) fn may_hold(
        &self,
        monitors: &Monitors,
        (vni, route): (Vni, Route),
        now: Instant,
    ) -> bool {
        let stale_time = self.plan.setup.stale_time;
        let may = |vni: Vni, route: &Route| {
            let lost = self.memory.get(&vni).and_then(|it| it.get(route));
            let lost = lost.into_iter().flatten().flatten();
            let is_told = |it: &Monitor| it.has_told(vni, route);
            monitors.iter().flatten().any(is_told)
                || lost.into_iter().any(|at| now < *at + stale_time)
        };
        let mut sources = self.sources(vni, route);
        may(vni, &route) || sources.any(|(from, route)| may(from, &route))
    }

    /// What has changed or become due since the last call, what is imported from it as well; and
    /// forgets the copies that nobody may hold any more.
    pub(crate) fn take_agenda(&mut self, now: Instant) -> Vec<Key> {
        let due = self.agenda.take_due(now);
        let stale_time = self.plan.setup.stale_time;
        let is_over = |lost: &[Option<Instant>; SERVERS]| {
            lost.iter().flatten().all(|at| *at + stale_time <= now)
        };
        for (vni, route) in &due {
            for copies in [&mut self.copies, &mut self.memory] {
                if let Some(of_vni) = copies.get_mut(vni)
                    && of_vni.get(route).is_some_and(is_over)
                {
                    of_vni.remove(route);
                }
            }
        }
        let mut keys = self.agenda.take_touched();
        keys.extend(due);
        self.with_imports(keys.into_iter()).collect()
    }

    /// What the client must hold, perhaps: a route that it must is among it.
    pub(crate) fn held<'a>(
        &'a self,
        monitors: &'a Monitors,
    ) -> impl Iterator<Item = (Vni, Route)> + 'a {
        let native = self.subscribed.keys().flat_map(move |vni| {
            let copies = self.copies.get(vni).into_iter().flatten();
            let told = monitors.iter().flatten().flat_map(|it| it.routes(*vni));
            let routes = copies.map(|(route, _)| route).chain(told);
            routes.map(|route| (*vni, *route))
        });
        self.with_imports(native)
    }

    /// Routes, and what is imported from each.
    pub(crate) fn with_imports<'a>(
        &'a self,
        native: impl Iterator<Item = Key> + 'a,
    ) -> impl Iterator<Item = Key> + 'a {
        native.flat_map(move |(vni, route)| {
            let imports = IMPORTS
                .iter()
                .filter(move |it| it.0 == vni && self.plan.has_policy);
            let copies = imports.map(move |(from, into)| (*into, imported(*from, route)));
            [(vni, route)].into_iter().chain(copies)
        })
    }

    /// The routes of other VNIs that appear as `route` in one.
    fn sources(&self, into: Vni, route: Route) -> impl Iterator<Item = (Vni, Route)> + '_ {
        let imports = IMPORTS
            .iter()
            .filter(move |it| it.1 == into && self.plan.has_policy);
        let sources = imports.flat_map(move |(from, _)| {
            let mut unnamed = route;
            unnamed.next_hop.target_vni = None;
            let mut of = vec![(*from, route), (*from, unnamed)];
            of.dedup();
            of.retain(|(from, of)| imported(*from, *of) == route);
            of
        });
        sources.filter(|(from, route)| !self.suppresses(*from, route))
    }

    /// Whether a route leads to where the client itself is.
    fn suppresses(&self, vni: Vni, route: &Route) -> bool {
        let own = network(route).and_then(|network| self.own.get(&(vni, network)));
        own.is_some_and(|count| *count > 0)
    }
}

/// Whether the client takes a route of those that it is told.
fn takes(plan: &ClientPlan, vni: Vni, route: &Route) -> bool {
    !plan.has_policy || filter().accepts(vni, route)
}

/// Where a route leads, if it is a STANDARD one; a kernel has no host bits.
fn network(route: &Route) -> Option<IpNet> {
    let is_standard = route.next_hop.hop_type == NextHopType::Standard;
    is_standard.then(|| route.destination.prefix.trunc())
}
