//! What a client says of itself; nothing here changes anything.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

use std::collections::BTreeMap;

use super::{Core, Phase, Server};
use crate::client::link::{FlushId, Link};
use crate::client::{AnnouncementState, ConnectionState, ServerId};
use crate::session::CloseReason;
use crate::types::{Destination, NextHop, Route, Vni};

impl Core {
    /// Why the last session with a server ended, or the last attempt failed.
    pub(in crate::client) fn last_loss(&self, server: ServerId) -> Option<CloseReason> {
        self.servers.get(&server)?.last_loss
    }

    /// The state of every server's connection.
    pub(in crate::client) fn states(&self) -> BTreeMap<ServerId, ConnectionState> {
        let state = |server: &Server| match &server.phase {
            Phase::Waiting { is_retry: true, .. } => ConnectionState::Retry,
            Phase::Waiting { .. } | Phase::Dialling { .. } => ConnectionState::Connecting,
            Phase::Up(link) if link.session.is_established() => ConnectionState::Established,
            Phase::Up(link) if link.session.is_hello_received() => ConnectionState::HelloReceived,
            Phase::Up(_) => ConnectionState::HelloSent,
        };
        let states = self.servers.iter();
        states.map(|(id, server)| (*id, state(server))).collect()
    }

    /// The routes of a VNI, with whether each is suppressed, in order.
    pub(in crate::client) fn received(&self, vni: Vni) -> Vec<(Route, bool)> {
        let mut routes: Vec<_> = self.view.routes(vni).collect();
        routes.sort_unstable();
        routes
    }

    /// All routes that are not suppressed, in order.
    pub(in crate::client) fn received_everywhere(&self) -> Vec<(Vni, Route)> {
        let of = |vni| {
            let routes = self.received(vni).into_iter();
            routes.filter_map(move |(route, suppressed)| (!suppressed).then_some((vni, route)))
        };
        self.view.vnis().into_iter().flat_map(of).collect()
    }

    pub(in crate::client) fn announced(&self) -> Vec<(Vni, Route)> {
        self.announcements.iter().collect()
    }

    pub(in crate::client) fn subscribed(&self) -> Vec<Vni> {
        self.subscriptions.iter().collect()
    }

    pub(in crate::client) fn route_count(&self) -> usize {
        self.view.len()
    }

    pub(in crate::client) fn servers_of(
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
    #[cfg(test)]
    pub(in crate::client) fn queued(&self) -> usize {
        let of = |server: &Server| match &server.phase {
            Phase::Up(link) => link.queued(),
            Phase::Waiting { .. } | Phase::Dialling { .. } => 0,
        };
        self.servers.values().map(of).sum()
    }

    /// Things remembered beyond what is wanted and received.
    #[cfg(test)]
    pub(in crate::client) fn held(&self) -> usize {
        let wanted = self.subscribed().len() + self.announced().len();
        let desired = self.subscriptions.len() + self.announcements.len();
        desired - wanted + self.view.idle_vnis() + self.queued()
    }

    /// Whether a server is established.
    pub(in crate::client) fn is_established(&self) -> bool {
        self.established().next().is_some()
    }

    pub(super) fn established(&self) -> impl Iterator<Item = &Link> {
        let links = self
            .servers
            .values()
            .filter_map(|server| match &server.phase {
                Phase::Up(link) => Some(&**link),
                Phase::Waiting { .. } | Phase::Dialling { .. } => None,
            });
        links.filter(|link| link.session.is_established())
    }

    /// Whether some server is established, and all that are have read everything.
    pub(in crate::client) fn is_flushed(&self, flush: FlushId) -> bool {
        self.is_established() && self.established().all(|link| link.is_flushed(flush))
    }

    /// Whether a table of the VNI was complete since the subscription; `None` if there
    /// is no subscription.
    pub(in crate::client) fn is_synced(&self, vni: Vni) -> Option<bool> {
        let is_wanted = self.subscriptions.contains(&vni);
        is_wanted.then(|| self.synced.contains(&vni))
    }

    /// What each server knows of an own route; `None` if it is not announced.
    pub(in crate::client) fn announcement(
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
