//! The world: one clock, one queue of what happens next, and the network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustbond::{CloseReason, Route, Vni};

use super::client::{Call, Client, Dialled};
use super::route::{bulk_route, configured_route, route};
use super::script::{End, SERVERS, Setup, Step, Way};
use super::server::Server;
use super::wire::{Conn, Side};

/// Who has a turn, or what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    Arrive(u32, Side),
    Shard(usize, usize),
    Client(usize),
    Consumer(usize),
    Kernel(usize),
    Dialled(usize, usize),
}

/// How often a connection attempt is repeated while nothing comes back.
const SYN_RETRY: Duration = Duration::from_secs(1);

/// How long until a host that came back answers bytes of a connection it does not know.
const RESET_DELAY: Duration = Duration::from_millis(700);

/// How many things may happen without any time passing.
const AT_ONCE_MAX: usize = 2_000_000;

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) random: fastrand::Rng,
    /// Says when clients are judged as a whole; another one than `random`, for the same story.
    pub(crate) auditor: fastrand::Rng,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    /// What the servers announce themselves.
    pub(crate) configured: BTreeSet<(Vni, Route)>,
    pub(crate) conns: BTreeMap<u32, Conn>,
    /// All connections of a client that a server accepted.
    pub(crate) sessions: Vec<[Vec<u32>; SERVERS]>,
    /// To be woken when a turn is over.
    pub(crate) woken: Vec<Happening>,
    /// What each direction of the links does not carry: to the server, to the client.
    blocked: Vec<[[bool; 2]; SERVERS]>,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    due: BTreeMap<Happening, Instant>,
    sequence: u64,
    next_conn: u32,
    /// Stands for all bytes that clients received, and when.
    pub(crate) trace: u64,
    /// How much happened.
    pub(crate) turns: u64,
    /// Prints what happens.
    is_traced: bool,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let is_modern = setup.servers.map(|it| it.is_modern);
        let clients = setup.clients.iter();
        let clients = clients.map(|plan| Client::new(*plan, is_modern, now));
        let clients: Vec<Client> = clients.collect();
        let mut world = Self {
            start: now,
            now,
            random: fastrand::Rng::with_seed(setup.seed),
            auditor: fastrand::Rng::with_seed(!setup.seed),
            servers: setup.servers.map(|it| Server::new(it, now)).into(),
            sessions: clients.iter().map(|_| [Vec::new(), Vec::new()]).collect(),
            blocked: clients.iter().map(|_| [[false; 2]; SERVERS]).collect(),
            clients,
            configured: BTreeSet::new(),
            conns: BTreeMap::new(),
            woken: Vec::new(),
            queue: BinaryHeap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            next_conn: 0,
            trace: 0,
            turns: 0,
            is_traced: std::env::var_os("RUSTBOND_SIM_TRACE").is_some(),
            setup,
        };
        for client in 0..world.clients.len() {
            world.wake_soon(Happening::Client(client));
        }
        world
    }

    /// Says what happens, to who wants to know.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            eprintln!("{:>16?} {}", self.elapsed(), what());
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn wake(&mut self, happening: Happening, at: Instant) {
        if self.due.get(&happening).is_some_and(|due| *due <= at) {
            return;
        }
        self.due.insert(happening, at);
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, happening)));
    }

    pub(crate) fn wake_soon(&mut self, happening: Happening) {
        let pause = self.pause();
        self.wake(happening, self.now + pause);
    }

    pub(crate) fn is_scheduled(&self, happening: Happening) -> bool {
        self.due.contains_key(&happening)
    }

    /// Lets time pass, with everything done when it is due.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut at_once = 0;
        while let Some(&Reverse((at, _, happening))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            if self.due.get(&happening) != Some(&at) {
                continue;
            }
            self.due.remove(&happening);
            at_once += 1;
            if at > self.now + Duration::from_millis(1) {
                at_once = 0;
            }
            assert!(at_once < AT_ONCE_MAX, "{happening:?} is due for ever");
            self.now = self.now.max(at);
            self.turns += 1;
            self.happen(happening);
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(conn, side) => self.arrive(conn, side),
            Happening::Shard(server, shard) => self.shard_turn(server, shard),
            Happening::Client(client) => self.client_turn(client),
            Happening::Consumer(client) => self.consume(client),
            Happening::Kernel(client) => self.kernel_turn(client),
            Happening::Dialled(client, server) => self.dialled(client, server),
        }
    }

    /// How long something takes one way.
    pub(crate) fn delay(&mut self) -> Duration {
        let [least, most] = self.setup.latency.map(|it| it.as_nanos() as u64);
        Duration::from_nanos(self.random.u64(least..=most))
    }

    /// Most bytes of the next read.
    pub(crate) fn cut(&mut self) -> usize {
        match self.random.u8(..8) {
            0 => self.random.usize(1..20),
            1..4 => self.random.usize(1..=self.setup.cut),
            _ => self.setup.cut,
        }
    }

    pub(crate) fn note_trace(&mut self, who: u64, bytes: &[u8]) {
        let at = self.elapsed().as_nanos() as u64;
        for part in [who, at, bytes.len() as u64] {
            self.trace = (self.trace ^ part)
                .wrapping_mul(0x100_0000_01b3)
                .rotate_left(17);
        }
    }

    /// An attempt of a client's reaches a server, or does not.
    fn dialled(&mut self, client: usize, server: usize) {
        let is_wanted = |it: &Client| {
            it.core
                .as_ref()
                .is_some_and(|core| core.is_dialling(server))
        };
        if !is_wanted(&self.clients[client]) || self.clients[client].dialled[server].is_some() {
            return;
        }
        let is_blocked = self.blocked[client][server].contains(&true);
        let it = &self.servers[server];
        if is_blocked || it.is_silent {
            self.wake(Happening::Dialled(client, server), self.now + SYN_RETRY);
            return;
        }
        if it.core.is_none() {
            self.clients[client].dialled[server] = Some(Dialled::Refused);
        } else {
            let id = self.next_conn;
            self.next_conn += 1;
            // The pace depends on what the kernel tells of its window: it has a real one.
            let setup = &self.setup;
            let is_legacy =
                !setup.servers[server].is_modern || !self.clients[client].plan.setup.is_modern;
            let room = if is_legacy {
                setup.room.max(65_536)
            } else {
                setup.room
            };
            let started = it.started.unwrap_or(self.start);
            let conn = Conn::new(client, server, room, started);
            self.conns.insert(id, conn);
            self.clients[client].dialled[server] = Some(Dialled::Connected(id));
            let it = &mut self.servers[server];
            let core = it.core.as_ref().expect("it runs");
            let shard = core.home(id);
            it.workers[shard].accepted.push(id);
            self.wake_soon(Happening::Shard(server, shard));
        }
        self.wake_soon(Happening::Client(client));
    }

    fn reader(&self, conn: &Conn, id: u32, side: Side) -> Option<Happening> {
        match side {
            Side::Client => Some(Happening::Client(conn.client)),
            Side::Server => {
                let core = self.servers[conn.server].core.as_ref()?;
                Some(Happening::Shard(conn.server, core.home(id)))
            }
        }
    }

    fn arrive(&mut self, id: u32, side: Side) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let way = usize::from(side == Side::Client);
        if conn.is_dead || self.blocked[conn.client][conn.server][way] || !*conn.has(side) {
            return;
        }
        let is_news = conn.into(side).arrive(now);
        let next = conn.into(side).next_arrival();
        let conn = &self.conns[&id];
        let reader = self.reader(conn, id, side);
        if let Some(next) = next {
            self.wake(Happening::Arrive(id, side), next.max(now));
        }
        let (true, Some(reader)) = (is_news, reader) else {
            return;
        };
        if let Happening::Shard(server, shard) = reader {
            let worker = &mut self.servers[server].workers[shard];
            worker.readable.push(id);
            // An error tells the writer too.
            worker.writable.push(id);
        }
        self.wake_soon(reader);
    }

    pub(crate) fn is_full(&mut self, id: u32, side: Side) -> bool {
        let conn = self.conns.get_mut(&id);
        conn.is_some_and(|it| it.into(side).ended.is_none() && it.from(side).is_full)
    }

    pub(crate) fn is_readable(&mut self, id: u32, side: Side) -> bool {
        let conn = self.conns.get_mut(&id);
        conn.is_some_and(|it| it.into(side).is_readable())
    }

    /// Whether all is acknowledged, and the peer's window.
    pub(crate) fn send_queue(&mut self, id: u32, side: Side) -> Option<(bool, Option<u32>)> {
        let pipe = self.conns.get_mut(&id)?.from(side);
        let window = u32::try_from(pipe.space()).ok();
        Some((pipe.is_acknowledged(), window))
    }

    pub(crate) fn read(
        &mut self,
        id: u32,
        side: Side,
        limit: usize,
    ) -> Result<Vec<u8>, CloseReason> {
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(CloseReason::PeerClosed);
        };
        let pipe = conn.into(side);
        let bytes = pipe.read(limit);
        if bytes.is_empty() {
            return match pipe.ended {
                None => Ok(bytes),
                Some(End::Fin) => Err(CloseReason::PeerClosed),
                Some(_) => Err(CloseReason::Io(ErrorKind::ConnectionReset)),
            };
        }
        if std::mem::take(&mut pipe.is_full) {
            let conn = &self.conns[&id];
            if let Some(writer) = self.reader(conn, id, side.other()) {
                if let Happening::Shard(server, shard) = writer {
                    self.servers[server].workers[shard].writable.push(id);
                }
                let delay = self.delay();
                self.wake(writer, self.now + delay);
            }
        }
        Ok(bytes)
    }

    pub(crate) fn write(
        &mut self,
        id: u32,
        side: Side,
        bytes: &[u8],
        is_chunk: bool,
    ) -> Result<usize, CloseReason> {
        let arrival = self.now + self.delay();
        let is_cut = self.random.u8(..10) == 0;
        let Some(conn) = self.conns.get_mut(&id) else {
            return Err(CloseReason::Io(ErrorKind::BrokenPipe));
        };
        if conn.into(side).ended.is_some_and(|it| it != End::Fin) {
            return Err(CloseReason::Io(ErrorKind::BrokenPipe));
        }
        if !*conn.has(side.other()) && !conn.is_dead {
            // What nobody has a socket for is answered with a reset.
            let at = conn.into(side).finish(End::Reset, arrival, 0);
            self.wake(Happening::Arrive(id, side), at);
            return Ok(bytes.len());
        }
        let pipe = conn.from(side);
        let fits = pipe.space().min(bytes.len());
        let count = match (is_chunk, is_cut) {
            // A chunk that does not fit is refused whole, as a rule.
            (true, false) if fits < bytes.len() => 0,
            (true, _) => fits,
            (false, true) => self.random.usize(..=fits),
            (false, false) => fits,
        };
        pipe.is_full = count < bytes.len();
        let has_room = fits > count;
        if count > 0 {
            let at = pipe.send(&bytes[..count], arrival);
            self.wake(Happening::Arrive(id, side.other()), at);
        }
        if has_room && let Some(pipe) = self.conns.get_mut(&id).map(|it| it.from(side)) {
            // It was only for a moment.
            pipe.is_full = false;
            let conn = &self.conns[&id];
            if let Some(writer) = self.reader(conn, id, side) {
                if let Happening::Shard(server, shard) = writer {
                    self.servers[server].workers[shard].writable.push(id);
                }
                self.wake_soon(writer);
            }
        }
        Ok(count)
    }

    /// One side lets go of a connection.
    pub(crate) fn close(&mut self, id: u32, side: Side, end: End) {
        let arrival = self.now + self.delay();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        *conn.has(side) = false;
        if end == End::Silent {
            conn.is_dead = true;
        }
        if !*conn.has(side.other()) {
            self.conns.remove(&id);
            return;
        }
        if conn.is_dead {
            return;
        }
        // Who closes with something unread resets.
        let is_reset = end == End::Reset || conn.into(side).has_unread();
        let end = if is_reset { End::Reset } else { End::Fin };
        let flying = conn.from(side).flying();
        let kept = self.random.usize(..=flying);
        let at = conn.from(side).finish(end, arrival, kept);
        self.wake(Happening::Arrive(id, side.other()), at);
    }

    /// A host is back that does not know some connections any more.
    pub(crate) fn reset_dead(&mut self, is_of: impl Fn(&Conn) -> bool) {
        let at = self.now + RESET_DELAY;
        let mut ends = Vec::new();
        for (id, conn) in &mut self.conns {
            if !conn.is_dead || !is_of(conn) {
                continue;
            }
            let side = if conn.client_has {
                Side::Client
            } else {
                Side::Server
            };
            // Only who has sent something is told.
            if conn.from(side).flying() > 0 && !(conn.client_has && conn.server_has) {
                conn.is_dead = false;
                ends.push((*id, side, conn.into(side).finish(End::Reset, at, 0)));
            }
        }
        for (id, side, at) in ends {
            self.wake(Happening::Arrive(id, side), at);
        }
    }

    /// The connection between the two is lost.
    fn cut_conn(&mut self, client: usize, server: usize, end: End) {
        let Some(id) = self.clients[client].conns[server] else {
            return;
        };
        let at = self.now + self.delay();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if end == End::Silent {
            conn.is_dead = true;
            return;
        }
        for side in [Side::Client, Side::Server] {
            let kept = self.random.usize(..=conn.into(side).flying());
            let at = conn.into(side).finish(end, at, kept);
            let happening = Happening::Arrive(id, side);
            self.due.remove(&happening);
            self.sequence += 1;
            self.due.insert(happening, at.max(self.now));
            self.queue
                .push(Reverse((at.max(self.now), self.sequence, happening)));
        }
    }

    fn block(&mut self, client: usize, server: usize, ways: [bool; 2]) {
        self.blocked[client][server] = ways;
        let of_link = |(id, conn): (&u32, &Conn)| {
            (conn.client == client && conn.server == server).then_some(*id)
        };
        let conns: Vec<u32> = self.conns.iter().filter_map(of_link).collect();
        for id in conns {
            for side in [Side::Client, Side::Server] {
                self.wake_soon(Happening::Arrive(id, side));
            }
        }
    }

    /// Makes a step happen.
    pub(crate) fn step(&mut self, step: Step) {
        self.tell(|| format!("{step:?}"));
        match step {
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Step::Subscribe { client, vni } => self.call(client, Call::Subscribe(Vni(vni))),
            Step::Unsubscribe { client, vni } => self.call(client, Call::Unsubscribe(Vni(vni))),
            Step::Announce {
                client,
                vni,
                route: number,
            } => {
                let route = route(client, self.setup.clients[client].shares, number);
                self.call(client, Call::Announce(Vni(vni), route));
            }
            Step::Withdraw {
                client,
                vni,
                route: number,
            } => {
                let route = route(client, self.setup.clients[client].shares, number);
                self.call(client, Call::Withdraw(Vni(vni), route));
            }
            Step::AnnounceMany { client, vni, count } => (0..count)
                .for_each(|it| self.call(client, Call::Announce(Vni(vni), bulk_route(client, it)))),
            Step::WithdrawMany { client, vni, count } => (0..count)
                .for_each(|it| self.call(client, Call::Withdraw(Vni(vni), bulk_route(client, it)))),
            Step::Configure {
                vni,
                route,
                is_announced,
            } => self.configure(Vni(vni), configured_route(route), is_announced),
            Step::Rest(rest) => self.rest(rest),
            _ => self.disturb(step),
        }
    }

    fn disturb(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Cut {
                client,
                server,
                end,
            } => self.cut_conn(client, server, end),
            Step::Block {
                client,
                server,
                way,
            } => {
                let ways = [way != Way::ToClient, way != Way::ToServer];
                self.block(client, server, ways);
            }
            Step::Unblock { client, server } => self.block(client, server, [false; 2]),
            Step::Isolate { server } => self.block_all(server, true),
            Step::Rejoin { server } => self.block_all(server, false),
            Step::Slow {
                client,
                server,
                bytes,
            } => {
                if self.clients[client].conns[server].is_some() {
                    self.clients[client].slow[server] = Some(bytes);
                }
            }
            Step::PauseClient { client } => self.clients[client].pause(),
            Step::ResumeClient { client } => self.resume_client(client),
            Step::PauseShard { server, shard } => {
                self.servers[server].workers[shard].is_paused = true;
            }
            Step::PauseServer { server } => {
                let workers = &mut self.servers[server].workers;
                workers.iter_mut().for_each(|it| it.is_paused = true);
            }
            Step::ResumeServer { server } => self.resume_server(server),
            Step::StopClient { client, end } => self.stop_client(client, end),
            Step::StartClient { client } => self.start_client(client),
            Step::StopServer { server, end } => self.stop_server(server, end),
            Step::StartServer { server } => self.start_server(server),
            Step::FailKernel { client, percent } => {
                if let Some(kernel) = &mut self.clients[client].kernel {
                    kernel.percent = percent;
                }
            }
            Step::Meddle {
                client,
                at,
                is_told,
            } => {
                if let Some(kernel) = &mut self.clients[client].kernel {
                    let is_lost = kernel.kernel.meddle(at, is_told) && !is_told;
                    if is_lost {
                        kernel.distrust(now);
                    }
                    self.wake_soon(Happening::Kernel(client));
                }
            }
            Step::LoseDevice { client } => {
                if let Some(kernel) = &mut self.clients[client].kernel {
                    kernel.kernel.lose_device();
                    kernel.distrust(now);
                    self.wake_soon(Happening::Kernel(client));
                }
            }
            _ => unreachable!("not a disturbance"),
        }
    }

    pub(crate) fn resume_client(&mut self, client: usize) {
        self.clients[client].is_paused = false;
        for happening in [Happening::Client, Happening::Consumer, Happening::Kernel] {
            self.wake_soon(happening(client));
        }
    }

    pub(crate) fn resume_server(&mut self, server: usize) {
        let workers = &mut self.servers[server].workers;
        workers.iter_mut().for_each(|it| it.is_paused = false);
        self.wake_server(server);
    }

    pub(crate) fn block_all(&mut self, server: usize, is_blocked: bool) {
        for client in 0..self.clients.len() {
            self.block(client, server, [is_blocked; 2]);
        }
    }
}
