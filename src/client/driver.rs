//! The client for programs with their own poll loop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::core::client::{
    AnnouncementState, Changed, ConnectionState, ConsumerId, Event, FlushId, ServerId,
};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::{Error, Result};

/// A client without a thread: its program waits, and calls [`Self::process`].
///
/// Wait until the descriptor ([`AsFd`], [`AsRawFd`]; an epoll instance) is readable or
/// [`Self::poll_timeout`] is over, then call [`Self::process`], then drain
/// [`Self::events`]. None of the calls blocks. Calls like [`Self::announce`] take
/// effect with the next [`Self::process`], for which [`Self::poll_timeout`] then asks.
///
/// A server that is given by name, not as a literal address, is resolved on a thread
/// that lives as long as the system's resolver takes; literal addresses need none.
///
/// Dropping it closes the connections.
pub struct Driver {
    engine: Engine,
    events: std::vec::IntoIter<Event>,
}

/// A flush of a [`Driver`] that was begun.
#[derive(Debug)]
pub struct FlushToken(FlushId);

/// Events that are taken from the core at once.
const EVENT_BATCH: usize = 64;

impl Driver {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            events: Vec::new().into_iter(),
        }
    }

    /// Does what there is to do, without waiting: connects, reads, writes, keeps alive.
    ///
    /// Each server has a budget, so that a long table does not hold the caller up for
    /// long; [`Self::poll_timeout`] is zero while there is more.
    pub fn process(&mut self) {
        self.engine.step(Some(Duration::ZERO));
    }

    /// How long nothing is to be done unless the descriptor becomes readable; `None`:
    /// for ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.engine.poll_timeout()
    }

    /// What happened, oldest first; what is not taken waits, coalesced by route.
    pub fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        std::iter::from_fn(|| self.next_event())
    }

    /// The oldest event that was not taken.
    pub fn next_event(&mut self) -> Option<Event> {
        if self.events.len() == 0 {
            self.events = self.take().into_iter();
        }
        self.events.next()
    }

    fn take(&mut self) -> Vec<Event> {
        let core = &mut self.engine.core;
        core.take_events(ConsumerId::FIRST, EVENT_BATCH)
    }

    /// Subscribes to a VNI at every server.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyVnis`] at the limit of [`ClientConfig::max_vnis`](super::ClientConfig::max_vnis).
    pub fn subscribe(&mut self, vni: Vni) -> Result<Changed> {
        self.engine.subscribe(vni)
    }

    /// Unsubscribes from a VNI; its routes are removed.
    pub fn unsubscribe(&mut self, vni: Vni) -> Changed {
        self.engine.core.unsubscribe(vni).into()
    }

    /// Announces a route to every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteAlreadyAnnounced`] if it is.
    pub fn announce(&mut self, vni: Vni, destination: Destination, hop: NextHop) -> Result<()> {
        let is_new = self.engine.core.announce(vni, Route::new(destination, hop));
        is_new.then_some(()).ok_or(Error::RouteAlreadyAnnounced)
    }

    /// Withdraws a route from every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteNotFound`] if it is not announced.
    pub fn withdraw(&mut self, vni: Vni, destination: Destination, hop: NextHop) -> Result<()> {
        let was_there = self.engine.core.withdraw(vni, Route::new(destination, hop));
        was_there.then_some(()).ok_or(Error::RouteNotFound)
    }

    /// Adds a server (`HOST:PORT`), which is told everything that this client wants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the text is not `HOST:PORT` or there are 32 servers already.
    pub fn add_server(&mut self, server: impl Into<String>) -> Result<ServerId> {
        self.engine.add_server(server.into(), Instant::now())
    }

    /// Leaves a server, as [`MetalBondClient::remove_server`](super::MetalBondClient::remove_server)
    /// does.
    pub fn remove_server(&mut self, server: ServerId) -> Changed {
        self.engine.remove_server(server, Instant::now()).into()
    }

    /// Begins to have every established server read all that is wanted at this moment.
    pub fn flush(&mut self) -> FlushToken {
        FlushToken(self.engine.core.flush())
    }

    /// Whether a flush is complete: a server is established, and all that are have read
    /// everything. To be asked until it is, or until [`Self::end_flush`].
    #[must_use]
    pub fn is_flushed(&self, flush: &FlushToken) -> bool {
        self.engine.core.is_flushed(flush.0)
    }

    /// Forgets a flush.
    pub fn end_flush(&mut self, flush: FlushToken) {
        self.engine.core.end_flush(flush.0);
    }

    /// Whether the table of a VNI has been complete since it was subscribed to, and since its
    /// routes last went because no server returned within the stale time.
    ///
    /// # Errors
    ///
    /// [`Error::NotSubscribed`] if it is not subscribed to.
    pub fn is_synced(&self, vni: Vni) -> Result<bool> {
        let synced = self.engine.core.is_synced(vni);
        synced.ok_or(Error::NotSubscribed(vni))
    }

    /// Where each server's connection stands.
    #[must_use]
    pub fn server_states(&self) -> BTreeMap<ServerId, ConnectionState> {
        self.engine.core.states()
    }

    /// The received routes of a VNI, in order; without those suppressed because this
    /// client announces their destination itself.
    #[must_use]
    pub fn received_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.engine.core.received(vni).into_iter();
        let visible = received.filter(|(_, suppressed)| !suppressed);
        visible.map(|(route, _)| route).collect()
    }

    /// The received routes of a VNI that are suppressed.
    #[must_use]
    pub fn suppressed_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.engine.core.received(vni).into_iter();
        let hidden = received.filter(|(_, suppressed)| *suppressed);
        hidden.map(|(route, _)| route).collect()
    }

    /// What this client announces, in order.
    #[must_use]
    pub fn announced_routes(&self) -> Vec<(Vni, Route)> {
        self.engine.core.announced()
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
        self.engine.core.announcement(vni, route)
    }

    /// The VNIs this client subscribes to.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<Vni> {
        self.engine.core.subscribed().into_iter().collect()
    }

    /// How many distinct routes are received, suppressed ones among them.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.engine.core.route_count()
    }

    /// The servers that have a route; `None` if it is not received.
    #[must_use]
    pub fn route_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<BTreeSet<ServerId>> {
        let servers = self.engine.core.servers_of(vni, destination, next_hop)?;
        Some(servers.into_iter().collect())
    }
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.engine.as_fd()
    }
}

impl AsRawFd for Driver {
    fn as_raw_fd(&self) -> RawFd {
        self.engine.as_raw_fd()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.engine.finish();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.server_states();
        let mut debug = f.debug_struct("Driver");
        debug.field("servers", &servers).finish_non_exhaustive()
    }
}
