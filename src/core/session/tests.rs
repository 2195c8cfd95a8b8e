#![allow(clippy::disallowed_methods, reason = "a test begins at some moment")]

use super::*;
use crate::core::types::{Action, Destination, NextHop, Route};
use crate::core::wire::{
    FrameError, KEEPALIVE_FRAME, NoticeCode, encode_subscription, encode_update,
};

const VNI: Vni = Vni(100);

fn config(role: Role, keepalive_interval: u32) -> SessionConfig {
    SessionConfig {
        role,
        keepalive_interval,
        handshake_timeout: Duration::from_secs(10),
        extensions: Some(Extensions {
            capabilities: Capabilities::OWN,
            node_id: [7; 16],
            uptime_seconds: 0,
        }),
    }
}

fn hello(keepalive_interval: u32, extensions: Option<Extensions>) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_hello(
        &mut frame,
        &Hello {
            keepalive_interval,
            is_server: false,
            extensions,
        },
    );
    frame
}

fn modern_hello(interval: u32) -> Vec<u8> {
    hello(interval, config(Role::Client, 1).extensions)
}

fn about(kind: MessageType) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_subscription(&mut frame, kind, VNI);
    frame
}

fn update() -> Update {
    Update {
        action: Action::Add,
        vni: VNI,
        route: Route::new(
            Destination::new("10.0.0.0/8".parse().unwrap()),
            NextHop::standard(std::net::Ipv6Addr::LOCALHOST),
        ),
    }
}

fn update_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    encode_update(&mut frame, Action::Add, VNI, &update().route);
    frame
}

/// All events of `bytes`, and why the session closed if it did.
fn feed(session: &mut Session, now: Instant, mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = session.next_event(now, &mut bytes) {
        events.push(event);
    }
    events
}

fn transmits(session: &mut Session) -> Vec<Transmit> {
    std::iter::from_fn(|| session.poll_transmit()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    AwaitHello,
    AwaitKeepalive,
    Established,
}

fn session_at(role: Role, at: At, now: Instant) -> Session {
    let mut session = Session::new(config(role, 5), now);
    if at != At::AwaitHello {
        feed(&mut session, now, &modern_hello(5));
        transmits(&mut session);
    }
    if at == At::Established {
        assert_eq!(
            feed(&mut session, now, &KEEPALIVE_FRAME),
            [Event::Established]
        );
        transmits(&mut session);
    }
    session
}

fn notice() -> Notice {
    Notice {
        code: NoticeCode::REFUSED_SUBSCRIPTION,
        vni: VNI,
        text: "a limit".into(),
    }
}

fn notify(session: &mut Session, now: Instant) {
    let Notice { code, vni, text } = notice();
    session.notify(code, vni, &text, now);
}

fn notice_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    encode_notice(&mut frame, &notice());
    frame
}

/// Every role, state and message: what happens, or that it closes the session.
#[test]
fn every_message_in_every_state() {
    use At::{AwaitHello, AwaitKeepalive, Established};
    use Role::{Client, Server};
    let inputs = [
        ("hello", modern_hello(5)),
        ("keepalive", KEEPALIVE_FRAME.to_vec()),
        ("subscribe", about(MessageType::Subscribe)),
        ("unsubscribe", about(MessageType::Unsubscribe)),
        ("update", update_frame()),
        ("end_of_rib", about(MessageType::EndOfRib)),
        ("notice", notice_frame()),
    ];
    let noticed = [Event::Notice(Box::new(notice()))];
    let allowed: [(Role, At, &str, &[Event]); 18] = [
        (Client, AwaitKeepalive, "notice", &noticed),
        (Server, AwaitKeepalive, "notice", &noticed),
        (Client, Established, "notice", &noticed),
        (Server, Established, "notice", &noticed),
        (Client, AwaitHello, "hello", &[]),
        (Server, AwaitHello, "hello", &[]),
        (Client, AwaitKeepalive, "keepalive", &[Event::Established]),
        (Server, AwaitKeepalive, "keepalive", &[Event::Established]),
        (Client, AwaitKeepalive, "update", &[Event::Update(update())]),
        (Client, Established, "keepalive", &[Event::KeepaliveReply]),
        (Server, Established, "keepalive", &[]),
        (Client, Established, "update", &[Event::Update(update())]),
        (Server, Established, "update", &[Event::Update(update())]),
        (Server, Established, "subscribe", &[Event::Subscribe(VNI)]),
        (
            Server,
            Established,
            "unsubscribe",
            &[Event::Unsubscribe(VNI)],
        ),
        (Client, Established, "end_of_rib", &[Event::EndOfRib(VNI)]),
        // Twice is as good as once.
        (Server, Established, "keepalive", &[]),
        (Client, Established, "keepalive", &[Event::KeepaliveReply]),
    ];
    let now = Instant::now();
    for role in [Client, Server] {
        for at in [AwaitHello, AwaitKeepalive, Established] {
            for (name, bytes) in &inputs {
                let mut session = session_at(role, at, now);
                let events = feed(&mut session, now, bytes);
                let expected = allowed
                    .iter()
                    .find(|(r, a, n, _)| (*r, *a, n) == (role, at, name));
                match expected {
                    Some((.., expected)) => {
                        assert_eq!(&events, expected, "{role:?} {at:?} {name}");
                        assert_eq!(session.closed(), None, "{role:?} {at:?} {name}");
                    }
                    None => {
                        assert!(events.is_empty(), "{role:?} {at:?} {name}");
                        let reason = CloseReason::Unexpected(bytes[3]);
                        assert_eq!(session.closed(), Some(reason), "{role:?} {at:?} {name}");
                        assert!(feed(&mut session, now, bytes).is_empty());
                        assert!(transmits(&mut session).is_empty());
                    }
                }
            }
        }
    }
}

