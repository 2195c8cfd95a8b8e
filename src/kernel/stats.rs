//! What the writer publishes of its state.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

use parking_lot::Mutex;

use crate::core::kernel_plan::Counts;
pub use crate::inspect::{KernelRepairs, KernelStatus};

/// Why routes cannot be trusted to be in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    None,
    /// The device does not exist.
    Missing,
    Down,
    /// The device does not encapsulate.
    Unfit,
    /// Somebody undoes what is written.
    Fight,
}

impl Obstacle {
    const ALL: [Self; 5] = [
        Self::None,
        Self::Missing,
        Self::Down,
        Self::Unfit,
        Self::Fight,
    ];

    fn text(self, device: &str) -> Option<String> {
        match self {
            Self::None => None,
            Self::Missing => Some(format!("tunnel device {device} does not exist")),
            Self::Down => Some(format!("tunnel device {device} is down")),
            Self::Unfit => Some(format!("device {device} does not encapsulate")),
            Self::Fight => Some("somebody else removes kernel routes of this client".into()),
        }
    }
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The kernel could not be read or written to.
    Call,
    /// The kernel refused something.
    Refused,
    /// Routes of others stand in the way.
    Shadowed,
    /// Somebody undoes what is written.
    Fight,
    /// A device takes no routes.
    Device,
}

/// What the thread publishes of its state; [`KernelStatus`] is a copy.
#[derive(Default)]
pub(super) struct Gauges {
    desired: AtomicU64,
    installed: AtomicU64,
    settling: AtomicU64,
    waiting: AtomicU64,
    failed: AtomicU64,
    shadowed: AtomicU64,
    strays: AtomicU64,
    uninstallable: AtomicU64,
    unreachable: AtomicU64,
    /// Losses of routes, of nexthop objects, of the device.
    pub(super) repairs: [AtomicU64; 3],
    objects: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) resyncs: AtomicU64,
    /// An [`Obstacle`].
    obstacle: AtomicU8,
    device: Mutex<String>,
    in_sync: AtomicBool,
    pub(super) uses_objects: AtomicBool,
    pub(super) running: AtomicBool,
    /// At the end the routes stay, whatever the settings say.
    pub(super) keeps_routes: AtomicBool,
    /// What is wrong, the newest last; each kind at most once.
    errors: Mutex<Vec<(Trouble, String)>>,
    last_warning: Mutex<Option<String>>,
}

impl Gauges {
    pub(super) fn publish(&self, counts: &Counts, obstacle: Obstacle, in_sync: bool) {
        self.desired.store(counts.desired as u64, Relaxed);
        self.installed.store(counts.installed as u64, Relaxed);
        self.settling.store(counts.unannounced as u64, Relaxed);
        self.waiting.store(counts.waiting as u64, Relaxed);
        self.failed.store(counts.failed as u64, Relaxed);
        self.uninstallable
            .store(counts.uninstallable as u64, Relaxed);
        self.unreachable.store(counts.unreachable as u64, Relaxed);
        self.objects.store(counts.objects as u64, Relaxed);
        self.shadowed.store(counts.shadowed as u64, Relaxed);
        self.strays.store(counts.strays as u64, Relaxed);
        self.obstacle.store(obstacle as u8, Relaxed);
        let was_in_sync = self.in_sync.swap(in_sync, Relaxed);
        if in_sync && !was_in_sync {
            self.errors.lock().clear();
        }
    }

    /// Says what is wrong, in place of what was said of the same kind before.
    pub(super) fn set_error(&self, trouble: Trouble, text: String) {
        let mut errors = self.errors.lock();
        match errors.iter_mut().find(|(kind, _)| *kind == trouble) {
            Some((_, before)) if *before == text => {}
            _ => {
                errors.retain(|(kind, _)| *kind != trouble);
                errors.push((trouble, text));
            }
        }
    }

    /// Says that something is no longer wrong.
    pub(super) fn end_error(&self, trouble: Trouble) {
        self.errors.lock().retain(|(kind, _)| *kind != trouble);
    }

    pub(super) fn set_warning(&self, text: String) {
        *self.last_warning.lock() = Some(text);
    }

    /// Ends a warning, unless another one came after it.
    pub(super) fn end_warning(&self, text: &str) {
        self.last_warning.lock().take_if(|it| it == text);
    }

    pub(super) fn set_device(&self, name: &str) {
        name.clone_into(&mut self.device.lock());
    }

    pub(super) fn snapshot(&self) -> KernelStatus {
        let number = usize::from(self.obstacle.load(Relaxed));
        let obstacle = Obstacle::ALL[number];
        let [routes, objects, device] = &self.repairs;
        KernelStatus {
            desired: self.desired.load(Relaxed),
            installed: self.installed.load(Relaxed),
            settling: self.settling.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            failed: self.failed.load(Relaxed),
            uninstallable: self.uninstallable.load(Relaxed),
            unreachable: self.unreachable.load(Relaxed),
            nexthop_objects: self.objects.load(Relaxed),
            messages: self.messages.load(Relaxed),
            batches: self.batches.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
            shadowed: self.shadowed.load(Relaxed),
            strays: self.strays.load(Relaxed),
            repairs: KernelRepairs {
                routes: routes.load(Relaxed),
                nexthop_objects: objects.load(Relaxed),
                device: device.load(Relaxed),
            },
            device_up: matches!(obstacle, Obstacle::None | Obstacle::Fight),
            obstacle: obstacle.text(&self.device.lock()),
            uses_nexthop_objects: self.uses_objects.load(Relaxed),
            in_sync: self.in_sync.load(Relaxed),
            running: self.running.load(Relaxed),
            last_error: self.errors.lock().last().map(|(_, text)| text.clone()),
            last_warning: self.last_warning.lock().clone(),
        }
    }
}
