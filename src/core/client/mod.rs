//! The client without its thread: servers, wishes and the view, driven by bytes,
//! instants and commands.
//!
//! The caller dials what `poll_dial` names and tells how that went (`dialled`,
//! `lost`), feeds `receive` and `handle_timeouts`, sends what `outgoing` has, and
//! drains `take_events`.

mod backoff;
mod completeness;
mod desired;
mod events;
mod link;
mod policy;
mod read;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use events::{Event, EventDetail};
pub use policy::{RouteFilter, RouteMatch};
pub use status::{AnnouncementState, Changed, ConnectionState, ServerId};

use crate::core::pace::{Framing, Pacing};
use crate::core::session::{CloseReason, Event as SessionEvent, SessionConfig};
use crate::core::time::after;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::Malformed;
use backoff::Backoff;
use completeness::{Completeness, Patience, Verdict};
use desired::Desired;
pub(crate) use events::ConsumerId;
pub(crate) use link::FlushId;
use link::{Link, Wants};
use server::{Phase, Server};
use view::View;
pub(crate) use view::{RouteCursor, ServerBit};

/// How long a connection attempt may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server that is connected under another name is left alone.
const TWIN_WAIT: Duration = Duration::from_secs(60);

/// What a client core is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreConfig {
    pub(crate) session: SessionConfig,
    pub(crate) pacing: Pacing,
    /// How long routes stay after the last server is lost.
    pub(crate) hold: Duration,
    pub(crate) retry_min: Duration,
    pub(crate) retry_max: Duration,
    /// Random seed of this process: keys hash maps against collision attacks, jitters retries.
    pub(crate) seed: u64,
}

/// The client.
#[derive(Debug)]
pub(crate) struct Core {
    config: CoreConfig,
    servers: BTreeMap<ServerId, Server>,
    /// Of the next server to be added; numbers are not used again.
    next_server: usize,
    subscriptions: Desired<Vni>,
    announcements: Desired<(Vni, Route)>,
    filter: RouteFilter,
    view: View,
    completeness: Completeness,
    /// Flushes that somebody waits for.
    flushes: BTreeSet<FlushId>,
    next_flush: u64,
    updates_received: u64,
    /// Updates sent on connections that are gone.
    updates_sent: u64,
}

impl Core {
    pub(crate) fn new(config: CoreConfig, servers: usize, now: Instant) -> Self {
        let mut core = Self {
            config,
            servers: BTreeMap::new(),
            next_server: 0,
            subscriptions: Desired::new(),
            announcements: Desired::new(),
            filter: RouteFilter::new(),
            view: View::new(config.seed),
            completeness: Completeness::new(Patience {
                hold: config.hold,
                linger: Duration::ZERO,
            }),
            flushes: BTreeSet::new(),
            next_flush: 0,
            updates_received: 0,
            updates_sent: 0,
        };
        for _ in 0..servers {
            core.add_server(now);
        }
        core
    }

    /// What counts of what servers say, and in what form the first consumer is told;
    /// to be called before anything is received.
    pub(crate) fn set_policy(
        &mut self,
        filter: RouteFilter,
        imports: &[(Vni, Vni)],
        detail: EventDetail,
    ) {
        self.filter = filter;
        for (from, into) in imports {
            self.view.import(*from, *into);
            self.completeness.import(*from, *into);
        }
        self.view.set_detail(detail);
    }

    /// Sets how long stale routes stay after a server's table is complete, for other servers
    /// to catch up.
    pub(crate) fn set_linger(&mut self, linger: Duration) {
        let hold = self.config.hold;
        self.completeness.set_patience(Patience { hold, linger });
    }

    /// Other settings: of new sessions, and of the hold time from the next loss on. Who this
    /// client is, its secret, and when it tries again stay.
    pub(crate) fn reconfigure(&mut self, config: CoreConfig, linger: Duration) {
        self.config = CoreConfig {
            session: SessionConfig {
                extensions: self.config.session.extensions,
                ..config.session
            },
            pacing: config.pacing,
            hold: config.hold,
            ..self.config
        };
        self.set_linger(linger);
    }

    /// Adds a server, to be dialled at once. Returns `None` if the limit is reached.
    pub(crate) fn add_server(&mut self, now: Instant) -> Option<ServerId> {
        let taken = self.servers.values().fold(0, |all, it| all | it.bit.mask());
        let bit = ServerBit::first_free(taken)?;
        let id = ServerId(self.next_server);
        self.next_server += 1;
        let seed = self.config.seed.wrapping_add(id.0 as u64);
        let backoff = Backoff::new(self.config.retry_min, self.config.retry_max, seed);
        let server = Server::new(bit, backoff, now);
        self.servers.insert(id, server);
        self.completeness.coming(id);
        Some(id)
    }

