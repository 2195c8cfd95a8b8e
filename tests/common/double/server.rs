//! Go MetalBond's server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire::{BALANCER, Message, Path, STANDARD};
use super::{Faults, Nothing, Reader, Reading};

/// A server that runs until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    pub(crate) faults: Faults,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    faults: Faults,
    interval: u32,
    reading: Reading,
}

#[derive(Default)]
struct State {
    is_stopping: bool,
    next: usize,
    peers: BTreeMap<usize, Peer>,
    /// Who announces what.
    table: BTreeMap<(u32, Path), BTreeSet<usize>>,
    /// The server's own announcements.
    own: BTreeSet<(u32, Path)>,
    random: fastrand::Rng,
}

struct Peer {
    stream: TcpStream,
    phase: Phase,
    interval: u32,
    deadline: Instant,
    subscribed: BTreeSet<u32>,
    keepalives: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connected,
    HelloSent,
    Established,
}

/// The connection is to be closed.
struct Reset;

impl Server {
    /// A server that asks for KEEPALIVEs every `interval` seconds and announces `own`.
    pub(crate) fn start(interval: u32, reading: Reading, own: &[(u32, Path)]) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), interval, reading, own)
    }

    pub(crate) fn start_on(
        address: SocketAddr,
        interval: u32,
        reading: Reading,
        own: &[(u32, Path)],
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let faults = Faults::default();
        let state = State {
            own: own.iter().cloned().collect(),
            random: fastrand::Rng::with_seed(23),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            faults: faults.clone(),
            interval,
            reading,
        });
        let address = listener.local_addr().unwrap();
        let acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &acceptor));
        Self {
            address,
            shared,
            faults,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection; the clients may come back.
    pub(crate) fn kick(&self) {
        let mut state = self.shared.lock();
        let ids: Vec<usize> = state.peers.keys().copied().collect();
        for id in ids {
            self.shared.drop_peer(&mut state, id);
        }
    }

    /// Waits until what is announced by clients satisfies the test; how often each is.
    #[track_caller]
    pub(crate) fn wait_for_table(
        &self,
        is_reached: impl Fn(&BTreeMap<(u32, Path), usize>) -> bool,
    ) {
        self.wait("table", |state| {
            let count = |(key, by): (&(u32, Path), &BTreeSet<usize>)| (key.clone(), by.len());
            is_reached(&state.table.iter().map(count).collect())
        });
    }

    /// Waits until clients announce that many different routes.
    #[track_caller]
    pub(crate) fn wait_for_len(&self, len: usize) {
        self.wait("table of that length", |state| state.table.len() == len);
    }

    /// Waits until exactly these VNIs are subscribed to, each by one client.
    #[track_caller]
    pub(crate) fn wait_for_subscriptions(&self, expected: &[u32]) {
        self.wait("subscriptions", |state| {
            let all = state.peers.values().flat_map(|peer| &peer.subscribed);
            let mut all: Vec<u32> = all.copied().collect();
            all.sort_unstable();
            all == expected
        });
    }

    /// Waits until some client has sent that many KEEPALIVEs.
    #[track_caller]
    pub(crate) fn wait_for_keepalives(&self, count: usize) {
        self.wait("KEEPALIVEs", |state| {
            state.peers.values().any(|peer| peer.keepalives >= count)
        });
    }

    /// How many clients were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.lock().next
    }

    #[track_caller]
    fn wait(&self, what: &str, is_reached: impl Fn(&State) -> bool) {
        let state = (self.shared.lock(), &self.shared.changed);
        let patience = Duration::from_secs(30);
        let (state, in_time) = super::wait_while(state, patience, |state| !is_reached(state));
        drop(state);
        self.faults.check();
        assert!(in_time, "not reached: {what}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_stopping = true;
        for peer in state.peers.values() {
            drop(peer.stream.shutdown(Shutdown::Both));
        }
        drop(state);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut state = shared.lock();
        if state.is_stopping {
            return;
        }
        let id = state.next;
        state.next += 1;
        let reader = Reader::new(
            stream.try_clone().unwrap(),
            shared.reading,
            shared.faults.clone(),
        );
        let peer = Peer {
            stream,
            phase: Phase::Connected,
            interval: shared.interval,
            // Go keeps silent connections for ever; a test does not.
            deadline: Instant::now() + Duration::from_secs(60),
            subscribed: BTreeSet::new(),
            keepalives: 0,
        };
        state.peers.insert(id, peer);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || shared.serve(id, reader));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, id: usize, mut reader: Reader) {
        loop {
            let deadline = self.lock().peers.get(&id).map(|peer| peer.deadline);
            let Some(deadline) = deadline else { return };
            let messages = match reader.messages(deadline) {
                Ok(messages) => messages,
                Err(Nothing::Due) if Instant::now() < deadline => continue,
                Err(Nothing::Due | Nothing::Closed) => {
                    return self.drop_peer(&mut self.lock(), id);
                }
            };
            let mut state = self.lock();
            for message in out_of_order(messages, &mut state.random) {
                if self.handle(&mut state, id, message).is_err() {
                    return self.drop_peer(&mut state, id);
                }
            }
            self.changed.notify_all();
        }
    }

    fn handle(&self, state: &mut State, id: usize, message: Message) -> Result<(), Reset> {
        match message {
            Message::Hello {
                interval,
                is_server: _,
            } => self.hello(state, id, interval),
            Message::Keepalive => self.keepalive(state, id),
            Message::Subscribe(vni) => self.subscribe(state, id, vni),
            Message::Unsubscribe(vni) => {
                state.peer(id)?.subscribed.remove(&vni);
                // By mistake or not: it takes the peer's own routes along.
                withdraw_all(state, id, |(of, _)| *of == vni);
                Ok(())
            }
            Message::Update { is_add, vni, path } => {
                let key = (vni, path);
                if is_add {
                    announce(state, id, &key);
                } else {
                    withdraw(state, id, &key);
                }
                Ok(())
            }
            Message::Unknown(_) => Err(Reset),
        }
    }

    fn hello(&self, state: &mut State, id: usize, interval: u32) -> Result<(), Reset> {
        if interval == 0 {
            self.faults.record("HELLO with interval 0: panic");
            return Err(Reset);
        }
        if state.peer(id)?.phase != Phase::Connected {
            self.faults.record("a second HELLO");
            state.peer(id)?.subscribed.clear();
            withdraw_all(state, id, |_| true);
        }
        let peer = state.peer(id)?;
        peer.interval = peer.interval.min(interval);
        peer.phase = Phase::HelloSent;
        peer.rearm();
        let interval = peer.interval;
        peer.send(&Message::Hello {
            interval,
            is_server: true,
        })
    }

    fn keepalive(&self, state: &mut State, id: usize) -> Result<(), Reset> {
        let own: Vec<_> = state.own.iter().cloned().collect();
        let peer = state.peer(id)?;
        match peer.phase {
            Phase::Connected => {
                self.faults.record("KEEPALIVE before HELLO");
                return Err(Reset);
            }
            Phase::HelloSent => {
                peer.phase = Phase::Established;
                for (vni, path) in own {
                    let is_add = true;
                    peer.send(&Message::Update { is_add, vni, path })?;
                }
            }
            Phase::Established => {}
        }
        peer.keepalives += 1;
        peer.rearm();
        peer.send(&Message::Keepalive)
    }

    fn subscribe(&self, state: &mut State, id: usize, vni: u32) -> Result<(), Reset> {
        if !state.peer(id)?.subscribed.insert(vni) {
            self.faults
                .record(format!("a second SUBSCRIBE of {vni}: it stands still"));
            return Err(Reset);
        }
        let mut table = Vec::new();
        for ((of, path), announcers) in &state.table {
            let is_echoed = matches!(path.kind, STANDARD | BALANCER);
            for announcer in announcers {
                if *of == vni && (*announcer != id || is_echoed) {
                    table.push(path.clone());
                }
            }
        }
        state.random.shuffle(&mut table);
        let peer = state.peer(id)?;
        for path in table {
            let is_add = true;
            peer.send(&Message::Update { is_add, vni, path })?;
        }
        Ok(())
    }

    fn drop_peer(&self, state: &mut State, id: usize) {
        withdraw_all(state, id, |_| true);
        if let Some(peer) = state.peers.remove(&id) {
            drop(peer.stream.shutdown(Shutdown::Both));
        }
        self.changed.notify_all();
    }
}

