#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

use super::*;

const PACING: Pacing = Pacing {
    mode: LegacyPacing::Auto,
    rate: DEFAULT_RATE,
};

/// A peer that reads at its own speed, and the kernels between.
struct Far {
    now: Instant,
    pacer: Pacer,
    /// Bytes of the window when all is read.
    room: u32,
    /// Bytes read in a millisecond.
    speed: usize,
    unread: usize,
    /// When all that was sent is acknowledged.
    acknowledged: Instant,
    sent: usize,
    unread_max: usize,
    knows_window: bool,
    /// The size of the last table that was read.
    taken: Option<u64>,
}

impl Far {
    fn new(speed: usize, halvings: u8) -> Self {
        let now = Instant::now();
        Self {
            now,
            pacer: Pacer::new(PACING, halvings, now),
            room: 64 * 1024,
            speed,
            unread: 0,
            acknowledged: now,
            sent: 0,
            unread_max: 0,
            knows_window: true,
            taken: None,
        }
    }

    /// One millisecond, with everything sent that may be.
    fn step(&mut self) {
        if self.pacer.poll_timeout().is_some_and(|due| due <= self.now)
            && self.pacer.handle_timeout(self.now)
        {
            let unread = u32::try_from(self.unread).unwrap();
            let window = self.room.saturating_sub(unread);
            let queue = SendQueue {
                is_empty: self.now >= self.acknowledged,
                window: self.knows_window.then_some(window),
            };
            let taken = self.pacer.report_queue(queue, self.now);
            self.taken = self.taken.or(taken);
        }
        while let Some(room) = self.pacer.room() {
            let bytes = room.max(36);
            self.pacer.sent(bytes, self.now);
            self.sent += bytes;
            self.unread += bytes;
            self.acknowledged = self.now + Duration::from_millis(1);
        }
        self.unread_max = self.unread_max.max(self.unread);
        self.unread = self.unread.saturating_sub(self.speed);
        self.now += Duration::from_millis(1);
    }

    fn run(&mut self, millis: usize) {
        for _ in 0..millis {
            self.step();
        }
    }
}

#[test]
fn fast_reader_gets_more_than_a_megabyte_a_second() {
    let mut far = Far::new(1 << 20, 0);
    far.run(1000);
    assert!(far.sent > 1 << 20, "{} bytes", far.sent);
    assert!(far.unread_max <= BURST);
}

#[test]
fn rate_is_not_passed_whoever_reads() {
    for (rate, halvings) in [(1 << 20, 0), (1 << 20, 2), (64 << 10, 0), (8 << 20, 3)] {
        let mut far = Far::new(1 << 20, halvings);
        far.pacer.pacing.rate = rate;
        far.run(10_000);
        let most = (rate >> halvings) as usize * 10 + 2 * BURST;
        assert!(far.sent <= most, "{} of {most} bytes", far.sent);
        assert_eq!(far.pacer.rate(), rate >> halvings);
    }
}

/// 100 microseconds for each route of 36 bytes, and a tenth of that speed.
#[test]
fn slow_reader_never_has_a_full_buffer() {
    for speed in [360, 36] {
        let mut far = Far::new(speed, 0);
        far.run(20_000);
        assert!(far.unread_max < 65_535, "{} unread", far.unread_max);
        assert!(far.sent > speed * 20_000 / 4, "{} bytes", far.sent);
    }
}

/// It grows by twice what comes, read or not, and then no more.
#[test]
fn reader_without_a_processor_for_a_second_has_room_while_its_window_grows() {
    let mut far = Far::new(0, 0);
    for _ in 0..1000 {
        let sent = far.sent;
        far.step();
        let grown = u32::try_from(3 * (far.sent - sent)).unwrap();
        far.room = (far.room + grown).min(300_000);
    }
    assert!(far.unread_max < 65_535, "{} unread", far.unread_max);
    far.speed = 1 << 20;
    far.run(1000);
    let before = far.sent;
    far.run(500);
    assert!(far.sent > before + (1 << 19), "{before}, {}", far.sent);
}

#[test]
fn window_that_shrinks_for_good_costs_a_moment_once() {
    let mut far = Far::new(1 << 20, 0);
    far.run(100);
    far.room = 48 * 1024;
    far.run(1100);
    let before = far.sent;
    far.run(100);
    assert!(far.sent > before + 10 * BURST, "{before}, {}", far.sent);
}

#[test]
fn without_a_window_the_pause_is_all() {
    let mut far = Far::new(1 << 20, 0);
    far.knows_window = false;
    far.run(1000);
    assert!(far.sent > 1 << 20, "{} bytes", far.sent);
}

