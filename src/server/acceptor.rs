//! The thread that accepts connections and deals them out to the workers.

mod lobby;

use std::io;
use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

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
use crate::net::{MAILBOX_WEIGHT, Mailbox, Peer, Postbox, Stream};
use lobby::Lobby;

/// How long accepting rests when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections taken out of the kernel's queue before the mailbox is read again.
const ACCEPTS_AT_ONCE: usize = 1024;

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);

pub(super) struct Acceptor {
    poll: Poll,
    mailbox: Mailbox<AcceptorMail>,
    /// `None` once the server is drained.
    listener: Option<mio::net::TcpListener>,
    topology: Topology,
    workers: Vec<Postbox<WorkerMail>>,
    limits: AcceptLimits,
    /// Those that are within the limits, and wait for a grant.
    lobby: Lobby,
    /// Open connections, by block of addresses.
    open: Map<IpAddr, usize>,
    total: usize,
    /// Addresses that are refused, and until when.
    shunned: Map<IpAddr, Instant>,
    bucket: Bucket,
    refused: Arc<AtomicU64>,
    /// The numbers of the workers.
    stats: Vec<Arc<WorkerStats>>,
    journal: Journal,
    failures: Quiet,
    next: u32,
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
        listener: TcpListener,
        topology: Topology,
        workers: Vec<Postbox<WorkerMail>>,
        limits: AcceptLimits,
        refused: Arc<AtomicU64>,
        stats: Vec<Arc<WorkerStats>>,
    ) -> io::Result<(Self, Postbox<AcceptorMail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let acceptor = Self {
            poll,
            mailbox,
            listener: Some(listener),
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
                    AcceptorMail::Closed(address) => self.closed(block(address)),
                    AcceptorMail::Drain(order) => self.drain(&order),
                    AcceptorMail::Limits(limits) => {
                        self.limits = limits;
                        self.bucket = Bucket::new(limits.per_second, Instant::now());
                    }
                    AcceptorMail::Shun(address, time) => self.shun(address, time, Instant::now()),
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
        self.listener = None;
        while let Some((stream, peer)) = self.lobby.take() {
            self.admit(stream, peer);
        }
        log::info!("draining {} sessions over {:?}", self.total, order.over);
        for worker in &self.workers {
            let request = Box::new(Request::Drain(order.clone()));
            worker.post(WorkerMail::Request(request), 1);
        }
    }

    /// Forgets a connection from a block.
    fn closed(&mut self, block: IpAddr) {
        self.total -= 1;
        if let Some(open) = self.open.get_mut(&block) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&block);
            }
        }
    }

    fn shun(&mut self, address: IpAddr, time: Duration, now: Instant) {
        self.shunned.retain(|_, until| now < *until);
        self.shunned.insert(address, after(now, time));
    }

    fn is_shunned(&self, address: IpAddr, now: Instant) -> bool {
        self.shunned.get(&address).is_some_and(|until| now < *until)
    }

    /// Accepts the connections that wait, as fast as allowed. Returns when to go on, if not at
    /// the next event.
    ///
    /// An error says that the system lacks something for the moment.
    fn accept_all(&mut self, now: Instant) -> io::Result<Option<Duration>> {
        for _ in 0..ACCEPTS_AT_ONCE {
            let pause = self.admit_waiting(now);
            if self.lobby.is_full() {
                self.sweep();
                if self.lobby.is_full() {
                    return Ok(pause);
                }
            }
            let Some(listener) = &self.listener else {
                return Ok(pause);
            };
            match listener.accept() {
                Ok((stream, address)) => {
                    self.receive(stream.into(), Peer::accepted(address), now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(pause),
                    // The connection broke before it was accepted (accept(2)).
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(Some(Duration::ZERO))
    }

    /// Takes a new connection into the lobby, or refuses it. Neither costs a grant.
    fn receive(&mut self, stream: Stream, peer: Peer, now: Instant) {
        if self.is_shunned(peer.ip(), now) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            log::debug!(peer:% = peer; "peer {peer}: refused, it was drained");
            return;
        }
        let block = block(peer.ip());
        let open = self.open.get(&block).copied().unwrap_or(0);
        if self.total >= self.limits.sessions || open >= self.limits.per_address {
            let AcceptLimits {
                sessions,
                per_address,
                ..
            } = self.limits;
            let why = format!(
                "{} connections are open, {sessions} and {per_address} for an address (IPv6: a /64) are allowed",
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
                        self.closed(block(peer.ip()));
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
            self.closed(block(peer.ip()));
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

/// Returns what counts as one address: an IPv4 address, or an IPv6 /64, of which one host
/// usually has all.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let of = |text: &str| block(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

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
