//! Peers that cost more than their bytes, against a server with two workers.
//!
//! `cargo bench --bench siege [-- [--short] [--scale] [ROW...]]`. Each row is a siege of its own, with
//! a new server: the release binary. Healthy sessions on both workers send KEEPALIVEs all the
//! time; the bench reports the longest wait for an answer before and during the siege, the
//! memory of the server, and how many healthy sessions were closed.
//!
//! `--short` takes a tenth of the size and fails if a healthy session was closed, or if a limit
//! is passed that even a slow machine keeps. A row that takes longer than [`ROW_TIME`] ends the
//! bench in any case.
//!
//! `--scale` loads a whole fabric instead, and has a third of it leave.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints"
)]

mod healthy;
#[path = "../fanout/process.rs"]
mod process;
#[path = "../../tests/common/procfs.rs"]
mod procfs;
mod rows;
mod scale;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use healthy::Healthy;
use process::Process;
use rows::Field;

/// How long quiet is measured.
const QUIET: Duration = Duration::from_millis(500);

/// Of a short run: the longest wait beyond quiet, and the peak of memory.
const SHORT_WAIT: Duration = Duration::from_secs(2);
const SHORT_MEMORY_MIB: f64 = 256.0;

/// No row takes longer.
const ROW_TIME: Duration = Duration::from_secs(300);

/// All sessions come from one address, and at once.
const MANY: [&str; 6] = [
    "--max-sessions",
    "100000",
    "--max-sessions-per-address",
    "100000",
    "--max-accepts-per-second",
    "100000",
];

/// A siege. It may measure a wait of its own.
enum Siege {
    Costs(fn(&Field)),
    Delays(fn(&Field) -> Duration),
}

const ROWS: [(&str, Siege); 15] = [
    ("shared-joins", Siege::Costs(rows::shared_joins)),
    ("own-joins", Siege::Costs(rows::own_joins)),
    (
        "unread-unsubscribes",
        Siege::Costs(rows::unread_unsubscribes),
    ),
    (
        "stalled-subscribers",
        Siege::Costs(rows::stalled_subscribers),
    ),
    ("full-mailboxes", Siege::Costs(rows::full_mailboxes)),
    ("small-histories", Siege::Costs(rows::small_histories)),
    (
        "fleeting-subscriptions",
        Siege::Costs(rows::fleeting_subscriptions),
    ),
    (
        "empty-subscriptions",
        Siege::Costs(rows::empty_subscriptions),
    ),
    ("shared-flaps", Siege::Costs(rows::shared_flaps)),
    ("unread-monitor", Siege::Costs(rows::unread_monitor)),
    ("mass-subscription", Siege::Costs(rows::mass_subscription)),
    ("crowded-route", Siege::Costs(rows::crowded_route)),
    ("resets", Siege::Delays(rows::resets)),
    ("half-requests", Siege::Delays(rows::half_requests)),
    ("slow-readers", Siege::Costs(rows::slow_readers)),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_short = arguments.iter().any(|it| it == "--short");
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|it| !it.starts_with("--"))
        .collect();
    process::raise_descriptor_limit();
    if arguments.iter().any(|it| it == "--scale") {
        scale::run(if is_short { 10 } else { 1 });
        return;
    }
    println!("siege                      quiet ms   worst ms   idle MiB   peak MiB   closed");
    let mut failures = Vec::new();
    for (name, siege) in &ROWS {
        if wanted.is_empty() || wanted.iter().any(|it| it == name) {
            failures.extend(run(name, siege, is_short).filter(|_| is_short));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Kills the server unless what it returns is dropped in time: the bench fails, whatever it
/// waits for.
fn within(time: Duration, server: u32) -> Sender<()> {
    let (in_time, over) = channel();
    std::thread::spawn(move || {
        if over.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            println!("not over after {} s", time.as_secs());
            let kill = std::process::Command::new("kill")
                .args(["-9", &server.to_string()])
                .status();
            assert!(kill.is_ok_and(|it| it.success()));
        }
    });
    in_time
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Runs one siege. Returns what passes the limits of a short run.
fn run(name: &str, siege: &Siege, is_short: bool) -> Option<String> {
    let http = free_address();
    let file = format!("rustbond-siege-{}.sock", std::process::id());
    let control = std::env::temp_dir().join(file);
    let (http_text, path) = (http.to_string(), control.to_str().unwrap());
    let mut arguments = vec!["--workers", "2", "--http", &http_text, "--control", path];
    // Most besiegers send no KEEPALIVEs.
    arguments.extend(["--keepalive", "60"]);
    arguments.extend(MANY);
    let server = Process::server(&arguments);
    let field = Field {
        server: server.address,
        http,
        control,
        divisor: if is_short { 10 } else { 1 },
    };
    let _in_time = within(ROW_TIME, server.id());
    let healthy = Healthy::start(server.address);
    std::thread::sleep(QUIET);
    let quiet = healthy.take_worst();
    let idle = server.resident() as f64 / 1024.0 / 1024.0;
    let delay = match siege {
        Siege::Costs(run) => {
            run(&field);
            Duration::ZERO
        }
        Siege::Delays(run) => run(&field),
    };
    let (worst, closed) = healthy.stop();
    let (worst, peak) = (worst.max(delay), server.peak_mib());
    let [quiet_ms, worst_ms] = [quiet, worst].map(|it| it.as_secs_f64() * 1e3);
    println!("{name:24} {quiet_ms:10.1} {worst_ms:10.1} {idle:10.1} {peak:10.1} {closed:8}");
    let is_kept = closed == 0 && worst <= quiet + SHORT_WAIT && peak <= SHORT_MEMORY_MIB;
    (!is_kept).then(|| format!("{name}: {worst_ms:.0} ms, {peak:.0} MiB, {closed} closed"))
}
