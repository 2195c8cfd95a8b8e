//! This binary as a process under observation: a server, or some clients.
//!
//! It is asked by lines on its standard input and answers each with one.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustbond::inspect::{self, Inspect, PeerState};
use rustbond::{
    ClientConfig, CloseReason, MetalBondClient, MetalBondServer, Route, RouteHandler, ServerConfig,
    ServerId, Vni,
};

use crate::process::Process;
use crate::route::fingerprint_of;
use crate::{VNIS, procfs};

/// Seconds; a starved machine must not look like a silent peer.
const KEEPALIVE: u32 = 120;

/// Where the clients connect from, so that their sessions are told from the raw peers'.
const CLIENTS: &str = "127.0.0.2";

/// A process under observation.
pub(crate) struct Role(Process);

impl Role {
    /// Asks, and returns the answer.
    pub(crate) fn ask(&mut self, question: &str) -> String {
        self.0.ask(question)
    }

    /// Asks for a number.
    pub(crate) fn count(&mut self, question: &str) -> u64 {
        self.ask(question).parse().expect("a number")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        procfs::descriptors(self.0.id())
    }

    /// KiB of resident memory.
    pub(crate) fn resident_kib(&self) -> u32 {
        let kib = procfs::memory(self.0.id(), "VmRSS") / 1024;
        u32::try_from(kib).unwrap_or(u32::MAX)
    }

    /// Time on a CPU so far; clients that were restarted had threads of their own.
    pub(crate) fn cpu(&self) -> Duration {
        procfs::cpu_of_all(self.0.id())
    }
}

/// Answers until the input ends.
fn answer(mut to: impl FnMut(&str, usize) -> String) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (question, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let answer = match question {
            "allocated" => allocated_kib().to_string(),
            "trim" => trim().to_string(),
            _ => to(question, number.parse().expect("a number")),
        };
        println!("{answer}");
    }
}

/// KiB that this process has from the allocator and has not given back.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "mallinfo2 has no wrapper in the dependencies")]
fn allocated_kib() -> usize {
    // SAFETY: it has no preconditions; it takes the locks of all arenas.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) / 1024
}

/// Has the allocator give back what nobody uses; 1 if it gave something.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "malloc_trim has no wrapper in the dependencies")]
fn trim() -> i32 {
    // SAFETY: it has no preconditions; it takes the locks of all arenas.
    unsafe { libc::malloc_trim(0) }
}

/// Other allocators do not say.
#[cfg(not(target_env = "gnu"))]
fn allocated_kib() -> usize {
    0
}

#[cfg(not(target_env = "gnu"))]
fn trim() -> i32 {
    0
}

/// The digests and sizes of the tables that are not empty; the same text on all that agree.
fn tables(inspector: &dyn Inspect) -> String {
    let vnis = inspector.vnis().expect("the role runs");
    let filled = vnis.iter().filter(|it| it.table.routes() > 0);
    let texts = filled.map(|it| format!("{}:{}:{}", it.vni, it.table.routes(), it.table.digest));
    texts.collect::<Vec<_>>().join(" ")
}

/// A server until the input ends.
pub(crate) fn serve() {
    let config = ServerConfig {
        keepalive_interval: KEEPALIVE,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).expect("a port is free");
    let inspector = server.inspector();
    println!("{}", server.local_addr());
    let clients: IpAddr = CLIENTS.parse().expect("an address");
    answer(|question, number| match question {
        "tables" => tables(&*inspector),
        "sessions" => server.stats().sessions.to_string(),
        "routes" => {
            let snapshot = inspector.snapshot(None).expect("the role runs");
            let each = snapshot.entries().iter();
            let each = each.map(|it| fingerprint_of(it.vni, &it.route));
            each.fold(0, |all, one| all ^ one).to_string()
        }
        "reset" => {
            let mut peers = inspector.peers().expect("the role runs");
            peers.retain(|it| {
                let is_client = it.address.is_some_and(|it| it.ip() == clients);
                is_client && it.state == PeerState::Established
            });
            peers.sort_by_key(|it| it.id);
            let name = peers[number % peers.len()].name.clone();
            let done = inspector.execute(inspect::Command::ResetPeer(name));
            u64::from(matches!(done, Ok(inspect::Done::Changed(1)))).to_string()
        }
        _ => panic!("{question}?"),
    });
}

