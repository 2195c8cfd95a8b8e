//! Own announcements and the routes of others for the same destinations.

use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::World;
use super::*;
use crate::core::client::Event::{RouteAdded, RouteRemoved};
use crate::core::types::Action::{Add, Remove};

const KINDS: [Kind; 3] = [Modern, Go, OldRust];

#[test]
fn standard_routes_are_suppressed_while_the_destination_is_ones_own() {
    let mut world = World::subscribed(Modern);
    let mut step = |act: &mut dyn FnMut(&mut World), expected: &[_]| {
        act(&mut world);
        world.settle();
        assert_eq!(world.replay(), expected);
    };
    let (r, o) = (route(1), other(1));
    step(&mut |it| it.say(A, Add, V, r), &[RouteAdded(V, r)]);
    let mut announce = |it: &mut World| it.with_core(|core, _| assert!(core.announce(V, own(1))));
    step(&mut announce, &[RouteRemoved(V, r)]);
    step(&mut |it| it.say(A, Add, V, o), &[]);
    // A second own next hop, and the first leaves: still own.
    let second = Route::new(destination(1), NextHop::standard(hypervisor(9)));
    step(
        &mut |it| it.with_core(|core, _| assert!(core.announce(V, second))),
        &[],
    );
    step(
        &mut |it| it.with_core(|core, _| assert!(core.withdraw(V, own(1)))),
        &[],
    );
    step(&mut |it| it.say(A, Remove, V, r), &[]);
    let mut withdraw = |it: &mut World| it.with_core(|core, _| assert!(core.withdraw(V, second)));
    step(&mut withdraw, &[RouteAdded(V, o)]);
    step(&mut |it| it.say(A, Remove, V, o), &[RouteRemoved(V, o)]);
}

#[test]
fn suppressed_routes_are_held_and_marked() {
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    world.say(A, Add, V, route(1));
    world.say(A, Add, V, route(2));
    world.settle();
    assert_eq!(
        world.core.received(V),
        [(route(1), true), (route(2), false)]
    );
    assert_eq!(world.core.received_everywhere(), [(V, route(2))]);
    assert_eq!(world.core.route_count(), 2);
}

#[test]
fn nat_and_load_balancers_are_never_suppressed_and_suppress_nothing() {
    let hops = |host| {
        [
            NextHop::nat(hypervisor(host), 1024, 2047),
            NextHop::load_balancer(hypervisor(host)),
        ]
    };
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    for hop in hops(1) {
        world.say(A, Add, V, Route::new(destination(1), hop));
    }
    world.say(A, Add, V, route(2));
    world.settle();
    assert_eq!(world.replay().len(), 3);
    for hop in hops(7) {
        let route = Route::new(destination(2), hop);
        world.with_core(|core, _| assert!(core.announce(V, route)));
    }
    assert_eq!(world.replay(), []);
}

#[test]
fn destinations_are_ones_own_in_their_vni_only() {
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| assert!(core.announce(W, own(1))));
    world.say(A, Add, V, route(1));
    world.settle();
    assert_eq!(world.replay(), [RouteAdded(V, route(1))]);
}

#[test]
fn route_that_is_withdrawn_while_suppressed_goes_silently() {
    for kind in KINDS {
        let mut world = World::subscribed(kind);
        world.with_core(|core, _| assert!(core.announce(V, own(1))));
        world.say(A, Add, V, route(1));
        world.settle();
        world.with_core(|core, _| core.unsubscribe(V));
        world.settle();
        assert_eq!(world.replay(), []);
        world.with_core(|core, _| assert!(core.withdraw(V, own(1))));
        world.settle();
        assert_eq!(world.replay(), []);
        assert_eq!(world.core.held(), 0);
    }
}

