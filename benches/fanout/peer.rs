//! The peers: an announcer, and many connections that count what they read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

/// Bytes of an announcement as [`update`] makes it: an IPv4 route in a small VNI.
pub(crate) const UPDATE_BYTES: usize = 36;

/// HELLO with extensions: keepalive 30 s, capability STREAM, without END_OF_RIB, so
/// that every subscriber gets exactly the bytes of the routes.
const HELLO: [u8; 13] = [1, 0, 9, 1, 8, 30, 0xc2, 0x3e, 4, 8, 1, 16, 1];
const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

/// An UPDATE of `10.0.0.0/32 + number` in a VNI below 128, via `2001:db8::hop`.
pub(crate) fn update(action: u8, vni: u8, number: u32, hop: u8) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 5];
    if action != 0 {
        frame.extend([8, action]);
    }
    frame.extend([0x10, vni, 0x1a, 8, 0x12, 4]);
    frame.extend((0x0a00_0000 + number).to_be_bytes());
    frame.extend([0x18, 32, 0x22, 18, 0x0a, 16, 0x20, 1, 0x0d, 0xb8]);
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hop]);
    frame[2] = u8::try_from(frame.len() - 4).unwrap();
    frame
}

fn established(address: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(hello).unwrap();
    stream.write_all(&KEEPALIVE).unwrap();
    // The server's HELLO, then its KEEPALIVE.
    let mut header = [0; 4];
    loop {
        stream.read_exact(&mut header).unwrap();
        let mut payload = vec![0; usize::from(header[2])];
        stream.read_exact(&mut payload).unwrap();
        if header == KEEPALIVE {
            return stream;
        }
    }
}

/// An established session to announce with.
pub(crate) fn announcer(address: SocketAddr) -> TcpStream {
    established(address, &HELLO)
}

/// Sends all bytes on a thread of its own, and gives the connection back.
pub(crate) fn send_in_background(mut stream: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    std::thread::spawn(move || {
        stream.write_all(&bytes).unwrap();
        stream
    })
}

/// Waits until the server has read all that was sent.
pub(crate) fn barrier(mut stream: TcpStream) -> TcpStream {
    stream.write_all(&KEEPALIVE).unwrap();
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply, KEEPALIVE);
    stream
}

/// Connections that are read together.
pub(crate) struct Sinks {
    poll: Poll,
    streams: Vec<mio::net::TcpStream>,
    buffer: Vec<u8>,
}

impl Sinks {
    fn new(streams: Vec<TcpStream>) -> Self {
        let poll = Poll::new().unwrap();
        let mut streams: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                stream.set_nonblocking(true).unwrap();
                mio::net::TcpStream::from_std(stream)
            })
            .collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            let registry = poll.registry();
            registry
                .register(stream, Token(number), Interest::READABLE)
                .unwrap();
        }
        Self {
            poll,
            streams,
            buffer: vec![0; 1 << 20],
        }
    }

    /// Plain connections.
    pub(crate) fn connected(address: SocketAddr, count: usize) -> Self {
        let connect = |_| TcpStream::connect(address).unwrap();
        Self::new((0..count).map(connect).collect())
    }

    /// Sessions.
    pub(crate) fn established(address: SocketAddr, count: usize) -> Self {
        Self::new((0..count).map(|_| announcer(address)).collect())
    }

    /// Sessions that have subscribed, surely.
    pub(crate) fn subscribed(address: SocketAddr, count: usize, vni: u8) -> Self {
        let subscribe = |_| {
            let mut stream = announcer(address);
            stream.write_all(&[1, 0, 2, 3, 8, vni]).unwrap();
            // The second answer comes after the table's owner was asked.
            barrier(barrier(stream))
        };
        Self::new((0..count).map(subscribe).collect())
    }

    pub(crate) fn subscribe(&mut self, vni: u8) {
        for stream in &mut self.streams {
            stream.write_all(&[1, 0, 2, 3, 8, vni]).unwrap();
        }
    }

    /// Every connection announces `each` routes of its own.
    pub(crate) fn announce_in_turn(&mut self, each: u32) {
        for (number, stream) in (0..).zip(&mut self.streams) {
            let first = number * each;
            let bytes: Vec<u8> = (first..first + each)
                .flat_map(|it| update(0, 1, it, 1))
                .collect();
            // 36 kB fit the socket's buffer: nothing blocks.
            stream.write_all(&bytes).unwrap();
        }
    }

    /// How long after `start` each connection had read `len` bytes.
    pub(crate) fn arrivals(&mut self, len: usize, start: Instant) -> Vec<Duration> {
        let mut missing = vec![len; self.streams.len()];
        let mut times = Vec::with_capacity(self.streams.len());
        let mut events = Events::with_capacity(1024);
        while times.len() < self.streams.len() {
            self.poll
                .poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(!events.is_empty(), "nothing came for 10 s");
            for event in &events {
                let number = event.token().0;
                let left = &mut missing[number];
                if *left > 0 {
                    *left -= drain(&mut self.streams[number], &mut self.buffer[..4096], *left);
                    if *left == 0 {
                        times.push(start.elapsed());
                    }
                }
            }
        }
        times
    }

    /// Reads until every connection has had so many bytes.
    pub(crate) fn read_bytes(&mut self, each: usize) {
        let mut missing = vec![each; self.streams.len()];
        let mut open = self.streams.len();
        let mut events = Events::with_capacity(1024);
        let deadline = Instant::now() + Duration::from_secs(120);
        // What has come already makes no further event.
        let mut ready: Vec<usize> = (0..self.streams.len()).collect();
        loop {
            for number in ready.drain(..) {
                let left = &mut missing[number];
                if *left > 0 {
                    *left -= drain(&mut self.streams[number], &mut self.buffer, *left);
                    open -= usize::from(*left == 0);
                }
            }
            if open == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{open} connections miss bytes");
            self.poll
                .poll(&mut events, Some(Duration::from_secs(1)))
                .unwrap();
            ready.extend(events.iter().map(|event| event.token().0));
        }
    }

    /// Reads all there is until nothing has come for a second; how many bytes.
    pub(crate) fn read_until_quiet(&mut self) -> usize {
        let mut events = Events::with_capacity(1024);
        let mut total = 0;
        loop {
            for stream in &mut self.streams {
                total += drain(stream, &mut self.buffer, usize::MAX);
            }
            self.poll
                .poll(&mut events, Some(Duration::from_secs(1)))
                .unwrap();
            if events.is_empty() {
                return total;
            }
        }
    }

    /// Keeps all sessions alive for a while, one KEEPALIVE each five seconds.
    pub(crate) fn keep_alive(&mut self, duration: Duration) {
        let start = Instant::now();
        let interval = Duration::from_secs(5);
        let count = self.streams.len();
        let mut sent = 0;
        while start.elapsed() < duration {
            let due = start.elapsed().as_millis() * count as u128 / interval.as_millis();
            while (sent as u128) < due {
                let stream = &mut self.streams[sent % count];
                stream.write_all(&KEEPALIVE).unwrap();
                drain(stream, &mut self.buffer, usize::MAX);
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads what is there, at most `limit` bytes.
fn drain(stream: &mut mio::net::TcpStream, buffer: &mut [u8], limit: usize) -> usize {
    let mut total = 0;
    while total < limit {
        let most = buffer.len().min(limit - total);
        match stream.read(&mut buffer[..most]) {
            Ok(0) => panic!("the server closed a session"),
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("reading: {error}"),
        }
    }
    total
}
