//! Nothing is removed that somebody still has: who is awaited, for how long, and who vouches.

use std::time::Duration;

use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::{HOLD, World, config};
use super::*;
use crate::core::client::Event::{self, RouteAdded, RouteRemoved, Settled, Synced};
use crate::core::client::{Report, events::ConsumerId};
use crate::core::session::CloseReason;
use crate::core::types::Action::{Add, Remove};
use crate::core::wire::encode_update;

pub(super) const KINDS: [Kind; 3] = [Modern, Go, OldRust];
pub(super) const SETTLE: Duration = Duration::from_secs(15);
pub(super) const SECOND: Duration = Duration::from_secs(1);
const C: ServerId = ServerId(2);

pub(super) fn settling(kinds: &[Kind]) -> World {
    let mut config = config();
    config.settle_time = SETTLE;
    let mut world = World::with(kinds, config);
    world.core.subscribe(V);
    world
}

/// `A` has 1 and 2, `B` has 2; both up, complete and vouching, events forgotten.
fn two(kind: Kind) -> World {
    let mut world = settling(&[kind, kind]);
    world.server(A).table = [(V, route(1)), (V, route(2))].into();
    world.server(B).table = [(V, route(2))].into();
    world.server(A).is_there = true;
    world.up(B);
    world.pass(SECOND);
    world.check_events();
    assert_eq!(world.told.len(), 2);
    world
}

fn about_routes(events: &[Event]) -> Vec<&Event> {
    let is_about = |it: &&Event| matches!(it, RouteAdded(..) | RouteRemoved(..));
    events.iter().filter(is_about).collect()
}

/// A server is killed: its table is lost, and it cannot be reached.
pub(super) fn kill(world: &mut World, server: ServerId) {
    world.down(server);
    world.server(server).table.clear();
}

/// It is there again, and says that it was started a moment ago.
pub(super) fn start(world: &mut World, server: ServerId) {
    world.server(server).is_there = true;
    world.server(server).uptime_seconds = 0;
}

#[test]
fn slow_table_of_a_server_that_was_cut_keeps_what_only_it_has() {
    for kind in KINDS {
        let mut world = two(kind);
        world.cut(A);
        world.shake_hands(A);
        for _ in 0..60 {
            // It sends a little all the time, and is not through.
            let waiting = world.talk(A).outbox.len().min(1);
            world.deliver(A, waiting);
            world.pass(SECOND / 2);
            let events = world.replay();
            assert_eq!(about_routes(&events), [] as [&Event; 0], "{kind:?}");
        }
        world.server(A).is_held = false;
        world.pass(SETTLE * 2);
        let events = world.replay();
        assert_eq!(about_routes(&events), [] as [&Event; 0], "{kind:?}");
        assert_eq!(world.view(V), [route(1), route(2)].into());
    }
}

#[test]
fn reset_of_a_server_that_was_loading_is_not_synced() {
    for kind in KINDS {
        let mut world = settling(&[kind, kind]);
        world.server(B).table = [(V, route(1))].into();
        world.server(A).is_there = true;
        world.shake_hands(B);
        world.cut(B);
        let events = world.replay();
        assert!(!events.contains(&Synced(V)), "{kind:?}: {events:?}");
        world.server(B).is_held = false;
        world.pass(SETTLE);
        let events = world.replay();
        let at = |event| events.iter().position(|it| *it == event);
        let added = at(RouteAdded(V, route(1))).expect("it is told");
        let synced = at(Synced(V)).expect("it is told");
        assert!(added < synced, "{events:?}");
    }
}

#[test]
fn server_that_stays_away_does_not_keep_a_table_from_being_synced() {
    for kind in KINDS {
        let mut world = settling(&[kind, kind]);
        world.server(A).is_there = true;
        world.shake_hands(B);
        world.down(B);
        assert!(!world.replay().contains(&Synced(V)), "{kind:?}");
        world.pass(SETTLE * 2);
        assert!(world.replay().contains(&Synced(V)), "{kind:?}");
        // One that was never reached is awaited for one attempt.
        let mut world = settling(&[kind, kind]);
        world.up(A);
        assert!(world.replay().contains(&Synced(V)), "{kind:?}");
    }
}

#[test]
fn server_away_for_eight_seconds_removes_no_live_route() {
    for kind in KINDS {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut world = settling(&[kind]);
            let all: Vec<Route> = (0..100).map(route).collect();
            world.server(A).table = all.iter().map(|it| (V, *it)).collect();
            world.up(A);
            world.pass(SECOND * 60);
            world.replay();
            kill(&mut world, A);
            world.pass(SECOND * 8);
            start(&mut world, A);
            let mut back: Vec<(u64, Route)> =
                all.iter().map(|it| (random.u64(..10_000), *it)).collect();
            back.sort_unstable_by_key(|it| it.0);
            let mut at = 0;
            for (ms, route) in back {
                world.pass(Duration::from_millis(ms - at));
                at = ms;
                world.say(A, Add, V, route);
            }
            world.pass(SECOND * 60);
            let events = world.replay();
            assert_eq!(about_routes(&events), [] as [&Event; 0], "{kind:?}, {seed}");
            assert_eq!(world.view(V).len(), 100);
        }
    }
}

