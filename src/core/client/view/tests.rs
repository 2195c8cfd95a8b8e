//! Consumers of a view: law L, limits, memory, snapshots, imports.
#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;

const S: ServerBit = ServerBit(1);
const V: Vni = Vni(1);
const W: Vni = Vni(2);

fn route(number: u32, hop: u16) -> Route {
    let address = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, hop);
    let destination = Destination::from_ipv4(number.into(), 32);
    Route::new(destination, NextHop::standard(address))
}

fn visible(view: &View) -> BTreeSet<(Vni, Route)> {
    let of = |vni| {
        let routes = view.routes(vni).filter(|(_, suppressed)| !suppressed);
        routes.map(move |(route, _)| (vni, route))
    };
    view.vnis().into_iter().flat_map(of).collect()
}

/// What a consumer makes of its events; they must make sense.
#[derive(Default)]
struct Told {
    routes: BTreeSet<(Vni, Route)>,
    sets: BTreeMap<(Vni, Destination), Vec<NextHop>>,
}

impl Told {
    fn take(&mut self, event: &Event) {
        let is_news = match event {
            Event::RouteAdded(vni, route) => self.routes.insert((*vni, *route)),
            Event::RouteRemoved(vni, route) => self.routes.remove(&(*vni, *route)),
            Event::NextHopsChanged(vni, destination, hops) => {
                let key = (*vni, *destination);
                let old = if hops.is_empty() {
                    self.sets.remove(&key).unwrap_or_default()
                } else {
                    self.sets.insert(key, hops.to_vec()).unwrap_or_default()
                };
                old[..] != hops[..]
            }
            _ => true,
        };
        assert!(is_news, "{event:?} tells nothing");
    }

    fn routes(&self) -> BTreeSet<(Vni, Route)> {
        let sets = self.sets.iter().flat_map(|((vni, destination), hops)| {
            hops.iter()
                .map(|hop| (*vni, Route::new(*destination, *hop)))
        });
        self.routes.iter().copied().chain(sets).collect()
    }
}

fn take_all(view: &mut View, consumer: ConsumerId, told: &mut Told) {
    for event in view.take(consumer, usize::MAX) {
        told.take(&event);
    }
    assert!(!view.has_events(consumer));
    assert_eq!(told.routes(), visible(view));
}

#[test]
fn limit_leaves_the_rest_in_order() {
    let mut view = View::new(1);
    for number in 0..10 {
        view.update(S, (V, Action::Add, route(number, 1)), || true);
    }
    view.push(&Event::Synced(V));
    assert_eq!(view.take(ConsumerId::FIRST, 4).len(), 4);
    view.update(S, (V, Action::Remove, route(5, 1)), || true);
    view.update(S, (V, Action::Remove, route(0, 1)), || true);
    let rest = view.take(ConsumerId::FIRST, usize::MAX);
    let expected = [4, 6, 7, 8, 9].map(|it| Event::RouteAdded(V, route(it, 1)));
    assert_eq!(rest[..5], expected);
    let end = [Event::Synced(V), Event::RouteRemoved(V, route(0, 1))];
    assert_eq!(rest[5..], end);
}

#[test]
fn limit_holds_within_a_destination_and_what_comes_is_first() {
    let mut view = View::new(1);
    view.update(S, (V, Action::Add, route(1, 1)), || true);
    view.take(ConsumerId::FIRST, 9);
    view.update(S, (V, Action::Remove, route(1, 1)), || true);
    for hop in 2..5 {
        view.update(S, (V, Action::Add, route(1, hop)), || true);
    }
    let mut events = Vec::new();
    for _ in 0..4 {
        let some = view.take(ConsumerId::FIRST, 1);
        assert_eq!(some.len(), 1);
        events.extend(some);
    }
    assert_eq!(events[3], Event::RouteRemoved(V, route(1, 1)));
    assert!(!view.has_events(ConsumerId::FIRST));
}

#[test]
fn events_amount_to_all_changes_and_what_waits_stays_short() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut view = View::new(1);
    view.import(V, W);
    let sets = view.attach(EventDetail::NextHops).unwrap();
    let (mut first, mut second) = (Told::default(), Told::default());
    let mut late = None;
    let mut now = Instant::now();
    for step in 0..40_000 {
        let vni = [V, W][random.usize(..2)];
        let server = ServerBit(1 << random.u32(..2));
        let mut route = route(random.u32(..40), random.u16(1..4));
        if random.u8(..8) == 0 {
            route.next_hop.target_vni = std::num::NonZeroU32::new(V.0);
        }
        let action = action(random.bool());
        match random.u16(..200) {
            0 => {
                let age = Age::all().nth(random.usize(..2)).unwrap();
                view.lose(server, vni, age, random.bool());
            }
            8..10 => {
                view.expire(vni, Age::all().nth(random.usize(..2)).unwrap());
            }
            10..14 => view.drop_echo([server].into_iter(), (vni, route)),
            14..16 => {
                now += Duration::from_secs(random.u64(..20));
                view.end_quiet(Duration::from_secs(15), now);
            }
            1 => view.sweep(vni),
            2 => view.drop_vni(vni),
            3..8 => {
                view.own((vni, Action::Add, route));
                view.update(server, (vni, action, route), || true);
                view.own((vni, Action::Remove, route));
            }
            _ => view.update(server, (vni, action, route), || random.bool()),
        }
        for consumer in [ConsumerId::FIRST, sets] {
            let waiting = view.feeds.get(consumer).unwrap().items.len();
            assert!(
                waiting <= 2 * (64 + 80),
                "{waiting} items for 80 destinations"
            );
        }
        match random.u16(..500) {
            0 => take_all(&mut view, ConsumerId::FIRST, &mut first),
            1 => take_all(&mut view, sets, &mut second),
            2 if late.is_none() => late = view.attach(EventDetail::Routes),
            3 => late.take().into_iter().for_each(|it| {
                let mut told = Told::default();
                take_all(&mut view, it, &mut told);
                view.detach(it);
            }),
            _ => {}
        }
        assert_eq!(
            view.len(),
            [V, W]
                .iter()
                .map(|it| view.routes(*it).count())
                .sum::<usize>(),
            "{step}"
        );
    }
    late.into_iter().for_each(|it| view.detach(it));
    view.drop_vni(V);
    view.drop_vni(W);
    take_all(&mut view, ConsumerId::FIRST, &mut first);
    take_all(&mut view, sets, &mut second);
    assert_eq!(view.idle_vnis() + view.vnis.len() + view.hops.len(), 0);
}

