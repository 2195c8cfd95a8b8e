//! Clocks: KEEPALIVEs, timeouts, retries; and events about servers and tables.

use std::time::Duration;

use super::script::Heard;
use super::script::Kind::{Go, Modern};
use super::world::{World, config};
use super::*;
use crate::core::client::ConnectionState;
use crate::core::client::Event::{RouteAdded, RouteRemoved, ServerDown, ServerUp, Settled, Synced};
use crate::core::session::CloseReason;
use crate::core::types::Action::{Add, Remove};

const SECOND: Duration = Duration::from_secs(1);

fn keepalives(world: &World) -> usize {
    let heard = world.talk(A).heard.iter();
    heard.filter(|it| **it == Heard::Keepalive).count()
}

#[test]
fn keepalives_go_out_once_an_interval() {
    for (interval, expected) in [(5, 12), (2, 30), (60, 12)] {
        let mut world = World::new(&[Modern]);
        world.server(A).interval = interval;
        world.up(A);
        let before = keepalives(&world);
        world.pass(SECOND * 60);
        let count = keepalives(&world) - before;
        assert!(count.abs_diff(expected) <= 1, "{interval} s: {count}");
        assert!(world.is_established(A));
    }
}

#[test]
fn each_handshake_step_has_its_state() {
    let mut world = World::new(&[Modern]);
    assert_eq!(world.state(A), ConnectionState::Connecting);
    world.server(A).is_there = true;
    world.server(A).is_held = true;
    world.dial();
    assert_eq!(world.state(A), ConnectionState::HelloSent);
    world.settle();
    let waiting = world.talk(A).outbox.len();
    world.deliver(A, waiting);
    assert_eq!(world.state(A), ConnectionState::HelloReceived);
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(world.state(A), ConnectionState::Established);
    world.down(A);
    assert_eq!(world.state(A), ConnectionState::Retry);
}

#[test]
fn silent_server_is_given_up_after_two_and_a_half_intervals() {
    let mut world = World::subscribed(Modern);
    world.server(A).is_mute = true;
    world.server(A).is_there = false;
    world.pass(SECOND * 12);
    assert!(world.is_established(A));
    world.pass(SECOND);
    assert_eq!(world.core.last_loss(A), Some(CloseReason::Silent));
    assert_eq!(world.replay(), [ServerDown(A, CloseReason::Silent)]);
}

#[test]
fn any_byte_shows_that_a_server_lives() {
    let mut world = World::subscribed(Modern);
    world.server(A).is_mute = true;
    for number in 0..10 {
        world.pass(SECOND * 12);
        world.say(A, Add, V, route(number));
        world.settle();
    }
    assert!(world.is_established(A));
}

#[test]
fn server_that_accepts_and_says_nothing_times_out() {
    let mut world = World::new(&[Modern]);
    world.server(A).is_there = true;
    world.server(A).is_mute = true;
    world.dial();
    world.pass(SECOND * 9);
    assert_eq!(world.state(A), ConnectionState::HelloSent);
    world.server(A).is_there = false;
    world.pass(SECOND);
    let expected = Some(CloseReason::HandshakeTimeout);
    assert_eq!(world.core.last_loss(A), expected);
}

#[test]
fn attempt_that_never_ends_is_ended() {
    let mut world = World::new(&[Modern]);
    assert_eq!(world.core.poll_dial(world.now), Some(A));
    assert_eq!(world.core.poll_dial(world.now), None);
    let due = world.core.poll_timeout().unwrap();
    assert_eq!(due, world.now + SECOND * 10);
    world.core.handle_timeouts(due);
    assert_eq!(world.state(A), ConnectionState::Retry);
    let timed_out = CloseReason::Io(std::io::ErrorKind::TimedOut);
    assert_eq!(world.core.last_loss(A), Some(timed_out));
    let again = world.core.poll_timeout().unwrap() - due;
    assert!((SECOND * 5..=SECOND * 10).contains(&again), "{again:?}");
}

