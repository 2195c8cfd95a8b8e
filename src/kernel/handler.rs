//! A client's routes, straight into the kernel.

use std::sync::Arc;

use super::KernelWriter;
use crate::client::{MetalBondClient, RouteHandler};
use crate::core::client::Event;
use crate::core::types::{Route, Vni};
use crate::inspect::Inspect;

impl MetalBondClient {
    /// As [`Self::inspector`], with what a writer of the client's routes has in the kernel.
    #[must_use]
    pub fn inspector_with(&self, kernel: KernelWriter) -> Arc<dyn Inspect> {
        self.inspector_of(Some(Box::new(move || kernel.stats())))
    }
}

/// Installs what a client receives.
///
/// - Restart: what an earlier process left stays until the client says of every VNI of the
///   kernel table that it is settled: its table is complete, and the servers had time to hear
///   of everything. A VNI that is mapped and never subscribed to is never settled: its kernel table keeps what was found there, unless the caller says
///   [`KernelWriter::synced`] of it.
/// - Lost servers: nothing changes while the client holds their routes. What no
///   server at hand has any more is removed once all of them are settled; without any server
///   all is removed when the stale time is over, and what was only found at start stays.
/// - Unsubscribed VNIs: their routes are removed.
impl RouteHandler for KernelWriter {
    fn add_route(&self, vni: Vni, route: Route) {
        log_event(&Event::RouteAdded(vni, route));
        self.add(vni, route);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        log_event(&Event::RouteRemoved(vni, route));
        self.remove(vni, route);
    }

    fn synced(&self, vni: Vni) {
        log_event(&Event::Synced(vni));
    }

    fn settled(&self, vni: Vni) {
        log_event(&Event::Settled(vni));
        self.synced(vni);
    }
}

/// Logs what a client tells the writer.
pub(super) fn log_event(event: &Event) {
    match event {
        Event::RouteAdded(vni, route) => {
            log::debug!(vni = vni.0; "VNI {vni}: added {route}");
        }
        Event::RouteRemoved(vni, route) => {
            log::debug!(vni = vni.0; "VNI {vni}: removed {route}");
        }
        Event::Synced(vni) => log::info!(vni = vni.0; "VNI {vni}: table complete"),
        Event::Settled(vni) => log::info!(vni = vni.0; "VNI {vni}: settled"),
        Event::NextHopsChanged(..)
        | Event::Current
        | Event::Refused(..)
        | Event::ServerUp(_)
        | Event::ServerDown(..) => {}
    }
}
