//! Go MetalBond's client.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::wire::{Message, Path};
use super::{Faults, Nothing, Reader, Reading};

/// A client of one server, connected until it is dropped; it does not come back.
pub(crate) struct Client {
    stream: TcpStream,
    shared: Arc<Shared>,
    pub(crate) faults: Faults,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    faults: Faults,
}

#[derive(Default)]
struct State {
    /// Seconds, of the server's HELLO.
    interval: Option<u32>,
    is_established: bool,
    is_closed: bool,
    replies: usize,
    subscribed: BTreeSet<u32>,
    table: BTreeSet<(u32, Path)>,
    adds: usize,
}

impl Client {
    /// A client through the handshake.
    pub(crate) fn connect(address: SocketAddr, interval: u32, reading: Reading) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        if matches!(reading, Reading::Stalled { .. }) {
            // A window that is wide enough for an overrun.
            let socket = socket2::SockRef::from(&stream);
            socket.set_recv_buffer_size(1 << 20).unwrap();
        }
        let faults = Faults::default();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            faults: faults.clone(),
        });
        let reader = Reader::new(stream.try_clone().unwrap(), reading, faults.clone());
        let client = Self {
            stream,
            shared: Arc::clone(&shared),
            faults,
        };
        let writer = client.stream.try_clone().unwrap();
        let is_server = false;
        client.send(&Message::Hello {
            interval,
            is_server,
        });
        std::thread::spawn(move || shared.run(reader, writer, interval));
        client.wait("established", |state| state.is_established);
        client
    }

    fn send(&self, message: &Message) {
        (&self.stream).write_all(&message.encode()).unwrap();
    }

    pub(crate) fn subscribe(&self, vni: u32) {
        self.shared.lock().subscribed.insert(vni);
        self.send(&Message::Subscribe(vni));
    }

    /// What was received of the VNI is forgotten.
    pub(crate) fn unsubscribe(&self, vni: u32) {
        let mut state = self.shared.lock();
        state.subscribed.remove(&vni);
        state.table.retain(|(of, _)| *of != vni);
        drop(state);
        self.send(&Message::Unsubscribe(vni));
    }

    pub(crate) fn announce(&self, vni: u32, path: &Path) {
        let (is_add, path) = (true, path.clone());
        self.send(&Message::Update { is_add, vni, path });
    }

    pub(crate) fn withdraw(&self, vni: u32, path: &Path) {
        let (is_add, path) = (false, path.clone());
        self.send(&Message::Update { is_add, vni, path });
    }

    /// Sends bytes that no client would.
    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    /// Waits until exactly this is received.
    #[track_caller]
    pub(crate) fn wait_for(&self, expected: &[(u32, Path)]) {
        let expected: BTreeSet<_> = expected.iter().cloned().collect();
        self.wait(&format!("{expected:?}"), |state| state.table == expected);
    }

    #[track_caller]
    pub(crate) fn wait_for_len(&self, len: usize) {
        self.wait("a table of that length", |state| state.table.len() == len);
    }

    /// Waits until a table of that length is received, or the connection is over. Returns which.
    #[track_caller]
    pub(crate) fn takes(&self, len: usize) -> bool {
        let state = (self.shared.lock(), &self.shared.changed);
        let patience = Duration::from_secs(60);
        let (state, in_time) = super::wait_while(state, patience, |state| {
            state.table.len() < len && !state.is_closed
        });
        let has = state.table.len();
        assert!(in_time, "neither {len} routes nor the end; has {has}");
        has == len
    }

    /// Waits until the server has read all that was sent: it answers one KEEPALIVE more.
    #[track_caller]
    pub(crate) fn barrier(&self) {
        let expected = self.shared.lock().replies + 2;
        // One may have been on its way.
        self.send(&Message::Keepalive);
        self.send(&Message::Keepalive);
        self.wait("KEEPALIVE replies", |state| state.replies >= expected);
    }

    /// Waits until that many KEEPALIVEs were answered.
    #[track_caller]
    pub(crate) fn wait_for_replies(&self, count: usize) {
        self.wait("KEEPALIVE replies", |state| state.replies >= count);
    }

    /// Waits until the server closes the connection.
    #[track_caller]
    pub(crate) fn wait_for_end(&self) {
        self.wait("the end", |state| state.is_closed);
    }

    /// Seconds between KEEPALIVEs, as the server answered.
    pub(crate) fn interval(&self) -> Option<u32> {
        self.shared.lock().interval
    }

    /// How many ADDs came.
    pub(crate) fn adds(&self) -> usize {
        self.shared.lock().adds
    }

    #[track_caller]
    fn wait(&self, what: &str, is_reached: impl Fn(&State) -> bool) {
        let state = (self.shared.lock(), &self.shared.changed);
        let patience = Duration::from_secs(30);
        let (state, in_time) = super::wait_while(state, patience, |state| !is_reached(state));
        let has = state.table.len();
        drop(state);
        self.faults.check();
        assert!(in_time, "not reached: {what}; has {has} routes");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn run(&self, mut reader: Reader, mut writer: TcpStream, interval: u32) {
        let timeout = |interval: u32| Duration::from_secs(interval.into()) * 5 / 2;
        let mut deadline = Instant::now() + timeout(interval);
        let mut keepalive = None;
        loop {
            let until = keepalive.map_or(deadline, |it: Instant| it.min(deadline));
            let messages = match reader.messages(until) {
                Ok(messages) => messages,
                Err(Nothing::Due) if Instant::now() < deadline => Vec::new(),
                Err(Nothing::Due | Nothing::Closed) => break,
            };
            let mut state = self.lock();
            for message in messages {
                match message {
                    Message::Hello {
                        interval,
                        is_server,
                    } => {
                        if !is_server || state.interval.is_some() {
                            self.faults.record("a HELLO that no server sends");
                        }
                        state.interval = Some(interval);
                        keepalive = Some(Instant::now());
                    }
                    Message::Keepalive => {
                        state.replies += 1;
                        state.is_established = true;
                        deadline = Instant::now() + timeout(state.interval.unwrap_or(interval));
                    }
                    other => self.receive(&mut state, other),
                }
            }
            if keepalive.is_some_and(|it| it <= Instant::now()) {
                let every = Duration::from_secs(state.interval.unwrap_or(interval).into());
                keepalive = Some(Instant::now() + every);
                if writer.write_all(&Message::Keepalive.encode()).is_err() {
                    break;
                }
            }
            self.changed.notify_all();
        }
        drop(writer.shutdown(Shutdown::Both));
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn receive(&self, state: &mut State, message: Message) {
        let Message::Update { is_add, vni, path } = message else {
            self.faults.record(format!("{message:?} to a client"));
            return;
        };
        if !state.subscribed.contains(&vni) {
            // Sent before the server read the UNSUBSCRIBE.
            return;
        }
        let is_news = if is_add {
            state.adds += 1;
            state.table.insert((vni, path.clone()))
        } else {
            state.table.remove(&(vni, path.clone()))
        };
        if !is_news {
            let what = if is_add {
                "added twice"
            } else {
                "removed though absent"
            };
            self.faults.record(format!("{what}: {vni} {path:?}"));
        }
    }
}
