//! What a client says of itself; nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Core;
use super::report::LackOf;
use super::server::{Phase, Server};
use crate::core::client::link::{FlushId, Link};
use crate::core::client::view::{Met, RouteCursor};
use crate::core::client::{AnnouncementState, ConnectionState, ServerId};
use crate::core::session::{CloseReason, MessageCounts};
use crate::core::status::{PeerKind, PeerState, PeerStatus, RouteEntry, VniStatus};
use crate::core::types::{Destination, NextHop, Route, Vni};

impl Core {
    /// Why the last session with a server ended, or the last attempt failed.
    pub(crate) fn last_loss(&self, server: ServerId) -> Option<CloseReason> {
        self.servers.get(&server)?.last_loss
    }

    /// The server that another one turned out to be.
    pub(crate) fn twin(&self, server: ServerId) -> Option<ServerId> {
        self.servers.get(&server)?.twin
    }

    /// How many servers are connected under another name.
    pub(crate) fn twins(&self) -> usize {
        let servers = self.servers.values();
        servers.filter(|it| it.twin.is_some()).count()
    }

    /// The state of every server's connection.
    pub(crate) fn states(&self) -> BTreeMap<ServerId, ConnectionState> {
        let state = |server: &Server| match &server.phase {
            Phase::Waiting { is_retry: true, .. } => ConnectionState::Retry,
            Phase::Waiting { .. } | Phase::Dialling { .. } => ConnectionState::Connecting,
            Phase::Up(link) if link.session().is_established() => ConnectionState::Established,
            Phase::Up(link) if link.session().is_hello_received() => ConnectionState::HelloReceived,
            Phase::Up(_) => ConnectionState::HelloSent,
        };
        let states = self.servers.iter();
        states.map(|(id, server)| (*id, state(server))).collect()
    }

    /// The routes of a VNI, with whether each is suppressed, in order.
    pub(crate) fn received(&self, vni: Vni) -> Vec<(Route, bool)> {
        let mut routes: Vec<_> = self.view.routes(vni).collect();
        routes.sort_unstable();
        routes
    }

