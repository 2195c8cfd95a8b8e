//! One connection of the HTTP server: an [`Exchange`] with its socket and its deadlines.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::codec::{Bodies, Exchange, READ_SIZE, Request, Step};
use super::response::Response;
use crate::net::{Conn, Ready};

/// Longest time in which a request comes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time in which a response is made and sent. 200 MB, a million routes, take 27 s at
/// 60 Mbit/s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for the peer to close the connection after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that one connection sends before the next has its turn.
const WRITE_BUDGET: usize = 256 * 1024;

/// Budget for making one piece of a response: a filter may read much and find few bytes.
const PIECE_COST: usize = 4 * 1024;

/// What a connection needs of its owner.
#[derive(Debug)]
pub(super) enum Turn {
    /// To wait for the socket or the deadline.
    Wait,
    /// Another turn, after those of the others.
    Again,
    /// The response to this request, by [`Connection::respond`].
    Respond(Request),
    /// To be dropped.
    Done,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: Conn,
    /// Differs from those of earlier connections in the same place.
    pub(super) serial: u64,
    exchange: Exchange,
    pub(super) deadline: Instant,
}

impl Connection {
    pub(super) fn new(conn: Conn, serial: u64, now: Instant) -> Self {
        Self {
            conn,
            serial,
            exchange: Exchange::new(Bodies::Ignored),
            deadline: now + REQUEST_TIMEOUT,
        }
    }

    /// Returns whether a request was answered and none has come since.
    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_idle()
    }

    /// Returns whether it waits for the rest of a request, or for the peer to close it.
    pub(super) fn is_unfinished(&self) -> bool {
        self.exchange.is_reading() || self.exchange.is_closed()
    }

    /// Goes as far as the socket and the budget allow.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if now >= self.deadline {
            return Turn::Done;
        }
        let mut budget = WRITE_BUDGET;
        loop {
            match self.exchange.step() {
                Step::Receive if !self.conn.is_readable() => return Turn::Wait,
                Step::Receive => {
                    if !self.receive(now) {
                        return Turn::Done;
                    }
                }
                Step::Respond(request) => {
                    self.deadline = now + RESPONSE_TIMEOUT;
                    return Turn::Respond(request);
                }
                Step::Wait => return Turn::Wait,
                Step::Send if !self.conn.is_writable() => return Turn::Wait,
                Step::Send if budget == 0 => return Turn::Again,
                Step::Send => match self.send(budget) {
                    Some(count) => budget = budget.saturating_sub(count + PIECE_COST),
                    None => return Turn::Done,
                },
                Step::Sent => {
                    self.after_response(now);
                    return Turn::Again;
                }
                Step::Close => return linger(&mut self.conn),
            }
        }
    }

    /// Takes the response that [`Self::turn`] asked for.
    pub(super) fn respond(&mut self, response: Response, now: Instant) {
        self.exchange.respond(response);
        self.deadline = now + RESPONSE_TIMEOUT;
    }

    /// Reads once. Returns `false` if the connection has ended.
    fn receive(&mut self, now: Instant) -> bool {
        let mut buffer = [0; READ_SIZE];
        let room = self.exchange.room().min(buffer.len());
        let Ok(count) = self.conn.read(&mut buffer[..room]) else {
            return false;
        };
        if count > 0 && self.exchange.is_between_requests() {
            self.deadline = now + REQUEST_TIMEOUT;
        }
        self.exchange.receive(&buffer[..count]);
        true
    }

    /// Writes at most `budget` bytes, once. Returns how many, or `None` if the connection has ended.
    fn send(&mut self, budget: usize) -> Option<usize> {
        let bytes = self.exchange.unsent();
        let bytes = &bytes[..bytes.len().min(budget)];
        if bytes.is_empty() {
            return Some(0);
        }
        let slices = [IoSlice::new(bytes)];
        let count = self.conn.write(&slices).ok()?;
        self.exchange.sent(count);
        Some(count)
    }

    fn after_response(&mut self, now: Instant) {
        let timeout = if self.exchange.is_closed() {
            self.conn.finish();
            LINGER_TIMEOUT
        } else if self.exchange.is_between_requests() {
            IDLE_TIMEOUT
        } else {
            REQUEST_TIMEOUT
        };
        self.deadline = now + timeout;
    }
}

/// Reads until the peer closes the connection.
///
/// If it were closed with unread bytes, the kernel would reset it, and the peer could lose the
/// response.
fn linger(conn: &mut Conn) -> Turn {
    let mut buffer = [0; READ_SIZE];
    if conn.is_readable() && conn.read(&mut buffer).is_err() {
        return Turn::Done;
    }
    if conn.is_readable() {
        Turn::Again
    } else {
        Turn::Wait
    }
}
