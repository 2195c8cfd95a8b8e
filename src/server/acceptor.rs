//! The thread that accepts connections and deals them out to the workers.

mod lobby;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::config::AcceptLimits;
use super::drain::Order;
use super::journal::Journal;
use super::mail::{AcceptorMail, Request, WorkerMail};
use super::stats::WorkerStats;
use crate::core::limit::Quiet;
use crate::core::map::{Map, map};
use crate::core::reflector::{Pressure, Topology};
use crate::core::rib::PeerId;
use crate::core::time::after;
use crate::net::{Acceptance, Listener, MAILBOX_WEIGHT, Mailbox, Peer, Postbox, Source, Stream};
use lobby::Lobby;

/// How long accepting rests when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections taken out of the kernel's queue before the mailbox is read again.
const ACCEPTS_AT_ONCE: usize = 1024;

const WAKE: Token = Token(usize::MAX);

pub(super) struct Acceptor {
    poll: Poll,
    mailbox: Mailbox<AcceptorMail>,
    /// None once the server is drained.
    listeners: Vec<Acceptance>,
    topology: Topology,
    workers: Vec<Postbox<WorkerMail>>,
    limits: AcceptLimits,
    /// Those that are within the limits, and wait for a grant.
    lobby: Lobby,
    /// Open connections, by [`Source::block`].
    open: Map<Source, usize>,
    total: usize,
    /// Sources that are refused, and until when.
    shunned: Map<Source, Instant>,
    bucket: Bucket,
    refused: Arc<AtomicU64>,
    /// The numbers of the workers.
    stats: Vec<Arc<WorkerStats>>,
    journal: Journal,
    failures: Quiet,
    next: u32,
    /// Connections at Unix sockets so far.
    users: u32,
}

/// Grants `per_second` accepts a second, in bursts of at most as many.
#[derive(Debug)]
struct Bucket {
    per_second: u32,
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            tokens: per_second,
            filled: now,
        }
    }

    /// Takes back a grant that was not used.
    fn give_back(&mut self) {
        self.tokens += 1;
    }

    /// Takes a grant. If there is none, returns how long to wait.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let elapsed = now.saturating_duration_since(self.filled);
        let granted = elapsed.as_micros() * u128::from(self.per_second) / 1_000_000;
        if let granted @ 1.. = u32::try_from(granted).unwrap_or(u32::MAX) {
            self.tokens = self.tokens.saturating_add(granted).min(self.per_second);
            self.filled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => Err(Duration::from_secs(1) / self.per_second),
        }
    }
}

impl Acceptor {
    pub(super) fn new(
        listeners: Vec<Listener>,
        topology: Topology,
        workers: Vec<Postbox<WorkerMail>>,
        limits: AcceptLimits,
        refused: Arc<AtomicU64>,
        stats: Vec<Arc<WorkerStats>>,
    ) -> io::Result<(Self, Postbox<AcceptorMail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let listeners = listeners.into_iter().enumerate();
        let listeners = listeners.map(|(at, it)| Acceptance::new(it, poll.registry(), Token(at)));
        let listeners = listeners.collect::<io::Result<_>>()?;
        let acceptor = Self {
            poll,
            mailbox,
            listeners,
            topology,
            workers,
            limits,
            lobby: Lobby::new(crate::random::seed()),
            open: map(crate::random::seed()),
            total: 0,
            shunned: map(crate::random::seed()),
            bucket: Bucket::new(limits.per_second, Instant::now()),
            refused,
            stats,
            journal: Journal::new(),
            failures: Quiet::default(),
            next: 0,
            users: 0,
        };
        Ok((acceptor, postbox))
    }

