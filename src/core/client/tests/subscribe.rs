//! SUBSCRIBE and UNSUBSCRIBE, which legacy servers are touchy about.

use super::script::Heard;
use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::World;
use super::*;
use crate::core::client::Event::{RouteAdded, RouteRemoved, Settled, Synced};
use crate::core::types::Action::{Add, Remove};

const KINDS: [Kind; 3] = [Modern, Go, OldRust];

/// Go rows 5 and 6. The monitor asserts the rules at every byte.
#[test]
fn no_second_subscribe_whatever_the_interleaving() {
    for kind in KINDS {
        for seed in 0..150 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut world = World::new(&[kind]);
            world.up(A);
            for _ in 0..300 {
                let vni = if random.bool() { V } else { W };
                match random.u8(..10) {
                    0 | 1 => drop(world.with_core(|core, _| core.subscribe(vni))),
                    2 | 3 => drop(world.with_core(|core, _| core.unsubscribe(vni))),
                    4 => drop(world.with_core(|core, _| core.announce(vni, own(1)))),
                    5 => drop(world.with_core(|core, _| core.withdraw(vni, own(1)))),
                    6 | 7 => drop(world.take(A, random.usize(..20))),
                    8 => world.server(A).serve(),
                    _ => drop(world.deliver(A, random.usize(..20))),
                }
            }
            world.settle();
            world.check_servers();
        }
    }
}

#[test]
fn unsubscribing_and_subscribing_at_once_takes_a_round_trip() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.say(A, Add, V, route(1));
        world.settle();
        world.replay();
        world.with_core(|core, _| {
            assert!(core.unsubscribe(V));
            assert!(core.subscribe(V));
        });
        assert_eq!(world.replay(), [RouteRemoved(V, route(1))]);
        world.server(A).is_held = true;
        world.settle();
        let heard = &world.talk(A).heard;
        let end = [Heard::Unsubscribe(V), Heard::Keepalive];
        assert!(heard.ends_with(&end), "{kind:?}: {heard:?}");
        world.server(A).is_held = false;
        world.settle();
        assert_eq!(
            world.replay(),
            [RouteAdded(V, route(1)), Synced(V), Settled(V)]
        );
        world.check_servers();
    }
}

/// The buffer is full of announcements: UNSUBSCRIBE and SUBSCRIBE meet in the queue.
#[test]
fn changing_ones_mind_before_the_server_heard_of_it() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.say(A, Add, V, route(1));
        world.settle();
        world.server(A).is_blocked = true;
        world.with_core(|core, _| {
            for number in 0..2000 {
                assert!(core.announce(W, own(number)));
            }
            core.unsubscribe(V);
        });
        world.check_events();
        assert_eq!(world.told, [].into());
        world.with_core(|core, _| core.subscribe(V));
        world.server(A).is_blocked = false;
        world.settle();
        world.check_servers();
        world.check_events();
        assert_eq!(world.told, [(V, route(1))].into(), "{kind:?}");
    }
}

/// Go row 7: Go takes UNSUBSCRIBE for a withdrawal of all our routes of the VNI.
#[test]
fn own_announcements_outlive_an_unsubscribe_at_a_legacy_server() {
    let mut world = World::subscribed(Go);
    world.with_core(|core, _| {
        assert!(core.announce(V, own(1)));
        assert!(core.announce(V, own(2)));
        assert!(core.announce(W, own(3)));
    });
    world.settle();
    let before = world.talk(A).heard.len();
    world.with_core(|core, _| core.unsubscribe(V));
    // What is said of the VNI meanwhile waits for the round trip.
    world.server(A).is_held = true;
    world.with_core(|core, _| {
        assert!(core.announce(V, own(4)));
        assert!(core.withdraw(V, own(2)));
        assert!(core.announce(W, own(5)));
    });
    world.settle();
    let now = [
        Heard::Unsubscribe(V),
        Heard::Keepalive,
        Heard::Add(W, own(5)),
    ];
    assert_eq!(world.talk(A).heard[before..], now);
    world.server(A).is_held = false;
    world.settle();
    world.check_servers();
    assert_eq!(world.talk(A).announced.len(), 4);
}

/// RustBond 0.1 is legacy too, but keeps what was announced.
#[test]
fn route_withdrawn_during_an_unsubscribe_is_withdrawn_everywhere() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.with_core(|core, _| assert!(core.announce(V, own(1))));
        world.settle();
        world.server(A).is_held = true;
        world.with_core(|core, _| core.unsubscribe(V));
        world.settle();
        world.with_core(|core, _| assert!(core.withdraw(V, own(1))));
        world.settle();
        world.server(A).is_held = false;
        world.settle();
        world.check_servers();
        assert_eq!(world.core.held(), 0, "{kind:?}");
    }
}

/// Go row 6: a Go server may read an UNSUBSCRIBE ahead of the SUBSCRIBE before it.
#[test]
fn unsubscribing_right_after_subscribing_waits_for_a_legacy_server() {
    let mut world = World::new(&[Go]);
    world.up(A);
    let before = world.talk(A).heard.len();
    world.server(A).is_held = true;
    world.with_core(|core, _| core.subscribe(V));
    world.settle();
    world.with_core(|core, _| core.unsubscribe(V));
    world.settle();
    let heard = &world.talk(A).heard[before..];
    assert_eq!(heard, [Heard::Subscribe(V), Heard::Keepalive]);
    world.server(A).is_held = false;
    world.settle();
    world.check_servers();
    assert_eq!(world.core.held(), 0);
}

#[test]
fn updates_of_a_vni_that_is_not_wanted_are_ignored() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.server(A).is_held = true;
        world.with_core(|core, _| core.unsubscribe(V));
        world.say(A, Add, V, route(1));
        world.settle();
        world.with_core(|core, _| core.subscribe(V));
        world.say(A, Remove, V, route(1));
        world.say(A, Add, V, route(2));
        // Wanted again, but these are about the time before.
        let waiting = world.talk(A).outbox.len();
        world.deliver(A, waiting - 4);
        assert_eq!(world.replay(), [], "{kind:?}");
        assert_eq!(world.core.route_count(), 0);
        world.server(A).is_held = false;
        world.settle();
        world.check_events();
        assert_eq!(world.view(V), [route(2)].into());
    }
}
