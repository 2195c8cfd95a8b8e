#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

mod legacy;
mod metered;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use std::time::Duration;

use crate::core::connection::KEEPALIVES_AT_ONCE;
use crate::core::pace::{CHUNK, LegacyPacing, Pacing};
use crate::core::scripted::{self, Truth, hear};
use crate::core::session::Role;
use crate::core::types::Vni;
use crate::core::types::{Action, Destination, NextHop, Route};
use crate::core::wire::{
    Extensions, Hello, Reassembler, decode_subscription, decode_update, encode_hello, encode_update,
};
use crate::core::wire::{KEEPALIVE_FRAME, MessageType, encode_subscription};

fn route(number: u32) -> Route {
    let destination = Destination::from_ipv4((0x0a00_0000 + number / 2).into(), 32);
    let hop = std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number % 2));
    Route::new(destination, NextHop::standard(hop))
}

fn config() -> ShardConfig {
    ShardConfig {
        session: scripted::session(Role::Server),
        soft_limit: 200,
        hard_limit: 1 << 30,
        memory_limit: usize::MAX,
        limits: Limits {
            routes_per_peer: 1000,
            routes: 5000,
            subscriptions_per_peer: 10,
            vnis: 1 << 20,
            vnis_per_peer: 1 << 20,
        },
        pacing: Pacing {
            mode: LegacyPacing::Auto,
            rate: crate::core::pace::DEFAULT_RATE,
        },
        seed: 3,
    }
}

/// The far end of a session: reads what it is sent, and objects.
#[derive(Default)]
struct Client {
    reassembler: Reassembler,
    tables: BTreeMap<Vni, BTreeSet<Route>>,
    complete: BTreeSet<Vni>,
    keepalives: usize,
    updates: usize,
    /// Unsubscribed, and the KEEPALIVE behind that not answered: what comes is old.
    draining: BTreeMap<Vni, usize>,
}

impl Client {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.reassembler.next(&mut bytes).expect("valid frames") {
            match frame.kind {
                MessageType::Keepalive => {
                    self.keepalives += 1;
                    let answered = self.keepalives;
                    self.draining.retain(|_, until| *until > answered);
                }
                MessageType::EndOfRib => {
                    let vni = decode_subscription(frame.payload).unwrap();
                    assert!(self.draining.contains_key(&vni) || self.complete.insert(vni));
                }
                MessageType::Update => {
                    self.updates += 1;
                    let update = decode_update(frame.payload).unwrap();
                    if self.draining.contains_key(&update.vni) {
                        continue;
                    }
                    let table = self.tables.get_mut(&update.vni).expect("subscribed");
                    hear(table, update.action, update.route);
                }
                _ => {}
            }
        }
    }
}

/// Shards, their mailboxes and their peers, moved one random step at a time.
struct World {
    now: Instant,
    shards: Vec<Shard>,
    /// `mail[from][to]`.
    mail: Vec<Vec<VecDeque<Vec<Message>>>>,
    clients: BTreeMap<PeerId, Client>,
    sent_keepalives: BTreeMap<PeerId, usize>,
    truth: Truth<PeerId>,
    closed: Vec<(PeerId, CloseReason)>,
    next: u32,
}

impl World {
    fn new(shards: usize, config: ShardConfig) -> Self {
        let topology = Topology::new(shards);
        let column = || (0..shards).map(|_| VecDeque::new()).collect();
        Self {
            now: Instant::now(),
            shards: (0..shards)
                .map(|id| Shard::new(id, topology, config, Instant::now()))
                .collect(),
            mail: (0..shards).map(|_| column()).collect(),
            clients: BTreeMap::new(),
            sent_keepalives: BTreeMap::new(),
            truth: Truth::default(),
            closed: Vec::new(),
            next: 0,
        }
    }

    fn home(&mut self, peer: PeerId) -> &mut Shard {
        let home = self.shards[0].topology.home(peer);
        &mut self.shards[home]
    }

    fn send(&mut self, peer: PeerId, bytes: &[u8]) {
        let now = self.now;
        self.home(peer).receive(peer, bytes, now);
    }

    fn keepalive(&mut self, peer: PeerId) -> usize {
        self.send(peer, &KEEPALIVE_FRAME);
        let sent = self.sent_keepalives.entry(peer).or_default();
        *sent += 1;
        *sent
    }

    fn connect(&mut self) -> PeerId {
        self.connect_with(config().session.extensions, 0)
    }

