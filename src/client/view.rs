//! The client's RIB: the union of what its servers say.
//!
//! The first server that has a route adds it, the last one that loses it removes
//! it. What a lost server said stays, as *stale*, until somebody who is complete
//! says otherwise or the hold time is over.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

use super::events::Change;
use crate::map::{Map, map};
use crate::table::{NextHopId, NextHops};
use crate::types::{Action, Destination, NextHop, NextHopType, Route, Vni};

/// A server, as one bit of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerBit(u32);

impl ServerBit {
    /// How many servers a client may have.
    pub(super) const MAX: usize = u32::BITS as usize;

    /// A bit that is not among those taken.
    pub(super) fn first_free(taken: u32) -> Option<Self> {
        let number = taken.trailing_ones();
        (number < u32::BITS).then(|| Self(1 << number))
    }

    /// The bit itself.
    pub(super) const fn mask(self) -> u32 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Hop {
    id: NextHopId,
    /// The servers that have it now.
    present: u32,
    /// A server that is lost had it.
    stale: bool,
}

/// The next hops of a destination; nearly always one.
#[derive(Debug)]
enum Hops {
    One(Hop),
    Many(Vec<Hop>),
}

impl Hops {
    fn as_slice(&self) -> &[Hop] {
        match self {
            Self::One(hop) => std::slice::from_ref(hop),
            Self::Many(hops) => hops,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Hop] {
        match self {
            Self::One(hop) => std::slice::from_mut(hop),
            Self::Many(hops) => hops,
        }
    }

    fn push(&mut self, hop: Hop) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, hop]),
            Self::Many(hops) => hops.push(hop),
        }
    }

    /// Removes those that nobody has; `false` when none is left.
    fn prune(&mut self) -> bool {
        let is_held = |hop: &Hop| hop.present != 0 || hop.stale;
        match self {
            Self::One(hop) => is_held(hop),
            Self::Many(hops) => {
                hops.retain(is_held);
                if let [last] = hops[..] {
                    *self = Self::One(last);
                }
                !self.as_slice().is_empty()
            }
        }
    }
}

#[derive(Debug)]
struct VniView {
    destinations: Map<Destination, Hops>,
    /// Destinations that this client announces as STANDARD, and how often.
    own: Map<Destination, u32>,
}

/// Everything received, by VNI and destination.
#[derive(Debug)]
pub(super) struct View {
    seed: u64,
    hops: NextHops,
    vnis: Map<Vni, VniView>,
    routes: usize,
}

