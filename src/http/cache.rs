//! Snapshots of the routing table, shared by requests that come at about the same time.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::response::Response;
use crate::core::types::Vni;
use crate::error::Error;
use crate::inspect::{Inspect, Snapshot};

/// Most snapshots in memory, with those that are being sent. A snapshot of a million routes takes
/// about 100 MB.
const SNAPSHOTS_MAX: usize = 4;

/// How long a snapshot of a changing table is used, as a multiple of the time to make it. With any
/// number of requests, making snapshots takes at most a fifth of a core.
const REUSE_FACTOR: u32 = 4;

/// Longest time for which a snapshot of a changing table is used.
const REUSE_MAX: Duration = Duration::from_secs(2);

/// How long a snapshot is kept without a request for it.
pub(crate) const KEEP: Duration = Duration::from_secs(10);

/// The latest snapshots.
#[derive(Debug, Default)]
pub(crate) struct SnapshotCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    kept: Vec<Kept>,
    /// All snapshots that were given out.
    alive: Vec<Weak<Snapshot>>,
}

#[derive(Debug)]
struct Kept {
    /// The VNI of the routes; `None` for all routes.
    vni: Option<Vni>,
    generation: u64,
    made: Instant,
    took: Duration,
    used: Instant,
    snapshot: Arc<Snapshot>,
}

/// A snapshot. It holds at least the changes up to its generation.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) generation: u64,
}

/// Why there is no snapshot.
#[derive(Debug)]
pub(crate) enum NoSnapshot {
    /// [`SNAPSHOTS_MAX`] snapshots are being sent.
    Busy,
    /// The server or client has ended.
    Ended(Error),
}

impl SnapshotCache {
    /// Returns a snapshot that holds the routes of `vni`, or all routes.
    ///
    /// Takes a new snapshot if the table has changed and the last one is not very young. Other
    /// callers wait meanwhile.
    pub(crate) fn get(&self, inspect: &dyn Inspect, vni: Option<Vni>) -> Result<Taken, NoSnapshot> {
        let mut cached = self.0.lock();
        let now = Instant::now();
        cached.forget(now);
        // Read before the snapshot is taken: a change meanwhile makes the snapshot old.
        let generation = inspect.generation();
        let fresh = cached.kept.iter_mut().find(|it| {
            (it.vni.is_none() || it.vni == vni)
                && (it.generation == generation || now - it.made < it.reusable())
        });
        if let Some(fresh) = fresh {
            fresh.used = now;
            return Ok(fresh.take_current());
        }
        cached.kept.retain(|it| it.vni != vni);
        if cached.alive() >= SNAPSHOTS_MAX {
            // Drops the snapshots that are not being sent.
            cached.kept.clear();
        }
        if cached.alive() >= SNAPSHOTS_MAX {
            return Err(NoSnapshot::Busy);
        }
        let snapshot = inspect.snapshot(vni).map_err(NoSnapshot::Ended)?;
        let snapshot = Arc::new(snapshot);
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
        let shared = kept.take_current();
        cached.kept.push(kept);
        Ok(shared)
    }

    /// Drops snapshots without recent requests. Returns whether one is left.
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
    fn take_current(&self) -> Taken {
        Taken {
            snapshot: Arc::clone(&self.snapshot),
            generation: self.generation,
        }
    }

    fn reusable(&self) -> Duration {
        (self.took * REUSE_FACTOR).min(REUSE_MAX)
    }
}

impl NoSnapshot {
    pub(crate) fn response(&self) -> Response {
        match self {
            Self::Busy => Response::try_later(
                "too many routing tables are being sent already; try again later",
            ),
            Self::Ended(error) => Response::ended(error),
        }
    }
}
