//! What a lost server said, and for how long it counts.

use std::time::Duration;

use super::script::Heard;
use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::{HOLD, World, config};
use super::*;
use crate::core::client::CoreConfig;
use crate::core::client::Event::{RouteAdded, RouteRemoved, ServerDown, ServerUp};
use crate::core::session::CloseReason::PeerClosed;
use crate::core::types::Action::{Add, Remove};

const KINDS: [Kind; 3] = [Modern, Go, OldRust];
const MOMENT: Duration = Duration::from_millis(1);

/// `A` has 1 and 2, `B` has 2 and 3; both up and complete, events forgotten.
fn two(kind: Kind) -> World {
    let mut world = World::new(&[kind, kind]);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1)), (V, route(2))].into();
    world.server(B).table = [(V, route(2)), (V, route(3))].into();
    world.up(A);
    world.up(B);
    world.check_events();
    assert_eq!(world.told.len(), 3);
    world
}

#[test]
fn with_another_complete_what_the_lost_one_alone_had_goes_at_once() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(A);
        let expected = [RouteRemoved(V, route(1)), ServerDown(A, PeerClosed)];
        assert_eq!(world.replay(), expected);
        assert_eq!(world.view(V), [route(2), route(3)].into());
    }
}

#[test]
fn with_another_incomplete_it_stays_until_that_is_complete() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(B);
        world.replay();
        world.shake_hands(B);
        world.down(A);
        let events = world.replay();
        assert_eq!(events, [ServerUp(B), ServerDown(A, PeerClosed)], "{kind:?}");
        assert_eq!(world.view(V), [route(1), route(2)].into());
        world.server(B).is_held = false;
        world.settle();
        let expected = [RouteAdded(V, route(3)), RouteRemoved(V, route(1))];
        assert_eq!(world.replay(), expected, "{kind:?}");
    }
}

#[test]
fn with_none_left_all_stays_for_the_stale_time() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(A);
        world.replay();
        world.down(B);
        assert_eq!(world.replay(), [ServerDown(B, PeerClosed)]);
        world.pass(HOLD - MOMENT);
        assert_eq!(world.replay(), []);
        let servers = world
            .core
            .servers_of(V, &destination(2), &route(2).next_hop);
        assert_eq!(servers, Some(vec![]), "kept, though nobody has it");
        world.pass(MOMENT);
        let removed = [2, 3].map(|it| RouteRemoved(V, route(it)));
        let events = world.replay();
        assert!(removed.iter().all(|it| events.contains(it)), "{events:?}");
        assert_eq!(world.core.route_count(), 0);
        world.up(A);
        world.check_events();
        assert_eq!(world.view(V), [route(1), route(2)].into());
    }
}

/// Two servers are lost one after the other: the copies of each stay for the stale time from its
/// own loss, and not a moment longer or shorter.
#[test]
fn copies_of_each_loss_stay_for_the_whole_stale_time() {
    for kind in KINDS {
        let mut config = config();
        config.settle_time = HOLD / 2;
        let mut world = World::with(&[kind, kind], config);
        world.core.subscribe(V);
        world.server(A).table = [(V, route(1)), (V, route(2))].into();
        world.server(B).table = [(V, route(2)), (V, route(3))].into();
        world.up(A);
        world.up(B);
        world.down(A);
        let first = world.now;
        world.pass(HOLD / 4);
        world.down(B);
        let second = world.now;
        world.pass(first + HOLD - MOMENT - world.now);
        assert_eq!(world.view(V).len(), 3, "{kind:?}");
        world.pass(MOMENT);
        assert_eq!(world.view(V), [route(2), route(3)].into(), "{kind:?}");
        world.pass(second + HOLD - MOMENT - world.now);
        assert_eq!(world.view(V).len(), 2, "{kind:?}");
        world.pass(MOMENT);
        assert_eq!(world.view(V), [].into(), "{kind:?}");
    }
}

/// Another stale time counts for what is stale already, from its loss on.
#[test]
fn changed_stale_time_counts_for_copies_that_are_stale_already() {
    for (new, at_once) in [(HOLD / 4, true), (HOLD * 2, false)] {
        let mut world = two(Modern);
        world.down(A);
        world.down(B);
        let lost = world.now;
        world.pass(HOLD / 2);
        world.core.reconfigure(CoreConfig {
            stale_time: new,
            ..config()
        });
        world.pass(Duration::ZERO);
        assert_eq!(world.view(V).is_empty(), at_once);
        if !at_once {
            world.pass(lost + new - MOMENT - world.now);
            assert_eq!(world.view(V).len(), 2);
        }
        world.pass(MOMENT);
        assert_eq!(world.view(V), [].into());
    }
}