/// Go rows 8 and 9: Go sends our own routes back with the initial table, and
/// does not tell us when we, the last announcer, withdraw them.
#[test]
fn echo_does_not_outlive_the_announcement() {
    let balancer = Route::new(destination(2), NextHop::load_balancer(OWN));
    let mut world = World::new(&[Go]);
    world.up(A);
    world.with_core(|core, _| {
        assert!(core.announce(V, own(1)));
        assert!(core.announce(V, balancer));
    });
    world.settle();
    world.with_core(|core, _| core.subscribe(V));
    world.settle();
    world.check_events();
    assert_eq!(world.told, [(V, balancer)].into(), "as Go has it");
    world.with_core(|core, _| {
        assert!(core.withdraw(V, own(1)));
        assert!(core.withdraw(V, balancer));
    });
    world.settle();
    world.check_events();
    assert_eq!(world.told, [].into(), "a route to ourselves stayed");
    assert_eq!(world.core.held(), 0, "beyond the subscription");
}

/// What another server of this implementation says is never an echo.
#[test]
fn same_route_of_another_stays_with_a_modern_server() {
    let mut world = World::subscribed(Modern);
    world.say(A, Add, V, route(1));
    world.with_core(|core, _| {
        assert!(core.announce(V, route(1)));
        assert!(core.withdraw(V, route(1)));
    });
    world.settle();
    world.check_events();
    assert_eq!(world.told, [(V, route(1))].into());
}

/// A kernel masks host bits: the two prefixes are one route there.
#[test]
fn own_destination_suppresses_those_that_differ_by_host_bits_only() {
    let of = |last: u8, length, host| {
        let destination = Destination::from_ipv4([10, 1, 2, last].into(), length);
        Route::new(destination, NextHop::standard(hypervisor(host)))
    };
    let mine = Route::new(of(3, 24, 1).destination, NextHop::standard(OWN));
    let masked = [of(0, 24, 1), of(3, 24, 1), of(9, 24, 2)];
    let others = [of(0, 25, 1), of(3, 32, 1)];
    let mut world = World::subscribed(Modern);
    for route in masked.into_iter().chain(others) {
        world.say(A, Add, V, route);
    }
    world.settle();
    assert_eq!(world.replay().len(), 5);
    world.with_core(|core, _| assert!(core.announce(V, mine)));
    assert_eq!(world.replay(), masked.map(|it| RouteRemoved(V, it)));
    // One that comes later is suppressed at once; one that goes is not told again.
    world.say(A, Add, V, of(7, 24, 1));
    world.say(A, Remove, V, of(9, 24, 2));
    world.settle();
    assert_eq!(world.replay(), []);
    world.check_events();
    world.with_core(|core, _| assert!(core.withdraw(V, mine)));
    let back = [of(0, 24, 1), of(3, 24, 1), of(7, 24, 1)];
    assert_eq!(world.replay(), back.map(|it| RouteAdded(V, it)));
    world.with_core(|core, _| core.unsubscribe(V));
    world.settle();
    world.check_events();
    assert_eq!(world.core.held(), 0);
}

/// A server that reads, talks, and answers no KEEPALIVE.
#[test]
fn flapping_announcement_that_no_server_proves_to_have_read_costs_no_memory() {
    let mut world = World::subscribed(Modern);
    world.with_core(|core, _| core.announce(V, own(2)));
    world.server(A).is_mute = true;
    for _ in 0..10_000 {
        world.with_core(|core, _| core.announce(V, own(1)));
        world.settle();
        world.with_core(|core, _| core.withdraw(V, own(1)));
        world.settle();
    }
    assert!(world.core.unproven(A) <= 1024);
    world.server(A).is_mute = false;
    world.with_core(|core, _| core.announce(V, own(1)));
    world.pass(std::time::Duration::from_secs(6));
    for number in [1, 2] {
        let states = world.core.announcement(V, own(number)).unwrap();
        let read = crate::core::client::AnnouncementState::Acknowledged;
        assert_eq!(states[&A], read, "{number}");
    }
}
