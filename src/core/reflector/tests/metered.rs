//! No peer costs the others anything: the cheapest messages in the greatest number.

use super::*;

fn wide() -> ShardConfig {
    ShardConfig {
        soft_limit: 1 << 20,
        limits: Limits {
            routes_per_peer: 1_000_000,
            routes: 1_000_000,
            subscriptions_per_peer: 1_000_000,
            ..config().limits
        },
        ..config()
    }
}

fn limited(memory_limit: usize) -> ShardConfig {
    ShardConfig {
        memory_limit,
        ..wide()
    }
}

fn queued(world: &World, peer: PeerId) -> usize {
    let mut queued = 0;
    for shard in &world.shards {
        shard.for_each_session(|view| {
            if view.id == peer {
                queued = view.queued_bytes;
            }
        });
    }
    queued
}

/// Frames of one kind about some VNIs, `rounds` times over.
fn about_all(kinds: &[MessageType], vnis: std::ops::Range<u32>, rounds: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..rounds {
        for vni in vnis.clone() {
            for kind in kinds {
                encode_subscription(&mut frames, *kind, Vni(vni));
            }
        }
    }
    frames
}

#[test]
fn subscribing_again_and_again_queues_one_table() {
    for shares_a_route in [false, true] {
        let mut world = World::new(2, wide());
        let [announcer, subscriber] = [world.connect(), world.connect()];
        let vni = Vni(1);
        for number in 0..5000 {
            world.update(announcer, vni, Action::Add, route(number));
        }
        if shares_a_route {
            world.update(subscriber, vni, Action::Add, route(0));
        }
        world.run_until_quiet();
        world.subscribe(subscriber, vni);
        for turn in 0..6 {
            world.turn(turn % 2);
            while world.deliver(0, 1) || world.deliver(1, 0) {}
        }
        let one_table = queued(&world, subscriber);
        assert!(one_table > 5000 * 30);
        for _ in 0..50 {
            world.unsubscribe(subscriber, vni);
            world.subscribe(subscriber, vni);
            for turn in 0..6 {
                world.turn(turn % 2);
                while world.deliver(0, 1) || world.deliver(1, 0) {}
            }
        }
        let waiting = queued(&world, subscriber);
        assert!(waiting < one_table + 1000, "{waiting} bytes wait");
        world.check();
    }
}

#[test]
fn joins_wait_in_line_and_sessions_take_turns() {
    let mut world = World::new(1, wide());
    let [announcer, greedy, modest] = [world.connect(), world.connect(), world.connect()];
    world.update(announcer, Vni(1), Action::Add, route(1));
    world.run_until_quiet();
    let frames = about_all(&[MessageType::Subscribe], 1000..41_000, 1);
    world.send(greedy, &frames);
    let before = queued(&world, greedy);
    assert!(before < 41_000 * 6 / 4, "{before} bytes in one turn");
    world.subscribe(modest, Vni(1));
    world.turn(0);
    world.turn(0);
    assert!(world.shards[0].has_work(), "the greedy one still waits");
    assert!(queued(&world, modest) > 30, "the modest one does not");
    // One that waits is not served any more.
    let frames = about_all(&[MessageType::Unsubscribe], 1000..41_000, 1);
    world.send(greedy, &frames);
    world.run_until_quiet();
    let client = world.clients.get(&greedy).unwrap();
    assert!(client.complete.len() < 30_000);
    assert_eq!(world.shards[0].gauges().vnis, 1);
    assert_eq!(world.shards[0].gauges().subscriptions, 1);
}

#[test]
fn vnis_that_were_left_are_forgotten() {
    let mut world = World::new(2, wide());
    let peer = world.connect();
    for from in 0..20 {
        let kinds = [MessageType::Subscribe, MessageType::Unsubscribe];
        let frames = about_all(&kinds, from * 1000..(from + 1) * 1000, 2);
        world.send(peer, &frames);
        world.run_until_quiet();
        for shard in &world.shards {
            assert_eq!(shard.gauges().vnis, 0);
            assert_eq!(shard.tables().present(peer), 0);
        }
    }
    for vni in 0..100 {
        world.update(peer, Vni(vni), Action::Add, route(1));
        world.update(peer, Vni(vni), Action::Remove, route(1));
    }
    world.run_until_quiet();
    for shard in &world.shards {
        assert_eq!(shard.tables().present(peer), 0);
    }
}

