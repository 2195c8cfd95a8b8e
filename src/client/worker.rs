//! The thread of a client: its loop, its sockets, its mailbox.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::{Events, Poll, Token};

use super::core::Core;
use super::events::Event;
use super::{ConnectionState, ServerId, Shared};
use crate::net::{Conn, MAILBOX_WEIGHT, Mailbox, Postbox, tune};
use crate::session::CloseReason;

/// Bytes read from one server before the next has its turn.
const READ_BUDGET: usize = 64 * 1024;

/// Events handed to the consumer at once.
const EVENT_BATCH: usize = 1024;

const WAKE: Token = Token(usize::MAX);

/// Something to do with the core, on its thread.
pub(super) type Call = Box<dyn FnOnce(&mut Core, Instant) + Send>;

/// Everything that can come to a client's thread from another.
pub(super) enum Mail {
    Call(Call),
    /// A server's name was resolved.
    Resolved(ServerId, io::Result<Vec<SocketAddr>>),
    Stop,
}

struct Endpoint {
    name: String,
    conn: Option<Conn>,
    /// Attempts so far; a name with several addresses is tried at one after the other.
    attempts: usize,
}

pub(super) struct Worker {
    poll: Poll,
    mailbox: Mailbox<Mail>,
    postbox: Postbox<Mail>,
    core: Core,
    endpoints: Vec<Endpoint>,
    /// To the consumer; holds one batch.
    events: Sender<Vec<Event>>,
    shared: Arc<Shared>,
    states: Vec<ConnectionState>,
    user_timeout: Duration,
    buffer: Box<[u8]>,
}