    /// Removes a server. Returns `false` if there is none of that number.
    ///
    /// What only it had is treated as if it were lost for ever: gone at once if a
    /// server that is complete does not have it, else when one is, or after the
    /// hold time. So servers can be replaced in either order.
    pub(crate) fn remove_server(&mut self, server: ServerId, now: Instant) -> bool {
        if !self.servers.contains_key(&server) {
            return false;
        }
        self.lost(server, CloseReason::Shutdown, now);
        self.servers.remove(&server);
        self.completeness.removed(server);
        true
    }

    /// Subscribes to a VNI at every server. Returns `false` if already subscribed.
    pub(crate) fn subscribe(&mut self, vni: Vni) -> bool {
        let is_new = self.subscriptions.set(vni, true);
        if is_new {
            self.completeness.subscribed(vni);
            self.each_link(|link, wants| link.queue_subscription(vni, wants));
        }
        is_new
    }

    /// Unsubscribes from a VNI at every server. Returns `false` if not subscribed.
    pub(crate) fn unsubscribe(&mut self, vni: Vni) -> bool {
        if !self.subscriptions.set(vni, false) {
            return false;
        }
        self.view.cancel(&Event::Synced(vni));
        self.view.drop_vni(vni);
        for server in self.servers.values_mut() {
            if let Some(link) = server.link_mut() {
                link.ignore(vni);
            }
        }
        self.each_link(|link, wants| link.queue_subscription(vni, wants));
        self.completeness.unsubscribed(vni);
        self.obey();
        true
    }

    /// Announces a route to every server. Returns `false` if it was announced already.
    pub(crate) fn announce(&mut self, vni: Vni, route: Route) -> bool {
        let is_new = self.announcements.set((vni, route), true);
        if is_new {
            self.announcement_changed(vni, Action::Add, route);
        }
        is_new
    }

    /// Withdraws a route from every server. Returns `false` if it was not announced.
    pub(crate) fn withdraw(&mut self, vni: Vni, route: Route) -> bool {
        if !self.announcements.set((vni, route), false) {
            return false;
        }
        let is_legacy =
            |server: &Server| matches!(&server.phase, Phase::Up(link) if link.is_legacy());
        let legacy = self.servers.values().filter(|server| is_legacy(server));
        let legacy = legacy.map(|server| server.bit);
        self.view.drop_echo(legacy, (vni, route));
        self.announcement_changed(vni, Action::Remove, route);
        true
    }

    fn announcement_changed(&mut self, vni: Vni, action: Action, route: Route) {
        self.view.own((vni, action, route));
        self.each_link(|link, wants| link.queue_announcement((vni, route), wants));
    }

    /// Begins a flush: every server established now or later is to read all that is
    /// wanted by then.
    pub(crate) fn flush(&mut self) -> FlushId {
        let flush = FlushId(self.next_flush);
        self.next_flush += 1;
        self.flushes.insert(flush);
        self.each_link(|link, _| link.flush(flush));
        flush
    }

    /// Forgets a flush.
    pub(crate) fn end_flush(&mut self, flush: FlushId) {
        self.flushes.remove(&flush);
        self.each_link(|link, _| link.end_flush(flush));
    }

    /// The server that is due to be dialled.
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<ServerId> {
        let is_due =
            |server: &Server| matches!(server.phase, Phase::Waiting { until, .. } if until <= now);
        let mut servers = self.servers.iter_mut();
        let (id, server) = servers.find(|(_, server)| is_due(server))?;
        server.since = now;
        server.is_drained = false;
        server.twin = None;
        server.phase = Phase::Dialling {
            until: now + DIAL_TIMEOUT,
        };
        self.completeness.coming(*id);
        Some(*id)
    }

    /// A connection to a server was made.
    pub(crate) fn dialled(&mut self, server: ServerId, now: Instant) {
        if let Some(entry) = self.servers.get_mut(&server) {
            let link = Link::new(entry.bit, self.config.session, self.config.pacing, now);
            entry.phase = Phase::Up(Box::new(link));
            self.pump(server);
        }
    }

    /// An attempt failed, or a connection is gone.
    pub(crate) fn lost(&mut self, server: ServerId, reason: CloseReason, now: Instant) {
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        if let Phase::Up(link) = &mut entry.phase {
            link.connection.close(reason);
            self.settle(server, now);
            return;
        }
        entry.lose(reason, now);
        self.completeness.unreachable(server);
    }

