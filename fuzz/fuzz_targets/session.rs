//! A session of either role does what a model of it does: whatever the peer sends in
//! whatever pieces, and whenever the clock is looked at.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustbond::internals::{Session, SessionEvent as Event};
use rustbond::{CloseReason, FrameError, Vni};
use rustbond_fuzz::*;

#[derive(Arbitrary, Debug)]
struct Setup {
    is_client: bool,
    interval: u8,
    handshake: u16,
    is_modern: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Hello {
        interval: u16,
        capabilities: Option<u8>,
        cut: u8,
    },
    Keepalive {
        cut: u8,
    },
    About {
        kind: u8,
        vni: u16,
        cut: u8,
    },
    Update {
        vni: u16,
        host: u8,
        is_remove: bool,
    },
    /// Milliseconds.
    Pass(u16),
    /// To the moment it waits for, and this much too late.
    Expire {
        late: u8,
    },
    Transmit,
    Barrier,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    AwaitHello { until: u64 },
    AwaitKeepalive { until: u64 },
    Established,
    Closed(CloseReason),
}

struct Model {
    setup: Setup,
    now: u64,
    state: State,
    interval: u64,
    peer: Option<Hello>,
    pending: Vec<u8>,
    last_received: u64,
    keepalive_at: Option<u64>,
    hello_due: bool,
    due: u64,
    sent: u64,
    answered: u64,
}

impl Model {
    fn new(setup: Setup) -> Self {
        Self {
            now: 0,
            state: State::AwaitHello {
                until: setup.handshake.into(),
            },
            interval: u64::from(setup.interval.max(1)) * 1000,
            peer: None,
            pending: Vec::new(),
            last_received: 0,
            keepalive_at: None,
            hello_due: setup.is_client,
            due: 0,
            sent: 0,
            answered: 0,
            setup,
        }
    }

    fn silence(&self) -> u64 {
        self.last_received + self.interval * 5 / 2
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed(reason);
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        if matches!(self.state, State::Closed(_)) {
            return events;
        }
        if !bytes.is_empty() {
            self.last_received = self.now;
        }
        self.pending.extend_from_slice(bytes);
        while !matches!(self.state, State::Closed(_)) {
            match take_frame(&mut self.pending) {
                Ok(Some((kind, payload))) => events.extend(self.hear(kind, &payload)),
                Ok(None) => break,
                Err(BadHeader::Version(it)) => {
                    self.close(CloseReason::Frame(FrameError::Version(it)))
                }
                Err(BadHeader::Type(it)) => self.close(CloseReason::Frame(FrameError::Type(it))),
                Err(BadHeader::Length(it)) => {
                    self.close(CloseReason::Frame(FrameError::Length(it)))
                }
            }
        }
        events
    }

    fn hear(&mut self, kind: u8, payload: &[u8]) -> Option<Event> {
        let is_client = self.setup.is_client;
        let speaks = self.setup.is_modern
            && self
                .peer
                .is_some_and(|it| it.capabilities.unwrap_or(0) & 2 != 0);
        let notices = self.setup.is_modern
            && self
                .peer
                .is_some_and(|it| it.capabilities.unwrap_or(0) & 4 != 0);
        let is_allowed = match self.state {
            State::AwaitHello { .. } => kind == HELLO,
            State::AwaitKeepalive { .. } | State::Established if kind == NOTICE => notices,
            State::AwaitKeepalive { .. } => kind == KEEPALIVE || is_client && kind == UPDATE,
            State::Established if is_client => {
                matches!(kind, KEEPALIVE | UPDATE) || kind == END_OF_RIB && speaks
            }
            State::Established => matches!(kind, KEEPALIVE | SUBSCRIBE | UNSUBSCRIBE | UPDATE),
            State::Closed(_) => unreachable!(),
        };
        if !is_allowed {
            self.close(CloseReason::Unexpected(kind));
            return None;
        }
        match kind {
            HELLO => {
                match decode_hello(payload) {
                    None => self.close(CloseReason::BrokenHello),
                    Some(Hello { interval: 0, .. }) => self.close(CloseReason::IntervalZero),
                    Some(hello) => {
                        self.peer = Some(hello);
                        self.interval = self.interval.min(u64::from(hello.interval) * 1000);
                        let patience = (self.interval * 5 / 2).max(self.setup.handshake.into());
                        self.state = State::AwaitKeepalive {
                            until: self.now + patience,
                        };
                        if is_client {
                            self.due += 1;
                            self.keepalive_at = Some(self.now + self.interval);
                        } else {
                            self.hello_due = true;
                        }
                    }
                }
                None
            }
            KEEPALIVE => {
                if is_client {
                    self.answered += 1;
                } else {
                    self.due += 1;
                }
                if self.state != State::Established {
                    self.state = State::Established;
                    return Some(Event::Established);
                }
                is_client.then_some(Event::KeepaliveReply)
            }
            // What an UPDATE means is another target's business.
            UPDATE => Some(match rustbond::internals::decode_one(payload) {
                Some((action, vni, route)) => Event::Update(action, vni, route),
                None => Event::Dropped,
            }),
            NOTICE => Some(match decode_notice(payload) {
                Some(()) => Event::Notice,
                None => Event::Dropped,
            }),
            _ => Some(match decode_vni(payload).map(Vni) {
                None => Event::Dropped,
                Some(vni) if kind == SUBSCRIBE => Event::Subscribe(vni),
                Some(vni) if kind == UNSUBSCRIBE => Event::Unsubscribe(vni),
                Some(vni) => Event::EndOfRib(vni),
            }),
        }
    }

