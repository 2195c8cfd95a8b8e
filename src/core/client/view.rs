//! The client's RIB: the union of what its servers say, and what consumers know of it.
//!
//! The first server that has a route adds it, the last one that loses it removes
//! it. What a lost server said stays, as *stale*, until every server at hand has told
//! its table, or the stale time is over.
//!
//! Each next hop carries which consumers were told of it, and each destination in
//! whose feeds it stands. What to tell is the difference, made when it is taken.

mod consume;
mod destinations;
mod echo;
mod hops;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::events::{ConsumerId, Event, EventDetail, Feeds};
use crate::core::map::{Map, map};
use crate::core::rib::{NextHops, TableSummary};
use crate::core::types::{Action, Destination, NextHop, NextHopType, Route, Vni};
use destinations::Destinations;
pub(super) use destinations::Place;
use echo::Quiet;
pub(super) use read::Met;
pub(crate) use read::RouteCursor;

pub(super) use hops::Age;
use hops::{Hop, Hops};

/// A server, as one bit of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerBit(u32);

impl ServerBit {
    /// How many servers a client may have.
    pub(crate) const MAX: usize = u32::BITS as usize;

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

#[derive(Debug)]
struct VniView {
    destinations: Destinations,
    summary: TableSummary,
    /// Networks that this client announces as STANDARD, and how often. A kernel has no host
    /// bits: to it, `10.1.2.3/24` and `10.1.2.0/24` are one destination.
    own: Map<Destination, u32>,
    /// Something may be stale.
    has_stale: bool,
}

impl VniView {
    /// Whether STANDARD routes of a destination are suppressed.
    fn suppresses(&self, destination: &Destination) -> bool {
        !self.own.is_empty() && self.own.contains_key(&destination.network())
    }
}

/// Everything received, by VNI and destination.
#[derive(Debug)]
pub(super) struct View {
    seed: u64,
    hops: NextHops,
    vnis: Map<Vni, VniView>,
    routes: usize,
    /// Routes that are there only because servers that are lost had them.
    left: usize,
    /// Routes that each server has, by the number of its bit.
    by_server: [usize; ServerBit::MAX],
    /// Is another one after any change.
    generation: u64,
    /// Into which other VNIs the routes of a VNI are copied.
    imports: BTreeMap<Vni, Vec<Vni>>,
    quiet: Quiet,
    feeds: Feeds,
}

/// A route that appeared to or vanished from those that its VNI is imported into.
type Export = (Action, Route);

impl View {
    /// A view with its first consumer.
    pub(super) fn new(seed: u64) -> Self {
        let mut feeds = Feeds::new();
        feeds.open(EventDetail::Routes);
        Self {
            seed,
            hops: NextHops::new(seed),
            vnis: map(seed),
            routes: 0,
            left: 0,
            by_server: [0; ServerBit::MAX],
            generation: 0,
            imports: BTreeMap::new(),
            quiet: Quiet::default(),
            feeds,
        }
    }

    /// Copies the routes of one VNI into another; to be called before there are any.
    pub(super) fn import(&mut self, from: Vni, into: Vni) {
        debug_assert!(self.routes == 0 && from != into);
        let targets = self.imports.entry(from).or_default();
        if !targets.contains(&into) {
            targets.push(into);
        }
    }

    /// How many routes are held, suppressed and stale ones among them.
    pub(super) fn len(&self) -> usize {
        self.routes
    }

    /// A server says that it has, or has no longer, a route. `vouches`: whether it has the
    /// last word against servers that are lost; asked only where that matters.
    pub(super) fn update(
        &mut self,
        server: ServerBit,
        (vni, action, route): (Vni, Action, Route),
        vouches: impl FnOnce() -> bool,
    ) {
        match action {
            Action::Add => self.add(vni, &route, |hop| {
                hop.present |= server.0;
                hop.speak();
            }),
            Action::Remove => self.change(vni, &route, |hop| {
                hop.present &= !server.0;
                if hop.is_stale() && vouches() {
                    hop.end_stale();
                }
            }),
        }
    }

    /// Makes sure that a route has an entry, and edits that.
    fn add(&mut self, vni: Vni, route: &Route, edit: impl FnOnce(&mut Hop)) {
        let id = self.hops.hold(&route.next_hop);
        let view = entry(&mut self.vnis, self.seed, vni);
        match view.destinations.get_mut(&route.destination) {
            Some(hops) if hops.has(id) => self.hops.release(id),
            Some(hops) => hops.push(Hop::new(id)),
            None => {
                let hops = Hops::new(Hop::new(id));
                view.destinations.insert(route.destination, hops);
            }
        }
        self.change(vni, route, edit);
    }

