//! A client's events, taken on the client's own thread.
//!
//! ```text
//! metalbond-client: view --Command::Events--> bounded channel --> metalbond-netlink
//!        ^                                                             |
//!        +---------------------- room again ---------------------------+
//! ```
//!
//! Events go the same way as the commands of handles, so that a look at all routes
//! ([`KernelWriter::reconfigure`]) and the changes around it keep their order.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use crossbeam_channel::{Sender, TrySendError};

use super::KernelWriter;
use super::room::{Clients, Slot};
use super::writer::Command;
use crate::client::{Builder, ClientWaker, Intake, MetalBondClient, Room};
use crate::core::client::Event;
use crate::error::Result;

/// Batches of a client that may wait for the netlink thread: 1 MiB.
pub(super) const BATCHES: usize = 16;

impl KernelWriter {
    /// Starts a client whose routes are installed.
    ///
    /// The client's thread hands its events to the writer's thread directly; there is no
    /// thread for a handler. While the writer is behind, the client's sessions go on and
    /// events are coalesced by route. [`Builder::detail`] has no effect. Everything else is
    /// as if a clone of this writer were the client's [`RouteHandler`](crate::RouteHandler).
    ///
    /// # Errors
    ///
    /// A setting outside its limits, or a system without threads or descriptors left.
    pub fn install(&self, client: Builder) -> Result<MetalBondClient> {
        client.direct(|waker| self.intake(waker))
    }
}

/// What hands a client's events to the writer, on the client's thread.
pub(super) struct WriterIntake {
    commands: Sender<Command>,
    clients: Arc<Clients>,
    /// Batches that wait for the writer.
    waiting: Arc<AtomicUsize>,
    /// A batch that found the channel full of the commands of others.
    held: Option<Command>,
    is_closed: bool,
    /// Wakes the writer's thread; keeps the writer.
    wake_writer: Box<dyn Fn() + Send + Sync>,
}

impl KernelWriter {
    fn intake(&self, client: ClientWaker) -> WriterIntake {
        let (commands, clients) = self.ends();
        let writer = self.clone();
        WriterIntake::new(commands, clients, client, Box::new(move || writer.wake()))
    }
}

impl WriterIntake {
    pub(super) fn new(
        commands: Sender<Command>,
        clients: Arc<Clients>,
        wake_client: ClientWaker,
        wake_writer: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let waiting = Arc::<AtomicUsize>::default();
        clients.join(&waiting, wake_client);
        Self {
            commands,
            clients,
            waiting,
            held: None,
            is_closed: false,
            wake_writer,
        }
    }

    fn has_room(&mut self) -> bool {
        if let Some(command) = self.held.take() {
            self.send(command);
        }
        self.held.is_none() && self.waiting.load(SeqCst) < BATCHES
    }

    fn send(&mut self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => (self.wake_writer)(),
            Err(TrySendError::Full(command)) => self.held = Some(command),
            Err(TrySendError::Disconnected(_)) => {
                log::debug!("route changes after the shutdown of the kernel writer");
                self.is_closed = true;
            }
        }
    }
}

impl Intake for WriterIntake {
    fn room(&mut self) -> Room {
        let mut has_room = self.has_room();
        if !has_room && !self.is_closed {
            self.clients.await_room();
            has_room = self.has_room();
        }
        match (self.is_closed, has_room) {
            (true, _) => Room::Closed,
            (false, true) => Room::Free,
            (false, false) => Room::Full,
        }
    }

    fn take(&mut self, batch: Vec<Event>) {
        let slot = Slot::take(&self.waiting);
        self.send(Command::Events(batch, slot));
    }
}

impl Drop for WriterIntake {
    fn drop(&mut self) {
        self.clients.leave(&self.waiting);
    }
}
