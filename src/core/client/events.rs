//! What the client tells its consumers, kept short when one is slow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ServerId;
use super::status::Refused;
use crate::core::session::CloseReason;
use crate::core::types::{Destination, NextHop, Route, Vni};

/// What happens at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A route is there.
    RouteAdded(Vni, Route),
    /// A route is gone.
    RouteRemoved(Vni, Route),
    /// The next hops of a destination changed: all that it has, in order; none if the
    /// destination is gone. Comes instead of the two above with
    /// [`EventDetail::NextHops`].
    NextHopsChanged(Vni, Destination, Arc<[NextHop]>),
    /// The table of a VNI is complete for the first time since the subscription, those
    /// of the VNIs that are imported into it and subscribed to among it.
    ///
    /// One server has told all of it, and so have the others at hand: those that are
    /// established or shake hands, that are tried for the first time, or that were lost while
    /// they told it. They are waited for as long as
    /// [`stale_time`](crate::ClientConfig::stale_time).
    Synced(Vni),
    /// What a VNI does not have, nobody has: it is synced, and every server at hand has had
    /// announcers for [`settle_time`](crate::ClientConfig::settle_time). Comes once since the
    /// subscription. What an earlier process left may be removed.
    Settled(Vni),
    /// All routes that were there when this consumer began have been told. Comes once, and
    /// only to consumers of [`MetalBondClient::watch`](crate::MetalBondClient::watch).
    Current,
    /// A server refused something in a VNI, for the first time in its session; the text says
    /// why. A VNI whose subscription it refused does not wait for this server.
    Refused(ServerId, Vni, Refused, Arc<str>),
    /// A server's handshake is complete.
    ServerUp(ServerId),
    /// A server's session ended.
    ServerDown(ServerId, CloseReason),
}

/// In what form a consumer is told of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventDetail {
    /// Route by route: [`Event::RouteAdded`], [`Event::RouteRemoved`].
    #[default]
    Routes,
    /// Destination by destination: [`Event::NextHopsChanged`].
    NextHops,
}

/// A consumer of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerId {
    slot: u8,
    /// How many consumers there were before it: a slot that is free again is given to another.
    number: u64,
}

impl ConsumerId {
    /// The one that a client is made with.
    pub(crate) const FIRST: Self = Self { slot: 0, number: 0 };

    /// Its bit in a mask of consumers.
    pub(crate) const fn mask(self) -> u8 {
        1 << self.slot
    }
}

/// What waits for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Something about this destination is to be compared with what was told; unless
    /// its entry says otherwise, then this is a tombstone.
    Destination(Vni, Destination),
    /// An event of this number; a tombstone if there is none.
    Other(u64),
}

/// What waits for one consumer, in order.
///
/// 24 bytes for each destination that changed, however often it did: what to tell
/// is read from the view at the moment it is taken (law L).
#[derive(Debug)]
pub(crate) struct Feed {
    consumer: ConsumerId,
    pub(crate) detail: EventDetail,
    pub(crate) items: VecDeque<Item>,
    /// How many of the items mean nothing any more.
    pub(crate) tombstones: usize,
    others: BTreeMap<u64, Event>,
    next_other: u64,
}

impl Feed {
    fn new(consumer: ConsumerId, detail: EventDetail) -> Self {
        Self {
            consumer,
            detail,
            items: VecDeque::new(),
            tombstones: 0,
            others: BTreeMap::new(),
            next_other: 0,
        }
    }

    fn push(&mut self, event: Event) {
        let about = |event: &Event| match *event {
            Event::ServerUp(server) | Event::ServerDown(server, _) => Some(server),
            _ => None,
        };
        self.cancel(|old| *old == event || (about(old).is_some() && about(old) == about(&event)));
        self.items.push_back(Item::Other(self.next_other));
        self.others.insert(self.next_other, event);
        self.next_other += 1;
    }

    fn cancel(&mut self, which: impl Fn(&Event) -> bool) {
        let before = self.others.len();
        self.others.retain(|_, event| !which(event));
        self.tombstones += before - self.others.len();
    }

    /// The event of a number; `None` if it was taken back.
    pub(crate) fn take_other(&mut self, number: u64) -> Option<Event> {
        let event = self.others.remove(&number);
        self.tombstones -= usize::from(event.is_none());
        event
    }

    pub(crate) fn has_other(&self, number: u64) -> bool {
        self.others.contains_key(&number)
    }

    fn is_sparse(&self) -> bool {
        self.tombstones > 64 && self.tombstones > self.items.len() / 2
    }

