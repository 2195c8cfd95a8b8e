//! What the integration tests share: waiting for a state, handlers, raw peers.
#![allow(dead_code, reason = "every test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustbond::{
    ClientConfig, Destination, MetalBondClient, MetalBondServer, NextHop, Route, RouteHandler,
    ServerConfig, Vni,
};

/// Long enough for a slow machine; reached only when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `is_reached`; for states that nobody announces.
pub(crate) fn eventually(what: &str, mut is_reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_reached() {
        assert!(Instant::now() < deadline, "not reached: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns an address that nobody listens on until the caller does, and that is the caller's alone:
/// a port that the system chose and that was given back may be another test's a moment later.
///
/// All of 127.0.0.0/8 is this machine. The address carries the number of this process; the port is
/// below those that the system hands out.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    ([127, 64 | high, middle, low], port).into()
}

pub(crate) fn server() -> MetalBondServer {
    MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap()
}

/// A client whose retries do not take seconds.
pub(crate) fn client(servers: &[SocketAddr], handler: impl RouteHandler) -> MetalBondClient {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let config = ClientConfig {
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(50),
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let client = MetalBondClient::start(&servers, handler, config).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    client
}

/// A table kept by add and remove, which objects to what cannot be.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    state: Arc<(Mutex<Recorded>, Condvar)>,
}

#[derive(Default)]
struct Recorded {
    routes: BTreeSet<(Vni, Route)>,
    adds: usize,
    removes: usize,
    faults: Vec<String>,
}

impl RouteHandler for Recorder {
    fn add_route(&self, vni: Vni, route: Route) {
        let mut state = self.state.0.lock().unwrap();
        state.adds += 1;
        if !state.routes.insert((vni, route)) {
            state.faults.push(format!("added twice: {route}"));
        }
        self.state.1.notify_all();
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        let mut state = self.state.0.lock().unwrap();
        state.removes += 1;
        if !state.routes.remove(&(vni, route)) {
            state.faults.push(format!("removed though absent: {route}"));
        }
        self.state.1.notify_all();
    }
}

impl Recorder {
    /// Waits until the table holds exactly these routes.
    #[track_caller]
    pub(crate) fn wait_for(&self, expected: &[(Vni, Route)]) {
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        self.wait("the expected table", |routes| *routes == expected);
    }

    #[track_caller]
    pub(crate) fn wait_for_len(&self, len: usize) {
        self.wait(&format!("{len} routes"), |routes| routes.len() == len);
    }

    #[track_caller]
    fn wait(&self, what: &str, is_reached: impl Fn(&BTreeSet<(Vni, Route)>) -> bool) {
        let (lock, changed) = &*self.state;
        let state = lock.lock().unwrap();
        let waiting = |state: &mut Recorded| !is_reached(&state.routes);
        let (state, timeout) = changed
            .wait_timeout_while(state, PATIENCE, waiting)
            .unwrap();
        assert_eq!(state.faults, Vec::<String>::new());
        let has = state.routes.len();
        assert!(
            !timeout.timed_out(),
            "not reached: {what}; has {has} routes"
        );
    }

    pub(crate) fn routes(&self) -> BTreeSet<(Vni, Route)> {
        self.state.0.lock().unwrap().routes.clone()
    }

    /// How often routes were added and removed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.0.lock().unwrap();
        assert_eq!(state.faults, Vec::<String>::new());
        (state.adds, state.removes)
    }
}

pub(crate) fn v4(number: u32) -> Destination {
    Destination::from_ipv4(Ipv4Addr::from(0x0a00_0000 + number), 32)
}

pub(crate) fn hop(number: u16) -> NextHop {
    NextHop::standard(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number))
}

/// A connection that speaks bytes.
pub(crate) struct Raw {
    /// A Unix socket behaves as one of TCP here.
    pub(crate) stream: TcpStream,
    /// What a server calls the session.
    pub(crate) name: String,
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = stream.local_addr().unwrap().to_string();
        Self { stream, name }
    }
}

/// HELLO with a keepalive interval of 5 s and no extensions.
pub(crate) const HELLO: [u8; 6] = [1, 0, 2, 1, 8, 5];
pub(crate) const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::from(stream)
    }

    /// Connects to a Unix socket, as the connection with this number.
    pub(crate) fn connect_path(path: &Path, number: u32) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        Self {
            stream: OwnedFd::from(stream).into(),
            name: format!("unix:{uid}#{number}"),
        }
    }

    /// The next connection of a listener.
    pub(crate) fn accept(listener: &std::net::TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        Self::from(stream)
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent(&self) -> bool {
        let moment = Some(Duration::from_millis(100));
        self.stream.set_read_timeout(moment).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        peeked.is_err()
    }

    /// Connected, and through the handshake.
    pub(crate) fn established(address: SocketAddr) -> Self {
        Self::established_by(address, &HELLO)
    }

    /// Connected, and through the handshake, with a HELLO of the caller's.
    pub(crate) fn established_by(address: SocketAddr, hello: &[u8]) -> Self {
        let mut raw = Self::connect(address);
        raw.establish(hello);
        raw
    }

    /// Goes through the handshake.
    pub(crate) fn establish(&mut self, hello: &[u8]) {
        self.send(hello);
        assert_eq!(self.frame()[3], 1);
        self.send(&KEEPALIVE);
        assert_eq!(self.frame(), KEEPALIVE);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next whole frame.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        self.try_frame().expect("a frame")
    }

    /// The next whole frame, or `None` at the end of the connection.
    pub(crate) fn try_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 4];
        self.stream.read_exact(&mut frame).ok()?;
        let len = usize::from(u16::from_be_bytes([frame[1], frame[2]]));
        frame.resize(4 + len, 0);
        self.stream.read_exact(&mut frame[4..]).ok()?;
        Some(frame)
    }

    /// Whether the server closes the connection, whatever it says before.
    pub(crate) fn closed_by_server(mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.try_frame().is_none() {
                return true;
            }
        }
        false
    }

    /// Sends a KEEPALIVE and reads up to its answer; the frames before it.
    pub(crate) fn barrier(&mut self) -> Vec<Vec<u8>> {
        self.send(&KEEPALIVE);
        let frames = std::iter::from_fn(|| Some(self.frame()));
        frames.take_while(|frame| frame[..] != KEEPALIVE).collect()
    }
}

/// A SUBSCRIBE of a VNI below 128.
pub(crate) fn subscribe(vni: u8) -> [u8; 6] {
    [1, 0, 2, 3, 8, vni]
}

/// An UPDATE of `10.0.0.0/32 + number` in a VNI below 128, via `2001:db8::hop`.
pub(crate) fn update(action: u8, vni: u8, number: u32, hop: u8) -> Vec<u8> {
    let mut payload = if action == 0 { vec![] } else { vec![8, action] };
    payload.extend([0x10, vni, 0x1a, 8, 0x12, 4]);
    payload.extend((0x0a00_0000 + number).to_be_bytes());
    payload.extend([0x18, 32, 0x22, 18, 0x0a, 16]);
    payload.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hop]);
    let mut frame = vec![1, 0, u8::try_from(payload.len()).unwrap(), 5];
    frame.extend(payload);
    frame
}
