//! What a view looks like; nothing here changes anything.

#[cfg(any(test, feature = "internals"))]
use super::VniView;
use super::destinations::Place;
use super::hops::Hop;
use super::{View, imported};
use crate::core::client::view::ServerBit;
use crate::core::rib::TableSummary;
use crate::core::types::{Destination, NextHop, NextHopType, Route, Vni};

/// How far a walk over all routes is.
#[derive(Clone, Debug)]
pub(crate) struct RouteCursor {
    /// Those to come, the next one last.
    vnis: Vec<Vni>,
    place: Place,
}

/// A route as a walk meets it.
#[derive(Clone, Copy, Debug)]
pub(in crate::core::client) struct Met {
    pub(in crate::core::client) vni: Vni,
    pub(in crate::core::client) route: Route,
    /// The servers that have it, as a mask.
    pub(in crate::core::client) servers: u32,
    pub(in crate::core::client) is_suppressed: bool,
}

impl View {
    /// Is another one after any change.
    pub(in crate::core::client) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many routes a server has.
    pub(in crate::core::client) fn len_of(&self, server: ServerBit) -> usize {
        self.by_server[server.mask().trailing_zeros() as usize]
    }

    /// Whether a route is held.
    pub(in crate::core::client) fn holds(&self, vni: Vni, route: &Route) -> bool {
        self.hop(vni, route).is_some_and(Hop::is_held)
    }

    /// How many copies of a route of a VNI are imported into others.
    pub(in crate::core::client) fn copies(&self, vni: Vni) -> usize {
        self.imports.get(&vni).map_or(0, Vec::len)
    }

    /// The most copies that a route may have.
    pub(in crate::core::client) fn most_copies(&self) -> usize {
        self.imports.values().map(Vec::len).max().unwrap_or(0)
    }

    fn hop(&self, vni: Vni, route: &Route) -> Option<&Hop> {
        let id = self.hops.find(&route.next_hop)?;
        let hops = self.vnis.get(&vni)?.destinations.get(&route.destination)?;
        hops.as_slice().iter().find(|hop| hop.id == id)
    }

    /// The table of a VNI in numbers, suppressed and stale routes among them.
    pub(in crate::core::client) fn summary(&self, vni: Vni) -> TableSummary {
        let view = self.vnis.get(&vni);
        view.map_or_else(TableSummary::default, |view| view.summary)
    }

    /// Begins a walk over the routes of one VNI, or of all.
    pub(in crate::core::client) fn walk(&self, vni: Option<Vni>) -> RouteCursor {
        let mut vnis = vni.map_or_else(|| self.vnis(), |vni| vec![vni]);
        vnis.reverse();
        RouteCursor {
            vnis,
            place: Place::default(),
        }
    }

    /// Goes on with a walk for at most `budget` buckets, a VNI counting as one; whether it is
    /// over.
    pub(in crate::core::client) fn step(
        &self,
        cursor: &mut RouteCursor,
        mut budget: usize,
        mut each: impl FnMut(Met),
    ) -> bool {
        while let Some(&vni) = cursor.vnis.last() {
            if budget == 0 {
                return false;
            }
            if let Some(view) = self.vnis.get(&vni) {
                let next = view
                    .destinations
                    .step(cursor.place, budget, |destination, hops| {
                        let suppresses = view.suppresses(destination);
                        for hop in hops.as_slice().iter().filter(|hop| hop.is_held()) {
                            let route = Route::new(*destination, self.hops.resolve(hop.id));
                            let is_standard = route.next_hop.hop_type == NextHopType::Standard;
                            let servers = match hop.imported {
                                0 => hop.present,
                                _ => self
                                    .servers_of(vni, destination, &route.next_hop)
                                    .unwrap_or(hop.present),
                            };
                            each(Met {
                                vni,
                                route,
                                servers,
                                is_suppressed: suppresses && is_standard,
                            });
                        }
                    });
                if let Some(next) = next {
                    cursor.place = next;
                    return false;
                }
                budget = budget.saturating_sub(view.summary.routes());
            }
            budget = budget.saturating_sub(1);
            cursor.vnis.pop();
            cursor.place = Place::default();
        }
        true
    }

    /// The routes of a VNI, each with whether it is suppressed, in no particular order.
    pub(in crate::core::client) fn routes(
        &self,
        vni: Vni,
    ) -> impl Iterator<Item = (Route, bool)> + '_ {
        let view = self.vnis.get(&vni);
        view.into_iter().flat_map(|view| {
            view.destinations.iter().flat_map(|(destination, hops)| {
                let held = hops.as_slice().iter().filter(|hop| hop.is_held());
                held.map(|hop| {
                    let route = Route::new(*destination, self.hops.resolve(hop.id));
                    let is_standard = route.next_hop.hop_type == NextHopType::Standard;
                    (route, is_standard && view.suppresses(destination))
                })
            })
        })
    }

    /// The VNIs that have routes.
    pub(in crate::core::client) fn vnis(&self) -> Vec<Vni> {
        let mut vnis: Vec<Vni> = self.vnis.keys().copied().collect();
        vnis.sort_unstable();
        vnis
    }

    /// VNIs that are remembered for nothing.
    #[cfg(any(test, feature = "internals"))]
    pub(in crate::core::client) fn idle_vnis(&self) -> usize {
        let is_idle = |vni: &&VniView| vni.destinations.is_empty() && vni.own.is_empty();
        self.vnis.values().filter(is_idle).count()
    }

    /// The servers that have a route, as a mask; `None` if it is not held at all.
    pub(in crate::core::client) fn servers_of(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<u32> {
        let id = self.hops.find(next_hop)?;
        let hops = self.vnis.get(&vni)?.destinations.get(destination)?;
        let mut hops = hops.as_slice().iter();
        let hop = hops.find(|hop| hop.id == id && hop.is_held())?;
        if hop.imported == 0 {
            return Some(hop.present);
        }
        let original = |from: Vni| {
            let unnamed = NextHop {
                target_vni: None,
                ..*next_hop
            };
            let hops = [*next_hop, unnamed];
            let candidates = hops.into_iter().filter(move |hop| {
                imported(from, Route::new(*destination, *hop)).next_hop == *next_hop
            });
            let masks = candidates.filter_map(move |hop| self.servers_of(from, destination, &hop));
            masks.fold(0, |all, mask| all | mask)
        };
        let sources = self.imports.iter().filter(|(_, into)| into.contains(&vni));
        Some(sources.fold(hop.present, |all, (from, _)| all | original(*from)))
    }
}
