//! One MetalBond session, without its socket: bytes and instants in, events and frames out.
//!
//! The caller feeds what it read to [`Session::next_event`] until that returns
//! `None`, sends all that [`Session::poll_transmit`] has, and calls
//! [`Session::handle_timeout`] when [`Session::poll_timeout`] is reached. After
//! any of these [`Session::closed`] may have become `Some`: nothing more comes.
//!
//! ```text
//!            HELLO             KEEPALIVE
//! AwaitHello -----> AwaitKeepalive -----> Established
//!      \                 |                   /
//!       `----------------+------------------'--> Closed(reason)
//! ```
//!
//! The client sends HELLO when made and KEEPALIVE once the HELLO of the server is
//! there; the server answers both. What each state allows is in `allows`.

mod close;
mod counts;
mod notices;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use close::{CloseReason, Fault};
pub use counts::MessageCounts;

use crate::core::time::after;
use crate::core::types::Vni;
use crate::core::wire::{
    Capabilities, Extensions, Frame, Hello, Malformed, MessageType, Notice, NoticeCode,
    Reassembler, Update, decode_hello, decode_notice, decode_subscription, decode_update,
    encode_hello, encode_notice,
};
use notices::Notices;

/// How much longer a handshake may take if bytes of it wait to be received.
const EXCUSE: Duration = Duration::from_secs(1);

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Dialled; subscribes, keeps alive.
    Client,
    /// Was dialled; answers.
    Server,
}

/// What a session is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionConfig {
    pub(crate) role: Role,
    /// Seconds between KEEPALIVEs, at least 1; the smaller of the two sides' counts.
    pub(crate) keepalive_interval: u32,
    /// How long a peer may take to send its HELLO.
    pub(crate) handshake_timeout: Duration,
    /// What a HELLO of ours offers; `None` makes this side a legacy one.
    pub(crate) extensions: Option<Extensions>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer's HELLO has not come.
    AwaitHello { until: Instant },
    /// HELLOs are exchanged, the peer's first KEEPALIVE has not come.
    AwaitKeepalive { until: Instant },
    /// Routes flow.
    Established,
    /// Over.
    Closed(CloseReason),
}

/// What a peer's bytes mean to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The handshake is complete.
    Established,
    /// The peer announces or withdraws a route.
    Update(Update),
    /// The client wants the routes of a VNI.
    Subscribe(Vni),
    /// The client does not want them any more.
    Unsubscribe(Vni),
    /// The server has sent the whole initial table of a VNI.
    EndOfRib(Vni),
    /// The server answered one more KEEPALIVE.
    KeepaliveReply,
    /// The peer says something about the session. Boxed: it is rare, and updates are not.
    Notice(Box<Notice>),
    /// A message was dropped; the session goes on.
    Dropped(Malformed),
}

/// A frame of the session's own, to be sent ahead of queued routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transmit {
    /// A whole HELLO frame.
    Hello(Vec<u8>),
    /// A KEEPALIVE.
    Keepalive,
    /// A whole NOTICE frame.
    Notice(Vec<u8>),
}

/// A session of either role.
#[derive(Debug)]
pub(crate) struct Session {
    config: SessionConfig,
    state: State,
    /// Seconds; the own interval until the peer's is known.
    interval: u32,
    peer: Option<Hello>,
    reassembler: Reassembler,
    last_received: Instant,
    /// When the client is due to send its next KEEPALIVE.
    keepalive_at: Option<Instant>,
    hello_due: bool,
    keepalives_due: u32,
    keepalives_sent: u64,
    keepalives_answered: u64,
    /// KEEPALIVEs sent ahead of what waited, and those of them that are not answered: which
    /// replies of all are theirs. They stand behind nothing, so they prove nothing.
    overtakers_sent: u64,
    overtakers: VecDeque<u64>,
    replies: u64,
    /// A KEEPALIVE is due by its interval, and not only as a barrier.
    is_keepalive_urgent: bool,
    /// Since when it is in the state it is in.
    since: Instant,
    received: MessageCounts,
    hellos_sent: u64,
    notices_sent: u64,
    /// `None` until there is one.
    notices: Option<Box<Notices>>,
}

