//! The active subscribers of each VNI that live on a shard.

use crate::core::map::{Map, map};
use crate::core::rib::PeerId;
use crate::core::slab::Slab;
use crate::core::types::Vni;

/// An active subscriber of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) peer: PeerId,
    /// Of its subscription.
    pub(super) epoch: u32,
}

/// Those of one VNI. Many VNIs have one alone.
#[derive(Clone, Copy, Debug)]
enum List {
    One(Subscriber),
    /// More, in the slab.
    Many(u32),
}

const _: () = assert!(size_of::<(Vni, List)>() == 16);

#[derive(Debug)]
pub(super) struct Subscribers {
    of: Map<Vni, List>,
    lists: Slab<Vec<Subscriber>>,
}

/// The subscribers of a VNI, taken out to be told something.
#[derive(Debug)]
pub(super) enum Taken {
    Nobody,
    One(Subscriber),
    Many(u32, Vec<Subscriber>),
}

impl Taken {
    pub(super) fn list(&self) -> &[Subscriber] {
        match self {
            Self::Nobody => &[],
            Self::One(subscriber) => std::slice::from_ref(subscriber),
            Self::Many(_, list) => list,
        }
    }
}

impl Subscribers {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            of: map(seed),
            lists: Slab::default(),
        }
    }

    /// Returns the bytes that it has allocated, without those of long lists.
    pub(super) fn heap_bytes(&self) -> usize {
        self.of.allocation_size() + self.lists.heap_bytes()
    }

    /// Adds a subscriber. Returns its place.
    pub(super) fn push(&mut self, vni: Vni, subscriber: Subscriber) -> u32 {
        let Some(list) = self.of.get_mut(&vni) else {
            self.of.insert(vni, List::One(subscriber));
            return 0;
        };
        match *list {
            List::One(first) => {
                *list = List::Many(self.lists.insert(vec![first, subscriber]));
                1
            }
            List::Many(number) => {
                let Some(list) = self.lists.get_mut(number) else {
                    unreachable!("the list is in use");
                };
                list.push(subscriber);
                u32::try_from(list.len() - 1).expect("fewer sessions than 2^32")
            }
        }
    }

    /// Removes the subscriber at a place. Returns the one that stands there then.
    pub(super) fn remove(&mut self, vni: Vni, at: u32) -> Option<Subscriber> {
        let place = self.of.get_mut(&vni)?;
        let number = match *place {
            List::One(_) => {
                self.of.remove(&vni);
                if self.of.len() * 8 < self.of.capacity() {
                    self.of.shrink_to(self.of.len() * 2);
                }
                return None;
            }
            List::Many(number) => number,
        };
        let list = self.lists.get_mut(number)?;
        list.swap_remove(at as usize);
        let moved = list.get(at as usize).copied();
        if let [one] = list[..] {
            *place = List::One(one);
            self.lists.remove(number);
        }
        moved
    }

    /// Takes the subscribers of a VNI, to be given back by [`Self::put_back`].
    pub(super) fn take(&mut self, vni: Vni) -> Taken {
        match self.of.get(&vni) {
            None => Taken::Nobody,
            Some(List::One(subscriber)) => Taken::One(*subscriber),
            Some(&List::Many(number)) => {
                let list = self.lists.get_mut(number);
                Taken::Many(number, list.map(std::mem::take).unwrap_or_default())
            }
        }
    }

    /// Gives back what [`Self::take`] returned; meanwhile nothing was added or removed.
    pub(super) fn put_back(&mut self, taken: Taken) {
        if let Taken::Many(number, list) = taken
            && let Some(place) = self.lists.get_mut(number)
        {
            *place = list;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_keep_their_places_until_another_moves_there() {
        let vni = Vni(1);
        let subscriber = |it| Subscriber {
            peer: PeerId(it),
            epoch: it,
        };
        let mut subscribers = Subscribers::new(1);
        for it in 0..3 {
            assert_eq!(subscribers.push(vni, subscriber(it)), it);
        }
        assert_eq!(subscribers.remove(vni, 0), Some(subscriber(2)));
        let taken = subscribers.take(vni);
        assert_eq!(taken.list(), [subscriber(2), subscriber(1)]);
        subscribers.put_back(taken);
        assert_eq!(subscribers.remove(vni, 1), None, "it was the last");
        assert_eq!(subscribers.take(vni).list(), [subscriber(2)]);
        assert_eq!(subscribers.remove(vni, 0), None);
        assert_eq!(subscribers.take(vni).list(), []);
        assert_eq!(subscribers.lists.heap_bytes(), 0);
    }
}