impl Worker {
    /// A worker and the way to reach it.
    pub(super) fn new(
        core: Core,
        servers: &[String],
        events: Sender<Vec<Event>>,
        shared: Arc<Shared>,
        user_timeout: Duration,
    ) -> io::Result<(Self, Postbox<Mail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let endpoint = |name: &String| Endpoint {
            name: name.clone(),
            conn: None,
            attempts: 0,
        };
        let worker = Self {
            poll,
            mailbox,
            postbox: postbox.clone(),
            states: core.states(),
            core,
            endpoints: servers.iter().map(endpoint).collect(),
            events,
            shared,
            user_timeout,
            buffer: vec![0; READ_BUDGET].into_boxed_slice(),
        };
        Ok((worker, postbox))
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.timeout())
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("client: waiting for events: {error}");
            }
            let now = Instant::now();
            for event in &events {
                if let Some(endpoint) = self.endpoints.get_mut(event.token().0)
                    && let Some(conn) = &mut endpoint.conn
                {
                    conn.ready.update(event);
                }
            }
            if !self.read_mail(now) {
                break;
            }
            for number in 0..self.endpoints.len() {
                self.serve(ServerId(number), now);
            }
            self.core.handle_timeouts(now);
            self.drop_closed();
            while let Some(server) = self.core.poll_dial(now) {
                self.dial(server, now);
            }
            for number in 0..self.endpoints.len() {
                self.write(ServerId(number), now);
            }
            self.publish();
        }
        for endpoint in &self.endpoints {
            if let Some(conn) = &endpoint.conn {
                conn.finish();
            }
        }
        self.shared.close();
    }

    fn timeout(&self) -> Option<Duration> {
        let is_readable = |endpoint: &Endpoint| {
            let conn = endpoint.conn.as_ref();
            conn.is_some_and(|conn| conn.ready.readable)
        };
        if self.endpoints.iter().any(is_readable) {
            return Some(Duration::ZERO);
        }
        let due = self.core.poll_timeout()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn read_mail(&mut self, now: Instant) -> bool {
        self.mailbox.rearm();
        while let Some(mail) = self.mailbox.take() {
            match mail {
                Mail::Call(call) => call(&mut self.core, now),
                Mail::Resolved(server, addresses) => self.resolved(server, addresses, now),
                Mail::Stop => return false,
            }
        }
        true
    }

    /// Goes on with a connection attempt, or reads what came.
    fn serve(&mut self, server: ServerId, now: Instant) {
        let endpoint = &mut self.endpoints[server.0];
        let Some(conn) = &mut endpoint.conn else {
            return;
        };
        if self.core.is_dialling(server) {
            if !conn.ready.writable && !conn.ready.readable {
                return;
            }
            match conn.connected() {
                Some(Ok(())) => self.core.dialled(server, now),
                Some(Err(error)) => self.core.lost(server, CloseReason::Io(error.kind()), now),
                None => return,
            }
        }
        if !self.core.is_up(server) || !conn.ready.readable {
            return;
        }
        match conn.read(&mut self.buffer) {
            Ok(count) => self.core.receive(server, &self.buffer[..count], now),
            Err(reason) => self.core.lost(server, reason, now),
        }
    }

    fn dial(&mut self, server: ServerId, now: Instant) {
        let name = self.endpoints[server.0].name.clone();
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
        if !self.core.is_dialling(server) {
            return;
        }
        let name = &self.endpoints[server.0].name;
        match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                let at = self.endpoints[server.0].attempts % addresses.len();
                self.connect(server, addresses[at], now);
            }
            Ok(_) => {
                log::warn!("server {name}: the name has no address");
                let reason = CloseReason::Io(io::ErrorKind::NotFound);
                self.core.lost(server, reason, now);
            }
            Err(error) => {
                log::warn!("server {name}: {error}");
                self.core.lost(server, CloseReason::Io(error.kind()), now);
            }
        }
    }

    fn connect(&mut self, server: ServerId, address: SocketAddr, now: Instant) {
        let endpoint = &mut self.endpoints[server.0];
        endpoint.attempts += 1;
        let conn = mio::net::TcpStream::connect(address).and_then(|stream| {
            tune(&stream, self.user_timeout)?;
            Conn::new(stream, address, self.poll.registry(), Token(server.0))
        });
        match conn {
            Ok(conn) => endpoint.conn = Some(conn),
            Err(error) => self.core.lost(server, CloseReason::Io(error.kind()), now),
        }
    }

    fn write(&mut self, server: ServerId, now: Instant) {
        let Some(conn) = &mut self.endpoints[server.0].conn else {
            return;
        };
        while conn.ready.writable {
            let bytes = self.core.outgoing(server);
            if bytes.is_empty() {
                return;
            }
            let framing = self.core.framing(server);
            match conn.write(&[IoSlice::new(bytes)], framing) {
                Ok(count) => self.core.advance(server, count, now),
                Err(reason) => {
                    self.core.lost(server, reason, now);
                    return;
                }
            }
        }
    }

    /// Lets go of sockets whose session is over or whose attempt failed.
    fn drop_closed(&mut self) {
        for (number, endpoint) in self.endpoints.iter_mut().enumerate() {
            let server = ServerId(number);
            if !self.core.is_up(server) && !self.core.is_dialling(server) {
                endpoint.conn = None;
            }
        }
    }

    /// Tells the callers who wait, the log and the consumer what is new.
    fn publish(&mut self) {
        let states = self.core.states();
        if states != self.states {
            for (number, (new, old)) in states.iter().zip(&self.states).enumerate() {
                self.log_state(ServerId(number), *old, *new);
            }
            self.shared.publish(&states);
            self.states = states;
        }
        if self.core.has_events() && !self.events.is_full() {
            let batch = self.core.take_events(EVENT_BATCH);
            if self.events.try_send(batch).is_err() {
                log::trace!("the consumer is gone");
            }
        }
    }

    fn log_state(&self, server: ServerId, old: ConnectionState, new: ConnectionState) {
        let name = &self.endpoints[server.0].name;
        match (old, new) {
            (_, ConnectionState::Established) if old != new => {
                log::info!("server {name}: established");
            }
            (_, ConnectionState::Retry) if old != new => {
                let reason = self.core.last_loss(server);
                let reason = reason.map_or_else(String::new, |reason| reason.to_string());
                log::warn!("server {name}: {reason}; trying again");
            }
            _ => {}
        }
    }
}
