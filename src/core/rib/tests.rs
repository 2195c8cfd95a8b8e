mod shared;

use std::collections::{BTreeMap, BTreeSet};

use super::routes::looks;
use super::*;
use crate::core::scripted::{Truth, hear};
use crate::core::types::{Destination, NextHop};
use crate::core::wire::{HEADER_LEN, decode_update, frame_len};

const VNI: Vni = Vni(7);

fn route(number: u32) -> Route {
    let destination = match number % 3 {
        0 => Destination::from_ipv6((0x2001_0db8_u128 << 96 | u128::from(number)).into(), 128),
        _ => Destination::from_ipv4((0x0a00_0000 + number / 2).into(), 32),
    };
    let hop = std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number % 5));
    Route::new(destination, NextHop::standard(hop))
}

/// A subscriber that checks every message against what it has.
#[derive(Default)]
struct Subscriber {
    has: BTreeSet<Route>,
    frames: usize,
}

impl Subscriber {
    fn hear(&mut self, action: Action, route: Route) {
        self.frames += 1;
        hear(&mut self.has, action, route);
    }

    fn read(&mut self, peer: PeerId, spans: &[Span]) {
        for span in spans {
            span.clone().for_peer(peer, &mut |span| {
                let mut bytes = span.bytes();
                while !bytes.is_empty() {
                    let (frame, rest) = bytes.split_at(frame_len(bytes));
                    let update = decode_update(&frame[HEADER_LEN..]).unwrap();
                    assert_eq!(update.vni, VNI);
                    self.hear(update.action, update.route);
                    bytes = rest;
                }
            });
        }
    }
}

/// A table, its subscribers, and the truth.
struct World {
    table: VniTable,
    hops: NextHops,
    subscribers: BTreeMap<PeerId, Subscriber>,
    truth: Truth<PeerId>,
}

impl World {
    fn new() -> Self {
        Self {
            table: VniTable::new(VNI),
            hops: NextHops::new(2),
            subscribers: BTreeMap::new(),
            truth: Truth::default(),
        }
    }

    fn flush(&mut self) {
        let fresh = self.table.take_fresh(&self.hops);
        for (&peer, subscriber) in &mut self.subscribers {
            subscriber.read(peer, &fresh);
        }
    }

    fn apply(&mut self, peer: u32, action: Action, number: u32) {
        let (peer, route) = (PeerId(peer), route(number));
        self.truth.apply(peer, action, VNI, route);
        self.table.apply(&mut self.hops, peer, action, &route);
    }

    fn leave(&mut self, peer: PeerId) {
        self.flush();
        self.subscribers.remove(&peer);
        self.truth.leave(peer);
        for _ in 0..=self.truth.len() {
            if !self.table.withdraw_one(&mut self.hops, peer) {
                return;
            }
        }
        panic!("more withdrawals than announcements");
    }

    fn join(&mut self, peer: PeerId) {
        self.flush();
        let spans = self.table.join();
        let subscriber = self.subscribers.entry(peer).or_default();
        subscriber.read(peer, &spans);
    }

    /// What a peer gets of the log.
    fn table_of(&mut self, peer: u32) -> Vec<Span> {
        let mut pieces = Vec::new();
        for span in self.table.join() {
            span.for_peer(PeerId(peer), &mut |piece| pieces.push(piece));
        }
        pieces
    }

    /// Changes a route to and fro until the log has outgrown its table.
    fn outgrow(&mut self, peer: u32, number: u32) {
        for _ in 0..4096 {
            if self.table.wants_compaction(History::Usual) {
                return;
            }
            self.apply(peer, Action::Remove, number);
            self.apply(peer, Action::Add, number);
            self.flush();
        }
        panic!("the log may grow for ever");
    }

    /// Compacts from begin to end.
    fn compact_all(&mut self) {
        for _ in 0..=self.truth.len() {
            self.compact(7);
        }
        assert!(!self.table.wants_compaction(History::Usual));
    }

    fn compact(&mut self, budget: usize) {
        self.flush();
        if self.table.wants_compaction(History::Usual) {
            self.table.compact(&self.hops, History::Usual, budget);
        }
    }

