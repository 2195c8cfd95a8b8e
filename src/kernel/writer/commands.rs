//! What the writer is asked for, and what clients were told.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use super::{Change, Command, DRAIN, Ending, Writer};
use crate::core::client::Event;
use crate::core::kernel_plan::{Doubtful, MAX_HOPS};
use crate::core::types::{Route, Vni};
use crate::kernel::handler::log_event;
use crate::kernel::socket::Netlink;

impl<N: Netlink> Writer<N> {
    /// Takes commands. Returns whether there may be more.
    pub(super) fn drain(&mut self) -> bool {
        let has_more = self.take_commands();
        self.clients.wake();
        has_more
    }

    fn take_commands(&mut self) -> bool {
        let mut taken = 0;
        while taken < DRAIN {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(error) => {
                    self.orphaned = error.is_disconnected();
                    return false;
                }
            };
            taken += 1;
            match command {
                Command::Add(vni, route) => self.add(vni, route),
                Command::Remove(vni, route) => self.remove(vni, route),
                Command::Synced(vni) => self.plan.synced(vni),
                Command::Events(events, _slot) => {
                    taken += events.len();
                    events.into_iter().for_each(|event| self.told(event));
                }
                Command::Reconfigure(change) => self.reconfigure(*change),
                Command::Received(vni, routes) => {
                    let removed = self.removed.remove(&vni).unwrap_or_default();
                    for route in routes.iter().filter(|it| !removed.contains(it)) {
                        self.want(vni, route);
                    }
                }
                Command::Flush(reply) => {
                    self.flushes.push(reply);
                    return false;
                }
                Command::Shutdown(reply, deadline) => {
                    self.ending = Some(Ending { reply, deadline });
                    self.config.cleanup_on_exit &= !self.gauges.keeps_routes.load(Relaxed);
                    if self.config.cleanup_on_exit {
                        self.plan.clear();
                    }
                    return false;
                }
            }
        }
        true
    }

    fn add(&mut self, vni: Vni, route: Route) {
        if let Some(removed) = self.removed.get_mut(&vni) {
            removed.remove(&route);
        }
        self.want(vni, &route);
    }

    fn want(&mut self, vni: Vni, route: &Route) {
        let Some(doubtful) = self.plan.add(vni, route) else {
            return;
        };
        if !self.now.is_some_and(|now| self.doubts.admits(now)) {
            return;
        }
        let text = match doubtful {
            Doubtful::NextHop(reason) => {
                format!("VNI {vni}: {route} is not installed: no tunnel can lead to {reason}")
            }
            Doubtful::Shared(other) => format!(
                "VNI {vni} and VNI {other} both announce {} into one table; the routes of VNI {} \
                 are used. Map them to different tables",
                route.destination.prefix,
                vni.min(other)
            ),
            Doubtful::TooMany => format!(
                "VNI {vni}: {} has more than {MAX_HOPS} next hops; those with the {MAX_HOPS} \
                 lowest addresses are used",
                route.destination.prefix
            ),
        };
        log::warn!(vni = vni.0; "kernel routes: {text}");
        self.gauges.set_warning(text);
    }

    fn remove(&mut self, vni: Vni, route: Route) {
        if let Some(removed) = self.removed.get_mut(&vni) {
            removed.insert(route);
        }
        self.plan.remove(vni, &route);
    }

    /// Takes an event of a client.
    fn told(&mut self, event: Event) {
        log_event(&event);
        match event {
            Event::RouteAdded(vni, route) => self.add(vni, route),
            Event::RouteRemoved(vni, route) => self.remove(vni, route),
            Event::Settled(vni) => self.plan.synced(vni),
            // Not about the kernel, or in a form that the client does not use here.
            Event::NextHopsChanged(..)
            | Event::Synced(_)
            | Event::Current
            | Event::Refused(..)
            | Event::ServerUp(_)
            | Event::ServerDown(..) => {}
        }
    }

    fn reconfigure(&mut self, change: Change) {
        self.config.check_interval = change.check_interval;
        self.config.cleanup_on_exit = change.cleanup_on_exit;
        let awaited = change.awaited.into_iter();
        self.removed = awaited.map(|vni| (vni, BTreeSet::new())).collect();
        self.plan.remap(change.scope);
        self.is_remapped = true;
    }
}
