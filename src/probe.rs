//! Asks what kind of peer listens somewhere, and how fast it answers.
//!
//! ```no_run
//! use rustbond::probe::{self, ProbeConfig};
//!
//! let endpoint = "[::1]:4711".parse()?;
//! let found = probe::probe(&endpoint, &ProbeConfig::default())?;
//! println!("{:?} answers in {:?}", found.kind, found.round_trips);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A probe connects, exchanges HELLO and some KEEPALIVEs, and closes. It subscribes to nothing
//! and announces nothing. It runs on the caller's thread, each of its steps with a deadline.

mod error;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

pub use error::ProbeError;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::core::connection::{Buffer, Connection};
use crate::core::pace::{LegacyPacing, MIN_RATE, Pacing};
use crate::core::session::{CloseReason, Event, Role, SessionConfig};
use crate::core::time::{after, bounded};
use crate::core::wire::{Capabilities, Extensions};
use crate::inspect::PeerKind;
use crate::net::{Endpoint, connect_path};

/// What is offered: seconds that no server in use exceeds, so that its answer is its own choice.
const INTERVAL_OFFERED: u32 = 3600;

/// Bytes kept of what came, to say what it was if it was not MetalBond.
const HEAD_MAX: usize = 64;

/// How to probe.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// How long each step may take: to connect, to answer HELLO, to answer a KEEPALIVE.
    /// Default: 5 s.
    pub timeout: Duration,
    /// KEEPALIVEs to be answered, at least 1. Default: 5.
    pub count: u32,
    /// From an answer to the next KEEPALIVE. Default: 100 ms.
    pub pause: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            count: 5,
            pause: Duration::from_millis(100),
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Probe {
    /// What answered: of a name, the address.
    pub endpoint: Endpoint,
    /// How long connecting took.
    pub connect: Duration,
    /// From HELLO to the HELLO of the other side.
    pub hello: Duration,
    /// Seconds between KEEPALIVEs that the other side wants, 3600 at most.
    pub keepalive_interval: u32,
    /// Whether it says that it is a server.
    pub is_server: bool,
    /// What it is.
    pub kind: PeerKind,
    /// Names of what it offers beyond the protocol.
    pub capabilities: Vec<String>,
    /// Identity of its process, if it told one.
    pub node_id: Option<[u8; 16]>,
    /// From each KEEPALIVE to its answer, in order.
    pub round_trips: Vec<Duration>,
}