    /// Has everybody join who announces something, and a stranger.
    fn check_joins(&mut self) {
        self.flush();
        let live = self.truth.live(VNI);
        let mut peers: BTreeSet<PeerId> = live.into_values().flatten().collect();
        peers.extend(self.subscribers.keys());
        peers.insert(PeerId::NOBODY);
        for peer in peers {
            let mut joiner = Subscriber::default();
            joiner.read(peer, &self.table.join());
            assert_eq!(joiner.has, self.truth.seen_by(peer, VNI), "{peer:?} joins");
        }
    }

    fn check(&mut self) {
        self.flush();
        self.table.check_invariants();
        for (&peer, subscriber) in &self.subscribers {
            assert_eq!(subscriber.has, self.truth.seen_by(peer, VNI), "{peer:?}");
        }
        let live = self.truth.live(VNI);
        assert_eq!(self.table.len(), live.len());
        assert_eq!(self.table.summary().routes(), live.len());
        let mut seen = BTreeMap::new();
        let mut from = Some(Slot::END);
        while let Some(at) = from {
            from = self.table.walk(&self.hops, at, 7, |route, by| {
                let told_twice = seen.insert(route, by.iter().copied().collect());
                assert!(told_twice.is_none());
            });
            assert!(from.is_none_or(|next| next < at), "a walk that ends");
        }
        assert_eq!(seen, live);
        let hops: BTreeSet<NextHop> = live.keys().map(|route| route.next_hop).collect();
        assert_eq!(self.hops.len(), hops.len());
        let announcers: BTreeSet<PeerId> = live.values().flatten().copied().collect();
        for peer in announcers {
            let own = live.iter().filter(|(_, by)| by.contains(&peer));
            let own: BTreeSet<Route> = own.map(|(route, _)| *route).collect();
            assert_eq!(self.table.announced_by(peer), own.len());
            assert_eq!(
                self.table.of(&self.hops, peer).collect::<BTreeSet<_>>(),
                own
            );
            assert!(!self.table.is_empty());
        }
    }
}

#[test]
fn peer_sees_what_others_announce() {
    let mut world = World::new();
    for peer in [1, 2, 3] {
        world.join(PeerId(peer));
    }
    let sees = |world: &World| [1, 2, 3].map(|it| world.subscribers[&PeerId(it)].has.len());
    world.apply(1, Action::Add, 0);
    world.flush();
    assert_eq!(sees(&world), [0, 1, 1], "no echo");
    world.apply(2, Action::Add, 0);
    world.flush();
    assert_eq!(
        sees(&world),
        [1, 1, 1],
        "the first announcer sees the second"
    );
    world.apply(2, Action::Add, 0);
    world.apply(3, Action::Remove, 0);
    world.flush();
    assert_eq!(sees(&world), [1, 1, 1], "nobody withdraws for another");
    world.apply(1, Action::Remove, 0);
    world.flush();
    assert_eq!(
        sees(&world),
        [1, 0, 1],
        "who stays no longer sees it from another"
    );
    let heard: Vec<usize> = world.subscribers.values().map(|it| it.frames).collect();
    assert_eq!(heard, [1, 2, 1], "nobody else hears anything");
    world.leave(PeerId(2));
    world.flush();
    assert_eq!(world.subscribers[&PeerId(1)].has.len(), 0);
    world.check();
}

#[test]
fn a_random_walk_ends_where_the_model_does() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut compactions = 0;
        let mut ids: Vec<u32> = (0..6).collect();
        for step in 0..30_000 {
            let at = random.usize(..ids.len());
            let peer = PeerId(ids[at]);
            match random.u32(..1000) {
                0..250 => world.apply(peer.0, Action::Add, random.u32(..60)),
                250..980 => world.apply(peer.0, Action::Remove, random.u32(..60)),
                980..985 => {
                    world.flush();
                    world.subscribers.remove(&peer);
                }
                985..995 if !world.subscribers.contains_key(&peer) => world.join(peer),
                995..997 => {
                    world.leave(peer);
                    ids[at] = 100 + step;
                }
                _ => {
                    let bytes = world.table.logged_bytes();
                    world.compact(random.usize(1..8));
                    compactions += usize::from(world.table.logged_bytes() < bytes);
                }
            }
            if step % 97 == 0 {
                world.check();
            }
        }
        world.check();
        assert!(compactions > 0, "seed {seed} never compacted");
        for peer in ids {
            world.leave(PeerId(peer));
        }
        world.check();
        assert!(world.table.is_empty());
        assert_eq!(world.hops.len(), 0, "next hops are given back");
    }
}

