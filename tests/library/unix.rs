//! Servers and clients over Unix sockets.

use std::time::Duration;

use rustbond::inspect::{Command, Done, PeerState};
use rustbond::{
    ClientConfig, Endpoint, Error, Listener, MetalBondClient, MetalBondServer, RouteHandler,
    ServerConfig, Transport, Vni,
};

use crate::folder::Folder;
use crate::support::{PATIENCE, Raw, Recorder, eventually, hop, v4};

const VNI: Vni = Vni(7);

/// A server at a Unix socket and at a port.
fn serve(socket: &Endpoint, config: ServerConfig) -> MetalBondServer {
    let endpoints = [socket.clone(), "127.0.0.1:0".parse().unwrap()];
    let listeners = endpoints.map(|it| Listener::bind(&it).unwrap());
    MetalBondServer::start_on(listeners, config).unwrap()
}

fn client(server: &str, handler: impl RouteHandler) -> MetalBondClient {
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let client = MetalBondClient::start(&[server.to_owned()], handler, config).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    client
}

fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn routes_pass_between_unix_and_tcp_sessions_across_a_restart() {
    let folder = Folder::new();
    let socket = Endpoint::unix(folder.path().join("peers")).unwrap();
    let server = serve(&socket, ServerConfig::default());
    assert_eq!(server.endpoints()[0], socket);
    let local = Recorder::default();
    let subscriber = client(&socket.to_string(), local.clone());
    subscriber.subscribe(VNI).unwrap();
    let remote = client(&server.local_addr().to_string(), Recorder::default());
    remote.announce(VNI, v4(1), hop(1)).unwrap();
    let own = client(&socket.to_string(), Recorder::default());
    own.announce(VNI, v4(2), hop(2)).unwrap();
    local.wait_for_len(2);
    drop(remote);
    local.wait_for_len(1);
    server.shutdown().unwrap();
    assert_eq!(folder.len(), 0, "the socket and its lock are removed");
    let server = serve(&socket, ServerConfig::default());
    eventually("both are back", || server.stats().established == 2);
    own.announce(VNI, v4(3), hop(2)).unwrap();
    local.wait_for_len(2);
    assert_eq!(local.counts(), (3, 1), "the restart removed nothing");
}

#[test]
fn peer_at_a_unix_socket_has_the_name_of_its_user() {
    let folder = Folder::new();
    let socket = Endpoint::unix(folder.path().join("peers")).unwrap();
    let server = serve(&socket, ServerConfig::default());
    let mut one = Raw::connect_path(&folder.path().join("peers"), 1);
    one.establish(&crate::support::HELLO);
    let client = client(&socket.to_string(), Recorder::default());
    let peers = server.peers().unwrap();
    let names: Vec<&str> = peers.iter().map(|it| &*it.name).collect();
    let uid = uid();
    assert_eq!(names, [&*one.name, &format!("unix:{uid}#2")]);
    for peer in peers.iter().chain(&client.inspector().peers().unwrap()) {
        assert_eq!(peer.transport, Some(Transport::Unix));
        assert_eq!(peer.identity, Some(format!("uid {uid}")));
        assert_eq!((peer.address, peer.state), (None, PeerState::Established));
    }
    let inspector = server.inspector();
    let reset = |name: String| inspector.execute(Command::ResetPeer(name));
    let unknown = reset(format!("unix:{}", uid + 1));
    assert!(
        matches!(unknown, Err(Error::PeerNotFound(_))),
        "{unknown:?}"
    );
    assert_eq!(reset(one.name.clone()).unwrap(), Done::Changed(1));
    assert!(one.closed_by_server());
    assert_eq!(reset(format!("unix:{uid}")).unwrap(), Done::Changed(1));
    // It comes back, until its user is not taken back for a while.
    eventually("it is back", || {
        let stats = server.stats();
        stats.accepted == 3 && stats.established == 1
    });
    let drain = Command::DrainPeer(format!("unix:{uid}"), PATIENCE);
    assert_eq!(inspector.execute(drain).unwrap(), Done::Changed(1));
    let mut refused = Raw::connect_path(&folder.path().join("peers"), 4);
    assert!(refused.try_frame().is_none(), "its user is refused");
}

#[test]
fn users_have_a_limit_of_sessions_as_addresses_have() {
    let folder = Folder::new();
    let path = folder.path().join("peers");
    let config = ServerConfig {
        max_sessions_per_address: 2,
        ..ServerConfig::default()
    };
    let server = serve(&Endpoint::unix(&path).unwrap(), config);
    let mut peers = [1, 2].map(|number| Raw::connect_path(&path, number));
    for peer in &mut peers {
        peer.establish(&crate::support::HELLO);
    }
    assert!(Raw::connect_path(&path, 3).try_frame().is_none());
    assert_eq!(server.stats().refused_sessions, 1);
    // Those at the port are others.
    drop(Raw::established(server.local_addr()));
    drop(peers);
    eventually("there is room again", || server.stats().sessions == 0);
    Raw::connect_path(&path, 4).establish(&crate::support::HELLO);
}

#[test]
fn client_waits_for_a_server_whose_socket_is_not_there_yet() {
    let folder = Folder::new();
    let socket = Endpoint::unix(folder.path().join("peers")).unwrap();
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let client =
        MetalBondClient::start(&[socket.to_string()], Recorder::default(), config).unwrap();
    let inspector = client.inspector();
    let error = || inspector.peers().unwrap()[0].last_error.clone();
    eventually("it has tried", || error().is_some());
    assert_eq!(error().as_deref(), Some("entity not found"));
    let _server = serve(&socket, ServerConfig::default());
    client.wait_all_established_timeout(PATIENCE).unwrap();
}
