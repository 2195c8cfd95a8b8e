//! The server: threads and sockets around the shards.
//!
//! ```text
//! metalbond-accept --Accepted--> metalbond-0 <--Messages--> metalbond-1 ...
//!      listener                   shard 0, its sockets       shard 1, its sockets
//! ```

mod acceptor;
mod config;
mod drain;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use config::ServerConfig;
pub use drain::Drain;
pub use stats::ServerStats;

use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::net::{MAILBOX_WEIGHT, Postbox, listen_on_first};
use crate::shard::{Shard, Topology};
use crate::types::{Route, Vni};
use acceptor::{AcceptLimits, Acceptor, Notice};
use drain::Order;
use stats::WorkerStats;
use worker::{AddressOf, Links, Mail, Worker};

const ACCEPTOR_NAME: &str = "metalbond-accept";

fn worker_name(id: usize) -> String {
    format!("metalbond-{id}")
}

/// A running MetalBond server.
///
/// Stops when told to by [`Self::shutdown`], or when dropped; both wait for its
/// threads, which end within a turn of their loop (milliseconds).
pub struct MetalBondServer {
    address: SocketAddr,
    stats: Vec<Arc<WorkerStats>>,
    workers: Vec<Postbox<Mail>>,
    acceptor: Postbox<Notice>,
    refused: Arc<AtomicU64>,
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

    /// Starts a server on a socket that listens already, as one that a service manager passed.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]; [`Error::InvalidConfig`] too if the socket does not listen.
    pub fn start_on(listener: TcpListener, config: ServerConfig) -> Result<Self> {
        config.check()?;
        let examined = socket2::SockRef::from(&listener).is_listener();
        if !examined.map_err(Error::io("examine the listening socket"))? {
            return Err(Error::InvalidConfig("the socket does not listen".into()));
        }
        listener
            .set_nonblocking(true)
            .map_err(Error::io("prepare the listening socket"))?;
        Self::serve(listener, &config, MAILBOX_WEIGHT)
    }

    /// As [`Self::start`], with mailboxes that are full from a weight of `high` on.
    fn start_with(address: impl ToSocketAddrs, config: ServerConfig, high: usize) -> Result<Self> {
        config.check()?;
        Self::serve(listen_on_first(address)?, &config, high)
    }

    fn serve(listener: TcpListener, config: &ServerConfig, high: usize) -> Result<Self> {
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
        let mut server = Self {
            address,
            stats: (0..topology.shards()).map(|_| Arc::default()).collect(),
            workers,
            acceptor: acceptor_postbox,
            refused,
            threads: Vec::new(),
        };
        // What the peer's kernel leaves unacknowledged for as long as send hold, nobody reads.
        let timeout = Duration::from_secs(config.keepalive_interval.into()) * 5;
        for (id, mailbox) in mailboxes.into_iter().enumerate() {
            let shard = Shard::new(id, topology, shard_config, Instant::now());
            let links = Links {
                workers: server.workers.clone(),
                acceptor: server.acceptor.clone(),
                stats: server.stats.clone(),
                paces: Arc::clone(&paces),
            };
            let worker = Worker::new(id, shard, mailbox, links, timeout);
            server.spawn(worker_name(id), || worker.run())?;
        }
        server.spawn(ACCEPTOR_NAME.into(), || acceptor.run())?;
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
        self.address
    }

