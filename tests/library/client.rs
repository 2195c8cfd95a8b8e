//! The client over real sockets: flushes, servers at run time, channel and driver.

use std::time::Duration;

use crate::support::{PATIENCE, Recorder, client, eventually, hop, server, v4};
use rustbond::{AnnouncementState, Changed, Error, MetalBondClient, NoOpHandler, ServerId, Vni};

const VNI: Vni = Vni(100);
const SOON: Duration = Duration::from_millis(50);

#[test]
fn flush_returns_when_all_servers_have_everything() {
    let servers = [server(), server()];
    let addresses = [servers[0].local_addr(), servers[1].local_addr()];
    let client = client(&addresses, NoOpHandler);
    for number in 0..5000 {
        client.announce(VNI, v4(number), hop(1)).unwrap();
    }
    client.flush(PATIENCE).unwrap();
    let have = |count| servers.iter().all(|it| it.stats().routes == count);
    // What is read is in the table once the thread that owns that has had its turn.
    eventually("both have all", || have(5000));
    let known = client
        .announcement_servers(VNI, &v4(7), &hop(1))
        .unwrap()
        .unwrap();
    let acknowledged = AnnouncementState::Acknowledged;
    assert_eq!(known, [0, 1].map(|it| (ServerId(it), acknowledged)).into());
    client.withdraw(VNI, v4(7), hop(1)).unwrap();
    client.flush(PATIENCE).unwrap();
    eventually("both have one less", || have(4999));
    assert_eq!(
        client.announcement_servers(VNI, &v4(7), &hop(1)).unwrap(),
        None
    );
}

#[test]
fn waits_end_at_their_timeout_with_a_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = MetalBondClient::connect(&[address], NoOpHandler);
    client.announce(VNI, v4(1), hop(1)).unwrap();
    assert!(matches!(client.flush(SOON), Err(Error::Timeout)));
    let known = client
        .announcement_servers(VNI, &v4(1), &hop(1))
        .unwrap()
        .unwrap();
    assert_eq!(known, [(ServerId(0), AnnouncementState::Pending)].into());
    let synced = client.wait_synced(VNI, PATIENCE);
    assert!(matches!(synced, Err(Error::NotSubscribed(VNI))));
    client.subscribe(VNI).unwrap();
    assert!(matches!(client.wait_synced(VNI, SOON), Err(Error::Timeout)));
    let waiting = client.clone();
    let waiter = std::thread::spawn(move || waiting.flush(PATIENCE));
    client.shutdown().unwrap();
    assert!(matches!(waiter.join().unwrap(), Err(Error::Closed)));
    assert!(matches!(client.flush(SOON), Err(Error::Closed)));
}

#[test]
fn synced_table_is_whole() {
    let server = server();
    let announcer = client(&[server.local_addr()], NoOpHandler);
    for number in 0..2000 {
        announcer.announce(VNI, v4(number), hop(1)).unwrap();
    }
    announcer.flush(PATIENCE).unwrap();
    let subscriber = client(&[server.local_addr()], NoOpHandler);
    subscriber.subscribe(VNI).unwrap();
    subscriber.wait_synced(VNI, PATIENCE).unwrap();
    assert_eq!(subscriber.route_count().unwrap(), 2000);
}

#[test]
fn servers_added_at_run_time_get_everything_and_removed_ones_are_left() {
    let servers = [server(), server()];
    let addresses = [servers[0].local_addr(), servers[1].local_addr()];
    let seen = Recorder::default();
    let client_of_one = client(&addresses[..1], seen.clone());
    client_of_one.subscribe(VNI).unwrap();
    client_of_one.announce(VNI, v4(1), hop(1)).unwrap();
    let other = client(&addresses[1..], NoOpHandler);
    other.announce(VNI, v4(2), hop(2)).unwrap();
    let added = client_of_one.add_server(addresses[1].to_string()).unwrap();
    assert_eq!(added, ServerId(1));
    let name = addresses[1].to_string();
    assert_eq!(client_of_one.server_addr(added), Some(name));
    client_of_one
        .wait_all_established_timeout(PATIENCE)
        .unwrap();
    seen.wait_for_len(1);
    client_of_one.flush(PATIENCE).unwrap();
    eventually("it has both", || servers[1].stats().routes == 2);
    let changed = client_of_one.remove_server(added).unwrap();
    assert_eq!(changed, Changed::Yes);
    assert_eq!(client_of_one.server_count(), 1);
    seen.wait_for_len(0);
    eventually("it is gone there", || servers[1].stats().routes == 1);
    let changed = client_of_one.remove_server(added).unwrap();
    assert_eq!(changed, Changed::No);
    let again = client_of_one.add_server(addresses[1].to_string()).unwrap();
    assert_eq!(again, ServerId(2));
    seen.wait_for_len(1);
}
