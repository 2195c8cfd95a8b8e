//! A running server, to look at and to change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use super::acceptor::Notice;
use super::flaps::Flaps;
use super::stats::WorkerStats;
use super::tap::tap;
use super::worker::{Mail, Worker};
use crate::core::map::{Map, map};
use crate::core::reflector::{RouteCursor, SessionView, Topology};
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::Update;
use crate::error::{Error, Result};
use crate::inspect::{
    Announcers, Command, Done, Inspect, PeerKind, PeerState, PeerStatus, RouteEntry, ServerStats,
    Side, Snapshot, Status, VniStatus, Watch,
};
use crate::net::Postbox;

/// Routes that a worker looks up at once; about 0.3 ms.
const ROUTES_AT_ONCE: usize = 4096;

/// What the announcer of a server's own routes is called.
const SELF: &str = "self";

/// The ways to the threads of a server.
#[derive(Clone)]
pub(super) struct Inspector {
    pub(super) address: SocketAddr,
    pub(super) topology: Topology,
    pub(super) workers: Vec<Postbox<Mail>>,
    pub(super) acceptor: Postbox<Notice>,
    pub(super) stats: Vec<Arc<WorkerStats>>,
    pub(super) refused: Arc<AtomicU64>,
    pub(super) flaps: Arc<Mutex<Flaps>>,
    pub(super) started: (SystemTime, Instant),
    pub(super) watchers: Arc<AtomicUsize>,
}

impl Inspector {
    pub(super) fn stats(&self) -> ServerStats {
        let mut total = ServerStats {
            refused_sessions: self.refused.load(Ordering::Relaxed),
            ..ServerStats::default()
        };
        for stats in &self.stats {
            stats.add_to(&mut total);
        }
        total
    }

    /// Has a worker do something; the answer comes unless the server stops.
    fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        call: impl FnOnce(&mut Worker, Instant) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (sender, receiver) = bounded(1);
        let call = move |worker: &mut Worker, now| {
            // Nobody listens any more if the asker is gone; that is its affair.
            drop(sender.send(call(worker, now)));
        };
        self.workers[worker].post(Mail::Call(Box::new(call)), 1);
        receiver
    }

    /// Has every worker do something, at the same time.
    fn ask_all<T: Send + 'static>(
        &self,
        call: impl Fn(&mut Worker, Instant) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let workers = 0..self.workers.len();
        let answers: Vec<Receiver<T>> = workers.map(|it| self.ask(it, call.clone())).collect();
        answers.iter().filter_map(|it| it.recv().ok()).collect()
    }

    /// The routes of one worker's tables, a piece at a time.
    fn walk(&self, worker: usize, vni: Option<Vni>, entries: &mut Vec<RouteEntry>) {
        let mut cursor: Option<RouteCursor> = None;
        loop {
            let from = cursor.take();
            let step = move |worker: &mut Worker, _| {
                let tables = worker.shard.tables();
                let mut cursor = from.unwrap_or_else(|| tables.walk(vni));
                let mut piece = Vec::new();
                let is_over = tables.step(&mut cursor, ROUTES_AT_ONCE, |vni, route, peers| {
                    piece.push(RouteEntry {
                        vni,
                        route,
                        announcers: match *peers {
                            [peer] => Announcers::One(peer.0),
                            _ => peers.iter().map(|peer| peer.0).collect(),
                        },
                        is_suppressed: false,
                    });
                });
                (piece, (!is_over).then_some(cursor))
            };
            let Ok((piece, next)) = self.ask(worker, step).recv() else {
                return;
            };
            entries.extend(piece);
            if next.is_none() {
                return;
            }
            cursor = next;
        }
    }

    fn announce(&self, action: Action, vni: Vni, route: Route) -> Result<Done> {
        let update = Update { action, vni, route };
        let answer = self.ask(self.topology.owner(vni), move |worker, now| {
            worker.shard.update_own(&update, now)
        });
        match answer.recv() {
            Ok(true) => Ok(Done::Changed(1)),
            Ok(false) => Ok(Done::Unchanged),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Ends the sessions that a name stands for: an address with a port, or all of an address.
    fn end(&self, name: &str, ending: Ending) -> Result<Done> {
        let whose = Whose::parse(name).ok_or_else(|| Error::PeerNotFound(name.into()))?;
        if let Ending::Drain(time) = ending {
            self.acceptor.post(Notice::Shun(whose.address(), time), 1);
        }
        let ended = self.ask_all(move |worker, now| {
            let its_own = worker.addresses().filter(|(_, address)| whose.is(*address));
            let ids: Vec<PeerId> = its_own.map(|(id, _)| id).collect();
            for &id in &ids {
                match ending {
                    Ending::Reset => worker.shard.close(id, CloseReason::Reset, now),
                    Ending::Drain(_) => worker.shard.drain(id, now),
                }
            }
            ids.len()
        });
        match ended.iter().sum() {
            0 => Err(Error::PeerNotFound(name.into())),
            count => Ok(Done::Changed(count)),
        }
    }
}

/// How a session is ended by an operator.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Reset,
    Drain(Duration),
}

/// Sessions that are meant by a name.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Session(SocketAddr),
    Address(IpAddr),
}

impl Whose {
    fn parse(name: &str) -> Option<Self> {
        let session = name.parse().map(Self::Session);
        session.or_else(|_| name.parse().map(Self::Address)).ok()
    }

    fn is(self, address: SocketAddr) -> bool {
        match self {
            Self::Session(session) => session == address,
            Self::Address(whose) => whose == address.ip(),
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::Session(session) => session.ip(),
            Self::Address(address) => address,
        }
    }
}

