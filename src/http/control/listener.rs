//! The listener's thread.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::connection;
use super::context::Context;
use crate::http::cache::KEEP;
use crate::net::{Bound, MAILBOX_WEIGHT, Mailbox, Postbox};

/// Most connections, each with a thread. Others are turned away.
const CONNECTIONS_MAX: usize = 16;

/// Time for connections to end by themselves: a monitor still writes its last line.
const GRACE: Duration = Duration::from_millis(500);

/// Pause of accepting after the system had no descriptor or thread left.
const PAUSE: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);

/// The only message to the thread: it ends.
#[derive(Debug)]
pub(super) struct Stop;

/// A connection that is being served.
struct Open {
    /// To wake its thread, which may wait for the socket.
    stream: UnixStream,
    thread: JoinHandle<()>,
}

pub(super) struct Listener {
    poll: Poll,
    mailbox: Mailbox<Stop>,
    bound: Bound,
    context: Arc<Context>,
    open: Vec<Open>,
    /// Each thread has a clone. Nothing is ever sent.
    is_open: Sender<()>,
    are_closed: Receiver<()>,
}

impl Listener {
    pub(super) fn new(bound: Bound, context: Context) -> io::Result<(Self, Postbox<Stop>)> {
        let poll = Poll::new()?;
        let (mailbox, postbox) = Mailbox::new(&poll, WAKE, MAILBOX_WEIGHT)?;
        let descriptor = bound.listener.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), LISTENER, Interest::READABLE)?;
        let (is_open, are_closed) = bounded(0);
        let listener = Self {
            poll,
            mailbox,
            bound,
            context: Arc::new(context),
            open: Vec::new(),
            is_open,
            are_closed,
        };
        Ok((listener, postbox))
    }

    /// Accepts until it receives [`Stop`].
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(2);
        let mut wait = None;
        loop {
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                log::error!("waiting for control connections: {error}");
            }
            self.mailbox.rearm();
            if self.mailbox.take().is_some() {
                break;
            }
            let pause = self.accept_all();
            self.open.retain(|it| !it.thread.is_finished());
            // An open connection may fill the cache.
            let is_idle = !self.context.cache.forget_unused() && self.open.is_empty();
            wait = pause.or_else(|| (!is_idle).then_some(KEEP));
        }
        self.stop();
    }

    /// Accepts all that wait. Returns the pause before the next try, if there is one.
    fn accept_all(&mut self) -> Option<Duration> {
        loop {
            let started = match self.bound.listener.accept() {
                Ok((stream, _)) => self.start(stream),
                Err(error) => Err(error),
            };
            match started {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return None,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        log::warn!("control connections pause: {error}");
                        return Some(PAUSE);
                    }
                },
            }
        }
    }

    fn start(&mut self, stream: UnixStream) -> io::Result<()> {
        self.open.retain(|it| !it.thread.is_finished());
        if self.open.len() >= CONNECTIONS_MAX {
            connection::turn_away(&stream);
            return Ok(());
        }
        stream.set_nonblocking(false)?;
        let kept = stream.try_clone()?;
        let context = Arc::clone(&self.context);
        let is_open = self.is_open.clone();
        let thread = std::thread::Builder::new()
            .name("metalbond-request".into())
            .spawn(move || {
                connection::serve(&stream, &context);
                drop(is_open);
            })?;
        self.open.push(Open {
            stream: kept,
            thread,
        });
        Ok(())
    }

    fn stop(self) {
        let Self {
            open,
            context,
            is_open,
            are_closed,
            ..
        } = self;
        drop(is_open);
        context.stop();
        // A socket that is closed already needs no shutdown.
        for it in &open {
            drop(it.stream.shutdown(Shutdown::Read));
        }
        // The last thread to end disconnects the channel, which ends this wait.
        let _: Result<(), _> = are_closed.recv_timeout(GRACE);
        for it in &open {
            drop(it.stream.shutdown(Shutdown::Both));
        }
        for it in open {
            if it.thread.join().is_err() {
                log::error!("a thread of a control connection had panicked");
            }
        }
    }
}
