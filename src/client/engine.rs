//! The client with its sockets, one step at a time: what its thread and the
//! [`Driver`](super::Driver) share.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use mio::{Events, Poll, Token};

use super::status::Shared;
use super::worker::Sink;
use crate::core::client::{
    ConnectionState, ConsumerId, Core, CoreConfig, FlushId, ServerBit, ServerId,
};
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::error::{Error, Result};
use crate::inspect::PeerStatus;
use crate::net::{Conn, MAILBOX_WEIGHT, Mailbox, Postbox, dial, tune};

/// Bytes read from one server before the next has its turn.
const READ_BUDGET: usize = 64 * 1024;

/// Bytes written to one server before the next has its turn.
const WRITE_BUDGET: usize = 256 * 1024;

/// Different errors of a server that are kept in mind.
const COMPLAINTS: usize = 16;

const WAKE: Token = Token(usize::MAX);

/// Something to do with the engine, on its thread.
pub(super) type Call = Box<dyn FnOnce(&mut Engine, Instant) + Send>;

/// Everything that can come to an engine from another thread.
pub(super) enum Mail {
    Call(Call),
    /// A server's name was resolved.
    Resolved(ServerId, io::Result<Vec<SocketAddr>>),
    Stop,
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Flushed(FlushId),
    Synced(Vni),
}

/// A caller who waits, as long as `caller` lives.
pub(super) struct Waiter {
    pub(super) goal: Goal,
    pub(super) answer: Sender<Result<()>>,
    pub(super) caller: Weak<()>,
}

struct Endpoint {
    name: String,
    conn: Option<Conn>,
    /// Since when it is established.
    since: Option<Instant>,
    /// What was said of it since it was established last.
    complaints: BTreeSet<String>,
    /// Attempts so far; a name with several addresses is tried at one after the other.
    attempts: usize,
}

/// What an engine is made with, beside its core.
pub(super) struct EngineConfig {
    /// Address to connect from.
    pub(super) bind: Option<IpAddr>,
    /// What a server leaves unacknowledged for as long, it will not read any more.
    pub(super) user_timeout: Duration,
}

/// A client without a thread.
pub(super) struct Engine {
    poll: Poll,
    ready: Events,
    mailbox: Mailbox<Mail>,
    postbox: Postbox<Mail>,
    pub(super) core: Core,
    config: EngineConfig,
    endpoints: BTreeMap<ServerId, Endpoint>,
    shared: Arc<Shared>,
    states: BTreeMap<ServerId, ConnectionState>,
    waiters: Vec<Waiter>,
    /// Who is handed events by the thread of a client that has one.
    pub(super) sinks: Vec<Sink>,
    buffer: Box<[u8]>,
    is_stopped: bool,
    /// When it was made, by both clocks.
    pub(super) started: (SystemTime, Instant),
}

impl Engine {
    /// An engine of a core that has no servers yet.
    pub(super) fn new(core: Core, config: EngineConfig, shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        Ok(Self {
            poll,
            ready: Events::with_capacity(64),
            mailbox,
            postbox,
            core,
            config,
            endpoints: BTreeMap::new(),
            shared,
            states: BTreeMap::new(),
            waiters: Vec::new(),
            sinks: Vec::new(),
            buffer: vec![0; READ_BUDGET].into_boxed_slice(),
            is_stopped: false,
            started: (SystemTime::now(), Instant::now()),
        })
    }

    /// The way to reach it from other threads.
    pub(super) fn postbox(&self) -> Postbox<Mail> {
        self.postbox.clone()
    }

    /// One more server, to be dialled in the next step.
    pub(super) fn add_server(&mut self, name: String, now: Instant) -> Result<ServerId> {
        let Some(server) = self.core.add_server(now) else {
            let most = ServerBit::MAX;
            let text = format!("a client has {most} servers at most");
            return Err(Error::InvalidConfig(text));
        };
        self.shared.edit(|status| {
            status.names.insert(server, name.clone());
            status.states.insert(server, ConnectionState::Connecting);
        });
        let endpoint = Endpoint {
            name,
            conn: None,
            since: None,
            complaints: BTreeSet::new(),
            attempts: 0,
        };
        self.endpoints.insert(server, endpoint);
        Ok(server)
    }