    /// Edits the entry of a route, if there is one, and does what follows from that.
    fn change(&mut self, vni: Vni, route: &Route, edit: impl FnOnce(&mut Hop)) {
        let (Some(id), Some(view)) = (self.hops.find(&route.next_hop), self.vnis.get_mut(&vni))
        else {
            return;
        };
        let is_suppressed =
            route.next_hop.hop_type == NextHopType::Standard && view.suppresses(&route.destination);
        let Some(hops) = view.destinations.get_mut(&route.destination) else {
            return;
        };
        let Some(hop) = hops.get_mut(id) else {
            return;
        };
        let (was_held, was_native, before) = (hop.is_held(), hop.is_native(), hop.present);
        let was_left = hop.is_left();
        edit(hop);
        let (is_held, is_native) = (hop.is_held(), hop.is_native());
        self.left = self.left + usize::from(hop.is_left()) - usize::from(was_left);
        count_servers(&mut self.by_server, before, hop.present);
        self.generation += 1;
        match (was_held, is_held) {
            (false, true) => view.summary.add(route),
            (true, false) => view.summary.remove(route),
            (true, true) | (false, false) => {}
        }
        self.routes = self.routes + usize::from(is_held) - usize::from(was_held);
        if is_held != was_held && !is_suppressed {
            self.feeds.mark(hops.dirty(), vni, &route.destination);
        }
        if !is_held {
            self.settle(vni, &route.destination);
        }
        if is_native != was_native && !is_suppressed {
            self.export(vni, [(action(is_native), *route)]);
        }
        self.compact();
    }

    /// Forgets what neither is held nor was told, at a destination.
    fn settle(&mut self, vni: Vni, destination: &Destination) {
        let Some(view) = self.vnis.get_mut(&vni) else {
            return;
        };
        if let Some(hops) = view.destinations.get_mut(destination)
            && !hops.prune(|id| self.hops.release(id))
        {
            self.feeds.bury(*hops.dirty());
            view.destinations.remove(destination);
        }
        self.drop_if_idle(vni);
    }

    /// Tells the VNIs that import another what that one gained or lost.
    fn export(&mut self, from: Vni, exports: impl IntoIterator<Item = Export>) {
        let Some(targets) = self.imports.get(&from) else {
            return;
        };
        let targets = targets.clone();
        for (action, route) in exports {
            let route = imported(from, route);
            for &into in &targets {
                match action {
                    Action::Add => self.add(into, &route, |hop| hop.imported += 1),
                    Action::Remove => self.change(into, &route, |hop| hop.imported -= 1),
                }
            }
        }
    }

    /// A server is lost: what it said of a VNI becomes stale. Returns whether it said anything.
    /// `echoes`: it may have sent back what this client announces.
    pub(super) fn lose(&mut self, server: ServerBit, vni: Vni, age: Age, echoes: bool) -> bool {
        let Some(view) = self.vnis.get_mut(&vni) else {
            return false;
        };
        let mut is_any = false;
        self.generation += 1;
        for (_, hops) in view.destinations.iter_mut() {
            for hop in hops.as_mut_slice() {
                if hop.present & server.0 != 0 {
                    count_servers(&mut self.by_server, server.0, 0);
                    hop.present &= !server.0;
                    hop.set_stale(age, echoes);
                    self.left += usize::from(hop.is_left());
                    is_any = true;
                }
            }
        }
        view.has_stale |= is_any;
        is_any
    }

    /// How many routes are there only because servers that are lost had them.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// How many VNIs have something stale.
    pub(super) fn stale_vnis(&self) -> usize {
        self.vnis.values().filter(|view| view.has_stale).count()
    }

    /// Drops what is stale in a VNI: the servers at hand know better.
    pub(super) fn sweep(&mut self, vni: Vni) {
        self.drop_where(vni, Hop::end_stale);
    }

    /// Drops what is stale in a VNI and of one age: its time is up. Returns how many routes went.
    pub(super) fn expire(&mut self, vni: Vni, age: Age) -> usize {
        let before = self.routes;
        self.drop_where(vni, |hop| hop.expire(age));
        before - self.routes
    }

    /// Drops one route of a VNI that is there only because a server had it that was lost then.
    /// `place`: how far the walk is that looks for them. Returns `false` at its end.
    pub(super) fn drop_left(&mut self, vni: Vni, age: Age, place: &mut Place) -> bool {
        while let Some(view) = self.vnis.get(&vni) {
            let mut found = None;
            let next = view.destinations.step(*place, 1, |destination, hops| {
                let mut hops = hops.as_slice().iter();
                let hop = hops.find(|hop| hop.is_left() && hop.is_of(age));
                found = hop.map(|hop| Route::new(*destination, self.hops.resolve(hop.id)));
            });
            if let Some(route) = found {
                self.change(vni, &route, Hop::end_stale);
                return true;
            }
            let Some(next) = next else { return false };
            *place = next;
        }
        false
    }

