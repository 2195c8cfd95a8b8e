//! A running server, as operators see and change it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::flaps::Flaps;
use super::mail::{AcceptorMail, Ending, Peers, Piece, Request, Walk, WorkerMail};
use super::stats::WorkerStats;
use super::watch::{Scope, channel};
use crate::core::map::{Map, map};
use crate::core::reflector::{SessionView, Topology};
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::Update;
use crate::error::{Error, Result};
use crate::inspect::{
    Command, Done, Inspect, PeerKind, PeerState, PeerStatus, RouteEntry, ServerStats, Side,
    Snapshot, Status, VniStatus, Watch,
};
use crate::net::{Peer, PeerSelector, Postbox, Reply};

/// What the announcer of a server's own routes is called.
const SELF: &str = "self";

/// The ways to the threads of a server.
#[derive(Clone)]
pub(super) struct Inspector {
    pub(super) address: SocketAddr,
    pub(super) topology: Topology,
    pub(super) workers: Vec<Postbox<WorkerMail>>,
    pub(super) acceptor: Postbox<AcceptorMail>,
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

    /// Asks a worker. The answer comes unless the server stops.
    fn ask<T>(&self, worker: usize, request: impl FnOnce(Reply<T>) -> Request) -> Receiver<T> {
        let (reply, answer) = Reply::channel();
        self.send(worker, request(reply));
        answer
    }

    fn send(&self, worker: usize, request: Request) {
        self.workers[worker].post(WorkerMail::Request(Box::new(request)), 1);
    }

    /// Asks all workers at the same time.
    fn ask_all<T>(&self, request: impl Fn(Reply<T>) -> Request) -> Vec<T> {
        let workers = 0..self.workers.len();
        let answers: Vec<Receiver<T>> = workers.map(|it| self.ask(it, &request)).collect();
        answers.iter().filter_map(|it| it.recv().ok()).collect()
    }

    /// Collects the routes of one worker's tables, a piece at a time.
    fn walk(&self, worker: usize, vni: Option<Vni>, entries: &mut Vec<RouteEntry>) {
        let mut walk = Walk::From(vni);
        loop {
            let answer = self.ask(worker, |reply| Request::Routes(walk, reply));
            let Ok(Piece {
                entries: piece,
                next,
            }) = answer.recv()
            else {
                return;
            };
            entries.extend(piece);
            let Some(next) = next else {
                return;
            };
            walk = Walk::Next(next);
        }
    }

    fn announce(&self, action: Action, vni: Vni, route: Route) -> Result<Done> {
        let update = Update { action, vni, route };
        let owner = self.topology.owner(vni);
        let answer = self.ask(owner, |reply| Request::UpdateOwn(update, reply));
        match answer.recv() {
            Ok(true) => Ok(Done::Changed(1)),
            Ok(false) => Ok(Done::Unchanged),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Ends the sessions that a name stands for: an address with a port, or all of an address.
    fn end(&self, name: &str, ending: Ending) -> Result<Done> {
        let not_found = || Error::PeerNotFound(name.into());
        let whose = PeerSelector::parse(name).ok_or_else(not_found)?;
        if let Ending::Drain(time) = ending {
            self.acceptor.post(AcceptorMail::Shun(whose.ip(), time), 1);
        }
        let ended = self.ask_all(|reply| Request::End(whose, ending, reply));
        match ended.iter().sum() {
            0 => Err(not_found()),
            count => Ok(Done::Changed(count)),
        }
    }
}

impl Inspect for Inspector {
    fn status(&self) -> Status {
        let stats = self.stats();
        let announced = self.ask_all(Request::OwnCount);
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
        let answers: Vec<Peers> = self.ask_all(Request::Peers);
        let mut routes: Map<PeerId, usize> = map(0);
        for (peer, count) in answers.iter().flat_map(|it| &it.announced) {
            *routes.entry(*peer).or_insert(0) += count;
        }
        let flaps = self.flaps.lock();
        let mut peers = Vec::new();
        for Peers { at, sessions, .. } in answers {
            for (view, peer) in sessions {
                let flaps = flaps.of(peer.ip(), at);
                let routes = routes.get(&view.id).copied().unwrap_or(0);
                peers.push(peer_status(&view, peer, routes, flaps, at));
            }
        }
        peers.sort_unstable_by_key(|peer| peer.address);
        peers
    }

    fn vnis(&self) -> Vec<VniStatus> {
        let mut vnis: Vec<VniStatus> = self.ask_all(Request::Vnis).concat();
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
        let names = self.ask_all(Request::Names).into_iter().flatten();
        let names = names.map(|(id, peer)| (id.0, peer.to_string()));
        let names = names.chain([(PeerId::SELF.0, SELF.into())]).collect();
        Snapshot::new(entries, names)
    }

    fn announcements(&self) -> Vec<(Vni, Route)> {
        let mut own: Vec<(Vni, Route)> = self.ask_all(Request::Own).concat();
        own.sort_unstable();
        own
    }

    fn watch(&self, vni: Option<Vni>, current: bool) -> Result<Watch> {
        let scope = Scope {
            vni,
            wants_current: current,
        };
        let (sender, mut receiver) = channel(scope, self.workers.len(), &self.watchers)?;
        let workers = self.workers.clone();
        receiver.on_room(move || workers.iter().for_each(Postbox::wake));
        for worker in 0..self.workers.len() {
            self.send(worker, Request::Watch(sender.clone()));
        }
        Ok(Watch {
            source: Box::new(receiver),
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
    peer: Peer,
    routes: usize,
    flaps: Option<(u32, CloseReason)>,
    now: Instant,
) -> PeerStatus {
    let since = now.saturating_duration_since(view.since);
    PeerStatus {
        id: view.id.0.into(),
        name: peer.to_string(),
        address: Some(peer.address()),
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
