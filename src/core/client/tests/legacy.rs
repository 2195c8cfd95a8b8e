//! How much a server without reassembly is sent, and in which pieces.

use std::collections::BTreeSet;
use std::time::Duration;

use super::script::Heard;
use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::{World, config};
use super::*;
use crate::core::client::Core;
use crate::core::pace::{CHUNK, DEFAULT_RATE, Framing, LegacyPacing};
use crate::core::wire::frame_len;

const COUNT: u32 = 5000;

/// A client that has much to say to a server, whose answers are held back.
fn talkative(kind: Kind, mode: LegacyPacing, rate: u32) -> World {
    let mut config = config();
    config.pacing.mode = mode;
    config.pacing.rate = rate;
    let mut world = World::with(&[kind], config);
    world.shake_hands(A);
    for number in 0..COUNT {
        world.with_core(|core, _| assert!(core.announce(V, own(number))));
    }
    world
}

fn updates(world: &World) -> usize {
    let heard = &world.talk(A).heard;
    heard
        .iter()
        .filter(|it| matches!(it, Heard::Add(..)))
        .count()
}

#[test]
fn legacy_server_is_sent_32_kib_and_a_keepalive_and_then_nothing() {
    for kind in [Go, OldRust] {
        let mut world = talkative(kind, LegacyPacing::Auto, DEFAULT_RATE);
        let mut sent = 0;
        loop {
            let bytes = world.core.outgoing(A).to_vec();
            if bytes.is_empty() {
                break;
            }
            assert_eq!(world.core.framing(A), Framing::Chunk);
            assert!(bytes.len() <= CHUNK, "{} bytes", bytes.len());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                rest = &rest[frame_len(rest)..];
            }
            sent += bytes.len();
            world.take(A, usize::MAX);
        }
        assert!((31 << 10..33 << 10).contains(&sent), "{sent} bytes");
        world.servers[0].serve();
        assert_eq!(world.talk(A).heard.last(), Some(&Heard::Keepalive));
        // With the answer it goes on, at the rate: 32 KiB in 4 ms.
        let before = updates(&world);
        world.server(A).is_held = false;
        world.settle();
        assert_eq!(updates(&world), before, "not before its time");
        world.pass(Duration::from_millis(4));
        assert!((before + 1..3 * before).contains(&updates(&world)));
        world.pass(Duration::from_secs(1));
        assert_eq!(updates(&world), COUNT as usize);
        world.check_servers();
    }
}

#[test]
fn chunk_of_which_the_kernel_takes_a_part_is_finished_first() {
    let mut world = talkative(Go, LegacyPacing::Auto, u32::MAX);
    let whole = world.core.outgoing(A).to_vec();
    world.take(A, 50);
    assert_eq!(world.core.outgoing(A), &whole[50..]);
    world.take(A, 1);
    assert_eq!(world.core.outgoing(A), &whole[51..]);
    world.server(A).is_held = false;
    world.settle();
    world.check_servers();
}

#[test]
fn server_is_sent_as_much_as_it_takes_without_pacing() {
    let mut world = talkative(Go, LegacyPacing::Off, 4096);
    assert_eq!(world.core.framing(A), Framing::Stream);
    world.settle();
    assert_eq!(updates(&world), COUNT as usize, "it waits for nothing");
}

#[test]
fn modern_server_is_sent_as_much_as_it_takes_once_it_has_answered_quickly() {
    let mut world = talkative(Modern, LegacyPacing::Auto, 4096);
    assert_eq!(world.core.framing(A), Framing::Stream);
    world.settle();
    let first = updates(&world);
    assert!((100..300).contains(&first), "{first} in 8 KiB");
    world.server(A).is_held = false;
    world.settle();
    assert_eq!(updates(&world), COUNT as usize);
    world.server(A).is_held = true;
    for number in COUNT..COUNT * 2 {
        world.with_core(|core, _| assert!(core.announce(V, own(number))));
    }
    world.settle();
    assert_eq!(updates(&world), COUNT as usize * 2, "it waits for nothing");
}

#[test]
fn announcement_renewed_before_the_withdrawal_is_sent_is_acknowledged() {
    let mut world = talkative(Modern, LegacyPacing::Auto, 4096);
    world.settle();
    // The server has it, and is told nothing more.
    world.with_core(|core, _| assert!(core.withdraw(V, own(0))));
    world.with_core(|core, _| assert!(core.announce(V, own(0))));
    world.server(A).is_held = false;
    world.pass(Duration::from_secs(12));
    let states = world.core.announcement(V, own(0)).unwrap();
    let read = crate::core::client::AnnouncementState::Acknowledged;
    assert_eq!(states[&A], read);
}

/// Go MetalBond takes an UNSUBSCRIBE for a withdrawal of all that a peer announces, RustBond 0.1
/// does not: until the client has announced again, nobody knows.
#[test]
fn announcement_withdrawn_while_the_server_may_have_forgotten_it_is_withdrawn_there() {
    for (kind, moment) in [Go, OldRust]
        .into_iter()
        .flat_map(|it| (0..20).map(move |at| (it, at)))
    {
        let mut world = talkative(kind, LegacyPacing::Auto, DEFAULT_RATE);
        world.with_core(|core, _| core.subscribe(V));
        world.server(A).is_held = false;
        world.pass(Duration::from_secs(60));
        assert_eq!(updates(&world), COUNT as usize);
        world.with_core(|core, _| core.unsubscribe(V));
        // Some are announced again by then, the others wait for the pace.
        world.pass(Duration::from_millis(20) * moment);
        world.with_core(|core, _| {
            for number in 0..COUNT {
                assert!(core.withdraw(V, own(number)));
            }
        });
        world.pass(Duration::from_secs(60));
        assert_eq!(world.talk(A).announced, BTreeSet::new(), "{kind:?}");
        assert_eq!(world.core.held(), 0, "{kind:?}");
    }
}

#[test]
fn modern_server_that_answers_slowly_is_sent_little_at_a_time() {
    let mut world = talkative(Modern, LegacyPacing::Auto, 4096);
    world.settle();
    let mut told = updates(&world);
    for _ in 0..5 {
        world.pass(Duration::from_secs(3));
        world.server(A).is_held = false;
        world.deliver(A, usize::MAX);
        world.server(A).is_held = true;
        world.settle();
        let more = updates(&world) - told;
        assert!((50..150).contains(&more), "{more} in 4 KiB");
        told += more;
    }
}

/// The pace ends with its connection.
#[test]
fn connection_lost_behind_a_barrier_begins_anew() {
    let mut world = talkative(Go, LegacyPacing::Auto, DEFAULT_RATE);
    world.settle();
    assert!(world.core.outgoing(A).is_empty());
    world.cut(A);
    world.server(A).is_held = false;
    world.pass(Duration::from_secs(30));
    assert_eq!(updates(&world), COUNT as usize);
    world.with_core(Core::handle_timeouts);
    world.check_servers();
}
