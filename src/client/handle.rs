//! The handle of a client that has a thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::ClientState;
use super::builder::{Builder, CHANNEL_EVENTS};
use super::config::ClientConfig;
use super::engine::{Engine, Goal, Mail, Waiter};
use super::handler::{self, Feed, RouteHandler};
use super::inspector::Inspector;
use super::status::{Shared, Status};
use super::worker::{self, Sink, Way};
use crate::core::client::{
    AnnouncementState, Changed, ConnectionState, ConsumerId, Core, Event, EventDetail, ServerId,
};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::inspect::Inspect;
use crate::net::Postbox;

/// How long a shutdown, or the last handle that is dropped, waits for the threads.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

const THREAD_NAME: &str = "metalbond-client";

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
    postbox: Postbox<Mail>,
    shared: Arc<Shared>,
    /// Dropped to tell the consumer's thread to stop.
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    threads: Mutex<Vec<Thread>>,
    /// As last told; not on the way of a route.
    config: Mutex<ClientConfig>,
}

struct Thread {
    handle: JoinHandle<()>,
    /// Disconnected when the thread is at its end.
    ended: Receiver<()>,
}

impl MetalBondClient {
    /// Begins the settings of a client.
    pub fn builder() -> Builder {
        Builder::new()
    }

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
        Self::builder()
            .config(config)
            .servers(servers)
            .handler(handler)
    }

    /// A client of an engine that is ready to run.
    ///
    /// Its first consumer's events are to be found in the feed.
    pub(super) fn run(
        engine: Engine,
        shared: Arc<Shared>,
        config: ClientConfig,
    ) -> Result<(Self, Feed)> {
        let (batches, receiver) = crossbeam_channel::bounded(1);
        let client = Self::run_with(engine, shared, config, Way::Thread(batches))?;
        let feed = client.feed(receiver);
        Ok((client, feed))
    }

    /// A client of an engine that is ready to run, and the way to its first consumer.
    pub(super) fn run_with(
        mut engine: Engine,
        shared: Arc<Shared>,
        config: ClientConfig,
        way: Way,
    ) -> Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let postbox = engine.postbox();
        let client = Self {
            inner: Arc::new(Inner {
                postbox,
                shared,
                stop: Mutex::new(Some(stop)),
                stopped,
                threads: Mutex::new(Vec::new()),
                config: Mutex::new(config),
            }),
        };
        engine.sinks.push(Sink {
            consumer: ConsumerId::FIRST,
            way,
        });
        client
            .inner
            .spawn(THREAD_NAME, move || worker::run(engine))?;
        Ok(client)
    }

    /// What can be seen and changed of the client while it runs.
    #[must_use]
    pub fn inspector(&self) -> Arc<dyn Inspect> {
        Arc::new(Inspector::new(self.clone()))
    }

    /// The same, with what a writer of its routes has in the kernel.
    #[cfg(all(feature = "netlink", target_os = "linux"))]
    #[must_use]
    pub fn inspector_with(&self, kernel: crate::kernel::KernelWriter) -> Arc<dyn Inspect> {
        let mut inspector = Inspector::new(self.clone());
        inspector.kernel = Some(kernel);
        Arc::new(inspector)
    }

    /// A number that is another one after any change of a table.
    pub(super) fn generation(&self) -> u64 {
        self.inner.shared.generation()
    }

    fn feed(&self, batches: Receiver<Vec<Event>>) -> Feed {
        Feed {
            batches,
            postbox: self.inner.postbox.clone(),
            stopped: self.inner.stopped.clone(),
        }
    }

    /// One more consumer: a channel that begins with all that is so, as events, and
    /// goes on with what changes.
    ///
    /// Nothing is missing and nothing comes twice between the two. The channel holds
    /// 1024 events; what changes while it is full is coalesced by destination. A thread
    /// feeds it until its receiver is dropped and one more event comes, or the client is
    /// shut down.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the client has 8 consumers, the one it was made with
    /// among them; [`Error::Closed`] after a shutdown; [`Error::Io`] if there is no
    /// thread left.
    pub fn watch(&self, detail: EventDetail) -> Result<Receiver<Event>> {
        let (batches, receiver) = crossbeam_channel::bounded(1);
        let feed = self.feed(receiver);
        let consumer = self.call(move |engine, _| {
            let Some(consumer) = engine.core.attach(detail) else {
                let text = "a client has 8 consumers of events at most";
                return Err(Error::InvalidConfig(text.into()));
            };
            let way = Way::Thread(batches);
            engine.sinks.push(Sink { consumer, way });
            Ok(consumer)
        })??;
        let (sender, events) = crossbeam_channel::bounded(CHANNEL_EVENTS);
        let detach = move |engine: &mut Engine, _: Instant| engine.detach(consumer);
        let postbox = self.inner.postbox.clone();
        let spawned = self.inner.spawn("metalbond-watch", move || {
            handler::forward(&sender, &feed);
            postbox.post(Mail::Call(Box::new(detach)), 1);
        });
        if spawned.is_err() {
            self.call(detach)?;
        }
        spawned?;
        Ok(events)
    }

    /// Starts the thread that hands a client's events to its consumer.
    pub(super) fn consume(&self, run: impl FnOnce() + Send + 'static) -> Result<()> {
        self.inner.spawn("metalbond-handler", run)
    }

    /// Runs `call` on the client's thread and waits for its answer.
    pub(super) fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Engine, Instant) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let call = Box::new(move |engine: &mut Engine, now: Instant| {
            // Nobody listens any more if the caller is gone; that is its affair.
            drop(sender.send(call(engine, now)));
        });
        self.inner.postbox.post(Mail::Call(call), 1);
        receiver.recv().map_err(|_| Error::Closed)
    }

    /// As [`Self::call`], for what only the core is needed for.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T> {
        self.call(move |engine, _| ask(&mut engine.core))
    }

    /// Waits until the goal that `begin` sets is reached.
    fn reach(
        &self,
        timeout: Duration,
        begin: impl FnOnce(&mut Core) -> Goal + Send + 'static,
    ) -> Result<()> {
        let (answer, receiver) = crossbeam_channel::bounded(1);
        let caller = Arc::new(());
        let waiting = Arc::downgrade(&caller);
        let call = Box::new(move |engine: &mut Engine, _: Instant| {
            let goal = begin(&mut engine.core);
            engine.wait(Waiter {
                goal,
                answer,
                caller: waiting,
            });
        });
        self.inner.postbox.post(Mail::Call(call), 1);
        match receiver.recv_timeout(timeout) {
            Ok(reached) => reached,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Closed),
        }
    }

    /// Wants the routes of a VNI.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn subscribe(&self, vni: Vni) -> Result<Changed> {
        self.ask(move |core| core.subscribe(vni).into())
    }

    /// Does not want the routes of a VNI any more; they are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn unsubscribe(&self, vni: Vni) -> Result<Changed> {
        self.ask(move |core| core.unsubscribe(vni).into())
    }

    /// Announces a route to every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteAlreadyAnnounced`] if it is; [`Error::Closed`] after a shutdown.
    pub fn announce(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        let is_new = self.ask(move |core| core.announce(vni, route))?;
        is_new.then_some(()).ok_or(Error::RouteAlreadyAnnounced)
    }

    /// Withdraws a route from every server.
    ///
    /// # Errors
    ///
    /// [`Error::RouteNotFound`] if it is not announced; [`Error::Closed`] after a shutdown.
    pub fn withdraw(&self, vni: Vni, destination: Destination, next_hop: NextHop) -> Result<()> {
        let route = Route::new(destination, next_hop);
        let was_there = self.ask(move |core| core.withdraw(vni, route))?;
        was_there.then_some(()).ok_or(Error::RouteNotFound)
    }

    /// Waits until every established server has read all that this client wants at
    /// this moment.
    ///
    /// Each server is asked with a KEEPALIVE, which it answers after all that came
    /// before; that it has read them, not that its subscribers have heard of them yet. A
    /// server that is established meanwhile is waited for, one that is lost is
    /// not; at least one has to be there.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it takes longer; [`Error::Closed`] after a shutdown.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        self.reach(timeout, |core| Goal::Flushed(core.flush()))
    }

    /// Waits until the table of a VNI has been complete since it was subscribed to:
    /// everything that the servers had then is received.
    ///
    /// Servers that cannot be reached are not waited for, those that are being tried for the
    /// first time no longer than [`ClientConfig::linger`] once another is complete.
    ///
    /// # Errors
    ///
    /// [`Error::NotSubscribed`] at once; [`Error::Timeout`] if it takes longer;
    /// [`Error::Closed`] after a shutdown.
    pub fn wait_synced(&self, vni: Vni, timeout: Duration) -> Result<()> {
        self.reach(timeout, move |_| Goal::Synced(vni))
    }

    /// Whether the table of a VNI has been complete since it was subscribed to.
    #[must_use]
    pub fn is_synced(&self, vni: Vni) -> bool {
        self.ask(move |core| core.is_synced(vni))
            .is_ok_and(|it| it == Some(true))
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
        self.ask(move |core| core.announcement(vni, route)).ok()?
    }

    /// One more server, which is brought to all that this client wants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if there are 32 already; [`Error::Closed`] after a
    /// shutdown.
    pub fn add_server(&self, server: impl Into<String>) -> Result<ServerId> {
        let server = server.into();
        self.call(move |engine, now| engine.add_server(server, now))?
    }

    /// Leaves a server, and does not count it any more.
    ///
    /// Routes that only it had are treated as those of a server that is lost: they go,
    /// after [`ClientConfig::linger`], where another server is complete and does not have
    /// them; where none is, they stay until one is, or the hold time is over. So a server can be replaced in
    /// either order without a gap. Its number is not used again.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after a shutdown.
    pub fn remove_server(&self, server: ServerId) -> Result<Changed> {
        self.call(move |engine, now| engine.remove_server(server, now).into())
    }

    /// Changes settings of a running client; the names of those that it cannot change, which
    /// stay as they are (all but those below).
    ///
    /// No session ends: `keepalive_interval`, `handshake_timeout`, `legacy_pacing` and
    /// `legacy_rate` hold for new ones, `hold` and `linger` from the next loss on.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its limits, then nothing is changed;
    /// [`Error::Closed`] after a shutdown.
    pub fn reconfigure(&self, config: ClientConfig) -> Result<Vec<&'static str>> {
        config.check_settings()?;
        let mut running = self.inner.config.lock();
        let (core, linger, timeout) = (config.core(), config.linger, config.user_timeout());
        self.call(move |engine, _| engine.reconfigure(core, linger, timeout))?;
        let fixed = config.fixed(&running);
        running.keepalive_interval = config.keepalive_interval;
        running.handshake_timeout = config.handshake_timeout;
        running.hold = config.hold;
        running.linger = config.linger;
        running.legacy_pacing = config.legacy_pacing;
        running.legacy_rate = config.legacy_rate;
        Ok(fixed)
    }

    /// Where the client stands with all its servers.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.inner.shared.read(Status::state)
    }

    /// Where each server's connection stands.
    #[must_use]
    pub fn server_states(&self) -> BTreeMap<ServerId, ConnectionState> {
        self.inner.shared.read(|status| status.states.clone())
    }

    /// Whether a server is established.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.connected_count() > 0
    }

    /// How many servers are established.
    #[must_use]
    pub fn connected_count(&self) -> usize {
        self.inner.shared.read(Status::established)
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.inner.shared.read(|status| status.names.len())
    }

    /// The servers, with their addresses as they were given.
    #[must_use]
    pub fn servers(&self) -> BTreeMap<ServerId, String> {
        self.inner.shared.read(|status| status.names.clone())
    }

    /// The address of a server, as it was given.
    #[must_use]
    pub fn server_addr(&self, server: ServerId) -> Option<String> {
        let name = |status: &Status| status.names.get(&server).cloned();
        self.inner.shared.read(name)
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
        self.inner.shared.wait(None, has_any)
    }

    /// Waits until all servers are established.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is shut down meanwhile.
    pub fn wait_all_established(&self) -> Result<()> {
        self.inner.shared.wait(None, has_all)
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
        self.inner.shared.wait(Some(timeout), has_any)
    }

    /// As [`Self::wait_all_established`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] then; [`Error::Closed`] if the client is shut down.
    pub fn wait_all_established_timeout(&self, timeout: Duration) -> Result<()> {
        self.inner.shared.wait(Some(timeout), has_all)
    }

    /// The received routes of a VNI, in order; without those suppressed because this
    /// client announces their destination itself.
    #[must_use]
    pub fn get_received_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.ask(move |core| core.received(vni)).unwrap_or_default();
        let visible = received.into_iter().filter(|(_, suppressed)| !suppressed);
        visible.map(|(route, _)| route).collect()
    }

    /// The received routes of all VNIs, in order; without those suppressed.
    #[must_use]
    pub fn routes(&self) -> Vec<(Vni, Route)> {
        self.ask(|core| core.received_everywhere())
            .unwrap_or_default()
    }

    /// The received routes of a VNI that are suppressed because this client announces
    /// their destination itself.
    #[must_use]
    pub fn suppressed_routes(&self, vni: Vni) -> Vec<Route> {
        let received = self.ask(move |core| core.received(vni)).unwrap_or_default();
        let hidden = received.into_iter().filter(|(_, suppressed)| *suppressed);
        hidden.map(|(route, _)| route).collect()
    }

    /// What this client announces, in order.
    #[must_use]
    pub fn get_announced_routes(&self) -> Vec<(Vni, Route)> {
        self.ask(|core| core.announced()).unwrap_or_default()
    }

    /// The VNIs this client subscribes to.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<Vni> {
        let vnis = self.ask(|core| core.subscribed()).unwrap_or_default();
        vnis.into_iter().collect()
    }

    /// The VNIs subscribed to whose tables have been complete since, as [`Self::wait_synced`]
    /// waits for.
    #[must_use]
    pub fn synced(&self) -> BTreeSet<Vni> {
        let synced = |core: &mut Core| {
            let mut vnis = core.subscribed();
            vnis.retain(|vni| core.is_synced(*vni) == Some(true));
            vnis
        };
        self.ask(synced).unwrap_or_default().into_iter().collect()
    }

    /// How many distinct routes are received, suppressed ones among them.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.ask(|core| core.route_count()).unwrap_or_default()
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
        let servers = self.ask(move |core| core.servers_of(vni, &destination, &next_hop));
        Some(servers.ok()??.into_iter().collect())
    }

    /// The loop of the client's thread, to see whether it turns.
    ///
    /// The thread that hands events to the handler is not concerned: how long that takes is
    /// the handler's affair.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(vec![self.inner.postbox.beat(THREAD_NAME)])
    }

    /// Closes all connections and waits for the client's threads, 5 s at most.
    ///
    /// Other handles of this client answer [`Error::Closed`] from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] as for [`Self::shutdown_timeout`].
    pub fn shutdown(&self) -> Result<()> {
        self.shutdown_timeout(STOP_TIMEOUT)
    }

    /// As [`Self::shutdown`], no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if a handler does not return in time: its thread ends when it
    /// does. The connections are closed in any case.
    pub fn shutdown_timeout(&self, timeout: Duration) -> Result<()> {
        self.inner.stop(timeout)
    }
}

