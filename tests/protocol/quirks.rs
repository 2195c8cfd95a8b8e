//! What breaks Go MetalBond and RustBond 0.1 breaks nothing here: a test for each.
//!
//! Elsewhere: SIGTERM ends the command (`tests/command/run.rs`,
//! `signals_end_server_and_client_in_order`); a frame is never cut for others (`tests/fabric.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::double::Client;
use crate::double::Reading::Strict;
use crate::double::wire::Path;
use crate::support::{
    self, HELLO, PATIENCE, Raw, Recorder, client, eventually, free_address, hop, server, v4,
};
use rustbond::{
    ClientConfig, MetalBondClient, MetalBondServer, NoOpHandler, Route, ServerConfig, Vni,
};

const VNI: Vni = Vni(7);

fn path(number: u32, host: u8) -> Path {
    let mut hop = vec![0; 16];
    hop[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    hop[15] = host;
    Path {
        prefix: (0x0a00_0000 + number).to_be_bytes().to_vec(),
        length: 32,
        hop,
        hop_vni: 0,
        kind: 0,
        ports: (0, 0),
    }
}

/// Bytes that end a Go server do at most end the session they came in.
fn survives(name: &str, is_established: bool, bytes: &[u8], ends: bool) {
    let server = server();
    let address = server.local_addr();
    let mut healthy = Raw::established(address);
    let mut peer = if is_established {
        Raw::established(address)
    } else {
        Raw::connect(address)
    };
    peer.send(bytes);
    if ends {
        assert!(peer.closed_by_server(), "{name}");
    } else {
        assert!(peer.barrier().is_empty(), "{name}");
    }
    healthy.send(&support::update(0, 7, 1, 1));
    healthy.barrier();
    eventually(name, || server.stats().routes == 1);
}

/// A Go server panics.
#[test]
fn header_of_65535_bytes_ends_only_its_session() {
    survives("before HELLO", false, &[1, 0xff, 0xff, 5], true);
    survives("established", true, &[1, 0xff, 0xff, 5], true);
}

/// A Go server panics.
#[test]
fn update_without_a_next_hop_is_dropped() {
    let update = support::update(0, 7, 1, 1);
    let mut bytes = update[..update.len() - 20].to_vec();
    bytes[2] -= 20;
    survives("dropped", true, &bytes, false);
}

/// A Go server panics.
#[test]
fn hello_with_interval_0_is_refused() {
    survives("interval 0", false, &[1, 0, 2, 1, 8, 0], true);
    survives("no interval", false, &[1, 0, 0, 1], true);
}

/// A Go server freezes.
#[test]
fn second_subscribe_changes_nothing() {
    let server = server();
    let go = Client::connect(server.local_addr(), 5, Strict);
    let other = Client::connect(server.local_addr(), 5, Strict);
    other.announce(VNI.0, &path(1, 1));
    other.barrier();
    for _ in 0..3 {
        go.subscribe(VNI.0);
    }
    go.wait_for(&[(VNI.0, path(1, 1))]);
    other.announce(VNI.0, &path(2, 1));
    go.wait_for_len(2);
    assert_eq!(go.adds(), 2, "nothing is said twice");
}

/// A Go server accepts a truncated route with the next hop `::`.
#[test]
fn frames_cut_between_segments_are_read() {
    let server = server();
    let mut peer = Raw::established(server.local_addr());
    let update = support::update(0, 7, 1, 1);
    for cut in 1..update.len() {
        let before = server.stats().bytes_received;
        peer.send(&update[..cut]);
        eventually("a part is read", || {
            server.stats().bytes_received == before + cut as u64
        });
        peer.send(&update[cut..]);
        peer.barrier();
    }
    let routes = server.routes().unwrap();
    assert_eq!(routes, [(VNI, Route::new(v4(1), hop(1)))]);
    assert_eq!(server.stats().malformed, 0);
}

/// A Go server keeps them for ever.
#[test]
fn silent_connections_are_closed() {
    let config = ServerConfig {
        // Long enough for the handshakes of the test itself.
        handshake_timeout: Duration::from_secs(1),
        keepalive_interval: 1,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
    let address = server.local_addr();
    let silent = Raw::connect(address);
    let mut half = Raw::connect(address);
    half.send(&HELLO[..3]);
    let established = Raw::established(address);
    for peer in [silent, half, established] {
        assert!(peer.closed_by_server());
    }
    eventually("all are gone", || server.stats().sessions == 0);
}

/// At a Go server it blocks all others; at one of RustBond 0.1 it is served no more.
#[test]
fn slow_subscriber_delays_nobody() {
    const ROUTES: u32 = 20_000;
    let config = ServerConfig {
        keepalive_interval: 60,
        ..ServerConfig::default()
    };
    let server = MetalBondServer::start("127.0.0.1:0", config).unwrap();
    let address = server.local_addr();
    // It says nothing for as long as the test takes.
    let mut slow = Raw::established_by(address, &[1, 0, 2, 1, 8, 60]);
    slow.send(&support::subscribe(7));
    let recorder = Recorder::default();
    let other = client(&[address], recorder.clone());
    other.subscribe(VNI).unwrap();
    let source = client(&[address], NoOpHandler);
    for number in 0..ROUTES {
        source.announce(VNI, v4(number), hop(1)).unwrap();
    }
    recorder.wait_for_len(ROUTES as usize);
    // And in the end the slow one has everything too.
    let updates = std::iter::from_fn(|| slow.try_frame()).filter(|frame| frame[3] == 5);
    assert_eq!(updates.take(ROUTES as usize).count(), ROUTES as usize);
}

/// 4,000 routes of one Go client, in one write, reset a Go server twice.
#[test]
fn four_thousand_routes_at_once_arrive() {
    let server = server();
    let mut peer = Raw::established(server.local_addr());
    let all: Vec<u8> = (0..4000)
        .flat_map(|number| support::update(0, 7, number, 1))
        .collect();
    peer.send(&all);
    peer.barrier();
    eventually("all count", || server.stats().routes == 4000);
    assert_eq!(server.stats().closed, 0);
}

/// A Go client with two servers removes routes that the other still has.
#[test]
fn routes_stay_when_one_of_two_servers_goes() {
    let [first, second] = [server(), server()];
    let addresses = [first.local_addr(), second.local_addr()];
    let source = client(&addresses, NoOpHandler);
    source.announce(VNI, v4(1), hop(1)).unwrap();
    source.flush(PATIENCE).unwrap();
    let recorder = Recorder::default();
    let ours = client(&addresses, recorder.clone());
    ours.subscribe(VNI).unwrap();
    ours.wait_synced(VNI, PATIENCE).unwrap();
    recorder.wait_for_len(1);
    drop(first);
    eventually("it is known to be gone", || {
        ours.wait_all_established_timeout(Duration::ZERO).is_err()
    });
    source.announce(VNI, v4(2), hop(1)).unwrap();
    recorder.wait_for_len(2);
    assert_eq!(recorder.counts(), (2, 0));
}

/// Clients whose list begins with a server that is not there.
fn beside_a_dead_server(server: SocketAddr) -> MetalBondClient {
    let servers = [free_address().to_string(), server.to_string()];
    MetalBondClient::start(&servers, NoOpHandler, ClientConfig::default()).unwrap()
}

/// A Go client stops at the first dead server, and does not start without it.
#[test]
fn dead_server_delays_no_announcement_at_the_others() {
    let server = server();
    let ours = beside_a_dead_server(server.local_addr());
    for number in 0..10 {
        ours.announce(VNI, v4(number), hop(1)).unwrap();
    }
    eventually("all are announced", || server.stats().routes == 10);
    for number in 0..9 {
        ours.withdraw(VNI, v4(number), hop(1)).unwrap();
    }
    eventually("and withdrawn", || server.stats().routes == 1);
}

/// At a RustBond 0.1 server any peer can withdraw another's route.
#[test]
fn withdrawal_of_anothers_route_changes_nothing() {
    let server = server();
    let [one, two] = [(); 2].map(|()| Client::connect(server.local_addr(), 5, Strict));
    one.announce(VNI.0, &path(1, 1));
    one.barrier();
    two.withdraw(VNI.0, &path(1, 1));
    two.barrier();
    two.subscribe(VNI.0);
    two.wait_for(&[(VNI.0, path(1, 1))]);
}

/// At a RustBond 0.1 server the first of two announcers to leave takes the route away.
#[test]
fn route_of_two_announcers_leaves_with_the_last() {
    let server = server();
    let [one, two, three] = [(); 3].map(|()| Client::connect(server.local_addr(), 5, Strict));
    for announcer in [&one, &two] {
        announcer.announce(VNI.0, &path(1, 1));
        announcer.barrier();
    }
    three.subscribe(VNI.0);
    three.wait_for_len(1);
    drop(two);
    eventually("one is left", || server.stats().announcements == 1);
    three.barrier();
    three.wait_for_len(1);
    drop(one);
    three.wait_for_len(0);
}

/// A RustBond 0.1 client never subscribes at a server that comes up late.
#[test]
fn server_that_comes_up_late_is_subscribed() {
    let address = free_address();
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let recorder = Recorder::default();
    let ours = MetalBondClient::start(&[address.to_string()], recorder.clone(), config).unwrap();
    ours.subscribe(VNI).unwrap();
    let server = MetalBondServer::start(address, ServerConfig::default()).unwrap();
    let go = Client::connect(server.local_addr(), 5, Strict);
    go.announce(VNI.0, &path(1, 1));
    recorder.wait_for_len(1);
}

/// RustBond 0.1 installs IPv4 routes without encapsulation and leaves 1,102 of 2,000; both
/// it and Go MetalBond on Linux 6.18 install none of IPv6.
#[cfg(all(feature = "netlink", target_os = "linux"))]
#[test]
fn two_thousand_routes_of_each_family_reach_the_kernel() {
    use crate::netns::{DEVICE, in_namespace, ip, make_device};
    use rustbond::Destination;
    use rustbond::kernel::{KernelConfig, KernelWriter};

    in_namespace("quirks", || {
        make_device();
        let config = KernelConfig {
            vni_tables: [(VNI, 100)].into(),
            device: DEVICE.into(),
            ..KernelConfig::default()
        };
        let writer = KernelWriter::start(config).unwrap();
        let v6 = |number: u32| {
            let address = 0xfd00_u128 << 112 | u128::from(number);
            Destination::from_ipv6(address.into(), 128)
        };
        let both = |number| [v4(number), v6(number)].map(|it| Route::new(it, hop(1)));
        let routes: Vec<Route> = (0..2000).flat_map(both).collect();
        for route in &routes {
            writer.add(VNI, *route);
        }
        writer.flush(PATIENCE).unwrap();
        for family in ["-4", "-6"] {
            let shown = ip(&format!("{family} route show table 100 proto 254"));
            assert_eq!(shown.lines().count(), 2000, "{family}");
        }
        for prefix in ["-4 route show 10.0.0.7", "-6 route show fd00::7"] {
            let shown = ip(&format!("-d {prefix} table 100"));
            assert!(shown.contains("dst 2001:db8::1 "), "{shown}");
        }
        for route in &routes {
            writer.remove(VNI, *route);
        }
        writer.flush(PATIENCE).unwrap();
        for family in ["-4", "-6"] {
            assert_eq!(ip(&format!("{family} route show table 100 proto 254")), "");
        }
    });
}
