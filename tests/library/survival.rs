//! What the client is for: servers die, and nothing that is alive suffers.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{self, PATIENCE, Recorder, client, eventually, free_address, hop, server, v4};
use rustbond::{
    ClientConfig, ClientState, ConnectionState, MetalBondClient, MetalBondServer, NoOpHandler,
    Route, RouteHandler, ServerConfig, ServerId, Vni,
};

const VNI: Vni = Vni(100);

/// Names the address that this process is to serve, when it is a child.
const ROLE: &str = "RUSTBOND_TEST_SERVE";

/// Not a test: a server in a process of its own, until its standard input ends.
#[test]
fn server_role() {
    let Ok(address) = std::env::var(ROLE) else {
        return;
    };
    let server = MetalBondServer::start(&*address, ServerConfig::default()).unwrap();
    let parent = std::io::stdin().read(&mut [0; 1]);
    drop((parent, server));
}

/// A server in a process, which can be killed.
struct Process {
    address: SocketAddr,
    child: Option<Child>,
}

impl Process {
    fn new() -> Self {
        let mut process = Self {
            address: free_address(),
            child: None,
        };
        process.start();
        process
    }

    fn start(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "survival::server_role", "--nocapture"])
            .env(ROLE, self.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// kill -9
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Objects when a route goes that was not withdrawn.
#[derive(Clone, Default)]
struct Guard {
    wanted: Arc<Mutex<BTreeSet<(Vni, Route)>>>,
    told: Arc<Mutex<BTreeSet<(Vni, Route)>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    fn fault(&self, what: &str, route: Route) {
        self.faults.lock().unwrap().push(format!("{what}: {route}"));
    }
}

impl RouteHandler for Guard {
    fn add_route(&self, vni: Vni, route: Route) {
        if !self.told.lock().unwrap().insert((vni, route)) {
            self.fault("added twice", route);
        }
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        if self.wanted.lock().unwrap().contains(&(vni, route)) {
            self.fault("removed though a live server has it", route);
        }
        if !self.told.lock().unwrap().remove(&(vni, route)) {
            self.fault("removed though absent", route);
        }
    }
}

/// Announces and withdraws; no route comes twice.
fn churn(client: &MetalBondClient, guard: &Guard, next: &AtomicU32) {
    let number = next.fetch_add(1, Ordering::Relaxed);
    let route = Route::new(v4(number), hop(1));
    guard.wanted.lock().unwrap().insert((VNI, route));
    client.announce(VNI, v4(number), hop(1)).unwrap();
    // The first thousand stay.
    if number > 1500 {
        let oldest = number - 500;
        let route = Route::new(v4(oldest), hop(1));
        guard.wanted.lock().unwrap().remove(&(VNI, route));
        client.withdraw(VNI, v4(oldest), hop(1)).unwrap();
    }
}

/// What a server tells a client that has just come.
fn table_of(address: SocketAddr) -> BTreeSet<(Vni, Route)> {
    let probe = client(&[address], NoOpHandler);
    probe.subscribe(VNI).unwrap();
    probe.wait_synced(VNI, PATIENCE).unwrap();
    probe.routes().unwrap().into_iter().collect()
}

#[test]
fn fifty_kills_of_one_of_two_servers_remove_nothing() {
    let mut servers = [Process::new(), Process::new()];
    let addresses = [servers[0].address, servers[1].address];
    let guard = Guard::default();
    let announcer = client(&addresses, NoOpHandler);
    let subscriber = client(&addresses, guard.clone());
    subscriber.subscribe(VNI).unwrap();
    let next = Arc::new(AtomicU32::new(0));
    (0..2000).for_each(|_| churn(&announcer, &guard, &next));
    announcer.flush(PATIENCE).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let pause = Arc::new(Mutex::new(()));
    let churner = {
        let (announcer, guard) = (announcer.clone(), guard.clone());
        let (is_over, next, pause) = (is_over.clone(), next.clone(), pause.clone());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let _turn = pause.lock().unwrap();
                churn(&announcer, &guard, &next);
            }
        })
    };
    let mut random = fastrand::Rng::with_seed(50);
    let advance = |by: u32| {
        let goal = next.load(Ordering::Relaxed) + by;
        eventually("churn goes on", || next.load(Ordering::Relaxed) >= goal);
    };
    for round in 0..50 {
        let victim = round % 2;
        advance(random.u32(..400));
        servers[victim].kill();
        advance(random.u32(..400));
        servers[victim].start();
        announcer.wait_all_established_timeout(PATIENCE).unwrap();
        subscriber.wait_all_established_timeout(PATIENCE).unwrap();
        announcer.flush(PATIENCE).unwrap();
        // Both servers have everything: what the one that was down was told is equal.
        let stopped = pause.lock().unwrap();
        announcer.flush(PATIENCE).unwrap();
        let wanted = guard.wanted.lock().unwrap().clone();
        assert_eq!(table_of(addresses[victim]), wanted, "round {round}");
        drop(stopped);
        // The next to be killed is the other: the subscriber has to have read this one.
        let read = ServerId(victim);
        let of = || subscriber.get_route_servers(VNI, &v4(7), &hop(1)).unwrap();
        eventually("it is read", || of().is_some_and(|it| it.contains(&read)));
        assert_eq!(*guard.faults.lock().unwrap(), Vec::<String>::new());
    }
    is_over.store(true, Ordering::Relaxed);
    churner.join().unwrap();
    announcer.flush(PATIENCE).unwrap();
    let wanted = guard.wanted.lock().unwrap().clone();
    assert_eq!(addresses.map(table_of), [wanted.clone(), wanted.clone()]);
    eventually("the handler has all", || {
        *guard.told.lock().unwrap() == wanted
    });
    assert_eq!(*guard.faults.lock().unwrap(), Vec::<String>::new());
}

