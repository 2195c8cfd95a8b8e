//! The client without its thread: servers, wishes and the view, driven by bytes,
//! instants and commands.
//!
//! The caller dials what `poll_dial` names and tells how that went (`dialled`,
//! `lost`), feeds `receive` and `handle_timeouts`, sends what `outgoing` has, and
//! drains `take_events`.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::desired::Desired;
use super::events::{Change, Event, EventQueue};
use super::link::{Link, Wants};
use super::view::{ServerBit, View};
use super::{ConnectionState, ServerId};
use crate::error::{Error, Result};
use crate::pace::{Framing, Pacing};
use crate::session::{CloseReason, Event as SessionEvent, SessionConfig};
use crate::types::{Action, Destination, NextHop, Route, Vni};

/// How long a connection attempt may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client core is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreConfig {
    pub(super) session: SessionConfig,
    pub(super) pacing: Pacing,
    /// How long routes stay after the last server is lost.
    pub(super) hold: Duration,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    /// Secret of this process, against chosen collisions, and for jitter.
    pub(super) seed: u64,
}

#[derive(Debug)]
struct Server {
    phase: Phase,
    backoff: Backoff,
    last_loss: Option<CloseReason>,
    established_at: Option<Instant>,
}

/// Where the connection to a server stands.
#[derive(Debug)]
enum Phase {
    /// To be dialled then.
    Waiting { until: Instant, is_retry: bool },
    /// Being dialled.
    Dialling { until: Instant },
    /// Connected.
    Up(Box<Link>),
}

/// The client.
#[derive(Debug)]
pub(super) struct Core {
    config: CoreConfig,
    servers: Vec<Server>,
    subscriptions: Desired<Vni>,
    announcements: Desired<(Vni, Route)>,
    view: View,
    changes: Vec<Change>,
    events: EventQueue,
    /// VNIs of which some server's table has been complete since the subscription.
    synced: BTreeSet<Vni>,
    /// When the routes of lost servers go, while no server is established.
    hold_until: Option<Instant>,
    malformed: u64,
}

impl Core {
    pub(super) fn new(config: CoreConfig, servers: usize, now: Instant) -> Self {
        let server = |number: usize| Server {
            phase: Phase::Waiting {
                until: now,
                is_retry: false,
            },
            backoff: Backoff::new(
                config.retry_min,
                config.retry_max,
                config.seed.wrapping_add(number as u64),
            ),
            last_loss: None,
            established_at: None,
        };
        Self {
            config,
            servers: (0..servers).map(server).collect(),
            subscriptions: Desired::new(),
            announcements: Desired::new(),
            view: View::new(config.seed),
            changes: Vec::new(),
            events: EventQueue::new(config.seed),
            synced: BTreeSet::new(),
            hold_until: None,
            malformed: 0,
        }
    }

    /// Wants the routes of a VNI from every server; `false` if it did.
    pub(super) fn subscribe(&mut self, vni: Vni) -> bool {
        let is_new = self.subscriptions.set(vni, true);
        if is_new {
            self.each_link(|link, wants| link.queue_subscription(vni, wants));
        }
        is_new
    }

    /// Does not want them any more; `false` if it did not.
    pub(super) fn unsubscribe(&mut self, vni: Vni) -> bool {
        if !self.subscriptions.set(vni, false) {
            return false;
        }
        self.synced.remove(&vni);
        self.events.cancel(Event::Synced(vni));
        self.view.drop_vni(vni, &mut self.changes);
        for server in &mut self.servers {
            if let Phase::Up(link) = &mut server.phase {
                link.ignore(vni);
            }
        }
        self.each_link(|link, wants| link.queue_subscription(vni, wants));
        self.settle_changes();
        true
    }

    /// Wants every server to know a route of this client's.
    pub(super) fn announce(&mut self, vni: Vni, route: Route) -> Result<()> {
        if !self.announcements.set((vni, route), true) {
            return Err(Error::RouteAlreadyAnnounced);
        }
        self.announcement_changed(vni, Action::Add, route);
        Ok(())
    }

