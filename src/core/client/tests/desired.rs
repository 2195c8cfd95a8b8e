//! Every server is brought to what the caller wants, once and whenever it comes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::script::Heard;
use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::World;
use super::*;

const KINDS: [Kind; 3] = [Modern, Go, OldRust];

/// What a server heard beyond the handshake and KEEPALIVEs, in order of content.
fn heard(world: &World, server: ServerId) -> Vec<Heard> {
    let all = world.talk(server).heard.iter().copied();
    all.filter(|it| !matches!(it, Heard::Hello | Heard::Keepalive))
        .collect()
}

fn want(world: &mut World) {
    world.with_core(|core, _| {
        assert!(core.subscribe(V));
        assert!(!core.subscribe(V));
        assert!(core.announce(V, own(1)));
        assert!(core.announce(W, own(2)));
        assert!(!core.announce(W, own(2)));
        assert!(!core.withdraw(W, own(3)));
    });
}

fn wanted() -> [Heard; 3] {
    [
        Heard::Subscribe(V),
        Heard::Add(V, own(1)),
        Heard::Add(W, own(2)),
    ]
}

#[test]
fn wishes_of_any_time_reach_each_server_once() {
    for kind in KINDS {
        let mut world = World::new(&[kind, kind]);
        want(&mut world);
        world.up(A);
        assert_eq!(heard(&world, A), wanted(), "before any server was up");
        world.down(A);
        world.with_core(|core, _| assert!(core.announce(V, own(3))));
        world.up(A);
        let mut expected = wanted().to_vec();
        expected.insert(2, Heard::Add(V, own(3)));
        assert_eq!(heard(&world, A), expected, "while it was down");
        world.with_core(|core, _| assert!(core.announce(V, own(4))));
        world.settle();
        assert_eq!(heard(&world, A).last(), Some(&Heard::Add(V, own(4))));
        world.up(B);
        expected.insert(3, Heard::Add(V, own(4)));
        assert_eq!(heard(&world, B), expected, "of the late server");
        world.pass(Duration::from_secs(60));
        assert_eq!(heard(&world, A).len(), 5, "and nothing again");
        world.check_servers();
    }
}

#[test]
fn routes_withdrawn_while_a_server_is_down_are_not_sent_to_it() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.up(A);
    world.with_core(|core, _| assert!(core.announce(V, own(1))));
    world.settle();
    world.down(A);
    world.with_core(|core, _| {
        assert!(core.withdraw(V, own(1)));
        assert!(core.announce(V, own(2)));
        assert!(core.withdraw(V, own(2)));
        core.unsubscribe(V);
        core.subscribe(W);
        core.unsubscribe(W);
    });
    world.up(A);
    assert_eq!(heard(&world, A), []);
    assert_eq!(world.core.queued(), 0);
}

#[test]
fn while_a_handshake_is_under_way_wishes_wait() {
    let mut world = World::new(&[Modern]);
    world.server(A).is_there = true;
    world.server(A).is_held = true;
    world.dial();
    world.settle();
    want(&mut world);
    world.settle();
    assert_eq!(heard(&world, A), []);
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(heard(&world, A), wanted());
}

/// Law L: ten thousand changes of mind while the socket takes nothing.
#[test]
fn flapping_before_a_full_socket_costs_no_memory_and_ends_right() {
    for kind in KINDS {
        let mut world = World::new(&[kind, kind]);
        world.up(A);
        world.up(B);
        world.with_core(|core, _| assert!(core.announce(V, own(0))));
        world.settle();
        world.server(A).is_blocked = true;
        let mut random = fastrand::Rng::with_seed(11);
        for step in 0..10_000 {
            let vni = Vni(100 + random.u32(..3));
            let route = own(random.u32(..20));
            world.with_core(|core, _| match random.u8(..4) {
                0 => drop(core.subscribe(vni)),
                1 => drop(core.unsubscribe(vni)),
                2 => drop(core.announce(vni, route)),
                _ => drop(core.withdraw(vni, route)),
            });
            // Flapping alone fills the buffer once; then the queues hold one entry a key.
            assert!(world.core.outgoing(A).len() <= 33 * 1024);
            assert!(
                world.core.queued() <= 2 * (3 + 60),
                "{}",
                world.core.queued()
            );
            if step % 100 == 0 {
                world.settle();
            }
        }
        world.server(A).is_blocked = false;
        world.settle();
        world.check_servers();
        world.check_events();
        assert_eq!(world.core.queued(), 0);
    }
}

#[test]
fn hundred_thousand_announcements_wait_in_little_room() {
    let mut world = World::new(&[Modern]);
    world.core.subscribe(V);
    world.up(A);
    world.server(A).is_blocked = true;
    world.with_core(|core, _| {
        for number in 0..100_000 {
            assert!(core.announce(V, own(number)));
        }
    });
    assert!(world.core.outgoing(A).len() <= 33 * 1024);
    world.with_core(|core, _| {
        for number in 10_000..100_000 {
            assert!(core.withdraw(V, own(number)));
        }
    });
    world.server(A).is_blocked = false;
    world.settle();
    world.check_servers();
    assert_eq!(world.talk(A).announced.len(), 10_000);
    let spoken = heard(&world, A).len();
    assert!(
        spoken < 10_010,
        "{spoken} messages for 10,000 announcements"
    );
    assert_eq!(world.core.queued(), 0);
}

#[test]
fn nothing_that_is_settled_is_remembered() {
    for kind in KINDS {
        let mut world = World::new(&[kind]);
        world.up(A);
        for round in 0..200 {
            let vni = Vni(1000 + round);
            world.with_core(|core, _| {
                core.subscribe(vni);
                assert!(core.announce(vni, own(round)));
            });
            if round % 2 == 0 {
                world.settle();
            }
            world.with_core(|core, _| {
                core.unsubscribe(vni);
                // While the UNSUBSCRIBE is on its way.
                core.subscribe(vni);
                core.unsubscribe(vni);
                assert!(core.withdraw(vni, own(round)));
            });
            world.settle();
        }
        assert_eq!(world.core.held(), 0, "{kind:?}");
        assert_eq!(world.talk(A).announced, BTreeSet::new());
    }
}
