#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

use std::time::Duration;

use super::*;
use crate::core::wire::{Extensions, Hello, encode_hello, frame_len};

const PACING: Pacing = Pacing {
    mode: LegacyPacing::Auto,
    rate: 8 * 1024 * 1024,
};

fn connection(role: Role, now: Instant) -> Connection<Buffer> {
    let config = SessionConfig {
        role,
        keepalive_interval: 2,
        handshake_timeout: Duration::from_secs(10),
        extensions: Some(Extensions {
            capabilities: Capabilities::OWN,
            node_id: [1; 16],
            uptime_seconds: 0,
        }),
    };
    Connection::new(config, PACING, 0, now)
}

/// Takes all that a side sends, and hands it to the other one.
fn exchange(from: &mut Connection<Buffer>, to: &mut Connection<Buffer>, now: Instant) {
    from.transmit();
    let bytes = from.outgoing().to_vec();
    from.advance(bytes.len(), now);
    let mut rest = &bytes[..];
    while to.receive(&mut rest, now).is_some() {}
}

fn established(now: Instant) -> [Connection<Buffer>; 2] {
    let mut client = connection(Role::Client, now);
    let mut server = connection(Role::Server, now);
    for _ in 0..2 {
        exchange(&mut client, &mut server, now);
        exchange(&mut server, &mut client, now);
    }
    assert!(client.session().is_established() && server.session().is_established());
    [client, server]
}

#[test]
fn two_connections_shake_hands_and_send_as_streams() {
    let [client, server] = established(Instant::now());
    assert_eq!(client.framing(), Framing::Stream);
    assert_eq!(server.framing(), Framing::Stream);
    assert_eq!((client.rate(), server.rate()), (None, None));
}

#[test]
fn hello_of_a_client_is_sent_as_a_chunk_and_its_rest_too() {
    let now = Instant::now();
    let mut client = connection(Role::Client, now);
    client.transmit();
    let hello = client.outgoing().to_vec();
    assert_eq!(frame_len(&hello), hello.len());
    assert_eq!(client.framing(), Framing::Chunk);
    assert!(client.advance(3, now), "the chunk is cut");
    assert_eq!(client.outgoing(), &hello[3..]);
    assert!(!client.advance(hello.len() - 3, now));
    assert!(client.outgoing().is_empty());
}

#[test]
fn legacy_client_is_paced_from_its_hello_on() {
    let now = Instant::now();
    let mut server = connection(Role::Server, now);
    let mut hello = Vec::new();
    let legacy = Hello {
        keepalive_interval: 2,
        is_server: false,
        extensions: None,
    };
    encode_hello(&mut hello, &legacy);
    assert_eq!(server.framing(), Framing::Stream);
    assert_eq!(server.receive(&mut &hello[..], now), None);
    assert_eq!(server.framing(), Framing::Chunk);
    assert_eq!(server.rate(), Some(PACING.rate));
    assert_eq!(server.poll_pace(), Some(now), "the window is asked for");
    assert!(server.handle_pace_timeout(now));
}

#[test]
fn peer_that_takes_nothing_is_closed_after_the_send_hold_time() {
    let now = Instant::now();
    let [_, mut server] = established(now);
    server
        .queue_mut()
        .frames()
        .extend_from_slice(&KEEPALIVE_FRAME);
    server.advance(0, now);
    // Twice the hold time of 5 s; the peer is heard all the time.
    let keepalive = |server: &mut Connection<Buffer>, at| {
        server.receive(&mut &KEEPALIVE_FRAME[..], at);
    };
    for second in 1..10 {
        let at = now + Duration::from_secs(second);
        keepalive(&mut server, at);
        server.handle_timeout(at);
        assert_eq!(server.closed(), None);
    }
    let due = now + Duration::from_secs(10);
    assert_eq!(server.poll_timeout(), Some(due));
    server.handle_timeout(due);
    assert_eq!(server.closed(), Some(CloseReason::SendHold));
    assert_eq!(server.poll_timeout(), None);
}

/// 32 KiB take 8 s on a link of 4 KiB/s; the server hears nothing else within its hold time if it
/// counts KEEPALIVEs only.
#[test]
fn keepalive_of_a_client_overtakes_what_waits_at_the_next_frame() {
    let now = Instant::now();
    let [mut client, _] = established(now);
    let frame = [1, 0, 60, 5];
    let mut update = frame.to_vec();
    update.extend_from_slice(&[0; 60]);
    for _ in 0..500 {
        client.queue_mut().frames().extend_from_slice(&update);
    }
    // A barrier stands behind all that.
    let barrier = client.barrier();
    client.transmit();
    client.advance(100, now);
    let later = now + Duration::from_secs(2);
    client.handle_timeout(later);
    client.overtake();
    client.transmit();
    let outgoing = client.outgoing().to_vec();
    assert_eq!(outgoing[28..28 + KEEPALIVE_FRAME.len()], KEEPALIVE_FRAME);
    assert_eq!(outgoing[28 + KEEPALIVE_FRAME.len()..][..4], frame);
    // One that waits is enough.
    client.advance(1, later);
    client.handle_timeout(later + Duration::from_secs(2));
    client.overtake();
    let count = |bytes: &[u8]| {
        let (mut at, mut count) = (27, 0);
        while at < bytes.len() {
            let next = at + frame_len(&bytes[at..]);
            count += u32::from(bytes[at..next] == KEEPALIVE_FRAME);
            at = next;
        }
        count
    };
    assert_eq!(count(client.outgoing()), 3, "urgent, barrier, periodic");
    // Its answer says nothing of what it overtook.
    assert_eq!(client.receive(&mut &KEEPALIVE_FRAME[..], later), None);
    assert!(client.session().keepalives().1 < barrier);
    let answer = client.receive(&mut &KEEPALIVE_FRAME[..], later);
    assert_eq!(answer, Some(Event::KeepaliveReply));
    assert_eq!(client.session().keepalives().1, barrier);
    let all = client.outgoing().len();
    client.advance(all, later);
    assert!(client.outgoing().is_empty());
}

#[test]
fn drained_connection_ends_once_its_queue_is_empty() {
    let now = Instant::now();
    let [mut busy, mut idle] = established(now);
    idle.drain();
    assert_eq!(idle.closed(), Some(CloseReason::Drained));
    busy.queue_mut()
        .frames()
        .extend_from_slice(&KEEPALIVE_FRAME);
    busy.drain();
    assert!(busy.is_draining() && busy.closed().is_none());
    busy.advance(1, now);
    assert_eq!(busy.closed(), None);
    busy.advance(KEEPALIVE_FRAME.len() - 1, now);
    assert_eq!(busy.closed(), Some(CloseReason::Drained));
}
