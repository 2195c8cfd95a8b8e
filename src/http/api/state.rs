//! `/api/v1/status`, `/api/v1/peers` and `/api/v1/vnis`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::go::Date;
use super::params::{Paging, Params, bad_cursor};
use super::routes::is_named;
use crate::core::status::sort_by_name;
use crate::core::types::Transport;
use crate::core::types::Vni;
use crate::error::Error;
use crate::http::response::{List, Media, Response};
use crate::inspect::{
    ClientStats, Inspect, KernelStatus, MessageCounts, PeerKind, PeerState, PeerStatus,
    ServerStats, Status, VniStatus,
};
use crate::net::Endpoint;

/// `/api/v1/status`.
pub(super) fn status(inspect: &dyn Inspect) -> Response {
    let generation = inspect.generation();
    let status = inspect.status();
    Response::json(&StatusJson::new(&status, generation))
}

/// Returns seconds, rounded down to milliseconds.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

#[derive(Serialize)]
struct StatusJson<'a> {
    version: &'static str,
    side: &'static str,
    started: String,
    uptime_seconds: f64,
    /// The first of the endpoints.
    listening: Option<String>,
    endpoints: Vec<String>,
    ready: bool,
    not_ready: Option<&'a str>,
    peers: usize,
    established: usize,
    vnis: usize,
    routes: usize,
    announced: usize,
    updates_received: u64,
    updates_sent: u64,
    /// As text: some readers of JSON lose bits of large numbers.
    generation: String,
    server: Option<ServerJson>,
    client: Option<ClientJson>,
    kernel: Option<KernelJson<'a>>,
}

impl<'a> StatusJson<'a> {
    fn new(status: &'a Status, generation: u64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            side: status.side.name(),
            started: Date::of(status.started).to_string(),
            uptime_seconds: seconds(status.uptime),
            listening: status.listening.first().map(Endpoint::to_string),
            endpoints: status.listening.iter().map(Endpoint::to_string).collect(),
            ready: status.not_ready.is_none(),
            not_ready: status.not_ready.as_deref(),
            peers: status.peers,
            established: status.established,
            vnis: status.vnis,
            routes: status.routes,
            announced: status.announced,
            updates_received: status.updates_received,
            updates_sent: status.updates_sent,
            generation: generation.to_string(),
            server: status.server.as_ref().map(ServerJson::new),
            client: status.client.as_ref().map(ClientJson::new),
            kernel: status.kernel.as_ref().map(KernelJson::new),
        }
    }
}

#[derive(Serialize)]
struct ServerJson {
    sessions: usize,
    subscriptions: usize,
    announcements: usize,
    accepted: u64,
    closed: u64,
    refused_sessions: u64,
    refused: u64,
    malformed: u64,
    folds: u64,
    legacy_drops: u64,
    cut_chunks: u64,
    held_up: u64,
    bytes_received: u64,
    bytes_sent: u64,
    memory: MemoryJson,
}

#[derive(Serialize)]
struct MemoryJson {
    tables: usize,
    queues: usize,
    sessions: usize,
    watches: usize,
    total: usize,
    limit: usize,
}

impl ServerJson {
    fn new(stats: &ServerStats) -> Self {
        Self {
            sessions: stats.sessions,
            subscriptions: stats.subscriptions,
            announcements: stats.announcements,
            accepted: stats.accepted,
            closed: stats.closed,
            refused_sessions: stats.refused_sessions,
            refused: stats.refused,
            malformed: stats.malformed,
            folds: stats.folds,
            legacy_drops: stats.legacy_drops,
            cut_chunks: stats.cut_chunks,
            held_up: stats.held_up,
            bytes_received: stats.bytes_received,
            bytes_sent: stats.bytes_sent,
            memory: MemoryJson {
                tables: stats.memory.tables,
                queues: stats.memory.queues,
                sessions: stats.memory.sessions,
                watches: stats.memory.watches,
                total: stats.memory.total(),
                limit: stats.memory.limit,
            },
        }
    }
}

#[derive(Serialize)]
struct ClientJson {
    refused_routes: u64,
    missing_routes: usize,
    displaced_routes: u64,
}

