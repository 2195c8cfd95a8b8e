//! Clients that are watched, and the load they are watched under.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustbond::{
    ClientConfig, CloseReason, MetalBondClient, NoOpHandler, Route, RouteHandler, ServerId, Vni,
};

use crate::support::{PATIENCE, Recorder, eventually, hop, v4};

pub(crate) const VNI: Vni = Vni(100);

/// Where the destinations of victims begin, behind those of the load.
pub(crate) const VICTIMS: u32 = 0x10_0000;

/// Keepalives a second apart, and retries that do not take seconds.
pub(crate) fn quick() -> ClientConfig {
    ClientConfig {
        keepalive_interval: 1,
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    }
}

/// A client of some servers that subscribes to the VNI.
pub(crate) struct Observer {
    pub(crate) client: MetalBondClient,
    pub(crate) seen: Recorder,
    losses: Arc<Mutex<Vec<(ServerId, CloseReason)>>>,
}

struct Watching(Recorder, Arc<Mutex<Vec<(ServerId, CloseReason)>>>);

impl RouteHandler for Watching {
    fn add_route(&self, vni: Vni, route: Route) {
        self.0.add_route(vni, route);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        self.0.remove_route(vni, route);
    }

    fn server_down(&self, server: ServerId, reason: CloseReason) {
        self.1.lock().unwrap().push((server, reason));
    }
}

impl Observer {
    /// Once it is established everywhere.
    pub(crate) fn new<S: AsRef<str>>(servers: &[S]) -> Self {
        let (seen, losses) = (Recorder::default(), Arc::default());
        let watching = Watching(seen.clone(), Arc::clone(&losses));
        let client = MetalBondClient::start(servers, watching, quick()).unwrap();
        client.wait_all_established_timeout(PATIENCE).unwrap();
        client.subscribe(VNI).unwrap();
        client.wait_synced(VNI, PATIENCE).unwrap();
        Self {
            client,
            seen,
            losses,
        }
    }

    /// Why sessions ended so far.
    pub(crate) fn losses(&self) -> Vec<CloseReason> {
        let losses = self.losses.lock().unwrap();
        losses.iter().map(|(_, reason)| *reason).collect()
    }

    pub(crate) fn announce(&self, number: u32) -> (Vni, Route) {
        let route = Route::new(v4(VICTIMS + number), hop(2));
        self.client
            .announce(VNI, route.destination, route.next_hop)
            .unwrap();
        (VNI, route)
    }

    /// Waits until some more events come: the session works, under load.
    #[track_caller]
    pub(crate) fn is_served(&self) {
        let before = self.seen.counts();
        eventually("the others are served", || {
            let now = self.seen.counts();
            now.0 >= before.0 + 100 && now.1 >= before.1 + 100
        });
    }

    pub(crate) fn has(&self, route: &(Vni, Route)) -> bool {
        self.seen.routes().contains(route)
    }
}

/// What a server tells a client that has just come.
pub(crate) fn table_of(server: &str) -> BTreeSet<(Vni, Route)> {
    let probe = MetalBondClient::start(&[server], NoOpHandler, quick()).unwrap();
    probe.wait_all_established_timeout(PATIENCE).unwrap();
    probe.subscribe(VNI).unwrap();
    probe.wait_synced(VNI, PATIENCE).unwrap();
    probe.routes().unwrap().into_iter().collect()
}

/// The destinations of routes to hosts, as `ip` prints them.
pub(crate) fn destinations<'a>(
    routes: impl IntoIterator<Item = &'a (Vni, Route)>,
) -> BTreeSet<String> {
    let addresses = routes
        .into_iter()
        .map(|(_, it)| it.destination.prefix.addr());
    addresses.map(|it| it.to_string()).collect()
}

/// A client that announces and withdraws all the time.
pub(crate) struct Load {
    client: MetalBondClient,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Load {
    /// Routes that are announced at a time.
    const WINDOW: u32 = 500;

    pub(crate) fn start<S: AsRef<str>>(servers: &[S]) -> Self {
        let client = MetalBondClient::start(servers, NoOpHandler, quick()).unwrap();
        client.wait_all_established_timeout(PATIENCE).unwrap();
        let is_over = Arc::<AtomicBool>::default();
        let its = (client.clone(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || churn(&its.0, &its.1));
        Self {
            client,
            is_over,
            thread,
        }
    }

    /// Ends it once every server has read all; the client, which goes on announcing what is
    /// left, and that.
    pub(crate) fn finish(self) -> (MetalBondClient, BTreeSet<(Vni, Route)>) {
        self.is_over.store(true, Ordering::Relaxed);
        let end = self.thread.join().unwrap();
        self.client.flush(PATIENCE).unwrap();
        let left = (end.saturating_sub(Self::WINDOW)..end).map(|it| (VNI, load_route(it)));
        (self.client, left.collect())
    }
}

fn load_route(number: u32) -> Route {
    Route::new(v4(number), hop(1))
}

fn churn(client: &MetalBondClient, is_over: &AtomicBool) -> u32 {
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return number;
        }
        client.announce(VNI, v4(number), hop(1)).unwrap();
        if let Some(old) = number.checked_sub(Load::WINDOW) {
            client.withdraw(VNI, v4(old), hop(1)).unwrap();
        }
        if number.is_multiple_of(50) {
            // Ten thousand a second leave something of the machine to the others.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    unreachable!("the load is never through")
}