    fn connect_with(&mut self, extensions: Option<Extensions>, halvings: u8) -> PeerId {
        let peer = PeerId(self.next);
        self.next += 1;
        let now = self.now;
        assert!(self.home(peer).open(peer, halvings, now));
        self.clients.insert(peer, Client::default());
        let mut hello = Vec::new();
        encode_hello(
            &mut hello,
            &Hello {
                keepalive_interval: 5,
                is_server: false,
                extensions,
            },
        );
        self.send(peer, &hello);
        self.keepalive(peer);
        peer
    }

    fn disconnect(&mut self, peer: PeerId) {
        let now = self.now;
        self.home(peer).close(peer, CloseReason::PeerClosed, now);
        self.clients.remove(&peer);
        self.truth.leave(peer);
    }

    fn update(&mut self, peer: PeerId, vni: Vni, action: Action, route: Route) {
        self.truth.apply(peer, action, vni, route);
        let mut frame = Vec::new();
        encode_update(&mut frame, action, vni, &route);
        self.send(peer, &frame);
    }

    fn about(&mut self, peer: PeerId, kind: MessageType, vni: Vni) {
        let mut frame = Vec::new();
        encode_subscription(&mut frame, kind, vni);
        self.send(peer, &frame);
    }

    fn subscribe(&mut self, peer: PeerId, vni: Vni) {
        let client = self.clients.get_mut(&peer).unwrap();
        client.tables.insert(vni, BTreeSet::new());
        self.about(peer, MessageType::Subscribe, vni);
    }

    fn unsubscribe(&mut self, peer: PeerId, vni: Vni) {
        self.about(peer, MessageType::Unsubscribe, vni);
        let barrier = self.keepalive(peer);
        let client = self.clients.get_mut(&peer).unwrap();
        client.tables.remove(&vni);
        client.complete.remove(&vni);
        client.draining.insert(vni, barrier);
    }

    fn turn(&mut self, shard: usize) {
        self.shards[shard].turn(self.now);
        for to in 0..self.shards.len() {
            let messages = self.shards[shard].take_messages(to);
            if !messages.is_empty() {
                self.mail[shard][to].push_back(messages);
            }
        }
        while let Some(report) = self.shards[shard].poll_report() {
            if let Report::Closed(peer, reason) = report {
                self.closed.push((peer, reason));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(messages) = self.mail[from][to].pop_front() else {
            return false;
        };
        self.shards[to].deliver(messages, self.now);
        true
    }

    /// Moves up to `budget` bytes from a session's queue to its client.
    fn write(&mut self, peer: PeerId, budget: usize) -> usize {
        let now = self.now;
        let shard = self.home(peer);
        shard.resume(peer, now);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = shard.gather(peer, &mut slices, budget);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|it| it.to_vec()).collect();
        shard.advance(peer, bytes.len(), now);
        if let Some(client) = self.clients.get_mut(&peer) {
            client.read(&bytes);
        }
        bytes.len()
    }

    fn run_until_quiet(&mut self) {
        loop {
            let mut busy = false;
            for shard in 0..self.shards.len() {
                self.turn(shard);
                busy |= self.shards[shard].has_work();
                for to in 0..self.shards.len() {
                    busy |= self.deliver(shard, to);
                }
            }
            let peers: Vec<PeerId> = self.clients.keys().copied().collect();
            for peer in peers {
                busy |= self.write(peer, usize::MAX) > 0;
            }
            if !busy {
                return;
            }
        }
    }

    fn check(&mut self) {
        self.run_until_quiet();
        assert_eq!(
            self.closed
                .iter()
                .find(|it| it.1 != CloseReason::PeerClosed),
            None
        );
        for (peer, client) in &self.clients {
            assert!(client.draining.is_empty());
            for (vni, table) in &client.tables {
                let expected = self.truth.seen_by(*peer, *vni);
                assert_eq!(table, &expected, "{peer:?} in VNI {vni}");
                assert!(client.complete.contains(vni), "no END_OF_RIB for {vni}");
            }
        }
    }
}

/// Eight peers, three VNIs, every message in any order between the shards. Where a turn has room
/// for a few units only, all that work on queues and tables goes in steps, between which the
/// rest happens.
#[test]
fn a_random_walk_ends_where_the_model_does() {
    let mut coalesced = 0;
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(1 + usize::try_from(seed % 4).unwrap(), config());
        for shard in world.shards.iter_mut().filter(|_| seed % 3 > 0) {
            shard.per_turn = 1 << random.u32(6..12);
        }
        let mut peers: Vec<PeerId> = (0..8).map(|_| world.connect()).collect();
        for step in 0..4000 {
            let at = random.usize(..peers.len());
            let peer = peers[at];
            let vni = Vni(random.u32(1..=3));
            let client = &world.clients[&peer];
            match random.u32(..100) {
                0..30 => world.update(peer, vni, Action::Add, route(random.u32(..40))),
                30..60 => world.update(peer, vni, Action::Remove, route(random.u32(..40))),
                60..64 if client.tables.contains_key(&vni) => world.unsubscribe(peer, vni),
                60..70 if !client.tables.contains_key(&vni) => {
                    if !client.draining.contains_key(&vni) {
                        world.subscribe(peer, vni);
                    }
                }
                70 if random.u8(..4) == 0 => {
                    world.disconnect(peer);
                    peers[at] = world.connect();
                }
                71..80 => world.turn(random.usize(..world.shards.len())),
                80..90 => {
                    let count = world.shards.len();
                    world.deliver(random.usize(..count), random.usize(..count));
                }
                _ => {
                    world.now += Duration::from_millis(random.u64(..100));
                    let is_slow = at < 2 && random.u8(..50) > 0;
                    world.write(peer, if is_slow { 0 } else { random.usize(..400) });
                }
            }
            if step % 1000 == 999 {
                world.check();
            }
        }
        for shard in &world.shards {
            coalesced += shard.gauges().counters.coalesced;
        }
        for peer in peers {
            world.disconnect(peer);
        }
        world.check();
        for shard in &world.shards {
            let left = Gauges {
                changes: 0,
                counters: PeerCounters::default(),
                ..shard.gauges()
            };
            assert_eq!(left, Gauges::default(), "seed {seed}");
        }
    }
    assert!(coalesced > 1000, "{coalesced} queues coalesced");
}