    /// Does not want them to know it any more.
    pub(super) fn withdraw(&mut self, vni: Vni, route: Route) -> Result<()> {
        if !self.announcements.set((vni, route), false) {
            return Err(Error::RouteNotFound);
        }
        let is_legacy =
            |server: &Server| matches!(&server.phase, Phase::Up(link) if link.is_legacy());
        let servers = self.servers.iter().enumerate();
        let legacy = servers.filter(|(_, server)| is_legacy(server));
        let legacy = legacy.map(|(number, _)| ServerBit::new(number));
        self.view.drop_echo(legacy, (vni, route), &mut self.changes);
        self.announcement_changed(vni, Action::Remove, route);
        Ok(())
    }

    fn announcement_changed(&mut self, vni: Vni, action: Action, route: Route) {
        self.view.own((vni, action, route), &mut self.changes);
        self.each_link(|link, wants| link.queue_announcement((vni, route), wants));
        self.settle_changes();
    }

    /// The server that is due to be dialled.
    pub(super) fn poll_dial(&mut self, now: Instant) -> Option<ServerId> {
        let is_due =
            |server: &Server| matches!(server.phase, Phase::Waiting { until, .. } if until <= now);
        let number = self.servers.iter().position(is_due)?;
        self.servers[number].phase = Phase::Dialling {
            until: now + DIAL_TIMEOUT,
        };
        Some(ServerId(number))
    }

    /// A connection to a server was made.
    pub(super) fn dialled(&mut self, server: ServerId, now: Instant) {
        let (session, pacing) = (self.config.session, self.config.pacing);
        let link = Link::new(ServerBit::new(server.0), session, pacing, now);
        self.servers[server.0].phase = Phase::Up(Box::new(link));
        self.pump(server);
    }

    /// An attempt failed, or a connection is gone.
    pub(super) fn lost(&mut self, server: ServerId, reason: CloseReason, now: Instant) {
        let entry = &mut self.servers[server.0];
        if let Phase::Up(link) = &mut entry.phase {
            link.session.close(reason);
            self.settle(server, now);
            return;
        }
        entry.last_loss = Some(reason);
        let until = now + entry.backoff.next();
        entry.phase = Phase::Waiting {
            until,
            is_retry: true,
        };
    }

    /// Takes bytes that came from a server.
    pub(super) fn receive(&mut self, server: ServerId, mut bytes: &[u8], now: Instant) {
        loop {
            let Phase::Up(link) = &mut self.servers[server.0].phase else {
                return;
            };
            let Some(event) = link.session.next_event(now, &mut bytes) else {
                break;
            };
            let bit = ServerBit::new(server.0);
            let mut wants = Wants {
                subscriptions: &mut self.subscriptions,
                announcements: &mut self.announcements,
            };
            match event {
                SessionEvent::Update(update) => {
                    let key = (update.vni, update.route);
                    if link.hears(update.action, &key, &mut wants) {
                        let change = (update.vni, update.action, update.route);
                        self.view.update(bit, change, &mut self.changes);
                    }
                }
                SessionEvent::Established => {
                    link.queue_all(&mut wants);
                    self.servers[server.0].established_at = Some(now);
                    self.hold_until = None;
                    self.settle_changes();
                    self.events.push(Event::ServerUp(server));
                }
                SessionEvent::EndOfRib(vni) => {
                    if link.end_of_rib(vni) {
                        self.complete(vni);
                    }
                }
                SessionEvent::KeepaliveReply => {
                    for vni in link.keepalive_answered(&mut wants) {
                        self.complete(vni);
                    }
                }
                SessionEvent::Dropped(_) => self.malformed += 1,
                // Only servers hear these.
                SessionEvent::Subscribe(_) | SessionEvent::Unsubscribe(_) => {}
            }
        }
        self.settle(server, now);
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeouts(&mut self, now: Instant) {
        for number in 0..self.servers.len() {
            let server = ServerId(number);
            match &mut self.servers[number].phase {
                Phase::Dialling { until } if *until <= now => {
                    self.lost(server, CloseReason::Io(std::io::ErrorKind::TimedOut), now);
                }
                Phase::Up(link) if link.poll_timeout().is_some_and(|due| due <= now) => {
                    link.handle_timeout(now);
                    self.settle(server, now);
                }
                Phase::Waiting { .. } | Phase::Dialling { .. } | Phase::Up(_) => {}
            }
        }
        if self.hold_until.is_some_and(|until| until <= now) {
            self.hold_until = None;
            for vni in self.view.vnis() {
                self.view.sweep(vni, &mut self.changes);
            }
            self.settle_changes();
        }
    }

    /// When [`Self::handle_timeouts`] or [`Self::poll_dial`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let servers = self
            .servers
            .iter()
            .filter_map(|server| match &server.phase {
                Phase::Waiting { until, .. } | Phase::Dialling { until } => Some(*until),
                Phase::Up(link) => link.poll_timeout(),
            });
        servers.chain(self.hold_until).min()
    }

