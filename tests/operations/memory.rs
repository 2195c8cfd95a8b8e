//! A server process at its `--memory-limit`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::procfs;
use crate::support::PATIENCE;
use crate::wire::{announcements, barrier, session, subscribe, update};

const MIB: u64 = 1024 * 1024;

/// The byte account's.
const LIMIT_MIB: u64 = 64;

/// What the process may have besides: its code and stacks, the room between things on the heap,
/// and what is allocated before the account has it.
const SLACK_MIB: u64 = 64;

const VNI: u32 = 7;

/// Where nothing but the healthy session announces and listens.
const HEALTHY: u32 = 3;

/// Many more than fit.
const ROUTES: u32 = 1_200_000;

/// A session, if one is accepted and its HELLO answered.
fn admitted(server: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // HELLO with an interval of 60 s, and KEEPALIVE.
    stream.write_all(&[1, 0, 2, 1, 8, 60, 1, 0, 0, 2]).ok()?;
    matches!(stream.read(&mut [0]), Ok(1)).then_some(stream)
}

/// Sends KEEPALIVE, and counts the updates that come until its answer.
fn updates(stream: &mut TcpStream) -> u32 {
    stream.write_all(&[1, 0, 0, 2]).unwrap();
    let mut updates = 0;
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header).unwrap();
        let len = u16::from_be_bytes([header[1], header[2]]);
        stream.read_exact(&mut vec![0; len.into()]).unwrap();
        match header[3] {
            2 => return updates,
            5 => updates += 1,
            _ => {}
        }
    }
}

/// Announces until nobody is admitted. A table refuses the route for which it would have to
/// double; small ones fill what is left.
fn fill(announcer: &mut TcpStream, server: SocketAddr) {
    for vni in 100..2000 {
        announcer.write_all(&announcements(vni, 0..2000)).unwrap();
        barrier(announcer);
        if vni % 10 == 0 && admitted(server).is_none() {
            return;
        }
    }
    panic!("memory is never short");
}

#[test]
fn server_at_its_memory_limit_refuses_then_closes_who_holds_most_then_recovers() {
    let limit = format!("{LIMIT_MIB}M");
    let arguments = [
        "--workers",
        "2",
        "--memory-limit",
        &limit,
        "--keepalive",
        "60",
    ];
    let (server, address) = Process::server(&arguments);
    let resident = |field| procfs::memory(server.id(), field) / MIB;
    let mut healthy = session(address);
    healthy.write_all(&subscribe(HEALTHY)).unwrap();
    healthy.write_all(&announcements(HEALTHY, 0..10)).unwrap();
    barrier(&mut healthy);
    // Readers that stop reading hold what they were sent.
    let stalled: Vec<TcpStream> = (0..6)
        .map(|_| {
            let mut stream = session(address);
            stream.write_all(&subscribe(VNI)).unwrap();
            barrier(&mut stream);
            stream
        })
        .collect();

    // First it refuses: routes, and new sessions. Nobody is closed for that.
    let mut announcer = session(address);
    let own = announcer.local_addr().unwrap();
    announcer.write_all(&announcements(VNI, 0..ROUTES)).unwrap();
    barrier(&mut announcer);
    server.stderr.expect(&format!("peer {own}: limit reached"));
    fill(&mut announcer, address);
    server.stderr.expect("bytes of memory are in use");
    let is_shed = |line: &String| line.contains("memory limit reached");
    assert!(!server.stderr.so_far().iter().any(is_shed));
    barrier(&mut healthy);
    let peak = resident("VmHWM");
    assert!(peak <= LIMIT_MIB + SLACK_MIB, "{peak} MiB");

    // Then it closes who holds most: here, the more is withdrawn, the more waits.
    let all = (0..ROUTES).flat_map(|it| update(true, VNI, it));
    // One that is closed meanwhile cannot send it all.
    drop(announcer.write_all(&all.collect::<Vec<u8>>()));
    let line = server.stderr.expect("memory limit reached");
    let healthy_address = healthy.local_addr().unwrap().to_string();
    assert!(!line.contains(&healthy_address), "{line}");
    barrier(&mut healthy);
    let peak = resident("VmHWM");
    assert!(peak <= LIMIT_MIB + SLACK_MIB, "{peak} MiB");

    // When memory is free it takes sessions and routes again, and the small one still lives.
    drop((announcer, stalled));
    let deadline = Instant::now() + PATIENCE;
    let (mut heard, mut sessions) = (0, Vec::new());
    while heard < 10 {
        assert!(Instant::now() < deadline, "{:#?}", server.stderr.so_far());
        if let Some(mut session) = admitted(address) {
            // It may be refused for a little longer than it is admitted.
            drop(session.write_all(&announcements(HEALTHY, 10..20)));
            sessions.push(session);
        }
        std::thread::sleep(Duration::from_millis(50));
        heard += updates(&mut healthy);
    }
    let lines = server.stderr.so_far();
    let is_shed = |line: &&String| is_shed(line) && line.contains(&healthy_address);
    assert_eq!(lines.iter().find(is_shed), None);
    server.stop("TERM");
}