    /// Drops all that servers said of a VNI.
    pub(super) fn drop_vni(&mut self, vni: Vni) {
        self.drop_where(vni, |hop| {
            hop.present = 0;
            hop.end_stale();
        });
    }

    /// Edits all entries of a VNI in a way that makes none of them held or stale.
    fn drop_where(&mut self, vni: Vni, edit: impl Fn(&mut Hop)) {
        let Some(view) = self.vnis.get_mut(&vni) else {
            return;
        };
        let is_imported = self.imports.contains_key(&vni);
        let mut exports = Vec::new();
        self.generation += 1;
        let VniView {
            destinations,
            own,
            summary,
            has_stale,
        } = view;
        *has_stale = false;
        destinations.retain(|destination, hops| {
            let is_suppressed = !own.is_empty() && own.contains_key(&destination.network());
            let mut is_changed = false;
            for hop in hops.as_mut_slice() {
                let (was_held, was_native, before) = (hop.is_held(), hop.is_native(), hop.present);
                self.left -= usize::from(hop.is_left());
                edit(hop);
                self.left += usize::from(hop.is_left());
                *has_stale |= hop.is_stale();
                count_servers(&mut self.by_server, before, hop.present);
                let is_gone = was_native && !hop.is_native();
                if !is_gone {
                    continue;
                }
                let next_hop = self.hops.resolve(hop.id);
                if was_held && !hop.is_held() {
                    self.routes -= 1;
                    summary.remove(&Route::new(*destination, next_hop));
                }
                if is_suppressed && next_hop.hop_type == NextHopType::Standard {
                    continue;
                }
                is_changed |= !hop.is_held();
                if is_imported {
                    exports.push((Action::Remove, Route::new(*destination, next_hop)));
                }
            }
            if is_changed {
                self.feeds.mark(hops.dirty(), vni, destination);
            }
            let is_kept = hops.prune(|id| self.hops.release(id));
            if !is_kept {
                self.feeds.bury(*hops.dirty());
            }
            is_kept
        });
        self.drop_if_idle(vni);
        self.export(vni, exports);
        self.compact();
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
    pub(super) fn own(&mut self, (vni, action, route): (Vni, Action, Route)) {
        if route.next_hop.hop_type != NextHopType::Standard {
            return;
        }
        let network = route.destination.network();
        self.generation += 1;
        let view = entry(&mut self.vnis, self.seed, vni);
        let count = view.own.entry(network).or_insert(0);
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
            view.own.remove(&network);
        }
        let mut exports = Vec::new();
        let turned = turned.map(|turned| (turned, view.destinations.of_network(network)));
        let (turned, destinations) = turned.unwrap_or((Action::Add, Vec::new()));
        for destination in destinations {
            let Some(hops) = view.destinations.get_mut(&destination) else {
                continue;
            };
            let mut is_changed = false;
            for hop in hops.as_mut_slice().iter().filter(|hop| hop.is_held()) {
                let next_hop = self.hops.resolve(hop.id);
                if next_hop.hop_type == NextHopType::Standard {
                    is_changed = true;
                    let route = Route::new(destination, next_hop);
                    exports.extend(hop.is_native().then_some((turned, route)));
                }
            }
            if is_changed {
                self.feeds.mark(hops.dirty(), vni, &destination);
            }
        }
        self.drop_if_idle(vni);
        self.export(vni, exports);
        self.compact();
    }
}

/// A route of one VNI as it appears in another: its packets still go to the first.
fn imported(from: Vni, route: Route) -> Route {
    let own = std::num::NonZeroU32::new(from.0);
    let next_hop = NextHop {
        target_vni: route.next_hop.target_vni.or(own),
        ..route.next_hop
    };
    Route::new(route.destination, next_hop)
}

const fn action(is_there: bool) -> Action {
    if is_there {
        Action::Add
    } else {
        Action::Remove
    }
}

fn entry(vnis: &mut Map<Vni, VniView>, seed: u64, vni: Vni) -> &mut VniView {
    vnis.entry(vni).or_insert_with(|| VniView {
        destinations: Destinations::new(seed),
        summary: TableSummary::default(),
        own: map(seed),
        has_stale: false,
    })
}

/// A route that one set of servers had is had by another.
fn count_servers(counts: &mut [usize; ServerBit::MAX], before: u32, after: u32) {
    let mut changed = before ^ after;
    while changed != 0 {
        let bit = changed.trailing_zeros();
        let count = &mut counts[bit as usize];
        if after & (1 << bit) == 0 {
            *count -= 1;
        } else {
            *count += 1;
        }
        changed &= changed - 1;
    }
}