    /// Leaves a server, and does not dial it for `time`.
    pub(crate) fn drain(&mut self, server: ServerId, time: Duration, now: Instant) {
        self.lost(server, CloseReason::Drained, now);
        if let Some(entry) = self.servers.get_mut(&server) {
            entry.is_drained = true;
            entry.phase = Phase::Waiting {
                until: after(now, time),
                is_retry: true,
            };
        }
    }

    /// Takes bytes that came from a server; why the first of the messages in them was dropped
    /// as malformed, if that is to be reported, and how many were so far.
    pub(crate) fn receive(
        &mut self,
        server: ServerId,
        mut bytes: &[u8],
        now: Instant,
    ) -> Option<(Malformed, u64)> {
        let mut report = None;
        loop {
            let entry = self.servers.get_mut(&server)?;
            let Phase::Up(link) = &mut entry.phase else {
                return report;
            };
            let Some(event) = link.connection.receive(&mut bytes, now) else {
                break;
            };
            let bit = entry.bit;
            let mut wants = Wants {
                subscriptions: &mut self.subscriptions,
                announcements: &mut self.announcements,
            };
            match event {
                SessionEvent::Update(update) => {
                    self.updates_received += 1;
                    let key = (update.vni, update.route);
                    // The link sees all: it also learns from what does not count.
                    let is_heard = link.hears(update.action, &key, &mut wants);
                    if is_heard && self.filter.accepts(update.vni, &update.route) {
                        let change = (update.vni, update.action, update.route);
                        self.view.update(bit, change);
                    }
                }
                SessionEvent::Established => {
                    link.queue_all(&mut wants);
                    for flush in &self.flushes {
                        link.flush(*flush);
                    }
                    entry.established_at = Some(now);
                    self.completeness.established(server);
                    self.view.push(&Event::ServerUp(server));
                }
                SessionEvent::EndOfRib(vni) => {
                    if link.end_of_rib(vni) {
                        self.complete(server, vni, now);
                    }
                }
                SessionEvent::KeepaliveReply => {
                    for vni in link.keepalive_answered(&mut wants) {
                        self.complete(server, vni, now);
                    }
                }
                SessionEvent::Dropped(malformed) => {
                    entry.malformed += 1;
                    if entry.malformed_quiet.is_over(now) {
                        report = Some((malformed, entry.malformed));
                    }
                }
                // Only servers hear these.
                SessionEvent::Subscribe(_) | SessionEvent::Unsubscribe(_) => {}
            }
        }
        self.settle(server, now);
        report
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        for server in self.ids() {
            let Some(entry) = self.servers.get_mut(&server) else {
                continue;
            };
            match &mut entry.phase {
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
        self.completeness.handle_timeouts(now);
        self.obey();
    }

    /// When [`Self::handle_timeouts`] or [`Self::poll_dial`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let servers = self
            .servers
            .values()
            .filter_map(|server| match &server.phase {
                Phase::Waiting { until, .. } | Phase::Dialling { until } => Some(*until),
                Phase::Up(link) => link.poll_timeout(),
            });
        servers.chain(self.completeness.poll_timeout()).min()
    }

    /// Bytes to send to a server.
    pub(crate) fn outgoing(&self, server: ServerId) -> &[u8] {
        let link = self.link(server);
        link.map_or(&[], |link| link.connection.outgoing())
    }

    /// How they are to be handed to the kernel.
    pub(crate) fn framing(&self, server: ServerId) -> Framing {
        let link = self.link(server);
        link.map_or(Framing::Stream, |link| link.connection.framing())
    }

    /// Marks the first `count` bytes as sent at `now`.
    pub(crate) fn advance(&mut self, server: ServerId, count: usize, now: Instant) {
        let entry = self.servers.get_mut(&server);
        if let Some(link) = entry.and_then(Server::link_mut) {
            link.connection.advance(count, now);
            self.pump(server);
        }
    }

    /// Whether a server has a connection, so that a socket belongs to it.
    pub(crate) fn is_up(&self, server: ServerId) -> bool {
        self.link(server).is_some()
    }

    /// Whether the server is being dialled.
    pub(crate) fn is_dialling(&self, server: ServerId) -> bool {
        let phase = self.servers.get(&server).map(|it| &it.phase);
        matches!(phase, Some(Phase::Dialling { .. }))
    }

    /// Whether something waits for a consumer.
    pub(crate) fn has_events(&self, consumer: ConsumerId) -> bool {
        self.view.has_events(consumer)
    }

    /// The next events of a consumer, at most `limit` of them; those about routes are
    /// coalesced.
    pub(crate) fn take_events(&mut self, consumer: ConsumerId, limit: usize) -> Vec<Event> {
        self.view.take(consumer, limit)
    }

    /// Adds a consumer: it is told the current state, then every change. Returns `None` if the
    /// limit is reached.
    pub(crate) fn attach(&mut self, detail: EventDetail) -> Option<ConsumerId> {
        let consumer = self.view.attach(detail)?;
        for vni in self.completeness.synced() {
            self.view.push_to(consumer, Event::Synced(vni));
        }
        for (server, entry) in &self.servers {
            if matches!(&entry.phase, Phase::Up(link) if link.session().is_established()) {
                self.view.push_to(consumer, Event::ServerUp(*server));
            }
        }
        Some(consumer)
    }

    /// A consumer is gone.
    pub(crate) fn detach(&mut self, consumer: ConsumerId) {
        self.view.detach(consumer);
    }

    fn ids(&self) -> Vec<ServerId> {
        self.servers.keys().copied().collect()
    }

    fn link(&self, server: ServerId) -> Option<&Link> {
        self.servers.get(&server)?.link()
    }

    /// A server has told the whole table of a VNI.
    fn complete(&mut self, server: ServerId, vni: Vni, now: Instant) {
        self.completeness.completed(server, vni, now);
        self.obey();
    }

    /// Does what the completeness of the tables calls for.
    fn obey(&mut self) {
        while let Some(verdict) = self.completeness.poll_verdict() {
            match verdict {
                Verdict::Sweep(vni) => self.view.sweep(vni),
                Verdict::Synced(vni) => self.view.push(&Event::Synced(vni)),
            }
        }
    }

    /// After anything that touched a session: its end, or what it must be told.
    fn settle(&mut self, server: ServerId, now: Instant) {
        self.refuse_twin(server);
        match self.link(server).map(|link| link.session().closed()) {
            Some(Some(reason)) => self.end(server, reason, now),
            Some(None) => self.pump(server),
            None => {}
        }
    }

    /// Leaves a server that has just said who it is, if that one is connected already: it would
    /// give the client's own routes back, and all others twice.
    fn refuse_twin(&mut self, server: ServerId) {
        let Some(entry) = self.servers.get(&server) else {
            return;
        };
        let is_new = entry.link().map(|it| it.session().is_hello_received());
        let Some(node) = entry.node().filter(|_| is_new == Some(true)) else {
            return;
        };
        let mut others = self.servers.iter().filter(|(id, _)| **id != server);
        let twin = others.find_map(|(id, it)| (it.node() == Some(node)).then_some(*id));
        if let Some(entry) = self.servers.get_mut(&server)
            && twin.is_some()
        {
            entry.twin = twin;
            if let Some(link) = entry.link_mut() {
                link.connection.close(CloseReason::Duplicate);
            }
        }
    }

    /// A server is not connected any more: its other names are to be tried.
    fn release_twins(&mut self, of: ServerId, now: Instant) {
        for server in self.servers.values_mut() {
            if server.twin == Some(of) {
                server.twin = None;
                if let Phase::Waiting { until, .. } = &mut server.phase {
                    *until = now;
                }
            }
        }
    }

    fn end(&mut self, server: ServerId, reason: CloseReason, now: Instant) {
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        let link = entry.lose(reason, now);
        if let Phase::Waiting { until, .. } = &mut entry.phase
            && entry.twin.is_some()
        {
            *until = now + TWIN_WAIT;
        }
        let bit = entry.bit;
        self.release_twins(server, now);
        self.completeness.lost(server, now);
        self.obey();
        let Some(link) = link else {
            return;
        };
        self.updates_sent += link.sent().update;
        self.subscriptions.forget(bit, |_| true);
        self.announcements.forget(bit, |_| true);
        for vni in link.vnis() {
            self.view.lose(bit, vni);
            if self.view.has_stale(vni) {
                self.completeness.became_stale(vni, now);
            }
        }
        self.obey();
        self.view.push(&Event::ServerDown(server, reason));
    }

    fn pump(&mut self, server: ServerId) {
        let entry = self.servers.get_mut(&server);
        if let Some(link) = entry.and_then(Server::link_mut) {
            let mut wants = Wants {
                subscriptions: &mut self.subscriptions,
                announcements: &mut self.announcements,
            };
            link.pump(&mut wants);
        }
    }

    /// Has every established server told of something.
    fn each_link(&mut self, queue: impl Fn(&mut Link, &mut Wants<'_>)) {
        for server in self.servers.values_mut() {
            if let Some(link) = server.link_mut()
                && link.session().is_established()
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
}
