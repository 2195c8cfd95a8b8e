//! Nobody is there for long, or nothing is kept of who is lost: what counts as complete then.

use std::time::Duration;

use super::script::Kind::Modern;
use super::settle::{KINDS, SECOND, SETTLE, kill, settling, start};
use super::world::{HOLD, World, config};
use super::*;
use crate::core::client::Event::Settled;

/// However long there was no server: the first one back is not all there is.
#[test]
fn server_that_comes_back_after_the_stale_time_is_not_taken_for_all() {
    for kind in KINDS {
        let mut world = settling(&[kind, kind]);
        world.server(A).table = [(V, route(1)), (V, route(2))].into();
        world.server(B).table = [(V, route(2))].into();
        world.pass(SECOND);
        world.up(A);
        world.up(B);
        world.replay();
        kill(&mut world, A);
        kill(&mut world, B);
        world.pass(HOLD * 2);
        assert_eq!(world.core.route_count(), 0, "{kind:?}");
        assert_eq!(world.core.is_synced(V), Some(false), "{kind:?}");
        world.server(A).table = [(V, route(1)), (V, route(2))].into();
        start(&mut world, A);
        world.shake_hands(A);
        world.server(A).is_held = true;
        start(&mut world, B);
        world.up(B);
        world.pass(SECOND * 3);
        assert!(world.is_established(A) && world.is_established(B));
        let why = world.core.not_ready();
        assert!(why.is_some(), "{kind:?}: the other is at hand");
        world.server(A).is_held = false;
        world.pass(SECOND * 20);
        assert_eq!(world.core.not_ready(), None, "{kind:?}");
        assert_eq!(world.core.is_synced(V), Some(true), "{kind:?}");
        assert_eq!(world.view(V), [route(1), route(2)].into(), "{kind:?}");
    }
}

/// The kernel is pruned at that moment, of what a client before this one left.
#[test]
fn vni_is_not_settled_by_an_empty_server_however_long_it_was_awaited() {
    let mut world = settling(&[Modern]);
    world.pass(HOLD * 3);
    start(&mut world, A);
    world.up(A);
    let back = world.now;
    while !world.replay().contains(&Settled(V)) {
        world.pass(SECOND);
    }
    assert!(
        world.now >= back + SETTLE - SECOND,
        "{:?}",
        world.now - back
    );
}

/// Without a stale time a table is complete when it is complete.
#[test]
fn stale_time_of_zero_does_not_shorten_the_wait_for_a_table() {
    let mut config = config();
    config.stale_time = Duration::ZERO;
    let mut world = World::with(&[Modern, Modern], config);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1)), (V, route(2))].into();
    world.server(B).table = [(V, route(2))].into();
    world.server(A).is_there = true;
    world.dial();
    world.shake_hands(A);
    world.server(A).is_held = true;
    world.up(B);
    world.pass(SECOND * 3);
    assert_eq!(world.core.is_synced(V), Some(false));
    world.server(A).is_held = false;
    world.pass(SECOND);
    assert_eq!(world.core.is_synced(V), Some(true));
    assert_eq!(world.core.route_count(), 2);
}
