//! The way to a connection: the addresses of a server's name, tried in quick succession.
//!
//! This is RFC 8305 in spirit. An attempt begins as soon as the one before has failed, or a
//! moment after that one began; the first that succeeds ends the others. The address of the
//! last session comes first. A thread asks the resolver, one for each name, and the client
//! waits for it no longer than needed: the answer is kept for later attempts.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;
use mio::event::Event;

use super::Engine;
use crate::client::mail::Mail;
use crate::core::client::ServerId;
use crate::core::session::CloseReason;
use crate::net::{Conn, Endpoint, Peer, Stream};

/// Addresses of a name that are tried at most: the last one begins after 4 s at worst, and all
/// end 10 s after the first began.
const ADDRESSES: usize = 16;

/// Addresses of a name that are remembered at most.
const KNOWN: usize = 256;

/// Pause between the beginnings of two attempts (RFC 8305, 8: Connection Attempt Delay).
const STAGGER: Duration = Duration::from_millis(250);

/// How long a resolver that has answered before is waited for, until its last answer must do.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(1);

/// The first token of an attempt. Lower ones are the numbers of servers.
const FIRST_ATTEMPT: usize = 1 << (usize::BITS - 2);

/// Returns whether the events of a token are those of an attempt.
pub(super) fn is_attempt(token: Token) -> bool {
    (FIRST_ATTEMPT..2 * FIRST_ATTEMPT).contains(&token.0)
}

type Resolve = dyn Fn(&Endpoint) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Knows the addresses of names; blocks as long as that takes.
#[derive(Clone)]
pub(in crate::client) struct Resolver(Arc<Resolve>);

impl Resolver {
    /// A resolver that a test answers for.
    #[cfg(test)]
    pub(in crate::client) fn new(
        resolve: impl Fn(&Endpoint) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Endpoint::resolve))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The addresses of a server, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Those of the last answer, families in turn.
    known: Vec<SocketAddr>,
    /// The answer came when nothing waited for it, and was not used.
    is_unused: bool,
    /// The one of the last session.
    good: Option<SocketAddr>,
    /// Those where a connection, but no session came about since the last session; the latest
    /// last.
    bad: Vec<SocketAddr>,
}

impl Addresses {
    fn learn(&mut self, answer: Vec<SocketAddr>) {
        self.known = families_in_turn(answer);
        self.known.truncate(KNOWN);
        self.bad.retain(|it| self.known.contains(it));
        self.is_unused = true;
    }

    /// Returns the addresses in the order in which to try them.
    fn take(&mut self) -> VecDeque<SocketAddr> {
        self.is_unused = false;
        let mut all = self.known.clone();
        let badness = |it: &SocketAddr| self.bad.iter().position(|bad| bad == it);
        let place = |it: &SocketAddr| self.known.iter().position(|known| known == it);
        all.sort_unstable_by_key(|it| (Some(*it) != self.good, badness(it), place(it)));
        // Those that failed come last, so that the next attempt gets to the others.
        all.truncate(ADDRESSES);
        all.into()
    }

    fn praise(&mut self, address: SocketAddr) {
        self.good = Some(address);
        self.bad.clear();
    }

    fn blame(&mut self, address: SocketAddr) {
        self.good.take_if(|it| *it == address);
        self.bad.retain(|it| *it != address);
        self.bad.push(address);
    }
}

/// Returns the addresses, each once, with those of the two families taking turns.
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let mut each = Vec::new();
    for address in addresses {
        if !each.contains(&address) {
            each.push(address);
        }
    }
    let is_first = |it: &SocketAddr| it.is_ipv6() == first.is_ipv6();
    let (mut firsts, mut others): (VecDeque<_>, VecDeque<_>) = each.into_iter().partition(is_first);
    let mut all = Vec::new();
    while !firsts.is_empty() || !others.is_empty() {
        all.extend(firsts.pop_front());
        all.extend(others.pop_front());
    }
    all
}

/// How far the way to a connection is.
#[derive(Debug)]
pub(super) enum Dial {
    /// Nothing is under way.
    Idle,
    /// The resolver is asked; its last answer is used at `until`, if there is one.
    Resolving { until: Option<Instant> },
    /// The resolver is asked, and the time for the attempt was over before it answered.
    Overdue,
    /// Addresses are being tried.
    Racing(Race),
    /// There is a connection, and no session yet.
    Connected(Peer),
    /// There is, or was, a session.
    Established,
}

/// Attempts at the addresses of a server.
#[derive(Debug)]
pub(super) struct Race {
    untried: VecDeque<SocketAddr>,
    running: Vec<(Token, Conn)>,
    /// When the next attempt begins.
    next_at: Option<Instant>,
    /// Why the last attempt that failed did so.
    failed: CloseReason,
}