#[test]
fn rolling_restart_of_two_servers_removes_no_live_route() {
    for kind in KINDS {
        for gap in [0, 1, 3, 6, 8, 12, 20] {
            let mut random = fastrand::Rng::with_seed(gap);
            let mut world = settling(&[kind, kind]);
            let all: Vec<Route> = (0..50).map(route).collect();
            for server in [A, B] {
                world.server(server).table = all.iter().map(|it| (V, *it)).collect();
                world.server(server).is_there = true;
            }
            world.pass(SECOND * 60);
            world.replay();
            // In seconds: the servers are back after one, their announcers 5 to 9 later.
            let mut plan = vec![];
            for (server, begin) in [(A, 0.0), (B, gap as f64)] {
                plan.push((begin, server, None));
                plan.push((begin + 1.0, server, None));
                for it in &all {
                    plan.push((begin + 6.0 + random.f64() * 4.0, server, Some(*it)));
                }
            }
            plan.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (mut passed, mut events) = (0.0, Vec::new());
            for (at, server, route) in plan {
                world.pass(Duration::from_secs_f64(at - passed));
                passed = at;
                match route {
                    Some(route) => world.say(server, Add, V, route),
                    None if world.server(server).is_there => kill(&mut world, server),
                    None => start(&mut world, server),
                }
                // Told at once: what goes and comes back later would be no event.
                events.extend(world.replay());
            }
            world.pass(SECOND * 60);
            events.extend(world.replay());
            let about = about_routes(&events);
            assert_eq!(about, [] as [&Event; 0], "{kind:?}, gap of {gap} s");
        }
    }
}

#[test]
fn server_that_came_back_empty_sweeps_after_the_settle_time() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(B);
        kill(&mut world, A);
        start(&mut world, A);
        while !world.is_established(A) {
            world.pass(SECOND / 100);
        }
        let back = world.now;
        world.say(A, Add, V, route(2));
        world.pass(SETTLE - SECOND);
        assert_eq!(world.view(V), [route(1), route(2)].into(), "{kind:?}");
        // The other one is awaited until an attempt has failed.
        world.pass(SETTLE * 2);
        assert!(world.now < back + HOLD);
        assert_eq!(world.view(V), [route(2)].into(), "{kind:?}");
    }
}

/// Nobody else is awaited: it is the server itself that does not vouch.
#[test]
fn only_server_that_came_back_empty_sweeps_after_the_settle_time() {
    for kind in KINDS {
        let mut world = settling(&[kind]);
        world.server(A).table = [(V, route(1)), (V, route(2))].into();
        world.up(A);
        kill(&mut world, A);
        start(&mut world, A);
        while !world.is_established(A) {
            world.pass(SECOND / 100);
        }
        world.say(A, Add, V, route(2));
        world.pass(SETTLE - SECOND);
        assert_eq!(world.view(V), [route(1), route(2)].into(), "{kind:?}");
        world.pass(SECOND * 2);
        assert_eq!(world.view(V), [route(2)].into(), "{kind:?}");
    }
}

#[test]
fn uptime_that_a_server_tells_counts_toward_the_settle_time() {
    for (uptime, waits) in [(3600, 0), (10, 5), (0, 15)] {
        let mut world = settling(&[Modern]);
        world.server(A).uptime_seconds = uptime;
        world.up(A);
        let events = world.replay();
        assert!(events.contains(&Synced(V)), "not delayed: {events:?}");
        assert_eq!(events.contains(&Settled(V)), waits == 0);
        if waits > 0 {
            world.pass(SECOND * waits - SECOND / 2);
            assert_eq!(world.replay(), [], "{uptime}");
            world.pass(SECOND / 2);
            assert_eq!(world.replay(), [Settled(V)], "{uptime}");
        }
        let late = world.with_core(|core, _| core.attach(Default::default()));
        let told = world.core.take_events(late.unwrap(), usize::MAX);
        assert!(told.contains(&Settled(V)), "{told:?}");
    }
}

/// It may have been started a moment ago, with its announcers still on their way.
#[test]
fn legacy_server_vouches_after_the_settle_time_on_its_first_connection_too() {
    for kind in [Go, OldRust] {
        let mut world = settling(&[kind]);
        world.up(A);
        let events = world.replay();
        assert!(events.contains(&Synced(V)), "{kind:?}: not delayed");
        assert!(!events.contains(&Settled(V)), "{kind:?}");
        world.pass(SETTLE + SECOND);
        assert!(world.replay().contains(&Settled(V)), "{kind:?}");
    }
}