    /// A server does not count any more; `false` if there is none of that number.
    pub(super) fn remove_server(&mut self, server: ServerId, now: Instant) -> bool {
        let Some(endpoint) = self.endpoints.remove(&server) else {
            return false;
        };
        if let Some(conn) = endpoint.conn {
            conn.finish();
        }
        let name = endpoint.name;
        log::info!(peer:% = name; "server {name}: removed");
        self.shared.edit(|status| {
            status.names.remove(&server);
            status.states.remove(&server);
        });
        self.states.remove(&server);
        self.core.remove_server(server, now)
    }

    /// Other settings hold for sessions to come.
    pub(super) fn reconfigure(&mut self, core: CoreConfig, linger: Duration, timeout: Duration) {
        self.core.reconfigure(core, linger);
        self.config.user_timeout = timeout;
    }

    /// The servers, by name.
    pub(super) fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let mut peers = Vec::new();
        for (server, status) in self.core.peers(now) {
            if let Some(endpoint) = self.endpoints.get(&server) {
                peers.push(PeerStatus {
                    name: endpoint.name.clone(),
                    address: endpoint.conn.as_ref().map(|conn| conn.address),
                    ..status
                });
            }
        }
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// The servers that a name stands for: as it was given, an address, or a number.
    pub(super) fn named(&self, name: &str) -> Vec<ServerId> {
        let is_meant = |(server, endpoint): (&ServerId, &Endpoint)| {
            let address = endpoint.conn.as_ref().map(|conn| conn.address);
            let is_address = |it: SocketAddr| it.to_string() == name || it.ip().to_string() == name;
            let is_meant = endpoint.name == name
                || server.to_string() == name
                || address.is_some_and(is_address);
            is_meant.then_some(*server)
        };
        self.endpoints.iter().filter_map(is_meant).collect()
    }

    /// Leaves a server; it is dialled again after a while, or after so long.
    pub(super) fn leave(&mut self, server: ServerId, time: Option<Duration>, now: Instant) {
        if let Some(conn) = self.endpoints.get(&server).and_then(|it| it.conn.as_ref()) {
            conn.finish();
        }
        match time {
            Some(time) => self.core.drain(server, time, now),
            None => self.core.lost(server, CloseReason::Reset, now),
        }
    }

    /// A consumer that was attached is gone.
    pub(super) fn detach(&mut self, consumer: ConsumerId) {
        self.sinks.retain(|sink| sink.consumer != consumer);
        self.core.detach(consumer);
    }

