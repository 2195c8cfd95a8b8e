//! The HTTP thread: its loop, its listener and its connections.

use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::api::{Query, Request};
use super::connection::{Connection, Turn};
use super::helper::Helpers;
use super::host::Hosts;
use super::mail::{ConnectionId, Mail};
use super::response::{Response, Status};
use crate::core::limit::Quiet;
use crate::net::{Conn, MAILBOX_WEIGHT, Mailbox, Peer, Postbox};

/// Most connections. Each takes 8 KiB and a piece of a response; others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// Pause of accepting after the system had no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

/// The answer to a request for another host.
const WRONG_HOST: &str = "this server does not answer to that host name; use an address, \
     localhost, or a name of --http-host";

const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);

/// The listener and the mailbox, before the helpers exist.
pub(super) struct Entrance {
    poll: Poll,
    mailbox: Mailbox<Mail>,
    listener: mio::net::TcpListener,
}

pub(super) struct Worker {
    poll: Poll,
    mailbox: Mailbox<Mail>,
    listener: mio::net::TcpListener,
    /// A connection may wait to be accepted.
    has_waiting: bool,
    /// The index of a connection is its token.
    connections: [Option<Connection>; CONNECTIONS_MAX],
    accepted: u64,
    /// The last connection that had a turn.
    had_turn: u64,
    failures: Quiet,
    helpers: Helpers,
    hosts: Hosts,
}

impl Entrance {
    pub(super) fn new(listener: TcpListener) -> io::Result<(Self, Postbox<Mail>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let entrance = Self {
            poll,
            mailbox,
            listener,
        };
        Ok((entrance, postbox))
    }
}

impl Worker {
    pub(super) fn new(entrance: Entrance, helpers: Helpers, hosts: Hosts) -> Self {
        Self {
            poll: entrance.poll,
            mailbox: entrance.mailbox,
            listener: entrance.listener,
            has_waiting: false,
            connections: [const { None }; CONNECTIONS_MAX],
            accepted: 0,
            had_turn: 0,
            failures: Quiet::default(),
            helpers,
            hosts,
        }
    }

    /// Serves until it receives [`Mail::Stop`].
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(CONNECTIONS_MAX + 2);
        let mut wait_until = None;
        loop {
            let timeout =
                wait_until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("waiting for HTTP requests: {error}");
            }
            self.mailbox.rearm();
            let now = Instant::now();
            while let Some(mail) = self.mailbox.take() {
                match mail {
                    Mail::Stop => return self.helpers.stop(),
                    Mail::Response(to, response) => self.pass_on(to, response, now),
                }
            }
            for event in &events {
                self.has_waiting |= event.token() == LISTENER;
                if let Some(Some(connection)) = self.connections.get_mut(event.token().0) {
                    connection.conn.note(event);
                }
            }
            let mut is_busy = false;
            self.had_turn = self.accepted;
            for place in 0..CONNECTIONS_MAX {
                is_busy |= self.serve(place, now);
            }
            let accept_at = self.accept_all(now);
            let deadlines = self.connections.iter().flatten().map(|it| it.deadline);
            let again = is_busy.then_some(now);
            wait_until = deadlines.chain(accept_at).chain(again).min();
        }
    }

    /// Gives a response to its connection, if that is still open.
    fn pass_on(&mut self, to: ConnectionId, response: Response, now: Instant) {
        if let Some(connection) = &mut self.connections[to.place]
            && connection.serial == to.serial
        {
            connection.respond(response, now);
        }
    }

    /// Gives a connection its turn. Returns whether it needs another turn at once.
    fn serve(&mut self, place: usize, now: Instant) -> bool {
        let Some(connection) = &mut self.connections[place] else {
            return false;
        };
        match connection.turn(now) {
            Turn::Wait => false,
            Turn::Again => true,
            Turn::Done => {
                self.connections[place] = None;
                false
            }
            Turn::Respond(request) => {
                let (method, target) = (&request.method, &request.target);
                log::debug!("{}: {method} {target}", connection.conn.peer());
                let from = ConnectionId {
                    place,
                    serial: connection.serial,
                };
                let query = match self.hosts.admits(request.host.as_deref()) {
                    true => Query::parse(&Request::new(method, target)),
                    false => Err(Response::problem(Status::Misdirected, WRONG_HOST)),
                };
                let answer = match query {
                    Ok(query) => self.helpers.answer(query, from),
                    Err(response) => Some(response),
                };
                match answer {
                    Some(response) => {
                        connection.respond(response, now);
                        true
                    }
                    None => false,
                }
            }
        }
    }

    /// Returns a free place; or that of the connection that has been idle longest; or that of
    /// the request that has been unfinished longest, if its connection had a turn.
    fn free_place(&mut self) -> Option<usize> {
        let free = self.connections.iter().position(Option::is_none);
        let oldest = |may_go: fn(&Connection) -> bool, latest: u64| {
            let all = self.connections.iter().enumerate();
            let taken = all.filter_map(|(place, it)| Some((it.as_ref()?, place)));
            let going = taken.filter(|(it, _)| it.serial <= latest && may_go(it));
            going.min_by_key(|it| it.0.deadline).map(|it| it.1)
        };
        free.or_else(|| oldest(Connection::is_idle, u64::MAX))
            .or_else(|| oldest(Connection::is_unfinished, self.had_turn))
    }

    /// Accepts connections while there is a place. Returns when to try again, if that is before
    /// the next event.
    fn accept_all(&mut self, now: Instant) -> Option<Instant> {
        while self.has_waiting {
            let Some(place) = self.free_place() else {
                // New connections take all places that could be had: they have a turn first.
                let has_new = self.accepted > self.had_turn;
                return has_new.then_some(now);
            };
            match self.listener.accept() {
                Ok((stream, address)) => {
                    let peer = Peer::accepted(address);
                    match Conn::accepted(stream.into(), peer, self.poll.registry(), Token(place)) {
                        Ok(conn) => {
                            self.accepted += 1;
                            let connection = Connection::new(conn, self.accepted, now);
                            self.connections[place] = Some(connection);
                        }
                        Err(error) => log::warn!("{peer}: {error}"),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.has_waiting = false,
                    // The connection broke before it was accepted (accept(2)).
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset => {}
                    _ => {
                        if self.failures.is_over(now) {
                            log::warn!("accepting HTTP connections pauses: {error}");
                        }
                        return Some(now + PAUSE);
                    }
                },
            }
        }
        None
    }
}
