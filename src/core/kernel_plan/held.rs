//! Devices that take no routes: what leads by them waits.

use std::collections::BTreeSet;

use super::{Plan, State};

impl Plan {
    /// Holds back the routes by these devices; see [`super::Hop::device`]. Those that the kernel
    /// refused meanwhile wait with the others.
    ///
    /// A reading from nothing follows, which plans those of the devices that came.
    pub(crate) fn hold(&mut self, devices: BTreeSet<u8>) {
        self.held = devices;
        let Self {
            refused,
            store,
            tables,
            held,
            ..
        } = self;
        refused.retain(|id| {
            let state = store.get(id);
            state.is_some_and(|it| !held.contains(&tables[usize::from(it.table)].device))
        });
    }

    /// Whether a device takes no routes.
    pub(super) fn is_held(&self, device: u8) -> bool {
        self.held.contains(&device)
    }

    /// Whether a destination leads by a device that takes no routes.
    pub(super) fn awaits_device(&self, state: State) -> bool {
        self.is_held(self.tables[usize::from(state.table)].device)
    }
}