#[test]
fn sessions_that_leave_do_so_a_little_in_each_turn() {
    let mut world = World::new(1, wide());
    let peers: Vec<PeerId> = (0..40).map(|_| world.connect()).collect();
    for &peer in &peers {
        for number in 0..1000 {
            world.update(peer, Vni(1), Action::Add, route(number));
        }
        let frames = about_all(&[MessageType::Subscribe], 2..500, 1);
        world.send(peer, &frames);
    }
    world.run_until_quiet();
    assert_eq!(world.shards[0].gauges().announcements, 40_000);
    for peer in peers {
        world.disconnect(peer);
    }
    let mut turns = 0;
    while world.shards[0].has_work() {
        let before = world.shards[0].gauges();
        world.turn(0);
        let after = world.shards[0].gauges();
        let withdrawn = before.announcements - after.announcements;
        assert!(withdrawn <= meter::PER_TURN / meter::WITHDRAWAL + 1);
        let left = before.subscriptions - after.subscriptions;
        assert!(left <= meter::PER_TURN / meter::VNI + 1);
        turns += 1;
    }
    assert!(turns > 6, "{turns} turns");
    world.run_until_quiet();
    assert_eq!(world.shards[0].gauges().announcements, 0);
    assert_eq!(world.shards[0].gauges().subscriptions, 0);
}

/// New routes do not get fewer; coalescing them would only make private copies.
#[test]
fn laggard_that_missed_only_new_routes_keeps_the_shared_frames() {
    let mut world = World::new(1, config());
    let [announcer, laggard] = [world.connect(), world.connect()];
    let vni = Vni(1);
    world.subscribe(laggard, vni);
    world.run_until_quiet();
    for number in 0..900 {
        world.now += Duration::from_millis(100);
        let now = world.now;
        world.home(laggard).advance(laggard, 0, now);
        world.update(announcer, vni, Action::Add, route(number));
        world.turn(0);
        world.turn(0);
    }
    let mut coalesced = 0;
    world.shards[0].for_each_session(|view| coalesced += view.counters.coalesced);
    assert_eq!(coalesced, 0);
    world.check();
}

#[test]
fn unsubscribing_drops_what_waits_and_finishes_the_frame_begun() {
    let mut world = World::new(1, wide());
    let [announcer, subscriber] = [world.connect(), world.connect()];
    for vni in [1, 2] {
        for number in 0..500 {
            world.update(announcer, Vni(vni), Action::Add, route(number));
        }
    }
    world.run_until_quiet();
    for vni in [1, 2] {
        world.subscribe(subscriber, Vni(vni));
        for number in 500..600 {
            world.update(announcer, Vni(vni), Action::Add, route(number));
            world.turn(0);
        }
    }
    world.write(subscriber, 50);
    let seen = world.clients[&subscriber].updates;
    world.unsubscribe(subscriber, Vni(1));
    world.check();
    let updates = world.clients[&subscriber].updates - seen;
    assert!((600..=601).contains(&updates), "{updates} updates");
    world.subscribe(subscriber, Vni(1));
    world.check();
}

/// Many that stalled at the same time missed the same: it is coalesced once, and shared.
#[test]
fn laggards_share_what_they_missed_and_are_served_in_turns() {
    let config = ShardConfig {
        soft_limit: 100_000,
        ..wide()
    };
    let mut world = World::new(1, config);
    let announcer = world.connect();
    let vni = Vni(1);
    let laggards: Vec<PeerId> = (0..30).map(|_| world.connect()).collect();
    for &laggard in &laggards {
        world.subscribe(laggard, vni);
    }
    world.run_until_quiet();
    world.shards[0].per_turn = meter::PER_TURN / 16;
    let mut turns = 0;
    for round in 0..8 {
        world.now += Duration::from_secs(1);
        for &laggard in &laggards {
            let now = world.now;
            world.home(laggard).advance(laggard, 0, now);
        }
        for number in 0..2000 {
            let (old, new) = (number * 2 + round % 2, number * 2 + (round + 1) % 2);
            world.update(announcer, vni, Action::Remove, route(old));
            world.update(announcer, vni, Action::Add, route(new));
        }
        world.turn(0);
        while world.shards[0].has_work() {
            world.turn(0);
            turns += 1;
        }
    }
    let (mut coalesced, mut waiting) = (0, 0);
    world.shards[0].for_each_session(|view| {
        coalesced += view.counters.coalesced;
        waiting += view.queued_bytes;
    });
    assert!(coalesced >= 60, "{coalesced} queues");
    assert!(turns > 8, "{turns} turns: not all in one");
    let queues = world.shards[0].usage().queues;
    assert!(queues < waiting / 4, "{queues} bytes hold {waiting}");
    world.check();
}

