//! The handle of a client that has a thread.

mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ClientState;
use super::config::ClientConfig;
use super::events::Events;
use super::mail::Command;
use super::running::{Running, STOP_TIMEOUT};
use super::status::Status;
use crate::core::client::{Changed, ConnectionState, EventDetail, ServerId};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::life::Life;

/// A client of one or more MetalBond servers.
///
/// It holds what its caller wants, subscriptions and announcements, and brings
/// every server to that, whenever it comes; no call waits for a server or fails
/// because of one. What the servers say is one view: the first that has a route
/// adds it, the last that loses it removes it.
///
/// Clones are handles of the same client. The last one to go shuts it down.
///
/// After a shutdown every call that asks for routes, subscriptions or announcements answers
/// [`Error::Closed`], and [`Error::Panicked`] if the client's thread has panicked: a client
/// that ended is never taken for one that has nothing.
#[derive(Clone)]
pub struct MetalBondClient {
    pub(super) running: Arc<Running>,
}

impl MetalBondClient {
    pub(super) fn new(running: Running) -> Self {
        Self {
            running: Arc::new(running),
        }
    }

    /// One more consumer: a channel that begins with all that is so, as events, and
    /// goes on with what changes.
    ///
    /// Nothing is missing and nothing comes twice between the two. The channel holds
    /// 1024 events; what changes while it is full is coalesced by destination. A thread
    /// feeds it until [`Events`] is dropped or the client is shut down.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the client has 8 consumers, the one it was made with
    /// among them; [`Error::Closed`] after a shutdown; [`Error::Io`] if there is no
    /// thread left.
    pub fn watch(&self, detail: EventDetail) -> Result<Events> {
        self.running.watch(detail)
    }

    /// Subscribes to a VNI at every server.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyVnis`] at the limit of [`ClientConfig::max_vnis`]; [`Error::Closed`] after
    /// a shutdown.
    pub fn subscribe(&self, vni: Vni) -> Result<Changed> {
        self.running
            .command(|reply| Command::Subscribe(vni, reply))?
    }