impl ClientJson {
    fn new(stats: &ClientStats) -> Self {
        Self {
            refused_routes: stats.refused_routes,
            missing_routes: stats.missing_routes,
            displaced_routes: stats.displaced_routes,
        }
    }
}

#[derive(Serialize)]
struct KernelJson<'a> {
    desired: u64,
    installed: u64,
    settling: u64,
    waiting: u64,
    failed: u64,
    shadowed: u64,
    uninstallable: u64,
    unreachable: u64,
    nexthop_objects: u64,
    messages: u64,
    resyncs: u64,
    repairs: RepairsJson,
    device_up: bool,
    in_sync: bool,
    obstacle: Option<&'a str>,
    last_error: Option<&'a str>,
    last_warning: Option<&'a str>,
}

#[derive(Serialize)]
struct RepairsJson {
    routes: u64,
    nexthop_objects: u64,
    device: u64,
}

impl<'a> KernelJson<'a> {
    fn new(status: &'a KernelStatus) -> Self {
        Self {
            desired: status.desired,
            installed: status.installed,
            settling: status.settling,
            waiting: status.waiting,
            failed: status.failed,
            shadowed: status.shadowed,
            uninstallable: status.uninstallable,
            unreachable: status.unreachable,
            nexthop_objects: status.nexthop_objects,
            messages: status.messages,
            resyncs: status.resyncs,
            repairs: RepairsJson {
                routes: status.repairs.routes,
                nexthop_objects: status.repairs.nexthop_objects,
                device: status.repairs.device,
            },
            device_up: status.device_up,
            in_sync: status.in_sync,
            obstacle: status.obstacle.as_deref(),
            last_error: status.last_error.as_deref(),
            last_warning: status.last_warning.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Head {
    total: usize,
    next: Option<String>,
}

/// The peers that a request asks for.
#[derive(Debug)]
pub(crate) struct PeersQuery {
    peer: Option<String>,
    state: Option<PeerState>,
    kind: Option<PeerKind>,
    paging: Paging,
}

impl PeersQuery {
    pub(super) fn parse(mut params: Params<'_>) -> Result<Self, String> {
        let states = PeerState::ALL.map(PeerState::name).join(", ");
        let kinds = PeerKind::ALL.map(PeerKind::name).join(", ");
        let query = Self {
            peer: params.text("peer")?,
            state: params.value("state", &states, PeerState::from_name)?,
            kind: params.value("kind", &kinds, PeerKind::from_name)?,
            paging: params.paging()?,
        };
        params.finish("peer, state, kind, limit and cursor")?;
        Ok(query)
    }

    pub(super) fn answer(self, inspect: &dyn Inspect) -> Result<Response, Error> {
        let mut peers = inspect.peers()?;
        peers.retain(|it| self.passes(it));
        sort_by_name(&mut peers);
        let after = |it: &PeerStatus| {
            let cursor = self.paging.cursor.as_ref();
            cursor.is_none_or(|cursor| it.name > *cursor)
        };
        let last = |it: &PeerStatus| it.name.clone();
        let row = |it: &PeerStatus| PeerJson::new(it);
        Ok(page("peers", peers, self.paging.limit, after, last, row))
    }

    fn passes(&self, peer: &PeerStatus) -> bool {
        let name = self.peer.as_ref();
        name.is_none_or(|name| is_named(&peer.name, name))
            && self.state.is_none_or(|it| it == peer.state)
            && self.kind.is_none_or(|it| it == peer.kind)
    }
}

/// Returns one page of a sorted list: at most `limit` items that come `after` the last page.
fn page<T: Send + 'static, J: Serialize + 'static>(
    name: &str,
    all: Vec<T>,
    limit: usize,
    after: impl Fn(&T) -> bool,
    cursor: impl Fn(&T) -> String,
    json: impl Fn(&T) -> J + Send + 'static,
) -> Response {
    let start = all.partition_point(|it| !after(it));
    let end = start.saturating_add(limit).min(all.len());
    let head = Head {
        total: all.len(),
        next: (end < all.len()).then(|| cursor(&all[end - 1])),
    };
    let rows = all.into_iter().skip(start).take(end - start);
    let rows = rows.map(move |it| Some(json(&it)));
    Response::stream(Media::Json, List::new(&head, name, rows))
}

/// A peer as JSON.
#[derive(Serialize)]
struct PeerJson {
    id: u64,
    name: String,
    address: Option<SocketAddr>,
    transport: Option<&'static str>,
    identity: Option<String>,
    notices: u64,
    last_notice: Option<String>,
    kind: &'static str,
    state: &'static str,
    since_seconds: f64,
    uptime_seconds: Option<f64>,
    flaps: u32,
    last_error: Option<String>,
    keepalive_interval_seconds: u32,
    keepalive_age_seconds: f64,
    routes: usize,
    subscriptions: usize,
    queued_bytes: usize,
    legacy_rate_bytes_per_second: Option<u32>,
    received: CountsJson,
    sent: CountsJson,
    malformed: u64,
    refused: u64,
    folds: u64,
}

impl PeerJson {
    fn new(peer: &PeerStatus) -> Self {
        Self {
            id: peer.id,
            name: peer.name.clone(),
            address: peer.address,
            transport: peer.transport.map(Transport::name),
            identity: peer.identity.clone(),
            notices: peer.notices,
            last_notice: peer.last_notice.clone(),
            kind: peer.kind.name(),
            state: peer.state.name(),
            since_seconds: seconds(peer.since),
            uptime_seconds: peer.uptime.map(seconds),
            flaps: peer.flaps,
            last_error: peer.last_error.clone(),
            keepalive_interval_seconds: peer.keepalive_interval,
            keepalive_age_seconds: seconds(peer.silent),
            routes: peer.routes,
            subscriptions: peer.subscriptions,
            queued_bytes: peer.queued_bytes,
            legacy_rate_bytes_per_second: peer.legacy_rate,
            received: CountsJson::new(&peer.received),
            sent: CountsJson::new(&peer.sent),
            malformed: peer.malformed,
            refused: peer.refused,
            folds: peer.folds,
        }
    }
}

#[derive(Serialize)]
struct CountsJson {
    hello: u64,
    keepalive: u64,
    subscribe: u64,
    unsubscribe: u64,
    update: u64,
    end_of_rib: u64,
}

impl CountsJson {
    fn new(counts: &MessageCounts) -> Self {
        Self {
            hello: counts.hello,
            keepalive: counts.keepalive,
            subscribe: counts.subscribe,
            unsubscribe: counts.unsubscribe,
            update: counts.update,
            end_of_rib: counts.end_of_rib,
        }
    }
}

/// The VNIs that a request asks for.
#[derive(Debug)]
pub(crate) struct VnisQuery {
    vni: Option<Vni>,
    limit: usize,
    after: Option<u32>,
}

impl VnisQuery {
    pub(super) fn parse(mut params: Params<'_>) -> Result<Self, String> {
        let vni = params.vni()?;
        let Paging { limit, cursor } = params.paging()?;
        let after = match cursor {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| bad_cursor(&text))?),
        };
        params.finish("vni, limit and cursor")?;
        Ok(Self { vni, limit, after })
    }

    pub(super) fn answer(&self, inspect: &dyn Inspect) -> Result<Response, Error> {
        let mut vnis = inspect.vnis()?;
        vnis.retain(|it| self.vni.is_none_or(|vni| vni == it.vni));
        vnis.sort_unstable_by_key(|it| it.vni);
        let after = |it: &VniStatus| self.after.is_none_or(|after| it.vni.0 > after);
        let last = |it: &VniStatus| it.vni.to_string();
        Ok(page("vnis", vnis, self.limit, after, last, VniJson::new))
    }
}

/// A VNI as JSON.
#[derive(Serialize)]
struct VniJson {
    vni: u32,
    routes: usize,
    std: usize,
    nat: usize,
    lb: usize,
    other: usize,
    subscribers: usize,
    digest: String,
    synced: Option<bool>,
}

impl VniJson {
    fn new(status: &VniStatus) -> Self {
        let table = &status.table;
        Self {
            vni: status.vni.0,
            routes: table.routes(),
            std: table.standard,
            nat: table.nat,
            lb: table.load_balancer,
            other: table.other,
            subscribers: status.subscribers,
            digest: table.digest.to_string(),
            synced: status.is_synced,
        }
    }
}
