//! The client with its sockets, one step at a time: what its thread and the
//! [`Driver`](super::Driver) share.

mod dial;
mod request;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Poll, Token};

use super::mail::Mail;
use super::sink::Sink;
use super::status::Published;
use crate::core::client::{ConnectionState, Core, FlushId, ServerBit, ServerId};
use crate::core::pace::Framing;
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::error::{Error, Result};
use crate::net::{
    Conn, MAILBOX_WEIGHT, Mailbox, Postbox, READ_BUDGET, Ready, Reply, Turn, WRITE_BUDGET, Written,
};
pub(super) use dial::Resolver;
use server::Server;

const WAKE: Token = Token(usize::MAX);

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Flushed(FlushId),
    Synced(Vni),
}

/// A caller that waits for a goal, as long as `is_waiting` lives.
struct Waiting {
    goal: Goal,
    reply: Reply<Result<()>>,
    is_waiting: Weak<()>,
}

/// What an engine is made with, beside its core.
pub(super) struct EngineConfig {
    /// Address to connect from.
    pub(super) bind: Option<IpAddr>,
    /// A server that acknowledges nothing for this long will not read any more.
    pub(super) user_timeout: Duration,
    /// What knows the addresses of names.
    pub(super) resolver: Resolver,
}

/// A client without a thread.
pub(super) struct Engine {
    poll: Poll,
    ready: Events,
    mailbox: Mailbox<Mail>,
    postbox: Postbox<Mail>,
    pub(super) core: Core,
    config: EngineConfig,
    servers: BTreeMap<ServerId, Server>,
    /// The names that a thread asks the resolver for; one thread for each at most.
    resolving: BTreeSet<String>,
    /// Connection attempts so far, for their tokens.
    attempts: usize,
    turn: Turn<ServerId, Conn>,
    published: Arc<Published>,
    states: BTreeMap<ServerId, ConnectionState>,
    /// How many servers are connected under another name.
    twins: usize,
    waiting: Vec<Waiting>,
    /// The consumers of events, if the client has a thread.
    pub(super) sinks: Vec<Sink>,
    buffer: Box<[u8]>,
    is_stopped: bool,
    /// When it was made, by both clocks.
    started: (SystemTime, Instant),
}

impl Engine {
    /// An engine of a core that has no servers yet.
    pub(super) fn new(
        core: Core,
        config: EngineConfig,
        published: Arc<Published>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        Ok(Self {
            poll,
            ready: Events::with_capacity(64),
            mailbox,
            postbox,
            core,
            config,
            servers: BTreeMap::new(),
            resolving: BTreeSet::new(),
            attempts: 0,
            turn: Turn::new(crate::random::seed()),
            published,
            states: BTreeMap::new(),
            twins: 0,
            waiting: Vec::new(),
            sinks: Vec::new(),
            buffer: vec![0; READ_BUDGET].into_boxed_slice(),
            is_stopped: false,
            started: (SystemTime::now(), Instant::now()),
        })
    }

    /// Returns the way to reach it from other threads.
    pub(super) fn postbox(&self) -> Postbox<Mail> {
        self.postbox.clone()
    }

    /// Adds a server, to be dialled in the next step.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the name is not `HOST:PORT`, or there are too many servers.
    pub(super) fn add_server(&mut self, name: String, now: Instant) -> Result<ServerId> {
        let server = Server::new(name, self.config.bind)?;
        let Some(id) = self.core.add_server(now) else {
            let most = ServerBit::MAX;
            let text = format!("a client has {most} servers at most");
            return Err(Error::InvalidConfig(text));
        };
        self.published.edit(|status| {
            status.names.insert(id, server.name.clone());
            status.states.insert(id, ConnectionState::Connecting);
        });
        self.servers.insert(id, server);
        Ok(id)
    }

    /// Removes a server. Returns `false` if there is none of that number.
    pub(super) fn remove_server(&mut self, id: ServerId, now: Instant) -> bool {
        let Some(server) = self.servers.remove(&id) else {
            return false;
        };
        if let Some(conn) = self.turn.remove(id) {
            conn.finish();
        }
        let name = server.name;
        log::info!(peer:% = name; "server {name}: removed");
        self.published.edit(|status| {
            status.names.remove(&id);
            status.states.remove(&id);
        });
        self.states.remove(&id);
        self.core.remove_server(id, now)
    }

