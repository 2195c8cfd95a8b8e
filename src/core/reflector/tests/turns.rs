//! What a turn costs at worst, in the units of its meter: the rows of a siege.

use super::*;

/// What the last step of each kind of work may add to a turn: a span of 64 KiB that is
/// coalesced, what one session sent.
const SLACK: usize = meter::PER_TURN / 4;

/// Bytes that a worker reads from a session at once.
const READ: usize = 8 * 1024;

fn wide() -> ShardConfig {
    let limits = Limits {
        routes_per_peer: 1 << 24,
        routes: 1 << 24,
        subscriptions_per_peer: 1 << 24,
        ..config().limits
    };
    ShardConfig {
        soft_limit: 1 << 20,
        limits,
        ..config()
    }
}

/// One shard, besieged as a worker's loop lets it be.
struct Siege {
    world: World,
    /// What each peer has yet to send.
    waiting: VecDeque<(PeerId, Vec<u8>)>,
    /// What the dearest turn has cost.
    worst: usize,
    turns: usize,
    /// Whether the peers read what they are sent.
    reads: bool,
}

impl Siege {
    fn new() -> Self {
        Self {
            world: World::new(1, wide()),
            waiting: VecDeque::new(),
            worst: 0,
            turns: 0,
            reads: false,
        }
    }

    fn send(&mut self, peer: PeerId, bytes: Vec<u8>) {
        match self.waiting.iter_mut().find(|it| it.0 == peer) {
            Some((_, waiting)) => waiting.extend(bytes),
            None => self.waiting.push_back((peer, bytes)),
        }
    }

    fn turn(&mut self) {
        for _ in 0..self.waiting.len() {
            if self.world.shards[0].is_over(Phase::Reads) {
                break;
            }
            if let Some((peer, mut bytes)) = self.waiting.pop_front() {
                let rest = bytes.split_off(bytes.len().min(READ));
                self.world.send(peer, &bytes);
                if !rest.is_empty() {
                    self.waiting.push_back((peer, rest));
                }
            }
        }
        self.world.turn(0);
        self.worst = self.worst.max(self.world.shards[0].used);
        self.turns += 1;
        let peers: Vec<PeerId> = self.world.clients.keys().copied().collect();
        for peer in peers.into_iter().filter(|_| self.reads) {
            self.world.write(peer, 256 * 1024);
        }
    }

    /// Goes on until all is sent and done. The turns must have been short.
    #[track_caller]
    fn run(&mut self) {
        while !self.waiting.is_empty() || self.world.shards[0].has_work() {
            self.turn();
        }
        let worst = self.worst;
        assert!(worst <= meter::PER_TURN + SLACK, "{worst} units in a turn");
    }

    /// The same, and it must have been much.
    #[track_caller]
    fn run_long(&mut self, turns: usize) {
        self.run();
        assert!(self.turns >= turns, "{} turns", self.turns);
    }
}

fn announcements(vni: u32, numbers: std::ops::Range<u32>) -> Vec<u8> {
    let mut frames = Vec::new();
    for number in numbers {
        encode_update(&mut frames, Action::Add, Vni(vni), &route(number));
    }
    frames
}

fn about(kinds: &[MessageType], vnis: std::ops::Range<u32>) -> Vec<u8> {
    let mut frames = Vec::new();
    for vni in vnis {
        for &kind in kinds {
            encode_subscription(&mut frames, kind, Vni(vni));
        }
    }
    frames
}

/// Rows 1 and 2: a peer shares a route of a large table, and joins it again and again; another
/// joins its own.
#[test]
fn turns_are_short_while_a_large_table_is_joined_again_and_again() {
    let mut siege = Siege::new();
    let [announcer, sharer] = [siege.world.connect(), siege.world.connect()];
    siege.send(announcer, announcements(1, 0..50_000));
    siege.send(sharer, announcements(1, 0..1));
    siege.run();
    let toggle = about(&[MessageType::Subscribe, MessageType::Unsubscribe], 1..2);
    for peer in [announcer, sharer] {
        siege.send(peer, toggle.repeat(10_000));
    }
    siege.run_long(10);
}

/// Row 3: a peer unsubscribes with a long queue that it did not read, or leaves.
#[test]
fn turns_are_short_while_a_long_queue_is_dropped() {
    for leaves in [false, true] {
        let mut siege = Siege::new();
        let [announcer, besieger] = [siege.world.connect(), siege.world.connect()];
        siege.send(besieger, about(&[MessageType::Subscribe], 0..400));
        siege.run();
        for round in 0..300 {
            let all = (0..400).flat_map(|vni| announcements(vni, round..round + 1));
            siege.world.send(announcer, &all.collect::<Vec<u8>>());
            siege.turn();
        }
        let queue = siege.world.shards[0].usage().queues;
        assert!(queue > 120_000 * 40, "{queue} bytes wait");
        if leaves {
            siege.world.disconnect(besieger);
        } else {
            siege.send(besieger, about(&[MessageType::Unsubscribe], 0..400));
        }
        siege.reads = true;
        siege.turns = 0;
        siege.run_long(3);
        // What nobody holds any more is off the account soon.
        (0..100).for_each(|_| siege.turn());
        let queue = siege.world.shards[0].usage().queues;
        assert!(queue < 8_000_000, "{queue} bytes are left");
    }
}

