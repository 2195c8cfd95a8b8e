//! The client: one thread for all servers, one for the handler.
//!
//! ```text
//! caller --Call--> metalbond-client --batches of events--> metalbond-handler
//!                  core, sockets                           RouteHandler
//! ```

mod backoff;
mod config;
mod core;
mod desired;
mod events;
mod handler;
mod link;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub use config::ClientConfig;
pub use events::Event;
pub use handler::{LoggingHandler, NoOpHandler, RouteHandler};

use self::core::Core;
use crate::error::{Error, Result};
use crate::net::Postbox;
use crate::types::{Destination, NextHop, Route, Vni};
use worker::{Mail, Worker};

/// A server of a client, by its place in the list that the client was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub usize);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server-{}", self.0)
    }
}

/// Where the connection to one server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Being connected for the first time.
    Connecting,
    /// HELLO is sent, the server's has not come.
    HelloSent,
    /// The server's HELLO has come, its first KEEPALIVE has not.
    HelloReceived,
    /// Routes flow.
    Established,
    /// Failed or lost; to be tried again.
    Retry,
    /// The client was shut down.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "CONNECTING",
            Self::HelloSent => "HELLO_SENT",
            Self::HelloReceived => "HELLO_RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::Retry => "RETRY",
            Self::Closed => "CLOSED",
        })
    }
}

/// Where the client stands with all its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// No server is established.
    Disconnected,
    /// Some are.
    PartiallyConnected {
        /// How many are established.
        connected: usize,
        /// How many there are.
        total: usize,
    },
    /// All are.
    FullyConnected,
    /// The client was shut down.
    Closed,
}

/// Whether a call changed what the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// That was wanted already.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// A client of one or more MetalBond servers.
///
/// It holds what its caller wants, subscriptions and announcements, and brings
/// every server to that, whenever it comes; no call waits for a server or fails
/// because of one. What the servers say is one view: the first that has a route
/// adds it, the last that loses it removes it.
///
/// Clones are handles of the same client. The last one to go shuts it down.
#[derive(Clone)]
pub struct MetalBondClient {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Vec<String>,
    postbox: Postbox<Mail>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The states of the servers, for those who wait for them; not on the way of a route.
struct Shared {
    states: Mutex<Vec<ConnectionState>>,
    changed: Condvar,
}

impl Shared {
    fn publish(&self, states: &[ConnectionState]) {
        self.states.lock().copy_from_slice(states);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.states.lock().fill(ConnectionState::Closed);
        self.changed.notify_all();
    }
}

impl MetalBondClient {
    /// Begins connecting to all `servers` (`"[::1]:4711"`, `"host:4711"`), and tells
    /// `handler` of routes.
    ///
    /// # Panics
    ///
    /// If [`Self::start`] fails: `servers` is empty, or the system has no thread or
    /// descriptor left.
    pub fn connect<S: AsRef<str>>(servers: &[S], handler: impl RouteHandler) -> Self {
        match Self::start(servers, handler, ClientConfig::default()) {
            Ok(client) => client,
            Err(error) => panic!("cannot start a client: {error}"),
        }
    }

    /// As [`Self::connect`], with settings.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, or a system without threads or descriptors left.
    pub fn start<S: AsRef<str>>(
        servers: &[S],
        handler: impl RouteHandler,
        config: ClientConfig,
    ) -> Result<Self> {
        let servers: Vec<String> = servers.iter().map(|it| it.as_ref().to_owned()).collect();
        config.check(&servers)?;
        let core = Core::new(config.core(), servers.len(), Instant::now());
        let shared = Arc::new(Shared {
            states: Mutex::new(core.states()),
            changed: Condvar::new(),
        });
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let timeout = Duration::from_secs(config.keepalive_interval.into()) * 5;
        let (worker, postbox) = Worker::new(core, &servers, sender, Arc::clone(&shared), timeout)
            .map_err(Error::io("make a mailbox"))?;
        let inner = Arc::new(Inner {
            servers,
            postbox: postbox.clone(),
            shared,
            threads: Mutex::new(Vec::new()),
        });
        inner.spawn("metalbond-client", move || worker.run())?;
        inner.spawn("metalbond-handler", move || {
            handler::run(&handler, &receiver, &postbox);
        })?;
        Ok(Self { inner })
    }

