//! What servers say of their sessions.

use std::time::Duration;

use super::script::Heard;
use super::script::Kind::Modern;
use super::world::World;
use super::*;
use crate::core::client::Refused;
use crate::core::client::events::Event;
use crate::core::types::Action::Add;
use crate::core::wire::{Notice, NoticeCode, encode_notice};

/// A world whose server B refuses the VNI.
fn world() -> World {
    let mut world = World::new(&[Modern, Modern]);
    world.server(B).refuses = Some(V);
    world.core.subscribe(V);
    world.say(A, Add, V, route(1));
    world
}

fn refusals(events: &[Event]) -> Vec<&Event> {
    let of_refusal = |it: &&Event| matches!(it, Event::Refused(..));
    events.iter().filter(of_refusal).collect()
}

#[test]
fn server_that_refuses_a_vni_is_not_waited_for() {
    let mut world = world();
    world.up(A);
    world.up(B);
    let events = world.replay();
    let why = "no".into();
    assert_eq!(
        refusals(&events),
        [&Event::Refused(B, V, Refused::Subscription, why)]
    );
    assert!(events.contains(&Event::Synced(V)), "{events:?}");
    assert!(events.contains(&Event::Settled(V)), "{events:?}");
    let said = world.core.peers(world.now)[1].1.last_notice.clone();
    assert_eq!(
        said.as_deref(),
        Some("refuses a subscription in VNI 100: no")
    );
    assert_eq!(world.core.take_notices().len(), 1);
}

#[test]
fn vni_that_every_server_refuses_is_not_complete() {
    let mut world = world();
    world.up(B);
    world.core.remove_server(A, world.now);
    world.pass(Duration::from_secs(60));
    let events = world.replay();
    assert!(!events.contains(&Event::Synced(V)), "{events:?}");
    assert!(world.core.not_ready().is_some());
}

#[test]
fn vni_that_is_subscribed_to_again_is_refused_again() {
    let mut world = world();
    world.up(A);
    world.up(B);
    world.replay();
    world.core.unsubscribe(V);
    world.settle();
    world.core.subscribe(V);
    world.pass(Duration::from_secs(1));
    let events = world.replay();
    assert_eq!(refusals(&events).len(), 1, "{events:?}");
    assert!(events.contains(&Event::Synced(V)), "{events:?}");
}

#[test]
fn refusal_ends_with_its_session() {
    let mut world = world();
    world.up(A);
    world.up(B);
    world.replay();
    world.server(B).refuses = None;
    world.say(B, Add, V, route(2));
    world.down(B);
    world.up(B);
    let events = world.replay();
    assert!(refusals(&events).is_empty(), "{events:?}");
    assert_eq!(world.view(V).len(), 2, "B tells its table again");
    let said = world.core.peers(world.now)[1].1.last_notice.clone();
    assert_eq!(said, None);
}

/// Policies and limits change; nobody says so.
#[test]
fn refused_table_is_asked_for_again_and_more_and_more_rarely() {
    let mut world = world();
    world.up(A);
    world.up(B);
    world.say(B, Add, V, route(2));
    let asked = |world: &World| {
        let heard = world.talk(B).heard.iter();
        heard.filter(|it| **it == Heard::Subscribe(V)).count()
    };
    assert_eq!(asked(&world), 1);
    world.pass(Duration::from_secs(9));
    assert_eq!(asked(&world), 1);
    world.pass(Duration::from_secs(3600));
    assert!((8..20).contains(&asked(&world)), "{}", asked(&world));
    assert_eq!(refusals(&world.replay()).len(), 1, "it is no news");
    world.server(B).refuses = None;
    world.pass(Duration::from_secs(301));
    assert_eq!(world.view(V).len(), 2);
    let before = asked(&world);
    world.pass(Duration::from_secs(3600));
    assert_eq!(asked(&world), before);
}

/// It ends the flow: the server does not count from then on, and what it told may be elsewhere.
#[test]
fn refusal_of_a_table_that_is_complete_makes_its_routes_stale() {
    let mut world = world();
    world.server(B).refuses = None;
    world.say(B, Add, V, route(2));
    world.up(A);
    world.up(B);
    assert_eq!(world.view(V).len(), 2);
    world.with_core(|core, now| core.receive(B, &refusal(), now));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.view(V), [route(1)].into(), "A vouches");
    let mut world = self::world();
    world.server(B).refuses = None;
    world.say(B, Add, V, route(2));
    world.up(A);
    world.up(B);
    world.with_core(|core, now| core.receive(A, &refusal(), now));
    world.down(B);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.view(V), [route(2)].into(), "A does not count");
}

fn refusal() -> Vec<u8> {
    let notice = Notice {
        code: NoticeCode::REFUSED_SUBSCRIPTION,
        vni: V,
        text: "no".into(),
    };
    let mut frame = Vec::new();
    encode_notice(&mut frame, &notice);
    frame
}
