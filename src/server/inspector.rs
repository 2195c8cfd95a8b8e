//! A running server, as operators see and change it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use super::flaps::Flaps;
use super::mail::{AcceptorMail, Ending, Peers, Piece, Request, Walk, WorkerMail};
use super::stats::WorkerStats;
use super::watch::{Scope, WatchReceiver, channel};
use crate::core::map::{Map, map};
use crate::core::reflector::{SessionView, Topology};
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{Notice, Update};
use crate::error::{Error, Result};
use crate::inspect::{
    Command, Done, Inspect, PeerKind, PeerState, PeerStatus, RouteEntry, ServerStats, Side,
    Snapshot, Status, VniStatus, Watch, WatchEvent, WatchFrom, WatchSource,
};
use crate::life::Life;
use crate::net::{Endpoint, Peer, PeerSelector, Postbox, Reply};

/// What the announcer of a server's own routes is called.
const SELF: &str = "self";

/// The ways to the threads of a server.
#[derive(Clone)]
pub(super) struct Inspector {
    /// Where the server listens.
    pub(super) endpoints: Arc<[Endpoint]>,
    pub(super) topology: Topology,
    pub(super) workers: Vec<Postbox<WorkerMail>>,
    pub(super) acceptor: Postbox<AcceptorMail>,
    pub(super) stats: Vec<Arc<WorkerStats>>,
    pub(super) refused: Arc<AtomicU64>,
    pub(super) flaps: Arc<Mutex<Flaps>>,
    pub(super) started: (SystemTime, Instant),
    pub(super) watchers: Arc<AtomicUsize>,
    /// Of the byte account; changed by the server alone.
    pub(super) memory_limit: Arc<AtomicUsize>,
    pub(super) life: Life,
}

impl Inspector {
    pub(super) fn stats(&self) -> ServerStats {
        let mut total = ServerStats {
            refused_sessions: self.refused.load(Ordering::Relaxed),
            ..ServerStats::default()
        };
        total.memory.limit = self.memory_limit.load(Ordering::Relaxed);
        for stats in &self.stats {
            stats.add_to(&mut total);
        }
        total
    }

