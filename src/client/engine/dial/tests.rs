//! Connections to servers with names, through a resolver that the tests answer for.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::client::{Builder, MetalBondClient, NoOpHandler};
use crate::inspect::Command;
use crate::server::{MetalBondServer, ServerConfig};

/// Long enough for a slow machine; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(40);

/// Longer than a test lasts: no second attempt at a server comes to help.
const NEVER: Duration = Duration::from_secs(3600);

const NAME: &str = "server.test:4711";

fn server() -> MetalBondServer {
    MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap()
}

fn builder(resolver: Resolver) -> Builder {
    MetalBondClient::builder()
        .server(NAME)
        .retry(NEVER, NEVER)
        .resolver(resolver)
}

fn client(answer: Vec<SocketAddr>) -> MetalBondClient {
    let resolver = Resolver::new(move |_| Ok(answer.clone()));
    builder(resolver).handler(NoOpHandler).unwrap()
}

/// An address where nobody listens.
fn refusing() -> SocketAddr {
    ([127, 99, 0, 1], 1).into()
}

/// An address that answers nothing: a listener whose queue is full.
struct Hole {
    address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Hole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let knock = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            drop(socket.connect(&address.into()));
            socket
        };
        let waiting: Vec<Socket> = (0..16).map(knock).collect();
        assert!(waiting.iter().any(|it| it.peer_addr().is_err()));
        Self {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// A resolver that answers when it is told to, and counts how often it is asked.
struct Slow {
    asked: Receiver<()>,
    answers: Sender<Vec<SocketAddr>>,
    at_once: Arc<AtomicUsize>,
}

impl Slow {
    fn new() -> (Self, Resolver) {
        let (ask, asked) = unbounded();
        let (answers, answer) = bounded::<Vec<SocketAddr>>(0);
        let at_once = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&at_once);
        let resolver = Resolver::new(move |_| {
            assert_eq!(count.fetch_add(1, SeqCst), 0, "two are asked at once");
            // The test may be over.
            ask.send(()).unwrap_or_default();
            let answer = answer.recv().map_err(|_| io::ErrorKind::NotFound.into());
            count.fetch_sub(1, SeqCst);
            answer
        });
        let slow = Self {
            asked,
            answers,
            at_once,
        };
        (slow, resolver)
    }
}

#[test]
fn address_that_refuses_is_followed_by_the_next_at_once() {
    let server = server();
    let client = client(vec![refusing(), refusing(), server.local_addr()]);
    client.wait_established_timeout(PATIENCE).unwrap();
}

#[test]
fn address_that_answers_nothing_is_followed_by_the_next() {
    let (hole, server) = (Hole::new(), server());
    let begin = Instant::now();
    let client = client(vec![hole.address, server.local_addr()]);
    client.wait_established_timeout(PATIENCE).unwrap();
    assert!(begin.elapsed() >= STAGGER, "the first was not tried");
    let peers = client.inspector().peers().unwrap();
    assert_eq!(peers[0].address, Some(server.local_addr()));
}

#[test]
fn address_without_a_session_is_the_last_one_next_time() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = server();
    let answer = vec![silent.local_addr().unwrap(), server.local_addr()];
    let client = builder(Resolver::new(move |_| Ok(answer.clone())))
        .retry(Duration::ZERO, Duration::ZERO)
        .handshake_timeout(Duration::from_millis(100))
        .handler(NoOpHandler)
        .unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
}

#[test]
fn resolver_that_takes_eleven_seconds_is_asked_once_and_leads_to_a_session() {
    let server = server();
    let (slow, resolver) = Slow::new();
    let client = builder(resolver)
        .retry(Duration::from_millis(10), Duration::from_millis(10))
        .handler(NoOpHandler)
        .unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(11));
    slow.answers.send(vec![server.local_addr()]).unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
    assert!(slow.asked.try_recv().is_err(), "it was asked again");
}