fn quick(hold: Duration) -> ClientConfig {
    ClientConfig {
        keepalive_interval: 1,
        stale_time: hold,
        // Longer than the retries of these clients.
        settle_time: Duration::from_secs(1),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        ..ClientConfig::default()
    }
}

fn connect(
    addresses: &[SocketAddr],
    handler: impl RouteHandler,
    hold: Duration,
) -> MetalBondClient {
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let client = MetalBondClient::start(&names, handler, quick(hold)).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    client
}

/// Longer than a keepalive timeout of these clients (2.5 s).
const AWAY: Duration = Duration::from_secs(3);

#[test]
fn servers_back_within_the_stale_time_change_only_what_differs() {
    let mut servers = [Process::new(), Process::new()];
    let addresses = [servers[0].address, servers[1].address];
    let seen = Recorder::default();
    let hold = Duration::from_secs(300);
    let announcer = connect(&addresses, NoOpHandler, hold);
    let subscriber = connect(&addresses, seen.clone(), hold);
    subscriber.subscribe(VNI).unwrap();
    for number in 0..100 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    seen.wait_for_len(100);
    servers.iter_mut().for_each(Process::kill);
    let lost = |it: &MetalBondClient| it.state() == ClientState::Disconnected;
    eventually("both notice", || lost(&announcer) && lost(&subscriber));
    let until = Instant::now() + AWAY;
    eventually("a keepalive timeout passes", || Instant::now() > until);
    announcer.withdraw(VNI, v4(0), hop(1)).unwrap();
    announcer.announce(VNI, v4(200), hop(1)).unwrap();
    assert_eq!(seen.counts(), (100, 0), "held");
    servers.iter_mut().for_each(Process::start);
    eventually("the new one is there", || seen.counts().0 == 101);
    eventually("the old one is gone", || seen.counts().1 == 1);
    announcer.wait_all_established_timeout(PATIENCE).unwrap();
    subscriber.wait_all_established_timeout(PATIENCE).unwrap();
    announcer.flush(PATIENCE).unwrap();
    let until = Instant::now() + AWAY;
    eventually("what lingers had time to go", || Instant::now() > until);
    assert_eq!(seen.counts(), (101, 1), "only what differs");
    assert!(!seen.routes().contains(&(VNI, Route::new(v4(0), hop(1)))));
}

#[test]
fn routes_of_lost_servers_leave_after_the_stale_time_and_not_before() {
    let hold = Duration::from_secs(3);
    let mut servers = [Process::new(), Process::new()];
    let addresses = [servers[0].address, servers[1].address];
    let seen = Recorder::default();
    let announcer = connect(&addresses, NoOpHandler, hold);
    let subscriber = connect(&addresses, seen.clone(), hold);
    subscriber.subscribe(VNI).unwrap();
    for number in 0..10 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    seen.wait_for_len(10);
    let killed = Instant::now();
    servers.iter_mut().for_each(Process::kill);
    seen.wait_for_len(0);
    let held = killed.elapsed();
    assert!(held >= hold && held < hold * 3, "{held:?}");
    servers.iter_mut().for_each(Process::start);
    seen.wait_for_len(10);
}

