//! Settings of a client.

use std::net::IpAddr;
use std::time::Duration;

use crate::core::client::{CoreConfig, EventDetail, Limits, RouteFilter, ServerBit};
use crate::core::pace::{DEFAULT_RATE, LegacyPacing, MIN_RATE, Pacing};
use crate::core::session::{Role, SessionConfig};
use crate::core::time::bounded;
use crate::core::types::Vni;
use crate::core::wire::{Capabilities, Extensions};
use crate::error::{Error, Result};

/// Pairs in the import map at most; a route is copied from no more VNIs, which are counted
/// in 16 bits.
const MAX_IMPORTS: usize = 16 * 1024;

/// Settings of a client, each with its unit.
///
/// A time may be [`Duration::MAX`], which means a century, as everything above it does.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Seconds between two KEEPALIVEs, at least 1; a server may ask for less. Default: 5.
    pub keepalive_interval: u32,
    /// How long a server may take to answer the HELLO. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long routes of a lost server stay at most (RFC 9494 calls that stale); 0 removes
    /// them at once. They go earlier when every server at hand has told its table and none of
    /// them has the route. If more servers are lost one after the other, routes may go after
    /// half of the time. A server that is connected and never completes its table is waited for
    /// as long, and for at least a minute. Default: 300 s.
    pub stale_time: Duration,
    /// How long after its start a server does not vouch for what is missing, because its
    /// announcers are on their way back (RFC 4724 calls that selection deferral). For as long,
    /// and until the next attempt after that has failed, a lost server is waited for too. More
    /// than `retry_max` of all announcers survives the restart of servers without a single
    /// event; 0 trusts every server at once. A server that does not say how long it is up
    /// counts as started when its session is established. Default: 15 s.
    pub settle_time: Duration,
    /// Shortest wait before a server that failed is tried again; less than 10 ms means 10 ms.
    /// Default: 5 s.
    pub retry_min: Duration,
    /// Longest wait; the moment between is random. Default: 10 s.
    pub retry_max: Duration,
    /// Whether servers without reassembly (Go MetalBond, RustBond 0.1) are sent whole frames
    /// in small chunks, and no more than 32 KiB ahead of what they have read. Default: `Auto`.
    pub legacy_pacing: LegacyPacing,
    /// Bytes per second to one such server at most, at least 4096. Default: 8 MiB.
    pub legacy_rate: u32,
    /// Distinct routes that are held at most, those imported into other VNIs among them; about
    /// 100 bytes each, and what the kernel or a handler takes. What servers tell beyond that is
    /// refused, counted and logged; sessions stay, and all that a server at hand has. Stale routes
    /// of lost servers give way to routes of servers that have told their tables, those of the
    /// oldest loss first. Once an eighth of the
    /// limit is free, or what is missing fits, the tables are asked for again. A legacy server is
    /// not asked where this client announces: what is missing comes with its next session.
    /// Default: 4,000,000.
    pub max_routes: usize,
    /// VNIs subscribed to at most; a further subscription is refused with an error.
    /// Default: 65,536.
    pub max_vnis: usize,
    /// Identity in the HELLO to peers of this implementation. Default: random.
    pub node_id: Option<[u8; 16]>,
    /// Address to connect from; servers of the other family cannot be reached with it.
    /// Default: the system chooses.
    pub bind: Option<IpAddr>,
    /// Which received routes count. Default: all.
    pub filter: RouteFilter,
    /// Pairs of VNIs: the routes of the first appear in the second too, as long as the
    /// first is subscribed to. Default: none.
    ///
    /// The copies lead into the VNI they come from: a next hop without a target VNI gets
    /// that one. They are not copied further, and the rule against loops holds for them:
    /// one whose destination is announced in the second VNI is suppressed there.
    pub imports: Vec<(Vni, Vni)>,
    /// In what form channels and drivers tell of routes; a handler chooses by its trait.
    /// Default: route by route.
    pub detail: EventDetail,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            keepalive_interval: 5,
            handshake_timeout: Duration::from_secs(10),
            stale_time: Duration::from_secs(300),
            settle_time: Duration::from_secs(15),
            retry_min: Duration::from_secs(5),
            retry_max: Duration::from_secs(10),
            legacy_pacing: LegacyPacing::Auto,
            legacy_rate: DEFAULT_RATE,
            max_routes: 4_000_000,
            max_vnis: 65_536,
            node_id: None,
            bind: None,
            filter: RouteFilter::new(),
            imports: Vec::new(),
            detail: EventDetail::Routes,
        }
    }
}

impl ClientConfig {
    /// Refuses what a client of these servers would not start with.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its limits, or too many servers. A client may
    /// begin without a server and be given one later.
    pub fn check(&self, servers: &[String]) -> Result<()> {
        self.check_settings()?;
        let invalid = |text: String| Err(Error::InvalidConfig(text));
        if servers.len() > ServerBit::MAX {
            let (count, most) = (servers.len(), ServerBit::MAX);
            return invalid(format!(
                "{count} servers are given; a client has {most} at most"
            ));
        }
        Ok(())
    }

    pub(super) fn check_settings(&self) -> Result<()> {
        let invalid = |text: String| Err(Error::InvalidConfig(text));
        if self.keepalive_interval == 0 {
            return invalid("keepalive_interval is 0; it must be at least 1 second".into());
        }
        if self.legacy_rate < MIN_RATE {
            return invalid("legacy_rate is below 4096 bytes per second".into());
        }
        if self.retry_min > self.retry_max {
            return invalid("retry_min is longer than retry_max".into());
        }
        if self.imports.len() > MAX_IMPORTS {
            let count = self.imports.len();
            return invalid(format!(
                "{count} imports are given; a client has {MAX_IMPORTS} at most"
            ));
        }
        if let Some((vni, _)) = self.imports.iter().find(|(from, into)| from == into) {
            return invalid(format!("VNI {vni} cannot be imported into itself"));
        }
        Ok(())
    }

    /// Which of these settings are others than those of a running client, and are fixed at
    /// its start.
    pub(super) fn fixed(&self, running: &Self) -> Vec<&'static str> {
        let differs = [
            ("retry_min", self.retry_min != running.retry_min),
            ("retry_max", self.retry_max != running.retry_max),
            ("node_id", self.node_id != running.node_id),
            ("bind", self.bind != running.bind),
            ("filter", self.filter != running.filter),
            ("imports", self.imports != running.imports),
            ("detail", self.detail != running.detail),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(name, _)| name).collect()
    }

    /// How long a server may leave something unacknowledged until it will not read any more.
    pub(super) fn user_timeout(&self) -> Duration {
        Duration::from_secs(self.keepalive_interval.into()) * 5
    }

    pub(super) fn core(&self) -> CoreConfig {
        CoreConfig {
            session: SessionConfig {
                role: Role::Client,
                keepalive_interval: self.keepalive_interval,
                handshake_timeout: bounded(self.handshake_timeout),
                extensions: Some(Extensions {
                    capabilities: Capabilities::OWN,
                    node_id: self.node_id.unwrap_or_else(crate::random::node_id),
                    uptime_seconds: 0,
                }),
            },
            pacing: Pacing {
                mode: self.legacy_pacing,
                rate: self.legacy_rate,
            },
            stale_time: bounded(self.stale_time),
            settle_time: bounded(self.settle_time),
            retry_min: bounded(self.retry_min),
            retry_max: bounded(self.retry_max),
            limits: Limits {
                routes: self.max_routes,
                vnis: self.max_vnis,
            },
            seed: crate::random::seed(),
        }
    }
}
