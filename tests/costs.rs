//! What sessions, subscriptions, VNIs and routes cost a server, in bytes that it has allocated.
//!
//! The README and `metalbond server --help` state these costs. Everything is measured by one
//! test: the allocator counts for the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

#[path = "../benches/siege/wire.rs"]
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustbond::{MetalBondServer, ServerConfig, ServerStats};
use wire::{announcements, barrier, session, subscribe, unsubscribe};

/// Longer than any machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The system's allocator; counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this method, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this method, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A server and what it has allocated so far.
struct Costs {
    server: MetalBondServer,
    before: usize,
}

impl Costs {
    fn new() -> Self {
        let config = ServerConfig {
            workers: NonZeroUsize::new(2).unwrap(),
            keepalive_interval: 60,
            ..ServerConfig::default()
        };
        let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
        Self {
            server,
            before: ALLOCATED.load(Ordering::Relaxed),
        }
    }

    fn sessions(&mut self, count: usize) -> Vec<TcpStream> {
        let address = self.server.local_addr();
        let sessions = (0..count).map(|_| session(address)).collect();
        self.before = ALLOCATED.load(Ordering::Relaxed);
        sessions
    }

    /// Returns what each of `count` things costs, once the server has what it is to have and
    /// has done what there was to do.
    #[track_caller]
    fn each(&mut self, count: usize, is_there: impl Fn(&ServerStats) -> bool) -> usize {
        let until = Instant::now() + PATIENCE;
        let (mut last, mut same) = (0, 0);
        // Nothing is under way any more when nothing is allocated or freed.
        while same < 10 {
            assert!(Instant::now() < until, "{:?}", self.server.stats());
            std::thread::sleep(Duration::from_millis(20));
            let now = ALLOCATED.load(Ordering::Relaxed);
            let is_same = now == last && is_there(&self.server.stats());
            same = if is_same { same + 1 } else { 0 };
            last = now;
        }
        last.saturating_sub(self.before) / count
    }
}

/// Sends what every session makes of its share of the VNIs.
fn send_all(sessions: &mut [TcpStream], vnis: u32, request: impl Fn(u32) -> Vec<u8>) {
    let share = vnis.div_ceil(u32::try_from(sessions.len()).unwrap());
    for (number, stream) in (0..).zip(sessions) {
        let own = number * share..vnis.min((number + 1) * share);
        stream
            .write_all(&own.flat_map(&request).collect::<Vec<u8>>())
            .unwrap();
        barrier(stream);
    }
}

#[test]
fn documented_costs_are_kept() {
    const VNIS: u32 = 100_000;
    let mut found = Vec::new();

    let mut costs = Costs::new();
    let idle: Vec<TcpStream> = (0..1000)
        .map(|_| session(costs.server.local_addr()))
        .collect();
    let session_bytes = costs.each(idle.len(), |it| it.established == 1000);
    found.push(("an idle session", session_bytes, 1600));
    drop((idle, costs));

    let mut costs = Costs::new();
    let mut subscribers = costs.sessions(10);
    send_all(&mut subscribers, VNIS, subscribe);
    let is_there = |it: &ServerStats| it.subscriptions == VNIS as usize;
    let each = costs.each(VNIS as usize, is_there);
    found.push(("a subscription without a table", each, 64));
    send_all(&mut subscribers, VNIS, unsubscribe);
    let left = costs.each(VNIS as usize, |it| it.subscriptions == 0 && it.vnis == 0);
    found.push(("one that has ended", left, 2));
    drop((subscribers, costs));

    let mut costs = Costs::new();
    let mut announcers = costs.sessions(10);
    send_all(&mut announcers, VNIS, |vni| announcements(vni, 0..1));
    let each = costs.each(VNIS as usize, |it| it.routes == VNIS as usize);
    found.push(("a VNI with one route", each, 400));
    send_all(&mut announcers, VNIS, |vni| announcements(vni, 1..10));
    let routes = 10 * VNIS as usize;
    let each = costs.each(routes, |it| it.routes == routes);
    found.push(("one of 10 routes of a VNI", each, 130));
    drop((announcers, costs));

    let mut costs = Costs::new();
    let mut announcers = costs.sessions(1);
    send_all(&mut announcers, 1, |vni| announcements(vni, 0..600_000));
    let each = costs.each(600_000, |it| it.routes == 600_000);
    found.push(("one of many routes of a VNI", each, 130));

    println!("{found:#?}");
    let too_dear: Vec<_> = found.iter().filter(|it| it.1 > it.2).collect();
    assert!(too_dear.is_empty(), "{too_dear:?}");
}
