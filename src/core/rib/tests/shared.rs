//! Routes that several announce, and the memory of those that are gone.

use super::*;

/// A peer that shares a route and flaps it among other changes costs the others nothing.
#[test]
fn changes_for_single_peers_do_not_shred_what_all_hear() {
    let mut world = World::new();
    world.apply(1, Action::Add, 0);
    for number in 1..500 {
        world.apply(9, Action::Add, number);
        let action = if number % 2 == 1 {
            Action::Add
        } else {
            Action::Remove
        };
        world.apply(2, action, 0);
    }
    let fresh = world.table.take_fresh(&world.hops);
    assert_eq!(fresh.len(), 1, "a notice ends no segment");
    let pieces = |peer| {
        let mut pieces = 0;
        fresh[0]
            .clone()
            .for_peer(PeerId(peer), &mut |_| pieces += 1);
        pieces
    };
    assert_eq!([7, 9].map(pieces), [1, 1], "all but the block at the end");
    assert_eq!(pieces(1), 1, "its own notices stand there");
}

/// A change for all of a route must not overtake one for a single peer.
#[test]
fn changes_of_one_route_keep_their_order_when_some_are_for_single_peers() {
    let mut world = World::new();
    for peer in [1, 2, 3] {
        world.join(PeerId(peer));
    }
    for round in 0..20 {
        world.apply(1, Action::Add, 0);
        world.apply(2, Action::Add, 0);
        world.apply(1, Action::Remove, 0);
        world.apply(2, Action::Remove, 0);
        world.apply(3, Action::Add, round);
        world.check_joins();
    }
    world.flush();
    world.check();
}

/// Nothing is encoded for one peer: two that share a route read the log that all read.
#[test]
fn peers_that_share_a_route_share_the_log() {
    let mut world = World::new();
    for number in 0..100 {
        world.apply(9, Action::Add, number);
    }
    world.apply(1, Action::Add, 100);
    world.apply(2, Action::Add, 100);
    world.flush();
    let log = world.table_of(3);
    let log = log[0].bytes().as_ptr_range();
    let log = log.start..log.start.wrapping_add(SEGMENT_BYTES);
    for peer in [1, 2] {
        for span in world.table_of(peer) {
            assert!(log.contains(&span.bytes().as_ptr()), "peer {peer}");
        }
    }
    world.check_joins();
}

/// Two that flap a route they share in opposite order cost the others nothing.
#[test]
fn routes_that_are_shared_and_flap_do_not_shred_what_all_hear() {
    const PAIRS: u32 = 200;
    let mut world = World::new();
    world.join(PeerId(9));
    world.join(PeerId(1));
    for number in 0..PAIRS {
        world.apply(1, Action::Add, number);
    }
    world.flush();
    for round in 0..10 {
        for number in 0..PAIRS {
            world.apply(2, Action::Add, number);
            world.apply(1, Action::Remove, number);
            world.apply(2, Action::Remove, number);
            world.apply(1, Action::Add, number);
            world.apply(3, Action::Add, 1000 + round * PAIRS + number);
        }
    }
    let fresh = world.table.take_fresh(&world.hops);
    let mut pieces = Vec::new();
    for span in &fresh {
        let push = &mut |span: Span| pieces.push(span.len());
        span.clone().for_peer(PeerId(9), push);
    }
    assert!(pieces.len() <= 2 * fresh.len(), "{pieces:?}");
    for (&peer, subscriber) in &mut world.subscribers {
        subscriber.read(peer, &fresh);
    }
    assert_eq!(world.subscribers[&PeerId(9)].frames, 11 * PAIRS as usize);
    world.check();
    world.check_joins();
}

/// What amounts to nothing is not told, whatever happened meanwhile.
#[test]
fn shared_route_that_ends_as_it_began_is_not_told() {
    let mut world = World::new();
    world.join(PeerId(9));
    world.apply(1, Action::Add, 0);
    world.flush();
    for _ in 0..100 {
        world.apply(2, Action::Add, 0);
        world.apply(1, Action::Remove, 0);
        world.apply(2, Action::Remove, 0);
        // In the slot that is free now.
        world.apply(1, Action::Add, 3);
        world.apply(1, Action::Add, 0);
        world.apply(1, Action::Remove, 3);
    }
    world.flush();
    let told = world.subscribers[&PeerId(9)].frames;
    assert_eq!(told, 1 + 200, "the route that nobody shares, to and fro");
    world.check();
    world.check_joins();
}

/// One route that stays does not hold the memory of those that are gone.
#[test]
fn table_gives_back_the_memory_of_routes_that_are_gone() {
    const COUNT: u32 = 50_000;
    const STAY: u32 = 50;
    let mut world = World::new();
    // Each fourth is shared by two, each eighth by three.
    let peers = |number: u32| {
        1..=1 + u32::from(number.is_multiple_of(4)) + u32::from(number.is_multiple_of(8))
    };
    let apply = |world: &mut World, action, number| {
        let route = route(number);
        for peer in peers(number).map(PeerId) {
            world.table.apply(&mut world.hops, peer, action, &route);
            world.truth.apply(peer, action, VNI, route);
        }
    };
    for number in 0..COUNT {
        apply(&mut world, Action::Add, number);
    }
    let full = world.table.heap_bytes();
    let stays = |number: &u32| number.is_multiple_of(COUNT / STAY);
    for number in (0..COUNT).filter(|it| !stays(it)) {
        apply(&mut world, Action::Remove, number);
    }
    let mut steps = 0;
    while world.table.wants_compaction(History::Usual) {
        world.compact(500);
        steps += 1;
        assert!(steps < COUNT, "an end");
    }
    assert!(steps > 10);
    let left = world.table.heap_bytes();
    assert!(left < full / 50, "{left} of {full}");
    world.check();
    world.check_joins();
}
