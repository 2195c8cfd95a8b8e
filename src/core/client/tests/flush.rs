//! Flushes, what servers have read, and servers that come and go at run time.

use std::time::Duration;

use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::World;
use super::*;
use crate::core::client::AnnouncementState::{Acknowledged, Pending, Told};
use crate::core::client::Event::{RouteRemoved, ServerDown};
use crate::core::session::CloseReason;
use crate::core::types::Action::{Add, Remove};

const KINDS: [Kind; 3] = [Modern, Go, OldRust];

fn state(world: &World, number: u32, server: ServerId) -> crate::core::client::AnnouncementState {
    world.core.announcement(V, own(number)).unwrap()[&server]
}

#[test]
fn flush_ends_when_the_server_has_read_everything() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.server(A).is_held = true;
        world.with_core(|core, _| assert!(core.announce(V, own(1))));
        let flush = world.with_core(|core, _| core.flush());
        world.take(A, usize::MAX);
        assert!(!world.core.is_flushed(flush), "on its way");
        assert_eq!(state(&world, 1, A), Told);
        world.server(A).serve();
        assert!(!world.core.is_flushed(flush), "the answer has not come");
        world.server(A).is_held = false;
        world.settle();
        assert!(world.core.is_flushed(flush), "{kind:?}");
        assert_eq!(state(&world, 1, A), Acknowledged);
        assert!(world.talk(A).announced.contains(&(V, own(1))));
    }
}

#[test]
fn flush_needs_a_server_and_waits_for_all_that_are_established() {
    let mut world = World::new(&[Modern, Go]);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    let flush = world.with_core(|core, _| core.flush());
    world.pass(Duration::from_secs(1));
    assert!(!world.core.is_flushed(flush), "nobody has read it");
    world.up(A);
    assert!(world.core.is_flushed(flush));
    world.server(B).is_held = true;
    world.shake_hands(B);
    assert!(!world.core.is_flushed(flush), "one more to ask");
    assert_eq!(state(&world, 1, B), Told);
    world.down(B);
    assert!(world.core.is_flushed(flush), "gone");
    assert_eq!(state(&world, 1, B), Pending);
    world.with_core(|core, _| core.end_flush(flush));
    assert!(!world.core.is_flushed(flush), "forgotten");
}

#[test]
fn flush_includes_what_a_legacy_server_can_be_told_only_later() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.with_core(|core, _| assert!(core.announce(V, own(1))));
        world.settle();
        world.with_core(|core, _| core.unsubscribe(V));
        world.take(A, usize::MAX);
        world.with_core(|core, _| {
            core.subscribe(V);
            assert!(core.announce(V, own(2)));
        });
        let flush = world.with_core(|core, _| core.flush());
        while !world.core.is_flushed(flush) {
            assert!(
                world.take(A, 7) | world.deliver(A, 7) || {
                    world.server(A).serve();
                    world.deliver(A, 7) || world.take(A, 1)
                },
                "{kind:?}: nothing moves"
            );
        }
        let talk = world.talk(A);
        assert_eq!(talk.subscribed, [V].into());
        assert_eq!(talk.announced, [(V, own(1)), (V, own(2))].into());
    }
}

#[test]
fn reading_an_earlier_announcement_proves_nothing_of_a_later_one() {
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    let first = world.with_core(|core, _| core.flush());
    world.take(A, usize::MAX);
    world.with_core(|core, _| assert!(core.withdraw(V, own(1))));
    assert_eq!(world.core.announcement(V, own(1)), None);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    world.server(A).serve();
    world.deliver(A, usize::MAX);
    assert!(world.core.is_flushed(first));
    assert_eq!(state(&world, 1, A), Told, "the second is not read");
    world.pass(Duration::from_secs(6));
    assert_eq!(state(&world, 1, A), Acknowledged, "a KEEPALIVE is due");
}

#[test]
fn synced_is_known_while_subscribed() {
    let mut world = World::new(&[Modern]);
    assert_eq!(world.core.is_synced(V), None);
    world.core.subscribe(V);
    assert_eq!(world.core.is_synced(V), Some(false));
    world.up(A);
    assert_eq!(world.core.is_synced(V), Some(true));
    world.core.unsubscribe(V);
    assert_eq!(world.core.is_synced(V), None);
}

#[test]
fn server_added_at_run_time_gets_everything() {
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    let added = world.add(Go);
    assert_eq!(added, B);
    world.say(B, Add, V, route(1));
    world.up(B);
    world.pass(Duration::from_secs(1));
    world.check_servers();
    assert_eq!(world.view(V), [route(1)].into());
    world.check_events();
}

#[test]
fn routes_of_a_removed_server_go_unless_another_has_them() {
    let mut world = World::new(&[Modern, Modern]);
    world.core.subscribe(V);
    for (server, number) in [(A, 1), (A, 2), (B, 2)] {
        world.say(server, Add, V, route(number));
    }
    world.up(A);
    world.up(B);
    world.replay();
    assert!(world.with_core(|core, now| core.remove_server(A, now)));
    let events = world.replay();
    assert!(events.contains(&RouteRemoved(V, route(1))));
    assert!(events.contains(&ServerDown(A, CloseReason::Shutdown)));
    assert_eq!(world.view(V), [route(2)].into());
    assert!(!world.with_core(|core, now| core.remove_server(A, now)));
}

#[test]
fn server_is_replaced_without_a_gap() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.say(A, Add, V, route(1));
    world.say(A, Add, V, route(2));
    world.up(A);
    world.check_events();
    world.with_core(|core, now| core.remove_server(A, now));
    let added = world.add(Modern);
    world.say(added, Add, V, route(1));
    world.pass(Duration::from_secs(3));
    assert!(world.replay().iter().all(|it| matches!(it, ServerDown(..))));
    world.up(added);
    assert_eq!(world.view(V), [route(1)].into());
    world.check_events();
}

#[test]
fn numbers_are_not_used_again_and_bits_are_clean() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    world.up(A);
    let mut last = A;
    for round in 1..100 {
        let added = world.add(if round % 2 == 0 { Modern } else { Go });
        assert_eq!(added, ServerId(round));
        world.say(added, Add, V, route(9));
        world.up(added);
        world.pass(Duration::from_secs(1));
        world.check_servers();
        let servers = world
            .core
            .servers_of(V, &destination(9), &route(9).next_hop);
        assert!(servers.unwrap().contains(&added));
        world.say(added, Remove, V, route(9));
        world.settle();
        world.with_core(|core, now| core.remove_server(last, now));
        assert_eq!(world.view(V), [].into());
        last = added;
    }
    world.check_events();
    assert_eq!(world.core.held(), 0);
}

#[test]
fn client_has_32_servers_at_most() {
    let mut world = World::new(&[Modern; 32]);
    let now = world.now;
    assert_eq!(world.core.add_server(now), None);
    world.core.remove_server(ServerId(7), now);
    assert_eq!(world.core.add_server(now), Some(ServerId(32)));
    assert_eq!(world.core.add_server(now), None);
}