#[test]
fn one_of_three_servers_is_enough_and_the_others_join() {
    let early = server();
    let late = [free_address(), free_address()];
    let names = [late[0], early.local_addr(), late[1]].map(|it| it.to_string());
    let seen = Recorder::default();
    let hold = Duration::from_secs(300);
    let client = MetalBondClient::start(&names, seen.clone(), quick(hold)).unwrap();
    client.announce(VNI, v4(1), hop(1)).unwrap();
    client.subscribe(VNI).unwrap();
    client.wait_synced(VNI, PATIENCE).unwrap();
    client.flush(PATIENCE).unwrap();
    eventually("it is in the table", || early.stats().routes == 1);
    let state = ClientState::PartiallyConnected {
        connected: 1,
        total: 3,
    };
    assert_eq!(client.state(), state);
    for (count, address) in late.iter().enumerate() {
        let joins = MetalBondServer::start(address, ServerConfig::default()).unwrap();
        let only_there = support::client(&[*address], NoOpHandler);
        let number = 10 + u32::try_from(count).unwrap();
        only_there.announce(VNI, v4(number), hop(2)).unwrap();
        seen.wait_for_len(1);
        client.flush(PATIENCE).unwrap();
        eventually("it has everything", || joins.stats().routes == 2);
        drop(only_there);
        seen.wait_for_len(0);
    }
}

#[test]
fn slow_consumer_costs_no_session() {
    struct Sleeper {
        seen: Recorder,
        downs: Arc<AtomicU32>,
        is_awake: Arc<AtomicBool>,
    }
    impl Sleeper {
        fn sleep(&self) {
            if !self.is_awake.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
    impl RouteHandler for Sleeper {
        fn add_route(&self, vni: Vni, route: Route) {
            self.sleep();
            self.seen.add_route(vni, route);
        }
        fn remove_route(&self, vni: Vni, route: Route) {
            self.sleep();
            self.seen.remove_route(vni, route);
        }
        fn server_down(&self, _: ServerId, _: rustbond::CloseReason) {
            self.downs.fetch_add(1, Ordering::Relaxed);
        }
    }
    let server = server();
    let (seen, downs) = (Recorder::default(), Arc::<AtomicU32>::default());
    let is_awake = Arc::<AtomicBool>::default();
    let sleeper = Sleeper {
        seen: seen.clone(),
        downs: downs.clone(),
        is_awake: is_awake.clone(),
    };
    let hold = Duration::from_secs(300);
    let subscriber = connect(&[server.local_addr()], sleeper, hold);
    let announcer = connect(&[server.local_addr()], NoOpHandler, hold);
    subscriber.subscribe(VNI).unwrap();
    let until = Instant::now() + AWAY;
    let mut changes = 0;
    while Instant::now() < until {
        // Never the same destination: what waits has to be forgotten, not kept.
        announcer.announce(VNI, v4(changes), hop(1)).unwrap();
        if changes >= 10 {
            announcer.withdraw(VNI, v4(changes - 10), hop(1)).unwrap();
        }
        changes += 1;
    }
    announcer.flush(PATIENCE).unwrap();
    let expected: Vec<_> = (changes - 10..changes)
        .map(|it| (VNI, Route::new(v4(it), hop(1))))
        .collect();
    eventually("the view is right", || {
        subscriber.routes().unwrap() == expected
    });
    let (adds, removes) = seen.counts();
    assert!(adds + removes <= 4, "it sleeps");
    is_awake.store(true, Ordering::Relaxed);
    seen.wait_for(&expected);
    let (adds, removes) = seen.counts();
    // One batch had been handed out before the rest was coalesced.
    assert!(adds + removes < 3000, "{adds} + {removes} of {changes}");
    let state = subscriber.server_states()[&ServerId(0)];
    assert_eq!(state, ConnectionState::Established);
    assert_eq!(downs.load(Ordering::Relaxed), 0);
}