    /// Tells all threads to end.
    pub(super) fn stop(&self) {
        self.acceptor.post(AcceptorMail::Stop, 1);
        for worker in &self.workers {
            worker.post(WorkerMail::Stop, 1);
        }
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

    /// Asks all workers at the same time. Without one of them there is no answer.
    fn ask_all<T>(&self, request: impl Fn(Reply<T>) -> Request) -> Result<Vec<T>> {
        let workers = 0..self.workers.len();
        let answers: Vec<Receiver<T>> = workers.map(|it| self.ask(it, &request)).collect();
        answers.iter().map(|it| self.answer(it)).collect()
    }

    fn answer<T>(&self, answer: &Receiver<T>) -> Result<T> {
        answer.recv().map_err(|_| self.life.error())
    }

    /// Collects the routes of one worker's tables, a piece at a time.
    fn walk(&self, worker: usize, vni: Option<Vni>, entries: &mut Vec<RouteEntry>) -> Result<()> {
        let mut walk = Walk::From(vni);
        loop {
            let answer = self.ask(worker, |reply| Request::Routes(walk, reply));
            let Piece {
                entries: piece,
                next,
            } = self.answer(&answer)?;
            entries.extend(piece);
            let Some(next) = next else {
                return Ok(());
            };
            walk = Walk::Next(next);
        }
    }

    fn announce(&self, action: Action, vni: Vni, route: Route) -> Result<Done> {
        let update = Update { action, vni, route };
        let owner = self.topology.owner(vni);
        let answer = self.ask(owner, |reply| Request::UpdateOwn(update, reply));
        match self.answer(&answer)? {
            true => Ok(Done::Changed(1)),
            false => Ok(Done::Unchanged),
        }
    }

    /// Ends the sessions that a name stands for: an address with a port, or all of an address.
    fn end(&self, name: &str, ending: Ending) -> Result<Done> {
        let not_found = || Error::PeerNotFound(name.into());
        let whose = PeerSelector::parse(name).ok_or_else(not_found)?;
        if let Ending::Drain(time) = ending {
            self.acceptor
                .post(AcceptorMail::Shun(whose.source(), time), 1);
        }
        let ended = self.ask_all(|reply| Request::End(whose, ending, reply))?;
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
        let ended = announced.as_ref().err().map(|error| match error {
            Error::Panicked(_) => error.to_string(),
            _ => "stopped".into(),
        });
        Status {
            side: Side::Server,
            started: self.started.0,
            uptime: self.started.1.elapsed(),
            listening: match ended {
                None => self.endpoints.to_vec(),
                Some(_) => Vec::new(),
            },
            not_ready: ended,
            peers: stats.sessions,
            established: stats.established,
            vnis: stats.vnis,
            routes: stats.routes,
            announced: announced.map_or(0, |it| it.iter().sum()),
            updates_received: stats.updates_received,
            updates_sent: stats.updates_sent,
            server: Some(stats),
            client: None,
            kernel: None,
        }
    }

    fn peers(&self) -> Result<Vec<PeerStatus>> {
        let answers: Vec<Peers> = self.ask_all(Request::Peers)?;
        let mut routes: Map<PeerId, usize> = map(0);
        for (peer, count) in answers.iter().flat_map(|it| &it.announced) {
            *routes.entry(*peer).or_insert(0) += count;
        }
        let flaps = self.flaps.lock();
        let mut peers = Vec::new();
        for Peers { at, sessions, .. } in answers {
            for (view, peer) in sessions {
                let flaps = flaps.of(peer.source(), at);
                let routes = routes.get(&view.id).copied().unwrap_or(0);
                peers.push(peer_status(&view, peer, routes, flaps, at));
            }
        }
        peers.sort_unstable_by(|one, other| {
            (one.address, &one.name).cmp(&(other.address, &other.name))
        });
        Ok(peers)
    }

    fn vnis(&self) -> Result<Vec<VniStatus>> {
        let mut vnis: Vec<VniStatus> = self.ask_all(Request::Vnis)?.concat();
        vnis.sort_unstable_by_key(|it| it.vni);
        Ok(vnis)
    }

    fn generation(&self) -> u64 {
        let changes = self.stats.iter();
        changes.map(|it| it.changes.load(Ordering::Relaxed)).sum()
    }

    fn snapshot(&self, vni: Option<Vni>) -> Result<Snapshot> {
        let mut entries = Vec::new();
        match vni {
            Some(it) => self.walk(self.topology.owner(it), vni, &mut entries)?,
            None => {
                (0..self.workers.len()).try_for_each(|it| self.walk(it, vni, &mut entries))?;
            }
        }
        let names = self.ask_all(Request::Names)?.into_iter().flatten();
        let names = names.map(|(id, peer)| (id.0, peer.to_string()));
        let names = names.chain([(PeerId::SELF.0, SELF.into())]).collect();
        Ok(Snapshot::new(entries, names))
    }

    fn announcements(&self) -> Result<Vec<(Vni, Route)>> {
        let mut own: Vec<(Vni, Route)> = self.ask_all(Request::Own)?.concat();
        own.sort_unstable();
        Ok(own)
    }

    fn watch(&self, vni: Option<Vni>, from: WatchFrom) -> Result<Watch> {
        let scope = Scope {
            vni,
            wants_current: from == WatchFrom::Current,
        };
        let (sender, mut receiver) = channel(scope, self.workers.len(), &self.watchers)?;
        let workers = self.workers.clone();
        receiver.on_room(move || workers.iter().for_each(Postbox::wake));
        let watcher = Watcher {
            receiver,
            inspector: self.clone(),
        };
        // A change that the caller makes after this call must not be missed.
        self.ask_all(|reply| Request::Watch(sender.clone(), reply))?;
        Ok(Watch {
            source: Box::new(watcher),
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

/// A watch. Its end is told to the workers, which would notice it at the next change only.
struct Watcher {
    receiver: WatchReceiver,
    inspector: Inspector,
}

impl WatchSource for Watcher {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        match self.receiver.wait(timeout) {
            Err(Error::Closed) => Err(self.inspector.life.error()),
            other => other,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.receiver.end();
        for worker in 0..self.inspector.workers.len() {
            self.inspector.send(worker, Request::EndWatches);
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
        address: peer.address(),
        transport: Some(peer.transport()),
        identity: peer.identity(),
        notices: view.counters.notices,
        last_notice: view.last_notice.as_deref().map(Notice::to_string),
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
