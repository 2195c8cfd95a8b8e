//! Doors for the simulation: a server without its threads, and what watches a wire.
//!
//! The clients' door is [`SimClient`], the kernel's [`SimKernel`]. All of them are the code
//! that the shell drives, with as little around it as can be.

mod client;
mod turn;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

pub use client::{ClientSetup, SimClient};
pub use turn::{SimReady, SimTurn};

use crate::core::pace::{DEFAULT_RATE, Framing, LegacyPacing, Pacing, SendQueue};
use crate::core::reflector::{Limits, Message, Report, Shard, ShardConfig, Topology};
use crate::core::rib::PeerId;
use crate::core::session::{CloseReason, Role, SessionConfig};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{
    Capabilities, Extensions, MessageType, Reassembler, Update, decode_subscription, decode_update,
};
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub use crate::kernel::sim::{KernelWork, SimKernel};

/// Longest chunk for a legacy peer, unless a single frame is longer.
pub const CHUNK: usize = crate::core::pace::CHUNK;

/// Bytes offered to one connection at a time.
pub const WRITE_BUDGET: usize = crate::net::WRITE_BUDGET;

/// A frame as somebody who listens in hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello,
    Keepalive,
    Subscribe(Vni),
    Unsubscribe(Vni),
    Update(Action, Vni, Route),
    EndOfRib(Vni),
    Notice,
    /// Nothing that our own side may send.
    Malformed,
}

/// Frames out of a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameReader(Reassembler);

impl FrameReader {
    /// The next frame, if all of it is there.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let frame = match self.0.next(bytes) {
            Ok(frame) => frame?,
            Err(_) => return Some(Frame::Malformed),
        };
        let about = |kind: fn(Vni) -> Frame| decode_subscription(frame.payload).map(kind);
        let read = match frame.kind {
            MessageType::Hello => Ok(Frame::Hello),
            MessageType::Keepalive => Ok(Frame::Keepalive),
            MessageType::Subscribe => about(Frame::Subscribe),
            MessageType::Unsubscribe => about(Frame::Unsubscribe),
            MessageType::EndOfRib => about(Frame::EndOfRib),
            MessageType::Notice => Ok(Frame::Notice),
            MessageType::Update => {
                decode_update(frame.payload).map(|it| Frame::Update(it.action, it.vni, it.route))
            }
        };
        Some(read.unwrap_or(Frame::Malformed))
    }
}

/// What a server is made with.
#[derive(Clone, Copy, Debug)]
pub struct ServerSetup {
    pub shards: usize,
    /// Seconds.
    pub keepalive_interval: u32,
    /// Whether it offers the extensions.
    pub is_modern: bool,
    pub is_paced: bool,
    pub soft_limit: usize,
    pub hard_limit: usize,
    pub seed: u64,
}

/// What a server has, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerGauges {
    pub sessions: usize,
    pub established: usize,
    pub subscriptions: usize,
    pub routes: usize,
    pub vnis: usize,
    pub announcements: usize,
}

/// What its worker would act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerReport {
    Established(u32),
    Closed(u32, CloseReason),
    LegacyDrop(u32),
    Malformed(u32),
    Refused(u32),
}

/// The shards of a server and their mailboxes; the caller says who has a turn.
#[derive(Debug)]
pub struct SimServer {
    topology: Topology,
    shards: Vec<Shard>,
    /// What waits for each shard, in the order in which it was posted.
    mail: Vec<VecDeque<Vec<Message>>>,
}

