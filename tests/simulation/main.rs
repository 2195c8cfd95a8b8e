//! The pure core of servers, clients and kernel plans in one deterministic world.
//!
//! Two servers of several shards, up to 50 clients, legacy ones among them, some with a
//! kernel; one virtual clock. Bytes are late, cut anywhere and lost with their connections;
//! links, processes and hosts stop, come back, or are slow. What happens is a list of steps
//! made from a seed; what must hold is checked after each, and once all is at rest.
//!
//! | variable | meaning |
//! |---|---|
//! | `RUSTBOND_SIM_SEEDS` | how many seeds are tried; default 200 |
//! | `RUSTBOND_SIM_FIRST` | the first of them; default 0 |
//! | `RUSTBOND_SIM_SEED` | only this seed |
//! | `RUSTBOND_SIM_KEEP` | of it, only the steps of these numbers, as a failure prints them |
//! | `RUSTBOND_SIM_TRACE` | prints what happens; for a seed that was made short |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the story of a seed is for who asked for it"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "virtual time is hours at most"
)]

mod agenda;
mod check;
mod client;
mod kernel;
mod ledger;
mod monitor;
mod promise;
mod route;
mod script;
mod server;
mod shrink;
mod wire;
mod world;

use std::cell::RefCell;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use script::{Setup, Step, setup, steps};
use world::World;

/// Seeds that are tried unless told otherwise.
const SEEDS: u64 = 200;

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How a world fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Story {
    trace: u64,
    turns: u64,
    lasted: Duration,
    coalesced: u64,
}

/// What was wrong, and where.
#[derive(Clone, Debug)]
struct Failure {
    what: String,
    /// Place in the list of steps; after the last one, everybody leaves.
    at: usize,
    elapsed: Duration,
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

/// Makes steps happen in a new world; `numbered` are their numbers and themselves.
fn run(setup: &Setup, numbered: &[(usize, Step)]) -> Result<Story, Failure> {
    let mut world = World::new(setup.clone());
    for (at, (number, step)) in numbered.iter().enumerate() {
        // What chance does in a step does not depend on the steps before.
        let seed = setup.seed ^ (*number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        world.random = fastrand::Rng::with_seed(seed);
        world.auditor = fastrand::Rng::with_seed(!seed);
        let act = AssertUnwindSafe(|| {
            world.step(*step);
            world.check();
        });
        if catch_unwind(act).is_err() {
            return Err(failure(&world, at));
        }
    }
    if catch_unwind(AssertUnwindSafe(|| world.end())).is_err() {
        return Err(failure(&world, numbered.len()));
    }
    let cores = world.servers.iter().filter_map(|it| it.core.as_ref());
    Ok(Story {
        trace: world.trace,
        turns: world.turns,
        lasted: world.elapsed(),
        coalesced: cores.map(|it| it.coalesced()).sum(),
    })
}

fn failure(world: &World, at: usize) -> Failure {
    let what = PANIC.with_borrow_mut(Option::take);
    Failure {
        what: what.unwrap_or_default(),
        at,
        elapsed: world.elapsed(),
    }
}

/// Has panics of simulated worlds noted instead of printed.
fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let before = take_hook();
    set_hook(Box::new(|info| {
        PANIC.set(Some(info.to_string().replace('\n', " ")));
    }));
    let result = act();
    set_hook(before);
    result
}

/// What there is to say of a failing seed.
fn report(setup: &Setup, numbered: &[(usize, Step)], failure: &Failure) -> String {
    let subset = |kept: &[usize]| -> Vec<_> { kept.iter().map(|it| numbered[*it]).collect() };
    let kept = shrink::shrink(numbered.len(), |kept| run(setup, &subset(kept)).is_err());
    let short = subset(&kept);
    let last = run(setup, &short).err();
    let seed = setup.seed;
    let command = "cargo test --features internals --test simulation -- seeds --nocapture";
    let mut text = format!(
        "seed {seed}: {}\n  at step {} of {}, {:?} after the beginning\n  \
         replay: RUSTBOND_SIM_SEED={seed} {command}\n",
        failure.what,
        failure.at,
        numbered.len(),
        failure.elapsed,
    );
    let numbers: Vec<String> = short.iter().map(|(number, _)| number.to_string()).collect();
    let numbers = numbers.join(",");
    writeln!(text, "  {} steps are enough:", short.len()).unwrap();
    for (number, step) in &short {
        writeln!(text, "    {number:4} {step:?}").unwrap();
    }
    if let Some(last) = last {
        writeln!(text, "  they end with: {}", last.what).unwrap();
    }
    writeln!(
        text,
        "  replay: RUSTBOND_SIM_SEED={seed} RUSTBOND_SIM_KEEP={numbers} {command}"
    )
    .unwrap();
    text
}

fn numbered(setup: &Setup) -> Vec<(usize, Step)> {
    steps(setup).into_iter().enumerate().collect()
}

/// Tries a seed; what there is to say if it fails.
fn try_seed(seed: u64) -> Result<Story, String> {
    let setup = setup(seed);
    let mut steps = numbered(&setup);
    if let Ok(kept) = std::env::var("RUSTBOND_SIM_KEEP") {
        let kept: Vec<usize> = kept.split(',').filter_map(|it| it.parse().ok()).collect();
        steps.retain(|(number, _)| kept.contains(number));
    }
    run(&setup, &steps).map_err(|failure| report(&setup, &steps, &failure))
}

#[test]
fn seeds_reach_their_expected_end() {
    let first = number("RUSTBOND_SIM_FIRST").unwrap_or(0);
    let (first, count) = match number("RUSTBOND_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (first, number("RUSTBOND_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let total = std::sync::Mutex::new((Story::default(), None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count || total.lock().unwrap().1.is_some() {
                return;
            }
            let tried = try_seed(seed);
            let mut total = total.lock().unwrap();
            match tried {
                Ok(story) => {
                    total.0.turns += story.turns;
                    total.0.lasted += story.lasted;
                    total.0.coalesced += story.coalesced;
                }
                Err(text) => total.1 = Some(text),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    quietly(|| {
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
    });
    let (story, failed) = total.into_inner().unwrap();
    println!(
        "{count} seeds from {first}: {} turns, {:?} of virtual time, {} queues coalesced",
        story.turns, story.lasted, story.coalesced
    );
    if let Some(text) = failed {
        panic!("{text}");
    }
}

#[test]
fn same_seed_gives_the_same_story() {
    for seed in [3, 11] {
        let setup = setup(seed);
        let steps = numbered(&setup);
        let stories = [(); 2].map(|()| run(&setup, &steps).map_err(|it| it.what));
        assert_eq!(stories[0], stories[1], "seed {seed}");
    }
}
