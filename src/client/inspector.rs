//! A running client, to look at and to change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::engine::Engine;
use super::handle::MetalBondClient;
use crate::core::client::{Changed, Event, EventDetail, ServerId};
use crate::core::types::{Action, Route, Vni};
use crate::error::{Error, Result};
use crate::inspect::{
    Command, Done, Inspect, PeerState, PeerStatus, Side, Snapshot, Status, VniStatus, Watch,
    WatchEvent, WatchSource,
};
#[cfg(all(feature = "netlink", target_os = "linux"))]
use crate::kernel::KernelWriter;

/// Buckets of a table that are looked through at once; about 0.5 ms.
const BUCKETS_AT_ONCE: usize = 8192;

/// Events handed out at once, about.
const BATCH: usize = 4096;

/// A client's handle, as others may see it.
pub(super) struct Inspector {
    client: MetalBondClient,
    #[cfg(all(feature = "netlink", target_os = "linux"))]
    pub(super) kernel: Option<KernelWriter>,
}

impl Inspector {
    pub(super) fn new(client: MetalBondClient) -> Self {
        Self {
            client,
            #[cfg(all(feature = "netlink", target_os = "linux"))]
            kernel: None,
        }
    }

    /// The servers' names; those that were removed meanwhile are not among them.
    fn names(&self) -> BTreeMap<ServerId, String> {
        let names = |engine: &mut Engine, now| {
            let peers = engine.peers(now).into_iter();
            let id = |peer: &PeerStatus| ServerId(usize::try_from(peer.id).unwrap_or(usize::MAX));
            peers.map(|peer| (id(&peer), peer.name)).collect()
        };
        self.client.call(names).unwrap_or_default()
    }

    /// Leaves the servers that a name stands for.
    fn leave(&self, name: String, time: Option<Duration>) -> Result<Done> {
        self.client.call(move |engine, now| {
            let servers = engine.named(&name);
            for server in &servers {
                engine.leave(*server, time, now);
            }
            match servers.len() {
                0 => Err(Error::PeerNotFound(name)),
                count => Ok(Done::Changed(count)),
            }
        })?
    }
}

impl Inspect for Inspector {
    fn status(&self) -> Status {
        let status = self.client.call(|engine, now| {
            let core = &engine.core;
            let peers = core.peers(now);
            let is_established = |peer: &PeerStatus| peer.state == PeerState::Established;
            let (updates_received, updates_sent) = core.updates();
            Status {
                side: Side::Client,
                started: engine.started.0,
                uptime: now.saturating_duration_since(engine.started.1),
                listening: None,
                not_ready: core.not_ready(),
                peers: peers.len(),
                established: peers.iter().filter(|(_, it)| is_established(it)).count(),
                vnis: core.vnis().len(),
                routes: core.route_count(),
                announced: core.announced().len(),
                updates_received,
                updates_sent,
                server: None,
                kernel: None,
            }
        });
        let status = status.unwrap_or_else(|_| Status {
            side: Side::Client,
            started: SystemTime::UNIX_EPOCH,
            uptime: Duration::ZERO,
            listening: None,
            not_ready: Some("stopped".into()),
            peers: 0,
            established: 0,
            vnis: 0,
            routes: 0,
            announced: 0,
            updates_received: 0,
            updates_sent: 0,
            server: None,
            kernel: None,
        });
        #[cfg(all(feature = "netlink", target_os = "linux"))]
        let status = Status {
            kernel: self.kernel.as_ref().map(KernelWriter::stats),
            ..status
        };
        status
    }

    fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.client.call(|engine, now| engine.peers(now));
        peers.unwrap_or_default()
    }

    fn vnis(&self) -> Vec<VniStatus> {
        self.client.ask(|core| core.vnis()).unwrap_or_default()
    }

    fn generation(&self) -> u64 {
        self.client.generation()
    }

    fn snapshot(&self, vni: Option<Vni>) -> Snapshot {
        let mut entries = Vec::new();
        let mut cursor = None;
        loop {
            let from = cursor.take();
            let step = self.client.ask(move |core| {
                let mut piece = Vec::new();
                let next = core.walk(from, vni, BUCKETS_AT_ONCE, |it| piece.push(it));
                (piece, next)
            });
            let Ok((piece, next)) = step else {
                break;
            };
            entries.extend(piece);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let names = self.names().into_iter();
        let number = |id: ServerId| u32::try_from(id.0).unwrap_or(u32::MAX);
        let names = names.map(|(id, name)| (number(id), name)).collect();
        Snapshot::new(entries, names)
    }

    fn announcements(&self) -> Vec<(Vni, Route)> {
        let mut announced = self.client.get_announced_routes();
        announced.sort_unstable();
        announced
    }

    fn watch(&self, vni: Option<Vni>, current: bool) -> Result<Watch> {
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
                wants_routes: current,
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
    events: Receiver<Event>,
    names: BTreeMap<ServerId, String>,
    vni: Option<Vni>,
    /// Routes are not passed on before [`Event::Current`], unless asked for.
    wants_routes: bool,
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
            | Event::Synced(_) => None,
        }
    }
}

impl WatchSource for Watcher {
    fn wait(&mut self, timeout: Duration) -> Result<Vec<WatchEvent>> {
        let until = Instant::now() + timeout;
        let mut happened = Vec::new();
        while happened.is_empty() {
            match self.events.recv_deadline(until) {
                Ok(event) => happened.extend(self.translate(event)),
                Err(RecvTimeoutError::Timeout) => return Ok(happened),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
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