/// A server in the place of another that is removed does not end what that one had.
#[test]
fn routes_of_a_legacy_server_that_is_replaced_stay_until_the_new_one_vouches() {
    for kind in [Go, OldRust] {
        let mut world = settling(&[kind]);
        world.server(A).table = [(V, route(1))].into();
        world.up(A);
        world.pass(SETTLE * 2);
        let new = world.add(kind);
        world.core.remove_server(A, world.now);
        world.up(new);
        assert_eq!(world.view(V), [route(1)].into(), "{kind:?}");
        world.say(new, Add, V, route(1));
        world.pass(SETTLE * 2);
        let removed = world.replay().contains(&RouteRemoved(V, route(1)));
        assert!(!removed, "{kind:?}");
    }
}

#[test]
fn server_that_never_completes_keeps_stale_routes_for_the_stale_time_only() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(A);
        world.down(B);
        let lost = world.now;
        world.shake_hands(B);
        // It says something of another VNI, which keeps the session.
        let mut frame = Vec::new();
        encode_update(&mut frame, Add, W, &route(9));
        while world.now < lost + HOLD - SECOND * 3 {
            world.pass(SECOND * 2);
            world.with_core(|core, now| core.receive(B, &frame, now));
        }
        assert!(world.is_established(B));
        assert_eq!(world.core.route_count(), 2, "{kind:?}");
        world.pass(lost + HOLD - world.now);
        assert!(world.is_established(B));
        assert_eq!(world.core.route_count(), 0, "{kind:?}");
    }
}

#[test]
fn flaps_of_an_unrelated_server_do_not_renew_stale_routes() {
    for kind in KINDS {
        let mut world = settling(&[kind; 3]);
        world.server(A).table = [(V, route(1))].into();
        for server in [A, B, C] {
            world.server(server).table.insert((V, route(2)));
            world.server(server).is_there = true;
        }
        world.pass(SECOND * 60);
        world.down(A);
        let lost = world.now;
        let mut flaps = 0;
        while world.view(V).contains(&route(1)) {
            // It is up again before the next flap, and never long enough to vouch.
            world.cut(C);
            world.server(C).uptime_seconds = 0;
            flaps += 1;
            world.pass(SECOND * 8);
            assert!(world.is_established(C), "{kind:?}");
            let stayed = world.now - lost;
            assert!(stayed <= HOLD + SECOND * 8, "{kind:?}: {flaps} flaps");
        }
        let stayed = world.now - lost;
        assert!(stayed >= HOLD, "{kind:?}: swept after {stayed:?}");
        assert_eq!(world.view(V), [route(2)].into());
    }
}

#[test]
fn later_loss_does_not_renew_an_earlier_one() {
    for kind in KINDS {
        let mut world = settling(&[kind, kind]);
        world.server(A).table = [(V, route(1))].into();
        world.up(A);
        world.down(A);
        let first = world.now;
        world.pass(HOLD * 6 / 10);
        // It is there, and never complete.
        world.server(B).table = [(V, route(2))].into();
        world.shake_hands(B);
        let waiting = world.talk(B).outbox.len().saturating_sub(1);
        world.deliver(B, waiting);
        assert!(world.view(V).contains(&route(2)), "{kind:?}");
        world.down(B);
        let second = world.now;
        assert!(second > first + HOLD / 2);
        world.pass(first + HOLD - second - SECOND);
        assert_eq!(world.view(V), [route(1), route(2)].into(), "{kind:?}");
        world.pass(SECOND);
        assert_eq!(world.view(V), [route(2)].into(), "{kind:?}");
        world.pass(second + HOLD - world.now - SECOND);
        assert_eq!(world.view(V), [route(2)].into(), "{kind:?}");
        world.pass(SECOND);
        assert_eq!(world.view(V), [].into(), "{kind:?}");
    }
}

#[test]
fn removal_before_the_end_of_the_table_ends_no_stale_copy() {
    for kind in KINDS {
        let mut world = two(kind);
        world.down(B);
        world.cut(A);
        world.shake_hands(A);
        let mut frames = Vec::new();
        for action in [Add, Remove] {
            encode_update(&mut frames, action, V, &route(1));
        }
        world.with_core(|core, now| core.receive(A, &frames, now));
        assert!(world.view(V).contains(&route(1)), "{kind:?}");
    }
}

#[test]
fn removal_told_by_a_server_that_vouches_ends_stale_copies() {
    let mut world = two(Modern);
    world.down(A);
    world.say(B, Remove, V, route(2));
    world.settle();
    assert_eq!(world.view(V), [route(1)].into());
    // A server that was started a moment ago is not believed.
    let mut world = two(Modern);
    world.down(A);
    world.cut(B);
    start(&mut world, B);
    world.pass(SECOND * 2);
    assert!(world.is_established(B));
    world.say(B, Remove, V, route(2));
    world.settle();
    assert!(world.view(V).contains(&route(2)));
}