#[test]
fn coalesced_laggard_ends_with_the_right_table() {
    let mut world = World::new(2, config());
    let [announcer, laggard] = [world.connect(), world.connect()];
    let vni = Vni(1);
    world.subscribe(laggard, vni);
    let keys = 100;
    (0..keys).for_each(|it| world.update(announcer, vni, Action::Add, route(it * 2)));
    world.run_until_quiet();
    let before = world.clients[&laggard].updates;
    let mut most_waiting = 0;
    for round in 0..60 {
        world.now += Duration::from_millis(100);
        let now = world.now;
        world.home(laggard).advance(laggard, 0, now);
        for key in 0..keys {
            let (old, new) = (key * 2 + round % 2, key * 2 + (round + 1) % 2);
            world.update(announcer, vni, Action::Remove, route(old));
            world.update(announcer, vni, Action::Add, route(new));
        }
        let count = world.shards.len();
        (0..count).for_each(|it| world.turn(it));
        for (from, to) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
            while world.deliver(from, to) {}
        }
        world.home(laggard).for_each_session(|view| {
            most_waiting = most_waiting.max(view.queued_bytes);
        });
    }
    let round_bytes = 2 * keys as usize * 40;
    assert!(
        most_waiting < 8 * round_bytes,
        "{most_waiting} bytes waited"
    );
    // Nothing differs in the end; one more change makes the difference.
    world.update(announcer, vni, Action::Add, route(9999));
    world.check();
    let received = world.clients[&laggard].updates - before;
    let limit = config().soft_limit / 30;
    assert!(
        received <= limit,
        "{received} updates, {limit} fit the soft limit"
    );
}

#[test]
fn past_the_hard_limit_the_session_ends_and_nobody_else_hurts() {
    let mut world = World::new(
        1,
        ShardConfig {
            hard_limit: 10_000,
            ..config()
        },
    );
    let [announcer, slow, healthy] = [world.connect(), world.connect(), world.connect()];
    let vni = Vni(1);
    world.subscribe(slow, vni);
    world.subscribe(healthy, vni);
    for number in 0..1000 {
        world.update(announcer, vni, Action::Add, route(number));
        world.turn(0);
        while world.write(healthy, usize::MAX) > 0 {}
    }
    world.turn(0);
    assert_eq!(world.closed, [(slow, CloseReason::TooSlow)]);
    world.clients.remove(&slow);
    world.closed.clear();
    world.check();
    assert_eq!(world.clients[&healthy].tables[&vni].len(), 1000);
}

