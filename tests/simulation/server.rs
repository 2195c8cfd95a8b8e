//! Servers: a turn does what a turn of a worker does.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rustbond::internals::sim::{
    CHUNK, ServerReport, ServerSetup, SimReady, SimServer, SimTurn, WRITE_BUDGET,
};
use rustbond::{Action, Route, Vni};

use super::script::{End, SERVERS};
use super::wire::Side;
use super::world::{Happening, World};

/// A pace is halved so many times at most.
const HALVINGS_MAX: u8 = 3;

/// Weight that a turn of everybody adds to a mailbox after it was seen to have room.
const MAIL_SLACK: usize = 16 * 1024;

/// The thread of a shard.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) is_paused: bool,
    /// What the poll would tell.
    pub(crate) accepted: Vec<u32>,
    pub(crate) readable: Vec<u32>,
    pub(crate) writable: Vec<u32>,
    turn: SimTurn,
    /// Announcements and withdrawals of the process itself, in its tables.
    own: VecDeque<(Action, Vni, Route)>,
    /// Waits for another's mailbox.
    is_held_up: bool,
}

/// A server and its host.
pub(crate) struct Server {
    setup: ServerSetup,
    /// None while the process does not run.
    pub(crate) core: Option<SimServer>,
    pub(crate) workers: Vec<Worker>,
    /// When the process was started, if that was after the world began.
    pub(crate) started: Option<Instant>,
    /// The host is gone with it, and refuses nobody.
    pub(crate) is_silent: bool,
    /// Of clients that fell behind a table.
    halvings: BTreeMap<usize, u8>,
}

impl Server {
    pub(crate) fn new(setup: ServerSetup, now: Instant) -> Self {
        Self {
            setup,
            core: Some(SimServer::new(setup, now)),
            workers: (0..setup.shards).map(|_| Worker::default()).collect(),
            started: None,
            is_silent: false,
            halvings: BTreeMap::new(),
        }
    }
}

impl World {
    pub(crate) fn stop_server(&mut self, server: usize, end: End) {
        let it = &mut self.servers[server];
        if it.core.take().is_none() {
            return;
        }
        it.is_silent = end == End::Silent;
        it.halvings.clear();
        it.workers = (0..it.setup.shards).map(|_| Worker::default()).collect();
        let of_server = |(id, conn): (&u32, &super::wire::Conn)| {
            (conn.server == server && conn.server_has).then_some(*id)
        };
        let conns: Vec<u32> = self.conns.iter().filter_map(of_server).collect();
        for conn in conns {
            self.close(conn, Side::Server, end);
        }
    }

    pub(crate) fn start_server(&mut self, server: usize) {
        let now = self.now;
        let it = &mut self.servers[server];
        if it.core.is_some() {
            return;
        }
        it.core = Some(SimServer::new(it.setup, now));
        it.started = Some(now);
        it.is_silent = false;
        for of_client in &mut self.sessions {
            of_client[server].clear();
        }
        self.reset_dead(|conn| conn.server == server);
        for (vni, route) in self.configured.clone() {
            self.announce_own(server, (Action::Add, vni, route));
        }
    }

    /// Has all servers announce a route themselves, or not any more.
    pub(crate) fn configure(&mut self, vni: Vni, route: Route, is_announced: bool) {
        let (is_news, action) = match is_announced {
            true => (self.configured.insert((vni, route)), Action::Add),
            false => (self.configured.remove(&(vni, route)), Action::Remove),
        };
        for server in (0..SERVERS).filter(|_| is_news) {
            self.announce_own(server, (action, vni, route));
        }
    }

    /// Has the shard that is concerned do so in its next turn, if the server runs.
    fn announce_own(&mut self, server: usize, own: (Action, Vni, Route)) {
        let Some(core) = &self.servers[server].core else {
            return;
        };
        let shard = core.owner(own.1);
        self.worker(server, shard).own.push_back(own);
        self.wake_soon(Happening::Shard(server, shard));
    }

    pub(crate) fn wake_server(&mut self, server: usize) {
        for shard in 0..self.servers[server].workers.len() {
            self.wake_soon(Happening::Shard(server, shard));
        }
    }

    pub(crate) fn shard_turn(&mut self, server: usize, shard: usize) {
        let now = self.now;
        let it = &self.servers[server];
        if it.core.is_none() || it.workers[shard].is_paused {
            return;
        }
        self.note_ready(server, shard);
        self.core(server).read_mail(shard, now);
        while let Some((action, vni, route)) = self.worker(server, shard).own.pop_front() {
            let is_news = self.core(server).update_own(action, vni, route, now);
            assert!(
                is_news,
                "{action:?} of {route} in VNI {vni} changes nothing"
            );
        }
        for (id, worker) in self.servers[server].workers.iter_mut().enumerate() {
            if std::mem::take(&mut worker.is_held_up) {
                self.woken.push(Happening::Shard(server, id));
            }
        }
        self.read_sockets(server, shard);
        self.core(server).handle_timeouts(shard, now);
        self.answer_queue_queries(server, shard);
        self.core(server).turn(shard, now);
        self.post(server, shard);
        self.write_sockets(server, shard);
        self.report(server, shard);
        for woken in std::mem::take(&mut self.woken) {
            self.wake_soon(woken);
        }
        let it = &self.servers[server];
        let (Some(core), worker) = (&it.core, &it.workers[shard]) else {
            return;
        };
        let reads = worker.turn.has_readers() && !worker.is_held_up;
        let is_busy = reads || worker.turn.has_writers() || core.has_work(shard);
        let due = core.poll_timeout(shard);
        if is_busy {
            self.wake_soon(Happening::Shard(server, shard));
        }
        if let Some(due) = due {
            self.wake(Happening::Shard(server, shard), due.max(now));
        }
    }