    /// Waits for something to do, at most `limit`, and does it. Returns `false` once it was
    /// told to stop.
    pub(super) fn step(&mut self, limit: Option<Duration>) -> bool {
        let due = self.poll_timeout();
        let wait = match (due, limit) {
            (Some(due), Some(limit)) => Some(due.min(limit)),
            (due, limit) => due.or(limit),
        };
        if let Err(error) = self.poll.poll(&mut self.ready, wait)
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("client: waiting for events: {error}");
        }
        let now = Instant::now();
        for event in &self.ready {
            if dial::is_attempt(event.token()) {
                self.servers.values_mut().for_each(|it| it.dial.note(event));
                continue;
            }
            let (id, core) = (ServerId(event.token().0), &self.core);
            self.turn
                .note(id, || core.framing(id), |conn| conn.note(event));
        }
        self.read_mail(now);
        self.read_sockets(now);
        self.core.handle_timeouts(now);
        self.advance_dials(now);
        self.drop_closed();
        // Once each in a turn: all attempts may fail at once, and be due again at once.
        let due: Vec<ServerId> = std::iter::from_fn(|| self.core.poll_dial(now)).collect();
        for server in due {
            self.dial(server, now);
        }
        self.write_sockets(now);
        self.publish(now);
        self.published.set_generation(self.core.generation());
        !self.is_stopped
    }

    /// Ends the connections in good order.
    pub(super) fn finish(&self) {
        for (_, conn) in self.turn.iter() {
            conn.finish();
        }
        self.published.close();
    }

    /// Returns how long [`Self::step`] has nothing to do, unless its descriptor becomes
    /// readable.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let mut conns = self.turn.iter();
        let writes = conns.any(|(id, it)| it.is_writable() && !self.core.outgoing(id).is_empty());
        if writes || self.turn.has_readers() {
            return Some(Duration::ZERO);
        }
        let dials = self.servers.values().filter_map(|it| it.dial.due());
        let due = dials.chain(self.core.poll_timeout()).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn read_mail(&mut self, now: Instant) {
        self.mailbox.rearm();
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Command(command) => self.execute(command, now),
                Mail::Question(question) => self.answer(question, now),
                Mail::Resolved(name, addresses) => self.resolved(&name, addresses, now),
                Mail::Stop => self.is_stopped = true,
            }
        }
    }

    fn read_sockets(&mut self, now: Instant) {
        let Self {
            turn,
            core,
            servers,
            buffer,
            ..
        } = self;
        turn.begin_reads();
        while turn.has_reads_left() {
            turn.read_next(|id, conn| match read(core, id, conn, buffer) {
                Ok(0) => 0,
                Ok(count) => {
                    let dropped = core.receive(id, &buffer[..count], now);
                    if let Some((why, total)) = dropped {
                        let name = servers.get(&id).map_or("", |it| &it.name);
                        log::warn!("server {name}: message dropped: {why} ({total} so far)");
                    }
                    count
                }
                Err(reason) => {
                    core.lost(id, reason, now);
                    0
                }
            });
        }
        for (id, text) in self.core.take_notices() {
            self.complain(id, &text);
        }
    }

    fn write_sockets(&mut self, now: Instant) {
        let Self {
            turn,
            core,
            servers,
            ..
        } = self;
        for &id in servers.keys() {
            if !core.outgoing(id).is_empty() {
                turn.wants_write(id, || core.framing(id));
            }
        }
        turn.begin_writes();
        while turn.write_next(|id, conn| write(core, id, conn, now)) {}
    }

    /// Drops connections whose session is over.
    fn drop_closed(&mut self) {
        for &id in self.servers.keys() {
            if !self.core.is_up(id) {
                self.turn.remove(id);
            }
        }
    }

    /// Tells the log and the callers that wait what is new.
    fn publish(&mut self, now: Instant) {
        let (states, twins) = (self.core.states(), self.core.twins());
        if states != self.states || twins != self.twins {
            for (server, state) in &states {
                if self.states.get(server) != Some(state) {
                    self.log_state(*server, *state, now);
                }
            }
            self.published.edit(|status| {
                status.states.clone_from(&states);
                status.twins = twins;
            });
            (self.states, self.twins) = (states, twins);
        }
        for report in self.core.take_reports() {
            log::warn!("{report}");
        }
        if !self.waiting.is_empty() {
            self.tell_waiting();
        }
    }

    fn tell_waiting(&mut self) {
        let core = &mut self.core;
        let reached = |core: &Core, goal| match goal {
            Goal::Flushed(flush) => core.is_flushed(flush).then_some(Ok(())),
            Goal::Synced(vni) => match core.is_synced(vni) {
                Some(true) => Some(Ok(())),
                Some(false) => None,
                None => Some(Err(Error::NotSubscribed(vni))),
            },
        };
        for waiting in std::mem::take(&mut self.waiting) {
            let reached = reached(core, waiting.goal);
            if reached.is_none() && waiting.is_waiting.strong_count() > 0 {
                self.waiting.push(waiting);
                continue;
            }
            if let Goal::Flushed(flush) = waiting.goal {
                core.end_flush(flush);
            }
            if let Some(reached) = reached {
                waiting.reply.send(reached);
            }
        }
    }
}

/// Reads once. Returns how many bytes came.
fn read(
    core: &Core,
    id: ServerId,
    conn: &mut Conn,
    buffer: &mut [u8],
) -> std::result::Result<usize, CloseReason> {
    if !core.is_up(id) || !conn.is_readable() {
        return Ok(0);
    }
    conn.read(buffer)
}

/// Writes the share of a server: a chunk to a legacy one, bytes up to a budget to others.
fn write(core: &mut Core, id: ServerId, conn: &mut Conn, now: Instant) -> Written {
    let mut bytes = 0;
    while conn.is_writable() && bytes < WRITE_BUDGET {
        let outgoing = core.outgoing(id);
        if outgoing.is_empty() {
            return Written { bytes, rest: None };
        }
        let framing = core.framing(id);
        match conn.write_framed(&[IoSlice::new(outgoing)], framing) {
            Ok(count) => {
                bytes += count;
                core.advance(id, count, now);
            }
            Err(reason) => {
                core.lost(id, reason, now);
                return Written { bytes, rest: None };
            }
        }
        if framing == Framing::Chunk {
            break;
        }
    }
    let has_rest = !core.outgoing(id).is_empty();
    Written {
        bytes,
        rest: has_rest.then(|| core.framing(id)),
    }
}

impl AsFd for Engine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl AsRawFd for Engine {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}
