//! What servers say of their sessions.

use std::time::Duration;

use super::script::Kind::Modern;
use super::world::World;
use super::*;
use crate::core::client::Refused;
use crate::core::client::events::Event;
use crate::core::types::Action::Add;

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
