//! The server: threads and sockets around the shards.
//!
//! ```text
//! metalbond-accept --Accepted--> metalbond-0 <--Messages--> metalbond-1 ...
//!      listener                   shard 0, its sockets       shard 1, its sockets
//!        ^                          ^
//!        '------- AcceptorMail -----+----- Request ---- callers, inspectors
//! ```
//!
//! `mail` lists all that can come to a thread.

mod acceptor;
mod config;
mod drain;
mod flaps;
mod holds;
mod inspector;
mod journal;
mod mail;
mod memory;
mod stats;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub use config::ServerConfig;
pub use drain::Drain;

use crate::core::reflector::{Shard, Topology};
use crate::core::types::{Route, Vni};
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::inspect::{Inspect, PeerStatus, ServerStats};
use crate::life::Life;
use crate::net::{Endpoint, Listener, MAILBOX_WEIGHT, Postbox, listen_on_first};
use acceptor::Acceptor;
use drain::Order;
use flaps::Flaps;
use inspector::Inspector;
use mail::{AcceptorMail, Request, WorkerMail};
use stats::WorkerStats;
use worker::{Links, Worker};

const ACCEPTOR_NAME: &str = "metalbond-accept";

fn worker_name(id: usize) -> String {
    format!("metalbond-{id}")
}

/// A running MetalBond server.
///
/// Stops when told to by [`Self::shutdown`], or when dropped; both wait for its
/// threads, which end within a turn of their loop (milliseconds).
pub struct MetalBondServer {
    inspector: Inspector,
    acceptor: Postbox<AcceptorMail>,
    threads: Vec<JoinHandle<()>>,
    life: Life,
    /// The settings that hold at present; read and written by [`Self::reconfigure`] alone.
    config: Mutex<ServerConfig>,
}

impl MetalBondServer {
    /// Starts a server on `address`, such as `"[::]:4711"` for both families.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, an address that cannot be listened on, or a
    /// system that has no threads or descriptors left.
    pub fn start(address: impl ToSocketAddrs, config: ServerConfig) -> Result<Self> {
        Self::start_with(address, config, MAILBOX_WEIGHT)
    }

    /// Starts a server on sockets that listen already: of several endpoints, of a Unix socket, or
    /// one that a service manager passed.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]; [`Error::InvalidConfig`] too if there is no listener.
    pub fn start_on(
        listeners: impl IntoIterator<Item = Listener>,
        config: ServerConfig,
    ) -> Result<Self> {
        Self::serve(listeners.into_iter().collect(), &config, MAILBOX_WEIGHT)
    }

    /// As [`Self::start`], with mailboxes that are full from a weight of `high` on.
    fn start_with(address: impl ToSocketAddrs, config: ServerConfig, high: usize) -> Result<Self> {
        config.check()?;
        let listener = listen_on_first(address)?.try_into()?;
        Self::serve(vec![listener], &config, high)
    }

    fn serve(listeners: Vec<Listener>, config: &ServerConfig, high: usize) -> Result<Self> {
        config.check()?;
        let endpoints = listeners.iter().map(|it| it.endpoint().clone());
        let endpoints: Arc<[Endpoint]> = endpoints.collect();
        if endpoints.is_empty() {
            return Err(Error::InvalidConfig("there is nothing to listen on".into()));
        }
        let seed = crate::random::seed();
        let topology = Topology::new(config.workers.get());
        let shard_config = config.shard(seed);
        let mut mailboxes = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..topology.shards() {
            let (mailbox, postbox) = Worker::mailbox(high).map_err(Error::io("make a mailbox"))?;
            mailboxes.push(mailbox);
            workers.push(postbox);
        }
        let limits = config.accept_limits();
        let refused = Arc::new(AtomicU64::new(0));
        let stats = (0..topology.shards()).map(|_| Arc::default());
        let stats: Vec<Arc<WorkerStats>> = stats.collect();
        let (acceptor, acceptor_postbox) = Acceptor::new(
            listeners,
            topology,
            workers.clone(),
            limits,
            Arc::clone(&refused),
            stats.clone(),
        )
        .map_err(Error::io("register the listener"))?;
        let paces = Arc::default();
        let flaps = Arc::new(Mutex::new(Flaps::default()));
        let life = Life::default();
        let mut server = Self {
            inspector: Inspector {
                endpoints: Arc::clone(&endpoints),
                topology,
                workers,
                acceptor: acceptor_postbox.clone(),
                stats,
                refused,
                flaps: Arc::clone(&flaps),
                started: (SystemTime::now(), Instant::now()),
                watchers: Arc::default(),
                memory_limit: Arc::new(AtomicUsize::new(config.memory())),
                life: life.clone(),
            },
            acceptor: acceptor_postbox,
            threads: Vec::new(),
            life: life.clone(),
            config: Mutex::new(config.clone()),
        };
        let timeout = config.user_timeout();
        for (id, mailbox) in mailboxes.into_iter().enumerate() {
            let shard = Shard::new(id, topology, shard_config, Instant::now());
            let links = Links {
                workers: server.inspector.workers.clone(),
                acceptor: server.acceptor.clone(),
                stats: server.inspector.stats.clone(),
                paces: Arc::clone(&paces),
                flaps: Arc::clone(&flaps),
            };
            let worker = Worker::new(id, shard, mailbox, links, timeout);
            server.spawn(worker_name(id), worker, Worker::run)?;
        }
        server.spawn(ACCEPTOR_NAME.into(), acceptor, Acceptor::run)?;
        for endpoint in &*endpoints {
            log::info!("listening on {endpoint} with {} workers", topology.shards());
        }
        Ok(server)
    }

