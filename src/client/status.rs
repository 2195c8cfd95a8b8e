//! How a client and its servers fare, as callers see it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::core::client::{ConnectionState, ServerId};
use crate::core::time::after;
use crate::error::{Error, Result};
use crate::life::Life;

/// Where the client stands with all its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// No server is established.
    Disconnected,
    /// Some are.
    PartiallyConnected {
        /// How many are established.
        connected: usize,
        /// How many there are; one under two names counts once.
        total: usize,
    },
    /// All are.
    FullyConnected,
    /// The client was shut down.
    Closed,
    /// The client's thread panicked: nothing is known any more.
    Failed,
}

/// The states of the servers, for those who wait for them; not on the way of a route.
#[derive(Debug, Default)]
pub(super) struct Published {
    status: Mutex<Status>,
    changed: Condvar,
    /// Of the view.
    generation: AtomicU64,
    /// Of the thread that writes this.
    pub(super) life: Life,
}

/// What the client's thread last said.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) states: BTreeMap<ServerId, ConnectionState>,
    /// How many of them are connected under another name.
    pub(super) twins: usize,
    pub(super) names: BTreeMap<ServerId, String>,
    pub(super) is_closed: bool,
    /// It was closed by a panic.
    has_failed: bool,
}

impl Status {
    pub(super) fn established(&self) -> usize {
        let states = self.states.values();
        states
            .filter(|it| **it == ConnectionState::Established)
            .count()
    }

    /// How many servers there are, each counted once.
    pub(super) fn servers(&self) -> usize {
        self.states.len() - self.twins
    }

    pub(super) fn state(&self) -> ClientState {
        let (connected, total) = (self.established(), self.servers());
        match connected {
            _ if self.has_failed => ClientState::Failed,
            _ if self.is_closed => ClientState::Closed,
            0 => ClientState::Disconnected,
            _ if connected == total => ClientState::FullyConnected,
            _ => ClientState::PartiallyConnected { connected, total },
        }
    }
}

impl Published {
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Changes what is known, and wakes those who wait for that.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Status)) {
        edit(&mut self.status.lock());
        self.changed.notify_all();
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Status) -> T) -> T {
        read(&self.status.lock())
    }

    pub(super) fn close(&self) {
        let has_failed = matches!(self.life.check(), Err(Error::Panicked(_)));
        self.edit(|status| {
            status.is_closed = true;
            status.has_failed = has_failed;
            let states = status.states.values_mut();
            states.for_each(|state| *state = ConnectionState::Closed);
        });
    }

    /// Waits until something is so.
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        is_reached: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        let until = timeout.map(|timeout| after(Instant::now(), timeout));
        let mut status = self.status.lock();
        loop {
            if status.is_closed {
                return Err(self.life.error());
            }
            if is_reached(&status) {
                return Ok(());
            }
            match until {
                Some(until) if self.changed.wait_until(&mut status, until).timed_out() => {
                    return Err(Error::Timeout);
                }
                Some(_) => {}
                None => self.changed.wait(&mut status),
            }
        }
    }
}
