//! A queue that is rewritten in steps, and everything that can happen between two of them.

use std::collections::BTreeSet;

use super::*;
use crate::core::reflector::coalesce::Results;
use crate::core::reflector::meter::Meter;
use crate::core::rib::{Mark, SegmentBuilder};
use crate::core::scripted::hear;
use crate::core::types::{Action, Destination, NextHop, Route};
use crate::core::wire::{
    KEEPALIVE_FRAME, MessageType, Reassembler, decode_subscription, decode_update,
    encode_subscription, encode_update,
};

const VNIS: usize = 3;

fn route(number: u32) -> Route {
    let hop = NextHop::standard(std::net::Ipv6Addr::LOCALHOST);
    Route::new(Destination::from_ipv4(number.into(), 32), hop)
}

/// A subscription, on both sides of the queue.
#[derive(Default)]
struct Flow {
    epoch: u32,
    is_active: bool,
    /// What the table is, and what it was when the subscription ended.
    table: BTreeSet<Route>,
    /// What the peer has made of what it read.
    read: BTreeSet<Route>,
    is_complete: bool,
    /// Frames of an ended subscription that are still sent: one that was begun.
    strays: usize,
}

const PEER: PeerId = PeerId(1);
const OTHER: PeerId = PeerId(2);

struct World {
    random: fastrand::Rng,
    outbox: Outbox,
    results: Results,
    reassembler: Reassembler,
    flows: [Flow; VNIS],
    keepalives: (usize, usize),
    epoch: u32,
    rewrites: usize,
    /// What was pushed of each epoch, so that nothing is sent twice.
    pushed: usize,
    heard: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            outbox: Outbox::default(),
            results: Results::new(seed),
            reassembler: Reassembler::default(),
            flows: Default::default(),
            keepalives: (0, 0),
            epoch: 0,
            rewrites: 0,
            pushed: 0,
            heard: 0,
        }
    }

    /// Some routes come and go, in one span.
    fn change(&mut self, at: usize) {
        let vni = Vni(u32::try_from(at).unwrap());
        let flow = &mut self.flows[at];
        let (mut frames, mut removals) = (Vec::new(), 0);
        let count = self.random.u32(1..6);
        for _ in 0..count {
            let route = route(self.random.u32(..12));
            let action = match flow.table.remove(&route) {
                true => Action::Remove,
                false => Action::Add,
            };
            if action == Action::Add {
                flow.table.insert(route);
            }
            removals += u32::from(action == Action::Remove);
            encode_update(&mut frames, action, vni, &route);
        }
        let span = Span::whole(Segment::unmarked(frames, count, removals));
        if flow.is_active {
            self.pushed += count as usize;
            self.outbox.push_delta(vni, flow.epoch, span);
        }
    }

    fn subscribe(&mut self, at: usize) {
        let vni = Vni(u32::try_from(at).unwrap());
        let flow = &mut self.flows[at];
        if flow.is_active || self.outbox.has_table(vni) {
            return;
        }
        self.epoch += 1;
        flow.epoch = self.epoch;
        (flow.is_active, flow.is_complete) = (true, false);
        flow.read.clear();
        // Among them what it announces itself.
        let mut segment = SegmentBuilder::default();
        for (number, &route) in (100..).zip(&flow.table) {
            for (owner, route) in [(OTHER, route), (PEER, self::route(number))] {
                let mut frame = Vec::new();
                encode_update(&mut frame, Action::Add, vni, &route);
                segment.push(Mark::AllBut(owner), Action::Add, &frame);
            }
            self.pushed += 1;
            if self.random.u8(..4) == 0 {
                let part = Span::whole(segment.take());
                self.outbox.push_table(PEER, vni, self.epoch, part);
            }
        }
        if !segment.is_empty() {
            let part = Span::whole(segment.take());
            self.outbox.push_table(PEER, vni, self.epoch, part);
        }
        let mut frame = Vec::new();
        encode_subscription(&mut frame, MessageType::EndOfRib, vni);
        let span = Span::whole(Segment::unmarked(frame, 1, 0));
        self.outbox.push_end_of_rib(vni, self.epoch, span);
    }

    fn unsubscribe(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        if std::mem::take(&mut flow.is_active) {
            let vni = Vni(u32::try_from(at).unwrap());
            self.outbox.end(vni, flow.epoch);
            let is_begun = |it: &&Item| {
                let kinds = [Kind::Delta(vni), Kind::Table(vni), Kind::EndOfRib(vni)];
                it.epoch == BEGUN && kinds.contains(&it.kind)
            };
            flow.strays = self.outbox.items.iter().take(1).filter(is_begun).count();
        }
    }

    fn step(&mut self) {
        let units = self.random.usize(1..60);
        let mut meter = Meter::of(units);
        if !self.outbox.is_rewritten() {
            self.rewrites += usize::from(self.outbox.begin_rewrite(&mut meter));
        }
        let mut meter = Meter::of(units);
        self.outbox.go_on(&mut self.results, &mut meter);
        self.results.forget(2);
        self.results.take_discarded();
    }

    fn read(&mut self, budget: usize) -> usize {
        self.outbox.drop_dead(usize::MAX);
        if self.outbox.is_blocked() {
            return 0;
        }
        let mut slices = [IoSlice::new(&[]); 5];
        let filled = self.outbox.gather(&mut slices, budget);
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|it| it.to_vec()).collect();
        self.outbox.advance(bytes.len());
        let mut rest = &bytes[..];
        while let Some(frame) = self.reassembler.next(&mut rest).unwrap() {
            match frame.kind {
                MessageType::Keepalive => self.keepalives.1 += 1,
                MessageType::EndOfRib => {
                    let vni = decode_subscription(frame.payload).unwrap();
                    let flow = &mut self.flows[vni.0 as usize];
                    if flow.is_active && flow.strays == 0 {
                        assert!(!std::mem::replace(&mut flow.is_complete, true));
                    }
                    flow.strays = flow.strays.saturating_sub(1);
                }
                MessageType::Update => {
                    let update = decode_update(frame.payload).unwrap();
                    self.heard += 1;
                    let flow = &mut self.flows[update.vni.0 as usize];
                    if flow.strays > 0 {
                        flow.strays -= 1;
                    } else {
                        assert!(flow.is_active, "nothing of what has ended is begun");
                        assert!(update.action == Action::Add || flow.is_complete);
                        hear(&mut flow.read, update.action, update.route);
                    }
                }
                _ => panic!("nothing else was queued"),
            }
        }
        bytes.len()
    }

    fn check_counters(&self) {
        let rewrite = self.outbox.rewrite.is_some();
        let items = &self.outbox.items;
        let bytes: usize = items.iter().map(Item::left).sum();
        assert!(rewrite && bytes <= self.outbox.bytes || bytes == self.outbox.bytes);
        assert!(self.outbox.delta_bytes <= self.outbox.bytes);
    }
}

