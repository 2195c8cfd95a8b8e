//! The promise as a property: restarts, cuts, slow tables and withdrawals at random.
//!
//! No route is removed that a live server has or will have told within the bound, and none
//! stays beyond the stale time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::script::Kind::{Go, Modern, OldRust};
use super::world::{World, config};
use super::*;
use crate::core::client::Event;
use crate::core::types::Action::{Add, Remove};

const SECOND: Duration = Duration::from_secs(1);
const ROUTES: u32 = 12;
/// The servers are away for less, and announcers return within [`RETURN_MS`] after that; what
/// they say is on its way for [`HELD_MS`] at most. The last two together are less than the
/// settle time.
const AWAY_MS: u64 = 8_000;
const RETURN_MS: u64 = 8_500;
const HELD_MS: u64 = 6_000;
/// A server lives at least that long, so that the first attempt after it is back finds it.
const LIFE: Duration = Duration::from_secs(45);

struct Plan {
    random: fastrand::Rng,
    world: World,
    stale_time: Duration,
    /// The servers of each route that is announced.
    alive: BTreeMap<Route, BTreeSet<ServerId>>,
    started: Vec<Instant>,
    /// What is to happen: servers that start, and routes that return to one.
    starts: Vec<(Instant, ServerId)>,
    returns: Vec<(Instant, ServerId, Route)>,
    releases: Vec<(Instant, ServerId)>,
    /// Since when no server that is connected has a route.
    alone_since: BTreeMap<Route, Instant>,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut config = config();
        config.settle_time = SECOND * 15;
        config.stale_time = SECOND * if random.bool() { 300 } else { 7200 };
        let count = random.usize(1..4);
        let kinds: Vec<_> = (0..count)
            .map(|_| random.choice([Modern, Modern, Go, OldRust]).expect("some"))
            .collect();
        let mut world = World::with(&kinds, config);
        world.core.subscribe(V);
        let mut alive = BTreeMap::new();
        for number in 0..ROUTES {
            let route = route(number);
            let mut servers: BTreeSet<_> = (0..count).map(ServerId).collect();
            if random.bool() {
                servers.retain(|_| random.bool());
                servers.insert(ServerId(random.usize(..count)));
            }
            for server in &servers {
                world.server(*server).table.insert((V, route));
            }
            alive.insert(route, servers);
        }
        for server in &mut world.servers {
            server.is_there = true;
        }
        world.pass(SECOND * 60);
        world.replay();
        Self {
            started: vec![world.now; count],
            stale_time: config.stale_time,
            random,
            world,
            alive,
            starts: Vec::new(),
            returns: Vec::new(),
            releases: Vec::new(),
            alone_since: BTreeMap::new(),
        }
    }

    fn after(&mut self, ms: u64) -> Instant {
        self.world.now + Duration::from_millis(self.random.u64(..ms))
    }

    fn trouble(&mut self) {
        let server = ServerId(self.random.usize(..self.started.len()));
        match self.random.u8(..200) {
            0..4 if self.world.server(server).is_there
                && self.world.now > self.started[server.0] + LIFE =>
            {
                self.world.down(server);
                self.world.server(server).table.clear();
                self.world.server(server).is_held = false;
                self.returns.retain(|it| it.1 != server);
                self.releases.retain(|it| it.1 != server);
                let back = self.after(AWAY_MS);
                self.starts.push((back, server));
            }
            4..9 if self.world.is_established(server) => self.world.cut(server),
            9..12 if !self.world.server(server).is_held => {
                self.world.server(server).is_held = true;
                let until = self.after(HELD_MS);
                self.releases.push((until, server));
            }
            12..14 if self.alive.len() > 3 => {
                let at = self.random.usize(..self.alive.len());
                let route = *self.alive.keys().nth(at).expect("fewer");
                self.alive.remove(&route);
                self.returns.retain(|it| it.2 != route);
                for server in (0..self.started.len()).map(ServerId) {
                    self.world.say(server, Remove, V, route);
                }
            }
            _ => {}
        }
    }

    /// Lets a moment pass, and what is due by then happen.
    fn pass(&mut self) {
        let step = Duration::from_millis(self.random.u64(20..400));
        self.world.pass(step);
        let now = self.world.now;
        for (_, server) in self
            .starts
            .extract_if(.., |it| it.0 <= now)
            .collect::<Vec<_>>()
        {
            self.world.server(server).is_there = true;
            self.started[server.0] = now;
            let back = self.alive.iter().filter(|it| it.1.contains(&server));
            for route in back.map(|it| *it.0).collect::<Vec<_>>() {
                let at = self.after(RETURN_MS);
                self.returns.push((at, server, route));
            }
        }
        for (_, server, route) in self
            .returns
            .extract_if(.., |it| it.0 <= now)
            .collect::<Vec<_>>()
        {
            self.world.say(server, Add, V, route);
        }
        for (_, server) in self
            .releases
            .extract_if(.., |it| it.0 <= now)
            .collect::<Vec<_>>()
        {
            self.world.server(server).is_held = false;
        }
        for (number, started) in self.started.iter().enumerate() {
            let uptime = (now - *started).as_secs();
            self.world.servers[number].uptime_seconds = u32::try_from(uptime).expect("hours");
        }
        self.world.settle();
    }

    fn check(&mut self, seed: u64) {
        let now = self.world.now;
        for event in self.world.replay() {
            if let Event::RouteRemoved(_, route) = event
                && self.alive.contains_key(&route)
            {
                let alone = self.alone_since.get(&route).map(|since| now - *since);
                let is_over = alone.is_some_and(|it| it + SECOND >= self.stale_time / 31 * 30);
                assert!(
                    is_over,
                    "seed {seed}: {route} is alive, and was alone for {alone:?}"
                );
            }
        }
        for route in (0..ROUTES).map(route) {
            let core = &self.world.core;
            let servers = core.servers_of(V, &route.destination, &route.next_hop);
            if servers.is_some_and(|it| it.is_empty()) {
                let since = *self.alone_since.entry(route).or_insert(now);
                let alone = now - since;
                assert!(
                    alone <= self.stale_time + SECOND,
                    "seed {seed}: {route} stays for {alone:?}"
                );
            } else {
                self.alone_since.remove(&route);
            }
        }
    }
}

#[test]
fn no_live_route_is_removed_and_no_dead_one_stays_beyond_the_stale_time() {
    let seeds = std::env::var("RUSTBOND_PROMISE_SEEDS").ok();
    let seeds = seeds.map_or(300, |it| it.parse().expect("a number"));
    for seed in 0..seeds {
        let mut plan = Plan::new(seed);
        for _ in 0..1000 {
            plan.trouble();
            plan.pass();
            plan.check(seed);
        }
        let end = plan.world.now + SECOND * 90;
        while plan.world.now < end {
            plan.pass();
            plan.check(seed);
        }
        let alive: BTreeSet<Route> = plan.alive.keys().copied().collect();
        assert_eq!(plan.world.view(V), alive, "seed {seed}: at the end");
    }
}
