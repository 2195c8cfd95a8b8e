//! Responses as bytes.

use super::Manner;
use crate::http::response::{Body, Chunk, Head, Response};

/// How a reader finds the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delimiter {
    /// The head says the length.
    Length(usize),
    /// The body comes in chunks (RFC 9112, section 7.1).
    Chunks,
    /// The connection ends with the body.
    Close,
}

/// Ends a body in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the parts of one response: first the head, then pieces of the body, then its end.
#[derive(Debug)]
pub(crate) struct Encoder {
    delimiter: Delimiter,
    wants_body: bool,
    keeps_alive: bool,
}

impl Encoder {
    /// Appends a head. `len` is the length of the body, if it is known before the end.
    pub(crate) fn begin(head: &Head, len: Option<usize>, manner: Manner, to: &mut Vec<u8>) -> Self {
        let delimiter = match len {
            Some(len) => Delimiter::Length(len),
            None if manner.takes_chunks => Delimiter::Chunks,
            None => Delimiter::Close,
        };
        let ends_by_itself = !manner.wants_body || delimiter != Delimiter::Close;
        let keeps_alive = manner.keeps_alive && ends_by_itself;
        let (code, reason) = (head.status.code(), head.status.reason());
        let mut text = format!("HTTP/1.1 {code} {reason}\r\n");
        for (name, value) in &head.headers {
            text.extend([*name, ": ", value.as_ref(), "\r\n"]);
        }
        match delimiter {
            Delimiter::Length(len) => text += &format!("Content-Length: {len}\r\n"),
            Delimiter::Chunks => text += "Transfer-Encoding: chunked\r\n",
            Delimiter::Close => {}
        }
        if !keeps_alive {
            text += "Connection: close\r\n";
        }
        text += "\r\n";
        to.extend_from_slice(text.as_bytes());
        Self {
            delimiter,
            wants_body: manner.wants_body,
            keeps_alive,
        }
    }

    /// Returns all bytes of a response.
    pub(crate) fn whole(response: Response, manner: Manner) -> Vec<u8> {
        let mut outgoing = Outgoing::new(response, manner);
        let mut all = Vec::new();
        while outgoing.fill() {
            all.extend_from_slice(outgoing.unsent());
            outgoing.sent(outgoing.unsent().len());
        }
        all
    }

    /// Appends a piece of the body.
    pub(crate) fn piece(&self, bytes: &[u8], to: &mut Vec<u8>) {
        // An empty chunk would be the end.
        if !self.wants_body || bytes.is_empty() {
            return;
        }
        match self.delimiter {
            Delimiter::Length(_) | Delimiter::Close => to.extend_from_slice(bytes),
            Delimiter::Chunks => {
                to.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                to.extend_from_slice(bytes);
                to.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends what ends the body.
    pub(crate) fn end(&self, to: &mut Vec<u8>) {
        if self.wants_body && self.delimiter == Delimiter::Chunks {
            to.extend_from_slice(LAST_CHUNK);
        }
    }
}

/// A response that is being sent; its body is made meanwhile.
#[derive(Debug)]
pub(super) struct Outgoing {
    encoder: Encoder,
    /// What is not made yet.
    rest: Option<Body>,
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn new(response: Response, manner: Manner) -> Self {
        let Response { head, body } = response;
        let mut bytes = Vec::new();
        let encoder = Encoder::begin(&head, body.len(), manner, &mut bytes);
        let mut outgoing = Self {
            rest: encoder.wants_body.then_some(body),
            encoder,
            bytes,
            sent: 0,
        };
        // A short response leaves in one segment.
        outgoing.append_piece();
        outgoing
    }

    pub(super) fn keeps_alive(&self) -> bool {
        self.encoder.keeps_alive
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.bytes.len(), "more than there was");
    }

    /// Makes the next piece if all bytes were sent. Returns `false` after the last one.
    pub(super) fn fill(&mut self) -> bool {
        if !self.unsent().is_empty() {
            return true;
        }
        let has_more = self.rest.is_some();
        self.bytes.clear();
        self.sent = 0;
        self.append_piece();
        has_more
    }

    fn append_piece(&mut self) {
        let Some(body) = &mut self.rest else {
            return;
        };
        let (piece, is_last) = match body.next() {
            Chunk::More(bytes) => (bytes, false),
            Chunk::Last(bytes) => (bytes, true),
        };
        self.encoder.piece(&piece, &mut self.bytes);
        if is_last {
            self.encoder.end(&mut self.bytes);
            self.rest = None;
        }
    }
}