#[test]
fn answer_that_nobody_waits_for_any_more_is_used_at_once() {
    let server = server();
    let (slow, resolver) = Slow::new();
    let client = builder(resolver).handler(NoOpHandler).unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    let retries = |state| state == crate::core::client::ConnectionState::Retry;
    let begin = Instant::now();
    while !client.server_states().into_values().any(retries) {
        assert!(begin.elapsed() < PATIENCE, "the attempt does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    slow.answers.send(vec![server.local_addr()]).unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
}

#[test]
fn last_answer_serves_while_the_resolver_is_silent() {
    let server = server();
    let (slow, resolver) = Slow::new();
    let client = builder(resolver)
        .retry(Duration::ZERO, Duration::ZERO)
        .handler(NoOpHandler)
        .unwrap();
    slow.answers
        .send_timeout(vec![server.local_addr()], PATIENCE)
        .unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    // The resolver is asked again, and does not answer.
    for round in 1..=3 {
        let reset = Command::ResetPeer(NAME.into());
        client.inspector().execute(reset).unwrap();
        let begin = Instant::now();
        let is_back = || {
            let peers = client.inspector().peers().unwrap();
            peers[0].flaps == round && client.is_established()
        };
        while !is_back() {
            assert!(begin.elapsed() < PATIENCE, "it is not reached again");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert_eq!(slow.at_once.load(SeqCst), 1);
    assert_eq!(slow.asked.len(), 1, "once more, and no more than that");
}

#[test]
fn shutdown_does_not_wait_for_the_resolver() {
    let (slow, resolver) = Slow::new();
    let client = builder(resolver).handler(NoOpHandler).unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    client.shutdown().unwrap();
    assert_eq!(slow.at_once.load(SeqCst), 1, "it is still asked");
}

#[test]
fn name_that_is_removed_and_added_again_is_not_asked_for_twice_at_once() {
    let server = server();
    let (slow, resolver) = Slow::new();
    let client = builder(resolver).handler(NoOpHandler).unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    for _ in 0..5 {
        for id in client.servers().into_keys() {
            client.remove_server(id).unwrap();
        }
        client.add_server(NAME).unwrap();
    }
    slow.answers.send(vec![server.local_addr()]).unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
    assert!(slow.asked.is_empty());
}

#[test]
fn late_answer_joins_the_addresses_being_tried() {
    let (hole, server) = (Hole::new(), server());
    let (slow, resolver) = Slow::new();
    let client = builder(resolver)
        .retry(Duration::ZERO, Duration::ZERO)
        .handler(NoOpHandler)
        .unwrap();
    let send = |answer| slow.answers.send_timeout(answer, PATIENCE).unwrap();
    slow.asked.recv_timeout(PATIENCE).unwrap();
    // The first answer is of no use: the attempts at it end after 10 s.
    send(vec![hole.address]);
    slow.asked.recv_timeout(PATIENCE).unwrap();
    let begin = Instant::now();
    while client.inspector().peers().unwrap()[0].address != Some(hole.address) {
        assert!(begin.elapsed() < PATIENCE, "the last answer is not used");
        std::thread::sleep(Duration::from_millis(10));
    }
    send(vec![server.local_addr()]);
    client.wait_established_timeout(PATIENCE).unwrap();
}

#[test]
fn names_that_are_none_are_refused_when_they_are_said() {
    let client = client(vec![refusing()]);
    for name in ["", "[::1]", "nonsense", "nonsense with spaces:4711"] {
        let error = client.add_server(name).unwrap_err().to_string();
        assert!(error.contains("is not the address of a server"), "{error}");
        let error = MetalBondClient::builder().server(name).driver();
        assert!(error.is_err(), "{name}");
    }
    let error = client.add_server("host:0").unwrap_err().to_string();
    assert!(error.contains("nobody listens on port 0"), "{error}");
    assert_eq!(client.server_count(), 1);
}

#[test]
fn server_under_two_names_is_waited_for_once() {
    let server = server();
    let client = client(vec![server.local_addr()]);
    client.add_server(server.local_addr().to_string()).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    assert_eq!(client.state(), crate::client::ClientState::FullyConnected);
    assert_eq!(client.server_count(), 2);
}

#[test]
fn families_take_turns_and_the_good_address_is_first() {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("1.1.1.1:1"));
    let mut addresses = Addresses::default();
    assert!(addresses.take().is_empty());
    addresses.learn(vec![a, b, a, c]);
    assert_eq!(addresses.take(), [a, c, b]);
    addresses.praise(b);
    assert_eq!(addresses.take(), [b, a, c]);
    addresses.blame(b);
    assert_eq!(addresses.take(), [a, c, b]);
    addresses.blame(a);
    assert_eq!(addresses.take(), [c, b, a]);
    addresses.blame(b);
    assert_eq!(addresses.take(), [c, a, b]);
    let many = (0..100).map(|port| SocketAddr::from(([1, 1, 1, 1], port)));
    addresses.learn(many.collect());
    let first = addresses.take();
    assert_eq!(first.len(), ADDRESSES);
    // Those that failed make room for the others.
    first.iter().for_each(|it| addresses.blame(*it));
    assert!(addresses.take().iter().all(|it| !first.contains(it)));
}
