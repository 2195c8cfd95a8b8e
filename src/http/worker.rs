//! The thread: its loop, its listener, its connections.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, Response, Turn};
use super::render;
use super::request::Format;
use crate::net::{Conn, MAILBOX_WEIGHT, Mailbox, Postbox};
use crate::types::{Route, Vni};

/// Connections at one time, 8 KiB each and the share in a table that is being sent to them;
/// more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// How old a table may be that is still being sent, to be sent to another connection too.
/// With the time a connection has to take it, this bounds how many tables are in memory.
const TABLE_AGE_MAX: Duration = Duration::from_secs(1);

/// How long accepting rests when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(usize::MAX);
const WAKE: Token = Token(usize::MAX - 1);

/// The only thing to tell the thread: to stop.
pub(super) struct Stop;

/// A table that is being sent.
struct Table {
    format: Format,
    made: Instant,
    text: Weak<[u8]>,
}

pub(super) struct Worker<S> {
    poll: Poll,
    mailbox: Mailbox<Stop>,
    listener: mio::net::TcpListener,
    /// The number of a place is its connection's token.
    connections: [Option<Connection>; CONNECTIONS_MAX],
    tables: Vec<Table>,
    source: S,
}

impl<S: Fn() -> Vec<(Vni, Route)>> Worker<S> {
    pub(super) fn new(listener: TcpListener, source: S) -> io::Result<(Self, Postbox<Stop>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let worker = Self {
            poll,
            mailbox,
            listener,
            connections: [const { None }; CONNECTIONS_MAX],
            tables: Vec::new(),
            source,
        };
        Ok((worker, postbox))
    }

    /// Serves until told to stop.
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
            if self.mailbox.take().is_some() {
                return;
            }
            for event in &events {
                if let Some(Some(connection)) = self.connections.get_mut(event.token().0) {
                    connection.conn.ready.update(event);
                }
            }
            let now = Instant::now();
            let mut is_busy = false;
            for place in 0..CONNECTIONS_MAX {
                is_busy |= self.serve(place, now);
            }
            let accept_at = self.accept_all(now);
            let deadlines = self.connections.iter().flatten().map(|it| it.deadline);
            let again = is_busy.then_some(now);
            wait_until = deadlines.chain(accept_at).chain(again).min();
        }
    }

    /// Gives a connection its turn; whether it wants another without waiting.
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
            Turn::Answer(request) => {
                log::debug!("{}: {request:?}", connection.conn.address);
                let table = |format| table(&mut self.tables, &self.source, format, now);
                let response = Response::new(request, table);
                // A long table took its time.
                connection.respond(response, Instant::now());
                true
            }
        }
    }

    /// Accepts what waits, as long as there is a place; when to look again, if not at the
    /// next event.
    fn accept_all(&mut self, now: Instant) -> Option<Instant> {
        loop {
            // A place is freed by a turn, and every turn comes here.
            let place = self.connections.iter().position(Option::is_none)?;
            match self.listener.accept() {
                Ok((stream, address)) => {
                    match Conn::new(stream, address, self.poll.registry(), Token(place)) {
                        Ok(conn) => self.connections[place] = Some(Connection::new(conn, now)),
                        Err(error) => log::warn!("{address}: {error}"),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    // The connection broke before it was accepted (accept(2)).
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset => {}
                    _ => {
                        log::warn!("accepting HTTP connections pauses: {error}");
                        return Some(now + PAUSE);
                    }
                },
            }
        }
    }
}

/// The text of the routing table, made anew unless one is being sent that is as good.
fn table(
    tables: &mut Vec<Table>,
    source: impl Fn() -> Vec<(Vni, Route)>,
    format: Format,
    now: Instant,
) -> Arc<[u8]> {
    tables.retain(|table| now - table.made < TABLE_AGE_MAX);
    let fresh = tables.iter().find(|table| table.format == format);
    if let Some(text) = fresh.and_then(|table| table.text.upgrade()) {
        return text;
    }
    tables.retain(|table| table.format != format);
    let mut routes = source();
    routes.sort_unstable();
    let date = render::now();
    let text = match format {
        Format::Json => render::json(&routes, date),
        Format::Yaml => render::yaml(&routes, date),
    };
    let text: Arc<[u8]> = text.into_bytes().into();
    tables.push(Table {
        format,
        made: now,
        text: Arc::downgrade(&text),
    });
    text
}
