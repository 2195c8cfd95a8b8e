//! The thread of a shard: its loop, its sockets, its mailbox.
//!
//! One turn: wait; read mail and bytes; do what is due; pass on what changed; write. The
//! [`Turn`] says which sockets are served and how much of each.

mod report;
mod request;

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use parking_lot::Mutex;

use super::drain::Plan;
use super::flaps::Flaps;
use super::holds::{Holds, READ_WHILE_FULL};
use super::journal::Journal;
use super::mail::{AcceptorMail, WorkerMail};
use super::stats::WorkerStats;
use super::watch::WatchSender;
use crate::core::pace::{Memory, SendQueue};
use crate::core::reflector::{Message, Phase, Shard};
use crate::core::rib::PeerId;
use crate::net::{
    Conn, Mailbox, Peer, Postbox, READ_BUDGET, Ready, Stream, Turn, WRITE_BUDGET, Waiting, Written,
};

/// Bytes of a session that the shard is given at once: what they cost shows only then.
const READ_SLICE: usize = 8 * 1024;

/// Bytes that all sessions which wait to be read share, so that one of thousands that only sends
/// a KEEPALIVE does not wait for the tables of the others.
const READ_SHARED: usize = 4 * READ_BUDGET;

/// Bytes of a session that are read at least: of one whose socket was empty until now, and of one
/// of which more was left.
const READ_NEWS: usize = 128;
const READ_REST: usize = 2 * 1024;

/// Pieces of shared frames in one `writev`.
const SLICES: usize = 64;

/// Weight of the mail taken in one turn. What messages cost, the shard's meter knows; this is for
/// connections and requests, of which it knows nothing.
const MAIL_PER_TURN: usize = 8192;

const WAKE: Token = Token(usize::MAX);

/// What wakes a worker, and the mail that then waits for it.
pub(super) type Inbox = (Poll, Mailbox<WorkerMail>);

/// What a worker shares with the other threads.
pub(super) struct Links {
    /// The mailboxes of all workers, this one's too.
    pub(super) workers: Vec<Postbox<WorkerMail>>,
    pub(super) acceptor: Postbox<AcceptorMail>,
    /// The numbers of all workers, this one's too.
    pub(super) stats: Vec<Arc<WorkerStats>>,
    /// The addresses whose pace is halved; read once for each connection.
    pub(super) paces: Arc<Mutex<Memory>>,
    /// The addresses whose sessions ended; written once for each session.
    pub(super) flaps: Arc<Mutex<Flaps>>,
}

