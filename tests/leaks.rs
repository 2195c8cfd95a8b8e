//! Starting and stopping, again and again, in a process of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use rustbond::{
    Destination, EventDetail, MetalBondClient, MetalBondServer, NextHop, NoOpHandler, ServerConfig,
    Vni,
};

const VNI: Vni = Vni(1);

fn threads_and_descriptors() -> (usize, usize) {
    let count = |of: &str| {
        let folder = std::fs::read_dir(format!("/proc/self/{of}"));
        folder.unwrap().count()
    };
    (count("task"), count("fd"))
}

fn round(server: &MetalBondServer) {
    let address = server.local_addr().to_string();
    let builder = || MetalBondClient::builder().server(&address);
    let destination = Destination::from_ipv4([10, 0, 0, 1].into(), 32);
    let hop = NextHop::standard(std::net::Ipv6Addr::LOCALHOST);
    let handled = builder().handler(NoOpHandler).unwrap();
    handled.announce(VNI, destination, hop).unwrap();
    handled.flush(Duration::from_secs(30)).unwrap();
    let (channelled, events) = builder().events().unwrap();
    channelled.subscribe(VNI).unwrap();
    channelled
        .wait_synced(VNI, Duration::from_secs(30))
        .unwrap();
    let watched = channelled.watch(EventDetail::NextHops).unwrap();
    watched.recv().unwrap();
    let mut driver = builder().driver().unwrap();
    driver.subscribe(VNI).unwrap();
    driver.process();
    drop(driver);
    channelled.shutdown().unwrap();
    drop(handled);
    drop((events, watched));
}

#[test]
fn hundred_clients_of_each_kind_leave_no_thread_and_no_descriptor() {
    let begin = || MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap();
    let whole = || {
        let server = begin();
        round(&server);
        server
    };
    whole().shutdown().unwrap();
    let before = threads_and_descriptors();
    for _ in 0..50 {
        whole().shutdown().unwrap();
        drop(whole());
    }
    // A thread that was joined may be listed for a moment, here and above.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let now = threads_and_descriptors();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(Instant::now() < deadline, "{before:?} became {now:?}");
        std::thread::yield_now();
    }
}
