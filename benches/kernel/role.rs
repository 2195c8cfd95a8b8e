//! This binary in other roles, as processes of their own: a server, and a client that
//! installs what it receives.
//!
//! A client is asked by lines and answers each with a line of numbers; times are
//! nanoseconds of the monotonic clock, which all processes share.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustbond::kernel::{KernelConfig, KernelWriter};
use rustbond::{
    ClientConfig, MetalBondClient, MetalBondServer, Route, RouteHandler, ServerConfig, Vni,
};

use crate::process::Process;
use crate::{VNI, WAIT, procfs};

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
        _ => {}
    }
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

/// Installs, and says when as many routes are held as somebody waits for.
struct Counting {
    writer: KernelWriter,
    held: AtomicI64,
    target: Arc<AtomicI64>,
    reached: Sender<u64>,
    complete: Sender<u64>,
}

impl Counting {
    fn count(&self, change: i64) {
        let held = self.held.fetch_add(change, SeqCst) + change;
        if held == self.target.load(SeqCst) {
            // Nobody asked for more than one answer.
            let _ = self.reached.try_send(clock());
        }
    }
}

impl RouteHandler for Counting {
    fn add_route(&self, vni: Vni, route: Route) {
        RouteHandler::add_route(&self.writer, vni, route);
        self.count(1);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        RouteHandler::remove_route(&self.writer, vni, route);
        self.count(-1);
    }

    fn synced(&self, vni: Vni) {
        RouteHandler::synced(&self.writer, vni);
        let _ = self.complete.try_send(clock());
    }
}

struct Asked {
    client: MetalBondClient,
    writer: KernelWriter,
    target: Arc<AtomicI64>,
    reached: Receiver<u64>,
    complete: Receiver<u64>,
}

fn install(server: &str, config: KernelConfig) -> ! {
    let writer = KernelWriter::start(config).expect("the namespace has the device");
    let target = Arc::new(AtomicI64::new(-1));
    let (reached_sender, reached) = bounded(1);
    let (complete_sender, complete) = bounded(1);
    let handler = Counting {
        writer: writer.clone(),
        held: AtomicI64::new(0),
        target: Arc::clone(&target),
        reached: reached_sender,
        complete: complete_sender,
    };
    let client = MetalBondClient::start(&[server], handler, ClientConfig::default());
    let asked = Asked {
        client: client.expect("the client starts"),
        writer,
        target,
        reached,
        complete,
    };
    for line in std::io::stdin().lines() {
        let answer = asked.answer(&line.expect("the parent writes text"));
        let words: Vec<String> = answer.iter().map(u64::to_string).collect();
        println!("{}", words.join(" "));
    }
    std::process::exit(0)
}

impl Asked {
    fn answer(&self, question: &str) -> Vec<u64> {
        let stats = || self.writer.stats();
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
            // From then on `reached` means this many routes.
            ["target", number] => {
                let number = number.parse().expect("a number");
                while self.reached.try_recv().is_ok() {}
                self.target.store(number, SeqCst);
                vec![stats().messages]
            }
            ["reached"] => {
                let last = self.reached.recv_timeout(WAIT).expect("the routes come");
                self.writer.flush(WAIT).expect("the kernel takes them");
                let end = clock();
                assert_eq!(stats().failed, 0, "{:?}", stats());
                vec![last, end, stats().messages]
            }
            ["complete"] => {
                let complete = self.complete.recv_timeout(WAIT).expect("END_OF_RIB comes");
                self.writer.flush(WAIT).expect("the kernel takes them");
                let end = clock();
                let stats = stats();
                vec![complete, end, stats.messages, u64::from(stats.in_sync)]
            }
            _ => panic!("not understood: {question}"),
        }
    }
}
