//! What a client tells of its routes; nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};

use super::MetalBondClient;
use crate::client::mail::Question;
use crate::core::client::{AnnouncementState, ServerId};
use crate::core::types::{Destination, NextHop, Route, Vni};

impl MetalBondClient {
    /// Whether the table of a VNI has been complete since it was subscribed to.
    #[must_use]
    pub fn is_synced(&self, vni: Vni) -> bool {
        let question = |reply| Question::IsSynced(vni, reply);
        self.running.ask(question).is_ok_and(|it| it == Some(true))
    }

    /// Whether [`Event::Settled`](crate::Event::Settled) was told of a VNI since it was
    /// subscribed to.
    #[must_use]
    pub fn is_settled(&self, vni: Vni) -> bool {
        let question = |reply| Question::IsSettled(vni, reply);
        self.running.ask(question).unwrap_or(false)
    }

    /// What each server knows of an announced route; `None` if it is not announced.
    #[must_use]
    pub fn announcement_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<BTreeMap<ServerId, AnnouncementState>> {
        let route = Route::new(*destination, *next_hop);
        let question = |reply| Question::Announcement(vni, route, reply);
        self.running.ask(question).ok()?
    }

    /// The received routes of a VNI, in order; without those suppressed because this
    /// client announces their destination itself.
    #[must_use]
    pub fn get_received_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.received(vni);
        let visible = received.into_iter().filter(|(_, suppressed)| !suppressed);
        visible.map(|(route, _)| route).collect()
    }

    /// The received routes of all VNIs, in order; without those suppressed.
    #[must_use]
    pub fn routes(&self) -> Vec<(Vni, Route)> {
        self.running
            .ask(Question::ReceivedEverywhere)
            .unwrap_or_default()
    }

    /// The received routes of a VNI that are suppressed because this client announces
    /// their destination itself.
    #[must_use]
    pub fn suppressed_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.received(vni);
        let hidden = received.into_iter().filter(|(_, suppressed)| *suppressed);
        hidden.map(|(route, _)| route).collect()
    }

    /// What this client announces, in order.
    #[must_use]
    pub fn get_announced_routes(&self) -> Vec<(Vni, Route)> {
        self.running.ask(Question::Announced).unwrap_or_default()
    }

    /// The VNIs this client subscribes to.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<Vni> {
        let vnis = self.running.ask(Question::Subscribed).unwrap_or_default();
        vnis.into_iter().collect()
    }

    /// The VNIs subscribed to whose tables have been complete since, as [`Self::wait_synced`]
    /// waits for.
    #[must_use]
    pub fn synced(&self) -> BTreeSet<Vni> {
        self.running.ask(Question::Synced).unwrap_or_default()
    }

    /// Returns how many distinct routes are received, suppressed ones among them.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.running.ask(Question::RouteCount).unwrap_or_default()
    }

    /// Whether no route is received.
    #[must_use]
    pub fn is_route_table_empty(&self) -> bool {
        self.route_count() == 0
    }

    /// The servers that have a route; `None` if it is not received.
    ///
    /// Empty while the route is stale: all servers that had it are lost.
    #[must_use]
    pub fn get_route_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<BTreeSet<ServerId>> {
        let route = Route::new(*destination, *next_hop);
        let question = |reply| Question::ServersOf(vni, route, reply);
        Some(self.running.ask(question).ok()??.into_iter().collect())
    }

    fn received(&self, vni: Vni) -> Vec<(Route, bool)> {
        let question = |reply| Question::Received(vni, reply);
        self.running.ask(question).unwrap_or_default()
    }
}