impl Session {
    /// A session on a connection that was made at `now`.
    pub(crate) fn new(config: SessionConfig, now: Instant) -> Self {
        debug_assert!(config.keepalive_interval > 0);
        Self {
            config,
            state: State::AwaitHello {
                until: after(now, config.handshake_timeout),
            },
            interval: config.keepalive_interval,
            peer: None,
            reassembler: Reassembler::default(),
            last_received: now,
            keepalive_at: None,
            hello_due: config.role == Role::Client,
            keepalives_due: 0,
            keepalives_sent: 0,
            keepalives_answered: 0,
            overtakers_sent: 0,
            overtakers: VecDeque::new(),
            replies: 0,
            is_keepalive_urgent: false,
            since: now,
            received: MessageCounts::default(),
            hellos_sent: 0,
            notices_sent: 0,
            notices: None,
        }
    }

    /// Whether routes may be sent.
    pub(crate) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether HELLOs are exchanged but the peer's first KEEPALIVE has not come.
    pub(crate) fn is_hello_received(&self) -> bool {
        matches!(self.state, State::AwaitKeepalive { .. })
    }

    /// Why the session is over, once it is.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match self.state {
            State::Closed(reason) => Some(reason),
            State::AwaitHello { .. } | State::AwaitKeepalive { .. } | State::Established => None,
        }
    }

    /// Since when it is in the state it is in.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Messages that came.
    pub(crate) fn received(&self) -> MessageCounts {
        self.received
    }

    /// HELLOs, KEEPALIVEs and NOTICEs handed out for sending; the others are not the session's.
    pub(crate) fn sent(&self) -> MessageCounts {
        MessageCounts {
            hello: self.hellos_sent,
            keepalive: self.keepalives_sent + self.overtakers_sent,
            notice: self.notices_sent,
            ..MessageCounts::default()
        }
    }

    /// Whether the peer's HELLO has come.
    pub(crate) fn knows_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// Seconds between KEEPALIVEs, as negotiated.
    pub(crate) fn keepalive_interval(&self) -> u32 {
        self.interval
    }

    /// Silence that ends the session: two and a half intervals.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.interval.into()) * 5 / 2
    }

    /// What the peer's HELLO offered; nothing for legacy peers and before HELLO, and on a
    /// side that is a legacy one itself.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let offered = self.peer.and_then(|hello| hello.extensions);
        let extensions = self.config.extensions.and(offered);
        extensions.map_or_else(Capabilities::default, |extensions| extensions.capabilities)
    }

    /// The peer's HELLO, once it has come.
    pub(crate) fn hello(&self) -> Option<Hello> {
        self.peer
    }

    /// Whether the peer's HELLO has come and offers no reassembly.
    pub(crate) fn is_legacy(&self) -> bool {
        self.peer.is_some() && !self.capabilities().contains(Capabilities::STREAM)
    }

    /// When the last byte came.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    /// How many KEEPALIVEs were handed out for sending, and how many the server answered.
    pub(crate) fn keepalives(&self) -> (u64, u64) {
        (self.keepalives_sent, self.keepalives_answered)
    }

    /// Sends a KEEPALIVE before it is due, and returns its number.
    ///
    /// A server answers in order: once that many are answered, all that was sent
    /// before the KEEPALIVE has been read.
    pub(crate) fn barrier(&mut self) -> u64 {
        self.keepalives_due += 1;
        self.keepalives_sent + u64::from(self.keepalives_due)
    }

    /// Returns whether a KEEPALIVE has become due by its interval since the last call.
    pub(crate) fn take_urgent_keepalive(&mut self) -> bool {
        std::mem::take(&mut self.is_keepalive_urgent) && self.is_established()
    }

    /// Notes that one more KEEPALIVE is sent, ahead of `later` of those handed out for sending.
    ///
    /// Its answer shows that the server lives, and is no news to anybody: barriers stay where
    /// they are.
    pub(crate) fn overtook(&mut self, later: u64) {
        let before = self.keepalives_sent + self.overtakers_sent - later;
        self.overtakers_sent += 1;
        self.overtakers.push_back(before + 1);
    }

    /// Sends a NOTICE, ahead of queued routes, if the peer understands it. Of those with one code
    /// and VNI at most one goes in a second, and of those that wait the latest.
    pub(crate) fn notify(&mut self, code: NoticeCode, vni: Vni, why: &str, now: Instant) {
        if self.closed().is_none() && self.speaks_notice() {
            let text = why.into();
            let notice = Notice { code, vni, text };
            self.notices.get_or_insert_default().push(notice, now);
        }
    }

    /// Ends the session; the first reason stays.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.closed().is_none() {
            self.state = State::Closed(reason);
            self.reassembler = Reassembler::default();
        }
    }

    /// Takes from `input` up to the end of the next message that means something.
    ///
    /// `None`: all of `input` is taken, or the session is closed.
    pub(crate) fn next_event(&mut self, now: Instant, input: &mut &[u8]) -> Option<Event> {
        if !input.is_empty() {
            self.last_received = now;
        }
        while self.closed().is_none() {
            let (kind, message) = match self.reassembler.next(input) {
                Ok(Some(frame)) => (frame.kind, read(frame)),
                Ok(None) => return None,
                Err(error) => {
                    self.close(CloseReason::Frame(error));
                    return None;
                }
            };
            if !self.allows(kind) {
                self.close(CloseReason::Unexpected(kind as u8));
                return None;
            }
            self.received.count(kind);
            let event = match message {
                Ok(message) => self.receive(now, message),
                Err(_) if kind == MessageType::Hello => {
                    self.close(CloseReason::BrokenHello);
                    None
                }
                Err(malformed) => Some(Event::Dropped(malformed)),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The one place where a message type meets a role and a state.
    fn allows(&self, kind: MessageType) -> bool {
        use MessageType as Type;
        match (self.config.role, self.state, kind) {
            (_, State::AwaitHello { .. }, Type::Hello)
            | (_, State::AwaitKeepalive { .. } | State::Established, Type::Keepalive)
            | (
                Role::Server,
                State::Established,
                Type::Subscribe | Type::Unsubscribe | Type::Update,
            )
            // A server with own announcements sends them before its first KEEPALIVE.
            | (Role::Client, State::AwaitKeepalive { .. } | State::Established, Type::Update) => {
                true
            }
            (Role::Client, State::Established, Type::EndOfRib) => self.speaks_end_of_rib(),
            (_, State::AwaitKeepalive { .. } | State::Established, Type::Notice) => {
                self.speaks_notice()
            }
            (_, State::AwaitHello { .. }, Type::Keepalive | Type::Update | Type::Notice)
            | (_, State::AwaitKeepalive { .. } | State::Established, Type::Hello)
            | (_, State::AwaitHello { .. }, Type::Subscribe | Type::Unsubscribe | Type::EndOfRib)
            | (
                _,
                State::AwaitKeepalive { .. },
                Type::Subscribe | Type::Unsubscribe | Type::EndOfRib,
            )
            | (Role::Server, State::AwaitKeepalive { .. }, Type::Update)
            | (Role::Client, State::Established, Type::Subscribe | Type::Unsubscribe)
            | (Role::Server, State::Established, Type::EndOfRib)
            | (_, State::Closed(_), _) => false,
        }
    }

    fn receive(&mut self, now: Instant, message: Message) -> Option<Event> {
        match message {
            Message::Hello(hello) => {
                self.receive_hello(now, hello);
                None
            }
            Message::Keepalive => self.receive_keepalive(now),
            Message::Update(update) => Some(Event::Update(update)),
            Message::Subscribe(vni) => Some(Event::Subscribe(vni)),
            Message::Unsubscribe(vni) => Some(Event::Unsubscribe(vni)),
            Message::EndOfRib(vni) => Some(Event::EndOfRib(vni)),
            Message::Notice(notice) => Some(Event::Notice(Box::new(notice))),
        }
    }

    fn receive_hello(&mut self, now: Instant, hello: Hello) {
        if hello.keepalive_interval == 0 {
            self.close(CloseReason::IntervalZero);
            return;
        }
        self.interval = self.interval.min(hello.keepalive_interval);
        self.peer = Some(hello);
        self.since = now;
        self.state = State::AwaitKeepalive {
            until: after(now, self.config.handshake_timeout.max(self.timeout())),
        };
        match self.config.role {
            Role::Client => {
                self.keepalives_due += 1;
                self.keepalive_at = Some(now + self.interval_duration());
            }
            Role::Server => self.hello_due = true,
        }
    }

    fn receive_keepalive(&mut self, now: Instant) -> Option<Event> {
        match self.config.role {
            Role::Client => {
                self.replies += 1;
                if self.overtakers.front() == Some(&self.replies) {
                    self.overtakers.pop_front();
                    return None;
                }
                self.keepalives_answered += 1;
            }
            // A peer that sends these without reading costs a counter, not memory.
            Role::Server => self.keepalives_due = self.keepalives_due.saturating_add(1),
        }
        if !self.is_established() {
            self.state = State::Established;
            self.since = now;
            return Some(Event::Established);
        }
        (self.config.role == Role::Client).then_some(Event::KeepaliveReply)
    }

    /// The next frame of the session's own that is due.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        if self.closed().is_some() {
            return None;
        }
        if std::mem::take(&mut self.hello_due) {
            let mut frame = Vec::new();
            encode_hello(&mut frame, &self.own_hello());
            self.hellos_sent += 1;
            return Some(Transmit::Hello(frame));
        }
        if let Some(notice) = self.notices.as_mut().and_then(|it| it.pop()) {
            let mut frame = Vec::new();
            encode_notice(&mut frame, &notice);
            self.notices_sent += 1;
            return Some(Transmit::Notice(frame));
        }
        self.keepalives_due = self.keepalives_due.checked_sub(1)?;
        self.keepalives_sent += 1;
        Some(Transmit::Keepalive)
    }

    fn own_hello(&self) -> Hello {
        let offered = match (self.config.role, self.peer) {
            (Role::Client, _) => true,
            // Only to a client that offered something itself.
            (Role::Server, peer) => peer.is_some_and(|hello| hello.extensions.is_some()),
        };
        Hello {
            keepalive_interval: self.interval,
            is_server: self.config.role == Role::Server,
            extensions: self.config.extensions.filter(|_| offered),
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.last_received + self.timeout();
        match self.state {
            State::AwaitHello { until } => Some(until),
            State::AwaitKeepalive { until } => Some(
                until
                    .min(silent)
                    .min(self.keepalive_due())
                    .min(self.notice_due()),
            ),
            State::Established => Some(silent.min(self.keepalive_due()).min(self.notice_due())),
            State::Closed(_) => None,
        }
    }

    /// When a NOTICE that waits may go; as late as anything if none does.
    fn notice_due(&self) -> Instant {
        let due = self.notices.as_ref().and_then(|it| it.due());
        due.unwrap_or_else(|| self.last_received + self.timeout())
    }

    /// Whether [`Self::handle_timeout`] would end the session for what has not come.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        let is_quiet = now >= self.last_received + self.timeout();
        match self.state {
            State::AwaitHello { until } => now >= until,
            State::AwaitKeepalive { until } => now >= until || is_quiet,
            State::Established => is_quiet,
            State::Closed(_) => false,
        }
    }

    /// Takes note that bytes of the peer wait to be received: it is not silent.
    ///
    /// A handshake has a little longer, so that bytes that trickle in do not prolong it much.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.last_received = now;
        if let State::AwaitHello { until } | State::AwaitKeepalive { until } = &mut self.state {
            *until = (*until).max(now + EXCUSE);
        }
    }

    /// Does what is due at `now`: a KEEPALIVE, or the end of a silent peer.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let silent = now >= self.last_received + self.timeout();
        match self.state {
            State::AwaitHello { until } | State::AwaitKeepalive { until } if now >= until => {
                self.close(CloseReason::HandshakeTimeout);
            }
            State::AwaitKeepalive { .. } | State::Established if silent => {
                self.close(CloseReason::Silent);
            }
            State::AwaitKeepalive { .. } | State::Established => {
                if now >= self.keepalive_due() {
                    self.keepalives_due += 1;
                    self.is_keepalive_urgent = true;
                    self.keepalive_at = Some(now + self.interval_duration());
                }
                if let Some(notices) = &mut self.notices {
                    notices.handle_timeout(now);
                }
            }
            State::AwaitHello { .. } | State::Closed(_) => {}
        }
    }

    /// When the client sends its next KEEPALIVE; for the server, later than anything else.
    fn keepalive_due(&self) -> Instant {
        self.keepalive_at
            .unwrap_or_else(|| self.last_received + self.timeout())
    }

    fn interval_duration(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    fn speaks_end_of_rib(&self) -> bool {
        self.capabilities().contains(Capabilities::END_OF_RIB)
    }

    fn speaks_notice(&self) -> bool {
        self.capabilities().contains(Capabilities::NOTICE)
    }
}

/// A message whose payload was read.
#[derive(Clone, Debug)]
enum Message {
    Hello(Hello),
    Keepalive,
    Subscribe(Vni),
    Unsubscribe(Vni),
    Update(Update),
    EndOfRib(Vni),
    Notice(Notice),
}

fn read(frame: Frame<'_>) -> Result<Message, Malformed> {
    match frame.kind {
        MessageType::Hello => decode_hello(frame.payload).map(Message::Hello),
        // Its payload has no meaning; Go MetalBond ignores it too.
        MessageType::Keepalive => Ok(Message::Keepalive),
        MessageType::Subscribe => decode_subscription(frame.payload).map(Message::Subscribe),
        MessageType::Unsubscribe => decode_subscription(frame.payload).map(Message::Unsubscribe),
        MessageType::Update => decode_update(frame.payload).map(Message::Update),
        MessageType::EndOfRib => decode_subscription(frame.payload).map(Message::EndOfRib),
        MessageType::Notice => decode_notice(frame.payload).map(Message::Notice),
    }
}
