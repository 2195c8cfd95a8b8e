//! Servers that tell more than the client takes.

use std::time::Duration;

use super::script::Heard;
use super::script::Kind::{self, Go, Modern};
use super::world::{World, config};
use super::*;
use crate::core::client::events::Event;
use crate::core::client::{Limits, Report};
use crate::core::types::Action::{Add, Remove};

const SECOND: Duration = Duration::from_secs(1);
/// Shorter than a settle or stale time, longer than the pause between two requests.
const A_WHILE: Duration = Duration::from_secs(12);

fn world(kinds: &[Kind], routes: usize) -> World {
    let mut config = config();
    config.limits = Limits { routes, vnis: 2 };
    let mut world = World::with(kinds, config);
    world.core.subscribe(V);
    world
}

fn fill(world: &mut World, server: ServerId, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        world.say(server, Add, V, route(number));
    }
}

fn removed(events: &[Event]) -> usize {
    let is_removal = |it: &&Event| matches!(it, Event::RouteRemoved(..));
    events.iter().filter(is_removal).count()
}

#[test]
fn routes_beyond_the_limit_are_refused_and_counted_and_the_session_stays() {
    let mut world = world(&[Modern], 5);
    fill(&mut world, A, 0..8);
    world.up(A);
    assert_eq!(world.view(V).len(), 5);
    assert_eq!(world.core.refused(), (3, 3));
    fill(&mut world, A, 8..10);
    world.settle();
    assert_eq!(world.core.refused(), (5, 5));
    assert_eq!(world.core.route_count(), 5);
    assert!(world.is_established(A));
    // The server is told once a second at most.
    let told = |world: &World| world.core.peers(world.now)[0].1.sent.notice;
    assert_eq!(told(&world), 1);
    world.pass(SECOND);
    assert_eq!(told(&world), 2);
    assert_eq!(removed(&world.replay()), 0);
    assert!(
        world
            .core
            .not_ready()
            .is_some_and(|why| why.contains("5 routes are missing"))
    );
    world.check_events();
}

/// Go announces a route twice where its table and an update meet, and any server may withdraw what
/// it never told.
#[test]
fn doubled_announcements_and_withdrawals_of_unknown_routes_leave_the_missing_count_true() {
    let mut world = world(&[Go], 5);
    fill(&mut world, A, 0..7);
    world.up(A);
    let held = world.view(V);
    let mut frames = Vec::new();
    let refused = (0..7).map(route).filter(|it| !held.contains(it));
    for route in refused {
        crate::core::wire::encode_update(&mut frames, Add, V, &route);
    }
    crate::core::wire::encode_update(&mut frames, Remove, V, &route(50));
    let (before, _) = world.core.refused();
    world.with_core(|core, now| core.receive(A, &frames, now));
    assert_eq!(world.core.refused(), (before + 2, 2));
    assert!(!world.core.is_settled(V));
}

#[test]
fn route_that_is_held_is_taken_from_another_server_at_the_limit() {
    let mut world = world(&[Modern, Modern], 5);
    fill(&mut world, A, 0..5);
    world.up(A);
    fill(&mut world, B, 0..5);
    world.up(B);
    assert_eq!(world.core.refused(), (0, 0));
    world.down(A);
    world.pass(A_WHILE);
    assert_eq!(removed(&world.replay()), 0);
    assert_eq!(world.core.route_count(), 5);
}

#[test]
fn view_is_complete_again_once_there_is_room_and_nothing_is_removed_for_it() {
    let mut world = world(&[Modern], 5);
    fill(&mut world, A, 0..8);
    world.up(A);
    world.replay();
    let gone: Vec<Route> = world.view(V).into_iter().take(3).collect();
    for route in &gone {
        world.say(A, Remove, V, *route);
    }
    world.pass(A_WHILE);
    assert_eq!(world.core.refused(), (3, 0));
    assert_eq!(removed(&world.replay()), 3);
    let table = world.server(A).table.clone();
    let told = table.into_iter().map(|(_, route)| route);
    assert_eq!(world.view(V), told.collect());
    assert_eq!(world.core.not_ready(), None);
    world.check_events();
    world.check_servers();
}

#[test]
fn table_that_is_told_again_keeps_its_routes_as_long_as_that_takes() {
    let mut world = world(&[Modern, Modern], 6);
    fill(&mut world, A, 0..9);
    world.up(A);
    world.up(B);
    // Long after the servers were established, the table takes a minute.
    world.pass(SECOND * 1000);
    world.replay();
    let gone: Vec<Route> = world.view(V).into_iter().take(3).collect();
    for route in &gone {
        world.say(A, Remove, V, *route);
    }
    world.deliver(A, usize::MAX);
    world.server(A).is_held = true;
    world.pass(A_WHILE);
    assert_eq!(removed(&world.replay()), 3);
    assert_eq!(world.core.route_count(), 3);
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(removed(&world.replay()), 0);
    assert_eq!(world.core.route_count(), 6);
    world.check_events();
}