#[test]
fn table_without_routes_is_empty() {
    let mut world = World::new();
    assert!(world.table.is_empty());
    for peer in [1, 2] {
        world.apply(peer, Action::Add, 0);
        assert!(!world.table.is_empty());
    }
    world.apply(1, Action::Remove, 0);
    assert!(!world.table.is_empty());
    world.apply(2, Action::Remove, 0);
    assert!(
        world.table.is_empty(),
        "nothing is kept of those who shared a route"
    );
}

/// One to six announcers, joins at any moment, compaction in any step.
#[test]
fn log_read_from_its_beginning_is_right_for_every_peer() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let announcers = 1 + u32::try_from(seed % 6).unwrap();
        let routes = random.u32(1..12);
        let mut compactions = 0;
        for _ in 0..400 {
            let peer = random.u32(..announcers);
            match random.u32(..100) {
                0..45 => world.apply(peer, Action::Add, random.u32(..routes)),
                45..85 => world.apply(peer, Action::Remove, random.u32(..routes)),
                85 => world.leave(PeerId(peer)),
                86..90 => world.flush(),
                90..95 if !world.subscribers.contains_key(&PeerId(peer)) => {
                    world.join(PeerId(peer));
                }
                _ => {
                    world.flush();
                    world
                        .table
                        .compact(&world.hops, History::Usual, random.usize(1..4));
                    compactions += 1;
                }
            }
            world.check_joins();
        }
        world.check();
        assert!(compactions > 0);
    }
}

/// The chain of a route's announcers is not walked.
#[test]
fn change_of_a_route_with_many_announcers_costs_what_any_does() {
    const COUNT: u32 = 20_000;
    let looks = |peer_of: fn(u32) -> u32, number_of: fn(u32) -> u32| {
        let mut world = World::new();
        looks::take();
        let mut apply = |action, it| {
            let (peer, route) = (PeerId(peer_of(it)), route(number_of(it)));
            world.table.apply(&mut world.hops, peer, action, &route);
        };
        for action in [Action::Add, Action::Add, Action::Remove] {
            (0..COUNT).for_each(|it| apply(action, it));
        }
        assert!(world.table.is_empty());
        looks::take() / (3 * COUNT as usize)
    };
    let many_routes = looks(|_| 1, |it| it);
    let many_announcers = looks(|it| it, |_| 1);
    assert!((1..=8).contains(&many_routes), "{many_routes} for a change");
    assert!(many_announcers <= 8, "{many_announcers} for a change");
}

#[test]
fn joiners_share_the_segments_of_the_log() {
    let mut world = World::new();
    for number in 0..20_000 {
        world.apply(1, Action::Add, number);
    }
    world.flush();
    let first = world.table_of(2);
    let second = world.table_of(3);
    assert!(first.len() > 5 && first.len() == second.len());
    for (a, b) in first.iter().zip(&second) {
        assert!(
            std::ptr::eq(a.bytes(), b.bytes()),
            "nothing is encoded twice"
        );
    }
    assert!(world.table_of(1).is_empty());
}

#[test]
fn joins_between_single_changes_do_not_shred_the_log() {
    let mut world = World::new();
    for number in 0..1000 {
        world.apply(1, Action::Add, number);
        world.flush();
        world.table_of(2);
    }
    assert_eq!(world.table_of(2).len(), 1);
}