/// Row 4: subscribers stall while a table changes back and forth, each at another moment.
#[test]
fn turns_are_short_while_long_queues_are_coalesced() {
    let mut siege = Siege::new();
    let announcer = siege.world.connect();
    let mut stalled = Vec::new();
    for round in 0..40 {
        let peer = siege.world.connect();
        siege.send(peer, about(&[MessageType::Subscribe], 1..2));
        siege.run();
        stalled.push(peer);
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for number in 0..2000 {
            let (from, to) = (number * 2 + round % 2, number * 2 + (round + 1) % 2);
            encode_update(&mut old, Action::Remove, Vni(1), &route(from));
            encode_update(&mut new, Action::Add, Vni(1), &route(to));
        }
        siege.send(announcer, [old, new].concat());
        siege.world.now += Duration::from_secs(1);
        let now = siege.world.now;
        for &peer in &stalled {
            siege.world.home(peer).advance(peer, 0, now);
        }
        siege.run();
    }
    let coalesced = siege.world.shards[0].gauges().counters.coalesced;
    assert!(coalesced > 20, "{coalesced} queues");
    siege.run_long(100);
}

/// Row 5: more mail comes than a turn has room for; what sessions send is read all the same.
#[test]
fn turns_are_short_while_a_mailbox_is_full() {
    let mut siege = Siege::new();
    let peer = siege.world.connect();
    let updates = |from: u32| {
        let update = |number| Update {
            vni: Vni(1),
            action: Action::Add,
            route: route(number),
        };
        let updates = (from..from + 1000).map(update).collect();
        let peer = PeerId(1_000_001);
        vec![Message::Updates { peer, updates }]
    };
    let mut mail: VecDeque<Vec<Message>> = (0..100).map(|it| updates(it * 1000)).collect();
    siege.send(peer, KEEPALIVE_FRAME.repeat(20_000));
    while !mail.is_empty() {
        while !siege.world.shards[0].is_over(Phase::Mail)
            && let Some(messages) = mail.pop_front()
        {
            let now = siege.world.now;
            siege.world.shards[0].deliver(messages, now);
        }
        assert!(!siege.world.shards[0].is_over(Phase::Reads));
        siege.turn();
    }
    assert!(siege.waiting.is_empty(), "the session was read");
    siege.run_long(10);
}

/// Row 11: many sessions subscribe to many VNIs at the same time.
#[test]
fn turns_are_short_while_many_sessions_subscribe() {
    let mut siege = Siege::new();
    let announcer = siege.world.connect();
    let all = (0..100).flat_map(|vni| announcements(vni, 0..20));
    siege.send(announcer, all.collect());
    siege.run();
    for _ in 0..500 {
        let peer = siege.world.connect();
        siege.send(peer, about(&[MessageType::Subscribe], 0..100));
    }
    siege.turns = 0;
    siege.run_long(20);
    assert_eq!(siege.world.shards[0].gauges().subscriptions, 50_000);
}

/// Row 12: many peers announce the same routes, and leave.
#[test]
fn turns_are_short_while_many_announcers_of_a_route_leave() {
    let mut siege = Siege::new();
    let peers: Vec<PeerId> = (0..300).map(|_| siege.world.connect()).collect();
    for &peer in &peers {
        siege.send(peer, announcements(1, 0..200));
    }
    siege.run_long(10);
    assert_eq!(siege.world.shards[0].gauges().announcements, 60_000);
    for peer in peers {
        siege.world.disconnect(peer);
    }
    siege.turns = 0;
    siege.run_long(8);
    assert_eq!(siege.world.shards[0].gauges().announcements, 0);
}

/// However little a turn has room for, all kinds of work are done in the end.
#[test]
fn no_kind_of_work_starves_another() {
    let mut siege = Siege::new();
    siege.world.shards[0].per_turn = 600;
    let leaving: Vec<PeerId> = (0..5).map(|_| siege.world.connect()).collect();
    for &peer in &leaving {
        siege.send(peer, announcements(1, 0..3000));
        siege.send(peer, about(&[MessageType::Subscribe], 2..2000));
    }
    siege.reads = true;
    while !siege.waiting.is_empty() || siege.world.shards[0].has_work() {
        siege.turn();
    }
    for peer in leaving {
        siege.world.disconnect(peer);
    }
    let [announcer, subscriber] = [siege.world.connect(), siege.world.connect()];
    siege.world.subscribe(subscriber, Vni(1));
    siege
        .world
        .update(announcer, Vni(5000), Action::Add, route(1));
    siege
        .world
        .update(announcer, Vni(1), Action::Add, route(7000));
    let is_told = |siege: &Siege| siege.world.clients[&subscriber].complete.contains(&Vni(1));
    let mut turns = 0;
    while !is_told(&siege) {
        siege.turn();
        turns += 1;
        assert!(turns < 100, "the join waits for all that leave");
    }
    assert!(siege.world.shards[0].has_work(), "they still leave");
}