#[test]
fn attempts_that_fail_do_not_make_the_stale_time_longer() {
    let mut world = two(Modern);
    world.down(A);
    world.down(B);
    // It takes connections, and drops them.
    world.server(A).is_there = true;
    world.server(A).is_mute = true;
    let start = world.now;
    while world.now < start + HOLD - MOMENT {
        world.pass(Duration::from_millis(999));
        world.cut(A);
    }
    assert!(world.now <= start + HOLD + Duration::from_secs(1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.core.route_count(), 0);
}

#[test]
fn without_a_stale_time_all_goes_at_once() {
    let mut config = config();
    config.stale_time = Duration::ZERO;
    let mut world = World::with(&[Modern], config);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1))].into();
    world.up(A);
    world.replay();
    world.down(A);
    assert_eq!(world.core.poll_timeout(), Some(world.now), "due now");
    world.pass(Duration::ZERO);
    let expected = [ServerDown(A, PeerClosed), RouteRemoved(V, route(1))];
    assert_eq!(world.replay(), expected);
}

#[test]
fn reconnect_with_an_unchanged_table_is_no_event_about_routes() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(A);
        world.replay();
        world.down(B);
        world.pass(HOLD / 2);
        world.up(B);
        world.pass(HOLD);
        let expected = [ServerDown(B, PeerClosed), ServerUp(B)];
        // Up and down of one server are one event: where it stands.
        assert_eq!(world.replay(), expected[1..], "{kind:?}");
        assert_eq!(world.view(V), [route(2), route(3)].into());
    }
}

#[test]
fn reconnect_with_a_changed_table_tells_the_differences() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(A);
        world.down(B);
        world.replay();
        world.server(B).table = [(V, route(3)), (V, other(3)), (V, route(4))].into();
        world.up(B);
        let mut events = world.replay();
        events.retain(|event| matches!(event, RouteAdded(..) | RouteRemoved(..)));
        events.sort_unstable_by_key(|event| format!("{event:?}"));
        let expected = [
            RouteAdded(V, other(3)),
            RouteAdded(V, route(4)),
            RouteRemoved(V, route(2)),
        ];
        assert_eq!(events, expected, "{kind:?}");
    }
}

/// A legacy table counts as complete after two KEEPALIVE round trips, not after one.
#[test]
fn legacy_table_is_swept_after_two_round_trips() {
    let mut world = two(Go);
    world.down(A);
    world.down(B);
    world.server(B).table = [(V, route(3))].into();
    world.shake_hands(B);
    world.replay();
    for expected in [&[][..], &[RouteRemoved(V, route(2))]] {
        let waiting = world.talk(B).outbox.len();
        world.deliver(B, waiting);
        world.settle();
        assert_eq!(world.replay(), expected);
    }
    let heard = &world.talk(B).heard;
    let expected = [Heard::Subscribe(V), Heard::Keepalive, Heard::Keepalive];
    assert!(heard.ends_with(&expected), "{heard:?}");
}

#[test]
fn withdrawal_by_a_server_that_is_up_beats_a_stale_route() {
    let mut world = World::new(&[Modern, Modern]);
    world.core.subscribe(V);
    for server in [A, B] {
        world.server(server).table = [(V, route(1))].into();
    }
    world.up(A);
    world.down(A);
    world.server(B).is_there = true;
    world.pass(Duration::from_secs(20));
    world.replay();
    world.say(B, Remove, V, route(1));
    world.settle();
    assert_eq!(world.view(V), [].into());
    world.say(B, Add, V, route(1));
    world.settle();
    world.check_events();
    assert_eq!(world.view(V), [route(1)].into());
}

/// Another next hop comes and goes before the table is complete: the stale one stays.
#[test]
fn stale_next_hop_outlives_its_neighbours() {
    for kind in KINDS {
        let mut world = World::new(&[kind, kind]);
        world.core.subscribe(V);
        world.server(A).table = [(V, route(1))].into();
        world.up(A);
        world.shake_hands(B);
        world.down(A);
        world.replay();
        let mut frames = Vec::new();
        for action in [Add, Remove] {
            crate::core::wire::encode_update(&mut frames, action, V, &other(1));
        }
        world.with_core(|core, now| core.receive(B, &frames, now));
        assert_eq!(world.replay(), []);
        assert_eq!(world.view(V), [route(1)].into());
        assert_eq!(world.core.route_count(), 1);
        world.server(B).is_held = false;
        world.settle();
        assert_eq!(world.replay()[0], RouteRemoved(V, route(1)), "{kind:?}");
    }
}

#[test]
fn unsubscribing_drops_what_is_stale_too() {
    let mut world = two(Modern);
    world.down(A);
    world.down(B);
    world.replay();
    world.with_core(|core, _| core.unsubscribe(V));
    let removed = [2, 3].map(|it| RouteRemoved(V, route(it)));
    let events = world.replay();
    assert!(events.len() == 2 && removed.iter().all(|it| events.contains(it)));
}

#[test]
fn vnis_are_swept_each_for_itself() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1)), (W, route(2))].into();
    world.with_core(|core, _| core.subscribe(W));
    world.up(A);
    world.down(A);
    world.replay();
    world.server(A).table = [].into();
    world.shake_hands(A);
    world.replay();
    assert_eq!(world.core.route_count(), 2);
    // END_OF_RIB of one VNI: a header and two bytes, or three of the greater number.
    world.deliver(A, 6);
    let of_v = [RouteRemoved(V, route(1))];
    let events = world.replay();
    assert!(events.starts_with(&of_v), "{events:?}");
    assert_eq!(world.view(W), [route(2)].into());
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(world.view(W), [].into());
}