impl SimServer {
    pub fn new(setup: ServerSetup, now: Instant) -> Self {
        let topology = Topology::new(setup.shards);
        let config = ShardConfig {
            session: session(
                Role::Server,
                setup.keepalive_interval,
                setup.is_modern,
                setup.seed,
            ),
            soft_limit: setup.soft_limit,
            hard_limit: setup.hard_limit,
            memory_limit: usize::MAX,
            limits: Limits {
                routes_per_peer: 1 << 20,
                routes: 1 << 22,
                subscriptions_per_peer: 1 << 10,
                vnis: 1 << 20,
                vnis_per_peer: 1 << 20,
            },
            pacing: pacing(setup.is_paced),
            seed: setup.seed,
        };
        let shards = 0..setup.shards;
        Self {
            topology,
            shards: shards
                .map(|id| Shard::new(id, topology, config, now))
                .collect(),
            mail: (0..setup.shards).map(|_| VecDeque::new()).collect(),
        }
    }

    /// The shard that has the session of a peer.
    pub fn home(&self, peer: u32) -> usize {
        self.topology.home(PeerId(peer))
    }

    fn at(&mut self, peer: u32) -> (&mut Shard, PeerId) {
        let home = self.home(peer);
        (&mut self.shards[home], PeerId(peer))
    }

    fn of(&self, peer: u32) -> (&Shard, PeerId) {
        (&self.shards[self.home(peer)], PeerId(peer))
    }

    pub fn open(&mut self, peer: u32, halvings: u8, now: Instant) -> bool {
        let (shard, id) = self.at(peer);
        shard.open(id, halvings, now)
    }

    pub fn close(&mut self, peer: u32, reason: CloseReason, now: Instant) {
        let (shard, id) = self.at(peer);
        shard.close(id, reason, now);
    }

    pub fn receive(&mut self, peer: u32, bytes: &[u8], now: Instant) {
        let (shard, id) = self.at(peer);
        shard.receive(id, bytes, now);
    }

    /// The shard that has the table of a VNI.
    pub fn owner(&self, vni: Vni) -> usize {
        self.topology.owner(vni)
    }

    /// Announces or withdraws in the name of the process; whether that changed anything.
    pub fn update_own(&mut self, action: Action, vni: Vni, route: Route, now: Instant) -> bool {
        let owner = self.owner(vni);
        let update = Update { action, vni, route };
        self.shards[owner].update_own(&update, now)
    }

    pub fn handle_timeouts(&mut self, shard: usize, now: Instant) {
        self.shards[shard].handle_timeouts(now, |_| false);
    }

    pub fn poll_timeout(&self, shard: usize) -> Option<Instant> {
        self.shards[shard].poll_timeout()
    }

    pub fn has_work(&self, shard: usize) -> bool {
        self.shards[shard].has_work()
    }

    /// What the mail that waits for a shard weighs: messages about routes.
    pub fn mail_weight(&self, shard: usize) -> usize {
        let mail = self.mail[shard].iter();
        mail.map(|it| Message::weight(it)).sum()
    }

    /// Delivers all mail of a shard.
    pub fn read_mail(&mut self, shard: usize, now: Instant) {
        for messages in std::mem::take(&mut self.mail[shard]) {
            self.shards[shard].deliver(messages, now);
        }
    }

    /// Posts what a shard has for the others; who got mail.
    pub fn post(&mut self, shard: usize) -> Vec<usize> {
        let mut woken = Vec::new();
        for to in 0..self.shards.len() {
            let messages = self.shards[shard].take_messages(to);
            if !messages.is_empty() {
                self.mail[to].push_back(messages);
                woken.push(to);
            }
        }
        woken
    }

    /// Ends a turn; no session is past the hard limit after that.
    pub fn turn(&mut self, shard: usize, now: Instant) {
        let announced = |it: &Shard| it.gauges().announcements;
        let remote = self.shards.iter().map(announced).sum::<usize>();
        let remote = remote - announced(&self.shards[shard]);
        self.shards[shard].set_remote_announcements(remote);
        self.shards[shard].turn(now);
        let past = self.shards[shard].past_limit();
        assert_eq!(
            past, None,
            "bytes of changes wait for a session of shard {shard}"
        );
    }

