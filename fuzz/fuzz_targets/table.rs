//! A table and its log against a model: every subscriber has what others announce, hears of
//! every change once, and of nothing else.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustbond::internals::{Rib, Spans};
use rustbond::{Action, Destination, NextHop, Route, Vni};
use rustbond_fuzz::{UPDATE, Update, decode_update, take_frame, translate};

#[derive(Arbitrary, Debug)]
enum Step {
    Announce {
        peer: u8,
        route: u8,
    },
    Withdraw {
        peer: u8,
        route: u8,
    },
    /// Announces some routes in a row, or withdraws them.
    Many {
        peer: u8,
        from: u8,
        count: u8,
        is_remove: bool,
    },
    Flush,
    Join {
        peer: u8,
    },
    Part {
        peer: u8,
    },
    Leave {
        peer: u8,
    },
    Compact {
        budget: u8,
    },
}

/// Peers that exist at once; one that leaves is followed by one of another id.
const PEERS: u8 = 6;

fn route(number: u8) -> Route {
    let hop = std::net::Ipv6Addr::from(u128::from(number % 3));
    let destination = match number % 5 {
        0 => Destination::from_ipv6(u128::from(number / 3).into(), 128),
        length => Destination::from_ipv4(u32::from(number / 3).into(), 33 - length),
    };
    Route::new(destination, NextHop::standard(hop))
}

fn key(route: &Route) -> Update {
    translate(Action::Add, Vni(1), route)
}

#[derive(Default)]
struct World {
    rib: Rib,
    ids: [u32; PEERS as usize],
    subscribers: BTreeMap<u32, BTreeSet<Update>>,
    announced: BTreeMap<Update, BTreeSet<u32>>,
}

fn hear(has: &mut BTreeSet<Update>, update: Update) {
    let is_news = if update.is_remove {
        let key = Update {
            is_remove: false,
            ..update
        };
        has.remove(&key)
    } else {
        has.insert(update)
    };
    assert!(is_news, "nothing that is known, nothing that is absent");
}

fn read(has: &mut BTreeSet<Update>, spans: &Spans, peer: u32) {
    let mut bytes = spans.for_peer(peer);
    while let Some((kind, payload)) = take_frame(&mut bytes).expect("own frames are valid") {
        assert_eq!(kind, UPDATE);
        hear(
            has,
            decode_update(&payload).expect("own frames are well-formed"),
        );
    }
    assert!(bytes.is_empty(), "whole frames");
}

impl World {
    fn id(&self, peer: u8) -> u32 {
        let at = peer % PEERS;
        self.ids[usize::from(at)] * u32::from(PEERS) + u32::from(at)
    }

    fn flush(&mut self) {
        let fresh = self.rib.take_fresh();
        for (peer, has) in &mut self.subscribers {
            read(has, &fresh, *peer);
        }
    }

    fn apply(&mut self, peer: u32, number: u8, action: Action) {
        let route = route(number);
        let announcers = self.announced.entry(key(&route)).or_default();
        match action {
            Action::Add => announcers.insert(peer),
            Action::Remove => announcers.remove(&peer),
        };
        self.rib.apply(peer, action, &route);
    }

    fn leave(&mut self, peer: u32) {
        self.flush();
        self.subscribers.remove(&peer);
        for announcers in self.announced.values_mut() {
            announcers.remove(&peer);
        }
        while self.rib.withdraw_one(peer) {}
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Announce { peer, route } => self.apply(self.id(peer), route, Action::Add),
            Step::Withdraw { peer, route } => self.apply(self.id(peer), route, Action::Remove),
            Step::Many {
                peer,
                from,
                count,
                is_remove,
            } => {
                let action = if is_remove {
                    Action::Remove
                } else {
                    Action::Add
                };
                for number in 0..count {
                    self.apply(self.id(peer), from.wrapping_add(number), action);
                }
            }
            Step::Flush => self.flush(),
            Step::Join { peer } => {
                let id = self.id(peer);
                if !self.subscribers.contains_key(&id) {
                    self.flush();
                    let mut has = BTreeSet::new();
                    read(&mut has, &self.rib.join(), id);
                    self.subscribers.insert(id, has);
                }
            }
            Step::Part { peer } => drop(self.subscribers.remove(&self.id(peer))),
            Step::Leave { peer } => {
                self.leave(self.id(peer));
                self.ids[usize::from(peer % PEERS)] += 1;
            }
            Step::Compact { budget } => {
                self.flush();
                self.rib.compact(usize::from(budget) + 1);
            }
        }
    }

    fn check(&mut self) {
        self.flush();
        self.rib.check();
        for (peer, has) in &self.subscribers {
            let seen = |(key, by): (&Update, &BTreeSet<u32>)| {
                by.iter().any(|it| it != peer).then(|| key.clone())
            };
            let expected: BTreeSet<Update> = self.announced.iter().filter_map(seen).collect();
            assert_eq!(*has, expected);
        }
        for peer in (0..PEERS).map(|it| self.id(it)) {
            let listed: BTreeSet<Update> = self.rib.announced_by(peer).iter().map(key).collect();
            let own =
                |(key, by): (&Update, &BTreeSet<u32>)| by.contains(&peer).then(|| key.clone());
            assert_eq!(listed, self.announced.iter().filter_map(own).collect());
        }
        let live = self.announced.values().filter(|it| !it.is_empty());
        assert_eq!(self.rib.summary().routes(), live.count());
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut world = World::default();
    for step in steps {
        world.step(step);
    }
    world.check();
    for peer in 0..PEERS {
        world.leave(world.id(peer));
    }
    world.check();
    assert!(world.rib.is_empty(), "all is given back");
    assert_eq!(world.rib.summary(), Rib::default().summary());
});