pub(super) struct Worker {
    id: usize,
    poll: Poll,
    mailbox: Mailbox<WorkerMail>,
    links: Links,
    shard: Shard,
    turn: Turn<PeerId, Conn>,
    holds: Holds,
    /// Mail waits that the last turn did not come to.
    has_mail: bool,
    /// Of a server that is drained.
    drain: Option<Plan>,
    watches: Vec<WatchSender>,
    stats: Arc<WorkerStats>,
    user_timeout: Duration,
    journal: Journal,
    buffer: Box<[u8]>,
    /// The part of the buffer that the last turn had no room for, and whose it is.
    unread: Option<(PeerId, Range<usize>)>,
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
            holds: Holds::new(links.workers.len(), crate::random::seed()),
            has_mail: false,
            links,
            shard,
            turn: Turn::new(crate::random::seed()),
            drain: None,
            watches: Vec::new(),
            user_timeout,
            journal: Journal::new(),
            buffer: vec![0; READ_BUDGET].into_boxed_slice(),
            unread: None,
        }
    }

    /// Makes a poll and the mailbox that wakes it, which is full from a weight of `high` on.
    pub(super) fn mailbox(high: usize) -> std::io::Result<(Inbox, Postbox<WorkerMail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, high)?;
        Ok(((poll, mailbox), postbox))
    }

    /// Serves until told to stop.
    pub(super) fn run(&mut self) {
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
            self.handle_timeouts(now);
            self.end_drained(now);
            self.query_queues(now);
            self.shard
                .set_remote_announcements(self.remote_announcements());
            self.shard.set_remote_bytes(self.remote_bytes());
            self.shard.turn(now);
            self.post(None);
            self.feed_watches();
            self.write_sockets(now);
            self.report(now);
            let turn = &self.turn;
            self.drain
                .take_if(|it| it.is_finished(|id| turn.get(id).is_some()));
            self.stats.publish(self.shard.gauges());
            self.stats
                .publish_memory(self.shard.usage(), self.watch_bytes());
        }
    }

    /// Returns the far end of a session.
    fn peer(&self, id: PeerId) -> Option<Peer> {
        self.turn.get(id).map(Conn::peer)
    }

    fn remote_announcements(&self) -> usize {
        let others = self.links.stats.iter().enumerate();
        let others = others.filter(|(id, _)| *id != self.id);
        let announced = others.map(|(_, stats)| stats.announcements.load(Ordering::Relaxed));
        announced.sum()
    }

    /// Returns the bytes of all that this worker's shard does not count.
    fn remote_bytes(&self) -> usize {
        let others = self.links.stats.iter().enumerate();
        let others = others.filter(|(id, _)| *id != self.id);
        others.map(|(_, stats)| stats.memory()).sum::<usize>() + self.watch_bytes()
    }

    /// Returns the bytes that wait in watches. They are the server's, and the first worker's to
    /// count.
    fn watch_bytes(&self) -> usize {
        match self.id {
            0 => self.watches.iter().map(WatchSender::waiting_bytes).sum(),
            _ => 0,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let has_sockets = self.turn.has_readers() || self.turn.has_writers();
        let is_behind = has_sockets || self.has_mail || self.unread.is_some();
        if is_behind || self.shard.has_work() || self.has_watch_steps() {
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
        let shard = &self.shard;
        self.turn
            .note(id, || shard.framing(id), |conn| conn.note(event));
    }

    /// Answers what the pacing of legacy peers asks of the kernel.
    fn query_queues(&mut self, now: Instant) {
        for id in self.shard.take_queue_queries() {
            let Some(conn) = self.turn.get(id) else {
                continue;
            };
            let queue = conn.send_queue().unwrap_or_else(|error| {
                let peer = conn.peer();
                log::debug!(peer:% = peer; "peer {peer}: asking for its queue: {error}");
                SendQueue {
                    is_empty: true,
                    window: None,
                }
            });
            self.shard.report_queue(id, queue, now);
        }
    }

    /// Does what is due. A session is silent only if its socket has nothing to read.
    fn handle_timeouts(&mut self, now: Instant) {
        let Self {
            shard,
            turn,
            unread,
            ..
        } = self;
        let is_unread = |id| unread.as_ref().is_some_and(|it| it.0 == id);
        shard.handle_timeouts(now, |id| {
            is_unread(id) || turn.poll_readable(id, Conn::poll_readable)
        });
    }

    /// Takes the mail, as much as one turn is to cost. Returns `false` when told to stop.
    fn read_mail(&mut self, now: Instant) -> bool {
        self.mailbox.rearm();
        let mut budget = MAIL_PER_TURN;
        self.has_mail = false;
        while let Some((mail, weight)) = self.mailbox.take_weighed() {
            match mail {
                WorkerMail::Accepted { id, stream, peer } => self.accept(id, stream, peer, now),
                WorkerMail::Messages(messages) => self.shard.deliver(messages, now),
                WorkerMail::Request(request) => self.serve(*request, now),
                WorkerMail::Stop => return false,
            }
            budget = budget.saturating_sub(weight);
            if budget == 0 || self.shard.is_over(Phase::Mail) {
                self.has_mail = true;
                break;
            }
        }
        if self.mailbox.has_room_for_waiters() {
            for postbox in &self.links.workers {
                postbox.wake();
            }
        }
        true
    }

    fn accept(&mut self, id: PeerId, stream: Stream, peer: Peer, now: Instant) {
        if let Err(error) = stream.tune(self.user_timeout) {
            log::debug!(peer:% = peer; "peer {peer}: setting socket options: {error}");
        }
        let token = Token(id.0 as usize);
        // A user of this host has no address whose buffer could have been overrun.
        let paces = &self.links.paces;
        let halvings = peer.ip().map_or(0, |ip| paces.lock().halvings(ip, now));
        let refused = match Conn::accepted(stream, peer, self.poll.registry(), token) {
            Ok(conn) if self.shard.open(id, halvings, now) => {
                self.stats.accepted.fetch_add(1, Ordering::Relaxed);
                self.turn.insert(id, conn);
                return;
            }
            Ok(_) => "session numbers have wrapped around".to_owned(),
            Err(error) => error.to_string(),
        };
        self.journal.refused(peer, &refused, now);
        let closed = AcceptorMail::Closed(peer.source());
        self.links.acceptor.post(closed, 1);
    }

    /// Ends the sessions whose time has come, once they were sent what waits for them.
    fn end_drained(&mut self, now: Instant) {
        while let Some(id) = self.drain.as_mut().and_then(|it| it.take(now)) {
            self.shard.drain(id, now);
        }
    }

    /// Notes which owners are behind. Lets the sessions read that waited for one that has
    /// caught up.
    fn release_held(&mut self) {
        let mut has_caught_up = false;
        for (owner, postbox) in self.links.workers.iter().enumerate() {
            if owner != self.id {
                has_caught_up |= self.holds.owner_is_full(owner, postbox.is_full());
            }
        }
        if has_caught_up {
            self.turn.release();
        }
    }

    fn read_sockets(&mut self, now: Instant) {
        self.release_held();
        if let Some((id, bytes)) = self.unread.take() {
            self.feed(id, bytes, now);
            self.post(Some(id));
        }
        self.turn.begin_reads();
        // Those that this turn has no room for are the first of the next one.
        while self.turn.has_reads_left() && self.unread.is_none() {
            let least = match self.turn.next_waiting() {
                Some(Waiting::News) => READ_NEWS,
                Some(Waiting::Rest) | None => READ_REST,
            };
            let readers = self.turn.readers().max(1);
            let mut budget = (READ_SHARED / readers).clamp(least, READ_BUDGET);
            if self.holds.has_full() {
                let holds = &self.holds;
                if self.turn.hold_next(|id| holds.is_held(id)) {
                    self.stats.held_up.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                budget = budget.min(READ_WHILE_FULL);
            }
            let Self {
                turn,
                shard,
                stats,
                buffer,
                ..
            } = self;
            let mut read = None;
            turn.read_next(|id, conn| match conn.read(&mut buffer[..budget]) {
                Ok(count) => {
                    add(&stats.bytes_received, count);
                    read = Some((id, count));
                    count
                }
                Err(reason) => {
                    shard.close(id, reason, now);
                    0
                }
            });
            if let Some((id, count)) = read {
                self.feed(id, 0..count, now);
            }
            self.post(read.map(|it| it.0));
            if self.shard.is_over(Phase::Reads) {
                break;
            }
        }
    }

    /// Gives the shard a part of the buffer, as far as the turn has room.
    fn feed(&mut self, id: PeerId, bytes: Range<usize>, now: Instant) {
        let mut rest = bytes;
        loop {
            let end = rest.end.min(rest.start + READ_SLICE);
            self.shard.receive(id, &self.buffer[rest.start..end], now);
            rest.start = end;
            if rest.is_empty() {
                return;
            }
            if self.shard.is_over(Phase::Reads) {
                self.unread = Some((id, rest));
                return;
            }
        }
    }

    /// Sends the other shards what this turn has for them, because of the session `from` if one
    /// was just read.
    fn post(&mut self, from: Option<PeerId>) {
        for shard in 0..self.links.workers.len() {
            let messages = self.shard.take_messages(shard);
            if messages.is_empty() {
                continue;
            }
            let weight = Message::weight(&messages);
            let postbox = &self.links.workers[shard];
            if !postbox.post(WorkerMail::Messages(messages), weight) {
                // Only while the server stops.
                log::trace!("worker {shard} is gone");
            }
            if let Some(id) = from
                && postbox.is_full()
            {
                self.holds.owner_is_full(shard, true);
                self.holds.feeds(id, shard, weight);
            }
        }
    }

    fn write_sockets(&mut self, now: Instant) {
        for id in self.shard.take_ready() {
            let shard = &self.shard;
            self.turn.wants_write(id, || shard.framing(id));
        }
        self.turn.begin_writes();
        let Self {
            turn, shard, stats, ..
        } = self;
        while turn.write_next(|id, conn| write(shard, stats, id, conn, now)) {}
    }
}

fn write(
    shard: &mut Shard,
    stats: &WorkerStats,
    id: PeerId,
    conn: &mut Conn,
    now: Instant,
) -> Written {
    shard.resume(id, now);
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = shard.gather(id, &mut slices, WRITE_BUDGET);
    if filled == 0 {
        return Written::NOTHING;
    }
    match conn.write_framed(&slices[..filled], shard.framing(id)) {
        Ok(bytes) => {
            shard.advance(id, bytes, now);
            add(&stats.bytes_sent, bytes);
            let has_rest = conn.is_writable() && shard.is_sendable(id);
            Written {
                bytes,
                rest: has_rest.then(|| shard.framing(id)),
            }
        }
        Err(reason) => {
            shard.close(id, reason, now);
            Written::NOTHING
        }
    }
}

/// Adds to a number that only this thread writes.
fn add(number: &AtomicU64, count: usize) {
    number.store(
        number.load(Ordering::Relaxed) + count as u64,
        Ordering::Relaxed,
    );
}