    /// Unsubscribes from a VNI; its routes are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn unsubscribe(&self, vni: Vni) -> Result<Changed> {
        self.running
            .command(|reply| Command::Unsubscribe(vni, reply))
    }

    /// Announces a route to every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteAlreadyAnnounced`] if it is; [`Error::Closed`] after a shutdown.
    pub fn announce(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        let command = |reply| Command::Announce(vni, route, reply);
        let is_new = self.running.command(command)?;
        is_new.then_some(()).ok_or(Error::RouteAlreadyAnnounced)
    }

    /// Withdraws a route from every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteNotFound`] if it is not announced; [`Error::Closed`] after a shutdown.
    pub fn withdraw(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        let command = |reply| Command::Withdraw(vni, route, reply);
        let was_there = self.running.command(command)?;
        was_there.then_some(()).ok_or(Error::RouteNotFound)
    }

    /// Waits until every established server has read all that this client wants at
    /// this moment.
    ///
    /// Each server is asked with a KEEPALIVE, which it answers after everything that came
    /// before. The answer says that the server has read it, not that its subscribers have
    /// heard of it yet. A server that is established meanwhile is waited for, one that is lost
    /// is not; at least one server has to be established.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it takes longer; [`Error::Closed`] after a shutdown.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.running.wait(timeout, Command::Flush)
    }

    /// Waits until the table of a VNI has been complete since it was subscribed to:
    /// everything that the servers had then is received.
    ///
    /// Servers that cannot be reached are not waited for, those that are being tried for the
    /// first time until that attempt fails, 10 s at most.
    ///
    /// # Errors
    ///
    /// [`Error::NotSubscribed`] at once; [`Error::Timeout`] if it takes longer;
    /// [`Error::Closed`] after a shutdown.
    pub fn wait_synced(&self, vni: Vni, timeout: Duration) -> Result<()> {
        let command = |waiter| Command::AwaitSynced(vni, waiter);
        self.running.wait(timeout, command)
    }

    /// Adds a server (`HOST:PORT`), which is told everything that this client wants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the text is not `HOST:PORT` or there are 32 servers already; [`Error::Closed`] after a
    /// shutdown.
    pub fn add_server(&self, server: impl Into<String>) -> Result<ServerId> {
        let server = server.into();
        self.running
            .command(|reply| Command::AddServer(server, reply))?
    }

    /// Leaves a server for good.
    ///
    /// Routes that only it had are treated as those of a server that is lost: they go once
    /// every other server at hand has told its table, has been up for
    /// [`ClientConfig::settle_time`] and does not have them, or when
    /// [`ClientConfig::stale_time`] is over. So a server can be replaced in either order
    /// without a gap. Its number is not used again.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn remove_server(&self, server: ServerId) -> Result<Changed> {
        let command = |reply| Command::RemoveServer(server, reply);
        self.running.command(command)
    }

    /// Changes settings of a running client. Returns the names of those that differ and cannot
    /// be changed: all but the ones below.
    ///
    /// No session ends: `keepalive_interval`, `handshake_timeout`, `legacy_pacing` and
    /// `legacy_rate` hold for new ones, `stale_time` holds at once, `settle_time` from the next
    /// loss or handshake on. `max_routes` and `max_vnis` hold at once for what is new; what is
    /// above a lower one stays.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its limits, then nothing is changed;
    /// [`Error::Closed`] after a shutdown.
    pub fn reconfigure(&self, config: ClientConfig) -> Result<Vec<&'static str>> {
        config.check_settings()?;
        let mut running = self.running.config.lock();
        self.running.command(|reply| Command::Reconfigure {
            core: config.core(),
            user_timeout: config.user_timeout(),
            reply,
        })?;
        let fixed = config.fixed(&running);
        running.keepalive_interval = config.keepalive_interval;
        running.handshake_timeout = config.handshake_timeout;
        running.stale_time = config.stale_time;
        running.settle_time = config.settle_time;
        running.legacy_pacing = config.legacy_pacing;
        running.legacy_rate = config.legacy_rate;
        running.max_routes = config.max_routes;
        running.max_vnis = config.max_vnis;
        Ok(fixed)
    }

    /// Where the client stands with all its servers.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.running.published.read(Status::state)
    }

    /// Where each server's connection stands.
    #[must_use]
    pub fn server_states(&self) -> BTreeMap<ServerId, ConnectionState> {
        self.running.published.read(|status| status.states.clone())
    }

    /// Whether a server is established.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.connected_count() > 0
    }

    /// How many servers are established.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        self.running.published.read(Status::established)
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.running.published.read(|status| status.names.len())
    }

    /// The servers, with their addresses as they were given.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<ServerId, String> {
        self.running.published.read(|status| status.names.clone())
    }

    /// The address of a server, as it was given.
    #[must_use]
    pub fn server_addr(&self, server: ServerId) -> Option<String> {
        let name = |status: &Status| status.names.get(&server).cloned();
        self.running.published.read(name)
    }

    /// Waits until a server is established.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is shut down meanwhile.
    pub fn wait_established(&self) -> Result<()> {
        self.wait_any_established()
    }

    /// Waits until any server is established.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is shut down meanwhile.
    pub fn wait_any_established(&self) -> Result<()> {
        self.running.published.wait(None, has_any)
    }

    /// Waits until all servers are established, and there is one at least. One under two names
    /// counts once.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is shut down meanwhile.
    pub fn wait_all_established(&self) -> Result<()> {
        self.running.published.wait(None, has_all)
    }

    /// As [`Self::wait_established`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Closed`] if the client is shut down.
    pub fn wait_established_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait_any_established_timeout(timeout)
    }

    /// As [`Self::wait_any_established`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Closed`] if the client is shut down.
    pub fn wait_any_established_timeout(&self, timeout: Duration) -> Result<()> {
        self.running.published.wait(Some(timeout), has_any)
    }

    /// As [`Self::wait_all_established`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Closed`] if the client is shut down.
    pub fn wait_all_established_timeout(&self, timeout: Duration) -> Result<()> {
        self.running.published.wait(Some(timeout), has_all)
    }

    /// The loop of the client's thread, to see whether it turns.
    ///
    /// The thread that hands events to the handler is not concerned: how long that takes is
    /// the handler's affair.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.running.heartbeat()
    }

    /// Whether the client still runs, and how it ended.
    #[must_use]
    pub fn life(&self) -> Life {
        self.running.published.life.clone()
    }

    /// Closes all connections and waits for the client's threads, 5 s at most.
    ///
    /// Other handles of this client answer [`Error::Closed`] from then on. Of several calls at
    /// the same time, each waits.
    ///
    /// # Errors
    ///
    /// As for [`Self::shutdown_timeout`].
    pub fn shutdown(&self) -> Result<()> {
        self.shutdown_timeout(STOP_TIMEOUT)
    }

    /// As [`Self::shutdown`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if a handler does not return in time: its thread ends when it
    /// does. [`Error::Panicked`] if the client's thread has panicked. The connections are closed
    /// in any case.
    pub fn shutdown_timeout(&self, timeout: Duration) -> Result<()> {
        self.running.stop(timeout)
    }
}

fn has_any(status: &Status) -> bool {
    status.established() > 0
}

fn has_all(status: &Status) -> bool {
    status.established() > 0 && status.established() == status.servers()
}
