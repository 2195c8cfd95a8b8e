//! This binary in other roles, as processes of their own: a server, and a client that
//! installs what it receives.
//!
//! A client is asked by lines and answers each with a line of numbers; times are
//! nanoseconds of the monotonic clock, which all processes share.

use std::time::{Duration, Instant};

use rustbond::kernel::{KernelConfig, KernelStatus, KernelWriter};
use rustbond::{MetalBondClient, MetalBondServer, ServerConfig, Vni};

use crate::process::Process;
use crate::{OTHER_VNI, TABLE, VNI, WAIT, config, procfs};

/// The monotonic clock.
#[allow(unsafe_code)] // The standard library does not show the number.
pub(crate) fn clock() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("time is positive")
}

pub(crate) fn since(start: u64, end: u64) -> Duration {
    Duration::from_nanos(end.saturating_sub(start))
}

/// A server or a client; killed when dropped.
pub(crate) struct Role(Process);

impl Role {
    /// A server, and its address.
    pub(crate) fn server() -> (Self, String) {
        let mut server = Process::start(&["server"]);
        let address = server.line();
        (Self(server), address)
    }

    /// A client of `server` with a kernel writer.
    pub(crate) fn client(server: &str) -> Self {
        Self(Process::start(&["client", server]))
    }

    /// The same with a second VNI, which has a table of its own.
    pub(crate) fn pair(server: &str) -> Self {
        Self(Process::start(&["pair", server]))
    }

    /// Asks, and returns the answer.
    pub(crate) fn ask<const N: usize>(&mut self, question: &str) -> [u64; N] {
        let line = self.0.ask(question);
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        numbers
            .try_into()
            .unwrap_or_else(|_| panic!("{question}: {line}"))
    }

    /// Bytes of resident memory: its own, and the most it had.
    pub(crate) fn memory(&self) -> [u64; 2] {
        ["RssAnon", "VmHWM"].map(|field| procfs::memory(self.0.id(), field))
    }

    /// Time on a CPU so far, user and system: a busy machine does not change it much.
    pub(crate) fn cpu(&self) -> Duration {
        procfs::cpu(self.0.id())
    }

    /// SIGKILL, and the end.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

/// Plays a role if the arguments name one. Does not return then.
pub(crate) fn play(arguments: &[String], config: KernelConfig) {
    match arguments {
        [role] if role == "server" => serve(),
        [role, server] if role == "client" => install(server, config),
        [role, server] if role == "pair" => install(server, pair(config)),
        _ => {}
    }
}

fn pair(mut config: KernelConfig) -> KernelConfig {
    config.vni_tables.insert(OTHER_VNI, TABLE + 1);
    config
}

fn serve() -> ! {
    let config = ServerConfig {
        // The announcers of this benchmark send no KEEPALIVE of their own accord.
        keepalive_interval: 600,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).expect("the server starts");
    println!("{}", server.local_addr());
    for _ in std::io::stdin().lines() {}
    std::process::exit(0)
}

/// A client whose routes are installed, and how many a question waits for.
struct Asked {
    client: MetalBondClient,
    writer: KernelWriter,
    target: Target,
}

/// What [`Asked`] waits for.
#[derive(Clone, Copy, Default)]
struct Target {
    /// Routes that the client holds.
    routes: usize,
    /// Destinations of those routes.
    destinations: u64,
    /// Messages to the kernel when the target was set.
    messages: u64,
}

/// How often a state is looked at that nobody announces.
const GLANCE: Duration = Duration::from_micros(500);

fn install(server: &str, config: KernelConfig) -> ! {
    let writer = KernelWriter::start(config).expect("the namespace has the device");
    let builder = MetalBondClient::builder().server(server);
    let mut asked = Asked {
        client: writer.install(builder).expect("the client starts"),
        writer,
        target: Target::default(),
    };
    for line in std::io::stdin().lines() {
        let answer = asked.answer(&line.expect("the parent writes text"));
        let words: Vec<String> = answer.iter().map(u64::to_string).collect();
        println!("{}", words.join(" "));
    }
    std::process::exit(0)
}

fn wait_until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !is_reached() {
        assert!(Instant::now() < end, "not reached: {what}");
        std::thread::sleep(GLANCE);
    }
}

impl Asked {
    fn answer(&mut self, question: &str) -> Vec<u64> {
        let number = |text: &str| text.parse::<u32>().expect("a number");
        match question.split_whitespace().collect::<Vec<_>>()[..] {
            ["established"] => {
                let established = self.client.wait_established_timeout(WAIT);
                established.expect("the server answers");
                vec![clock()]
            }
            ["subscribe"] => {
                let start = clock();
                self.client.subscribe(VNI).expect("the client runs");
                vec![start]
            }
            ["also"] => {
                self.client.subscribe(OTHER_VNI).expect("the client runs");
                vec![clock()]
            }
            // A table that is new is a reason to read all tables.
            ["read", table] => {
                let mut config = pair(config());
                config.vni_tables.insert(Vni(1000), 1000 + number(table));
                let read = self.writer.reconfigure(config, |_| Ok(Vec::new()));
                read.expect("the settings are right");
                vec![clock()]
            }
            // From then on `reached` means this many routes and destinations.
            ["target", routes, destinations] => {
                self.target = Target {
                    routes: number(routes) as usize,
                    destinations: number(destinations).into(),
                    messages: self.writer.stats().messages,
                };
                vec![self.target.messages]
            }
            ["reached"] => {
                let target = self.target;
                wait_until("the routes", || {
                    self.client
                        .route_count()
                        .is_ok_and(|it| it == target.routes)
                });
                let last = clock();
                let stats = self.installed(target);
                let end = clock();
                assert_eq!(stats.failed, 0, "{stats:?}");
                vec![last, end, stats.messages]
            }
            // All routes lead to one hop each.
            ["complete", routes] => {
                let synced = self.client.wait_synced(VNI, WAIT);
                synced.expect("END_OF_RIB comes");
                let complete = clock();
                let stats = self.installed(Target {
                    destinations: number(routes).into(),
                    ..Target::default()
                });
                let in_sync = u64::from(stats.in_sync);
                vec![complete, clock(), stats.messages, in_sync]
            }
            _ => panic!("not understood: {question}"),
        }
    }

    /// Waits until the kernel has what the client holds.
    fn installed(&self, target: Target) -> KernelStatus {
        let has_written = |stats: &KernelStatus| {
            target.routes == 0 && target.messages == 0 || stats.messages > target.messages
        };
        let mut stats = self.writer.stats();
        wait_until("the kernel has the routes", || {
            stats = self.writer.stats();
            stats.in_sync && stats.desired == target.destinations && has_written(&stats)
        });
        stats
    }
}
