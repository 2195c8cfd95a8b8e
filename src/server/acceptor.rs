//! The thread that accepts connections and deals them out to the workers.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::worker::Mail;
use crate::net::{Mailbox, Postbox};
use crate::table::PeerId;

/// How long accepting rests when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);

/// The only thing to tell an acceptor: to stop.
pub(super) struct Stop;

pub(super) struct Acceptor {
    poll: Poll,
    mailbox: Mailbox<Stop>,
    listener: mio::net::TcpListener,
    workers: Vec<Postbox<Mail>>,
    next: u32,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        workers: Vec<Postbox<Mail>>,
    ) -> io::Result<(Self, Postbox<Stop>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let acceptor = Self {
            poll,
            mailbox,
            listener,
            workers,
            next: 0,
        };
        Ok((acceptor, postbox))
    }

    /// Accepts until told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(4);
        let mut timeout = None;
        loop {
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("waiting for connections: {error}");
            }
            self.mailbox.rearm();
            if self.mailbox.take().is_some() {
                return;
            }
            timeout = match self.accept_all() {
                Ok(()) => None,
                Err(error) => {
                    log::warn!("accepting connections pauses: {error}");
                    Some(PAUSE)
                }
            };
        }
    }

    /// Accepts all that wait. An error is the system's lack of something, and passes.
    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => {
                    let peer = PeerId(self.next);
                    self.next = match self.next.wrapping_add(1) {
                        next if PeerId(next) == PeerId::NOBODY => 0,
                        next => next,
                    };
                    let worker = peer.0 as usize % self.workers.len();
                    let mail = Mail::Accepted {
                        peer,
                        stream: stream.into(),
                        address,
                    };
                    if !self.workers[worker].post(mail, 1) {
                        log::trace!("worker {worker} is gone");
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    // The connection broke before it was accepted (accept(2)).
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset => {}
                    _ => return Err(error),
                },
            }
        }
    }
}