#[test]
fn loss_of_the_last_server_and_the_end_of_its_routes_are_reported_with_numbers() {
    let mut world = two(Modern);
    world.down(B);
    assert_eq!(world.core.take_reports(), []);
    world.down(A);
    let lost = Report::AllLost {
        routes: 2,
        vnis: 1,
        stale_time: HOLD,
    };
    assert_eq!(world.core.take_reports(), [lost]);
    world.pass(HOLD - SECOND);
    assert_eq!(world.core.take_reports(), []);
    world.pass(SECOND);
    let ended = Report::Expired { routes: 2, vnis: 1 };
    assert_eq!(world.core.take_reports(), [ended]);
    assert!(lost.to_string().contains("2 routes of 1 VNI "), "{lost}");
    assert!(ended.to_string().contains("2 routes of 1 VNI "), "{ended}");
}

#[test]
fn withdrawal_while_disconnected_keeps_the_identical_route_of_another() {
    let mut world = settling(&[Modern]);
    world.server(A).table = [(V, own(1))].into();
    world.up(A);
    world.with_core(|core, _| core.announce(V, own(1)));
    world.settle();
    world.down(A);
    world.with_core(|core, now| {
        core.withdraw(V, own(1));
        core.handle_timeouts(now);
    });
    world.check_events();
    assert!(!world.told.contains(&(V, own(1))), "not shown at first");
    world.pass(SETTLE);
    world.check_events();
    assert_eq!(world.told, [(V, own(1))].into(), "it is still there");
    world.pass(HOLD);
    world.check_events();
    assert_eq!(world.told, [].into());
    assert!(!world.core.has_events(ConsumerId::FIRST));
}

/// The server was not restarted, but the same outage took its announcers.
#[test]
fn announcers_that_an_outage_cut_off_too_are_waited_for() {
    for are_back in [true, false] {
        let mut world = settling(&[Modern]);
        world.server(A).table = [(V, route(1))].into();
        world.up(A);
        world.pass(SECOND);
        world.check_events();
        world.server(A).table.clear();
        world.with_core(|core, now| core.lost(A, CloseReason::Silent, now));
        world.pass(SECOND * 11);
        assert!(world.is_established(A));
        if are_back {
            world.say(A, Add, V, route(1));
        }
        assert_eq!(world.view(V), [route(1)].into());
        world.pass(SETTLE);
        let events = world.replay();
        assert_eq!(about_routes(&events).is_empty(), are_back, "{events:?}");
    }
}

#[test]
fn client_whose_stale_time_is_over_is_ready_when_a_server_has_told_again() {
    let mut world = two(Modern);
    world.down(B);
    world.down(A);
    world.pass(HOLD + SECOND);
    assert_eq!(world.view(V), [].into());
    world.shake_hands(A);
    let why = world.core.not_ready();
    assert!(why.is_some_and(|it| it.contains("VNI 100: the table is not complete")));
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(world.core.not_ready(), None);
}

#[test]
fn removed_server_is_not_awaited() {
    let mut world = two(Modern);
    assert!(world.with_core(|core, now| core.remove_server(A, now)));
    assert_eq!(world.view(V), [route(2)].into());
}

#[test]
fn longest_times_do_not_panic() {
    let mut config = config();
    config.settle_time = Duration::MAX;
    config.stale_time = Duration::MAX;
    let mut world = World::with(&[Modern, Go], config);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1))].into();
    world.up(A);
    world.down(A);
    world.up(B);
    world.cut(B);
    world.pass(SECOND * 3600);
    world.replay();
}

#[test]
fn handshake_that_outlasts_the_first_retries_is_waited_for() {
    let mut config = config();
    config.settle_time = SECOND * 5;
    let mut world = World::with(&[Modern, Modern], config);
    world.core.subscribe(V);
    world.server(A).table = [(V, route(1)), (V, route(2))].into();
    world.server(B).table = [(V, route(2))].into();
    world.server(A).is_there = true;
    world.up(B);
    world.pass(SECOND * 20);
    world.replay();
    world.down(A);
    world.pass(SECOND * 3);
    world.server(A).is_there = true;
    world.server(A).is_held = true;
    // The first retries are over after 10 s, the handshake began later than 3 s and takes 10 s.
    world.pass(SECOND * 9);
    assert!(world.core.is_up(A));
    assert_eq!(about_routes(&world.replay()), [] as [&Event; 0]);
    world.server(A).is_held = false;
    world.pass(SECOND * 60);
    assert_eq!(about_routes(&world.replay()), [] as [&Event; 0]);
    assert_eq!(world.view(V), [route(1), route(2)].into());
}
