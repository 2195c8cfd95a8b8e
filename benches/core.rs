//! The core's parts on their own: `cargo bench --bench core --features internals`.
//!
//! Nanoseconds of one thread, the median of nine runs, each beside a copy of the
//! same bytes, which is the least that any of them can cost.
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints"
)]

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::time::Instant;

use rustbond::internals::{Table, coalesce, decode, encode};
use rustbond::{Action, Destination, NextHop, Route, Vni};

const ROUTES: u32 = 100_000;

fn route(number: u32) -> Route {
    let hop = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let destination = Destination::from_ipv4((0x0a00_0000 + number).into(), 32);
    Route::new(destination, NextHop::standard(hop))
}

/// Median nanoseconds per operation of `run`, on what `prepare` makes each time.
fn measure<T>(operations: u32, prepare: impl Fn() -> T, run: impl Fn(T) -> T) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let prepared = prepare();
            let start = Instant::now();
            let kept = black_box(run(prepared));
            let elapsed = start.elapsed();
            drop(kept);
            elapsed.as_nanos() as f64 / f64::from(operations)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[4]
}

fn frames() -> Vec<u8> {
    let mut out = Vec::new();
    (0..ROUTES).for_each(|it| encode(&mut out, Action::Add, Vni(1), &route(it)));
    out
}

fn filled(peers: u32) -> Table {
    let mut table = Table::default();
    (0..ROUTES).for_each(|it| table.apply(it * peers / ROUTES, Action::Add, &route(it)));
    table.flush();
    table
}

fn main() {
    let stream = frames();
    let copy = measure(
        ROUTES,
        || stream.clone(),
        |stream| black_box(stream.clone()),
    );
    let line = |what: &str, nanos: f64| {
        println!("{what:<44} {nanos:>7.1} ns   {:>6.1} x copy", nanos / copy);
    };
    line("copy of the frame, the floor", copy);
    let decoding = |stream: Vec<u8>| {
        black_box(decode(&stream, 64 * 1024));
        stream
    };
    let decoded = measure(ROUTES, || stream.clone(), decoding);
    line("decode an UPDATE from the stream", decoded);
    let encoded = measure(ROUTES, || (), |()| drop(black_box(frames())));
    line("encode an UPDATE", encoded);
    tables(&line);
    let coalescing = |stream: Vec<u8>| {
        black_box(coalesce(&stream));
        stream
    };
    let coalesced = measure(2 * ROUTES, || twice(&stream), coalescing);
    line("coalesce, a change of a queue", coalesced);
}

fn tables(line: &impl Fn(&str, f64)) {
    let apply_all = |action| {
        move |mut table: Table| {
            (0..ROUTES).for_each(|it| table.apply(0, action, &route(it)));
            table.flush();
            table
        }
    };
    let announced = measure(ROUTES, Table::default, apply_all(Action::Add));
    line("announce a new route", announced);
    let repeated = measure(ROUTES, || filled(1), apply_all(Action::Add));
    line("announce a known route again", repeated);
    let withdrawn = measure(ROUTES, || filled(1), apply_all(Action::Remove));
    line("withdraw a route", withdrawn);
    let joining = |mut table: Table| {
        black_box(table.join(1000));
        table
    };
    let joined = measure(ROUTES, || filled(100), joining);
    line("join, a route of the initial table", joined);
    let compacting = |mut table: Table| {
        while table.compact() {}
        table
    };
    let compacted = measure(ROUTES, outgrown, compacting);
    line("compact, a live route of the log", compacted);
}

/// A table whose log holds three times what is live.
fn outgrown() -> Table {
    let mut table = filled(1);
    for it in 0..ROUTES {
        table.apply(2, Action::Add, &route(ROUTES + it));
    }
    for it in 0..ROUTES {
        table.apply(2, Action::Remove, &route(ROUTES + it));
    }
    table.flush();
    table
}

/// Every route announced and withdrawn.
fn twice(stream: &[u8]) -> Vec<u8> {
    let mut out = stream.to_vec();
    (0..ROUTES).for_each(|it| encode(&mut out, Action::Remove, Vni(1), &route(it)));
    out
}