#[test]
fn limits_refuse_one_peer_and_spare_the_others() {
    let mut world = World::new(2, config());
    let [greedy, modest] = [world.connect(), world.connect()];
    for number in 0..1500 {
        world.update(greedy, Vni(1), Action::Add, route(number));
    }
    (0..50).for_each(|vni| world.subscribe(greedy, Vni(vni)));
    world.update(modest, Vni(1), Action::Add, route(2000));
    world.run_until_quiet();
    let announced = |world: &World| -> usize {
        let shards = world.shards.iter();
        shards.map(|it| it.gauges().announcements).sum()
    };
    assert_eq!(announced(&world), 1000 + 1);
    let mut refused = BTreeMap::new();
    for shard in &world.shards {
        shard.for_each_session(|view| {
            refused.insert(view.id, view.counters.refused);
            // One for announcements, and one for each VNI whose subscription was refused.
            let told = if view.id == greedy { 1 + 40 } else { 0 };
            assert_eq!(view.sent.notice, told);
        });
    }
    assert_eq!(refused, BTreeMap::from([(greedy, 500 + 40), (modest, 0)]));
    // What is given back can be announced again.
    world.update(greedy, Vni(1), Action::Remove, route(0));
    world.update(greedy, Vni(1), Action::Add, route(3000));
    world.update(greedy, Vni(1), Action::Add, route(3001));
    world.run_until_quiet();
    assert_eq!(announced(&world), 1000 + 1);
    world.disconnect(greedy);
    world.run_until_quiet();
    assert_eq!(announced(&world), 1);
}

#[test]
fn limit_for_all_counts_what_other_shards_have() {
    let mut world = World::new(1, config());
    let peer = world.connect();
    world.shards[0].set_remote_announcements(4990);
    for number in 0..20 {
        world.update(peer, Vni(1), Action::Add, route(number));
    }
    world.run_until_quiet();
    assert_eq!(world.shards[0].gauges().announcements, 10);
}

#[test]
fn keepalive_reply_overtakes_what_waits() {
    let mut world = World::new(1, config());
    let [announcer, subscriber] = [world.connect(), world.connect()];
    let vni = Vni(1);
    for number in 0..500 {
        world.update(announcer, vni, Action::Add, route(number));
    }
    world.turn(0);
    world.write(subscriber, usize::MAX);
    world.subscribe(subscriber, vni);
    world.write(subscriber, 50);
    let seen = world.clients[&subscriber].keepalives;
    world.keepalive(subscriber);
    world.write(subscriber, 50);
    let client = &world.clients[&subscriber];
    assert_eq!(
        client.keepalives,
        seen + 1,
        "it waits for the frame begun, no longer"
    );
    assert!(client.updates < 10);
    world.check();
}

#[test]
fn keepalives_of_a_peer_that_reads_none_cost_no_memory() {
    let mut world = World::new(1, config());
    let peer = world.connect();
    world.send(peer, &KEEPALIVE_FRAME.repeat(100_000));
    let mut queued = 0;
    world.shards[0].for_each_session(|view| queued = view.queued_bytes);
    assert!(
        queued <= 16 + 4 * KEEPALIVES_AT_ONCE,
        "{queued} bytes queued"
    );
    world.run_until_quiet();
    assert_eq!(world.clients[&peer].keepalives, 100_001, "all are answered");
}

#[test]
fn peer_that_takes_nothing_is_closed_after_twice_the_hold_time() {
    let mut world = World::new(1, config());
    let [announcer, subscriber] = [world.connect(), world.connect()];
    world.run_until_quiet();
    world.subscribe(subscriber, Vni(1));
    world.run_until_quiet();
    world.update(announcer, Vni(1), Action::Add, route(1));
    world.turn(0);
    let start = world.now;
    world.shards[0].advance(subscriber, 0, start);
    for second in 1..25 {
        world.now = start + Duration::from_secs(second);
        world.keepalive(announcer);
        world.write(announcer, usize::MAX);
        world.keepalive(subscriber);
        let now = world.now;
        world.shards[0].handle_timeouts(now, |_| false);
        world.turn(0);
        assert!(world.closed.is_empty(), "after {second} s");
    }
    world.shards[0].handle_timeouts(start + Duration::from_secs(25), |_| false);
    world.turn(0);
    assert_eq!(world.closed, [(subscriber, CloseReason::SendHold)]);
}
