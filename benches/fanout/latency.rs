//! From send to read: one update at a time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::peer::{Sinks, announcer, update};
use crate::process::Process;

/// Percentile of sorted times, in microseconds.
fn percentile(sorted: &[Duration], of_hundred: usize) -> f64 {
    let at = (sorted.len() - 1) * of_hundred / 100;
    sorted[at].as_secs_f64() * 1e6
}

/// Announces and withdraws a route in turn; when each sink has read it.
fn rounds(
    source: &mut TcpStream,
    sinks: &mut Sinks,
    (count, pause): (u32, Duration),
) -> Vec<Vec<Duration>> {
    let round = |number: u32| {
        let frame = update(u8::from(number % 2 == 1), 1, 7, 1);
        let next = Instant::now() + pause;
        let start = Instant::now();
        source.write_all(&frame).unwrap();
        let times = sinks.arrivals(frame.len(), start);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        times
    };
    (0..count).map(round).collect()
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
}

/// A thousand updates a second to ten subscribers.
///
/// Sessions go to the workers in turn. Of two announcers one lives on the worker that owns the
/// table, the other a hop between threads away from it, so each is measured.
pub(crate) fn steady() {
    let load = (5000, Duration::from_millis(1));
    let relay = Process::relay(10);
    let mut sinks = Sinks::connected(relay.address, 10);
    let mut source = TcpStream::connect(relay.address).unwrap();
    source.set_nodelay(true).unwrap();
    let floor = sorted(rounds(&mut source, &mut sinks, load).into_iter().flatten());
    drop(relay);
    let server = Process::server(&[]);
    let mut sinks = Sinks::subscribed(server.address, 10, 1);
    let sources = [announcer(server.address), announcer(server.address)];
    let mut ours = sources
        .map(|mut source| sorted(rounds(&mut source, &mut sinks, load).into_iter().flatten()));
    ours.sort_by_key(|times| times[times.len() / 2]);
    print!(
        "1,000 updates/s to 10: relay p50 {:.0} us, p99 {:.0} us",
        percentile(&floor, 50),
        percentile(&floor, 99),
    );
    for (where_it_lives, times) in ["the owner's worker", "another"].iter().zip(&ours) {
        print!(
            "; announcer on {where_it_lives} p50 {:.0} us, p99 {:.0} us, ratio of p50 {:.2}",
            percentile(times, 50),
            percentile(times, 99),
            percentile(times, 50) / percentile(&floor, 50),
        );
    }
    println!();
}

/// One update to a thousand subscribers: when the last has read it.
pub(crate) fn wide() {
    let load = (300, Duration::from_millis(10));
    let last = |rounds: Vec<Vec<Duration>>| {
        sorted(
            rounds
                .into_iter()
                .filter_map(|times| times.into_iter().max()),
        )
    };
    let relay = Process::relay(1000);
    let mut sinks = Sinks::connected(relay.address, 1000);
    let mut source = TcpStream::connect(relay.address).unwrap();
    source.set_nodelay(true).unwrap();
    let floor = last(rounds(&mut source, &mut sinks, load));
    drop(relay);
    let server = Process::server(&[]);
    let mut sinks = Sinks::subscribed(server.address, 1000, 1);
    let mut source = announcer(server.address);
    let all = rounds(&mut source, &mut sinks, load);
    let each = sorted(all.iter().flatten().copied());
    let ours = last(all);
    println!(
        "one update to 1,000: last of them relay p50 {:.2} ms, p99 {:.2} ms; server p50 {:.2} ms, p99 {:.2} ms; any of them p99 {:.2} ms",
        percentile(&floor, 50) / 1e3,
        percentile(&floor, 99) / 1e3,
        percentile(&ours, 50) / 1e3,
        percentile(&ours, 99) / 1e3,
        percentile(&each, 99) / 1e3,
    );
}

/// A thousand updates a second to ten subscribers, while somebody downloads a million routes
/// over HTTP again and again.
pub(crate) fn snapshots() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = free.local_addr().unwrap();
    drop(free);
    let server = Process::server(&["--http", &http.to_string()]);
    let big = crate::loaded_in(server.address, 2, 1_000_000);
    let mut sinks = Sinks::subscribed(server.address, 10, 1);
    let mut source = announcer(server.address);
    let load = (5000, Duration::from_millis(1));
    let mut run = || sorted(rounds(&mut source, &mut sinks, load).into_iter().flatten());
    let alone = run();
    let before = server.resident();
    let is_over = Arc::new(AtomicBool::new(false));
    let download = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut bytes = 0;
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                bytes += download(http);
                count += 1;
            }
            (count, bytes)
        }
    });
    let beside = run();
    is_over.store(true, Ordering::Relaxed);
    let (count, bytes): (u32, usize) = download.join().unwrap();
    let report = |what: &str, times: &[Duration]| {
        println!(
            "1,000 updates/s to 10, {what}: p50 {:.0} us, p99 {:.0} us, the worst {:.1} ms",
            percentile(times, 50),
            percentile(times, 99),
            percentile(times, 100) / 1e3,
        );
    };
    report("alone", &alone);
    report("beside downloads of 1,000,000 routes", &beside);
    println!(
        "    {count} downloads of {:.0} MiB each; the server's memory grew by {:.1} MiB at most",
        bytes as f64 / f64::from(count) / 1024.0 / 1024.0,
        server.peak_mib() - before as f64 / 1024.0 / 1024.0,
    );
    drop(big);
}

/// Takes all routes, and looks at none; how many bytes that were.
fn download(http: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(http).unwrap();
    let request = b"GET /routes.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return bytes,
            count => bytes += count,
        }
    }
}