/// Probes an endpoint; of a name, the first address that can be connected to.
///
/// # Errors
///
/// Those of [`ProbeError`]; an address that cannot be connected to is one only if it is the last.
pub fn probe(endpoint: &Endpoint, config: &ProbeConfig) -> Result<Probe, ProbeError> {
    if let Some(path) = endpoint.path() {
        let begun = Instant::now();
        let socket = connect_path(path).and_then(|it| it.set_nonblocking(false).map(|()| it));
        let socket = socket.map_err(|source| ProbeError::Connect {
            endpoint: endpoint.clone(),
            source,
        })?;
        return Exchange::new(endpoint.clone(), socket, begun.elapsed(), config).run();
    }
    let addresses = endpoint.resolve().map_err(ProbeError::Resolve)?;
    let mut failure = ProbeError::Resolve(ErrorKind::NotFound.into());
    for address in addresses {
        let begun = Instant::now();
        match connect(address, config.timeout) {
            Ok(socket) => {
                return Exchange::new(address.into(), socket, begun.elapsed(), config).run();
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connect(address: SocketAddr, timeout: Duration) -> Result<Socket, ProbeError> {
    let failed = |source| ProbeError::Connect {
        endpoint: address.into(),
        source,
    };
    // A timeout of zero is refused.
    let timeout = bounded(timeout).max(Duration::from_millis(1));
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None).map_err(failed)?;
    let far = SockAddr::from(address);
    socket.connect_timeout(&far, timeout).map_err(failed)?;
    // A port of the ephemeral range can be connected to itself when nobody listens on it.
    if socket.local_addr().map_err(failed)? == far {
        return Err(failed(ErrorKind::ConnectionRefused.into()));
    }
    socket.set_tcp_nodelay(true).map_err(failed)?;
    Ok(socket)
}

/// A connection, and what was learned on it.
struct Exchange<'a> {
    config: &'a ProbeConfig,
    endpoint: Endpoint,
    stream: Socket,
    connection: Connection<Buffer>,
    connect: Duration,
    hello_sent: Instant,
    hello: Option<Duration>,
    keepalive_sent: Option<Instant>,
    round_trips: Vec<Duration>,
    /// The first bytes that came.
    head: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(endpoint: Endpoint, stream: Socket, connect: Duration, config: &'a ProbeConfig) -> Self {
        let now = Instant::now();
        let session = SessionConfig {
            role: Role::Client,
            keepalive_interval: INTERVAL_OFFERED,
            handshake_timeout: bounded(config.timeout),
            extensions: Some(Extensions {
                capabilities: Capabilities::OWN,
                node_id: crate::random::node_id(),
                uptime_seconds: 0,
            }),
        };
        // The few frames of a probe need no pace.
        let pacing = Pacing {
            mode: LegacyPacing::Off,
            rate: MIN_RATE,
        };
        Self {
            config,
            endpoint,
            stream,
            connection: Connection::new(session, pacing, 0, now),
            connect,
            hello_sent: now,
            hello: None,
            keepalive_sent: None,
            round_trips: Vec::new(),
            head: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Probe, ProbeError> {
        // The session sends the first KEEPALIVE by itself, once HELLO is answered.
        self.exchange("HELLO", |it| it.hello.is_some())?;
        let count = self.config.count.max(1) as usize;
        loop {
            let answered = self.round_trips.len();
            self.exchange("KEEPALIVE", |it| it.round_trips.len() > answered)?;
            if self.round_trips.len() >= count {
                return Ok(self.finish());
            }
            self.rest(self.config.pause)?;
            self.connection.barrier();
        }
    }

    /// Sends what is due and reads until `is_reached`.
    fn exchange(
        &mut self,
        awaited: &'static str,
        is_reached: impl Fn(&Self) -> bool,
    ) -> Result<(), ProbeError> {
        let deadline = after(Instant::now(), self.config.timeout);
        loop {
            self.transmit()?;
            if is_reached(self) {
                return Ok(());
            }
            if !self.receive(deadline)? {
                return Err(ProbeError::Silent {
                    endpoint: self.endpoint.clone(),
                    awaited,
                    timeout: self.config.timeout,
                });
            }
        }
    }

    /// Reads for a while, and awaits nothing.
    fn rest(&mut self, pause: Duration) -> Result<(), ProbeError> {
        let deadline = after(Instant::now(), pause);
        while self.receive(deadline)? {}
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), ProbeError> {
        let before = self.connection.session().sent();
        self.connection.transmit();
        let after = self.connection.session().sent();
        // The answer may be there before the call that sends has returned.
        let now = Instant::now();
        if after.hello > before.hello {
            self.hello_sent = now;
        }
        if after.keepalive > before.keepalive {
            self.keepalive_sent = Some(now);
        }
        let frames = self.connection.outgoing();
        if frames.is_empty() {
            return Ok(());
        }
        self.stream
            .set_write_timeout(Some(bounded(self.config.timeout)))
            .and_then(|()| self.stream.write_all(frames))
            .map_err(|source| self.lost(source.kind()))?;
        let count = frames.len();
        self.connection.advance(count, now);
        Ok(())
    }

    /// Reads once; whether anything came before the deadline.
    fn receive(&mut self, deadline: Instant) -> Result<bool, ProbeError> {
        let mut buffer = [0; 16 * 1024];
        let count = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(self.lost(ErrorKind::UnexpectedEof)),
                Ok(count) => break count,
                // The deadline is looked at again.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(self.lost(error.kind())),
            }
        };
        self.digest(&buffer[..count])?;
        Ok(true)
    }

    fn digest(&mut self, mut input: &[u8]) -> Result<(), ProbeError> {
        let kept = (HEAD_MAX - self.head.len()).min(input.len());
        self.head.extend_from_slice(&input[..kept]);
        let now = Instant::now();
        while let Some(event) = self.connection.receive(&mut input, now) {
            if matches!(event, Event::Established | Event::KeepaliveReply)
                && let Some(sent) = self.keepalive_sent.take()
            {
                self.round_trips.push(now - sent);
            }
        }
        if self.hello.is_none() && self.connection.session().hello().is_some() {
            self.hello = Some(now - self.hello_sent);
        }
        match self.connection.closed() {
            None => Ok(()),
            Some(reason) => Err(self.refused(reason)),
        }
    }

    /// The connection ended before all was answered.
    fn lost(&self, kind: ErrorKind) -> ProbeError {
        ProbeError::Lost {
            endpoint: self.endpoint.clone(),
            kind,
            received: self.head.clone(),
        }
    }

    fn refused(&self, reason: CloseReason) -> ProbeError {
        ProbeError::NotMetalBond {
            endpoint: self.endpoint.clone(),
            reason,
            received: self.head.clone(),
        }
    }

    fn finish(self) -> Probe {
        // It says the same as the end of the stream; a peer that is gone does not need it.
        drop(self.stream.shutdown(Shutdown::Write));
        let session = self.connection.session();
        let hello = session.hello();
        let extensions = hello.and_then(|it| it.extensions);
        let capabilities = session.capabilities();
        Probe {
            endpoint: self.endpoint.clone(),
            connect: self.connect,
            hello: self.hello.unwrap_or_default(),
            keepalive_interval: session.keepalive_interval(),
            is_server: hello.is_some_and(|it| it.is_server),
            kind: if session.is_legacy() {
                PeerKind::Legacy
            } else {
                PeerKind::RustBond
            },
            capabilities: capabilities.names(),
            node_id: extensions.map(|it| it.node_id).filter(|id| *id != [0; 16]),
            round_trips: self.round_trips,
        }
    }
}
