//! The view is the union of what the servers say.

use std::time::Duration;

use super::script::Kind::{Go, Modern};
use super::world::{HOLD, World};
use super::*;
use crate::core::client::Event::{RouteAdded, RouteRemoved, ServerUp, Settled, Synced};
use crate::core::session::CloseReason;
use crate::core::types::Action::{Add, Remove};

fn two() -> World {
    let mut world = World::new(&[Modern, Go]);
    world.core.subscribe(V);
    world.up(A);
    world.up(B);
    world.replay();
    world
}

#[test]
fn first_server_adds_the_last_removes() {
    let mut world = two();
    let mut step = |server, action, expected: &[_]| {
        world.say(server, action, V, route(1));
        world.settle();
        assert_eq!(world.replay(), expected, "{server} {action:?}");
    };
    step(A, Add, &[RouteAdded(V, route(1))]);
    step(B, Add, &[]);
    step(A, Remove, &[]);
    step(A, Add, &[]);
    step(B, Remove, &[]);
    step(A, Remove, &[RouteRemoved(V, route(1))]);
    step(B, Add, &[RouteAdded(V, route(1))]);
}

#[test]
fn next_hops_of_one_destination_are_routes_of_their_own() {
    let mut world = two();
    world.say(A, Add, V, route(1));
    world.say(B, Add, V, other(1));
    world.settle();
    let both = [RouteAdded(V, route(1)), RouteAdded(V, other(1))];
    assert_eq!(world.replay(), both);
    assert_eq!(world.view(V), [route(1), other(1)].into());
    assert_eq!(world.core.route_count(), 2);
    world.say(A, Remove, V, route(1));
    world.settle();
    assert_eq!(world.replay(), [RouteRemoved(V, route(1))]);
    let hop = other(1).next_hop;
    let servers = world.core.servers_of(V, &destination(1), &hop);
    assert_eq!(servers, Some(vec![B]));
}

#[test]
fn of_many_next_hops_each_goes_by_itself() {
    let mut world = two();
    let routes = (1..20).map(|it| Route::new(destination(1), NextHop::standard(hypervisor(it))));
    let routes: Vec<Route> = routes.collect();
    for route in &routes {
        world.say(A, Add, V, *route);
    }
    world.settle();
    assert_eq!(world.replay().len(), routes.len());
    for route in &routes {
        world.say(A, Remove, V, *route);
        world.settle();
        assert_eq!(world.replay(), [RouteRemoved(V, *route)]);
    }
    assert_eq!(world.core.route_count(), 0);
}

/// Go row 9: an ADD is repeated for each further announcer.
#[test]
fn repeated_add_is_no_event() {
    let mut world = World::new(&[Go]);
    world.core.subscribe(V);
    world.server(A).say(Add, V, route(1));
    world.up(A);
    let expected = [ServerUp(A), RouteAdded(V, route(1)), Synced(V), Settled(V)];
    assert_eq!(world.replay(), expected);
    world.say(A, Remove, V, route(1));
    world.settle();
    assert_eq!(world.replay(), [RouteRemoved(V, route(1))]);
}

#[test]
fn remove_of_what_nobody_has_is_no_event() {
    let mut world = two();
    world.say(A, Add, V, route(1));
    world.settle();
    world.replay();
    let mut frame = Vec::new();
    crate::core::wire::encode_update(&mut frame, Remove, V, &route(2));
    crate::core::wire::encode_update(&mut frame, Remove, V, &other(1));
    crate::core::wire::encode_update(&mut frame, Remove, W, &route(1));
    // The other server takes back what it has not said.
    for server in [A, B] {
        world.with_core(|core, now| core.receive(server, &frame, now));
    }
    crate::core::wire::encode_update(&mut frame, Remove, V, &route(1));
    world.with_core(|core, now| core.receive(B, &frame, now));
    assert_eq!(world.replay(), []);
    assert_eq!(world.view(V), [route(1)].into());
}

