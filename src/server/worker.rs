//! The thread of a shard: its loop, its sockets, its mailbox.
//!
//! One turn: wait; read what came, mail and bytes; do what is due; pass on what
//! changed; write. Budgets keep a turn short, so that a KEEPALIVE never waits for
//! somebody's bulk; who is left over goes first in the next turn.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use parking_lot::Mutex;

use super::acceptor::Notice;
use super::drain::{Order, Plan};
use super::flaps::Flaps;
use super::journal::Journal;
use super::stats::WorkerStats;
use super::tap::{Tap, Tapped};
use crate::core::map::{Map, map};
use crate::core::pace::{Framing, Memory, SendQueue};
use crate::core::reflector::{Message, Report, Shard, ShardConfig};
use crate::core::rib::PeerId;
use crate::core::types::Vni;
use crate::net::{Conn, Mailbox, Postbox, tune};

/// Bytes read from one connection before the next has its turn.
const READ_BUDGET: usize = 64 * 1024;

/// Bytes written to one connection before the next has its turn.
const WRITE_BUDGET: usize = 256 * 1024;

/// Bytes written to all connections in one turn; about a millisecond.
const TURN_WRITE_BUDGET: usize = 4 * 1024 * 1024;

/// Bytes read from all connections in one turn; about five milliseconds of updates.
const TURN_READ_BUDGET: usize = 1024 * 1024;

/// Chunks written to all legacy peers in one turn; about a millisecond.
const TURN_CHUNKS: usize = 128;

/// Pieces of shared frames in one `writev`.
const SLICES: usize = 64;

const WAKE: Token = Token(usize::MAX);

/// Everything that can come to a worker from another thread.
pub(super) enum Mail {
    /// A new connection; its session will live here.
    Accepted {
        peer: PeerId,
        stream: TcpStream,
        address: SocketAddr,
    },
    /// From another shard, in order.
    Messages(Vec<Message>),
    /// Something to do here that is not on the way of a route.
    Call(Call),
    /// The server is stopping.
    Stop,
}

/// Something to do with a worker, on its thread.
pub(super) type Call = Box<dyn FnOnce(&mut Worker, Instant) + Send>;

/// What wakes a worker, and what then waits for it.
pub(super) type Inbox = (Poll, Mailbox<Mail>);

/// What a worker knows of the other threads.
pub(super) struct Links {
    /// Everybody's mailbox, the own one included.
    pub(super) workers: Vec<Postbox<Mail>>,
    pub(super) acceptor: Postbox<Notice>,
    /// Everybody's numbers, the own ones included.
    pub(super) stats: Vec<Arc<WorkerStats>>,
    /// Which addresses did not stand the pace; asked once for a connection.
    pub(super) paces: Arc<Mutex<Memory>>,
    /// Whose sessions ended; told once for a session.
    pub(super) flaps: Arc<Mutex<Flaps>>,
}

pub(super) struct Worker {
    id: usize,
    poll: Poll,
    mailbox: Mailbox<Mail>,
    links: Links,
    pub(super) shard: Shard,
    conns: Map<PeerId, Conn>,
    readers: VecDeque<PeerId>,
    writers: VecDeque<PeerId>,
    /// Legacy peers; a chunk is dearer than its bytes, and must not be at the others' cost.
    chunk_writers: VecDeque<PeerId>,
    /// Of a server that is drained.
    drain: Option<Plan>,
    taps: Vec<Tap>,
    stats: Arc<WorkerStats>,
    user_timeout: Duration,
    journal: Journal,
    buffer: Box<[u8]>,
}

impl Worker {
    pub(super) fn new(
        id: usize,
        shard: Shard,
        (poll, mailbox): Inbox,
        links: Links,
        user_timeout: Duration,
    ) -> Self {
        Self {
            id,
            poll,
            mailbox,
            stats: Arc::clone(&links.stats[id]),
            links,
            shard,
            conns: map(crate::random::seed()),
            readers: VecDeque::new(),
            writers: VecDeque::new(),
            chunk_writers: VecDeque::new(),
            drain: None,
            taps: Vec::new(),
            user_timeout,
            journal: Journal::new(),
            buffer: vec![0; READ_BUDGET].into_boxed_slice(),
        }
    }