/// Each type of message takes a channel of its own, and they are picked at random.
fn out_of_order(messages: Vec<Message>, random: &mut fastrand::Rng) -> Vec<Message> {
    let mut channels: BTreeMap<u8, Vec<Message>> = BTreeMap::new();
    for message in messages.into_iter().rev() {
        channels.entry(message.number()).or_default().push(message);
    }
    let mut picked = channels.remove(&1).unwrap_or_default();
    while !channels.is_empty() {
        let numbers: Vec<u8> = channels.keys().copied().collect();
        let number = numbers[random.usize(..numbers.len())];
        let channel = channels.get_mut(&number).unwrap();
        picked.extend(channel.pop());
        if channel.is_empty() {
            channels.remove(&number);
        }
    }
    picked
}

/// Those who announce it already announce nothing: logged, no more.
fn announce(state: &mut State, id: usize, key: &(u32, Path)) {
    if state.table.entry(key.clone()).or_default().insert(id) {
        state.tell_others(id, true, key);
    }
}

fn withdraw_all(state: &mut State, id: usize, which: impl Fn(&(u32, Path)) -> bool) {
    let keys: Vec<_> = state.table.keys().filter(|it| which(it)).cloned().collect();
    for key in keys {
        withdraw(state, id, &key);
    }
}

/// Those who do not announce it withdraw nothing: logged, no more.
fn withdraw(state: &mut State, id: usize, key: &(u32, Path)) {
    let Some(announcers) = state.table.get_mut(key) else {
        return;
    };
    if announcers.remove(&id) && announcers.is_empty() {
        state.table.remove(key);
        state.tell_others(id, false, key);
    }
}

impl State {
    fn peer(&mut self, id: usize) -> Result<&mut Peer, Reset> {
        self.peers.get_mut(&id).ok_or(Reset)
    }

    fn tell_others(&mut self, id: usize, is_add: bool, (vni, path): &(u32, Path)) {
        let (vni, path) = (*vni, path.clone());
        let update = Message::Update { is_add, vni, path };
        for (_, peer) in self.peers.iter_mut().filter(|(it, _)| **it != id) {
            if peer.subscribed.contains(&vni) && peer.send(&update).is_err() {
                drop(peer.stream.shutdown(Shutdown::Both));
            }
        }
    }
}

impl Peer {
    fn send(&mut self, message: &Message) -> Result<(), Reset> {
        self.stream.write_all(&message.encode()).map_err(|_| Reset)
    }

    fn rearm(&mut self) {
        self.deadline = Instant::now() + Duration::from_secs(self.interval.into()) * 5 / 2;
    }
}