fn has_any(status: &Status) -> bool {
    status.established() > 0
}

fn has_all(status: &Status) -> bool {
    status.established() == status.states.len()
}

impl Inner {
    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let (running, ended) = crossbeam_channel::bounded(0);
        let run = move || {
            let _running: Sender<()> = running;
            run();
        };
        let handle = std::thread::Builder::new().name(name.into()).spawn(run);
        let handle = handle.map_err(Error::io("start a thread"))?;
        let mut threads = self.threads.lock();
        // Watchers come and go; what has ended needs no joining.
        threads.retain(|thread| !thread.handle.is_finished());
        threads.push(Thread { handle, ended });
        Ok(())
    }

    fn stop(&self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        self.postbox.post(Mail::Stop, 1);
        *self.stop.lock() = None;
        let threads: Vec<Thread> = self.threads.lock().drain(..).collect();
        let mut result = Ok(());
        for thread in threads {
            // A handler may hold the last handle: its thread cannot wait for itself.
            if thread.handle.thread().id() == std::thread::current().id() {
                continue;
            }
            let waited = thread.ended.recv_deadline(until);
            if waited == Err(RecvTimeoutError::Timeout) {
                self.threads.lock().push(thread);
                result = Err(Error::Timeout);
            } else if thread.handle.join().is_err() {
                log::error!("a client thread had panicked");
            }
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.stop(STOP_TIMEOUT).is_err() {
            log::error!("a route handler does not return; its thread is left behind");
        }
    }
}