impl Inspect for Inspector {
    fn status(&self) -> Status {
        let stats = self.stats();
        let announced = self.ask_all(|worker, _| worker.shard.tables().own_count());
        let is_stopped = announced.is_empty();
        Status {
            side: Side::Server,
            started: self.started.0,
            uptime: self.started.1.elapsed(),
            listening: (!is_stopped).then_some(self.address),
            not_ready: is_stopped.then(|| "stopped".into()),
            peers: stats.sessions,
            established: stats.established,
            vnis: stats.vnis,
            routes: stats.routes,
            announced: announced.iter().sum(),
            updates_received: stats.updates_received,
            updates_sent: stats.updates_sent,
            server: Some(stats),
            kernel: None,
        }
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let looked = self.ask_all(|worker, now| {
            let mut sessions = Vec::new();
            worker.shard.for_each_session(|view| {
                if let Some(address) = worker.address(view.id) {
                    sessions.push((view, address));
                }
            });
            let mut announced = Vec::new();
            let tables = worker.shard.tables();
            tables.for_each_announcer(|peer, routes| announced.push((peer, routes)));
            (now, sessions, announced)
        });
        let mut routes: Map<PeerId, usize> = map(0);
        for (peer, count) in looked.iter().flat_map(|(.., announced)| announced) {
            *routes.entry(*peer).or_insert(0) += count;
        }
        let flaps = self.flaps.lock();
        let mut peers = Vec::new();
        for (now, sessions, _) in looked {
            for (view, address) in sessions {
                let flaps = flaps.of(address.ip(), now);
                let routes = routes.get(&view.id).copied().unwrap_or(0);
                peers.push(peer_status(&view, address, routes, flaps, now));
            }
        }
        peers.sort_unstable_by_key(|peer| peer.address);
        peers
    }

    fn vnis(&self) -> Vec<VniStatus> {
        let looked = self.ask_all(|worker, _| {
            let mut vnis = Vec::new();
            worker
                .shard
                .tables()
                .for_each_vni(|vni, table, subscribers| {
                    vnis.push(VniStatus {
                        vni,
                        table,
                        subscribers,
                        is_synced: None,
                    });
                });
            vnis
        });
        let mut vnis: Vec<VniStatus> = looked.into_iter().flatten().collect();
        vnis.sort_unstable_by_key(|it| it.vni);
        vnis
    }

    fn generation(&self) -> u64 {
        let changes = self.stats.iter();
        changes.map(|it| it.changes.load(Ordering::Relaxed)).sum()
    }

    fn snapshot(&self, vni: Option<Vni>) -> Snapshot {
        let mut entries = Vec::new();
        match vni {
            Some(it) => self.walk(self.topology.owner(it), vni, &mut entries),
            None => (0..self.workers.len()).for_each(|it| self.walk(it, vni, &mut entries)),
        }
        let names = self.ask_all(|worker, _| worker.addresses().collect::<Vec<_>>());
        let names = names.into_iter().flatten();
        let names = names.map(|(id, address)| (id.0, address.to_string()));
        let names = names.chain([(PeerId::SELF.0, SELF.into())]).collect();
        Snapshot::new(entries, names)
    }

    fn announcements(&self) -> Vec<(Vni, Route)> {
        let mut own: Vec<(Vni, Route)> = self
            .ask_all(|worker, _| worker.shard.tables().own())
            .into_iter()
            .flatten()
            .collect();
        own.sort_unstable();
        own
    }

    fn watch(&self, vni: Option<Vni>, current: bool) -> Result<Watch> {
        let (tap, spout) = tap(vni, self.workers.len(), &self.watchers)?;
        for worker in 0..self.workers.len() {
            let tap = tap.clone();
            self.ask(worker, move |worker, _| worker.tap(tap, current));
        }
        Ok(Watch {
            source: Box::new(spout),
        })
    }

    fn execute(&self, command: Command) -> Result<Done> {
        match command {
            Command::Announce(vni, route) => self.announce(Action::Add, vni, route),
            Command::Withdraw(vni, route) => self.announce(Action::Remove, vni, route),
            Command::Subscribe(_) | Command::Unsubscribe(_) => Err(Error::Unsupported(
                "a server has the routes of every VNI; only clients subscribe",
            )),
            Command::ResetPeer(name) => self.end(&name, Ending::Reset),
            Command::DrainPeer(name, time) => self.end(&name, Ending::Drain(time)),
        }
    }
}

fn peer_status(
    view: &SessionView,
    address: SocketAddr,
    routes: usize,
    flaps: Option<(u32, CloseReason)>,
    now: Instant,
) -> PeerStatus {
    let since = now.saturating_duration_since(view.since);
    PeerStatus {
        id: view.id.0.into(),
        name: address.to_string(),
        address: Some(address),
        kind: match view.is_legacy {
            None => PeerKind::Unknown,
            Some(false) => PeerKind::RustBond,
            Some(true) => PeerKind::Legacy,
        },
        state: match (view.is_draining, view.is_established, view.is_legacy) {
            (true, ..) => PeerState::Draining,
            (_, true, _) => PeerState::Established,
            (_, _, None) => PeerState::AwaitHello,
            (_, _, Some(_)) => PeerState::AwaitKeepalive,
        },
        since,
        uptime: view.is_established.then_some(since),
        flaps: flaps.map_or(0, |(count, _)| count),
        last_error: flaps.map(|(_, reason)| reason.to_string()),
        keepalive_interval: view.keepalive_interval,
        silent: now.saturating_duration_since(view.last_received),
        routes,
        subscriptions: view.subscriptions,
        queued_bytes: view.queued_bytes,
        legacy_rate: view.legacy_rate,
        received: view.received,
        sent: view.sent,
        malformed: view.counters.malformed,
        refused: view.counters.refused,
        folds: view.counters.coalesced,
    }
}