/// Law L, whatever happens between the steps: UNSUBSCRIBE, tables, changes, KEEPALIVEs, reads
/// that end in a frame, and the end of the session.
#[test]
fn queue_that_is_rewritten_in_steps_tells_each_table_once_and_in_order() {
    let (mut rewrites, mut saved) = (0, 0);
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            let at = world.random.usize(..VNIS);
            match world.random.u32(..100) {
                0..40 => world.change(at),
                40..46 => world.subscribe(at),
                46..49 => world.unsubscribe(at),
                49..52 if !world.outbox.has_control() => {
                    world.keepalives.0 += 1;
                    world.outbox.push_control(KEEPALIVE_FRAME.to_vec());
                }
                49..85 => world.step(),
                _ => {
                    let budget = world.random.usize(1..300);
                    world.read(budget);
                }
            }
            world.check_counters();
        }
        if seed % 4 == 0 {
            let mut leftovers = Leftovers::default();
            leftovers.push_queue(std::mem::take(&mut world.outbox));
            let mut steps = 0;
            while !leftovers.is_empty() {
                leftovers.drop_some(&mut Meter::of(10));
                steps += 1;
            }
            assert!(steps < 10_000);
            continue;
        }
        while !world.outbox.is_empty() {
            if world.read(1000) == 0 {
                world.step();
            }
        }
        assert_eq!((world.outbox.bytes, world.outbox.delta_bytes), (0, 0));
        assert_eq!(world.keepalives.0, world.keepalives.1);
        for flow in world.flows.iter().filter(|it| it.is_active) {
            assert_eq!(flow.read, flow.table, "seed {seed}");
            assert!(flow.is_complete);
        }
        rewrites += world.rewrites;
        saved += world.pushed - world.heard;
    }
    assert!(rewrites > 1000, "{rewrites} rewrites");
    assert!(saved > 1000, "{saved} frames saved");
}

