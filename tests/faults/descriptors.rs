//! Processes that may open few files.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::observer::{Load, Observer, VICTIMS, table_of};
use crate::process::{Process, metalbond};
use crate::support::{Raw, eventually, v4};

/// The command with no more than so many descriptors.
fn limited(descriptors: u32, args: &str) -> Process {
    let built = metalbond();
    let program = built.get_program().to_str().unwrap();
    let script = format!("ulimit -n {descriptors}; exec {program} {args}");
    Process::start(
        Command::new("bash")
            .args(["-c", &script])
            .env_remove("RUST_LOG"),
    )
}

/// Time on a CPU so far.
fn cpu(id: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let nanos = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat"));
        let text = text.unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanos.sum())
}

/// A server that may open 64 files is sent 300 connections, to MetalBond and to HTTP.
///
/// Promised: sessions that are there are served as before; the rest waits to be accepted, at no
/// cost and with few words; when the crowd has gone, new sessions and requests are served.
#[test]
fn server_without_descriptors_serves_its_existing_sessions() {
    let server = limited(64, "server -l 127.0.0.1:0 --keepalive 1 --http 127.0.0.1:0");
    let (address, http) = (
        server.listens_on("listening on "),
        server.listens_on("serving HTTP on "),
    );
    let endpoint = address.to_string();
    let witness = Observer::new(&[&endpoint]);
    let load = Load::start(&[&endpoint]);
    let connect = |to: SocketAddr| TcpStream::connect(to).unwrap();
    let crowd: Vec<TcpStream> = (0..150)
        .flat_map(|_| [connect(address), connect(http)])
        .collect();
    let folder = format!("/proc/{}/fd", server.id());
    eventually("none is left", || {
        std::fs::read_dir(&folder).unwrap().count() >= 64
    });
    for _ in 0..20 {
        witness.is_served();
    }
    let (_source, expected) = load.finish();
    witness
        .seen
        .wait_for(&expected.iter().copied().collect::<Vec<_>>());
    let before = cpu(server.id());
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu(server.id()) - before;
    assert!(
        spent < Duration::from_millis(500),
        "{spent:?} of CPU in a second"
    );
    let pauses = server.stderr.so_far();
    let pauses = pauses.iter().filter(|it| it.contains("pauses")).count();
    assert!(
        pauses <= 2,
        "{pauses} lines say that there are no descriptors"
    );
    drop(crowd);
    assert_eq!(table_of(&endpoint), expected);
    assert!(Raw::established(address).barrier().is_empty());
    assert!(get(http).starts_with("HTTP/1.1 200"));
    assert_eq!(witness.losses(), []);
    server.stop("TERM");
}

fn get(address: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    stream
        .write_all(b"GET /routes.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A client that may open 24 files is given 30 servers.
///
/// Promised: it serves with those that it has descriptors for, tells the others that it cannot
/// reach them, and rests between attempts.
#[test]
fn client_without_descriptors_uses_the_servers_it_reached() {
    let (server, address) = {
        let all = ["server", "--listen", "0.0.0.0:0", "--keepalive", "1"];
        let server = Process::start(metalbond().args(all));
        let address = server.listens_on("listening on ");
        (server, address)
    };
    let endpoint = format!("127.0.0.1:{}", address.port());
    let witness = Observer::new(&[&endpoint]);
    let names: Vec<String> = (1..=30)
        .map(|it| format!("127.0.0.{it}:{}", address.port()))
        .collect();
    let route = format!("100#{}#2001:db8::2", v4(VICTIMS).prefix);
    let servers = names.join(",");
    let client = limited(
        24,
        &format!("client -s {servers} --keepalive 1 --subscribe 100 -a '{route}'"),
    );
    eventually("its route is there", || {
        let routes = witness.seen.routes();
        routes.iter().any(|(_, it)| it.destination == v4(VICTIMS))
    });
    client.stderr.expect("trying again");
    let told = witness.announce(1);
    let text = told.1.destination.prefix.to_string();
    client.stdout.expect(&text);
    let before = cpu(client.id());
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu(client.id()) - before;
    assert!(
        spent < Duration::from_millis(500),
        "{spent:?} of CPU in a second"
    );
    assert_eq!(witness.losses(), []);
    client.stop("TERM");
    server.stop("TERM");
}
