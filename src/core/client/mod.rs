//! The client without its thread: servers, wishes and the view, driven by bytes,
//! instants and commands.
//!
//! The caller dials what `poll_dial` names and tells how that went (`dialled`,
//! `lost`), feeds `receive` and `handle_timeouts`, sends what `outgoing` has, and
//! drains `take_events`.

mod backoff;
mod completeness;
mod desired;
mod endings;
mod events;
mod limits;
mod link;
mod missing;
mod notices;
mod policy;
mod read;
mod report;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use events::{Event, EventDetail};
pub(crate) use limits::Limits;
pub use policy::{RouteFilter, RouteMatch};
pub(crate) use report::Report;
pub use status::{AnnouncementState, Changed, ConnectionState, Refused, ServerId};

use crate::core::pace::{Framing, Pacing};
use crate::core::session::{CloseReason, Event as SessionEvent, SessionConfig};
use crate::core::time::after;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::Malformed;
use backoff::Backoff;
use completeness::{Completeness, Doubt, Patience};
use desired::Desired;
pub(crate) use events::ConsumerId;
use limits::Refusals;
pub(crate) use link::FlushId;
use link::{Link, Wants};
use server::{Phase, Server};
use view::View;
pub(crate) use view::{RouteCursor, ServerBit};

/// How long a connection attempt may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client core is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreConfig {
    pub(crate) session: SessionConfig,
    pub(crate) pacing: Pacing,
    /// The longest that routes of a lost server stay.
    pub(crate) stale_time: Duration,
    /// How long after its start a server does not vouch for what is missing.
    pub(crate) settle_time: Duration,
    pub(crate) retry_min: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) limits: Limits,
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
    refusals: Refusals,
    updates_received: u64,
    /// Updates sent on connections that are gone.
    updates_sent: u64,
    /// What the caller is to log.
    reports: Vec<Report>,
    /// What servers said, to be logged too.
    notices: Vec<(ServerId, Arc<str>)>,
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
                stale_time: config.stale_time,
                settle_time: config.settle_time,
            }),
            flushes: BTreeSet::new(),
            next_flush: 0,
            refusals: Refusals::new(config.seed),
            updates_received: 0,
            updates_sent: 0,
            reports: Vec::new(),
            notices: Vec::new(),
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

    /// Other settings: of new sessions, the stale time and the limits at once, and the settle
    /// time from the next loss or handshake on. Who this client is, its secret, and when it tries again stay.
    pub(crate) fn reconfigure(&mut self, config: CoreConfig) {
        self.config = CoreConfig {
            session: SessionConfig {
                extensions: self.config.session.extensions,
                ..config.session
            },
            pacing: config.pacing,
            stale_time: config.stale_time,
            settle_time: config.settle_time,
            limits: config.limits,
            ..self.config
        };
        self.completeness.set_patience(Patience {
            stale_time: config.stale_time,
            settle_time: config.settle_time,
        });
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
    /// What only it had is treated as if it were lost for ever: gone once every other server
    /// at hand is complete, vouches and does not have it, or after the stale time. So servers
    /// can be replaced in either order.
    pub(crate) fn remove_server(&mut self, server: ServerId, now: Instant) -> bool {
        if !self.servers.contains_key(&server) {
            return false;
        }
        self.lost(server, CloseReason::Shutdown, now);
        self.servers.remove(&server);
        self.completeness.removed(server, now);
        self.obey();
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
        self.view.cancel(&Event::Settled(vni));
        self.view.drop_vni(vni);
        for server in self.servers.values_mut() {
            if let Some(link) = server.link_mut() {
                link.ignore(vni);
            }
        }
        self.each_link(|link, wants| link.queue_subscription(vni, wants));
        self.completeness.unsubscribed(vni);
        self.refusals.forget_vni(vni);
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
        Some(*id)
    }

    /// A connection to a server was made.
    pub(crate) fn dialled(&mut self, server: ServerId, now: Instant) {
        if let Some(entry) = self.servers.get_mut(&server) {
            let link = Link::new(entry.bit, self.config.session, self.config.pacing, now);
            entry.phase = Phase::Up(Box::new(link));
            self.completeness.connected(server);
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
        self.completeness.failed(server, now);
        self.obey();
    }

    /// Leaves a server, and does not dial it for `time`.
    pub(crate) fn drain(&mut self, server: ServerId, time: Duration, now: Instant) {
        self.lost(server, CloseReason::Drained, now);
        if let Some(entry) = self.servers.get_mut(&server) {
            entry.is_drained = true;
            self.completeness.drained(server);
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
                        self.hear(server, bit, change, now);
                    }
                }
                SessionEvent::Established => {
                    link.queue_all(&mut wants);
                    for flush in &self.flushes {
                        link.flush(*flush);
                    }
                    let uptime = link.uptime(entry.doubt);
                    entry.doubt = Doubt::None;
                    entry.established_at = Some(now);
                    self.completeness.established(server, uptime, now);
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
                SessionEvent::Notice(notice) => self.noticed(server, &notice, now),
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
        self.view.end_quiet(self.config.settle_time, now);
        self.completeness.handle_timeouts(now);
        self.obey();
        self.handle_refusals(now);
        self.ask_refusing(now);
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
        let servers = servers.chain(self.completeness.poll_timeout());
        let others = self.view.quiet_due().into_iter().chain(self.refusals_due());
        servers.chain(others).min()
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
        for (vni, is_settled) in self.completeness.synced() {
            self.view.push_to(consumer, Event::Synced(vni));
            if is_settled {
                self.view.push_to(consumer, Event::Settled(vni));
            }
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

    /// What the caller is to log, since the last call.
    pub(crate) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
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