/// Subscriptions that have ended are forgotten when nothing of them can wait any more.
#[test]
fn ended_subscriptions_are_forgotten_in_steps() {
    let mut outbox = Outbox::default();
    let mut frame = Vec::new();
    encode_update(&mut frame, Action::Add, Vni(0), &route(0));
    let span = Span::whole(Segment::unmarked(frame, 1, 0));
    outbox.push_delta(Vni(0), 1, span);
    let count = 3000;
    for vni in 1..=count {
        outbox.end(Vni(vni), vni);
    }
    assert!(outbox.wants_sweep());
    let (mut results, mut steps) = (Results::new(1), 0);
    while outbox.wants_sweep() || outbox.is_rewritten() {
        let mut meter = Meter::of(100);
        if !outbox.is_rewritten() {
            assert!(!outbox.begin_rewrite(&mut meter));
        }
        outbox.go_on(&mut results, &mut meter);
        steps += 1;
    }
    assert!(steps >= 30, "{steps} steps");
    assert!(!outbox.has_ended());
    assert_eq!(outbox.items.len(), 1, "what is alive still waits");
}

/// A log of which every other frame is the session's own.
#[test]
fn table_of_many_pieces_is_cut_a_segment_at_a_time() {
    const SEGMENTS: u32 = 50;
    const FRAMES: u32 = 500;
    let mut outbox = Outbox::default();
    let mut segment = SegmentBuilder::default();
    for number in 0..SEGMENTS * FRAMES {
        let owner = if number % 2 == 0 { PEER } else { OTHER };
        let mut frame = Vec::new();
        encode_update(&mut frame, Action::Add, Vni(1), &route(number));
        segment.push(Mark::AllBut(owner), Action::Add, &frame);
        if number % FRAMES == FRAMES - 1 {
            outbox.push_table(PEER, Vni(1), 1, Span::whole(segment.take()));
        }
    }
    let pieces = FRAMES as usize / 2;
    let mut most = outbox.items.len();
    let mut heard = Vec::new();
    let mut reassembler = Reassembler::default();
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = outbox.gather(&mut slices, usize::MAX);
        assert!(filled > 0, "there is always something to send");
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|it| it.to_vec()).collect();
        let mut rest = &bytes[..];
        while let Some(frame) = reassembler.next(&mut rest).unwrap() {
            heard.push(decode_update(frame.payload).unwrap().route);
        }
        outbox.advance(bytes.len());
        most = most.max(outbox.items.len());
    }
    assert!(most < SEGMENTS as usize + pieces, "{most} items at once");
    let expected = (0..SEGMENTS * FRAMES).filter(|it| it % 2 == 1);
    assert!(heard.into_iter().eq(expected.map(route)));
    assert_eq!((outbox.bytes(), outbox.has_table(Vni(1))), (0, false));
}