    /// Starts the thread of something. If it panics the other threads end too: half a server
    /// would keep its peers, and tell them half of the routes.
    fn spawn<T: Send + 'static>(
        &mut self,
        name: String,
        mut owner: T,
        run: fn(&mut T),
    ) -> Result<()> {
        let others = self.inspector.clone();
        let guard = self.life.guard(name.clone(), move || others.stop());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            // Dropped before the owner: callers that lose its mailbox then see why.
            let _guard = guard;
            run(&mut owner);
        });
        self.threads
            .push(thread.map_err(Error::io("start a thread"))?);
        Ok(())
    }

    /// Changes the settings of a running server; the names of those that it cannot change
    /// (`workers`, `node_id`), which stay as they are.
    ///
    /// No session ends: limits hold from the next request on, and what a session agrees on or
    /// is made with (`keepalive_interval`, `handshake_timeout`, `legacy_pacing`,
    /// `legacy_rate`) holds for new ones.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its limits; then nothing is changed.
    pub fn reconfigure(&self, config: ServerConfig) -> Result<Vec<&'static str>> {
        config.check()?;
        let mut running = self.config.lock();
        let fixed = config.fixed(&running);
        self.acceptor
            .post(AcceptorMail::Limits(config.accept_limits()), 1);
        for worker in &self.inspector.workers {
            let request = Request::Reconfigure {
                shard: config.shard(0),
                user_timeout: config.user_timeout(),
            };
            worker.post(WorkerMail::Request(Box::new(request)), 1);
        }
        self.inspector
            .memory_limit
            .store(config.memory(), Ordering::Relaxed);
        *running = ServerConfig {
            workers: running.workers,
            node_id: running.node_id,
            ..config
        };
        Ok(fixed)
    }

    /// Where the server listens, with the ports that were chosen for 0.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.inspector.endpoints
    }

    /// The first address that is listened on, with the port that was chosen if it was 0.
    ///
    /// A server that listens on Unix sockets alone has none: it is `[::]:0` then.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let nowhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let mut addresses = self.endpoints().iter().filter_map(Endpoint::address);
        addresses.next().unwrap_or(nowhere)
    }

    /// What the server has and has done.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.inspector.stats()
    }

    /// What can be seen and changed of the server while it runs.
    #[must_use]
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::new(Inspector::clone(&self.inspector))
    }

    /// Every route of every VNI, in order.
    ///
    /// A route that is there all the time is among them, one that comes or goes meanwhile
    /// may be.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if a thread of the server has panicked.
    pub fn routes(&self) -> Result<Vec<(Vni, Route)>> {
        let snapshot = self.inspector.snapshot(None)?;
        let entries = snapshot.entries().iter();
        Ok(entries.map(|it| (it.vni, it.route)).collect())
    }

    /// The sessions, whatever their state.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if a thread of the server has panicked.
    pub fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.inspector.peers()
    }

    /// Stops listening, and ends the sessions one after the other, spread evenly over a time.
    ///
    /// So their peers come to the other servers one after the other too. A peer sees its
    /// connection closed, after what waited for it, and its next attempt refused; those whose
    /// turn has not come are served as ever, which tells them of the routes that leave with the
    /// others. The server does not listen again; [`Self::shutdown`] ends what is left at once.
    ///
    /// Each worker closes its share in random order, each session at a random moment of its
    /// part of the time.
    pub fn drain(&self, over: Duration) -> Drain {
        let (order, drain) = Order::new(over);
        self.acceptor.post(AcceptorMail::Drain(order), 1);
        drain
    }

    /// The loops of the server's threads, to see whether they turn.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        let workers = self.inspector.workers.iter().enumerate();
        let workers = workers.map(|(id, worker)| worker.beat(worker_name(id)));
        let acceptor = self.acceptor.beat(ACCEPTOR_NAME);
        Heartbeat::new(workers.chain([acceptor]).collect())
    }

    /// Whether the server still runs, and how it ended.
    ///
    /// If one of its threads panics, the server ends as a whole: its peers then go to other
    /// servers, instead of being told half of the routes by this one.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// Stops the server and closes all sessions.
    ///
    /// # Errors
    ///
    /// [`Error::Panicked`] if one of its threads has panicked; the server is down in any case.
    pub fn shutdown(mut self) -> Result<()> {
        self.stop();
        self.life.verdict()
    }

    fn stop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.inspector.stop();
        for thread in self.threads.drain(..) {
            // Its guard says why it panicked.
            drop(thread.join());
        }
        self.life.stop();
        for endpoint in self.endpoints() {
            log::info!("stopped listening on {endpoint}");
        }
    }
}

impl Drop for MetalBondServer {
    fn drop(&mut self) {
        self.stop();
    }
}