#[test]
fn both_sides_shake_hands_and_agree_on_the_smaller_interval() {
    let now = Instant::now();
    for (own, others) in [(5, 2), (2, 5), (3, 3)] {
        let mut client = Session::new(config(Role::Client, own), now);
        let mut server = Session::new(config(Role::Server, others), now);
        let mut events = Vec::new();
        loop {
            let to_server = transmits(&mut client);
            let to_client = transmits(&mut server);
            if to_server.is_empty() && to_client.is_empty() {
                break;
            }
            for (session, frames) in [(&mut server, to_server), (&mut client, to_client)] {
                for frame in frames {
                    let bytes = match frame {
                        Transmit::Hello(bytes) | Transmit::Notice(bytes) => bytes,
                        Transmit::Keepalive => KEEPALIVE_FRAME.to_vec(),
                    };
                    events.extend(feed(session, now, &bytes));
                }
            }
        }
        assert_eq!(events, [Event::Established, Event::Established]);
        assert_eq!(client.keepalive_interval(), own.min(others));
        assert_eq!(server.keepalive_interval(), own.min(others));
        assert_eq!(client.keepalives(), (1, 1));
        assert!(client.capabilities().contains(Capabilities::OWN));
        assert!(server.capabilities().contains(Capabilities::OWN));
    }
}

#[test]
fn whole_handshake_and_more_in_one_segment() {
    let now = Instant::now();
    let mut session = Session::new(config(Role::Server, 5), now);
    let mut bytes = hello(2, None);
    bytes.extend(KEEPALIVE_FRAME);
    bytes.extend(about(MessageType::Subscribe));
    bytes.extend(update_frame());
    let expected = [
        Event::Established,
        Event::Subscribe(VNI),
        Event::Update(update()),
    ];
    assert_eq!(feed(&mut session, now, &bytes), expected);
}

#[test]
fn legacy_side_takes_up_nothing_that_is_offered() {
    for role in [Role::Client, Role::Server] {
        let legacy = SessionConfig {
            extensions: None,
            ..config(role, 5)
        };
        let now = Instant::now();
        let mut session = Session::new(legacy, now);
        let mut input: &[u8] = &modern_hello(5);
        while session.next_event(now, &mut input).is_some() {}
        assert!(session.knows_peer() && session.closed().is_none());
        assert_eq!(session.capabilities(), Capabilities::default(), "{role:?}");
        assert!(session.is_legacy(), "{role:?}");
    }
}

#[test]
fn legacy_client_hears_nothing_of_extensions() {
    let now = Instant::now();
    let mut session = Session::new(config(Role::Server, 5), now);
    feed(&mut session, now, &hello(2, None));
    // What Go MetalBond answers, byte for byte.
    let reply = vec![1, 0, 4, 1, 8, 2, 16, 1];
    assert_eq!(transmits(&mut session), [Transmit::Hello(reply)]);
    assert_eq!(session.capabilities(), Capabilities::default());
}

#[test]
fn notice_is_for_peers_that_offer_it_alone() {
    let now = Instant::now();
    for role in [Role::Client, Role::Server] {
        let mut session = Session::new(config(role, 5), now);
        notify(&mut session, now);
        feed(&mut session, now, &hello(5, None));
        feed(&mut session, now, &KEEPALIVE_FRAME);
        notify(&mut session, now);
        let sent = transmits(&mut session);
        assert!(!sent.iter().any(|it| matches!(it, Transmit::Notice(_))));
        feed(&mut session, now, &notice_frame());
        assert_eq!(session.closed(), Some(CloseReason::Unexpected(161)));
    }
}