/// What a client's events amount to.
#[derive(Clone, Default)]
struct Watcher {
    table: Arc<Mutex<(HashSet<u64>, u64)>>,
    totals: Arc<Totals>,
}

/// Of all clients together, those that have ended included.
#[derive(Default)]
struct Totals {
    events: AtomicU64,
    faults: AtomicU64,
    downs: AtomicU64,
}

impl Watcher {
    fn told(&self, vni: Vni, route: &Route, is_add: bool) {
        let one = fingerprint_of(vni, route);
        let mut table = self.table.lock().expect("nobody panics with it");
        let is_news = match is_add {
            true => table.0.insert(one),
            false => table.0.remove(&one),
        };
        table.1 ^= one;
        self.totals.events.fetch_add(1, Ordering::Relaxed);
        self.totals
            .faults
            .fetch_add(u64::from(!is_news), Ordering::Relaxed);
    }
}

impl RouteHandler for Watcher {
    fn add_route(&self, vni: Vni, route: Route) {
        self.told(vni, &route, true);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        self.told(vni, &route, false);
    }

    fn server_down(&self, _: ServerId, reason: CloseReason) {
        // The end of the client itself is not the end of a session under way.
        if reason != CloseReason::Shutdown {
            self.totals.downs.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn connect(servers: &[&str], totals: &Arc<Totals>) -> (MetalBondClient, Watcher) {
    let watcher = Watcher {
        table: Arc::default(),
        totals: Arc::clone(totals),
    };
    let config = ClientConfig {
        keepalive_interval: KEEPALIVE,
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        bind: Some(CLIENTS.parse().expect("an address")),
        ..ClientConfig::default()
    };
    let client = MetalBondClient::start(servers, watcher.clone(), config).expect("it starts");
    for vni in 1..=VNIS {
        let subscribed = client.subscribe(Vni(vni.into()));
        subscribed.expect("the client runs");
    }
    (client, watcher)
}

/// So many clients of these servers, until the input ends.
pub(crate) fn subscribe(servers: &[&str], count: usize) {
    let totals = Arc::<Totals>::default();
    let mut clients: Vec<_> = (0..count).map(|_| connect(servers, &totals)).collect();
    println!("ready");
    answer(|question, number| match question {
        // What the view has, then what the handler was told.
        "tables" => {
            let each = clients.iter().map(|(client, watcher)| {
                let told = watcher.table.lock().expect("nobody panics with it").1;
                format!("{}={told}", tables(&*client.inspector()))
            });
            each.collect::<Vec<_>>().join("|")
        }
        "restart" => {
            let (old, _) = clients.swap_remove(number % count);
            old.shutdown().expect("it stops");
            clients.push(connect(servers, &totals));
            "done".into()
        }
        "events" => totals.events.load(Ordering::Relaxed).to_string(),
        "faults" => totals.faults.load(Ordering::Relaxed).to_string(),
        "downs" => totals.downs.load(Ordering::Relaxed).to_string(),
        _ => panic!("{question}?"),
    });
}

/// Starts a server, and says where it listens.
pub(crate) fn server() -> (Role, SocketAddr) {
    let mut server = Process::start(&["server"]);
    let address = server.line().parse().expect("an address");
    (Role(server), address)
}

/// Starts so many clients of these servers.
pub(crate) fn clients(servers: &[SocketAddr], count: usize) -> Role {
    let mut arguments = vec!["clients".to_owned(), count.to_string()];
    arguments.extend(servers.iter().map(ToString::to_string));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut clients = Process::start(&arguments);
    assert_eq!(clients.line(), "ready");
    Role(clients)
}