#[test]
fn ever_new_destinations_do_not_pile_up_before_a_consumer_that_sleeps() {
    let mut view = View::new(1);
    for number in 0..100_000 {
        view.update(S, (V, Action::Add, route(number, 1)), || true);
        view.update(S, (V, Action::Remove, route(number, 1)), || true);
        view.push(&Event::ServerUp(crate::core::client::ServerId(0)));
    }
    let feed = view.feeds.get(ConsumerId::FIRST).unwrap();
    assert!(feed.items.len() < 200, "{} wait", feed.items.len());
    assert_eq!(view.take(ConsumerId::FIRST, usize::MAX).len(), 1);
}

#[test]
fn import_appears_as_long_as_anything_makes_it() {
    let mut view = View::new(1);
    view.import(V, W);
    let mut told = Told::default();
    let copy = imported(V, route(1, 1));
    assert_eq!(copy.next_hop.target_vni.map(u32::from), Some(V.0));
    view.update(S, (V, Action::Add, route(1, 1)), || true);
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes(), [(V, route(1, 1)), (W, copy)].into());
    assert_eq!(
        view.servers_of(W, &copy.destination, &copy.next_hop),
        Some(1)
    );
    // Somebody announces the same in W.
    let other = ServerBit(2);
    view.update(other, (W, Action::Add, copy), || true);
    assert_eq!(
        view.servers_of(W, &copy.destination, &copy.next_hop),
        Some(3)
    );
    view.update(S, (V, Action::Remove, route(1, 1)), || true);
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes(), [(W, copy)].into());
    view.update(S, (V, Action::Add, route(1, 1)), || true);
    view.update(other, (W, Action::Remove, copy), || true);
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes().len(), 2);
    // What is announced in W is not to be had from V.
    view.own((W, Action::Add, route(1, 9)));
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes(), [(V, route(1, 1))].into());
    view.own((W, Action::Remove, route(1, 9)));
    view.own((V, Action::Add, route(1, 9)));
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes(), [].into(), "suppressed where it comes from");
    view.own((V, Action::Remove, route(1, 9)));
    assert!(view.lose(S, V, Age::FIRST, false));
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes().len(), 2, "stale is still there");
    view.sweep(V);
    take_all(&mut view, ConsumerId::FIRST, &mut told);
    assert_eq!(told.routes(), [].into());
}

#[test]
fn consumer_that_comes_late_begins_with_all_there_is() {
    let mut view = View::new(1);
    for number in 0..100 {
        view.update(S, (V, Action::Add, route(number, 1)), || true);
    }
    let late = view.attach(EventDetail::Routes).unwrap();
    let mut told = Told::default();
    for event in view.take(late, 30) {
        told.take(&event);
    }
    for number in 20..40 {
        view.update(S, (V, Action::Remove, route(number, 1)), || true);
    }
    view.update(S, (V, Action::Add, route(1000, 1)), || true);
    take_all(&mut view, late, &mut told);
    let most = (2..=Feeds::MAX).map(|_| view.attach(EventDetail::Routes));
    assert_eq!(most.filter(Option::is_none).count(), 1);
}

#[test]
fn end_of_a_consumer_that_is_gone_leaves_its_successor_alone() {
    let mut view = View::new(1);
    view.update(S, (V, Action::Add, route(1, 1)), || true);
    view.detach(ConsumerId::FIRST);
    let second = view.attach(EventDetail::Routes).unwrap();
    assert_ne!(second, ConsumerId::FIRST, "the slot is the same");
    assert_eq!(second.mask(), ConsumerId::FIRST.mask());
    view.detach(ConsumerId::FIRST);
    assert!(view.take(ConsumerId::FIRST, usize::MAX).is_empty());
    let begin = view.take(second, usize::MAX);
    let added = Event::RouteAdded(V, route(1, 1));
    assert_eq!(begin, [added, Event::Current]);
    view.update(S, (V, Action::Remove, route(1, 1)), || true);
    assert_eq!(view.take(second, usize::MAX).len(), 1);
}