    fn poll(&self) -> Option<u64> {
        let keepalive = self.keepalive_at.unwrap_or(u64::MAX);
        match self.state {
            State::AwaitHello { until } => Some(until),
            State::AwaitKeepalive { until } => Some(until.min(self.silence()).min(keepalive)),
            State::Established => Some(self.silence().min(keepalive)),
            State::Closed(_) => None,
        }
    }

    fn handle_timeout(&mut self) {
        match self.state {
            State::AwaitHello { until } | State::AwaitKeepalive { until } if self.now >= until => {
                self.close(CloseReason::HandshakeTimeout);
            }
            State::AwaitKeepalive { .. } | State::Established => {
                if self.now >= self.silence() {
                    self.close(CloseReason::Silent);
                } else if self.keepalive_at.is_some_and(|at| self.now >= at) {
                    self.due += 1;
                    self.keepalive_at = Some(self.now + self.interval);
                }
            }
            State::AwaitHello { .. } | State::Closed(_) => {}
        }
    }

    fn check_transmit(&mut self, frames: &[Vec<u8>]) {
        let mut frames = frames.iter();
        if matches!(self.state, State::Closed(_)) {
            assert_eq!(frames.next(), None, "a session that is over is silent");
            return;
        }
        if std::mem::take(&mut self.hello_due) {
            let hello = decode_hello(&frames.next().expect("a HELLO")[4..]).expect("well-formed");
            assert_eq!(u64::from(hello.interval) * 1000, self.interval);
            let is_asked =
                self.setup.is_client || self.peer.is_some_and(|it| it.capabilities.is_some());
            assert_eq!(
                hello.capabilities.is_some(),
                self.setup.is_modern && is_asked
            );
        }
        assert!(frames.clone().all(|it| it[..] == [1, 0, 0, KEEPALIVE]));
        assert_eq!(frames.len() as u64, self.due);
        self.sent += std::mem::take(&mut self.due);
    }
}

fuzz_target!(|input: (Setup, Vec<Step>)| {
    let (setup, steps) = input;
    let handshake = u64::from(setup.handshake);
    let interval = u32::from(setup.interval.max(1));
    let mut session = Session::new(setup.is_client, interval, handshake, setup.is_modern);
    let mut model = Model::new(setup);
    for step in steps {
        let feed = |model: &mut Model, session: &mut Session, frame: &[u8], cut: u8| {
            let (front, back) = frame.split_at(usize::from(cut) % (frame.len() + 1));
            for piece in [front, back] {
                assert_eq!(session.feed(model.now, piece), model.feed(piece));
            }
        };
        match step {
            Step::Bytes(bytes) => feed(&mut model, &mut session, &bytes, 0),
            Step::Hello {
                interval,
                capabilities,
                cut,
            } => {
                let mut payload = vec![8];
                put_varint(&mut payload, interval.into());
                if let Some(capabilities) = capabilities {
                    put_bytes(&mut payload, 1000, &[8, 1, 16, capabilities & 0x7f]);
                }
                feed(&mut model, &mut session, &frame(HELLO, &payload), cut);
            }
            Step::Keepalive { cut } => {
                feed(&mut model, &mut session, &frame(KEEPALIVE, &[]), cut);
            }
            Step::About { kind, vni, cut } => {
                let mut payload = vec![8];
                put_varint(&mut payload, vni.into());
                let kind = [SUBSCRIBE, UNSUBSCRIBE, END_OF_RIB][usize::from(kind) % 3];
                feed(&mut model, &mut session, &frame(kind, &payload), cut);
            }
            Step::Update {
                vni,
                host,
                is_remove,
            } => {
                let update = Update {
                    is_remove,
                    vni: vni.into(),
                    prefix: vec![10, 0, 0, host],
                    length: 32,
                    hop: vec![host; 16],
                    ..Update::default()
                };
                let bytes = frame(UPDATE, &encode_update(&update));
                feed(&mut model, &mut session, &bytes, host);
            }
            Step::Pass(ms) => {
                model.now += u64::from(ms);
                model.handle_timeout();
                session.handle_timeout(model.now);
            }
            Step::Expire { late } => {
                if let Some(due) = session.due() {
                    model.now = model.now.max(due) + u64::from(late);
                }
                model.handle_timeout();
                session.handle_timeout(model.now);
                assert!(
                    session.due().is_none_or(|due| due > model.now),
                    "it would spin"
                );
            }
            Step::Transmit => model.check_transmit(&session.transmit()),
            Step::Barrier => {
                // Servers do not ask; they answer.
                if model.setup.is_client {
                    model.due += 1;
                    assert_eq!(session.barrier(), model.sent + model.due);
                }
            }
        }
        let closed = match model.state {
            State::Closed(reason) => Some(reason),
            _ => None,
        };
        assert_eq!(session.closed(), closed);
        assert_eq!(session.is_established(), model.state == State::Established);
        assert_eq!(session.due(), model.poll());
        assert_eq!(session.keepalives(), (model.sent, model.answered));
        // A side that offers nothing takes up nothing.
        let stream = model.setup.is_modern
            && model
                .peer
                .is_some_and(|it| it.capabilities.unwrap_or(0) & 1 != 0);
        assert_eq!(session.is_legacy(), model.peer.is_some() && !stream);
    }
    model.check_transmit(&session.transmit());
});