#[test]
fn notices_of_one_code_and_vni_go_once_a_second() {
    let start = Instant::now();
    let mut session = session_at(Role::Server, At::Established, start);
    let silent = session.poll_timeout();
    notify(&mut session, start);
    notify(&mut session, start);
    let one = [Transmit::Notice(notice_frame())];
    assert_eq!(transmits(&mut session), one);
    let due = start + Duration::from_secs(1);
    assert_eq!(session.poll_timeout(), Some(due));
    session.handle_timeout(due);
    assert_eq!(transmits(&mut session), one);
    assert_eq!(session.poll_timeout(), silent);
    assert_eq!(session.sent().notice, 2);
}

#[test]
fn malformed_notice_is_dropped() {
    let now = Instant::now();
    let mut session = session_at(Role::Server, At::Established, now);
    let events = feed(&mut session, now, &[1, 0, 2, 161, 26, 9]);
    assert_eq!(events, [Event::Dropped(Malformed::Encoding)]);
    assert_eq!(session.closed(), None);
}

#[test]
fn client_accepts_end_of_rib_only_from_who_offered_it() {
    let now = Instant::now();
    let mut session = Session::new(config(Role::Client, 5), now);
    feed(&mut session, now, &hello(5, None));
    feed(&mut session, now, &KEEPALIVE_FRAME);
    feed(&mut session, now, &about(MessageType::EndOfRib));
    assert_eq!(session.closed(), Some(CloseReason::Unexpected(160)));
}

#[test]
fn events_that_end_a_session_are_listed() {
    let now = Instant::now();
    let cases: [(&[u8], CloseReason); 5] = [
        (&[1, 0, 0, 1], CloseReason::IntervalZero),
        (&[1, 0, 1, 1, 0xff], CloseReason::BrokenHello),
        (&[2, 0, 0, 1], CloseReason::Frame(FrameError::Version(2))),
        (&[1, 0, 0, 6], CloseReason::Frame(FrameError::Type(6))),
        (
            &[1, 255, 255, 5],
            CloseReason::Frame(FrameError::Length(65535)),
        ),
    ];
    for (bytes, reason) in cases {
        let mut session = Session::new(config(Role::Server, 5), now);
        assert!(feed(&mut session, now, bytes).is_empty());
        assert_eq!(session.closed(), Some(reason));
        assert_eq!(session.poll_timeout(), None);
    }
}

#[test]
fn malformed_update_is_dropped_and_the_session_lives() {
    let now = Instant::now();
    let mut session = session_at(Role::Server, At::Established, now);
    let mut bytes = vec![1, 0, 0, 5];
    bytes.extend(update_frame());
    let expected = [
        Event::Dropped(Malformed::NoDestination),
        Event::Update(update()),
    ];
    assert_eq!(feed(&mut session, now, &bytes), expected);
    assert_eq!(session.closed(), None);
}

#[test]
fn malformed_update_before_hello_is_out_of_place() {
    let now = Instant::now();
    let mut session = Session::new(config(Role::Server, 5), now);
    assert!(feed(&mut session, now, &[1, 0, 0, 5]).is_empty());
    assert_eq!(session.closed(), Some(CloseReason::Unexpected(5)));
}

#[test]
fn handshake_has_its_time() {
    let now = Instant::now();
    for role in [Role::Client, Role::Server] {
        let mut session = Session::new(config(role, 5), now);
        let until = now + Duration::from_secs(10);
        assert_eq!(session.poll_timeout(), Some(until));
        // A byte now and then does not buy more of it.
        feed(&mut session, now + Duration::from_secs(9), &[1]);
        session.handle_timeout(until - Duration::from_millis(1));
        assert_eq!(session.closed(), None);
        session.handle_timeout(until);
        assert_eq!(session.closed(), Some(CloseReason::HandshakeTimeout));
    }
}

#[test]
fn any_byte_postpones_the_timeout() {
    let start = Instant::now();
    let mut session = session_at(Role::Server, At::Established, start);
    let almost = Duration::from_millis(12_499);
    let mut now = start;
    for byte in KEEPALIVE_FRAME {
        now += almost;
        session.handle_timeout(now);
        assert_eq!(session.closed(), None);
        feed(&mut session, now, &[byte]);
    }
    assert_eq!(
        session.poll_timeout(),
        Some(now + Duration::from_millis(12_500))
    );
    session.handle_timeout(now + Duration::from_millis(12_500));
    assert_eq!(session.closed(), Some(CloseReason::Silent));
}