    /// A poll and the mailbox that wakes it.
    ///
    /// The mailbox is full from a weight of `high` on.
    pub(super) fn mailbox(high: usize) -> std::io::Result<(Inbox, Postbox<Mail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, high)?;
        Ok(((poll, mailbox), postbox))
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.timeout())
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!("worker {}: waiting for events: {error}", self.id);
            }
            let now = Instant::now();
            for event in &events {
                self.note(event);
            }
            if !self.read_mail(now) {
                return;
            }
            self.read_sockets(now);
            self.shard.handle_timeouts(now);
            self.end_drained(now);
            self.query_queues(now);
            self.shard
                .set_remote_announcements(self.remote_announcements());
            self.shard.turn(now);
            self.post();
            self.feed_taps();
            self.write_sockets(now);
            self.report(now);
            let conns = &self.conns;
            self.drain
                .take_if(|it| it.is_finished(|id| conns.contains_key(&id)));
            self.stats.publish(self.shard.gauges());
        }
    }

    /// Where a session comes from.
    pub(super) fn address(&self, id: PeerId) -> Option<SocketAddr> {
        self.conns.get(&id).map(|conn| conn.address)
    }

    /// The sessions and where they come from.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> + '_ {
        self.conns.iter().map(|(id, conn)| (*id, conn.address))
    }

    /// From now on, somebody hears what happens here; `current`: after what is so.
    pub(super) fn tap(&mut self, mut tap: Tap, current: bool) {
        let tables = match current {
            true => self.shard.tables_mut().current(tap.vni),
            false => Vec::new(),
        };
        let begin = tables.into_iter().map(Tapped::Change);
        if tap.feed(begin.chain([Tapped::Current])) {
            self.taps.push(tap);
            self.shard.tables_mut().set_watched(true);
        }
    }

    fn feed_taps(&mut self) {
        if self.taps.is_empty() {
            return;
        }
        let changes = self.shard.tables_mut().take_watched();
        self.taps.retain_mut(|tap| {
            let of_its_vni = |(vni, _): &&(Vni, _)| tap.vni.is_none_or(|it| it == *vni);
            let its_own: Vec<_> = changes.iter().filter(of_its_vni).cloned().collect();
            tap.feed(its_own.into_iter().map(Tapped::Change))
        });
        self.shard.tables_mut().set_watched(!self.taps.is_empty());
    }

    fn tell_taps(&mut self, happened: &Tapped) {
        self.taps.retain_mut(|tap| tap.feed([happened.clone()]));
    }

    fn remote_announcements(&self) -> usize {
        let others = self.links.stats.iter().enumerate();
        let others = others.filter(|(id, _)| *id != self.id);
        let announced = others.map(|(_, stats)| stats.announcements.load(Ordering::Relaxed));
        announced.sum()
    }

    fn timeout(&self) -> Option<Duration> {
        let reads = !self.readers.is_empty() && !self.is_held_up();
        let writes = !self.writers.is_empty() || !self.chunk_writers.is_empty();
        if reads || writes || self.shard.has_work() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.shard.poll_timeout(),
            self.drain.as_ref().and_then(Plan::poll_timeout),
            self.journal.due(),
        ];
        let due = due.into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn note(&mut self, event: &mio::event::Event) {
        let id = PeerId(u32::try_from(event.token().0).unwrap_or(u32::MAX));
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.ready.update(event);
        if conn.ready.readable && !std::mem::replace(&mut conn.in_readers, true) {
            self.readers.push_back(id);
        }
        if conn.ready.writable && !std::mem::replace(&mut conn.in_writers, true) {
            self.push_writer(id);
        }
    }

    fn push_writer(&mut self, id: PeerId) {
        match self.shard.framing(id) {
            Framing::Stream => self.writers.push_back(id),
            Framing::Chunk => self.chunk_writers.push_back(id),
        }
    }

    /// Finds out what the pacing of legacy peers waits for.
    fn query_queues(&mut self, now: Instant) {
        for id in self.shard.take_queue_queries() {
            let Some(conn) = self.conns.get(&id) else {
                continue;
            };
            let queue = conn.send_queue().unwrap_or_else(|error| {
                let address = conn.address;
                log::debug!(peer:% = address; "peer {address}: asking for its queue: {error}");
                SendQueue {
                    is_empty: true,
                    window: None,
                }
            });
            self.shard.report_queue(id, queue, now);
        }
    }

    /// Takes all mail; `false` when told to stop.
    fn read_mail(&mut self, now: Instant) -> bool {
        self.mailbox.rearm();
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Accepted {
                    peer,
                    stream,
                    address,
                } => self.accept(peer, stream, address, now),
                Mail::Messages(messages) => self.shard.deliver(messages, now),
                Mail::Call(call) => call(self, now),
                Mail::Stop => return false,
            }
        }
        if self.mailbox.has_room_for_waiters() {
            for postbox in &self.links.workers {
                postbox.wake();
            }
        }
        true
    }

    /// Other settings hold from now on, and for new sessions.
    pub(super) fn reconfigure(&mut self, shard: ShardConfig, user_timeout: Duration) {
        self.shard.reconfigure(shard);
        self.user_timeout = user_timeout;
    }

    fn accept(&mut self, peer: PeerId, stream: TcpStream, address: SocketAddr, now: Instant) {
        let stream = mio::net::TcpStream::from_std(stream);
        if let Err(error) = tune(&stream, self.user_timeout) {
            log::debug!(peer:% = address; "peer {address}: setting socket options: {error}");
        }
        let token = Token(peer.0 as usize);
        let halvings = self.links.paces.lock().halvings(address.ip(), now);
        match Conn::new(stream, address, self.poll.registry(), token) {
            Ok(conn) if self.shard.open(peer, halvings, now) => {
                self.stats.accepted.fetch_add(1, Ordering::Relaxed);
                self.conns.insert(peer, conn);
            }
            Ok(_) => {
                let why = "session numbers have wrapped around";
                self.journal.refused(address, why, now);
                self.links.acceptor.post(Notice::Closed(address.ip()), 1);
            }
            Err(error) => {
                self.journal.refused(address, &error.to_string(), now);
                self.links.acceptor.post(Notice::Closed(address.ip()), 1);
            }
        }
    }

    /// Ends all sessions, spread over a time.
    pub(super) fn drain(&mut self, order: Order, now: Instant) {
        let sessions = self.conns.keys().copied().collect();
        self.drain = Some(Plan::new(order, sessions, now));
    }

    /// Ends the sessions whose time has come, once they were sent what waits for them.
    fn end_drained(&mut self, now: Instant) {
        while let Some(id) = self.drain.as_mut().and_then(|it| it.take(now)) {
            self.shard.drain(id, now);
        }
    }

    /// Whether some shard must catch up before more is read.
    fn is_held_up(&self) -> bool {
        let mut others = self.links.workers.iter().enumerate();
        others.any(|(id, postbox)| id != self.id && postbox.is_full())
    }

    fn read_sockets(&mut self, now: Instant) {
        let mut budget = TURN_READ_BUDGET;
        for _ in 0..self.readers.len() {
            if budget == 0 {
                return;
            }
            if self.is_held_up() {
                self.stats.held_up.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let Some(id) = self.readers.pop_front() else {
                return;
            };
            let read = self.read_socket(id, now);
            budget = budget.saturating_sub(read);
            self.post();
        }
    }

    fn read_socket(&mut self, id: PeerId, now: Instant) -> usize {
        let Some(conn) = self.conns.get_mut(&id) else {
            return 0;
        };
        match conn.read(&mut self.buffer) {
            Ok(count) => {
                conn.in_readers = conn.ready.readable;
                if conn.in_readers {
                    self.readers.push_back(id);
                }
                let read = self.stats.bytes_received.load(Ordering::Relaxed);
                self.stats
                    .bytes_received
                    .store(read + count as u64, Ordering::Relaxed);
                self.shard.receive(id, &self.buffer[..count], now);
                count
            }
            Err(reason) => {
                self.shard.close(id, reason, now);
                0
            }
        }
    }

    /// Sends other shards what this turn has for them.
    fn post(&mut self) {
        for shard in 0..self.links.workers.len() {
            let messages = self.shard.take_messages(shard);
            if messages.is_empty() {
                continue;
            }
            let weight = Message::weight(&messages);
            if !self.links.workers[shard].post(Mail::Messages(messages), weight) {
                // Only while the server stops.
                log::trace!("worker {shard} is gone");
            }
        }
    }

    fn write_sockets(&mut self, now: Instant) {
        for id in self.shard.take_ready() {
            if let Some(conn) = self.conns.get_mut(&id)
                && conn.ready.writable
                && !std::mem::replace(&mut conn.in_writers, true)
            {
                self.push_writer(id);
            }
        }
        let mut budget = TURN_WRITE_BUDGET;
        for _ in 0..self.writers.len() {
            if budget == 0 {
                break;
            }
            let Some(id) = self.writers.pop_front() else {
                break;
            };
            let written = self.write_socket(id, now);
            budget = budget.saturating_sub(written);
        }
        for _ in 0..TURN_CHUNKS {
            let Some(id) = self.chunk_writers.pop_front() else {
                return;
            };
            self.write_socket(id, now);
        }
    }

    fn write_socket(&mut self, id: PeerId, now: Instant) -> usize {
        let Some(conn) = self.conns.get_mut(&id) else {
            return 0;
        };
        conn.in_writers = false;
        self.shard.resume(id, now);
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = self.shard.gather(id, &mut slices, WRITE_BUDGET);
        if filled == 0 {
            return 0;
        }
        let framing = self.shard.framing(id);
        match conn.write(&slices[..filled], framing) {
            Ok(count) => {
                self.shard.advance(id, count, now);
                let sent = self.stats.bytes_sent.load(Ordering::Relaxed);
                self.stats
                    .bytes_sent
                    .store(sent + count as u64, Ordering::Relaxed);
                if conn.ready.writable && self.shard.is_sendable(id) {
                    conn.in_writers = true;
                    self.push_writer(id);
                }
                count
            }
            Err(reason) => {
                self.shard.close(id, reason, now);
                0
            }
        }
    }

    /// Logs what happened, and lets go of connections whose session is over.
    fn report(&mut self, now: Instant) {
        while let Some(report) = self.shard.poll_report() {
            match report {
                Report::Established(id) => {
                    if let Some(address) = self.address(id) {
                        self.journal.established(id, address, now);
                        self.tell_taps(&Tapped::PeerUp(address));
                    }
                }
                Report::Subscribed(id, vni) => {
                    if let Some(address) = self.address(id) {
                        Journal::subscribed(address, vni);
                    }
                }
                Report::Unsubscribed(id, vni) => {
                    if let Some(address) = self.address(id) {
                        Journal::unsubscribed(address, vni);
                    }
                }
                Report::Malformed(id, why, total) => {
                    if let Some(conn) = self.conns.get(&id) {
                        self.journal.malformed(conn.address, why, total, now);
                    }
                }
                Report::Refused(id, total) => {
                    if let Some(conn) = self.conns.get(&id) {
                        self.journal.over_limit(conn.address, total, now);
                    }
                }
                Report::LegacyDrop(id) => {
                    if let Some(conn) = self.conns.get(&id) {
                        let address = conn.address;
                        let halvings = self.links.paces.lock().halve(address.ip(), now);
                        self.journal.paced(address, halvings, now);
                    }
                }
                Report::Closed(id, reason) => {
                    if let Some(conn) = self.conns.remove(&id) {
                        let closed = Notice::Closed(conn.address.ip());
                        self.links.acceptor.post(closed, 1);
                        self.stats.closed.fetch_add(1, Ordering::Relaxed);
                        let address = conn.address;
                        self.journal.closed(id, address, reason, now);
                        self.links.flaps.lock().ended(address.ip(), reason, now);
                        self.tell_taps(&Tapped::PeerDown(address, reason));
                    }
                }
            }
        }
        self.journal.sum_up(now);
    }
}
