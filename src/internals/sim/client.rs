//! A door for the simulation: the client without its threads and sockets.
#![allow(missing_docs, reason = "not an interface for anybody else")]

use std::time::{Duration, Instant};

use crate::core::client::{
    ConsumerId, Core, CoreConfig, Event, EventDetail, Limits, RouteFilter, ServerId,
};
use crate::core::pace::Framing;
use crate::core::session::{CloseReason, Role};
use crate::core::types::{Route, Vni};

use super::{pacing, session};

/// What a client is made with.
#[derive(Clone, Copy, Debug)]
pub struct ClientSetup {
    pub servers: usize,
    /// Seconds.
    pub keepalive_interval: u32,
    /// Whether it offers the extensions.
    pub is_modern: bool,
    pub is_paced: bool,
    pub stale_time: Duration,
    pub settle_time: Duration,
    pub retry_min: Duration,
    pub retry_max: Duration,
    pub seed: u64,
}

#[derive(Debug)]
pub struct SimClient {
    core: Core,
    /// A consumer that is never late.
    witness: ConsumerId,
}

impl SimClient {
    pub fn new(setup: ClientSetup, now: Instant) -> Self {
        let config = CoreConfig {
            session: session(Role::Client, setup.keepalive_interval, setup.is_modern, 1),
            pacing: pacing(setup.is_paced),
            stale_time: setup.stale_time,
            settle_time: setup.settle_time,
            retry_min: setup.retry_min,
            retry_max: setup.retry_max,
            limits: Limits {
                routes: usize::MAX,
                vnis: usize::MAX,
            },
            seed: setup.seed,
        };
        let mut core = Core::new(config, setup.servers, now);
        let witness = core.attach(EventDetail::Routes);
        Self {
            core,
            witness: witness.expect("it is the second consumer"),
        }
    }

    /// What counts of what servers say; to be called before anything is received.
    pub fn set_policy(&mut self, filter: RouteFilter, imports: &[(Vni, Vni)]) {
        self.core.set_policy(filter, imports, EventDetail::Routes);
    }

    pub fn subscribe(&mut self, vni: Vni) -> bool {
        self.core.subscribe(vni)
    }

    pub fn unsubscribe(&mut self, vni: Vni) -> bool {
        self.core.unsubscribe(vni)
    }

    pub fn announce(&mut self, vni: Vni, route: Route) -> bool {
        self.core.announce(vni, route)
    }

    pub fn withdraw(&mut self, vni: Vni, route: Route) -> bool {
        self.core.withdraw(vni, route)
    }

    pub fn poll_dial(&mut self, now: Instant) -> Option<usize> {
        self.core.poll_dial(now).map(|server| server.0)
    }

    pub fn is_dialling(&self, server: usize) -> bool {
        self.core.is_dialling(ServerId(server))
    }

    pub fn is_up(&self, server: usize) -> bool {
        self.core.is_up(ServerId(server))
    }

    pub fn dialled(&mut self, server: usize, now: Instant) {
        self.core.dialled(ServerId(server), now);
    }

    pub fn lost(&mut self, server: usize, reason: CloseReason, now: Instant) {
        self.core.lost(ServerId(server), reason, now);
    }

    pub fn receive(&mut self, server: usize, bytes: &[u8], now: Instant) {
        self.core.receive(ServerId(server), bytes, now);
    }

    pub fn handle_timeouts(&mut self, now: Instant) {
        self.core.handle_timeouts(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    /// What is to be sent to a server, and whether it is a chunk.
    pub fn outgoing(&self, server: usize) -> (&[u8], bool) {
        let server = ServerId(server);
        let is_chunk = self.core.framing(server) == Framing::Chunk;
        (self.core.outgoing(server), is_chunk)
    }

    /// Bytes encoded for a server and not sent.
    pub fn queued_bytes(&self, server: usize) -> usize {
        self.core.queued_bytes(ServerId(server))
    }

    pub fn advance(&mut self, server: usize, count: usize, now: Instant) {
        self.core.advance(ServerId(server), count, now);
    }

    pub fn has_events(&self) -> bool {
        self.core.has_events(ConsumerId::FIRST)
    }

    pub fn take_events(&mut self, limit: usize) -> Vec<Event> {
        self.core.take_events(ConsumerId::FIRST, limit)
    }

    /// All that happened since the last call.
    pub fn take_witnessed(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.core.has_events(self.witness) {
            events.append(&mut self.core.take_events(self.witness, usize::MAX));
        }
        events
    }

    /// SUBSCRIBEs encoded for a server on its connection.
    pub fn subscribes(&self, server: usize) -> u64 {
        self.core.subscribes(ServerId(server))
    }

    /// The routes of a VNI in order, and whether each is suppressed.
    pub fn received(&self, vni: Vni) -> Vec<(Route, bool)> {
        self.core.received(vni)
    }

    /// As [`Self::received`], with how many servers have each route.
    pub fn received_from(&self, vni: Vni) -> Vec<(Route, usize, bool)> {
        let mut routes = Vec::new();
        let rest = self.core.walk(None, Some(vni), usize::MAX, |met| {
            routes.push((met.route, met.announcers.ids().len(), met.is_suppressed));
        });
        assert!(rest.is_none(), "a walk without a limit ended early");
        routes.sort_unstable();
        routes
    }

    /// How many routes of a VNI are held, suppressed ones among them.
    pub fn routes_in(&self, vni: Vni) -> usize {
        self.core.routes_in(vni)
    }

    /// All that is not suppressed, in order.
    pub fn visible(&self) -> Vec<(Vni, Route)> {
        self.core.received_everywhere()
    }

    /// How many servers have a route; `None` if it is not held at all.
    pub fn servers_of(&self, vni: Vni, route: &Route) -> Option<usize> {
        let servers = self
            .core
            .servers_of(vni, &route.destination, &route.next_hop);
        servers.map(|servers| servers.len())
    }

    pub fn is_synced(&self, vni: Vni) -> Option<bool> {
        self.core.is_synced(vni)
    }

    pub fn is_settled(&self, vni: Vni) -> bool {
        self.core.is_settled(vni)
    }

    /// Things remembered beyond what is wanted and received.
    pub fn held(&self) -> usize {
        self.core.held()
    }
}