#[test]
fn full_limit_that_is_raised_brings_what_was_refused() {
    for stale_time in [config().stale_time, Duration::from_secs(2)] {
        let mut world = world(&[Modern], 5);
        let mut config = config();
        config.stale_time = stale_time;
        config.limits = Limits { routes: 5, vnis: 2 };
        world.core.reconfigure(config);
        fill(&mut world, A, 0..20);
        world.up(A);
        config.limits.routes = 100;
        world.core.reconfigure(config);
        world.pass(A_WHILE);
        assert_eq!(world.core.route_count(), 20, "{stale_time:?}");
        assert_eq!(removed(&world.replay()), 0);
        config.limits.routes = 5;
        world.core.reconfigure(config);
        world.pass(A_WHILE);
        let count = world.core.route_count();
        assert_eq!(count, 20, "what is above a lower limit stays");
    }
}

#[test]
fn one_route_that_goes_does_not_bring_a_large_table_again() {
    let mut world = world(&[Modern], 80);
    fill(&mut world, A, 0..200);
    world.up(A);
    let subscribes = |world: &World| {
        let heard = world.talk(A).heard.iter();
        heard.filter(|it| **it == Heard::Subscribe(V)).count()
    };
    let held: Vec<Route> = world.view(V).into_iter().collect();
    for route in &held[..9] {
        world.say(A, Remove, V, *route);
    }
    world.pass(A_WHILE);
    assert_eq!(subscribes(&world), 1);
    world.say(A, Remove, V, held[9]);
    world.pass(A_WHILE);
    assert_eq!(subscribes(&world), 2);
    assert_eq!(world.core.route_count(), 80);
}

#[test]
fn stale_copies_give_way_to_what_another_server_has_and_go_once_that_is_told() {
    let mut world = world(&[Modern, Modern], 5);
    fill(&mut world, A, 0..5);
    world.up(A);
    fill(&mut world, B, 5..7);
    world.up(B);
    assert_eq!(world.core.refused().1, 2);
    world.replay();
    world.say(A, Remove, V, route(0));
    world.say(A, Add, V, route(5));
    world.settle();
    // The client has the route from A, and refused it from B.
    assert!(world.view(V).contains(&route(5)));
    world.replay();
    world.down(A);
    world.pass(A_WHILE);
    let expected = [route(5), route(6)].into();
    assert_eq!(world.view(V), expected, "the table is whole, and vouches");
    let kept = !world.replay().contains(&Event::RouteRemoved(V, route(5)));
    assert!(kept, "it is told by one, and then by the other");
}

#[test]
fn live_routes_take_the_place_of_stale_copies_of_the_oldest_loss_first() {
    const C: ServerId = ServerId(2);
    let mut config = config();
    config.limits.routes = 6;
    config.settle_time = config.stale_time;
    let mut world = World::with(&[Modern, Modern, Modern], config);
    world.core.subscribe(V);
    for (server, numbers) in [(A, 0..2), (B, 2..4), (C, 4..6)] {
        fill(&mut world, server, numbers);
        world.up(server);
    }
    for server in [B, A] {
        world.down(server);
        world.pass(SECOND);
    }
    world.replay();
    fill(&mut world, C, 10..12);
    world.settle();
    let stale = |world: &World, numbers: std::ops::Range<u32>| {
        let view = world.view(V);
        numbers.filter(|it| view.contains(&route(*it))).count()
    };
    assert_eq!((stale(&world, 0..2), stale(&world, 2..4)), (2, 0));
    fill(&mut world, C, 12..13);
    world.settle();
    assert_eq!((stale(&world, 0..2), stale(&world, 4..6)), (1, 2));
    assert_eq!(
        (world.core.route_count(), world.core.refused()),
        (6, (0, 0))
    );
    // Nothing stale is left to give way after one more.
    fill(&mut world, C, 13..15);
    world.settle();
    assert_eq!((stale(&world, 0..2), world.core.refused()), (0, (1, 1)));
    assert_eq!(world.core.route_count(), 6);
    assert_eq!(world.core.displaced(), 4);
    world.pass(SECOND * 2);
    let limit = 6;
    let reports = world.core.take_reports();
    assert!(
        reports.contains(&Report::GaveWay { limit, total: 4 }),
        "{reports:?}"
    );
    world.check_events();
}

/// A server that is back and tells its table: what it has not told yet is not taken for gone.
#[test]
fn copies_of_a_table_that_is_being_told_give_no_way() {
    let mut world = world(&[Modern, Modern], 5);
    fill(&mut world, A, 0..5);
    world.up(A);
    world.down(A);
    world.replay();
    fill(&mut world, B, 7..9);
    world.shake_hands(B);
    let mut frames = Vec::new();
    crate::core::wire::encode_update(&mut frames, Add, V, &route(7));
    world.with_core(|core, now| core.receive(B, &frames, now));
    assert_eq!(removed(&world.replay()), 0);
    assert_eq!(world.core.route_count(), 5);
}

