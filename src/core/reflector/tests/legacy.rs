//! Peers without reassembly among others.

use super::*;

const VNI: Vni = Vni(1);
const BURST: usize = 16 * 1024;

/// A legacy subscriber of a long table, after the handshake.
struct Fabric {
    world: World,
    legacy: PeerId,
    modern: PeerId,
    /// As the kernel tells it.
    window: Option<u32>,
}

impl Fabric {
    fn new(halvings: u8) -> Self {
        let mut config = config();
        config.limits.routes_per_peer = 5000;
        let mut world = World::new(1, config);
        let announcer = world.connect();
        for number in 0..3000 {
            world.update(announcer, VNI, Action::Add, route(number));
        }
        let modern = world.connect();
        let legacy = world.connect_with(None, halvings);
        world.run_until_quiet();
        let mut fabric = Self {
            world,
            legacy,
            modern,
            window: Some(65_536),
        };
        // The first query for the window.
        fabric.due();
        fabric.answer_queries(true);
        for peer in [fabric.legacy, fabric.modern] {
            fabric.world.subscribe(peer, VNI);
        }
        fabric.world.turn(0);
        fabric
    }

    fn shard(&mut self) -> &mut Shard {
        &mut self.world.shards[0]
    }

    /// Lets time pass until something is due.
    fn due(&mut self) {
        let due = self.shard().poll_timeout().unwrap();
        self.world.now = self.world.now.max(due);
        let now = self.world.now;
        self.shard().handle_timeouts(now, |_| false);
    }

    /// Answers the queries for the kernel's queue.
    fn answer_queries(&mut self, is_empty: bool) {
        let now = self.world.now;
        let queue = SendQueue {
            is_empty,
            window: self.window,
        };
        for peer in self.shard().take_queue_queries() {
            self.shard().report_queue(peer, queue, now);
        }
    }

    /// Sends until the legacy peer has received so many routes.
    fn read_until(&mut self, count: usize) {
        while self.received() < count {
            if self.burst() == 0 {
                self.due();
                self.answer_queries(true);
            }
        }
    }

    /// Sends the next chunk; its length.
    fn chunk(&mut self) -> usize {
        assert_eq!(self.world.shards[0].framing(self.legacy), Framing::Chunk);
        let sent = self.world.write(self.legacy, usize::MAX);
        let client = &self.world.clients[&self.legacy];
        assert!(client.reassembler.held() == 0, "a frame is cut");
        assert!(sent <= CHUNK);
        sent
    }

    fn burst(&mut self) -> usize {
        let chunks = std::iter::from_fn(|| Some(self.chunk()).filter(|it| *it > 0));
        chunks.sum()
    }

    fn received(&self) -> usize {
        self.world.clients[&self.legacy].updates
    }
}

#[test]
fn table_goes_in_bursts_of_chunks_and_nobody_else_waits() {
    let mut fabric = Fabric::new(0);
    let burst = fabric.burst();
    assert!((BURST - CHUNK..=BURST).contains(&burst), "{burst} bytes");
    assert_eq!(
        fabric.world.shards[0].framing(fabric.modern),
        Framing::Stream
    );
    assert!(fabric.world.write(fabric.modern, usize::MAX) > 2 * BURST);
    // As long as the kernel has something left, nothing goes.
    for _ in 0..20 {
        fabric.due();
        fabric.answer_queries(false);
        assert_eq!(fabric.chunk(), 0);
    }
    let start = fabric.world.now;
    while fabric.received() < 3000 {
        fabric.due();
        fabric.answer_queries(true);
        assert!(fabric.burst() <= BURST + CHUNK);
    }
    let took = fabric.world.now - start;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let clients = &fabric.world.clients;
    assert_eq!(
        clients[&fabric.legacy].tables,
        clients[&fabric.modern].tables
    );
}

