//! How a client is made.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::ClientConfig;
use super::driver::Driver;
use super::engine::{Engine, EngineConfig, Resolver};
use super::events::Events;
use super::handle::MetalBondClient;
use super::handler::{self, CHANNEL_EVENTS, NextHopHandler, RouteHandler};
#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
use super::intake::{ClientWaker, Intake};
use super::running::Running;
#[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
use super::sink::Way;
use super::status::Published;
use crate::core::client::{ConsumerId, Core, Event, EventDetail, RouteFilter};
use crate::core::pace::LegacyPacing;
use crate::core::types::Vni;
use crate::error::{Error, Result};

/// The settings of a client, and the three ways to consume its events.
///
/// Begin with [`MetalBondClient::builder`], end with [`Self::handler`],
/// [`Self::events`] or [`Self::driver`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    servers: Vec<String>,
    config: ClientConfig,
    resolver: Resolver,
}

impl MetalBondClient {
    /// Begins the settings of a client.
    pub fn builder() -> Builder {
        Builder::default()
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
}

impl Builder {
    /// Adds a server: `"[::1]:4711"` or `"host:4711"`.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Adds servers.
    pub fn servers<S: AsRef<str>>(mut self, servers: &[S]) -> Self {
        let names = servers.iter().map(|it| it.as_ref().to_owned());
        self.servers.extend(names);
        self
    }

    /// All settings at once; those made before are forgotten, the servers are not.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Seconds between two KEEPALIVEs; [`ClientConfig::keepalive_interval`].
    pub fn keepalive(mut self, seconds: u32) -> Self {
        self.config.keepalive_interval = seconds;
        self
    }

    /// How long routes outlive the server that told them, at most;
    /// [`ClientConfig::stale_time`].
    pub fn stale_time(mut self, stale_time: Duration) -> Self {
        self.config.stale_time = stale_time;
        self
    }

    /// How long after its start a server does not vouch for what is missing;
    /// [`ClientConfig::settle_time`].
    pub fn settle_time(mut self, settle_time: Duration) -> Self {
        self.config.settle_time = settle_time;
        self
    }

    /// Shortest and longest wait before a server that failed is tried again;
    /// [`ClientConfig::retry_min`] and [`ClientConfig::retry_max`].
    pub fn retry(mut self, min: Duration, max: Duration) -> Self {
        self.config.retry_min = min;
        self.config.retry_max = max;
        self
    }

    /// How long a server may take to answer; [`ClientConfig::handshake_timeout`].
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.config.handshake_timeout = timeout;
        self
    }

    /// Address to connect from; [`ClientConfig::bind`].
    pub fn bind(mut self, source: impl Into<IpAddr>) -> Self {
        self.config.bind = Some(source.into());
        self
    }

    /// Whether and how servers without reassembly are paced, with bytes per second;
    /// [`ClientConfig::legacy_pacing`] and [`ClientConfig::legacy_rate`].
    pub fn legacy(mut self, pacing: LegacyPacing, rate: u32) -> Self {
        self.config.legacy_pacing = pacing;
        self.config.legacy_rate = rate;
        self
    }

    /// Identity towards peers of this implementation; [`ClientConfig::node_id`].
    pub fn node_id(mut self, node_id: [u8; 16]) -> Self {
        self.config.node_id = Some(node_id);
        self
    }

    /// The most routes that are held, and VNIs that are subscribed to;
    /// [`ClientConfig::max_routes`] and [`ClientConfig::max_vnis`].
    pub fn limits(mut self, max_routes: usize, max_vnis: usize) -> Self {
        self.config.max_routes = max_routes;
        self.config.max_vnis = max_vnis;
        self
    }

