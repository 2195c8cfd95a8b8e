//! One connection: requests come, answers go.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::api::{Body, Chunk, Response};
use super::message::{self, Delimiter, Head, LAST_CHUNK, Parsed, REQUEST_MAX, RequestBody};
use crate::net::{Conn, Ready};

/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may wait for another request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take to be made and to go; 200 MB, a million routes, take 27 s at
/// 60 Mbit/s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the peer may take to close after the answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes sent on one connection before the next has its turn.
const WRITE_BUDGET: usize = 256 * 1024;

/// How an answer is to be sent.
#[derive(Clone, Copy, Debug)]
struct Manner {
    is_head: bool,
    takes_chunks: bool,
    keeps_alive: bool,
}

/// To something that was no request.
const AND_CLOSE: Manner = Manner {
    is_head: false,
    takes_chunks: false,
    keeps_alive: false,
};

/// An answer on its way.
#[derive(Debug)]
struct Sending {
    bytes: Vec<u8>,
    sent: usize,
    /// What is to be made yet.
    rest: Option<Body>,
    is_chunked: bool,
    keeps_alive: bool,
}

#[derive(Debug)]
enum State {
    Reading,
    /// Another thread makes the answer.
    Waiting(Manner),
    Writing(Sending),
    /// All is sent. Closing with unread bytes would reset the connection, and the peer
    /// might lose the answer: read on until it closes.
    Lingering,
}

/// What a connection needs of its owner.
#[derive(Debug)]
pub(super) enum Turn {
    /// To wait for its socket or its deadline.
    Wait,
    /// Another turn, after the others had theirs.
    Again,
    /// The answer to a request, by [`Connection::respond`].
    Answer(Head),
    /// To be dropped.
    Done,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: Conn,
    /// Tells it from others that had its place.
    pub(super) serial: u64,
    state: State,
    input: Vec<u8>,
    has_served: bool,
    pub(super) deadline: Instant,
}

impl Connection {
    pub(super) fn new(conn: Conn, serial: u64, now: Instant) -> Self {
        Self {
            conn,
            serial,
            state: State::Reading,
            input: Vec::new(),
            has_served: false,
            deadline: now + REQUEST_TIMEOUT,
        }
    }

    /// Whether it has been served and asks for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.has_served && matches!(self.state, State::Reading) && self.input.is_empty()
    }

    /// Goes as far as the socket allows.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if now >= self.deadline {
            return Turn::Done;
        }
        match &mut self.state {
            State::Reading => self.read(now),
            State::Waiting(_) => Turn::Wait,
            State::Writing(sending) => {
                let turn = write(&mut self.conn, sending);
                if !sending.is_sent() {
                    return turn;
                }
                self.has_served = true;
                if sending.keeps_alive {
                    self.state = State::Reading;
                    self.deadline = now + IDLE_TIMEOUT;
                } else {
                    self.conn.finish();
                    self.state = State::Lingering;
                    self.deadline = now + LINGER_TIMEOUT;
                }
                Turn::Again
            }
            State::Lingering => linger(&mut self.conn),
        }
    }

    /// Has an answer sent, now or after [`Self::turn`] asked for one.
    pub(super) fn respond(&mut self, response: Response, now: Instant) {
        let manner = match self.state {
            State::Waiting(manner) => manner,
            State::Reading | State::Writing(_) | State::Lingering => AND_CLOSE,
        };
        self.state = State::Writing(Sending::new(response, manner));
        self.deadline = now + RESPONSE_TIMEOUT;
    }

    fn read(&mut self, now: Instant) -> Turn {
        // What is left of the last read may be the next request.
        let mut is_new = !self.input.is_empty();
        let mut buffer = [0; REQUEST_MAX];
        loop {
            if is_new {
                match Parsed::of(&self.input) {
                    Parsed::Incomplete => {}
                    Parsed::Complete(head, len) => {
                        self.input.drain(..len);
                        self.state = State::Waiting(Manner::of(&head));
                        self.deadline = now + RESPONSE_TIMEOUT;
                        return Turn::Answer(head);
                    }
                    parsed => {
                        if let Some(problem) = parsed.problem() {
                            self.respond(problem, now);
                        }
                        return Turn::Again;
                    }
                }
            }
            if !self.conn.is_readable() {
                return Turn::Wait;
            }
            let free = REQUEST_MAX - self.input.len();
            match self.conn.read(&mut buffer[..free]) {
                Ok(0) => is_new = false,
                Ok(count) => {
                    if self.input.is_empty() {
                        self.deadline = now + REQUEST_TIMEOUT;
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                    is_new = true;
                }
                Err(_) => return Turn::Done,
            }
        }
    }
}

impl Manner {
    fn of(head: &Head) -> Self {
        Self {
            is_head: head.method == "HEAD",
            takes_chunks: head.takes_chunks,
            // A body is not read.
            keeps_alive: head.keeps_alive && head.body == RequestBody::Empty,
        }
    }
}

impl Sending {
    fn new(response: Response, manner: Manner) -> Self {
        let delimiter = Delimiter::of(&response, manner.takes_chunks);
        let keeps_alive = manner.keeps_alive && (manner.is_head || delimiter != Delimiter::Close);
        Self {
            bytes: message::head(&response, delimiter, keeps_alive),
            sent: 0,
            rest: (!manner.is_head).then_some(response.body),
            is_chunked: delimiter == Delimiter::Chunks,
            keeps_alive,
        }
    }

    fn is_sent(&self) -> bool {
        self.sent == self.bytes.len() && self.rest.is_none()
    }

    /// Makes the next piece, if all that was made is sent.
    fn refill(&mut self) {
        if self.sent < self.bytes.len() {
            return;
        }
        let Some(body) = &mut self.rest else {
            return;
        };
        let (piece, is_last) = match body.next() {
            Chunk::More(bytes) => (bytes, false),
            Chunk::Last(bytes) => (bytes, true),
        };
        self.sent = 0;
        self.bytes = if self.is_chunked {
            message::chunk(&piece)
        } else {
            piece
        };
        if is_last {
            self.rest = None;
            if self.is_chunked {
                self.bytes.extend_from_slice(LAST_CHUNK);
            }
        }
    }
}

fn write(conn: &mut Conn, sending: &mut Sending) -> Turn {
    let mut budget = WRITE_BUDGET;
    while conn.is_writable() && budget > 0 && !sending.is_sent() {
        if sending.sent == sending.bytes.len() {
            sending.refill();
            // A piece without a byte took its time too.
            budget = budget.saturating_sub(4 * 1024);
        }
        let bytes = &sending.bytes[sending.sent..];
        let bytes = &bytes[..bytes.len().min(budget)];
        if bytes.is_empty() {
            continue;
        }
        match conn.write(&[IoSlice::new(bytes)]) {
            Ok(count) => {
                sending.sent += count;
                budget -= count;
            }
            Err(_) => return Turn::Done,
        }
    }
    if conn.is_writable() {
        Turn::Again
    } else {
        Turn::Wait
    }
}

fn linger(conn: &mut Conn) -> Turn {
    let mut buffer = [0; REQUEST_MAX];
    if conn.is_readable() && conn.read(&mut buffer).is_err() {
        return Turn::Done;
    }
    if conn.is_readable() {
        Turn::Again
    } else {
        Turn::Wait
    }
}
