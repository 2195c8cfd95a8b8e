//! Connections that end in the middle of something, or never end.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustbond::{CloseReason, MetalBondClient, Route, Vni};
use socket2::{Domain, SockRef, Socket, Type};

use crate::observer::{Load, Observer, VNI, quick, table_of};
use crate::process::Process;
use crate::support::{KEEPALIVE, PATIENCE, Raw, Recorder, eventually, hop, subscribe, update, v4};

/// The VNI as a byte of a message.
const VNI_BYTE: u8 = 100;

/// Routes of peers that die: far from those of the load.
const WHOLE: u32 = 0x20_0000;
const HALF: u32 = 0x30_0000;

#[derive(Clone, Copy, Debug)]
enum End {
    Reset,
    Fin,
}

/// Ends a connection; a reset forgets what was not sent, so it comes after a moment of peace.
fn end(peer: Raw, how: End) {
    match how {
        End::Reset => {
            SockRef::from(&peer.stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        End::Fin => peer.stream.shutdown(Shutdown::Write).unwrap(),
    }
    drop(peer);
}

/// A peer announces a route, begins another frame and is gone, by RST or by FIN, after every
/// count of bytes.
///
/// Promised: its route goes everywhere else, what it began never comes, and nobody else notices.
#[test]
fn clients_that_end_within_a_frame_leave_nothing() {
    let (server, address) = Process::server(&["--keepalive", "1"]);
    let endpoint = address.to_string();
    let witness = Observer::new(&[&endpoint]);
    let load = Load::start(&[&endpoint]);
    let half = update(0, VNI_BYTE, HALF, 7);
    for (number, cut) in (WHOLE..).zip(1..half.len()) {
        for how in [End::Reset, End::Fin] {
            let mut peer = Raw::established(address);
            peer.send(&update(0, VNI_BYTE, number, 7));
            let whole = (VNI, Route::new(v4(number), hop(7)));
            eventually("its route is there", || witness.has(&whole));
            peer.send(&half[..cut]);
            // It is read, in all likelihood, before the end comes.
            eventually("it is sent", || is_acknowledged(&peer.stream));
            end(peer, how);
            eventually("its route is gone", || !witness.has(&whole));
        }
    }
    witness.is_served();
    let (_source, expected) = load.finish();
    witness
        .seen
        .wait_for(&expected.iter().copied().collect::<Vec<_>>());
    assert_eq!(table_of(&endpoint), expected);
    assert_eq!(witness.losses(), []);
    server.stop("TERM");
}

/// Whether the other end's kernel has all that was sent (`SIOCOUTQ`, tcp(7)).
#[allow(unsafe_code, reason = "no dependency wraps SIOCOUTQ")]
fn is_acknowledged(stream: &TcpStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut left: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the pointer is to what TIOCOUTQ writes.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    left == 0
}

/// A server that says HELLO, tells a route, begins another frame and is gone, again and again.
///
/// Promised: the client comes back each time, keeps the route without a single event, and never
/// hears of what was only begun.
#[test]
fn servers_that_end_within_a_frame_are_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Recorder::default();
    let client = MetalBondClient::start(&[address.to_string()], seen.clone(), quick()).unwrap();
    client.subscribe(VNI).unwrap();
    let whole = (VNI, Route::new(v4(WHOLE), hop(7)));
    let half = update(0, VNI_BYTE, HALF, 7);
    let ends = (1..half.len()).map(|cut| (cut, [End::Reset, End::Fin][cut % 2]));
    for (cut, how) in ends {
        let mut server = answer(&listener);
        server.send(&update(0, VNI_BYTE, WHOLE, 7));
        seen.wait_for(&[whole]);
        server.send(&half[..cut]);
        eventually("it is sent", || is_acknowledged(&server.stream));
        end(server, how);
    }
    let mut server = answer(&listener);
    server.send(&update(0, VNI_BYTE, WHOLE, 7));
    server.send(&half);
    seen.wait_for_len(2);
    assert_eq!(seen.counts(), (2, 0), "no event but for what is new");
}

/// Takes the next connection up to the SUBSCRIBE.
fn answer(listener: &TcpListener) -> Raw {
    let mut server = Raw::accept(listener);
    assert_eq!(server.frame()[3], 1);
    // Keepalive 1 s, and it is a server.
    server.send(&[1, 0, 4, 1, 8, 1, 0x10, 1]);
    loop {
        let frame = server.frame();
        match frame[3] {
            2 => server.send(&KEEPALIVE),
            3 => return server,
            other => panic!("message type {other}"),
        }
    }
}

/// A connection that can hold next to nothing unread.
fn narrow(address: SocketAddr) -> Raw {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    TcpStream::from(socket).into()
}

/// Sends KEEPALIVEs and reads nothing, until the other side has closed; how long that was.
fn only_talk(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    while stream.write_all(&KEEPALIVE).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it is not closed");
        std::thread::sleep(Duration::from_millis(200));
    }
    start.elapsed()
}