/// Memory is short: nothing new is admitted, and whoever holds most is closed.
#[test]
fn memory_limit_refuses_what_is_new_then_closes_who_holds_most() {
    let mut world = World::new(1, wide());
    let [announcer, idle] = [world.connect(), world.connect()];
    let vni = Vni(1);
    for number in 0..2000 {
        world.update(announcer, vni, Action::Add, route(number));
    }
    world.run_until_quiet();
    let used = world.shards[0].usage();
    assert!((2000 * 70..2000 * 200).contains(&used.tables), "{used:?}");
    assert!(used.sessions > 0);
    world.shards[0].reconfigure(limited(used.total() + used.total() / 16));
    world.run_until_quiet();
    let frames = about_all(&[MessageType::Subscribe], 5..6, 1);
    world.send(idle, &frames);
    let mut frame = Vec::new();
    encode_update(&mut frame, Action::Add, vni, &route(5000));
    world.send(idle, &frame);
    world.run_until_quiet();
    let gauges = world.shards[0].gauges();
    assert_eq!((gauges.routes, gauges.subscriptions), (2000, 0));
    assert_eq!(gauges.counters.refused, 2);
    assert!(world.closed.is_empty());
    world.shards[0].reconfigure(limited(used.total() / 2));
    world.turn(0);
    assert!(world.closed.is_empty(), "tables may give something back");
    world.turn(0);
    assert_eq!(world.closed, [(announcer, CloseReason::MemoryLimit)]);
    world.clients.remove(&announcer);
    world.run_until_quiet();
    assert_eq!(world.closed.len(), 1, "the rest fits");
    assert!(world.shards[0].usage().tables < 1024);
}

/// A large table grows by leaps. One that would be past the limit refuses what it would grow for.
#[test]
fn table_whose_next_leap_does_not_fit_refuses_and_closes_nobody() {
    for limit in (2048..5000).step_by(300) {
        let memory_limit = limit * 1024;
        let mut world = World::new(1, limited(memory_limit));
        let announcer = world.connect();
        for number in 0..60_000 {
            world.update(announcer, Vni(1), Action::Add, route(number));
            if number % 100 == 0 {
                world.run_until_quiet();
            }
        }
        world.run_until_quiet();
        assert!(world.closed.is_empty(), "{limit} KiB: {:?}", world.closed);
        let (gauges, used) = (world.shards[0].gauges(), world.shards[0].usage());
        assert!(used.total() < memory_limit, "{limit} KiB: {used:?}");
        assert_eq!(gauges.routes as u64 + gauges.counters.refused, 60_000);
        let least = memory_limit / 250;
        assert!(gauges.routes > least, "{} in {limit} KiB", gauges.routes);
    }
}

/// Each shard closes the greatest of its own: not one that is small beside those of another.
#[test]
fn small_session_is_not_closed_for_what_another_shard_holds() {
    const LIMIT: usize = 10 << 20;
    let mut world = World::new(1, limited(LIMIT));
    let small = world.connect();
    (0..10).for_each(|it| world.update(small, Vni(1), Action::Add, route(it)));
    world.run_until_quiet();
    let press = |world: &mut World| {
        world.shards[0].set_remote_bytes(2 * LIMIT);
        for _ in 0..10 {
            world.now += Duration::from_secs(1);
            world.turn(0);
        }
        world.shards[0].set_remote_bytes(0);
        world.turn(0);
    };
    press(&mut world);
    assert_eq!(world.closed, []);
    let great = world.connect();
    (0..20_000).for_each(|it| world.update(great, Vni(2), Action::Add, route(it)));
    world.run_until_quiet();
    press(&mut world);
    assert_eq!(world.closed, [(great, CloseReason::MemoryLimit)]);
}

/// A session that reads nothing may wait for the ends of many tables that are empty.
#[test]
fn ends_of_tables_that_wait_are_on_the_account() {
    const VNIS: u32 = 5000;
    let mut world = World::new(1, wide());
    let reader = world.connect();
    world.run_until_quiet();
    let before = world.shards[0].usage().queues;
    for vni in 0..VNIS {
        world.subscribe(reader, Vni(vni));
    }
    while world.shards[0].has_work() {
        world.turn(0);
    }
    // A frame of its own with its counts, its place in the queue, and what is known of the table.
    let each = (world.shards[0].usage().queues - before) / VNIS as usize;
    assert!(each >= 150, "{each} bytes");
    world.check();
    for _ in 0..20 {
        world.turn(0);
    }
    assert!(world.shards[0].usage().queues < before + 64 * 1024);
}