/// What the attempts of a race have come to.
enum Outcome {
    Connected(Conn),
    Failed,
    Open,
}

impl Dial {
    /// Notes news of an attempt.
    pub(super) fn note(&mut self, event: &Event) {
        if let Self::Racing(race) = self {
            let mut attempts = race.running.iter_mut();
            if let Some((_, conn)) = attempts.find(|(token, _)| *token == event.token()) {
                conn.note(event);
            }
        }
    }

    /// Notes that there is a session.
    pub(super) fn established(&mut self, addresses: &mut Addresses) {
        if let Self::Connected(peer) = *self {
            if let Some(address) = peer.address() {
                addresses.praise(address);
            }
            *self = Self::Established;
        }
    }

    /// Returns when [`Engine::advance_dials`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Resolving { until } => *until,
            Self::Racing(race) => race.next_at,
            Self::Idle | Self::Overdue | Self::Connected(_) | Self::Established => None,
        }
    }

    /// Returns the latest attempt.
    pub(super) fn conn(&self) -> Option<&Conn> {
        match self {
            Self::Racing(race) => race.running.last().map(|(_, conn)| conn),
            Self::Idle
            | Self::Resolving { .. }
            | Self::Overdue
            | Self::Connected(_)
            | Self::Established => None,
        }
    }
}

impl Race {
    fn new(addresses: VecDeque<SocketAddr>) -> Self {
        Self {
            untried: addresses,
            running: Vec::new(),
            next_at: None,
            failed: CloseReason::Unresolved,
        }
    }

    /// Adds the addresses of an answer that came late.
    fn join(&mut self, addresses: VecDeque<SocketAddr>, now: Instant) {
        for address in addresses {
            let mut running = self.running.iter();
            let is_running = running.any(|(_, conn)| conn.peer() == Peer::at(address));
            if !is_running && !self.untried.contains(&address) {
                self.untried.push_back(address);
                self.next_at.get_or_insert(now);
            }
        }
    }

    /// Goes on with the attempts.
    fn advance(&mut self) -> Outcome {
        let mut outcome = Outcome::Open;
        for (token, mut conn) in std::mem::take(&mut self.running) {
            match conn.establish() {
                Ok(true) => return Outcome::Connected(conn),
                Ok(false) => self.running.push((token, conn)),
                Err(reason) => {
                    self.failed = reason;
                    outcome = Outcome::Failed;
                }
            }
        }
        outcome
    }
}

impl Engine {
    /// Begins to connect to a server.
    pub(super) fn dial(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if let Dial::Connected(peer) = std::mem::replace(&mut server.dial, Dial::Idle)
            && let Some(address) = peer.address()
        {
            server.addresses.blame(address);
        }
        if let Some(path) = server.endpoint.path() {
            let dialled = Stream::dial_path(path);
            return self.dialled_path(id, dialled, now);
        }
        if let Some(address) = server.endpoint.address() {
            return self.race(id, [address].into(), now);
        }
        if server.addresses.is_unused {
            let addresses = server.addresses.take();
            return self.race(id, addresses, now);
        }
        let has_known = !server.addresses.known.is_empty();
        let until = has_known.then(|| now + RESOLVER_PATIENCE);
        server.dial = Dial::Resolving { until };
        let endpoint = server.endpoint.clone();
        if let Err(error) = self.resolve(endpoint) {
            log::warn!("cannot start a thread to resolve a name: {error}");
            self.core.lost(id, CloseReason::Io(error.kind()), now);
        }
    }

    /// A Unix socket was dialled, which connects at once or not at all.
    fn dialled_path(&mut self, id: ServerId, dialled: io::Result<(Stream, u32)>, now: Instant) {
        let conn = dialled.and_then(|(stream, uid)| {
            stream.tune(self.config.user_timeout)?;
            let peer = Peer::User { uid, number: 0 };
            Conn::dialled(stream, peer, self.poll.registry(), Token(id.0))
        });
        match conn {
            Ok(conn) => self.connected(id, conn, now),
            Err(error) => self.core.lost(id, CloseReason::Io(error.kind()), now),
        }
    }

    /// Has a thread ask the resolver, which takes its time: the other servers do not wait for
    /// it, nor does a shutdown.
    fn resolve(&mut self, endpoint: Endpoint) -> io::Result<()> {
        let name = endpoint.to_string();
        if self.resolving.contains(&name) {
            return Ok(());
        }
        let (resolver, postbox) = (self.config.resolver.clone(), self.postbox.clone());
        let text = name.clone();
        let resolve = move || {
            let addresses = (resolver.0)(&endpoint);
            postbox.post(Mail::Resolved(text, addresses), 1);
        };
        let thread = std::thread::Builder::new().name("metalbond-resolve".into());
        thread.spawn(resolve)?;
        self.resolving.insert(name);
        Ok(())
    }