/// Subscribers that send KEEPALIVEs and never read again.
///
/// Promised: they are closed twice the timeout (5 s) after the last byte that they took, not
/// before; what waits for them is bounded; everybody else is served meanwhile.
#[test]
fn subscribers_with_a_zero_window_are_closed_and_delay_nobody() {
    const LEGACY: &[u8] = &[1, 0, 2, 1, 8, 1];
    const STREAM: &[u8] = &[1, 0, 9, 1, 8, 1, 0xc2, 0x3e, 4, 8, 1, 0x10, 1];
    let (server, address) = Process::server(&["--keepalive", "1"]);
    let endpoint = address.to_string();
    let witness = Observer::new(&[&endpoint]);
    let load = Load::start(&[&endpoint]);
    let stuck = [LEGACY, STREAM].map(|hello| {
        let mut peer = narrow(address);
        peer.send(hello);
        peer.send(&KEEPALIVE);
        peer.send(&subscribe(VNI_BYTE));
        std::thread::spawn(move || only_talk(peer.stream))
    });
    let is_over = || stuck.iter().all(std::thread::JoinHandle::is_finished);
    let deadline = Instant::now() + PATIENCE;
    while !is_over() {
        assert!(Instant::now() < deadline, "they are not closed");
        witness.is_served();
        let resident = resident_kib(server.id());
        assert!(resident < 96 * 1024, "{resident} KiB");
    }
    for (thread, kind) in stuck.into_iter().zip(["legacy", "stream"]) {
        let time = thread.join().unwrap();
        eprintln!("{kind}: closed after {time:?}");
        assert!(time >= Duration::from_secs(4), "{kind}: {time:?}");
    }
    let (_source, expected) = load.finish();
    witness
        .seen
        .wait_for(&expected.into_iter().collect::<Vec<_>>());
    assert_eq!(witness.losses(), []);
    server.stop("TERM");
}

fn resident_kib(id: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// One of two servers sends KEEPALIVEs and never reads again.
///
/// Promised: the client leaves it twice the timeout after the last byte that it took and dials
/// it again; the other server has all that the client says, at once.
#[test]
fn server_with_a_zero_window_is_left_and_delays_nothing() {
    let (server, address) = Process::server(&["--keepalive", "1"]);
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(8).unwrap();
    let listener: TcpListener = listener.into();
    let endpoints = [address, listener.local_addr().unwrap()].map(|it| it.to_string());
    let is_over = Arc::new(AtomicBool::new(false));
    let stuck = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut connections = 0;
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let server = answer(&listener);
                connections += 1;
                longest = longest.max(only_talk(server.stream));
            }
            (connections, longest)
        }
    });
    let witness = Observer::new(&endpoints[..1]);
    let source = Observer::new(&endpoints);
    let mut number = 0;
    while source.losses().is_empty() {
        for _ in 0..100 {
            let route = source.announce(number);
            if number >= 500 {
                let old = v4(crate::observer::VICTIMS + number - 500);
                source.client.withdraw(VNI, old, hop(2)).unwrap();
            }
            number += 1;
            if number.is_multiple_of(100) {
                eventually("the other has it at once", || witness.has(&route));
            }
        }
    }
    eprintln!("left: {:?} after {number} routes", source.losses());
    let is_expected = |it: &CloseReason| {
        matches!(
            it,
            CloseReason::SendHold | CloseReason::Io(std::io::ErrorKind::TimedOut)
        )
    };
    assert!(source.losses().iter().all(is_expected));
    let expected: BTreeSet<(Vni, Route)> = (number - 500..number)
        .map(|it| (VNI, Route::new(v4(crate::observer::VICTIMS + it), hop(2))))
        .collect();
    eventually("the table is right", || witness.seen.routes() == expected);
    eventually("it is dialled again", || {
        source.client.connected_count() == 2
    });
    is_over.store(true, Ordering::Relaxed);
    source.client.shutdown().unwrap();
    let (connections, longest) = stuck.join().unwrap();
    eprintln!("{connections} connections, the longest {longest:?}");
    server.stop("TERM");
}