    /// Bytes to send to a server.
    pub(super) fn outgoing(&self, server: ServerId) -> &[u8] {
        match &self.servers[server.0].phase {
            Phase::Up(link) => link.outgoing(),
            Phase::Waiting { .. } | Phase::Dialling { .. } => &[],
        }
    }

    /// How they are to be handed to the kernel.
    pub(super) fn framing(&self, server: ServerId) -> Framing {
        match &self.servers[server.0].phase {
            Phase::Up(link) => link.framing(),
            Phase::Waiting { .. } | Phase::Dialling { .. } => Framing::Stream,
        }
    }

    /// Takes note that the first `count` of them were sent at `now`.
    pub(super) fn advance(&mut self, server: ServerId, count: usize, now: Instant) {
        if let Phase::Up(link) = &mut self.servers[server.0].phase {
            link.advance(count, now);
            self.pump(server);
        }
    }

    /// Whether a server has a connection, so that a socket belongs to it.
    pub(super) fn is_up(&self, server: ServerId) -> bool {
        matches!(self.servers[server.0].phase, Phase::Up(_))
    }

    /// Whether the server is being dialled.
    pub(super) fn is_dialling(&self, server: ServerId) -> bool {
        matches!(self.servers[server.0].phase, Phase::Dialling { .. })
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next events, at most `limit` of them; those about routes are coalesced.
    pub(super) fn take_events(&mut self, limit: usize) -> Vec<Event> {
        self.events.take(limit)
    }

    /// Why the last session with a server ended, or the last attempt failed.
    pub(super) fn last_loss(&self, server: ServerId) -> Option<CloseReason> {
        self.servers[server.0].last_loss
    }

    /// The state of every server's connection.
    pub(super) fn states(&self) -> Vec<ConnectionState> {
        let state = |server: &Server| match &server.phase {
            Phase::Waiting { is_retry: true, .. } => ConnectionState::Retry,
            Phase::Waiting { .. } | Phase::Dialling { .. } => ConnectionState::Connecting,
            Phase::Up(link) if link.session.is_established() => ConnectionState::Established,
            Phase::Up(link) if link.session.is_hello_received() => ConnectionState::HelloReceived,
            Phase::Up(_) => ConnectionState::HelloSent,
        };
        self.servers.iter().map(state).collect()
    }

    /// The routes of a VNI, with whether each is suppressed, in order.
    pub(super) fn received(&self, vni: Vni) -> Vec<(Route, bool)> {
        let mut routes: Vec<_> = self.view.routes(vni).collect();
        routes.sort_unstable();
        routes
    }

    /// All routes that are not suppressed, in order.
    pub(super) fn received_everywhere(&self) -> Vec<(Vni, Route)> {
        let of = |vni| {
            let routes = self.received(vni).into_iter();
            routes.filter_map(move |(route, suppressed)| (!suppressed).then_some((vni, route)))
        };
        self.view.vnis().into_iter().flat_map(of).collect()
    }

    pub(super) fn announced(&self) -> Vec<(Vni, Route)> {
        self.announcements.iter().collect()
    }

    pub(super) fn subscribed(&self) -> Vec<Vni> {
        self.subscriptions.iter().collect()
    }

    pub(super) fn route_count(&self) -> usize {
        self.view.len()
    }

    pub(super) fn servers_of(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<Vec<ServerId>> {
        let servers = self.view.servers_of(vni, destination, next_hop)?;
        Some(servers.into_iter().map(ServerId).collect())
    }

    /// Entries in the queues of all servers.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        let of = |server: &Server| match &server.phase {
            Phase::Up(link) => link.queued(),
            Phase::Waiting { .. } | Phase::Dialling { .. } => 0,
        };
        self.servers.iter().map(of).sum()
    }

