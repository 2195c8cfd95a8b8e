//! What a client tells of its routes; nothing here changes anything.

use std::collections::{BTreeMap, BTreeSet};

use super::MetalBondClient;
use crate::client::mail::Question;
use crate::core::client::{AnnouncementState, ServerId};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::Result;

/// # Errors
///
/// Each call here answers [`Error::Closed`](crate::Error::Closed) after a shutdown, and
/// [`Error::Panicked`](crate::Error::Panicked) if the client's thread has panicked.
impl MetalBondClient {
    /// Whether the table of a VNI has been complete since it was subscribed to, and since its
    /// routes last went because no server returned within the stale time.
    pub fn is_synced(&self, vni: Vni) -> Result<bool> {
        let question = |reply| Question::IsSynced(vni, reply);
        Ok(self.running.ask(question)? == Some(true))
    }

    /// Whether [`Event::Settled`](crate::Event::Settled) was told of a VNI since it was
    /// subscribed to.
    pub fn is_settled(&self, vni: Vni) -> Result<bool> {
        let question = |reply| Question::IsSettled(vni, reply);
        self.running.ask(question)
    }

    /// What each server knows of an announced route; `None` if it is not announced.
    pub fn announcement_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Result<Option<BTreeMap<ServerId, AnnouncementState>>> {
        let route = Route::new(*destination, *next_hop);
        let question = |reply| Question::Announcement(vni, route, reply);
        self.running.ask(question)
    }

    /// The received routes of a VNI, in order; without those suppressed because this
    /// client announces their destination itself.
    pub fn get_received_routes(&self, vni: Vni) -> Result<Vec<Route>> {
        let received = self.received(vni)?;
        let visible = received.into_iter().filter(|(_, suppressed)| !suppressed);
        Ok(visible.map(|(route, _)| route).collect())
    }

    /// The received routes of all VNIs, in order; without those suppressed.
    pub fn routes(&self) -> Result<Vec<(Vni, Route)>> {
        self.running.ask(Question::ReceivedEverywhere)
    }

    /// The received routes of a VNI that are suppressed because this client announces
    /// their destination itself.
    pub fn suppressed_routes(&self, vni: Vni) -> Result<Vec<Route>> {
        let received = self.received(vni)?;
        let hidden = received.into_iter().filter(|(_, suppressed)| *suppressed);
        Ok(hidden.map(|(route, _)| route).collect())
    }

    /// What this client announces, in order.
    pub fn get_announced_routes(&self) -> Result<Vec<(Vni, Route)>> {
        self.running.ask(Question::Announced)
    }

    /// The VNIs this client subscribes to.
    pub fn subscriptions(&self) -> Result<BTreeSet<Vni>> {
        let vnis = self.running.ask(Question::Subscribed)?;
        Ok(vnis.into_iter().collect())
    }

    /// The VNIs subscribed to whose tables have been complete since, as [`Self::wait_synced`]
    /// waits for.
    pub fn synced(&self) -> Result<BTreeSet<Vni>> {
        self.running.ask(Question::Synced)
    }

    /// Returns how many distinct routes are received, suppressed ones among them.
    pub fn route_count(&self) -> Result<usize> {
        self.running.ask(Question::RouteCount)
    }

    /// Whether no route is received.
    pub fn is_route_table_empty(&self) -> Result<bool> {
        Ok(self.route_count()? == 0)
    }

    /// The servers that have a route; `None` if it is not received.
    ///
    /// Empty while the route is stale: all servers that had it are lost.
    pub fn get_route_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Result<Option<BTreeSet<ServerId>>> {
        let route = Route::new(*destination, *next_hop);
        let question = |reply| Question::ServersOf(vni, route, reply);
        let servers = self.running.ask(question)?;
        Ok(servers.map(|it| it.into_iter().collect()))
    }

    fn received(&self, vni: Vni) -> Result<Vec<(Route, bool)>> {
        let question = |reply| Question::Received(vni, reply);
        self.running.ask(question)
    }
}