#[test]
fn client_keeps_alive_and_the_server_starts_none() {
    let start = Instant::now();
    let mut client = session_at(Role::Client, At::Established, start);
    let mut server = session_at(Role::Server, At::Established, start);
    for second in 1..=12 {
        let now = start + Duration::from_secs(second);
        client.handle_timeout(now);
        server.handle_timeout(now);
        let due = second % 5 == 0;
        assert_eq!(transmits(&mut client).len(), usize::from(due), "{second}");
        assert!(transmits(&mut server).is_empty());
    }
    let dead = start + Duration::from_millis(12_500);
    client.handle_timeout(dead);
    server.handle_timeout(dead);
    assert_eq!(client.closed(), Some(CloseReason::Silent));
    assert_eq!(server.closed(), Some(CloseReason::Silent));
}

#[test]
fn server_answers_every_keepalive() {
    let now = Instant::now();
    let mut session = session_at(Role::Server, At::Established, now);
    feed(&mut session, now, &KEEPALIVE_FRAME.repeat(3));
    assert_eq!(transmits(&mut session), vec![Transmit::Keepalive; 3]);
}

#[test]
fn barrier_is_passed_when_its_keepalive_is_answered() {
    let now = Instant::now();
    let mut session = session_at(Role::Client, At::Established, now);
    let barrier = session.barrier();
    transmits(&mut session);
    assert!(session.keepalives().1 < barrier);
    feed(&mut session, now, &KEEPALIVE_FRAME);
    assert_eq!(session.keepalives().1, barrier);
}

#[test]
fn first_reason_to_close_stays() {
    let mut session = session_at(Role::Client, At::Established, Instant::now());
    session.close(CloseReason::PeerClosed);
    session.close(CloseReason::Shutdown);
    assert_eq!(session.closed(), Some(CloseReason::PeerClosed));
}

#[test]
fn getters_of_a_session_follow_its_state() {
    let now = Instant::now();
    let mut session = Session::new(config(Role::Server, 5), now);
    let says = |it: &Session| (it.knows_peer(), it.is_hello_received(), it.is_legacy());
    assert_eq!(says(&session), (false, false, false));
    feed(&mut session, now, &modern_hello(5));
    assert_eq!(says(&session), (true, true, false));
    feed(&mut session, now, &KEEPALIVE_FRAME);
    assert_eq!(says(&session), (true, false, false));
    let mut session = Session::new(config(Role::Server, 5), now);
    feed(&mut session, now, &hello(5, None));
    assert_eq!(says(&session), (true, true, true));
}

#[test]
fn messages_are_counted_by_type_and_direction() {
    let now = Instant::now();
    let mut session = session_at(Role::Server, At::Established, now);
    let frames = [
        KEEPALIVE_FRAME.to_vec(),
        about(MessageType::Subscribe),
        about(MessageType::Unsubscribe),
        update_frame().repeat(3),
        // Malformed ones came too.
        vec![1, 0, 0, 5],
    ];
    feed(&mut session, now, &frames.concat());
    transmits(&mut session);
    let received = MessageCounts {
        hello: 1,
        keepalive: 2,
        subscribe: 1,
        unsubscribe: 1,
        update: 4,
        end_of_rib: 0,
        notice: 0,
    };
    assert_eq!(session.received(), received);
    let sent = MessageCounts {
        hello: 1,
        keepalive: 2,
        ..MessageCounts::default()
    };
    assert_eq!(session.sent(), sent);
}

/// From its HELLO on, a peer has the handshake timeout once more, or its silence's limit.
#[test]
fn peer_that_said_hello_has_the_handshake_timeout_again() {
    let start = Instant::now();
    let later = start + Duration::from_secs(3);
    for (interval, limit) in [(1, Duration::from_secs(10)), (60, Duration::from_secs(150))] {
        let mut session = Session::new(config(Role::Server, interval), start);
        feed(&mut session, later, &modern_hello(interval));
        // Bytes that are no whole frame keep it from being silent.
        feed(&mut session, later + limit / 2, &KEEPALIVE_FRAME[..1]);
        feed(&mut session, later + limit * 9 / 10, &KEEPALIVE_FRAME[1..2]);
        session.handle_timeout(later + limit - Duration::from_millis(1));
        assert_eq!(session.closed(), None, "{interval}");
        session.handle_timeout(later + limit);
        assert_eq!(session.closed(), Some(CloseReason::HandshakeTimeout));
    }
}

#[test]
fn every_reason_says_what_happened() {
    let reasons = [
        (
            CloseReason::Frame(FrameError::Version(2)),
            "protocol version 2 instead of 1",
        ),
        (CloseReason::Unexpected(3), "message type 3 out of place"),
        (CloseReason::Silent, "keepalive timed out"),
    ];
    for (reason, text) in reasons {
        assert_eq!(reason.to_string(), text);
    }
}