#[test]
fn server_that_was_never_there_is_tried_every_five_to_ten_seconds() {
    let mut world = World::new(&[Modern, Modern]);
    world.pass(SECOND * 600);
    for server in [A, B] {
        let of = world.dials.iter().filter(|(it, _)| *it == server);
        let times: Vec<_> = of.map(|(_, at)| *at).collect();
        let waits: Vec<_> = times.windows(2).map(|it| it[1] - it[0]).collect();
        let range = SECOND * 5..=SECOND * 10;
        assert!(waits.iter().all(|wait| range.contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter");
    }
    let when = |server| world.dials.iter().rfind(|it| it.0 == server).unwrap().1;
    assert_ne!(when(A), when(B), "servers are tried apart");
}

fn waits_after(world: &mut World, count: usize) -> Vec<Duration> {
    let start = world.now;
    world.dials.clear();
    while world.dials.len() < count {
        world.pass(Duration::from_millis(10));
    }
    let mut last = start;
    let wait = |(_, at): &(ServerId, std::time::Instant)| {
        let wait = *at - last;
        last = *at;
        wait
    };
    world.dials.iter().map(wait).collect()
}

#[test]
fn after_a_clean_loss_a_server_is_tried_soon() {
    let mut world = World::subscribed(Modern);
    world.pass(SECOND * 60);
    world.down(A);
    let waits = waits_after(&mut world, 8);
    for (doubling, wait) in waits[..6].iter().enumerate() {
        let least = Duration::from_millis(100 << doubling);
        assert!((least..least * 3 / 2).contains(wait), "{waits:?}");
    }
    assert!(waits[6..].iter().all(|wait| *wait >= SECOND * 5));
}

#[test]
fn after_a_failure_a_server_is_tried_late() {
    let mut world = World::subscribed(Modern);
    world.pass(SECOND * 60);
    // Not a frame of any version.
    world.with_core(|core, now| core.receive(A, &[9, 9, 9, 9], now));
    let loss = world.core.last_loss(A);
    assert!(matches!(loss, Some(CloseReason::Frame(_))), "{loss:?}");
    let waits = waits_after(&mut world, 1);
    assert!(waits[0] >= SECOND * 5, "{waits:?}");
    world.up(A);
    world.pass(SECOND * 60);
    world.server(A).is_mute = true;
    while world.is_established(A) {
        world.pass(Duration::from_millis(10));
    }
    let waits = waits_after(&mut world, 1);
    assert!(waits[0] >= SECOND * 4, "{waits:?}");
}

/// A server that drops everybody right after the handshake is not stormed.
#[test]
fn server_that_drops_every_session_is_tried_ever_later() {
    let mut world = World::new(&[Modern]);
    world.server(A).is_there = true;
    for _ in 0..600 {
        world.pass(Duration::from_millis(100));
        world.cut(A);
    }
    let dials = world.dials.len();
    assert!(dials < 25, "{dials} attempts in a minute");
}

#[test]
fn peer_that_takes_nothing_is_closed_after_twice_the_hold_time() {
    let mut world = World::subscribed(Modern);
    world.server(A).is_blocked = true;
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    world.settle();
    for number in 0..24 {
        world.pass(SECOND);
        world.say(A, Add, V, route(number));
        world.settle();
        assert!(world.is_established(A), "after {number} s");
    }
    world.server(A).is_there = false;
    world.pass(SECOND);
    assert_eq!(world.core.last_loss(A), Some(CloseReason::SendHold));
}

#[test]
fn peer_that_takes_a_little_now_and_then_is_kept() {
    let mut world = World::subscribed(Modern);
    world.server(A).is_blocked = true;
    world.with_core(|core, _| {
        for number in 0..2000 {
            assert!(core.announce(V, own(number)));
        }
    });
    for number in 0..60 {
        world.take(A, 5);
        world.pass(SECOND * 10);
        world.say(A, Add, W, route(number));
        world.say(A, Add, V, route(number));
        world.settle();
        assert!(world.is_established(A));
    }
    world.server(A).is_blocked = false;
    world.settle();
    world.check_servers();
}

#[test]
fn synced_comes_once_a_subscription() {
    for kind in [Modern, Go] {
        let mut world = World::new(&[kind, kind]);
        world.core.subscribe(V);
        world.server(A).table = [(V, route(1))].into();
        world.up(A);
        let expected = [ServerUp(A), RouteAdded(V, route(1)), Synced(V), Settled(V)];
        assert_eq!(world.replay(), expected);
        world.up(B);
        world.down(A);
        world.down(B);
        world.up(A);
        world.pass(SECOND * 30);
        assert!(!world.replay().contains(&Synced(V)), "{kind:?}");
        world.with_core(|core, _| {
            core.unsubscribe(V);
            core.subscribe(V);
        });
        world.settle();
        let told = [Synced(V), Settled(V)];
        assert!(world.replay().ends_with(&told), "{kind:?}");
    }
}

#[test]
fn synced_of_a_subscription_that_ended_is_not_told() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.up(A);
    world.server(A).is_held = true;
    world.with_core(|core, _| {
        core.unsubscribe(V);
        core.subscribe(V);
    });
    world.settle();
    assert_eq!(
        world.replay(),
        [ServerUp(A)],
        "the new table is not complete"
    );
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(world.replay(), [Synced(V), Settled(V)]);
}

/// A consumer that takes one event where ten happen: it misses what was undone, ends
/// with the right table, and hears of other things in time.
#[test]
fn slow_consumer_is_behind_but_right() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| core.subscribe(W));
    let mut synced_after = None;
    for step in 0..5000 {
        for _ in 0..10 {
            let number = random.u32(..500);
            let action = if random.bool() { Add } else { Remove };
            world.say(A, action, V, route(number));
        }
        world.settle();
        if world.replay_some(1).contains(&Synced(W)) {
            synced_after.get_or_insert(step);
        }
    }
    let after = synced_after.expect("Synced is not put off for ever");
    assert!(after <= 600, "{after} events before it, of 500 routes");
    world.check_events();
    assert_eq!(world.told, world.servers[0].table);
}

