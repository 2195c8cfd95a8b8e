//! HTTP/1.x for both listeners: bytes and responses go in, requests and bytes come out.
//!
//! [`Exchange`] is one connection without its socket. The HTTP server drives it from a loop that
//! never blocks, the control socket from a thread that may block:
//!
//! ```text
//! socket --receive--> RequestReader --Step::Respond--> router
//!                                                        |
//! socket <--unsent---- Outgoing <-------respond----------+
//! ```

mod request;
#[cfg(test)]
mod tests;
mod writer;

use super::response::Response;
pub(crate) use request::{Bodies, Request};
use request::{HEAD_MAX, RequestReader};
pub(crate) use writer::Encoder;
use writer::Outgoing;

/// Bytes to read from a socket at once.
pub(crate) const READ_SIZE: usize = HEAD_MAX;

/// How to send the response to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The request was not HEAD.
    wants_body: bool,
    /// HTTP/1.0 knows no chunks.
    takes_chunks: bool,
    /// Another request may follow on the connection.
    keeps_alive: bool,
}

impl Manner {
    /// How to answer without a request that can be read: the connection ends.
    pub(crate) const REFUSAL: Self = Self {
        wants_body: true,
        takes_chunks: false,
        keeps_alive: false,
    };

    /// The same, but the connection ends after the response.
    pub(crate) const fn and_close(self) -> Self {
        Self {
            keeps_alive: false,
            ..self
        }
    }
}

/// One connection: requests come one after the other, and each gets its response.
#[derive(Debug)]
pub(crate) struct Exchange {
    reader: RequestReader,
    state: State,
    has_served: bool,
}

#[derive(Debug)]
enum State {
    /// The next request is awaited.
    Reading,
    /// The caller owes the response to a request.
    Answering(Manner),
    /// The response is sent.
    Sending(Outgoing),
    /// No request is read any more.
    Closed,
}

/// What an [`Exchange`] needs next.
#[derive(Debug)]
pub(crate) enum Step {
    /// More bytes of a request, by [`Exchange::receive`].
    Receive,
    /// The response to this request, by [`Exchange::respond`].
    Respond(Request),
    /// The response that it asked for.
    Wait,
    /// That [`Exchange::unsent`] is sent. The bytes may be none: making them took time, too.
    Send,
    /// Nothing: the last byte of a response was sent.
    Sent,
    /// That the connection is closed.
    Close,
}

impl Exchange {
    pub(crate) fn new(bodies: Bodies) -> Self {
        Self {
            reader: RequestReader::new(bodies),
            state: State::Reading,
            has_served: false,
        }
    }

    /// Goes one step on.
    pub(crate) fn step(&mut self) -> Step {
        match &mut self.state {
            State::Reading => match self.reader.poll() {
                Ok(None) => Step::Receive,
                Ok(Some(request)) => {
                    self.state = State::Answering(request.manner);
                    Step::Respond(request)
                }
                Err(refusal) => {
                    self.state = State::Sending(Outgoing::new(refusal.response(), Manner::REFUSAL));
                    Step::Send
                }
            },
            State::Answering(_) => Step::Wait,
            State::Sending(outgoing) => {
                if outgoing.fill() {
                    return Step::Send;
                }
                self.has_served = true;
                self.state = if outgoing.keeps_alive() {
                    State::Reading
                } else {
                    State::Closed
                };
                Step::Sent
            }
            State::Closed => Step::Close,
        }
    }

    /// Returns how many bytes [`Self::receive`] takes after [`Step::Receive`]; at least one.
    pub(crate) fn room(&self) -> usize {
        self.reader.room()
    }

    /// Takes bytes from the socket.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.reader.receive(bytes);
    }

    /// Takes the response that [`Step::Respond`] asked for.
    pub(crate) fn respond(&mut self, response: Response) {
        let State::Answering(manner) = self.state else {
            debug_assert!(false, "a response without a request");
            return;
        };
        self.state = State::Sending(Outgoing::new(response, manner));
    }

    /// Returns the bytes to send.
    pub(crate) fn unsent(&self) -> &[u8] {
        match &self.state {
            State::Sending(outgoing) => outgoing.unsent(),
            State::Reading | State::Answering(_) | State::Closed => &[],
        }
    }

    /// Marks the first `count` bytes of [`Self::unsent`] as sent.
    pub(crate) fn sent(&mut self, count: usize) {
        if let State::Sending(outgoing) = &mut self.state {
            outgoing.sent(count);
        }
    }

    /// Returns whether a request is awaited, or a part of it has come.
    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading)
    }

    /// Returns whether no byte of the next request has come.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Reading) && self.reader.is_empty()
    }

    /// Returns whether a request was answered and none has come since.
    pub(crate) fn is_idle(&self) -> bool {
        self.has_served && self.is_between_requests()
    }

    /// Returns whether no other request is read.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