#[test]
fn span_without_a_peer_keeps_the_rest_in_order() {
    /// A frame with a text of one letter.
    const FRAME: usize = HEADER_LEN + 1;
    let mut builder = SegmentBuilder::default();
    let runs = [(1, "aa"), (1, "b"), (2, "cc"), (1, "d"), (3, "e"), (2, "f")];
    let nobody = PeerId::NOBODY.0;
    for (peer, letters) in runs.into_iter().chain([(nobody, "g"), (2, "h")]) {
        for letter in letters.bytes() {
            let mark = match peer {
                it if it == nobody => Mark::All,
                peer => Mark::AllBut(PeerId(peer)),
            };
            builder.push(mark, Action::Add, &[1, 0, 1, 5, letter]);
        }
    }
    let mut span = Span::whole(builder.take());
    let rest = |span: &Span, peer| {
        let (mut text, mut frames) = (String::new(), 0);
        span.clone().for_peer(PeerId(peer), &mut |it| {
            let letters = it.bytes().chunks(FRAME).map(|frame| char::from(frame[4]));
            text.extend(letters);
            frames += it.frames() as usize;
            assert!(it.len() > 0 && it.len() == it.bytes().len());
        });
        assert_eq!(frames, text.len());
        text
    };
    assert_eq!(rest(&span, 1), "ccefgh");
    assert_eq!(rest(&span, 2), "aabdeg");
    assert_eq!(rest(&span, 3), "aabccdfgh");
    assert_eq!(rest(&span, 9), "aabccdefgh");
    assert_eq!(rest(&span, nobody), "aabccdefgh");
    span.advance(FRAME, 1);
    assert_eq!(rest(&span, 1), "ccefgh");
    assert_eq!(rest(&span.split_front(4 * FRAME, 4), 2), "ab");
    assert_eq!(rest(&span, 2), "deg");
}

#[test]
fn span_with_frames_for_single_peers_gives_each_its_own() {
    let mut builder = SegmentBuilder::default();
    let [one, two, three] = [1, 2, 3].map(PeerId);
    let frames = [
        (Mark::Only(one), "ab"),
        (Mark::Only(two), "c"),
        (Mark::Only(one), "d"),
        (Mark::AllBut(one), "e"),
        (Mark::All, "f"),
        (Mark::Only(three), "g"),
        (Mark::AllBut(two), "h"),
    ];
    for (mark, letters) in frames {
        for letter in letters.bytes() {
            builder.push(mark, Action::Add, &[1, 0, 1, 5, letter]);
        }
    }
    let first = builder.take();
    builder.extend(&first);
    builder.extend(&first);
    let span = Span::whole(builder.take());
    let read = |peer| {
        let (mut text, mut frames) = (String::new(), 0);
        span.clone().for_peer(PeerId(peer), &mut |it| {
            text.extend(it.bytes().chunks(5).map(|frame| char::from(frame[4])));
            frames += it.frames() as usize;
        });
        assert_eq!(frames, text.len());
        text
    };
    assert_eq!(read(1), "abdfh".repeat(2));
    assert_eq!(read(2), "cef".repeat(2));
    assert_eq!(read(3), "efgh".repeat(2));
    assert_eq!(read(4), "efh".repeat(2));
}

#[test]
fn compaction_leaves_one_announcement_of_each_route() {
    let mut world = World::new();
    for number in 0..100 {
        world.apply(9, Action::Add, number);
    }
    for peer in [1, 2, 3] {
        world.apply(peer, Action::Add, 100);
        world.apply(peer, Action::Add, 101);
    }
    for peer in [2, 3] {
        world.apply(peer, Action::Remove, 101);
    }
    world.outgrow(9, 0);
    world.compact_all();
    let frames = |world: &mut World, peer| {
        let spans = world.table_of(peer);
        spans.iter().map(Span::frames).sum::<u32>()
    };
    assert_eq!(frames(&mut world, 7), 102, "nothing but what lives");
    assert_eq!(
        frames(&mut world, 1),
        101,
        "the route of its own is left out"
    );
    assert_eq!(frames(&mut world, 2), 102, "a route of several is for all");
    world.check_joins();
}

/// Small tables do not compact at every change, and no table keeps a long history.
#[test]
fn log_is_compacted_once_its_history_is_long() {
    let mut world = World::new();
    world.apply(1, Action::Add, 0);
    world.flush();
    let live = world.table.logged_bytes();
    world.outgrow(1, 0);
    let outgrown = 2048 + live..2048 + 5 * live;
    assert!(outgrown.contains(&world.table.logged_bytes()));
}

#[test]
fn no_session_has_the_id_of_nobody_or_of_this_process() {
    let sessions = 0..PeerId::SESSIONS;
    assert!(
        ![PeerId::NOBODY, PeerId::SELF]
            .iter()
            .any(|it| sessions.contains(&it.0))
    );
    assert_ne!(PeerId::NOBODY, PeerId::SELF);
}