impl View {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            hops: NextHops::new(seed),
            vnis: map(seed),
            routes: 0,
        }
    }

    /// How many routes are held, suppressed and stale ones among them.
    pub(super) fn len(&self) -> usize {
        self.routes
    }

    /// A server says that it has, or has no longer, a route.
    pub(super) fn update(
        &mut self,
        server: ServerBit,
        (vni, action, route): (Vni, Action, Route),
        changes: &mut Vec<Change>,
    ) {
        match action {
            Action::Add => self.add(server, vni, route, changes),
            Action::Remove => self.remove(server.0, vni, route, changes),
        }
    }

    /// This client withdraws a route that legacy servers may have sent back to it.
    ///
    /// Go MetalBond does so in its initial tables, and does not say when the last
    /// announcer, this client, is gone. An identical route of somebody else's, same
    /// next hop and all, would be lost with it.
    pub(super) fn drop_echo(
        &mut self,
        legacy: impl Iterator<Item = ServerBit>,
        (vni, route): (Vni, Route),
        changes: &mut Vec<Change>,
    ) {
        let servers = legacy.fold(0, |mask, server| mask | server.0);
        self.remove(servers, vni, route, changes);
    }

    fn add(&mut self, server: ServerBit, vni: Vni, route: Route, changes: &mut Vec<Change>) {
        let id = self.hops.hold(&route.next_hop);
        let new = Hop {
            id,
            present: server.0,
            stale: false,
        };
        let view = entry(&mut self.vnis, self.seed, vni);
        match view.destinations.get_mut(&route.destination) {
            Some(hops) => match hops.as_mut_slice().iter_mut().find(|hop| hop.id == id) {
                Some(hop) => {
                    hop.present |= server.0;
                    self.hops.release(id);
                    return;
                }
                None => hops.push(new),
            },
            None => {
                view.destinations.insert(route.destination, Hops::One(new));
            }
        }
        self.routes += 1;
        if !view.suppresses(&route) {
            changes.push(Change::new(vni, Action::Add, route));
        }
    }

    /// Takes a route from a set of servers, and from those that are lost.
    fn remove(&mut self, servers: u32, vni: Vni, route: Route, changes: &mut Vec<Change>) {
        let Some(id) = self.hops.find(&route.next_hop) else {
            return;
        };
        let Some(view) = self.vnis.get_mut(&vni) else {
            return;
        };
        let Some(hops) = view.destinations.get_mut(&route.destination) else {
            return;
        };
        let Some(hop) = hops.as_mut_slice().iter_mut().find(|hop| hop.id == id) else {
            return;
        };
        hop.present &= !servers;
        // A server that is up has the last word against one that is lost.
        hop.stale = false;
        if hop.present != 0 {
            return;
        }
        if !hops.prune() {
            view.destinations.remove(&route.destination);
        }
        self.hops.release(id);
        self.routes -= 1;
        if !view.suppresses(&route) {
            changes.push(Change::new(vni, Action::Remove, route));
        }
        self.drop_if_idle(vni);
    }

    /// A server is lost: what it said of a VNI becomes stale.
    pub(super) fn lose(&mut self, server: ServerBit, vni: Vni) {
        let Some(view) = self.vnis.get_mut(&vni) else {
            return;
        };
        for hops in view.destinations.values_mut() {
            for hop in hops.as_mut_slice() {
                hop.stale |= hop.present & server.0 != 0;
                hop.present &= !server.0;
            }
        }
    }

    /// Drops what is stale in a VNI: somebody complete knows better, or time is up.
    pub(super) fn sweep(&mut self, vni: Vni, changes: &mut Vec<Change>) {
        self.drop_where(vni, changes, |hop| hop.stale = false);
    }

    /// Drops all of a VNI.
    pub(super) fn drop_vni(&mut self, vni: Vni, changes: &mut Vec<Change>) {
        self.drop_where(vni, changes, |hop| {
            hop.present = 0;
            hop.stale = false;
        });
    }

    fn drop_where(&mut self, vni: Vni, changes: &mut Vec<Change>, edit: impl Fn(&mut Hop)) {
        let Some(view) = self.vnis.get_mut(&vni) else {
            return;
        };
        let mut gone = Vec::new();
        view.destinations.retain(|destination, hops| {
            for hop in hops.as_mut_slice() {
                edit(hop);
                if hop.present == 0 && !hop.stale {
                    gone.push((*destination, hop.id));
                }
            }
            hops.prune()
        });
        self.routes -= gone.len();
        for (destination, id) in gone {
            let route = Route::new(destination, self.hops.resolve(id));
            if !view.suppresses(&route) {
                changes.push(Change::new(vni, Action::Remove, route));
            }
            self.hops.release(id);
        }
        self.drop_if_idle(vni);
    }

    fn drop_if_idle(&mut self, vni: Vni) {
        let is_idle = |view: &VniView| view.destinations.is_empty() && view.own.is_empty();
        if self.vnis.get(&vni).is_some_and(is_idle) {
            self.vnis.remove(&vni);
        }
    }

    /// This client announces, or withdraws, a route of its own.
    ///
    /// While it announces a destination as STANDARD, the STANDARD routes that others
    /// announce for it are suppressed: packets would leave the hypervisor that has
    /// the destination, and come back.
    pub(super) fn own(
        &mut self,
        (vni, action, route): (Vni, Action, Route),
        changes: &mut Vec<Change>,
    ) {
        if route.next_hop.hop_type != NextHopType::Standard {
            return;
        }
        let destination = route.destination;
        let view = entry(&mut self.vnis, self.seed, vni);
        let count = view.own.entry(destination).or_insert(0);
        let turned = match action {
            Action::Add => {
                *count += 1;
                (*count == 1).then_some(Action::Remove)
            }
            Action::Remove => {
                *count -= 1;
                (*count == 0).then_some(Action::Add)
            }
        };
        if *count == 0 {
            view.own.remove(&destination);
        }
        let Some(turned) = turned else { return };
        let hops = view.destinations.get(&destination);
        for hop in hops.map_or(&[][..], Hops::as_slice) {
            let next_hop = self.hops.resolve(hop.id);
            if next_hop.hop_type == NextHopType::Standard {
                let route = Route::new(destination, next_hop);
                changes.push(Change::new(vni, turned, route));
            }
        }
        self.drop_if_idle(vni);
    }

    /// The routes of a VNI, each with whether it is suppressed, in no particular order.
    pub(super) fn routes(&self, vni: Vni) -> impl Iterator<Item = (Route, bool)> + '_ {
        let view = self.vnis.get(&vni);
        view.into_iter().flat_map(|view| {
            view.destinations.iter().flat_map(|(destination, hops)| {
                hops.as_slice().iter().map(|hop| {
                    let route = Route::new(*destination, self.hops.resolve(hop.id));
                    (route, view.suppresses(&route))
                })
            })
        })
    }

    /// The VNIs that have routes.
    pub(super) fn vnis(&self) -> Vec<Vni> {
        let mut vnis: Vec<Vni> = self.vnis.keys().copied().collect();
        vnis.sort_unstable();
        vnis
    }

    /// VNIs that are remembered for nothing.
    #[cfg(test)]
    pub(super) fn idle_vnis(&self) -> usize {
        let is_idle = |vni: &&VniView| vni.destinations.is_empty() && vni.own.is_empty();
        self.vnis.values().filter(is_idle).count()
    }

    /// The servers that have a route, as a mask; `None` if it is not held at all.
    pub(super) fn servers_of(
        &self,
        vni: Vni,
        destination: &Destination,
        next_hop: &NextHop,
    ) -> Option<u32> {
        let id = self.hops.find(next_hop)?;
        let hops = self.vnis.get(&vni)?.destinations.get(destination)?;
        let hop = hops.as_slice().iter().find(|hop| hop.id == id)?;
        Some(hop.present)
    }
}

fn entry(vnis: &mut Map<Vni, VniView>, seed: u64, vni: Vni) -> &mut VniView {
    vnis.entry(vni).or_insert_with(|| VniView {
        destinations: map(seed),
        own: map(seed),
    })
}

impl VniView {
    fn suppresses(&self, route: &Route) -> bool {
        route.next_hop.hop_type == NextHopType::Standard
            && self.own.contains_key(&route.destination)
    }
}
