//! What all connections of the control socket use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Actions;
use crate::http::cache::SnapshotCache;
use crate::inspect::Inspect;

pub(super) struct Context {
    pub(super) inspect: Arc<dyn Inspect>,
    pub(super) actions: Actions,
    pub(super) cache: SnapshotCache,
    is_stopping: AtomicBool,
}

impl Context {
    pub(super) fn new(inspect: Arc<dyn Inspect>, actions: Actions) -> Self {
        Self {
            inspect,
            actions,
            cache: SnapshotCache::default(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Tells all connections to end.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Returns whether connections should end.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}
