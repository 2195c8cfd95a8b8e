//! What the writer publishes of its state.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::Mutex;

use crate::core::kernel_plan::Counts;
pub use crate::inspect::KernelStatus;

/// The thread's side of [`KernelStatus`].
#[derive(Default)]
pub(super) struct Shared {
    desired: AtomicU64,
    installed: AtomicU64,
    failed: AtomicU64,
    uninstallable: AtomicU64,
    objects: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) resyncs: AtomicU64,
    device_up: AtomicBool,
    in_sync: AtomicBool,
    pub(super) uses_objects: AtomicBool,
    pub(super) running: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn publish(&self, counts: &Counts, device_up: bool, in_sync: bool) {
        self.desired.store(counts.desired as u64, Relaxed);
        self.installed.store(counts.installed as u64, Relaxed);
        self.failed.store(counts.failed as u64, Relaxed);
        self.uninstallable
            .store(counts.uninstallable as u64, Relaxed);
        self.objects.store(counts.objects as u64, Relaxed);
        self.device_up.store(device_up, Relaxed);
        self.in_sync.store(in_sync, Relaxed);
    }

    pub(super) fn set_error(&self, text: String) {
        *self.last_error.lock() = Some(text);
    }

    pub(super) fn snapshot(&self) -> KernelStatus {
        KernelStatus {
            desired: self.desired.load(Relaxed),
            installed: self.installed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            uninstallable: self.uninstallable.load(Relaxed),
            nexthop_objects: self.objects.load(Relaxed),
            messages: self.messages.load(Relaxed),
            batches: self.batches.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
            device_up: self.device_up.load(Relaxed),
            uses_nexthop_objects: self.uses_objects.load(Relaxed),
            in_sync: self.in_sync.load(Relaxed),
            running: self.running.load(Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }
}
