//! Everything that can come to a client's engine from another thread.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Sender;

use crate::core::client::{
    AnnouncementState, Changed, ConsumerId, CoreConfig, Event, EventDetail, RouteCursor, ServerId,
};
use crate::core::types::{Route, Vni};
use crate::error::Result;
use crate::inspect::{ClientStats, PeerStatus, RouteEntry, VniStatus};
use crate::net::Reply;

/// Mail for the engine.
pub(super) enum Mail {
    Command(Command),
    Question(Question),
    /// A name was resolved, or could not be.
    Resolved(String, io::Result<Vec<SocketAddr>>),
    Stop,
}

/// What the engine is asked to do.
pub(super) enum Command {
    Subscribe(Vni, Reply<Result<Changed>>),
    Unsubscribe(Vni, Reply<Changed>),
    /// Answers whether the announcement is new.
    Announce(Vni, Route, Reply<bool>),
    /// Answers whether there was such an announcement.
    Withdraw(Vni, Route, Reply<bool>),
    AddServer(String, Reply<Result<ServerId>>),
    RemoveServer(ServerId, Reply<Changed>),
    /// Leave the servers that a name stands for; dial them again after a while, or after this
    /// time. Answers how many servers were meant.
    Leave(String, Option<Duration>, Reply<usize>),
    Reconfigure {
        core: CoreConfig,
        user_timeout: Duration,
        reply: Reply<()>,
    },
    /// Add a consumer of events, whose batches go into this channel.
    Attach(EventDetail, Sender<Vec<Event>>, Reply<Result<ConsumerId>>),
    /// A consumer is gone.
    Detach(ConsumerId),
    /// Answer when all servers have read everything that is wanted now.
    Flush(Waiter),
    /// Answer when the table of a VNI is complete.
    AwaitSynced(Vni, Waiter),
}

/// What the engine is asked to tell.
///
/// Most answers are those of the core's method of the same name.
pub(super) enum Question {
    Summary(Reply<Summary>),
    Peers(Reply<Vec<PeerStatus>>),
    Vnis(Reply<Vec<VniStatus>>),
    /// A piece of the table: of one VNI or of all, from the beginning or after the last piece.
    Routes(Option<Vni>, Option<RouteCursor>, Reply<Piece>),
    /// The routes of a VNI, and whether each is suppressed.
    Received(Vni, Reply<Vec<(Route, bool)>>),
    /// The routes of all VNIs, without those suppressed.
    ReceivedEverywhere(Reply<Vec<(Vni, Route)>>),
    RouteCount(Reply<usize>),
    ServersOf(Vni, Route, Reply<Option<Vec<ServerId>>>),
    Announced(Reply<Vec<(Vni, Route)>>),
    Announcement(
        Vni,
        Route,
        Reply<Option<BTreeMap<ServerId, AnnouncementState>>>,
    ),
    Subscribed(Reply<Vec<Vni>>),
    /// The VNIs whose tables are complete.
    Synced(Reply<BTreeSet<Vni>>),
    IsSynced(Vni, Reply<Option<bool>>),
    IsSettled(Vni, Reply<bool>),
}

/// A caller that waits, as long as `is_waiting` lives.
pub(super) struct Waiter {
    pub(super) reply: Reply<Result<()>>,
    pub(super) is_waiting: Weak<()>,
}

/// A client in numbers.
pub(super) struct Summary {
    pub(super) started: SystemTime,
    pub(super) uptime: Duration,
    pub(super) not_ready: Option<String>,
    pub(super) peers: usize,
    pub(super) established: usize,
    pub(super) vnis: usize,
    pub(super) routes: usize,
    pub(super) announced: usize,
    pub(super) updates_received: u64,
    pub(super) updates_sent: u64,
    pub(super) stats: ClientStats,
}

/// Some routes, and where the next piece begins if there is one.
pub(super) struct Piece {
    pub(super) entries: Vec<RouteEntry>,
    pub(super) next: Option<RouteCursor>,
}