#[test]
fn vni_is_not_settled_while_routes_are_missing() {
    let mut world = world(&[Modern], 3);
    fill(&mut world, A, 0..4);
    world.up(A);
    let events = world.replay();
    assert!(events.contains(&Event::Synced(V)));
    assert!(!events.contains(&Event::Settled(V)));
    assert!(!world.core.is_settled(V));
    let refused = (0..4).map(route).find(|it| !world.view(V).contains(it));
    world.say(A, Remove, V, refused.unwrap());
    world.settle();
    assert!(world.replay().contains(&Event::Settled(V)));
    assert_eq!(world.core.refused(), (1, 0));
}

#[test]
fn go_server_is_asked_again_only_where_nothing_is_announced() {
    for announces in [true, false] {
        let mut world = world(&[Go], 5);
        if announces {
            world.core.announce(V, own(99));
        }
        fill(&mut world, A, 0..8);
        world.up(A);
        world.pass(SECOND * 11);
        let gone: Vec<Route> = world.view(V).into_iter().take(4).collect();
        for route in &gone {
            world.say(A, Remove, V, *route);
        }
        world.pass(SECOND * 60);
        let unsubscribed = world.talk(A).heard.contains(&Heard::Unsubscribe(V));
        assert_eq!(unsubscribed, !announces);
        assert_eq!(world.core.refused().1 == 0, !announces);
    }
}

#[test]
fn refusals_are_reported_once_a_minute_with_numbers() {
    let mut world = world(&[Modern], 5);
    fill(&mut world, A, 0..15);
    world.up(A);
    let mut reports = Vec::new();
    for number in 0..50 {
        world.say(A, Add, V, route(100 + number));
        world.pass(SECOND * 2);
        reports.extend(world.core.take_reports());
    }
    let totals = reports.iter().map(|report| match report {
        Report::Refused {
            limit: 5,
            total,
            missing,
        } if *missing as u64 == *total => *total,
        other => panic!("{other:?}"),
    });
    let totals: Vec<u64> = totals.collect();
    assert_eq!(totals.len(), 2, "{totals:?}");
    assert!(totals[0] >= 10 && totals[1] > totals[0], "{totals:?}");
    assert!(reports[0].to_string().contains("limit of 5 routes"));
}

#[test]
fn subscription_beyond_the_limit_has_no_room() {
    let mut world = world(&[Modern], 5);
    assert!(world.core.has_room_for(W));
    world.core.subscribe(W);
    assert!(!world.core.has_room_for(Vni(300)));
    assert!(world.core.has_room_for(W), "it is subscribed already");
    world.core.unsubscribe(W);
    assert!(world.core.has_room_for(Vni(300)));
}

#[test]
fn imported_copies_count_against_the_limit() {
    let mut config = config();
    config.limits.routes = 6;
    let mut world = World::with(&[Modern], config);
    let filter = crate::core::client::RouteFilter::new();
    let detail = crate::core::client::EventDetail::Routes;
    world.core.set_policy(filter, &[(V, W)], detail);
    world.core.subscribe(V);
    fill(&mut world, A, 0..8);
    world.up(A);
    assert_eq!(world.core.route_count(), 6);
    assert_eq!(world.core.refused(), (5, 5));
}

/// What the client gave up to have all of a table is still there.
#[test]
fn table_that_is_refused_when_it_is_asked_for_again_is_not_swept() {
    let mut world = world(&[Modern, Modern], 100);
    fill(&mut world, A, 0..150);
    world.say(B, Add, V, route(0));
    world.up(A);
    world.up(B);
    assert_eq!(world.core.refused().1, 50);
    world.replay();
    let gone: Vec<Route> = world.view(V).into_iter().skip(1).take(60).collect();
    world.server(A).refuses = Some(V);
    for route in &gone {
        world.say(A, Remove, V, *route);
    }
    world.pass(A_WHILE);
    assert_eq!(removed(&world.replay()), 60, "those that it withdrew");
    world.server(A).refuses = None;
    world.pass(A_WHILE * 2);
    assert_eq!(removed(&world.replay()), 0);
    assert_eq!(world.core.route_count(), 90);
    assert_eq!(world.core.not_ready(), None);
}

/// A stale time of zero is for servers that are lost.
#[test]
fn refused_routes_arrive_without_a_stale_time_too() {
    let mut config = config();
    config.limits = Limits { routes: 5, vnis: 2 };
    config.stale_time = Duration::ZERO;
    let mut world = World::with(&[Modern], config);
    world.core.subscribe(V);
    fill(&mut world, A, 0..8);
    world.up(A);
    world.replay();
    for route in world.view(V).into_iter().take(3) {
        world.say(A, Remove, V, route);
    }
    world.pass(A_WHILE);
    assert_eq!((world.core.route_count(), world.core.refused().1), (5, 0));
    assert_eq!(removed(&world.replay()), 3);
}
