//! Snapshots, shared by those who ask at about the same time.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::api::{Response, Status};
use crate::core::types::Vni;
use crate::inspect::{Inspect, Snapshot};

/// Snapshots in memory at one time, answers that are being sent among them; about 100 MB each
/// for a million routes.
const SNAPSHOTS_MAX: usize = 4;

/// How old a snapshot of a changing table may be, in times of what it took to make it: so many
/// requests may come, making snapshots takes a fifth of a core.
const REUSE_FACTOR: u32 = 4;

/// How old it may be in any case.
const REUSE_MAX: Duration = Duration::from_secs(2);

/// How long a snapshot is kept that nobody asks for.
pub(crate) const KEEP: Duration = Duration::from_secs(10);

/// The latest snapshots.
#[derive(Debug, Default)]
pub(crate) struct SnapshotCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    kept: Vec<Kept>,
    /// All that were given out.
    alive: Vec<Weak<Snapshot>>,
}

#[derive(Debug)]
struct Kept {
    /// Of which VNI; none: of all.
    vni: Option<Vni>,
    generation: u64,
    made: Instant,
    took: Duration,
    used: Instant,
    snapshot: Arc<Snapshot>,
}

/// A snapshot, and the generation that it is at least of.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) generation: u64,
}

/// As many snapshots are being sent as may be.
#[derive(Debug)]
pub(crate) struct Busy;

impl SnapshotCache {
    /// A snapshot that holds the routes of `vni`, or all.
    ///
    /// Takes a new one if the table has changed, unless the last one is very young; others
    /// that ask meanwhile wait for it.
    pub(crate) fn get(&self, inspect: &dyn Inspect, vni: Option<Vni>) -> Result<Shared, Busy> {
        let mut cached = self.0.lock();
        let now = Instant::now();
        cached.forget(now);
        // Before the snapshot: what changes while it is taken makes it old.
        let generation = inspect.generation();
        let fresh = cached.kept.iter_mut().find(|it| {
            (it.vni.is_none() || it.vni == vni)
                && (it.generation == generation || now - it.made < it.reusable())
        });
        if let Some(fresh) = fresh {
            fresh.used = now;
            return Ok(fresh.share());
        }
        cached.kept.retain(|it| it.vni != vni);
        if cached.alive() >= SNAPSHOTS_MAX {
            // Those of which nothing is being sent.
            cached.kept.clear();
        }
        if cached.alive() >= SNAPSHOTS_MAX {
            return Err(Busy);
        }
        let snapshot = Arc::new(inspect.snapshot(vni));
        let made = Instant::now();
        cached.alive.push(Arc::downgrade(&snapshot));
        let kept = Kept {
            vni,
            generation,
            made,
            took: made - now,
            used: made,
            snapshot,
        };
        let shared = kept.share();
        cached.kept.push(kept);
        Ok(shared)
    }

    /// Lets go of what nobody asked for lately; whether something is left.
    pub(crate) fn forget_unused(&self) -> bool {
        let mut cached = self.0.lock();
        cached.forget(Instant::now());
        !cached.kept.is_empty()
    }
}

impl Cached {
    fn forget(&mut self, now: Instant) {
        self.kept.retain(|it| now - it.used < KEEP);
    }

    fn alive(&mut self) -> usize {
        self.alive.retain(|it| it.strong_count() > 0);
        self.alive.len()
    }
}

impl Kept {
    fn share(&self) -> Shared {
        Shared {
            snapshot: Arc::clone(&self.snapshot),
            generation: self.generation,
        }
    }

    fn reusable(&self) -> Duration {
        (self.took * REUSE_FACTOR).min(REUSE_MAX)
    }
}

impl Busy {
    pub(crate) fn response(&self) -> Response {
        let text = "as many tables are being sent as may be at one time; try again later";
        let mut response = Response::problem(Status::ServiceUnavailable, text);
        response.headers.push(("Retry-After", "1".into()));
        response
    }
}