    /// Accepts until told to stop.
    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(4);
        let mut pause = None;
        loop {
            let timeout = [pause, self.journal.timeout()];
            let timeout = timeout.into_iter().flatten().min();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("waiting for connections: {error}");
            }
            self.mailbox.rearm();
            while let Some(mail) = self.mailbox.take() {
                match mail {
                    AcceptorMail::Closed(source) => self.closed(source),
                    AcceptorMail::Drain(order) => self.drain(&order),
                    AcceptorMail::Limits(limits) => {
                        self.limits = limits;
                        self.bucket = Bucket::new(limits.per_second, Instant::now());
                    }
                    AcceptorMail::Shun(source, time) => self.shun(source, time, Instant::now()),
                    AcceptorMail::Stop => return,
                }
            }
            let now = Instant::now();
            self.journal.sum_up(now);
            pause = match self.accept_all(now) {
                Ok(pause) => pause,
                Err(error) => {
                    if self.failures.is_over(now) {
                        log::warn!("accepting connections pauses: {error}");
                    }
                    Some(PAUSE)
                }
            };
        }
    }

    /// Stops listening. The workers get this order after all accepted connections.
    fn drain(&mut self, order: &Order) {
        self.listeners.clear();
        while let Some((stream, peer)) = self.lobby.take() {
            self.admit(stream, peer);
        }
        log::info!("draining {} sessions over {:?}", self.total, order.over);
        for worker in &self.workers {
            let request = Box::new(Request::Drain(order.clone()));
            worker.post(WorkerMail::Request(request), 1);
        }
    }

    /// Forgets a connection.
    fn closed(&mut self, source: Source) {
        let block = source.block();
        self.total -= 1;
        if let Some(open) = self.open.get_mut(&block) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&block);
            }
        }
    }

    fn shun(&mut self, source: Source, time: Duration, now: Instant) {
        self.shunned.retain(|_, until| now < *until);
        self.shunned.insert(source, after(now, time));
    }

    fn is_shunned(&self, source: Source, now: Instant) -> bool {
        self.shunned.get(&source).is_some_and(|until| now < *until)
    }

    /// Accepts the connections that wait, as fast as allowed. Returns when to go on, if not at
    /// the next event.
    ///
    /// The listeners take turns. An error says that the system lacks something for the moment.
    fn accept_all(&mut self, now: Instant) -> io::Result<Option<Duration>> {
        let mut pause = self.admit_waiting(now);
        let mut left: Vec<usize> = (0..self.listeners.len()).collect();
        for _ in 0..ACCEPTS_AT_ONCE {
            if self.lobby.is_full() {
                self.sweep();
                if self.lobby.is_full() {
                    return Ok(pause);
                }
            }
            let Some(at) = left.pop() else {
                return Ok(pause);
            };
            match self.listeners[at].accept(&mut self.users) {
                Ok((stream, peer)) => {
                    left.insert(0, at);
                    self.receive(stream, peer, now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {}
                    // The connection broke before it was accepted (accept(2)).
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset => left.insert(0, at),
                    _ => return Err(error),
                },
            }
            pause = self.admit_waiting(now);
        }
        Ok(Some(Duration::ZERO))
    }

    /// Takes a new connection into the lobby, or refuses it. Neither costs a grant.
    fn receive(&mut self, stream: Stream, peer: Peer, now: Instant) {
        if self.is_shunned(peer.source(), now) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            log::debug!(peer:% = peer; "peer {peer}: refused, it was drained");
            return;
        }
        let block = peer.source().block();
        let open = self.open.get(&block).copied().unwrap_or(0);
        if self.total >= self.limits.sessions || open >= self.limits.per_address {
            let AcceptLimits {
                sessions,
                per_address,
                ..
            } = self.limits;
            let why = format!(
                "{} connections are open, {sessions} and {per_address} for a source (an address, an IPv6 /64, a user) are allowed",
                self.total
            );
            self.refuse(peer, &why, now);
            return;
        }
        let used = self.stats.iter().map(|it| it.memory()).sum();
        if Pressure::at(used, self.limits.memory) != Pressure::None {
            let limit = self.limits.memory;
            let why = format!("{used} bytes of memory are in use, {limit} are allowed");
            self.refuse(peer, &why, now);
            return;
        }
        self.open.insert(block, open + 1);
        self.total += 1;
        self.lobby.push(block, stream, peer);
    }

    /// Admits those that wait, within the rate. Returns when to go on, if some are left.
    fn admit_waiting(&mut self, now: Instant) -> Option<Duration> {
        while !self.lobby.is_empty() {
            if let Err(pause) = self.bucket.take(now) {
                return Some(pause);
            }
            match self.lobby.take() {
                Some((stream, peer)) if !stream.has_ended() => self.admit(stream, peer),
                ended => {
                    self.bucket.give_back();
                    if let Some((_, peer)) = ended {
                        self.closed(peer.source());
                    }
                }
            }
        }
        None
    }

    /// Drops the connections that have ended while they waited.
    fn sweep(&mut self) {
        let mut ended = Vec::new();
        self.lobby.sweep(|peer| ended.push(peer));
        for peer in ended {
            self.closed(peer.source());
        }
    }

    fn admit(&mut self, stream: Stream, peer: Peer) {
        let id = PeerId(self.next);
        self.next = (self.next + 1) % PeerId::SESSIONS;
        let worker = self.topology.home(id);
        let mail = WorkerMail::Accepted { id, stream, peer };
        if !self.workers[worker].post(mail, 1) {
            log::trace!("worker {worker} is gone");
        }
    }

    /// Dropping the stream closes the connection.
    fn refuse(&mut self, peer: Peer, why: &str, now: Instant) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.journal.refused(peer, why, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_grants_its_rate_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        let granted = (0..10_000_u64)
            .filter(|it| bucket.take(start + Duration::from_millis(*it)).is_ok())
            .count();
        assert!((1095..=1100).contains(&granted), "{granted} in 10 s");
        assert_eq!(bucket.take(start), Err(Duration::from_millis(10)));
    }
}
