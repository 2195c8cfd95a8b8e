//! Connections: bytes that take their time, do not fit, are cut anywhere, or never arrive.

use std::collections::VecDeque;
use std::time::Instant;

use super::script::End;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    flight: VecDeque<(Instant, Vec<u8>)>,
    flying: usize,
    arrived: VecDeque<u8>,
    /// On its way behind the bytes.
    end: Option<(Instant, End)>,
    /// What the reader finds behind the bytes that arrived.
    pub(crate) ended: Option<End>,
    /// The writer was refused room.
    pub(crate) is_full: bool,
    room: usize,
}

impl Pipe {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// Room for that many bytes.
    pub(crate) fn space(&self) -> usize {
        self.room.saturating_sub(self.flying + self.arrived.len())
    }

    /// Whether all that was written is in the reader's kernel.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.flying == 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.ended.is_some()
    }

    pub(crate) fn has_unread(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Sends bytes that arrive then; nothing overtakes, and nothing follows the end.
    pub(crate) fn send(&mut self, bytes: &[u8], at: Instant) -> Instant {
        if let Some((end, _)) = self.end {
            return end;
        }
        if self.ended.is_some() {
            return at;
        }
        let at = self.flight.back().map_or(at, |(last, _)| at.max(*last));
        self.flying += bytes.len();
        self.flight.push_back((at, bytes.to_vec()));
        at
    }

    /// The writer ends; a reset lets only the first `kept` bytes on their way arrive.
    pub(crate) fn finish(&mut self, end: End, at: Instant, kept: usize) -> Instant {
        let mut at = self.flight.back().map_or(at, |(last, _)| at.max(*last));
        if end == End::Reset {
            let mut left = kept;
            for (_, bytes) in &mut self.flight {
                bytes.truncate(left);
                left -= bytes.len();
            }
            self.flying = kept.min(self.flying);
        }
        if let Some((before, _)) = self.end {
            at = at.min(before);
        }
        self.end = Some((at, end));
        at
    }

    pub(crate) fn flying(&self) -> usize {
        self.flying
    }

    /// Takes note that it is `now`; whether the reader has something new.
    pub(crate) fn arrive(&mut self, now: Instant) -> bool {
        let mut is_new = false;
        while let Some((at, bytes)) = self.flight.front()
            && *at <= now
        {
            self.flying -= bytes.len();
            self.arrived.extend(bytes);
            is_new = true;
            self.flight.pop_front();
        }
        if let Some((at, end)) = self.end
            && at <= now
            && self.flight.is_empty()
        {
            self.end = None;
            self.ended = Some(end);
            is_new = true;
        }
        is_new
    }

    /// When the next thing arrives.
    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        let flight = self.flight.front().map(|(at, _)| *at);
        flight.or_else(|| self.end.map(|(at, _)| at))
    }

    /// At most `limit` bytes that have arrived.
    pub(crate) fn read(&mut self, limit: usize) -> Vec<u8> {
        let count = self.arrived.len().min(limit);
        self.arrived.drain(..count).collect()
    }
}

/// A connection between a client and a server.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) client: usize,
    pub(crate) server: usize,
    to_server: Pipe,
    to_client: Pipe,
    pub(crate) client_has: bool,
    pub(crate) server_has: bool,
    /// Nothing arrives any more, in either direction.
    pub(crate) is_dead: bool,
    /// When the server's process was started.
    pub(crate) server_started: Instant,
}

impl Conn {
    pub(crate) fn new(client: usize, server: usize, room: usize, server_started: Instant) -> Self {
        Self {
            client,
            server,
            to_server: Pipe::new(room),
            to_client: Pipe::new(room),
            client_has: true,
            server_has: true,
            is_dead: false,
            server_started,
        }
    }

    /// The direction that this side reads.
    pub(crate) fn into(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.to_client,
            Side::Server => &mut self.to_server,
        }
    }

    pub(crate) fn from(&mut self, side: Side) -> &mut Pipe {
        self.into(side.other())
    }

    pub(crate) fn has(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Client => &mut self.client_has,
            Side::Server => &mut self.server_has,
        }
    }
}
