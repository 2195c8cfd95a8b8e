//! What the consumers of a view are told.

use std::sync::Arc;

use super::hops::Hop;
use super::{ConsumerId, Event, EventDetail, View};
use crate::core::client::events::Item;
use crate::core::types::{Destination, NextHop, NextHopType, Route, Vni};

/// Whether a consumer was told all that there is to tell of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    All,
    /// There was no room for more.
    Some,
}

impl View {
    /// In what form the first consumer is told; to be called before there are routes.
    pub(in crate::core::client) fn set_detail(&mut self, detail: EventDetail) {
        if let Some(feed) = self.feeds.get_mut(ConsumerId::FIRST) {
            feed.detail = detail;
        }
    }

    /// One more consumer, who is told of all that is held, and of changes after that;
    /// `None` if the limit is reached.
    pub(in crate::core::client) fn attach(&mut self, detail: EventDetail) -> Option<ConsumerId> {
        let consumer = self.feeds.open(detail)?;
        let feed = self.feeds.get_mut(consumer)?;
        for vni in self.vnis.keys().copied().collect::<Vec<_>>() {
            let destinations = self.vnis.get_mut(&vni).map(|view| &mut view.destinations);
            let entries = destinations.map(|it| it.iter_mut());
            for (destination, hops) in entries.into_iter().flatten() {
                if hops.as_slice().iter().any(Hop::is_held) {
                    *hops.dirty() |= consumer.mask();
                    feed.items.push_back(Item::Destination(vni, *destination));
                }
            }
        }
        self.feeds.push_to(consumer, Event::Current);
        Some(consumer)
    }

    /// A consumer is gone.
    pub(in crate::core::client) fn detach(&mut self, consumer: ConsumerId) {
        if !self.feeds.close(consumer) {
            return;
        }
        for vni in self.vnis() {
            if let Some(view) = self.vnis.get_mut(&vni) {
                view.destinations.retain(|_, hops| {
                    *hops.dirty() &= !consumer.mask();
                    for hop in hops.as_mut_slice() {
                        hop.told &= !consumer.mask();
                    }
                    let is_kept = hops.prune(|id| self.hops.release(id));
                    if !is_kept {
                        self.feeds.bury(*hops.dirty());
                    }
                    is_kept
                });
            }
            self.drop_if_idle(vni);
        }
        self.compact();
    }

    /// Queues an event that is not about a route, for all consumers.
    pub(in crate::core::client) fn push(&mut self, event: &Event) {
        self.feeds.push(event);
        self.compact();
    }

    /// Queues an event that is not about a route, for one consumer.
    pub(in crate::core::client) fn push_to(&mut self, consumer: ConsumerId, event: Event) {
        self.feeds.push_to(consumer, event);
    }

    /// Takes back an event that is not about a route, where it still waits.
    pub(in crate::core::client) fn cancel(&mut self, event: &Event) {
        self.feeds.cancel(event);
        self.compact();
    }

    pub(in crate::core::client) fn has_events(&self, consumer: ConsumerId) -> bool {
        self.feeds.has_events(consumer)
    }

    /// The next events of a consumer, at most `limit` of them.
    pub(in crate::core::client) fn take(
        &mut self,
        consumer: ConsumerId,
        limit: usize,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < limit
            && let Some(feed) = self.feeds.get_mut(consumer)
        {
            match feed.items.pop_front() {
                Some(Item::Other(number)) => events.extend(feed.take_other(number)),
                Some(Item::Destination(vni, destination)) => {
                    self.tell(consumer, vni, &destination, limit, &mut events);
                }
                None => {
                    feed.shrink();
                    break;
                }
            }
        }
        events
    }

    /// Tells a consumer how a destination differs from what it knows.
    fn tell(
        &mut self,
        consumer: ConsumerId,
        vni: Vni,
        destination: &Destination,
        limit: usize,
        events: &mut Vec<Event>,
    ) {
        let Some(feed) = self.feeds.get_mut(consumer) else {
            return;
        };
        let Some(view) = self.vnis.get_mut(&vni) else {
            feed.tombstones -= 1;
            return;
        };
        let is_suppressed = view.suppresses(destination);
        let hops = view.destinations.get_mut(destination);
        let Some(hops) = hops.filter(|hops| hops.stands_in(consumer)) else {
            feed.tombstones -= 1;
            return;
        };
        let next_hops = &self.hops;
        let is_visible = |hop: &Hop| {
            let is_hidden = || next_hops.resolve(hop.id).hop_type == NextHopType::Standard;
            hop.is_held() && !(is_suppressed && is_hidden())
        };
        let mask = consumer.mask();
        let route = |hop: &Hop| Route::new(*destination, next_hops.resolve(hop.id));
        let told = match feed.detail {
            EventDetail::Routes => {
                let mut told = Told::All;
                // What comes before what goes: the destination is not without a route.
                for is_added in [true, false] {
                    for hop in hops.as_mut_slice() {
                        let is_due =
                            is_visible(hop) == is_added && (hop.told & mask != 0) != is_added;
                        if is_due && events.len() >= limit {
                            told = Told::Some;
                        } else if is_due {
                            hop.told ^= mask;
                            events.push(if is_added {
                                Event::RouteAdded(vni, route(hop))
                            } else {
                                Event::RouteRemoved(vni, route(hop))
                            });
                        }
                    }
                }
                told
            }
            EventDetail::NextHops => {
                let mut is_changed = false;
                for hop in hops.as_mut_slice() {
                    if is_visible(hop) != (hop.told & mask != 0) {
                        hop.told ^= mask;
                        is_changed = true;
                    }
                }
                if is_changed {
                    let told = hops.as_slice().iter().filter(|hop| hop.told & mask != 0);
                    let mut set: Vec<NextHop> = told.map(|hop| next_hops.resolve(hop.id)).collect();
                    set.sort_unstable();
                    events.push(Event::NextHopsChanged(vni, *destination, Arc::from(set)));
                }
                Told::All
            }
        };
        match told {
            Told::All => {
                *hops.dirty() &= !mask;
                self.settle(vni, destination);
            }
            Told::Some => feed.items.push_front(Item::Destination(vni, *destination)),
        }
    }

    /// Lets go of tombstones where they are most of a feed.
    pub(super) fn compact(&mut self) {
        while let Some(consumer) = self.feeds.take_sparse() {
            let Some(feed) = self.feeds.get_mut(consumer) else {
                return;
            };
            let mut items = std::mem::take(&mut feed.items);
            let vnis = &mut self.vnis;
            // A destination that was forgotten and came back stands twice: each is seen
            // once, and then marked again.
            let mut mark = |item: &Item, from: bool| match item {
                Item::Other(number) => feed.has_other(*number),
                Item::Destination(vni, destination) => {
                    let view = vnis.get_mut(vni);
                    let hops = view.and_then(|view| view.destinations.get_mut(destination));
                    hops.is_some_and(|hops| {
                        let is_marked = hops.stands_in(consumer);
                        if is_marked == from {
                            *hops.dirty() ^= consumer.mask();
                        }
                        is_marked
                    })
                }
            };
            items.retain(|item| mark(item, true));
            for item in &items {
                mark(item, false);
            }
            items.shrink_to_fit();
            feed.items = items;
            feed.tombstones = 0;
        }
    }
}