    fn core(&mut self, server: usize) -> &mut SimServer {
        let core = self.servers[server].core.as_mut();
        core.expect("a turn is of a server that runs")
    }

    fn worker(&mut self, server: usize, shard: usize) -> &mut Worker {
        &mut self.servers[server].workers[shard]
    }

    /// New connections, and what became readable and writable.
    fn note_ready(&mut self, server: usize, shard: usize) {
        let now = self.now;
        for id in std::mem::take(&mut self.worker(server, shard).accepted) {
            let client = self.conns[&id].client;
            let it = &mut self.servers[server];
            let halvings = it.halvings.get(&client).copied().unwrap_or(0);
            let core = it.core.as_mut().expect("a turn is of a server that runs");
            assert!(core.open(id, halvings, now));
            self.sessions[client][server].push(id);
            let worker = self.worker(server, shard);
            worker.turn.insert(id);
            worker.readable.push(id);
            worker.writable.push(id);
        }
        let worker = self.worker(server, shard);
        for id in std::mem::take(&mut worker.readable) {
            worker.turn.note_readable(id);
        }
        for id in std::mem::take(&mut worker.writable) {
            let is_chunk = self.core(server).is_chunked(id);
            self.worker(server, shard).turn.note_writable(id, is_chunk);
        }
    }

    fn is_held_up(&mut self, server: usize, shard: usize) -> bool {
        let (high, shards) = (self.setup.mailbox, self.setup.servers[server].shards);
        let core = self.core(server);
        let mut others = (0..shards).filter(|it| *it != shard);
        others.any(|it| core.mail_weight(it) >= high)
    }

    fn read_sockets(&mut self, server: usize, shard: usize) {
        let mut turn = std::mem::take(&mut self.worker(server, shard).turn);
        turn.begin_reads();
        while turn.has_reads_left() {
            if self.is_held_up(server, shard) {
                self.worker(server, shard).is_held_up = true;
                break;
            }
            turn.read_next(|id, ready| self.read_socket(server, id, ready));
            self.post(server, shard);
        }
        self.worker(server, shard).turn = turn;
    }

    fn read_socket(&mut self, server: usize, id: u32, ready: &mut SimReady) -> usize {
        let (now, cut) = (self.now, self.cut());
        let read = self.read(id, Side::Server, cut);
        let outcome = |it: &Vec<u8>| it.len();
        self.tell(|| format!("{id}: the server reads {:?}", read.as_ref().map(outcome)));
        ready.readable = self.is_readable(id, Side::Server);
        match read {
            Ok(bytes) => {
                self.core(server).receive(id, &bytes, now);
                bytes.len()
            }
            Err(reason) => {
                self.core(server).close(id, reason, now);
                0
            }
        }
    }

    fn post(&mut self, server: usize, shard: usize) {
        let most = self.setup.mailbox + MAIL_SLACK;
        for to in self.core(server).post(shard) {
            let weight = self.core(server).mail_weight(to);
            assert!(weight <= most, "a mailbox holds {weight} of {most}");
            self.woken.push(Happening::Shard(server, to));
        }
    }

    fn answer_queue_queries(&mut self, server: usize, shard: usize) {
        let now = self.now;
        for id in self.core(server).take_queue_queries(shard) {
            if let Some((is_empty, window)) = self.send_queue(id, Side::Server) {
                self.core(server).report_queue(id, is_empty, window, now);
            }
        }
    }

    fn write_sockets(&mut self, server: usize, shard: usize) {
        let mut turn = std::mem::take(&mut self.worker(server, shard).turn);
        for id in self.core(server).take_ready(shard) {
            turn.wants_write(id, self.core(server).is_chunked(id));
        }
        turn.begin_writes();
        while turn.write_next(|id, ready| self.write_socket(server, id, ready)) {}
        self.worker(server, shard).turn = turn;
    }

    /// Writes once: how many bytes went, and what kind the rest is that can go now.
    fn write_socket(
        &mut self,
        server: usize,
        id: u32,
        ready: &mut SimReady,
    ) -> (usize, Option<bool>) {
        let now = self.now;
        let (bytes, is_chunk) = self.core(server).outgoing(id, WRITE_BUDGET, now);
        if bytes.is_empty() {
            return (0, None);
        }
        assert!(!is_chunk || bytes.len() <= CHUNK, "a chunk is too long");
        match self.write(id, Side::Server, &bytes, is_chunk) {
            Ok(count) => {
                ready.writable = !self.is_full(id, Side::Server);
                let core = self.core(server);
                core.advance(id, count, now);
                let rest = core.is_sendable(id).then(|| core.is_chunked(id));
                (count, rest)
            }
            Err(reason) => {
                self.core(server).close(id, reason, now);
                (0, None)
            }
        }
    }

    fn report(&mut self, server: usize, shard: usize) {
        while let Some(report) = self.core(server).poll_report(shard) {
            self.tell(|| format!("server {server}: {report:?}"));
            match report {
                ServerReport::Closed(id, _) => {
                    self.worker(server, shard).turn.remove(id);
                    self.close(id, Side::Server, End::Fin);
                }
                ServerReport::LegacyDrop(id) => {
                    if let Some(client) = self.conns.get(&id).map(|it| it.client) {
                        let halvings = self.servers[server].halvings.entry(client).or_default();
                        *halvings = (*halvings + 1).min(HALVINGS_MAX);
                    }
                }
                ServerReport::Established(_) => {}
                ServerReport::Malformed(_) | ServerReport::Refused(_) => {
                    panic!("a client of ours is told {report:?}")
                }
            }
        }
    }

    /// Whether a thread pauses for a moment.
    pub(crate) fn pause(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(1..60))
    }
}
