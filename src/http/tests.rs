//! Both listeners answer with the same bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::fake::{Fake, peer};
use super::*;

/// Long enough for a slow machine; reached only when something is wrong.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// An HTTP server and a control socket that show the same.
struct Listeners {
    http: HttpServer,
    control: ControlSocket,
}

impl Listeners {
    fn start(name: &str) -> Self {
        let fake = Fake::default();
        fake.peers.lock().push(peer("one"));
        let inspect: Arc<dyn Inspect> = Arc::new(fake);
        let file = format!("rustbond-{name}-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(file);
        let control = ControlSocket::start(path, Arc::clone(&inspect), Actions::default());
        Self {
            http: HttpServer::start("127.0.0.1:0", inspect).unwrap(),
            control: control.unwrap(),
        }
    }

    /// Sends a text to both, and returns all that comes until they close the connection.
    fn exchange(&self, text: &str) -> [String; 2] {
        let mut tcp = TcpStream::connect(self.http.local_addr()).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut unix = UnixStream::connect(self.control.path()).unwrap();
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(text.as_bytes()).unwrap();
        unix.write_all(text.as_bytes()).unwrap();
        let mut answers = [String::new(), String::new()];
        tcp.read_to_string(&mut answers[0]).unwrap();
        unix.read_to_string(&mut answers[1]).unwrap();
        answers
    }
}

#[test]
fn both_listeners_answer_a_request_with_the_same_bytes() {
    let listeners = Listeners::start("same");
    for (text, status) in [
        ("GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("HEAD /api/v1/peers HTTP/1.0\r\n\r\n", 200),
        ("GET /api/v1/peers HTTP/1.0\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nConnection: te, close\r\n\r\n", 200),
        (
            "GET /healthz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.0\r\n\r\n",
            200,
        ),
        ("GET /nothing HTTP/1.0\r\n\r\n", 200),
        ("GET /api/nothing HTTP/1.0\r\n\r\n", 404),
        ("PUT /healthz HTTP/1.0\r\n\r\n", 405),
        ("GET /api/v1/peers?limit=0 HTTP/1.0\r\n\r\n", 400),
        ("hello\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 400),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\n",
            400,
        ),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ] {
        let [http, control] = listeners.exchange(text);
        assert_eq!(http, control, "{text:?}");
        let line = format!("HTTP/1.1 {status} ");
        assert!(http.starts_with(&line), "{text:?}: {http}");
    }
}

#[test]
fn both_listeners_refuse_a_head_without_end_with_the_same_bytes() {
    let listeners = Listeners::start("endless");
    for text in [
        "\r\n".repeat(4096),
        format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8192 - 19)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65)),
    ] {
        let [http, control] = listeners.exchange(&text);
        assert_eq!(http, control, "{text:.40?}");
        assert!(http.starts_with("HTTP/1.1 431 "), "{text:.40?}: {http}");
    }
}

/// Waits for an answer that a place was made for.
fn status(address: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().into()
}

#[test]
fn half_requests_do_not_delay_a_whole_one() {
    let inspect: Arc<dyn Inspect> = Arc::new(Fake::default());
    let http = HttpServer::start("127.0.0.1:0", inspect).unwrap();
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(http.local_addr()).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        half.push(stream);
    }
    let begin = std::time::Instant::now();
    assert_eq!(status(http.local_addr(), "localhost"), "200");
    let waited = begin.elapsed();
    assert!(waited < std::time::Duration::from_secs(3), "{waited:?}");
    drop(half);
}

#[test]
fn loopback_refuses_other_hosts_but_the_control_socket_does_not() {
    let listeners = Listeners::start("hosts");
    let text = "GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n";
    let [http, control] = listeners.exchange(text);
    assert!(http.starts_with("HTTP/1.1 421 "), "{http}");
    assert!(control.starts_with("HTTP/1.1 200 "), "{control}");
    let address = listeners.http.local_addr();
    assert_eq!(status(address, &address.to_string()), "200");
    assert_eq!(status(address, "localhost:1"), "200");
    let text = "GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n";
    let [http, _] = listeners.exchange(text);
    assert!(http.starts_with("HTTP/1.1 400 "), "{http}");
    let hosts = vec!["good.example".into()];
    let inspect: Arc<dyn Inspect> = Arc::new(Fake::default());
    let http = HttpServer::start_for("127.0.0.1:0", hosts, inspect).unwrap();
    assert_eq!(status(http.local_addr(), "good.example"), "200");
    assert_eq!(status(http.local_addr(), "evil.example"), "421");
}

#[test]
fn panic_of_a_thread_that_answers_is_known() {
    let fake = Fake::default();
    fake.is_broken
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let http = HttpServer::start("127.0.0.1:0", Arc::new(fake)).unwrap();
    let life = http.life();
    life.check().unwrap();
    let mut tcp = TcpStream::connect(http.local_addr()).unwrap();
    tcp.write_all(b"GET /api/v1/peers HTTP/1.0\r\n\r\n")
        .unwrap();
    let ended = life.wait_timeout(PATIENCE);
    assert!(
        matches!(&ended, Err(Error::Panicked(it)) if it == "metalbond-query"),
        "{ended:?}"
    );
}

#[test]
fn listeners_that_are_stopped_have_not_panicked() {
    let listeners = Listeners::start("life");
    let lives = [listeners.http.life(), listeners.control.life()];
    lives.iter().for_each(|life| life.check().unwrap());
    drop(listeners);
    lives
        .iter()
        .for_each(|life| life.wait_timeout(PATIENCE).unwrap());
}
