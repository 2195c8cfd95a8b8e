//! What an engine does and tells for other threads.

use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::{Engine, Goal, Waiting};
use crate::client::mail::{Command, Piece, Question, Summary, Waiter};
use crate::client::sink::{Sink, Way};
use crate::core::client::{Changed, ConsumerId, Event, EventDetail, RouteCursor, ServerId};
use crate::core::session::CloseReason;
use crate::core::status::sort_by_name;
use crate::core::types::Vni;
use crate::error::{Error, Result};
use crate::inspect::{ClientStats, PeerState, PeerStatus};
use crate::net::{Conn, Peer, PeerSelector};

/// Buckets of a table that are looked through at once; about 0.5 ms.
const BUCKETS_AT_ONCE: usize = 8192;

impl Engine {
    /// Does what a caller asks for.
    pub(super) fn execute(&mut self, command: Command, now: Instant) {
        let core = &mut self.core;
        match command {
            Command::Subscribe(vni, reply) => reply.send(self.subscribe(vni)),
            Command::Unsubscribe(vni, reply) => reply.send(core.unsubscribe(vni).into()),
            Command::Announce(vni, route, reply) => reply.send(core.announce(vni, route)),
            Command::Withdraw(vni, route, reply) => reply.send(core.withdraw(vni, route)),
            Command::AddServer(name, reply) => reply.send(self.add_server(name, now)),
            Command::RemoveServer(server, reply) => {
                reply.send(self.remove_server(server, now).into());
            }
            Command::Leave(name, time, reply) => reply.send(self.leave(&name, time, now)),
            Command::Reconfigure {
                core: config,
                user_timeout,
                reply,
            } => {
                core.reconfigure(config);
                self.config.user_timeout = user_timeout;
                reply.send(());
            }
            Command::Attach(detail, batches, reply) => reply.send(self.attach(detail, batches)),
            Command::Detach(consumer) => {
                self.sinks.retain(|sink| sink.consumer != consumer);
                core.detach(consumer);
            }
            Command::Flush(waiter) => {
                let flush = core.flush();
                self.wait(Goal::Flushed(flush), waiter);
            }
            Command::AwaitSynced(vni, waiter) => self.wait(Goal::Synced(vni), waiter),
        }
    }

    /// Subscribes to a VNI, if the limit allows that.
    pub(in crate::client) fn subscribe(&mut self, vni: Vni) -> Result<Changed> {
        match self.core.has_room_for(vni) {
            true => Ok(self.core.subscribe(vni).into()),
            false => Err(Error::TooManyVnis(self.core.subscribed().len())),
        }
    }

    /// Tells a caller what it asks.
    pub(super) fn answer(&self, question: Question, now: Instant) {
        let core = &self.core;
        match question {
            Question::Summary(reply) => reply.send(self.summary(now)),
            Question::Peers(reply) => reply.send(self.peers(now)),
            Question::Vnis(reply) => reply.send(core.vnis()),
            Question::Routes(vni, from, reply) => reply.send(self.routes(vni, from)),
            Question::Received(vni, reply) => reply.send(core.received(vni)),
            Question::ReceivedEverywhere(reply) => reply.send(core.received_everywhere()),
            Question::RouteCount(reply) => reply.send(core.route_count()),
            Question::ServersOf(vni, route, reply) => {
                reply.send(core.servers_of(vni, &route.destination, &route.next_hop));
            }
            Question::Announced(reply) => reply.send(core.announced()),
            Question::Announcement(vni, route, reply) => reply.send(core.announcement(vni, route)),
            Question::Subscribed(reply) => reply.send(core.subscribed()),
            Question::Synced(reply) => {
                let all = core.subscribed().into_iter();
                let synced = all.filter(|vni| core.is_synced(*vni) == Some(true));
                reply.send(synced.collect());
            }
            Question::IsSynced(vni, reply) => reply.send(core.is_synced(vni)),
            Question::IsSettled(vni, reply) => reply.send(core.is_settled(vni)),
        }
    }

    fn wait(&mut self, goal: Goal, waiter: Waiter) {
        self.waiting.push(Waiting {
            goal,
            reply: waiter.reply,
            is_waiting: waiter.is_waiting,
        });
    }

    fn attach(&mut self, detail: EventDetail, batches: Sender<Vec<Event>>) -> Result<ConsumerId> {
        let Some(consumer) = self.core.attach(detail) else {
            let text = "a client has 8 consumers of events at most";
            return Err(Error::InvalidConfig(text.into()));
        };
        let way = Way::Thread(batches);
        self.sinks.push(Sink { consumer, way });
        Ok(consumer)
    }

    /// Leaves the servers that a name stands for. Returns how many.
    fn leave(&mut self, name: &str, time: Option<Duration>, now: Instant) -> usize {
        let servers = self.named(name);
        for &server in &servers {
            if let Some(conn) = self.turn.get(server) {
                conn.finish();
            }
            match time {
                Some(time) => self.core.drain(server, time, now),
                None => self.core.lost(server, CloseReason::Reset, now),
            }
        }
        servers.len()
    }

    /// Returns the servers that a name stands for: as it was given, an address, or a number.
    fn named(&self, name: &str) -> Vec<ServerId> {
        let selector = PeerSelector::parse(name);
        let is_meant = |id: &ServerId| {
            let peer = self.turn.get(*id).map(Conn::peer);
            self.servers.get(id).is_some_and(|it| it.name == name)
                || id.to_string() == name
                || selector
                    .zip(peer)
                    .is_some_and(|(selector, peer)| selector.selects(peer))
        };
        self.servers.keys().copied().filter(is_meant).collect()
    }

    /// Returns the servers, by name.
    fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let mut peers = Vec::new();
        for (id, status) in self.core.peers(now) {
            if let Some(server) = self.servers.get(&id) {
                let conn = self.turn.get(id).or_else(|| server.dial.conn());
                let peer = conn.map(Conn::peer);
                peers.push(PeerStatus {
                    name: server.name.clone(),
                    address: peer.and_then(Peer::address),
                    transport: peer.map(Peer::transport),
                    identity: peer.and_then(Peer::identity),
                    ..status
                });
            }
        }
        sort_by_name(&mut peers);
        peers
    }

    fn summary(&self, now: Instant) -> Summary {
        let core = &self.core;
        let peers = core.peers(now);
        let is_established = |peer: &PeerStatus| peer.state == PeerState::Established;
        let (updates_received, updates_sent) = core.updates();
        let (refused_routes, missing_routes) = core.refused();
        Summary {
            started: self.started.0,
            uptime: now.saturating_duration_since(self.started.1),
            not_ready: core.not_ready(),
            peers: peers.len(),
            established: peers.iter().filter(|(_, it)| is_established(it)).count(),
            vnis: core.vnis().len(),
            routes: core.route_count(),
            announced: core.announced().len(),
            updates_received,
            updates_sent,
            stats: ClientStats {
                refused_routes,
                missing_routes,
                displaced_routes: core.displaced(),
            },
        }
    }

    fn routes(&self, vni: Option<Vni>, from: Option<RouteCursor>) -> Piece {
        let mut entries = Vec::new();
        let next = self
            .core
            .walk(from, vni, BUCKETS_AT_ONCE, |it| entries.push(it));
        Piece { entries, next }
    }
}
