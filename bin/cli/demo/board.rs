//! What a client of the demonstration has seen, and how to wait for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustbond::{CloseReason, Route, RouteHandler, ServerId, Vni};

use crate::cli::output::print;

/// What one client has seen.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) routes: BTreeSet<(Vni, Route)>,
    /// VNIs whose tables are complete.
    pub(super) synced: BTreeSet<Vni>,
    /// Servers with an established session.
    pub(super) servers: BTreeSet<ServerId>,
    removals: usize,
    /// The name of the client, if each change is to be printed.
    echo: Option<&'static str>,
}

/// Keeps what a client has seen; clones are handles of the same board.
#[derive(Clone, Default)]
pub(super) struct Board {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Board {
    /// Returns the routes that the client has at the moment.
    pub(super) fn routes(&self) -> BTreeSet<(Vni, Route)> {
        self.seen().routes.clone()
    }

    /// Returns how many routes were removed so far.
    pub(super) fn removals(&self) -> usize {
        self.seen().removals
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // The data is consistent even if a thread panicked.
        let lock = self.shared.0.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_reached`, at most `limit`. Returns whether it was reached.
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

/// Prints a line; a failure is only logged, because the demonstration itself is over.
fn echo(line: fmt::Arguments<'_>) {
    if let Err(failure) = print(format_args!("{line}\n")) {
        log::error!("{failure}");
    }
}
