//! What a server or a client says of its peers, its VNIs and its routes.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::rib::TableSummary;
use crate::core::session::MessageCounts;
use crate::core::types::{Route, Transport, Vni};

/// What a peer is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// Its HELLO has not come.
    Unknown,
    /// It offers what this implementation offers.
    RustBond,
    /// It offers nothing: Go MetalBond or RustBond 0.1.
    Legacy,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// A client's: being dialled.
    Connecting,
    /// Connected, the peer's HELLO has not come.
    AwaitHello,
    /// HELLOs are exchanged, the peer's KEEPALIVE has not come.
    AwaitKeepalive,
    /// Routes flow.
    Established,
    /// A client's: lost or refused, to be tried again.
    Retry,
    /// Asked to go elsewhere; not taken back for a while.
    Draining,
}

/// A peer, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Tells it from all others since the start.
    pub id: u64,
    /// A session's address and port; a server's name as the client was given it.
    pub name: String,
    /// The far end of the connection, if there is one and it has an address.
    pub address: Option<SocketAddr>,
    /// What carries the connection, if there is one.
    pub transport: Option<Transport>,
    /// NOTICEs that it sent since the start.
    pub notices: u64,
    /// The last of them in this session, for people: what the peer refused, and why.
    pub last_notice: Option<String>,
    /// Who the peer has proved to be: `uid 990` at a Unix socket.
    pub identity: Option<String>,
    /// What it is.
    pub kind: PeerKind,
    /// Where the session stands.
    pub state: PeerState,
    /// How long it has stood there.
    pub since: Duration,
    /// How long it has been established.
    pub uptime: Option<Duration>,
    /// Times that a session with this server, or from this address, ended in the last hour.
    pub flaps: u32,
    /// Why the last one ended.
    pub last_error: Option<String>,
    /// Seconds between KEEPALIVEs, as negotiated.
    pub keepalive_interval: u32,
    /// How long nothing has come from it.
    pub silent: Duration,
    /// Routes it announces.
    pub routes: usize,
    /// How many VNIs it subscribes to; of a server, how many it was asked for.
    pub subscriptions: usize,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: usize,
    /// Bytes per second that it is sent at most, if it is a legacy peer and paced.
    pub legacy_rate: Option<u32>,
    /// Messages that came from it.
    pub received: MessageCounts,
    /// Messages sent to it; those of one batch count when all of it is.
    pub sent: MessageCounts,
    /// Messages of it that were dropped as malformed.
    pub malformed: u64,
    /// Announcements and subscriptions refused to it because of a limit.
    pub refused: u64,
    /// Times its queue was coalesced.
    pub folds: u64,
}

/// Sorts peers by name, those of one name by number.
pub(crate) fn sort_by_name(peers: &mut [PeerStatus]) {
    peers.sort_unstable_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
}

/// A VNI, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VniStatus {
    /// Its number.
    pub vni: Vni,
    /// Its table in numbers.
    pub table: TableSummary,
    /// Of a server, who subscribes to it; of a client, whether it does itself.
    pub subscribers: usize,
    /// Of a client that subscribes to it, whether its table is complete.
    pub is_synced: Option<bool>,
}

/// A route and who announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteEntry {
    /// Its VNI.
    pub vni: Vni,
    /// The route.
    pub route: Route,
    /// Who announces it: on a client, the servers that have it; nobody if it is stale.
    pub announcers: Announcers,
    /// On a client, whether it is held back because the client announces the destination itself.
    pub is_suppressed: bool,
}

/// The announcers of a route, by [`PeerStatus::id`]; nearly always one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcers {
    /// One.
    One(u32),
    /// Any other number of them.
    Many(Box<[u32]>),
}

impl Announcers {
    /// Their ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

impl FromIterator<u32> for Announcers {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let ids: Vec<u32> = ids.into_iter().collect();
        match ids[..] {
            [id] => Self::One(id),
            _ => Self::Many(ids.into()),
        }
    }
}