    /// Runs `call` on the client's thread and waits for its answer.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let call = Box::new(move |core: &mut Core, _: Instant| {
            // Nobody listens any more if the caller is gone; that is its affair.
            drop(sender.send(call(core)));
        });
        self.inner.postbox.post(Mail::Call(call), 1);
        receiver.recv().map_err(|_| Error::Closed)
    }

    /// Wants the routes of a VNI.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn subscribe(&self, vni: Vni) -> Result<Changed> {
        self.call(move |core| core.subscribe(vni).into())
    }

    /// Does not want the routes of a VNI any more; they are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn unsubscribe(&self, vni: Vni) -> Result<Changed> {
        self.call(move |core| core.unsubscribe(vni).into())
    }

    /// Announces a route to every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteAlreadyAnnounced`] if it is; [`Error::Closed`] after a shutdown.
    pub fn announce(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        self.call(move |core| core.announce(vni, route))?
    }

    /// Withdraws a route from every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteNotFound`] if it is not announced; [`Error::Closed`] after a shutdown.
    pub fn withdraw(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        self.call(move |core| core.withdraw(vni, route))?
    }

    /// Where the client stands with all its servers.
    #[must_use]
    pub fn state(&self) -> ClientState {
        let states = self.inner.shared.states.lock();
        let total = states.len();
        let connected = count_established(&states);
        match connected {
            _ if states.contains(&ConnectionState::Closed) => ClientState::Closed,
            0 => ClientState::Disconnected,
            _ if connected == total => ClientState::FullyConnected,
            _ => ClientState::PartiallyConnected { connected, total },
        }
    }

    /// Where each server's connection stands.
    #[must_use]
    pub fn server_states(&self) -> BTreeMap<ServerId, ConnectionState> {
        let states = self.inner.shared.states.lock();
        let numbered = states.iter().enumerate();
        numbered.map(|(it, state)| (ServerId(it), *state)).collect()
    }

    /// Whether a server is established.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.connected_count() > 0
    }

    /// How many servers are established.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        count_established(&self.inner.shared.states.lock())
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.inner.servers.len()
    }

    /// The address of a server, as it was given.
    #[must_use]
    pub fn server_addr(&self, server: ServerId) -> Option<&str> {
        self.inner.servers.get(server.0).map(String::as_str)
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
        self.wait(None, |states| count_established(states) > 0)
    }

    /// Waits until all servers are established.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is shut down meanwhile.
    pub fn wait_all_established(&self) -> Result<()> {
        self.wait(None, |states| count_established(states) == states.len())
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
        self.wait(Some(timeout), |states| count_established(states) > 0)
    }

    /// As [`Self::wait_all_established`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Closed`] if the client is shut down.
    pub fn wait_all_established_timeout(&self, timeout: Duration) -> Result<()> {
        let all = |states: &[ConnectionState]| count_established(states) == states.len();
        self.wait(Some(timeout), all)
    }

    fn wait(
        &self,
        timeout: Option<Duration>,
        is_reached: impl Fn(&[ConnectionState]) -> bool,
    ) -> Result<()> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let shared = &self.inner.shared;
        let mut states = shared.states.lock();
        loop {
            if states.contains(&ConnectionState::Closed) {
                return Err(Error::Closed);
            }
            if is_reached(&states) {
                return Ok(());
            }
            match until {
                Some(until) if shared.changed.wait_until(&mut states, until).timed_out() => {
                    return Err(Error::Timeout);
                }
                Some(_) => {}
                None => shared.changed.wait(&mut states),
            }
        }
    }

    /// The received routes of a VNI, in order; without those suppressed because this
    /// client announces their destination itself.
    #[must_use]
    pub fn get_received_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self
            .call(move |core| core.received(vni))
            .unwrap_or_default();
        let visible = received.into_iter().filter(|(_, suppressed)| !suppressed);
        visible.map(|(route, _)| route).collect()
    }

    /// The received routes of all VNIs, in order; without those suppressed.
    #[must_use]
    pub fn routes(&self) -> Vec<(Vni, Route)> {
        self.call(|core| core.received_everywhere())
            .unwrap_or_default()
    }

    /// The received routes of a VNI that are suppressed because this client announces
    /// their destination itself.
    #[must_use]
    pub fn suppressed_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self
            .call(move |core| core.received(vni))
            .unwrap_or_default();
        let hidden = received.into_iter().filter(|(_, suppressed)| *suppressed);
        hidden.map(|(route, _)| route).collect()
    }

    /// What this client announces, in order.
    #[must_use]
    pub fn get_announced_routes(&self) -> Vec<(Vni, Route)> {
        self.call(|core| core.announced()).unwrap_or_default()
    }

    /// The VNIs this client subscribes to.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<Vni> {
        let vnis = self.call(|core| core.subscribed()).unwrap_or_default();
        vnis.into_iter().collect()
    }

    /// How many distinct routes are received, suppressed ones among them.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.call(|core| core.route_count()).unwrap_or_default()
    }

    /// Whether no route is received.
    #[must_use]
    pub fn is_route_table_empty(&self) -> bool {
        self.route_count() == 0
    }

    /// The servers that have a route; `None` if it is not received.
    ///
    /// Empty while the servers that had it are lost and the hold time runs.
    #[must_use]
    pub fn get_route_servers(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<BTreeSet<ServerId>> {
        let (destination, next_hop) = (*destination, *next_hop);
        let servers = self.call(move |core| core.servers_of(vni, &destination, &next_hop));
        Some(servers.ok()??.into_iter().collect())
    }

    /// Closes all connections and waits for the client's threads.
    ///
    /// A handler that does not return is waited for; other handles of this client
    /// answer [`Error::Closed`] from then on.
    ///
    /// # Errors
    ///
    /// None at present; the client is down in any case.
    pub fn shutdown(&self) -> Result<()> {
        self.inner.stop();
        Ok(())
    }
}

fn count_established(states: &[ConnectionState]) -> usize {
    let is_established = |state: &&ConnectionState| **state == ConnectionState::Established;
    states.iter().filter(is_established).count()
}

impl Inner {
    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(Error::io("start a thread"))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn stop(&self) {
        self.postbox.post(Mail::Stop, 1);
        let threads: Vec<JoinHandle<()>> = self.threads.lock().drain(..).collect();
        for thread in threads {
            // A handler may hold the last handle: its thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                log::error!("a client thread had panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
