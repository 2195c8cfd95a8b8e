//! One session on a clock that counts milliseconds.

use std::time::{Duration, Instant};

use crate::core::connection::{Buffer, Connection};
use crate::core::pace::{DEFAULT_RATE, LegacyPacing, Pacing};
use crate::core::session::{CloseReason, Event, Role, SessionConfig};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{Capabilities, Extensions, frame_len};

/// What a peer's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    Established,
    Update(Action, Vni, Route),
    Subscribe(Vni),
    Unsubscribe(Vni),
    EndOfRib(Vni),
    Notice,
    KeepaliveReply,
    Dropped,
}

/// A session of either role, on a connection that takes all bytes at once.
pub struct Session {
    connection: Connection<Buffer>,
    begin: Instant,
}

impl Session {
    /// A session of a connection that is made at 0 ms; `interval` is in seconds, at least 1.
    #[allow(clippy::disallowed_methods, reason = "a session begins at some moment")]
    pub fn new(is_client: bool, interval: u32, handshake_ms: u64, is_modern: bool) -> Self {
        let begin = Instant::now();
        let config = SessionConfig {
            role: if is_client {
                Role::Client
            } else {
                Role::Server
            },
            keepalive_interval: interval,
            handshake_timeout: Duration::from_millis(handshake_ms),
            extensions: is_modern.then_some(Extensions {
                capabilities: Capabilities::OWN,
                node_id: [7; 16],
                uptime_seconds: 0,
            }),
        };
        let pacing = Pacing {
            mode: LegacyPacing::Off,
            rate: DEFAULT_RATE,
        };
        Self {
            connection: Connection::new(config, pacing, 0, begin),
            begin,
        }
    }

    /// All that bytes mean that came at a time.
    pub fn feed(&mut self, ms: u64, mut bytes: &[u8]) -> Vec<SessionEvent> {
        let now = self.begin + Duration::from_millis(ms);
        let next = || self.connection.receive(&mut bytes, now);
        std::iter::from_fn(next).map(SessionEvent::from).collect()
    }

    /// The frames that are due.
    pub fn transmit(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        // A connection queues only so many at once.
        loop {
            self.connection.transmit();
            let mut bytes = self.connection.outgoing();
            let count = bytes.len();
            if count == 0 {
                return frames;
            }
            while !bytes.is_empty() {
                let (frame, rest) = bytes.split_at(frame_len(bytes));
                frames.push(frame.to_vec());
                bytes = rest;
            }
            self.connection.advance(count, self.begin);
        }
    }

    /// When something is due, in ms.
    pub fn due(&self) -> Option<u64> {
        let due = self.connection.poll_timeout()?;
        let passed = due.saturating_duration_since(self.begin).as_millis();
        Some(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub fn handle_timeout(&mut self, ms: u64) {
        self.connection
            .handle_timeout(self.begin + Duration::from_millis(ms));
    }

    pub fn barrier(&mut self) -> u64 {
        self.connection.barrier()
    }

    pub fn is_established(&self) -> bool {
        self.connection.session().is_established()
    }

    pub fn is_legacy(&self) -> bool {
        self.connection.session().is_legacy()
    }

    /// KEEPALIVEs handed out, and those that were answered.
    pub fn keepalives(&self) -> (u64, u64) {
        self.connection.session().keepalives()
    }

    pub fn closed(&self) -> Option<CloseReason> {
        self.connection.closed()
    }
}

impl From<Event> for SessionEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Established => Self::Established,
            Event::Update(update) => Self::Update(update.action, update.vni, update.route),
            Event::Subscribe(vni) => Self::Subscribe(vni),
            Event::Unsubscribe(vni) => Self::Unsubscribe(vni),
            Event::EndOfRib(vni) => Self::EndOfRib(vni),
            Event::KeepaliveReply => Self::KeepaliveReply,
            Event::Notice(_) => Self::Notice,
            Event::Dropped(_) => Self::Dropped,
        }
    }
}