    /// Asks another resolver than the system's for the addresses of names.
    #[cfg(test)]
    pub(in crate::client) fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = resolver;
        self
    }

    /// Which received routes count; [`ClientConfig::filter`].
    pub fn filter(mut self, filter: RouteFilter) -> Self {
        self.config.filter = filter;
        self
    }

    /// The routes of one VNI appear in another too; [`ClientConfig::imports`].
    pub fn import(mut self, from: Vni, into: Vni) -> Self {
        self.config.imports.push((from, into));
        self
    }

    /// In what form [`Self::events`] and [`Self::driver`] tell of routes;
    /// [`ClientConfig::detail`].
    pub fn detail(mut self, detail: EventDetail) -> Self {
        self.config.detail = detail;
        self
    }

    /// Starts a client that tells `handler` of routes, on a thread of its own.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, among them [`EventDetail::NextHops`], for which there is
    /// [`Self::next_hop_handler`]; or a system without threads or descriptors left.
    pub fn handler(self, handler: impl RouteHandler) -> Result<MetalBondClient> {
        if self.config.detail == EventDetail::NextHops {
            let text = "a RouteHandler is told of routes; use a NextHopHandler for next hops";
            return Err(Error::InvalidConfig(text.into()));
        }
        self.told(move |event| handler::tell_routes(&handler, event))
    }

    /// Starts a client that tells `handler` of destinations with all their next hops, whatever
    /// [`Self::detail`] says, on a thread of its own.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, or a system without threads or descriptors left.
    pub fn next_hop_handler(self, handler: impl NextHopHandler) -> Result<MetalBondClient> {
        let builder = self.detail(EventDetail::NextHops);
        builder.told(move |event| handler::tell_next_hops(&handler, event))
    }

    fn told(self, tell: impl Fn(&Event) + Send + 'static) -> Result<MetalBondClient> {
        let config = self.config.clone();
        let (engine, published) = self.engine()?;
        let (running, feed) = Running::start(engine, published, config)?;
        running.consume(move || handler::run(tell, &feed))?;
        Ok(MetalBondClient::new(running))
    }

    /// Starts a client whose events come out of a channel.
    ///
    /// The channel holds 1024 of them; what changes while it is full is coalesced by
    /// route. It ends when the client is shut down or its last handle is dropped.
    /// Dropping [`Events`] leaves the client without this consumer.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, or a system without threads or descriptors left.
    pub fn events(self) -> Result<(MetalBondClient, Events)> {
        let config = self.config.clone();
        let (engine, published) = self.engine()?;
        let (running, feed) = Running::start(engine, published, config)?;
        let (sender, receiver) = crossbeam_channel::bounded(CHANNEL_EVENTS);
        running.consume(move || handler::forward(&sender, &feed))?;
        let events = running.events(receiver, ConsumerId::FIRST);
        Ok((MetalBondClient::new(running), events))
    }

    /// Starts a client whose events a consumer takes on the client's own thread, route by
    /// route whatever [`Self::detail`] says.
    #[cfg(any(test, all(feature = "netlink", target_os = "linux")))]
    pub(crate) fn direct<I: Intake + 'static>(
        self,
        intake: impl FnOnce(ClientWaker) -> I,
    ) -> Result<MetalBondClient> {
        let builder = self.detail(EventDetail::Routes);
        let config = builder.config.clone();
        let (engine, published) = builder.engine()?;
        let postbox = engine.postbox();
        let intake = intake(Box::new(move || postbox.wake()));
        let way = Way::Direct(Box::new(intake));
        let running = Running::start_with(engine, published, config, way)?;
        Ok(MetalBondClient::new(running))
    }

    /// Makes a client without any thread, for a program with a poll loop of its own.
    ///
    /// # Errors
    ///
    /// A setting outside its limits, or a system without descriptors left.
    pub fn driver(self) -> Result<Driver> {
        let (engine, _) = self.engine()?;
        Ok(Driver::new(engine))
    }

    fn engine(self) -> Result<(Engine, Arc<Published>)> {
        self.config.check(&self.servers)?;
        let now = Instant::now();
        let user_timeout = self.config.user_timeout();
        let mut core = Core::new(self.config.core(), 0, now);
        let ClientConfig {
            filter,
            imports,
            detail,
            ..
        } = self.config;
        core.set_policy(filter, &imports, detail);
        let published = Arc::<Published>::default();
        let config = EngineConfig {
            bind: self.config.bind,
            user_timeout,
            resolver: self.resolver,
        };
        let mut engine = Engine::new(core, config, Arc::clone(&published))
            .map_err(Error::io("make a mailbox"))?;
        for server in self.servers {
            engine.add_server(server, now)?;
        }
        Ok((engine, published))
    }
}
