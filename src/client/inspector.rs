//! A running client, as operators see and change it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::RecvTimeoutError;

use super::events::Events;
use super::handle::MetalBondClient;
use super::mail::{Command as EngineCommand, Piece, Question, Summary};
use crate::core::client::{Changed, Event, EventDetail, ServerId};
use crate::core::time::after;
use crate::core::types::{Action, Route, Vni};
use crate::error::{Error, Result};
use crate::inspect::{
    ClientStats, Command, Done, Inspect, KernelStatus, PeerStatus, Side, Snapshot, Status,
    VniStatus, Watch, WatchEvent, WatchFrom, WatchSource,
};
use crate::life::Life;

/// Events handed out at once, about.
const BATCH: usize = 4096;

/// Says what the writer of a client's routes has in the kernel.
type KernelGauge = Box<dyn Fn() -> KernelStatus + Send + Sync>;

/// A client's handle, as operators see it.
struct Inspector {
    client: MetalBondClient,
    kernel: Option<KernelGauge>,
}

impl MetalBondClient {
    /// What can be seen and changed of the client while it runs.
    #[must_use]
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        self.inspector_of(None)
    }

    /// The same, with what a writer of its routes has in the kernel.
    pub(crate) fn inspector_of(&self, kernel: Option<KernelGauge>) -> Arc<dyn Inspect> {
        Arc::new(Inspector {
            client: self.clone(),
            kernel,
        })
    }
}

impl Inspector {
    /// Returns the servers' names, without those of removed servers.
    fn names(&self) -> BTreeMap<ServerId, String> {
        self.client.servers()
    }

    /// Leaves the servers that a name stands for.
    fn leave(&self, name: String, time: Option<Duration>) -> Result<Done> {
        let meant = name.clone();
        let command = |reply| EngineCommand::Leave(meant, time, reply);
        match self.client.running.command(command)? {
            0 => Err(Error::PeerNotFound(name)),
            count => Ok(Done::Changed(count)),
        }
    }
}

impl Summary {
    /// That of a client whose thread has ended, and why.
    fn ended(why: &Error) -> Self {
        Self {
            started: SystemTime::UNIX_EPOCH,
            uptime: Duration::ZERO,
            not_ready: Some(match why {
                Error::Panicked(_) => why.to_string(),
                _ => "stopped".into(),
            }),
            peers: 0,
            established: 0,
            vnis: 0,
            routes: 0,
            announced: 0,
            updates_received: 0,
            updates_sent: 0,
            stats: ClientStats::default(),
        }
    }
}

impl Inspect for Inspector {
    fn status(&self) -> Status {
        let summary = self.client.running.ask(Question::Summary);
        let summary = summary.unwrap_or_else(|error| Summary::ended(&error));
        let kernel = self.kernel.as_ref().map(|kernel| kernel());
        let of_kernel = || kernel.as_ref().and_then(KernelStatus::not_ready);
        let not_ready = summary.not_ready.or_else(of_kernel);
        Status {
            side: Side::Client,
            started: summary.started,
            uptime: summary.uptime,
            listening: Vec::new(),
            not_ready,
            peers: summary.peers,
            established: summary.established,
            vnis: summary.vnis,
            routes: summary.routes,
            announced: summary.announced,
            updates_received: summary.updates_received,
            updates_sent: summary.updates_sent,
            server: None,
            client: Some(summary.stats),
            kernel,
        }
    }

    fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.client.running.ask(Question::Peers)
    }

    fn vnis(&self) -> Result<Vec<VniStatus>> {
        self.client.running.ask(Question::Vnis)
    }

    fn generation(&self) -> u64 {
        self.client.running.published.generation()
    }

    fn snapshot(&self, vni: Option<Vni>) -> Result<Snapshot> {
        let mut entries = Vec::new();
        let mut cursor = None;
        loop {
            let from = cursor.take();
            let question = |reply| Question::Routes(vni, from, reply);
            let Piece {
                entries: piece,
                next,
            } = self.client.running.ask(question)?;
            entries.extend(piece);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let names = self.names().into_iter();
        let number = |id: ServerId| u32::try_from(id.0).unwrap_or(u32::MAX);
        let names = names.map(|(id, name)| (number(id), name)).collect();
        Ok(Snapshot::new(entries, names))
    }

    fn announcements(&self) -> Result<Vec<(Vni, Route)>> {
        let mut announced = self.client.get_announced_routes()?;
        announced.sort_unstable();
        Ok(announced)
    }

    fn watch(&self, vni: Option<Vni>, from: WatchFrom) -> Result<Watch> {
        let names = self.names();
        let events = match self.client.watch(EventDetail::Routes) {
            Err(Error::InvalidConfig(_)) => return Err(Error::Busy),
            other => other?,
        };
        Ok(Watch {
            source: Box::new(Watcher {
                events,
                names,
                vni,
                wants_routes: from == WatchFrom::Current,
                life: self.client.life(),
            }),
        })
    }

    fn execute(&self, command: Command) -> Result<Done> {
        let client = &self.client;
        match command {
            Command::Announce(vni, route) => {
                match client.announce(vni, route.destination, route.next_hop) {
                    Err(Error::RouteAlreadyAnnounced) => Ok(Done::Unchanged),
                    other => other.map(|()| Done::Changed(1)),
                }
            }
            Command::Withdraw(vni, route) => {
                match client.withdraw(vni, route.destination, route.next_hop) {
                    Err(Error::RouteNotFound) => Ok(Done::Unchanged),
                    other => other.map(|()| Done::Changed(1)),
                }
            }
            Command::Subscribe(vni) => client.subscribe(vni).map(done),
            Command::Unsubscribe(vni) => client.unsubscribe(vni).map(done),
            Command::ResetPeer(name) => self.leave(name, None),
            Command::DrainPeer(name, time) => self.leave(name, Some(time)),
        }
    }
}

fn done(changed: Changed) -> Done {
    match changed {
        Changed::Yes => Done::Changed(1),
        Changed::No => Done::Unchanged,
    }
}

/// A consumer of a client's events that watches.
struct Watcher {
    events: Events,
    names: BTreeMap<ServerId, String>,
    vni: Option<Vni>,
    /// Routes are not passed on before [`Event::Current`], unless asked for.
    wants_routes: bool,
    life: Life,
}

impl Watcher {
    fn translate(&mut self, event: Event) -> Option<WatchEvent> {
        let is_watched = |vni: Vni| self.wants_routes && self.vni.is_none_or(|it| it == vni);
        let name = |id: ServerId| {
            let name = self.names.get(&id).cloned();
            name.unwrap_or_else(|| id.to_string())
        };
        match event {
            Event::RouteAdded(vni, route) if is_watched(vni) => {
                Some(WatchEvent::Route(vni, Action::Add, route))
            }
            Event::RouteRemoved(vni, route) if is_watched(vni) => {
                Some(WatchEvent::Route(vni, Action::Remove, route))
            }
            Event::Current => {
                self.wants_routes = true;
                Some(WatchEvent::Current)
            }
            Event::ServerUp(id) => Some(WatchEvent::PeerUp(name(id))),
            Event::ServerDown(id, reason) => {
                Some(WatchEvent::PeerDown(name(id), reason.to_string()))
            }
            Event::RouteAdded(..)
            | Event::RouteRemoved(..)
            | Event::NextHopsChanged(..)
            | Event::Synced(_)
            | Event::Settled(_)
            | Event::Refused(..) => None,
        }
    }
}

impl WatchSource for Watcher {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        let until = after(Instant::now(), timeout);
        let mut happened = Vec::new();
        while happened.is_empty() {
            match self.events.recv_deadline(until) {
                Ok(event) => happened.extend(self.translate(event)),
                Err(RecvTimeoutError::Timeout) => return Ok(happened),
                Err(RecvTimeoutError::Disconnected) => return Err(self.life.error()),
            }
        }
        while happened.len() < BATCH
            && let Ok(event) = self.events.try_recv()
        {
            happened.extend(self.translate(event));
        }
        Ok(happened)
    }
}