    /// How many routes of a VNI are held, suppressed ones among them.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn routes_in(&self, vni: Vni) -> usize {
        self.view.summary(vni).routes()
    }

    /// All routes that are not suppressed, in order.
    pub(crate) fn received_everywhere(&self) -> Vec<(Vni, Route)> {
        let of = |vni| {
            let routes = self.received(vni).into_iter();
            routes.filter_map(move |(route, suppressed)| (!suppressed).then_some((vni, route)))
        };
        self.view.vnis().into_iter().flat_map(of).collect()
    }

    /// What there is to tell of every server; their names are not known here.
    pub(crate) fn peers(&self, now: Instant) -> Vec<(ServerId, PeerStatus)> {
        let peer = |(id, server): (&ServerId, &Server)| (*id, self.peer(*id, server, now));
        self.servers.iter().map(peer).collect()
    }

    fn peer(&self, id: ServerId, server: &Server, now: Instant) -> PeerStatus {
        let mut status = PeerStatus {
            id: id.0 as u64,
            name: String::new(),
            address: None,
            transport: None,
            identity: None,
            notices: server.notices.total,
            last_notice: server.notices.last.as_deref().map(str::to_owned),
            kind: PeerKind::Unknown,
            state: PeerState::Connecting,
            since: now.saturating_duration_since(server.since),
            uptime: None,
            flaps: server.flaps.total(now),
            last_error: server.last_loss.map(|reason| reason.to_string()),
            keepalive_interval: self.config.session.keepalive_interval,
            silent: now.saturating_duration_since(server.since),
            routes: self.view.len_of(server.bit),
            subscriptions: 0,
            queued_bytes: 0,
            legacy_rate: None,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
            malformed: server.malformed,
            refused: 0,
            folds: 0,
        };
        let link = match &server.phase {
            Phase::Waiting { .. } if server.is_drained => {
                status.state = PeerState::Draining;
                return status;
            }
            Phase::Waiting { is_retry: true, .. } => {
                status.state = PeerState::Retry;
                return status;
            }
            Phase::Waiting { .. } | Phase::Dialling { .. } => return status,
            Phase::Up(link) => link,
        };
        let session = link.session();
        let since = now.saturating_duration_since(session.since());
        (status.kind, status.state) = match (session.knows_peer(), session.is_legacy()) {
            (false, _) => (PeerKind::Unknown, PeerState::AwaitHello),
            (true, true) => (PeerKind::Legacy, PeerState::AwaitKeepalive),
            (true, false) => (PeerKind::RustBond, PeerState::AwaitKeepalive),
        };
        if session.is_established() {
            status.state = PeerState::Established;
            status.uptime = Some(since);
        }
        PeerStatus {
            since,
            keepalive_interval: session.keepalive_interval(),
            silent: now.saturating_duration_since(session.last_received()),
            subscriptions: link.subscriptions(),
            queued_bytes: link.queued_bytes(),
            legacy_rate: link.connection.rate(),
            received: session.received(),
            sent: link.sent(),
            ..status
        }
    }

    /// The VNIs that are subscribed to or have routes.
    pub(crate) fn vnis(&self) -> Vec<VniStatus> {
        let with_routes = self.view.vnis().into_iter();
        let vnis: BTreeSet<Vni> = with_routes.chain(self.subscribed()).collect();
        let status = |vni| VniStatus {
            vni,
            table: self.view.summary(vni),
            subscribers: usize::from(self.subscriptions.contains(&vni)),
            is_synced: self.is_synced(vni),
        };
        vnis.into_iter().map(status).collect()
    }

    /// Why the client is not what its caller wants it to be, if it is not.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if !self.is_established() {
            return Some("no server is established".into());
        }
        let is_missing = |vni: &Vni| self.is_synced(*vni) == Some(false);
        let missing = self.subscribed().into_iter().find(is_missing);
        if let Some(vni) = missing {
            return Some(format!("VNI {vni}: the table is not complete"));
        }
        let missing = self.refused().1;
        let limit = self.config.limits.routes;
        (missing > 0).then(|| format!("{}: max-routes is {limit}", LackOf(missing)))
    }

    /// UPDATEs received and sent.
    pub(crate) fn updates(&self) -> (u64, u64) {
        let links = self.servers.values().filter_map(Server::link);
        let sent = links.map(|link| link.sent().update);
        (self.updates_received, self.updates_sent + sent.sum::<u64>())
    }

    /// Is another number after any change of a table.
    pub(crate) fn generation(&self) -> u64 {
        self.view.generation()
    }

    /// Goes on with a walk over the routes of one VNI or of all; how far it is, unless it is over.
    pub(crate) fn walk(
        &self,
        from: Option<RouteCursor>,
        vni: Option<Vni>,
        budget: usize,
        mut each: impl FnMut(RouteEntry),
    ) -> Option<RouteCursor> {
        let mut cursor = from.unwrap_or_else(|| self.view.walk(vni));
        let is_over = self.view.step(&mut cursor, budget, |met: Met| {
            let has = |(id, server): (&ServerId, &Server)| {
                let has = met.servers & server.bit.mask() != 0;
                has.then(|| u32::try_from(id.0).unwrap_or(u32::MAX))
            };
            each(RouteEntry {
                vni: met.vni,
                route: met.route,
                announcers: self.servers.iter().filter_map(has).collect(),
                is_suppressed: met.is_suppressed,
            });
        });
        (!is_over).then_some(cursor)
    }

    pub(crate) fn announced(&self) -> Vec<(Vni, Route)> {
        self.announcements.iter().collect()
    }

    pub(crate) fn subscribed(&self) -> Vec<Vni> {
        self.subscriptions.iter().collect()
    }

    pub(crate) fn route_count(&self) -> usize {
        self.view.len()
    }

    pub(crate) fn servers_of(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<Vec<ServerId>> {
        let mask = self.view.servers_of(vni, destination, next_hop)?;
        let has =
            |(id, server): (&ServerId, &Server)| (mask & server.bit.mask() != 0).then_some(*id);
        Some(self.servers.iter().filter_map(has).collect())
    }

    /// Entries in the queues of all servers.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn queued(&self) -> usize {
        let of = |server: &Server| server.link().map_or(0, Link::queued);
        self.servers.values().map(of).sum()
    }

    /// Announcements that a server was told, and has perhaps not read.
    #[cfg(test)]
    pub(crate) fn unproven(&self, server: ServerId) -> usize {
        self.link(server).map_or(0, Link::unproven)
    }

    /// Bytes that wait for the socket of a server.
    #[cfg(feature = "internals")]
    pub(crate) fn queued_bytes(&self, server: ServerId) -> usize {
        self.link(server).map_or(0, Link::queued_bytes)
    }

    /// SUBSCRIBEs encoded for a server on its connection.
    #[cfg(feature = "internals")]
    pub(crate) fn subscribes(&self, server: ServerId) -> u64 {
        self.link(server).map_or(0, |link| link.sent().subscribe)
    }

    /// Things remembered beyond what is wanted and received.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn held(&self) -> usize {
        let wanted = self.subscribed().len() + self.announced().len();
        let desired = self.subscriptions.len() + self.announcements.len();
        desired - wanted + self.view.idle_vnis() + self.queued()
    }

    /// Whether a server is established.
    pub(crate) fn is_established(&self) -> bool {
        self.established().next().is_some()
    }

    pub(super) fn established(&self) -> impl Iterator<Item = &Link> {
        let links = self.servers.values().filter_map(Server::link);
        links.filter(|link| link.session().is_established())
    }

    /// Whether some server is established, and all that are have read everything.
    pub(crate) fn is_flushed(&self, flush: FlushId) -> bool {
        self.is_established() && self.established().all(|link| link.is_flushed(flush))
    }

    /// Whether a table of the VNI was complete since the subscription; `None` if there
    /// is no subscription.
    pub(crate) fn is_synced(&self, vni: Vni) -> Option<bool> {
        self.completeness.is_synced(vni)
    }

    /// Whether [`Event::Settled`](super::Event::Settled) was told of a VNI.
    pub(crate) fn is_settled(&self, vni: Vni) -> bool {
        self.completeness.is_settled(vni)
    }

    /// What each server knows of an own route; `None` if it is not announced.
    pub(crate) fn announcement(
        &self,
        vni: Vni,
        route: Route,
    ) -> Option<BTreeMap<ServerId, AnnouncementState>> {
        let key = (vni, route);
        let state = |server: &Server| {
            if self.announcements.is_read(&key, server.bit) {
                AnnouncementState::Acknowledged
            } else if self.announcements.is_told(&key, server.bit) {
                AnnouncementState::Told
            } else {
                AnnouncementState::Pending
            }
        };
        let states = self.servers.iter();
        let states = states.map(|(id, server)| (*id, state(server))).collect();
        self.announcements.contains(&key).then_some(states)
    }
}