/// Go row 4: own announcements of a Go server come once, before its first
/// KEEPALIVE, and in no table.
#[test]
fn announcements_of_a_server_before_its_first_keepalive_count() {
    let mut world = World::new(&[Go]);
    world.server(A).own = [(V, route(1)), (W, route(2))].into();
    world.core.subscribe(V);
    world.up(A);
    let expected = [RouteAdded(V, route(1)), ServerUp(A), Synced(V), Settled(V)];
    assert_eq!(world.replay(), expected);
    assert_eq!(world.view(W), [].into(), "not wanted");
    // Lost and back: it says so again.
    world.cut(A);
    world.up(A);
    world.check_events();
    assert_eq!(world.view(V), [route(1)].into());
}

/// A Go server that has just accepted, and announces a route of its own before the handshake is
/// through.
fn server_that_tells_early() -> World {
    let mut world = World::new(&[Go]);
    world.core.subscribe(V);
    world.server(A).own = [(V, route(1))].into();
    world.server(A).is_there = true;
    world.dial();
    world.server(A).is_held = true;
    world
}

#[test]
fn early_updates_go_with_a_server_that_is_never_established() {
    let mut world = server_that_tells_early();
    world.settle();
    // All but the end of the KEEPALIVE.
    let waiting = world.talk(A).outbox.len();
    world.deliver(A, waiting);
    world.settle();
    let waiting = world.talk(A).outbox.len();
    world.deliver(A, waiting - 1);
    assert_eq!(world.replay(), [RouteAdded(V, route(1))]);
    world.down(A);
    world.pass(HOLD);
    world.check_events();
    assert_eq!(world.told, [].into());
}

#[test]
fn early_updates_go_with_their_subscription() {
    let mut world = server_that_tells_early();
    for _ in 0..2 {
        world.settle();
        let waiting = world.talk(A).outbox.len();
        let end = usize::from(world.talk(A).is_established);
        world.deliver(A, waiting - end);
    }
    world.with_core(|core, _| core.unsubscribe(V));
    world.server(A).is_held = false;
    world.settle();
    world.check_events();
    assert_eq!(world.told, [].into());
    assert_eq!(world.core.route_count(), 0);
    world.check_servers();
}

/// `A` and `B` are two names of one server, which is connected by the first.
fn server_of_two_names() -> World {
    let mut world = World::new(&[Modern, Modern, Modern]);
    world.server(B).node = 9;
    world.core.subscribe(V);
    world.say(A, Add, V, route(1));
    world.say(B, Add, V, route(1));
    world.up(A);
    world.server(B).is_there = true;
    world.pass(Duration::from_secs(15));
    assert!(world.is_established(A) && !world.is_established(B));
    assert_eq!(world.core.twin(B), Some(A));
    world
}

/// Through the second name the server would take the client for another one, and give its own
/// routes back to it.
#[test]
fn server_under_two_names_has_one_session_and_its_other_name_takes_over() {
    let mut world = server_of_two_names();
    assert_eq!(world.core.last_loss(B), Some(CloseReason::Duplicate));
    assert_eq!(world.core.is_synced(V), Some(true));
    let dials = world.dials.len();
    world.pass(Duration::from_secs(30));
    let others = world.dials[dials..].iter().filter(|(id, _)| *id == B);
    assert_eq!(others.count(), 0, "it is left alone");
    world.replay();
    // The first name fails: the second takes over at once, and no route goes.
    world.down(A);
    world.pass(Duration::from_millis(10));
    assert!(world.is_established(B));
    world.pass(Duration::from_secs(20));
    let routes = world.replay().into_iter();
    let routes = routes.filter(|it| matches!(it, RouteAdded(..) | RouteRemoved(..)));
    assert_eq!(routes.count(), 0);
    assert_eq!(
        world
            .core
            .servers_of(V, &route(1).destination, &route(1).next_hop),
        Some(vec![B])
    );
}

/// The other name is dialled at once, so that nothing is removed for the moment between.
#[test]
fn name_of_a_server_that_is_dropped_hands_its_routes_to_the_other_name() {
    let mut world = server_of_two_names();
    world.up(ServerId(2));
    world.replay();
    assert!(world.with_core(|core, now| core.remove_server(A, now)));
    assert_eq!(world.view(V), [route(1)].into());
    world.pass(Duration::from_secs(1));
    assert!(world.is_established(B));
    let routes = world.replay().into_iter();
    let mut routes = routes.filter(|it| matches!(it, RouteAdded(..) | RouteRemoved(..)));
    assert_eq!(routes.next(), None);
}