    /// Gives back the memory of a burst.
    pub(crate) fn shrink(&mut self) {
        if self.items.is_empty() && self.items.capacity() > 1 << 12 {
            self.items = VecDeque::new();
        }
    }
}

/// What waits for all consumers.
#[derive(Debug)]
pub(crate) struct Feeds {
    feeds: [Option<Feed>; Self::MAX],
    /// The number of the next consumer.
    next: u64,
    /// Some feed is mostly tombstones.
    is_sparse: bool,
}

impl Feeds {
    /// How many consumers a client may have: the bits of a mask.
    pub(crate) const MAX: usize = u8::BITS as usize;

    pub(crate) fn new() -> Self {
        Self {
            feeds: [const { None }; Self::MAX],
            next: ConsumerId::FIRST.number,
            is_sparse: false,
        }
    }

    /// Adds a consumer. Returns `None` if the limit is reached.
    pub(crate) fn open(&mut self, detail: EventDetail) -> Option<ConsumerId> {
        let at = self.feeds.iter().position(Option::is_none)?;
        let consumer = ConsumerId {
            slot: u8::try_from(at).ok()?,
            number: self.next,
        };
        self.next += 1;
        self.feeds[at] = Some(Feed::new(consumer, detail));
        Some(consumer)
    }

    /// Removes a consumer. Returns `false` if it is gone already; its slot may have another.
    pub(crate) fn close(&mut self, consumer: ConsumerId) -> bool {
        let slot = &mut self.feeds[usize::from(consumer.slot)];
        slot.take_if(|feed| feed.consumer == consumer).is_some()
    }

    pub(crate) fn get(&self, consumer: ConsumerId) -> Option<&Feed> {
        let feed = self.feeds[usize::from(consumer.slot)].as_ref();
        feed.filter(|feed| feed.consumer == consumer)
    }

    pub(crate) fn get_mut(&mut self, consumer: ConsumerId) -> Option<&mut Feed> {
        let feed = self.feeds[usize::from(consumer.slot)].as_mut();
        feed.filter(|feed| feed.consumer == consumer)
    }

    /// Whether something waits for a consumer.
    pub(crate) fn has_events(&self, consumer: ConsumerId) -> bool {
        self.get(consumer)
            .is_some_and(|feed| feed.items.len() > feed.tombstones)
    }

    /// Something changed at a destination; `dirty` are the consumers in whose feeds it
    /// stands already.
    pub(crate) fn mark(&mut self, dirty: &mut u8, vni: Vni, destination: &Destination) {
        for (slot, feed) in self.feeds.iter_mut().enumerate() {
            if let Some(feed) = feed
                && *dirty & (1 << slot) == 0
            {
                *dirty |= 1 << slot;
                feed.items.push_back(Item::Destination(vni, *destination));
            }
        }
    }

    /// A destination that stands in the feeds of these consumers is forgotten.
    pub(crate) fn bury(&mut self, dirty: u8) {
        for (slot, feed) in self.feeds.iter_mut().enumerate() {
            if let Some(feed) = feed
                && dirty & (1 << slot) != 0
            {
                feed.tombstones += 1;
                self.is_sparse |= feed.is_sparse();
            }
        }
    }

    /// Queues an event that is not about a route; it follows all changes that wait.
    ///
    /// The same event twice is one: of a server that comes and goes, a consumer
    /// that is behind learns where it stands.
    pub(crate) fn push(&mut self, event: &Event) {
        for feed in self.feeds.iter_mut().flatten() {
            feed.push(event.clone());
            self.is_sparse |= feed.is_sparse();
        }
    }

    /// Queues an event for one consumer.
    pub(crate) fn push_to(&mut self, consumer: ConsumerId, event: Event) {
        if let Some(feed) = self.get_mut(consumer) {
            feed.push(event);
        }
    }

    /// Takes back an event that is not about a route, where it still waits.
    pub(crate) fn cancel(&mut self, event: &Event) {
        for feed in self.feeds.iter_mut().flatten() {
            feed.cancel(|old| old == event);
            self.is_sparse |= feed.is_sparse();
        }
    }

    /// The consumers whose feeds are mostly tombstones; asked once, answered once.
    pub(crate) fn take_sparse(&mut self) -> Option<ConsumerId> {
        if !self.is_sparse {
            return None;
        }
        let sparse = self.feeds.iter().flatten().find(|feed| feed.is_sparse());
        self.is_sparse = sparse.is_some();
        sparse.map(|feed| feed.consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_items_are_small() {
        assert!(size_of::<Item>() <= 24, "{}", size_of::<Item>());
        assert!(size_of::<Event>() <= 64, "{}", size_of::<Event>());
    }
}