    pub fn take_ready(&mut self, shard: usize) -> Vec<u32> {
        let ready = self.shards[shard].take_ready();
        ready.into_iter().map(|id| id.0).collect()
    }

    pub fn take_queue_queries(&mut self, shard: usize) -> Vec<u32> {
        let queries = self.shards[shard].take_queue_queries();
        queries.into_iter().map(|id| id.0).collect()
    }

    pub fn report_queue(&mut self, peer: u32, is_empty: bool, window: Option<u32>, now: Instant) {
        let (shard, id) = self.at(peer);
        shard.report_queue(id, SendQueue { is_empty, window }, now);
    }

    /// The next bytes for a peer, at most `budget`, and whether they are a chunk.
    pub fn outgoing(&mut self, peer: u32, budget: usize, now: Instant) -> (Vec<u8>, bool) {
        let (shard, id) = self.at(peer);
        shard.resume(id, now);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = shard.gather(id, &mut slices, budget);
        let bytes = slices[..filled].iter().map(|it| &**it);
        let bytes = bytes.collect::<Vec<&[u8]>>().concat();
        (bytes, shard.framing(id) == Framing::Chunk)
    }

    pub fn advance(&mut self, peer: u32, count: usize, now: Instant) {
        let (shard, id) = self.at(peer);
        shard.advance(id, count, now);
    }

    /// Whether a peer is sent chunks.
    pub fn is_chunked(&self, peer: u32) -> bool {
        let (shard, id) = self.of(peer);
        shard.framing(id) == Framing::Chunk
    }

    pub fn is_sendable(&self, peer: u32) -> bool {
        let (shard, id) = self.of(peer);
        shard.is_sendable(id)
    }

    pub fn poll_report(&mut self, shard: usize) -> Option<ServerReport> {
        loop {
            return Some(match self.shards[shard].poll_report()? {
                Report::Established(id) => ServerReport::Established(id.0),
                Report::Closed(id, reason) => ServerReport::Closed(id.0, reason),
                Report::LegacyDrop(id, _) => ServerReport::LegacyDrop(id.0),
                Report::LegacyTable(..) => continue,
                Report::Malformed(id, ..) => ServerReport::Malformed(id.0),
                Report::Refused(id, _) => ServerReport::Refused(id.0),
                Report::Notice(..) | Report::Subscribed(..) | Report::Unsubscribed(..) => continue,
            });
        }
    }

    /// Of all shards.
    pub fn gauges(&self) -> ServerGauges {
        let mut sum = ServerGauges::default();
        for gauges in self.shards.iter().map(Shard::gauges) {
            sum.sessions += gauges.sessions;
            sum.established += gauges.established;
            sum.subscriptions += gauges.subscriptions;
            sum.routes += gauges.routes;
            sum.vnis += gauges.vnis;
            sum.announcements += gauges.announcements;
        }
        sum
    }

    /// How often a queue was coalesced.
    pub fn coalesced(&self) -> u64 {
        let coalesced = |it: &Shard| it.gauges().counters.coalesced;
        self.shards.iter().map(coalesced).sum()
    }
}

/// How a side shakes hands, with a node id of this number.
pub(crate) fn session(
    role: Role,
    keepalive_interval: u32,
    is_modern: bool,
    node: u64,
) -> SessionConfig {
    let extensions = Extensions {
        capabilities: Capabilities::OWN,
        node_id: (u128::from(node) << 1 | 1).to_be_bytes(),
        uptime_seconds: 0,
    };
    SessionConfig {
        role,
        keepalive_interval,
        handshake_timeout: Duration::from_secs(10),
        extensions: is_modern.then_some(extensions),
    }
}

pub(crate) fn pacing(is_paced: bool) -> Pacing {
    let mode = match is_paced {
        true => LegacyPacing::Auto,
        false => LegacyPacing::Off,
    };
    Pacing {
        mode,
        rate: DEFAULT_RATE,
    }
}
