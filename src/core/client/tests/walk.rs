//! Everything at once, at random.

use std::collections::BTreeSet;
use std::time::Duration;

use super::script::Kind::{self, Go, Modern, OldRust};
use super::world::{HOLD, World};
use super::*;
use crate::core::types::Action::{Add, Remove};

/// Another client's route: few destinations, all kinds of next hop.
fn random_route(random: &mut fastrand::Rng) -> Route {
    let hop = match random.u8(..6) {
        0 => NextHop::nat(hypervisor(1), 1024, 2047),
        1 => NextHop::load_balancer(hypervisor(1)),
        2 => NextHop::standard_with_vni(hypervisor(1), 7),
        _ => NextHop::standard(hypervisor(random.u16(1..4))),
    };
    Route::new(destination(random.u32(..12)), hop)
}

fn random_own(random: &mut fastrand::Rng) -> Route {
    let hop = match random.u8(..4) {
        0 => NextHop::nat(OWN, 1024, 2047),
        1 => NextHop::load_balancer(OWN),
        _ => NextHop::standard(OWN),
    };
    Route::new(destination(random.u32(..12)), hop)
}

fn step(world: &mut World, random: &mut fastrand::Rng) {
    let server = ServerId(random.usize(..world.servers.len()));
    let vni = Vni(random.u32(1..=3));
    match random.u8(..100) {
        0..20 => world.say(server, Add, vni, random_route(random)),
        20..38 => world.say(server, Remove, vni, random_route(random)),
        38..42 => drop(world.with_core(|core, _| core.subscribe(vni))),
        42..45 => drop(world.with_core(|core, _| core.unsubscribe(vni))),
        45..50 => {
            let route = random_own(random);
            world.with_core(|core, _| core.announce(vni, route));
        }
        50..55 => {
            let route = random_own(random);
            world.with_core(|core, _| core.withdraw(vni, route));
        }
        55..67 => drop(world.take(server, random.usize(..60))),
        67..77 => world.server(server).serve(),
        77..92 => drop(world.deliver(server, random.usize(..60))),
        92 => world.cut(server),
        93 => world.server(server).is_there = random.u8(..4) > 0,
        94..98 => {
            world.now += Duration::from_millis(random.u64(..300));
            world.with_core(crate::core::client::Core::handle_timeouts);
            world.dial();
        }
        _ => drop(world.replay_some(random.usize(..4))),
    }
}

/// Some servers come back, the others stay away; when all is quiet, all is right.
fn check(world: &mut World, random: &mut fastrand::Rng) {
    let count = world.servers.len();
    let away = random.usize(..=count);
    for number in 0..count {
        if number == away {
            world.down(ServerId(number));
        } else {
            world.up(ServerId(number));
        }
    }
    world.pass(Duration::from_secs(1));
    world.check_servers();
    world.check_events();
    let wanted = world.core.subscribed();
    let announced: BTreeSet<_> = world.core.announced().into_iter().collect();
    for vni in (1..=3).map(Vni) {
        let up = (0..count).filter(|it| *it != away && wanted.contains(&vni));
        let tables = up.flat_map(|it| &world.servers[it].table);
        let of_vni = tables.filter(|(of, _)| *of == vni);
        let expected: BTreeSet<Route> = of_vni.map(|(_, route)| *route).collect();
        let is_echo = |route: &&Route| route.next_hop.target_address == OWN;
        let view = world.view(vni);
        let mut echoes = view.iter().filter(is_echo);
        assert!(echoes.all(|it| announced.contains(&(vni, *it))));
        let of_others = view.iter().filter(|it| !is_echo(it));
        let of_others: BTreeSet<Route> = of_others.copied().collect();
        assert_eq!(of_others, expected, "VNI {vni}, server {away} away");
    }
    let held: usize = (1..=3).map(|it| world.view(Vni(it)).len()).sum();
    assert_eq!(world.core.route_count(), held);
}

#[test]
fn a_random_walk_ends_where_the_model_does() {
    let kinds: [[Kind; 3]; 4] = [
        [Modern, Modern, Modern],
        [Modern, Go, OldRust],
        [Go, Go, Modern],
        [OldRust, Go, Go],
    ];
    for seed in 0..80 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(random.choice(&kinds).unwrap());
        for server in &mut world.servers {
            server.is_there = true;
        }
        for _ in 0..4 {
            for _ in 0..1500 {
                step(&mut world, &mut random);
            }
            check(&mut world, &mut random);
        }
        for number in 0..3 {
            world.down(ServerId(number));
        }
        world.pass(HOLD);
        world.check_events();
        assert_eq!(world.told, BTreeSet::new(), "seed {seed}: after the hold");
    }
}