    /// Things remembered beyond what is wanted and received.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let wanted = self.subscribed().len() + self.announced().len();
        let desired = self.subscriptions.len() + self.announcements.len();
        desired - wanted + self.view.idle_vnis() + self.queued()
    }

    /// The table of a VNI is complete at some server.
    fn complete(&mut self, vni: Vni) {
        self.view.sweep(vni, &mut self.changes);
        self.settle_changes();
        if self.subscriptions.contains(&vni) && self.synced.insert(vni) {
            self.events.push(Event::Synced(vni));
        }
    }

    /// After anything that touched a session: its end, or what it must be told.
    fn settle(&mut self, server: ServerId, now: Instant) {
        self.settle_changes();
        let Phase::Up(link) = &self.servers[server.0].phase else {
            return;
        };
        match link.session.closed() {
            Some(reason) => self.end(server, reason, now),
            None => self.pump(server),
        }
    }

    fn end(&mut self, server: ServerId, reason: CloseReason, now: Instant) {
        let entry = &mut self.servers[server.0];
        entry.last_loss = Some(reason);
        if let Some(since) = entry.established_at.take() {
            if is_departure(reason) {
                entry.backoff.departed(now - since);
            } else {
                entry.backoff.failed();
            }
        }
        let until = now + entry.backoff.next();
        let waiting = Phase::Waiting {
            until,
            is_retry: true,
        };
        let Phase::Up(link) = std::mem::replace(&mut entry.phase, waiting) else {
            return;
        };
        let bit = ServerBit::new(server.0);
        self.subscriptions.forget(bit, |_| true);
        self.announcements.forget(bit, |_| true);
        for vni in link.vnis() {
            self.view.lose(bit, vni);
            let others = self.servers.iter().any(|other| match &other.phase {
                Phase::Up(link) => link.is_complete(vni),
                Phase::Waiting { .. } | Phase::Dialling { .. } => false,
            });
            if others {
                self.view.sweep(vni, &mut self.changes);
            }
        }
        if !self.states().contains(&ConnectionState::Established) && self.hold_until.is_none() {
            self.hold_until = Some(now + self.config.hold);
        }
        self.settle_changes();
        self.events.push(Event::ServerDown(server, reason));
    }

    fn pump(&mut self, server: ServerId) {
        if let Phase::Up(link) = &mut self.servers[server.0].phase {
            link.pump(&mut Wants {
                subscriptions: &mut self.subscriptions,
                announcements: &mut self.announcements,
            });
        }
    }

    /// Has every established server told of something.
    fn each_link(&mut self, queue: impl Fn(&mut Link, &mut Wants<'_>)) {
        for server in &mut self.servers {
            if let Phase::Up(link) = &mut server.phase
                && link.session.is_established()
            {
                let mut wants = Wants {
                    subscriptions: &mut self.subscriptions,
                    announcements: &mut self.announcements,
                };
                queue(link, &mut wants);
                link.pump(&mut wants);
            }
        }
    }

    fn settle_changes(&mut self) {
        for change in self.changes.drain(..) {
            self.events.push_change(change);
        }
    }
}

/// Whether the far end left or was restarted, so that it is likely to be back soon.
fn is_departure(reason: CloseReason) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    match reason {
        CloseReason::PeerClosed | CloseReason::Shutdown => true,
        CloseReason::Io(kind) => matches!(kind, BrokenPipe | ConnectionReset),
        _ => false,
    }
}