    /// Answers somebody when a goal is reached.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiters.push(waiter);
    }

    /// Waits for something to do, at most `limit`, and does it; `false` once it was
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
            if let Some(endpoint) = self.endpoints.get_mut(&ServerId(event.token().0))
                && let Some(conn) = &mut endpoint.conn
            {
                conn.ready.update(event);
            }
        }
        self.read_mail(now);
        for server in self.servers() {
            self.serve(server, now);
        }
        self.core.handle_timeouts(now);
        self.drop_closed();
        while let Some(server) = self.core.poll_dial(now) {
            self.dial(server, now);
        }
        for server in self.servers() {
            self.write(server, now);
        }
        self.publish(now);
        self.shared.set_generation(self.core.generation());
        !self.is_stopped
    }

    /// Says goodbye to the servers.
    pub(super) fn finish(&self) {
        for endpoint in self.endpoints.values() {
            if let Some(conn) = &endpoint.conn {
                conn.finish();
            }
        }
        self.shared.close();
    }

    /// How long [`Self::step`] has nothing to do, unless its descriptor becomes readable.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let has_work = |(server, endpoint): (&ServerId, &Endpoint)| {
            let conn = endpoint.conn.as_ref();
            conn.is_some_and(|conn| {
                let is_writable = conn.ready.writable && !self.core.outgoing(*server).is_empty();
                conn.ready.readable || is_writable
            })
        };
        if self.endpoints.iter().any(has_work) {
            return Some(Duration::ZERO);
        }
        let due = self.core.poll_timeout()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn servers(&self) -> Vec<ServerId> {
        self.endpoints.keys().copied().collect()
    }

    fn read_mail(&mut self, now: Instant) {
        self.mailbox.rearm();
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Call(call) => call(self, now),
                Mail::Resolved(server, addresses) => self.resolved(server, addresses, now),
                Mail::Stop => self.is_stopped = true,
            }
        }
    }

    /// Goes on with a connection attempt, or reads what came.
    fn serve(&mut self, server: ServerId, now: Instant) {
        let endpoint = self.endpoints.get_mut(&server);
        let Some(conn) = endpoint.and_then(|endpoint| endpoint.conn.as_mut()) else {
            return;
        };
        if self.core.is_dialling(server) {
            if !conn.ready.writable && !conn.ready.readable {
                return;
            }
            match conn.connected() {
                Some(Ok(())) => self.core.dialled(server, now),
                Some(Err(error)) => self.core.lost(server, CloseReason::Io(error.kind()), now),
                None => {
                    // Told too early; the end of the attempt is an event of its own.
                    conn.ready.readable = false;
                    conn.ready.writable = false;
                    return;
                }
            }
        }
        if !self.core.is_up(server) || !conn.ready.readable {
            return;
        }
        match conn.read(&mut self.buffer) {
            Ok(count) => {
                let dropped = self.core.receive(server, &self.buffer[..count], now);
                if let Some((why, total)) = dropped {
                    let name = self.endpoints.get(&server).map_or("", |it| &it.name);
                    log::warn!("server {name}: message dropped: {why} ({total} so far)");
                }
            }
            Err(reason) => self.core.lost(server, reason, now),
        }
    }

    fn dial(&mut self, server: ServerId, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&server) else {
            return;
        };
        let name = endpoint.name.clone();
        if let Ok(address) = name.parse() {
            self.connect(server, address, now);
            return;
        }
        // Asking a resolver takes its time; the other servers do not wait for it.
        let postbox = self.postbox.clone();
        let resolve = move || {
            let addresses = name.to_socket_addrs().map(Iterator::collect);
            postbox.post(Mail::Resolved(server, addresses), 1);
        };
        let thread = std::thread::Builder::new().name("metalbond-resolve".into());
        if let Err(error) = thread.spawn(resolve) {
            self.core.lost(server, CloseReason::Io(error.kind()), now);
        }
    }

    fn resolved(&mut self, server: ServerId, addresses: io::Result<Vec<SocketAddr>>, now: Instant) {
        let Some(endpoint) = self.endpoints.get(&server) else {
            return;
        };
        if !self.core.is_dialling(server) || endpoint.conn.is_some() {
            return;
        }
        let why = match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                let at = endpoint.attempts % addresses.len();
                self.connect(server, addresses[at], now);
                return;
            }
            Ok(_) => "the name has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        self.complain(server, &why);
        self.core.lost(server, CloseReason::Unresolved, now);
    }

    fn connect(&mut self, server: ServerId, address: SocketAddr, now: Instant) {
        let conn = dial(address, self.config.bind).and_then(|stream| {
            tune(&stream, self.config.user_timeout)?;
            Conn::new(stream, address, self.poll.registry(), Token(server.0))
        });
        match (conn, self.endpoints.get_mut(&server)) {
            (Ok(conn), Some(endpoint)) => {
                endpoint.attempts += 1;
                endpoint.conn = Some(conn);
            }
            (Err(error), Some(endpoint)) => {
                endpoint.attempts += 1;
                let name = &endpoint.name;
                log::debug!(peer:% = name; "server {name}: {address}: {error}");
                self.core.lost(server, CloseReason::Io(error.kind()), now);
            }
            (_, None) => {}
        }
    }

    fn write(&mut self, server: ServerId, now: Instant) {
        let endpoint = self.endpoints.get_mut(&server);
        let Some(conn) = endpoint.and_then(|endpoint| endpoint.conn.as_mut()) else {
            return;
        };
        let mut written = 0;
        while conn.ready.writable && written < WRITE_BUDGET {
            let bytes = self.core.outgoing(server);
            if bytes.is_empty() {
                return;
            }
            let framing = self.core.framing(server);
            match conn.write(&[IoSlice::new(bytes)], framing) {
                Ok(count) => {
                    written += count;
                    self.core.advance(server, count, now);
                }
                Err(reason) => {
                    self.core.lost(server, reason, now);
                    return;
                }
            }
        }
    }

    /// Lets go of sockets whose session is over or whose attempt failed.
    fn drop_closed(&mut self) {
        for (server, endpoint) in &mut self.endpoints {
            if !self.core.is_up(*server) && !self.core.is_dialling(*server) {
                endpoint.conn = None;
            }
        }
    }

    /// Tells the log and the callers who wait what is new.
    fn publish(&mut self, now: Instant) {
        let states = self.core.states();
        if states != self.states {
            for (server, state) in &states {
                if self.states.get(server) != Some(state) {
                    self.log_state(*server, *state, now);
                }
            }
            self.shared.edit(|status| status.states.clone_from(&states));
            self.states = states;
        }
        if !self.waiters.is_empty() {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let core = &mut self.core;
        self.waiters.retain(|waiter| {
            let reached = match waiter.goal {
                Goal::Flushed(flush) => core.is_flushed(flush).then_some(Ok(())),
                Goal::Synced(vni) => match core.is_synced(vni) {
                    Some(true) => Some(Ok(())),
                    Some(false) => None,
                    None => Some(Err(Error::NotSubscribed(vni))),
                },
            };
            let is_waiting = reached.is_none() && waiter.caller.strong_count() > 0;
            if !is_waiting && let Goal::Flushed(flush) = waiter.goal {
                core.end_flush(flush);
            }
            // The caller may have stopped waiting meanwhile; then nobody is to be told.
            reached.map(|reached| waiter.answer.try_send(reached).ok());
            is_waiting
        });
    }

    fn log_state(&mut self, server: ServerId, state: ConnectionState, now: Instant) {
        match state {
            ConnectionState::Established => {
                if let Some(endpoint) = self.endpoints.get_mut(&server) {
                    endpoint.since = Some(now);
                    endpoint.complaints.clear();
                    let name = &endpoint.name;
                    log::info!(peer:% = name; "server {name}: established");
                }
            }
            ConnectionState::Retry => {
                let reason = self.core.last_loss(server);
                let reason = reason.map_or_else(String::new, |reason| reason.to_string());
                let endpoint = self.endpoints.get_mut(&server);
                let Some(since) = endpoint.and_then(|endpoint| endpoint.since.take()) else {
                    return self.complain(server, &format!("{reason}; trying again"));
                };
                let name = self.endpoints.get(&server).map_or("", |it| &it.name);
                let seconds = now.saturating_duration_since(since).as_secs();
                log::warn!(peer = name, reason = reason.as_str(), seconds = seconds;
                    "server {name}: session ended after {seconds} s: {reason}; trying again");
            }
            ConnectionState::Connecting
            | ConnectionState::HelloSent
            | ConnectionState::HelloReceived
            | ConnectionState::Closed => {}
        }
    }

    /// Warns of something about a server; what comes again and again is said once, until it
    /// was established.
    fn complain(&mut self, server: ServerId, text: &str) {
        let Some(endpoint) = self.endpoints.get_mut(&server) else {
            return;
        };
        if endpoint.complaints.len() >= COMPLAINTS {
            endpoint.complaints.clear();
        }
        let is_new = endpoint.complaints.insert(text.into());
        let level = if is_new {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        let name = &endpoint.name;
        log::log!(level, peer:% = name; "server {name}: {text}");
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