#[test]
fn keepalive_reply_waits_for_no_pace() {
    let mut fabric = Fabric::new(0);
    fabric.burst();
    let (legacy, before) = (fabric.legacy, fabric.received());
    for replies in 2..10 {
        fabric.world.keepalive(legacy);
        assert_eq!(fabric.chunk(), KEEPALIVE_FRAME.len());
        assert_eq!(fabric.world.clients[&legacy].keepalives, replies);
    }
    assert_eq!(fabric.received(), before);
}

#[test]
fn chunk_that_the_kernel_cuts_is_finished_at_once_and_counted() {
    let mut fabric = Fabric::new(0);
    let (legacy, now) = (fabric.legacy, fabric.world.now);
    fabric.chunk();
    let mut slices = [IoSlice::new(&[]); 8];
    let shard = &mut fabric.world.shards[0];
    assert!(shard.gather(legacy, &mut slices, usize::MAX) > 0);
    let first: Vec<u8> = slices[0][..50].to_vec();
    shard.advance(legacy, 50, now);
    fabric.world.clients.get_mut(&legacy).unwrap().read(&first);
    assert_eq!(fabric.shard().gauges().counters.cut_chunks, 1);
    fabric.world.keepalive(legacy);
    while fabric.chunk() > 0 {}
    let client = &fabric.world.clients[&legacy];
    assert_eq!(client.keepalives, 2, "behind the rest of the frame");
    assert_eq!(fabric.shard().gauges().counters.cut_chunks, 1);
}

#[test]
fn end_behind_a_buffer_that_may_be_full_is_reported_with_its_place() {
    // The kernel does not tell the window: nothing is surely read.
    for (window, is_suspect) in [(None, true), (Some(65_536), false)] {
        let mut fabric = Fabric::new(0);
        fabric.window = window;
        fabric.read_until(2500);
        let (legacy, now) = (fabric.legacy, fabric.world.now);
        fabric.shard().close(legacy, CloseReason::PeerClosed, now);
        let reports = std::iter::from_fn(|| fabric.world.shards[0].poll_report());
        let places: Vec<u64> = reports
            .filter_map(|it| match it {
                Report::LegacyDrop(id, overrun) if id == legacy => Some(overrun.place),
                _ => None,
            })
            .collect();
        assert_eq!(places.len(), usize::from(is_suspect), "{window:?}");
        assert!(places.iter().all(|it| *it >= 65_535), "{places:?}");
        let drops = fabric.shard().gauges().counters.legacy_drops;
        assert_eq!(drops, u64::from(is_suspect));
    }
}

#[test]
fn table_that_a_legacy_peer_has_read_is_reported_once() {
    let mut fabric = Fabric::new(0);
    fabric.read_until(3000);
    // What asks for the window is the reply to a KEEPALIVE.
    for _ in 0..2 {
        fabric.world.now += Duration::from_secs(1);
        fabric.world.keepalive(fabric.legacy);
        while fabric.chunk() > 0 {}
        // What the pace wants; the hold time is longer.
        let until = fabric.world.now + Duration::from_secs(1);
        while fabric
            .shard()
            .poll_timeout()
            .is_some_and(|due| due <= until)
        {
            fabric.due();
            fabric.answer_queries(true);
        }
    }
    let reports = std::iter::from_fn(|| fabric.world.shards[0].poll_report());
    let taken: Vec<Report> = reports
        .filter(|it| matches!(it, Report::LegacyTable(..)))
        .collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
}

#[test]
fn halved_pace_sends_half_a_burst() {
    let mut fabric = Fabric::new(1);
    let mut rates = Vec::new();
    fabric.world.shards[0].for_each_session(|view| rates.extend(view.legacy_rate));
    assert_eq!(rates, [crate::core::pace::DEFAULT_RATE / 2]);
    assert!(fabric.burst() <= BURST / 2);
}

#[test]
fn off_means_as_all_others() {
    let mut config = config();
    config.pacing.mode = LegacyPacing::Off;
    let mut world = World::new(1, config);
    let legacy = world.connect_with(None, 0);
    assert_eq!(world.shards[0].framing(legacy), Framing::Stream);
}