#[test]
fn broken_messages_are_dropped_and_the_session_lives() {
    let mut world = World::subscribed(Modern);
    // An UPDATE of VNI 100 without a next hop, then a good one.
    let mut bytes = vec![1, 0, 2, 5, 0x10, 100];
    crate::core::wire::encode_update(&mut bytes, Add, V, &route(1));
    world.with_core(|core, now| core.receive(A, &bytes, now));
    assert_eq!(world.replay(), [RouteAdded(V, route(1))]);
    world.say(A, Remove, V, route(1));
    assert!(world.is_established(A));
}

/// A server that sends nothing else does not fill the log with it.
#[test]
fn broken_messages_are_counted_and_reported_once_a_minute() {
    let mut world = World::subscribed(Modern);
    let broken = [1, 0, 0, 5].repeat(2);
    let dropped = |world: &mut World| world.with_core(|core, now| core.receive(A, &broken, now));
    let why = crate::core::wire::Malformed::NoDestination;
    assert_eq!(dropped(&mut world), Some((why, 1)));
    assert_eq!(dropped(&mut world), None);
    world.pass(SECOND * 61);
    assert_eq!(dropped(&mut world), Some((why, 5)));
}

#[test]
fn forbidden_messages_of_a_server_end_the_session() {
    for frame in [
        [1, 0, 0, 3],
        [1, 0, 0, 4],
        [1, 0, 0, 1],
        [1, 0, 0, 9],
        [2, 0, 0, 2],
        [1, 255, 255, 5],
    ] {
        let mut world = World::subscribed(Modern);
        world.with_core(|core, now| core.receive(A, &frame, now));
        assert_eq!(world.state(A), ConnectionState::Retry, "{frame:?}");
    }
    // END_OF_RIB is for those who offered it.
    let mut world = World::subscribed(Go);
    world.with_core(|core, now| core.receive(A, &[1, 0, 2, 160, 8, 100], now));
    assert_eq!(world.core.last_loss(A), Some(CloseReason::Unexpected(160)));
}

#[test]
fn same_inputs_give_the_same_outputs() {
    let run = || {
        let mut world = World::with(&[Modern, Go], config());
        let start = world.now;
        world.core.subscribe(V);
        world.server(A).table = (0..100).map(|it| (V, route(it))).collect();
        world.up(A);
        world.down(A);
        world.pass(SECOND * 100);
        let dials: Vec<_> = world.dials.iter().map(|it| (it.0, it.1 - start)).collect();
        let events = world.replay();
        assert!(!events.contains(&RouteRemoved(V, route(0))));
        (dials, events)
    };
    assert_eq!(run(), run());
}