/// What was admitted costs more when it is served: tables that are queued must fit then.
#[test]
fn tables_wait_while_memory_is_over_the_limit() {
    const LIMIT: usize = 8 << 20;
    let mut world = World::new(1, limited(LIMIT));
    let all: Vec<u8> = about_all(&[MessageType::Subscribe], 0..8000, 1);
    for _ in 0..10 {
        let reader = world.connect();
        world.send(reader, &all);
        world.clients.remove(&reader);
    }
    let patient = world.connect();
    world.subscribe(patient, Vni(90_000));
    let mut most = 0;
    // One that reads nothing is closed each 200 ms.
    for _ in 0..300 {
        world.now += Duration::from_millis(10);
        world.turn(0);
        while world.write(patient, usize::MAX) > 0 {}
        most = most.max(world.shards[0].usage().total());
    }
    assert!(most < LIMIT + LIMIT / 4, "{most} bytes of {LIMIT}");
    assert!(
        world
            .closed
            .iter()
            .all(|it| it.1 == CloseReason::MemoryLimit)
    );
    assert!(world.closed.iter().all(|it| it.0 != patient));
    assert!(world.clients[&patient].complete.contains(&Vni(90_000)));
}

/// Tables that nobody changes give back their history before a session is closed.
#[test]
fn idle_tables_give_back_their_history_before_sessions_are_closed() {
    let mut world = World::new(1, wide());
    let announcer = world.connect();
    for vni in 0..200 {
        world.update(announcer, Vni(vni), Action::Add, route(0));
        // Less than what has a table compacted by itself.
        for _ in 0..15 {
            world.update(announcer, Vni(vni), Action::Add, route(1));
            world.update(announcer, Vni(vni), Action::Remove, route(1));
        }
    }
    world.run_until_quiet();
    let used = world.shards[0].usage();
    assert!(used.tables > 200 * 1500, "{used:?}");
    world.shards[0].reconfigure(limited(used.total() - 1));
    for _ in 0..100 {
        world.now += Duration::from_millis(10);
        world.turn(0);
    }
    assert!(world.closed.is_empty());
    let after = world.shards[0].usage();
    assert!(after.tables < used.tables / 2, "{used:?} {after:?}");
    // There is room again.
    world.update(announcer, Vni(7), Action::Add, route(2));
    world.run_until_quiet();
    assert_eq!(world.shards[0].gauges().routes, 201);
    world.check();
}

/// What was handed out counts as long as a slow reader holds it, compacted away or not.
#[test]
fn tables_that_slow_readers_pin_are_on_the_account_and_bounded() {
    let limit = 3_000_000;
    let config = limited(limit);
    let mut world = World::new(1, config);
    let announcer = world.connect();
    let vni = Vni(1);
    let mut most = 0;
    for round in 0..40 {
        let slow = world.connect();
        world.subscribe(slow, vni);
        for number in 0..2000 {
            let (old, new) = (number * 2 + round % 2, number * 2 + (round + 1) % 2);
            world.update(announcer, vni, Action::Remove, route(old));
            world.update(announcer, vni, Action::Add, route(new));
        }
        world.now += Duration::from_millis(250);
        for _ in 0..50 {
            world.turn(0);
        }
        most = most.max(world.shards[0].usage().total());
    }
    let used = world.shards[0].usage();
    assert!(used.queues > limit / 2, "old tables count: {used:?}");
    assert!(most > limit / 8 * 7 && most < limit, "{most} bytes at most");
    assert!(world.shards[0].gauges().counters.refused > 0);
    // When the slow ones are gone, so is what they held.
    for slow in 1..world.next {
        world.disconnect(PeerId(slow));
    }
    for _ in 0..200 {
        world.turn(0);
    }
    let used = world.shards[0].usage();
    assert!(used.total() < limit / 2, "{used:?}");
}

/// Each of many that read nothing holds a little; the one they wait for announces much more.
#[test]
fn announcer_is_not_closed_for_what_others_do_not_read() {
    let mut world = World::new(1, wide());
    let announcer = world.connect();
    let vni = Vni(1);
    let stalled: Vec<PeerId> = (0..100).map(|_| world.connect()).collect();
    for &reader in &stalled {
        world.subscribe(reader, vni);
    }
    for round in 0..100 {
        for number in round * 50..round * 50 + 50 {
            world.update(announcer, vni, Action::Add, route(number));
            for _ in 0..4 {
                world.update(announcer, vni, Action::Remove, route(number));
                world.update(announcer, vni, Action::Add, route(number));
            }
        }
        world.turn(0);
    }
    let used = world.shards[0].usage();
    assert!(used.queues > used.tables, "{used:?}");
    let limit = used.total() * 7 / 8;
    world.shards[0].reconfigure(limited(limit));
    for _ in 0..50 {
        world.now += Duration::from_millis(100);
        world.turn(0);
    }
    let closed: Vec<PeerId> = world.closed.iter().map(|it| it.0).collect();
    assert!(closed.len() > 10, "{closed:?}");
    assert!(closed.iter().all(|it| stalled.contains(it)), "{closed:?}");
    assert!(world.shards[0].usage().total() < limit);
}