/// A peer is killed at any moment of a table, or after it, and its reading was seen: that end
/// is no overrun.
#[test]
fn end_of_a_peer_that_surely_read_is_no_overrun() {
    let mut far = Far::new(1 << 20, 0);
    for _ in 0..6000 {
        far.step();
        assert_eq!(far.pacer.overrun(), None);
    }
    assert!(far.sent > 6 << 20, "{} bytes", far.sent);
}

/// A host whose process is stopped for eight seconds, with a wide window.
#[test]
fn stalled_reader_is_overrun_at_full_pace_and_not_at_an_eighth() {
    for (halvings, is_overrun) in [(0, true), (HALVINGS_MAX, false)] {
        let mut far = Far::new(1 << 20, halvings);
        far.room = 300_000;
        far.run(100);
        far.speed = 0;
        far.run(8000);
        let is_full = far.unread_max >= 65_535;
        assert_eq!(is_full, is_overrun, "{} unread", far.unread_max);
        assert_eq!(far.pacer.overrun().is_some(), is_overrun);
        // It has read everything in the end, and is not suspected any more.
        far.speed = 1 << 20;
        far.run(20_000);
        assert_eq!(far.pacer.overrun(), None);
    }
}

/// An overrun by design: the process stands still for ten seconds at the same route of each table.
#[test]
fn peer_that_stalls_at_one_place_of_each_table_gets_it_and_is_forgiven() {
    const TABLE: usize = 1_800_000;
    let address = "2001:db8::1".parse().unwrap();
    let mut memory = Memory::default();
    let mut now = Instant::now();
    let mut paces = Vec::new();
    loop {
        let halvings = memory.halvings(address, now);
        paces.push(halvings);
        let mut far = Far::new(1 << 20, halvings);
        far.room = 300_000;
        let begun = far.now;
        while far.sent < 700_000 {
            far.step();
        }
        far.speed = 0;
        far.run(10_000);
        let elapsed = far.now - begun;
        if far.unread_max >= 65_535 {
            let overrun = far.pacer.overrun().unwrap();
            let overrun = Overrun {
                begun: now,
                ..overrun
            };
            now += elapsed;
            memory.ended(address, overrun, now);
            assert!(paces.len() < 5, "{paces:?}");
            continue;
        }
        far.speed = 1 << 20;
        while far.sent < TABLE {
            far.step();
        }
        far.pacer.all_sent(far.now);
        far.run(1000);
        assert!(memory.taken(address, far.taken.unwrap()));
        break;
    }
    assert_eq!(paces[..2], [0, 0], "one end proves nothing");
    assert!(paces.len() > 2, "{paces:?}");
    assert_eq!(memory.halvings(address, now), 0);
}

#[test]
fn without_a_window_any_end_behind_a_full_buffer_may_be_an_overrun() {
    let mut far = Far::new(1 << 20, 0);
    far.knows_window = false;
    let begun = far.now;
    while far.sent < 65_535 {
        assert!(far.pacer.overrun().is_none() || far.sent > 60_000);
        far.step();
    }
    let overrun = far.pacer.overrun().unwrap();
    assert_eq!(overrun.begun, begun);
    assert_eq!(overrun.place, far.sent as u64);
}

#[test]
fn table_counts_as_taken_once_the_last_of_it_is_read() {
    let mut far = Far::new(1 << 20, 0);
    far.run(500);
    assert_eq!(far.taken, None);
    let sent = far.sent as u64;
    far.pacer.all_sent(far.now);
    far.run(100);
    let taken = far.taken.take().unwrap();
    assert!(taken.abs_diff(sent) < 2 * BURST as u64, "{taken} of {sent}");
    far.run(100);
    assert_eq!(far.taken, None, "once");
}

#[test]
fn server_is_never_more_than_a_window_behind() {
    let now = Instant::now();
    let mut window = Window::new(PACING);
    let mut position = 0;
    while window.has_room(position) {
        position += 40;
    }
    assert!(window.wants_barrier(position) && position < 33_000);
    window.sent(now);
    window.close(7);
    window.answered(6);
    assert_eq!(window.poll_timeout(), None, "waits for the answer alone");
    window.answered(7);
    let due = window.poll_timeout().unwrap();
    assert_eq!(due, now + Duration::from_micros(3906), "32 KiB at 8 MiB/s");
    window.handle_timeout(now);
    assert!(!window.has_room(position));
    window.handle_timeout(due);
    assert!(window.has_room(position));
}
