//! Everything that can come to the threads of a server from another thread.

use std::time::{Duration, Instant};

use super::config::AcceptLimits;
use super::drain::Order;
use super::watch::WatchSender;
use crate::core::reflector::{Message, RouteCursor, SessionView, ShardConfig};
use crate::core::rib::PeerId;
use crate::core::types::{Route, Vni};
use crate::core::wire::Update;
use crate::inspect::{RouteEntry, VniStatus};
use crate::net::{Peer, PeerSelector, Reply, Source, Stream};

/// Mail for the acceptor.
pub(super) enum AcceptorMail {
    /// A connection from this address is gone.
    Closed(Source),
    /// Stop listening and have the workers end their sessions.
    Drain(Order),
    /// Refuse connections from this address for a time.
    Shun(Source, Duration),
    /// Keep other limits.
    Limits(AcceptLimits),
    /// The server is stopping.
    Stop,
}

/// Mail for a worker.
pub(super) enum WorkerMail {
    /// A new connection; its session will live here.
    Accepted {
        id: PeerId,
        stream: Stream,
        peer: Peer,
    },
    /// From another shard, in order.
    Messages(Vec<Message>),
    /// Off the way of a route. The box keeps the mail of routes small.
    Request(Box<Request>),
    /// The server is stopping.
    Stop,
}

/// Everything that a worker can be asked to do or to tell.
///
/// An answer is made within a turn, so each of them takes less than a millisecond.
pub(super) enum Request {
    /// Announce or withdraw in the name of the server. Answers whether that changed anything.
    UpdateOwn(Update, Reply<bool>),
    /// End sessions. Answers how many were meant.
    End(PeerSelector, Ending, Reply<usize>),
    /// End all sessions, spread over a time.
    Drain(Order),
    /// Keep other limits, and make new sessions with other settings.
    Reconfigure {
        shard: ShardConfig,
        user_timeout: Duration,
    },
    /// Send everything that happens to a watch. Answers once nothing is missed any more.
    Watch(WatchSender, Reply<()>),
    /// Forget the watches whose receivers are gone.
    EndWatches,
    /// Tell how many routes the server announces itself.
    OwnCount(Reply<usize>),
    /// Tell the routes that the server announces itself.
    Own(Reply<Vec<(Vni, Route)>>),
    /// Tell the sessions and how many routes each peer announces.
    Peers(Reply<Peers>),
    /// Tell the keys and peers of all sessions.
    Names(Reply<Vec<(PeerId, Peer)>>),
    /// Tell the tables in numbers.
    Vnis(Reply<Vec<VniStatus>>),
    /// Tell a piece of the routes of one VNI or of all.
    Routes(Walk, Reply<Piece>),
    /// Say that it has begun, then hang until the other end of `held` is dropped.
    #[cfg(test)]
    Hang {
        began: Reply<()>,
        held: crossbeam_channel::Receiver<()>,
    },
    /// Panic.
    #[cfg(test)]
    Panic,
}

/// How an operator ends a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// At once.
    Reset,
    /// After it was sent what waits for it; the address is refused for a time.
    Drain(Duration),
}

/// The sessions of a worker, and the announcers in its tables.
pub(super) struct Peers {
    /// When they were read.
    pub(super) at: Instant,
    pub(super) sessions: Vec<(SessionView, Peer)>,
    pub(super) announced: Vec<(PeerId, usize)>,
}

/// How far a walk through a worker's tables has come.
pub(super) enum Walk {
    /// To the beginning of one VNI or of all.
    From(Option<Vni>),
    /// To the place after the last piece.
    Next(RouteCursor),
}

/// Some routes, and where the next piece begins if there is one.
pub(super) struct Piece {
    pub(super) entries: Vec<RouteEntry>,
    pub(super) next: Option<RouteCursor>,
}
