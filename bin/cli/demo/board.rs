//! What a client of the demonstration sees, and waiting for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustbond::{CloseReason, Route, RouteHandler, ServerId, Vni};

use crate::cli::output::print;

/// What one client has been told.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) routes: BTreeSet<(Vni, Route)>,
    /// VNIs whose tables are complete.
    pub(super) synced: BTreeSet<Vni>,
    /// Servers that are established.
    pub(super) servers: BTreeSet<ServerId>,
    removals: usize,
    /// The client's name, once its changes are to be printed.
    echo: Option<&'static str>,
}

/// Keeps what a client is told; clones are handles of the same board.
#[derive(Clone, Default)]
pub(super) struct Board {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Board {
    /// The routes seen at the moment.
    pub(super) fn routes(&self) -> BTreeSet<(Vni, Route)> {
        self.seen().routes.clone()
    }

    /// How many routes were removed so far.
    pub(super) fn removals(&self) -> usize {
        self.seen().removals
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // What a thread that panicked has written is still what was seen.
        let lock = self.shared.0.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_reached`, no longer than `limit`; whether it is.
    pub(super) fn wait(&self, limit: Duration, is_reached: impl Fn(&Seen) -> bool) -> bool {
        let until = Instant::now() + limit;
        let mut seen = self.seen();
        while !is_reached(&seen) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.1.wait_timeout(seen, left);
            seen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Prints each change from here on.
    pub(super) fn echo(&self, name: &'static str) {
        self.seen().echo = Some(name);
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.shared.1.notify_all();
    }
}

impl RouteHandler for Board {
    fn add_route(&self, vni: Vni, route: Route) {
        self.change(|seen| {
            seen.routes.insert((vni, route));
            if let Some(name) = seen.echo {
                echo(format_args!("{name}  + VNI {vni} {route}"));
            }
        });
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        self.change(|seen| {
            seen.routes.remove(&(vni, route));
            seen.removals += 1;
            if let Some(name) = seen.echo {
                echo(format_args!("{name}  - VNI {vni} {route}"));
            }
        });
    }

    fn synced(&self, vni: Vni) {
        self.change(|seen| {
            seen.synced.insert(vni);
        });
    }

    fn server_up(&self, server: ServerId) {
        self.change(|seen| {
            seen.servers.insert(server);
        });
    }

    fn server_down(&self, server: ServerId, _: CloseReason) {
        self.change(|seen| {
            seen.servers.remove(&server);
        });
    }
}

/// Prints a line for whoever still reads; the demonstration itself is over.
fn echo(line: fmt::Arguments<'_>) {
    if let Err(failure) = print(format_args!("{line}\n")) {
        log::error!("{failure}");
    }
}
