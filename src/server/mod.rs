//! The server: threads and sockets around the shards.
//!
//! ```text
//! metalbond-accept --Accepted--> metalbond-0 <--Messages--> metalbond-1 ...
//!      listener                   shard 0, its sockets       shard 1, its sockets
//! ```

mod acceptor;
mod config;
mod flaps;
mod inspector;
mod stats;
mod tap;
#[cfg(test)]
mod tests;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub use config::ServerConfig;
pub use stats::ServerStats;

use crate::error::{Error, Result};
use crate::inspect::{Inspect, PeerStatus};
use crate::net::{MAILBOX_WEIGHT, Postbox, listen_on_first};
use crate::shard::{Shard, Topology};
use crate::types::{Route, Vni};
use acceptor::{AcceptLimits, Acceptor, Notice};
use flaps::Flaps;
use inspector::Inspector;
use stats::WorkerStats;
use worker::{Links, Mail, Worker};

/// A running MetalBond server.
///
/// Stops when told to by [`Self::shutdown`], or when dropped; both wait for its
/// threads, which end within a turn of their loop (milliseconds).
pub struct MetalBondServer {
    inspector: Inspector,
    acceptor: Postbox<Notice>,
    threads: Vec<JoinHandle<()>>,
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

    /// As [`Self::start`], with mailboxes that are full from a weight of `high` on.
    fn start_with(address: impl ToSocketAddrs, config: ServerConfig, high: usize) -> Result<Self> {
        config.check()?;
        let listener = listen_on_first(address)?;
        let address = listener
            .local_addr()
            .map_err(Error::io("read the listening address"))?;
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
        let limits = AcceptLimits {
            sessions: config.max_sessions,
            per_address: config.max_sessions_per_address,
            per_second: config.max_accepts_per_second,
        };
        let refused = Arc::new(AtomicU64::new(0));
        let (acceptor, acceptor_postbox) =
            Acceptor::new(listener, workers.clone(), limits, Arc::clone(&refused))
                .map_err(Error::io("register the listener"))?;
        let paces = Arc::default();
        let stats = (0..topology.shards()).map(|_| Arc::default());
        let stats: Vec<Arc<WorkerStats>> = stats.collect();
        let flaps = Arc::new(Mutex::new(Flaps::default()));
        let mut server = Self {
            inspector: Inspector {
                address,
                topology,
                workers,
                acceptor: acceptor_postbox.clone(),
                stats,
                refused,
                flaps: Arc::clone(&flaps),
                started: (SystemTime::now(), Instant::now()),
                watchers: Arc::default(),
            },
            acceptor: acceptor_postbox,
            threads: Vec::new(),
        };
        // What the peer's kernel leaves unacknowledged for as long as send hold, nobody reads.
        let timeout = Duration::from_secs(config.keepalive_interval.into()) * 5;
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
            server.spawn(format!("metalbond-{id}"), || worker.run())?;
        }
        server.spawn("metalbond-accept".into(), || acceptor.run())?;
        log::info!("listening on {address} with {} workers", topology.shards());
        Ok(server)
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(run);
        self.threads
            .push(thread.map_err(Error::io("start a thread"))?);
        Ok(())
    }

    /// The address listened on, with the port that was chosen if it was 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inspector.address
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
    #[must_use]
    pub fn routes(&self) -> Vec<(Vni, Route)> {
        let snapshot = self.inspector.snapshot(None);
        let entries = snapshot.entries().iter();
        entries.map(|it| (it.vni, it.route)).collect()
    }

    /// The sessions, whatever their state.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inspector.peers()
    }

    /// Stops the server and closes all sessions.
    ///
    /// # Errors
    ///
    /// None at present; the server is down in any case.
    pub fn shutdown(mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn stop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.acceptor.post(Notice::Stop, 1);
        for worker in &self.inspector.workers {
            worker.post(Mail::Stop, 1);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a server thread had panicked");
            }
        }
        log::info!("stopped listening on {}", self.local_addr());
    }
}

impl Drop for MetalBondServer {
    fn drop(&mut self) {
        self.stop();
    }
}