    /// What the server has and has done.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        let mut total = ServerStats {
            refused_sessions: self.refused.load(Ordering::Relaxed),
            ..ServerStats::default()
        };
        for stats in &self.stats {
            stats.add_to(&mut total);
        }
        total
    }

    /// Every route of every VNI, in order.
    ///
    /// The threads are asked one after the other, so the answer is exact for each
    /// VNI, and may mix moments between VNIs.
    #[must_use]
    pub fn routes(&self) -> Vec<(Vni, Route)> {
        let mut routes = self.ask_all(|shard, _| {
            let mut routes = Vec::new();
            shard.for_each_route(|vni, route| routes.push((vni, route)));
            routes
        });
        routes.sort_unstable();
        routes
    }

    /// The sessions, whatever their state.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let now = Instant::now();
        let mut peers = self.ask_all(move |shard, address| {
            let mut peers = Vec::new();
            shard.for_each_session(|view| {
                if let Some(address) = address(view.id) {
                    peers.push(PeerStatus {
                        address,
                        established: view.established,
                        keepalive_interval: view.keepalive_interval,
                        silent: now.saturating_duration_since(view.last_received),
                        subscriptions: view.subscriptions,
                        queued_bytes: view.queued_bytes,
                        legacy_rate: view.legacy_rate,
                        updates_received: view.counters.updates,
                        malformed: view.counters.malformed,
                        refused: view.counters.refused,
                        folds: view.counters.folds,
                    });
                }
            });
            peers
        });
        peers.sort_unstable_by_key(|peer| peer.address);
        peers
    }

    /// Has every worker look at its shard, and collects what they found.
    fn ask_all<T: Send + 'static>(
        &self,
        look: impl Fn(&Shard, &AddressOf<'_>) -> Vec<T> + Send + Sync + 'static,
    ) -> Vec<T> {
        let look = Arc::new(look);
        let (sender, receiver) = crossbeam_channel::unbounded();
        for worker in &self.workers {
            let (look, sender) = (Arc::clone(&look), sender.clone());
            let inspect = Mail::Inspect(Box::new(move |shard, address| {
                // Nobody listens any more if the asker is gone; that is its affair.
                drop(sender.send(look(shard, address)));
            }));
            worker.post(inspect, 1);
        }
        drop(sender);
        receiver.iter().flatten().collect()
    }

    /// Stops listening, and ends the sessions one after the other, spread evenly over a time.
    ///
    /// So their peers come to the other servers one after the other too. A peer sees its
    /// connection closed, and its next attempt refused; those whose turn has not come are
    /// served as ever, which tells them of the routes that leave with the others. The server
    /// does not listen again; [`Self::shutdown`] ends what is left at once.
    ///
    /// Each worker closes its share in random order, each session at a random moment of its
    /// part of the time.
    pub fn drain(&self, over: Duration) -> Drain {
        let (order, drain) = Order::new(|_| true, over);
        self.acceptor.post(Notice::Drain(order), 1);
        drain
    }

    /// Ends the sessions of some peers, chosen by their address, spread evenly over a time.
    ///
    /// The server goes on listening: a peer may come back at once.
    pub fn drain_peers(
        &self,
        concerns: impl Fn(SocketAddr) -> bool + Send + Sync + 'static,
        over: Duration,
    ) -> Drain {
        let (order, drain) = Order::new(concerns, over);
        for worker in &self.workers {
            worker.post(Mail::Drain(order.clone()), 1);
        }
        drain
    }

    /// The loops of the server's threads, to see whether they turn.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(id, worker)| worker.beat(worker_name(id)));
        let acceptor = self.acceptor.beat(ACCEPTOR_NAME);
        Heartbeat::new(workers.chain([acceptor]).collect())
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
        for worker in &self.workers {
            worker.post(Mail::Stop, 1);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a server thread had panicked");
            }
        }
        log::info!("stopped listening on {}", self.address);
    }
}

impl Drop for MetalBondServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A session of a server, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Whether the handshake is complete.
    pub established: bool,
    /// Seconds between KEEPALIVEs, as negotiated.
    pub keepalive_interval: u32,
    /// How long nothing has come from it.
    pub silent: Duration,
    /// VNIs it subscribes to.
    pub subscriptions: usize,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: usize,
    /// Bytes per second that it is sent at most, if it is a legacy peer and paced.
    pub legacy_rate: Option<u32>,
    /// UPDATEs received from it.
    pub updates_received: u64,
    /// Messages of it that were dropped as malformed.
    pub malformed: u64,
    /// Announcements and subscriptions refused to it because of a limit.
    pub refused: u64,
    /// Times its queue was folded.
    pub folds: u64,
}
