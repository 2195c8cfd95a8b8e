//! What the client tells its consumer, kept short when the consumer is slow.
#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::iter_over_hash_type
)]

use std::collections::VecDeque;

use super::ServerId;
use crate::map::{Map, map};
use crate::session::CloseReason;
use crate::types::{Action, Route, Vni};

/// A change of the client's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) vni: Vni,
    pub(crate) action: Action,
    pub(crate) route: Route,
}

impl Change {
    pub(crate) const fn new(vni: Vni, action: Action, route: Route) -> Self {
        Self { vni, action, route }
    }
}

/// What happens at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A route is there.
    RouteAdded(Vni, Route),
    /// A route is gone.
    RouteRemoved(Vni, Route),
    /// The table of a VNI is complete for the first time since the subscription.
    Synced(Vni),
    /// A server's handshake is complete.
    ServerUp(ServerId),
    /// A server's session ended.
    ServerDown(ServerId, CloseReason),
}

/// Events that wait for a consumer, those about routes coalesced by route (law L).
///
/// Holds at most one event for each route that changed, however often it did.
#[derive(Debug)]
pub(super) struct EventQueue {
    /// Where the change of a route stands, by number; the front of `order` has number
    /// `taken`.
    index: Map<(Vni, Route), usize>,
    /// In the order of the first change of each route.
    order: VecDeque<Slot>,
    taken: usize,
    /// Numbers of the events that are not about routes, ascending.
    others: VecDeque<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Change(Change),
    Other(Event),
    /// Two changes that cancelled out, or an event that a later one replaced.
    Gone,
}

impl EventQueue {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            index: map(seed),
            order: VecDeque::new(),
            taken: 0,
            others: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.others.is_empty()
    }

    pub(super) fn push_change(&mut self, change: Change) {
        let key = (change.vni, change.route);
        match self.index.remove(&key) {
            // The consumer has not heard of the opposite, and will not hear of either.
            Some(number) => self.order[number - self.taken] = Slot::Gone,
            None => {
                self.index.insert(key, self.taken + self.order.len());
                self.order.push_back(Slot::Change(change));
            }
        }
        self.compact();
    }

    /// Queues an event that is not about a route; it follows all changes that wait,
    /// and later ones follow it.
    ///
    /// The same event twice is one: of a server that comes and goes, a consumer
    /// that is behind learns where it stands.
    pub(super) fn push(&mut self, event: Event) {
        let about = |event: &Event| match *event {
            Event::ServerUp(server) | Event::ServerDown(server, _) => Some(server),
            Event::Synced(_) | Event::RouteAdded(..) | Event::RouteRemoved(..) => None,
        };
        self.drop_others(|old| {
            *old == event || (about(old).is_some() && about(old) == about(&event))
        });
        self.others.push_back(self.taken + self.order.len());
        self.order.push_back(Slot::Other(event));
        self.compact();
    }

    /// Takes back an event that is not about a route, if it still waits.
    pub(super) fn cancel(&mut self, event: Event) {
        self.drop_others(|old| *old == event);
    }

    fn drop_others(&mut self, which: impl Fn(&Event) -> bool) {
        let (order, taken) = (&mut self.order, self.taken);
        self.others.retain(|number| {
            let slot = &mut order[number - taken];
            let is_dropped = matches!(slot, Slot::Other(event) if which(event));
            if is_dropped {
                *slot = Slot::Gone;
            }
            !is_dropped
        });
    }

    /// Lets go of the slots of what is gone, when they are most of all.
    fn compact(&mut self) {
        let waiting = self.index.len() + self.others.len();
        if self.order.len() <= 64 || self.order.len() <= 2 * waiting {
            return;
        }
        self.order.retain(|slot| !matches!(slot, Slot::Gone));
        self.others.clear();
        for (number, slot) in (self.taken..).zip(&self.order) {
            match slot {
                Slot::Change(change) => {
                    self.index.insert((change.vni, change.route), number);
                }
                Slot::Other(_) => self.others.push_back(number),
                Slot::Gone => {}
            }
        }
    }

    /// The next events, at most `limit` of them.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(limit.min(self.order.len()));
        while events.len() < limit
            && let Some(slot) = self.order.pop_front()
        {
            self.taken += 1;
            match slot {
                Slot::Change(Change { vni, action, route }) => {
                    self.index.remove(&(vni, route));
                    events.push(match action {
                        Action::Add => Event::RouteAdded(vni, route),
                        Action::Remove => Event::RouteRemoved(vni, route),
                    });
                }
                Slot::Other(event) => {
                    self.others.pop_front();
                    events.push(event);
                }
                Slot::Gone => {}
            }
        }
        // A burst must not hold its memory for ever.
        if self.is_empty() && self.index.capacity() > 1 << 16 {
            self.index.shrink_to_fit();
            self.order = VecDeque::new();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::{Destination, NextHop};

    fn route(number: u32) -> Route {
        let hop = NextHop::standard(std::net::Ipv6Addr::LOCALHOST);
        Route::new(Destination::from_ipv4(number.into(), 32), hop)
    }

    #[test]
    fn a_limit_leaves_the_rest_in_order() {
        let mut queue = EventQueue::new(1);
        for number in 0..10 {
            queue.push_change(Change::new(Vni(1), Action::Add, route(number)));
        }
        queue.push(Event::Synced(Vni(1)));
        assert_eq!(queue.take(4).len(), 4);
        queue.push_change(Change::new(Vni(1), Action::Remove, route(5)));
        queue.push_change(Change::new(Vni(1), Action::Remove, route(0)));
        let rest = queue.take(usize::MAX);
        let expected = [4, 6, 7, 8, 9].map(|it| Event::RouteAdded(Vni(1), route(it)));
        assert_eq!(rest[..5], expected);
        let end = [Event::Synced(Vni(1)), Event::RouteRemoved(Vni(1), route(0))];
        assert_eq!(rest[5..], end);
    }

    #[test]
    fn the_queue_amounts_to_all_changes_and_stays_short() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut queue = EventQueue::new(1);
        let mut truth = BTreeSet::new();
        let mut told = BTreeSet::new();
        for _ in 0..20_000 {
            let route = route(random.u32(..50));
            let action = if truth.remove(&route) {
                Action::Remove
            } else {
                truth.insert(route);
                Action::Add
            };
            queue.push_change(Change::new(Vni(1), action, route));
            assert!(queue.order.len() <= 64 + 2 * 50, "one event a route");
            if random.u16(..500) == 0 {
                for event in queue.take(usize::MAX) {
                    let is_news = match event {
                        Event::RouteAdded(_, route) => told.insert(route),
                        Event::RouteRemoved(_, route) => told.remove(&route),
                        _ => false,
                    };
                    assert!(is_news, "{event:?} tells nothing");
                }
                assert_eq!(told, truth);
                assert!(queue.is_empty());
            }
        }
    }
}