    /// The resolver has answered.
    pub(super) fn resolved(
        &mut self,
        name: &str,
        answer: io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) {
        self.resolving.remove(name);
        let answer = match answer {
            Ok(addresses) if addresses.is_empty() => Err("the name has no address".to_owned()),
            other => other.map_err(|error| error.to_string()),
        };
        let is_named = |it: &Endpoint| it.address().is_none() && it.to_string() == name;
        let named = self.servers.iter().filter(|(_, it)| is_named(&it.endpoint));
        let ids: Vec<ServerId> = named.map(|(id, _)| *id).collect();
        for id in ids {
            match &answer {
                Ok(addresses) => {
                    if let Some(server) = self.servers.get_mut(&id) {
                        server.addresses.learn(addresses.clone());
                    }
                }
                Err(why) => self.complain(id, why),
            }
            self.use_answer(id, now);
        }
    }

    /// Goes on with what waited for the resolver.
    fn use_answer(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let is_new = server.addresses.is_unused;
        match &mut server.dial {
            Dial::Resolving { .. } if server.addresses.known.is_empty() => {
                self.core.lost(id, CloseReason::Unresolved, now);
            }
            Dial::Resolving { .. } => {
                let addresses = server.addresses.take();
                self.race(id, addresses, now);
            }
            Dial::Racing(race) if is_new => race.join(server.addresses.take(), now),
            Dial::Overdue if is_new => self.core.hasten(id, now),
            Dial::Idle
            | Dial::Overdue
            | Dial::Racing(_)
            | Dial::Connected(_)
            | Dial::Established => {}
        }
    }

    fn race(&mut self, id: ServerId, addresses: VecDeque<SocketAddr>, now: Instant) {
        if let Some(server) = self.servers.get_mut(&id) {
            server.dial = Dial::Racing(Race::new(addresses));
            self.attempt(id, now);
        }
    }

    /// Begins the next attempt of a race. Without any left, the server counts as lost.
    fn attempt(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let Dial::Racing(race) = &mut server.dial else {
            return;
        };
        race.next_at = None;
        while let Some(address) = race.untried.pop_front() {
            self.attempts = (self.attempts + 1) % FIRST_ATTEMPT;
            let token = Token(FIRST_ATTEMPT + self.attempts);
            let source = server.endpoint.source();
            let conn = Stream::dial(address, source).and_then(|stream| {
                stream.tune(self.config.user_timeout)?;
                Conn::dialled(stream, Peer::at(address), self.poll.registry(), token)
            });
            match conn {
                Ok(conn) => {
                    race.running.push((token, conn));
                    race.next_at = (!race.untried.is_empty()).then(|| now + STAGGER);
                    return;
                }
                Err(error) => {
                    let name = &server.name;
                    log::debug!(peer:% = name; "server {name}: {address}: {error}");
                    race.failed = CloseReason::Io(error.kind());
                }
            }
        }
        if race.running.is_empty() {
            let failed = race.failed;
            server.dial = Dial::Idle;
            self.core.lost(id, failed, now);
        }
    }

    /// Goes on with all that leads to a connection.
    pub(super) fn advance_dials(&mut self, now: Instant) {
        let ids: Vec<ServerId> = self.servers.keys().copied().collect();
        for id in ids {
            let is_dialling = self.core.is_dialling(id);
            let Some(server) = self.servers.get_mut(&id) else {
                continue;
            };
            match &mut server.dial {
                Dial::Racing(_) if !is_dialling => server.dial = Dial::Idle,
                Dial::Resolving { .. } if !is_dialling => server.dial = Dial::Overdue,
                Dial::Resolving { until: Some(until) } if *until <= now => {
                    let addresses = server.addresses.take();
                    self.race(id, addresses, now);
                }
                Dial::Racing(race) => {
                    let is_due = race.next_at.is_some_and(|at| at <= now);
                    match race.advance() {
                        Outcome::Connected(conn) => self.connected(id, conn, now),
                        Outcome::Failed => self.attempt(id, now),
                        Outcome::Open if is_due => self.attempt(id, now),
                        Outcome::Open => {}
                    }
                }
                Dial::Idle
                | Dial::Resolving { .. }
                | Dial::Overdue
                | Dial::Connected(_)
                | Dial::Established => {}
            }
        }
    }

    /// An attempt has succeeded: the others end.
    fn connected(&mut self, id: ServerId, mut conn: Conn, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        server.dial = Dial::Connected(conn.peer());
        match conn.retoken(self.poll.registry(), Token(id.0)) {
            Ok(()) => {
                self.turn.insert(id, conn);
                self.core.dialled(id, now);
            }
            Err(error) => self.core.lost(id, CloseReason::Io(error.kind()), now),
        }
    }
}

#[cfg(test)]
mod tests;
