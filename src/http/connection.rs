//! One connection: a request comes, an answer goes.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::{Body, Format, REQUEST_MAX, Request, Resource};
use crate::net::Conn;
use crate::pace::Framing;

/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take to go; 200 MB, a million routes, take 27 s at 60 Mbit/s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the peer may take to close after the answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes sent on one connection before the next has its turn.
const WRITE_BUDGET: usize = 256 * 1024;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Response {
    head: Vec<u8>,
    /// Shared by those who asked for it at about the same time.
    body: Arc<[u8]>,
    sent: usize,
}

#[derive(Debug)]
enum State {
    Reading(Vec<u8>),
    Writing(Response),
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
    Answer(Request),
    /// To be dropped.
    Done,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: Conn,
    state: State,
    pub(super) deadline: Instant,
}

impl Connection {
    pub(super) fn new(conn: Conn, now: Instant) -> Self {
        Self {
            conn,
            state: State::Reading(Vec::new()),
            deadline: now + REQUEST_TIMEOUT,
        }
    }

    /// Goes as far as the socket allows.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if now >= self.deadline {
            return Turn::Done;
        }
        match &mut self.state {
            State::Reading(bytes) => read(&mut self.conn, bytes),
            State::Writing(response) => {
                let turn = write(&mut self.conn, response);
                if response.is_sent() {
                    self.conn.finish();
                    self.state = State::Lingering;
                    self.deadline = now + LINGER_TIMEOUT;
                    return Turn::Again;
                }
                turn
            }
            State::Lingering => linger(&mut self.conn),
        }
    }

    /// Has an answer sent.
    pub(super) fn respond(&mut self, response: Response, now: Instant) {
        self.state = State::Writing(response);
        self.deadline = now + RESPONSE_TIMEOUT;
    }
}

fn read(conn: &mut Conn, bytes: &mut Vec<u8>) -> Turn {
    let mut buffer = [0; REQUEST_MAX];
    while conn.ready.readable {
        let free = REQUEST_MAX - bytes.len();
        match conn.read(&mut buffer[..free]) {
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(_) => return Turn::Done,
        }
        match Request::parse(bytes) {
            Request::Incomplete => {}
            request => return Turn::Answer(request),
        }
    }
    Turn::Wait
}

fn write(conn: &mut Conn, response: &mut Response) -> Turn {
    let mut budget = WRITE_BUDGET;
    while conn.ready.writable && budget > 0 && !response.is_sent() {
        let (head, body) = response.rest(budget);
        match conn.write(&[IoSlice::new(head), IoSlice::new(body)], Framing::Stream) {
            Ok(count) => {
                response.sent += count;
                budget = budget.saturating_sub(count);
            }
            Err(_) => return Turn::Done,
        }
    }
    if conn.ready.writable {
        Turn::Again
    } else {
        Turn::Wait
    }
}

fn linger(conn: &mut Conn) -> Turn {
    let mut buffer = [0; REQUEST_MAX];
    if conn.ready.readable && conn.read(&mut buffer).is_err() {
        return Turn::Done;
    }
    if conn.ready.readable {
        Turn::Again
    } else {
        Turn::Wait
    }
}

impl Response {
    /// The answer to a request; `table` makes the text of a routing table.
    pub(super) fn new(request: Request, table: impl FnOnce(Format) -> Arc<[u8]>) -> Self {
        match request {
            Request::Fetch(Resource::Index, body) => {
                Self::text("200 OK", "/routes.json\n/routes.yaml\n", body)
            }
            Request::Fetch(Resource::Routes(format), body) => {
                let media = match format {
                    Format::Json => "application/json",
                    Format::Yaml => "application/yaml",
                };
                Self::with("200 OK", media, table(format), body)
            }
            Request::UnknownPath(body) => Self::text(
                "404 Not Found",
                "there are /routes.json and /routes.yaml\n",
                body,
            ),
            Request::UnknownMethod => Self::text(
                "405 Method Not Allowed\r\nAllow: GET, HEAD",
                "allowed are GET and HEAD\n",
                Body::Wanted,
            ),
            Request::TooLong => Self::text(
                "431 Request Header Fields Too Large",
                "a request has at most 8 KiB and 64 header lines\n",
                Body::Wanted,
            ),
            Request::Broken | Request::Incomplete => Self::text(
                "400 Bad Request",
                "this is not an HTTP request\n",
                Body::Wanted,
            ),
        }
    }

    fn text(status: &str, content: &str, body: Body) -> Self {
        let content = Arc::from(content.as_bytes());
        Self::with(status, "text/plain; charset=utf-8", content, body)
    }

    fn with(status: &str, media: &str, content: Arc<[u8]>, body: Body) -> Self {
        let length = content.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        let body = match body {
            Body::Wanted => content,
            Body::Unwanted => Arc::from([]),
        };
        Self {
            head: head.into_bytes(),
            body,
            sent: 0,
        }
    }

    fn is_sent(&self) -> bool {
        self.sent == self.head.len() + self.body.len()
    }

    /// What is not sent of head and body, the body cut at `limit` bytes.
    fn rest(&self, limit: usize) -> (&[u8], &[u8]) {
        let head = &self.head[self.sent.min(self.head.len())..];
        let body = &self.body[self.sent.saturating_sub(self.head.len())..];
        (head, &body[..body.len().min(limit)])
    }
}
