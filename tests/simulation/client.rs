//! Clients: a turn does what a step of the client's thread does.

use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustbond::internals::sim::{CHUNK, SimClient};
use rustbond::{CloseReason, Event, Route, Vni};

use super::kernel::Kernel;
use super::ledger::{Doubt, Ledger};
use super::monitor::Monitor;
use super::route::{IMPORTS, filter, own_underlay};
use super::script::{ClientPlan, End, SERVERS};
use super::wire::Side;
use super::world::{Happening, World};

/// Bytes that wait for a socket at most: 32 KiB, and what a turn may add to that.
const QUEUED_MAX: usize = 40 * 1024;

/// Pause of a consumer that has not taken all.
const CONSUMER_PAUSE: Duration = Duration::from_millis(1);

/// Pause of a slow reader between two reads.
const SLOW_PAUSE: Duration = Duration::from_millis(10);

/// What the program around the client does to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Subscribe(Vni),
    Unsubscribe(Vni),
    Announce(Vni, Route),
    Withdraw(Vni, Route),
}

/// How an attempt to reach a server ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialled {
    Connected(u32),
    Refused,
}

/// A client, its host, and the program around it.
pub(crate) struct Client {
    pub(crate) plan: ClientPlan,
    /// None while the process does not run.
    pub(crate) core: Option<SimClient>,
    pub(crate) is_paused: bool,
    /// It was paused, and has not had a turn since.
    pub(crate) has_slept: bool,
    pub(crate) calls: VecDeque<Call>,
    pub(crate) dialled: [Option<Dialled>; SERVERS],
    pub(crate) conns: [Option<u32>; SERVERS],
    pub(crate) monitors: [Option<Monitor>; SERVERS],
    /// Bytes of a read, where it is slow.
    pub(crate) slow: [Option<usize>; SERVERS],
    not_before: [Option<Instant>; SERVERS],
    /// What the program wants.
    pub(crate) subscribed: BTreeSet<Vni>,
    pub(crate) announced: BTreeSet<(Vni, Route)>,
    /// What the events amount to.
    pub(crate) told: BTreeSet<(Vni, Route)>,
    /// A turn changed routes, or the program took events, since the two were compared.
    pub(crate) is_stirred: bool,
    /// Events about routes of others.
    pub(crate) events: u64,
    /// What it was told, and when it may forget it.
    pub(crate) ledger: Ledger,
    pub(crate) kernel: Option<Kernel>,
}

fn core(plan: &ClientPlan, now: Instant) -> SimClient {
    let mut core = SimClient::new(plan.setup, now);
    if plan.has_policy {
        core.set_policy(filter(), &IMPORTS);
    }
    core
}

impl Client {
    /// `is_modern`: whether each server is.
    pub(crate) fn new(plan: ClientPlan, is_modern: [bool; SERVERS], now: Instant) -> Self {
        Self {
            core: Some(core(&plan, now)),
            is_paused: false,
            has_slept: false,
            calls: VecDeque::new(),
            dialled: [None; SERVERS],
            conns: [None; SERVERS],
            monitors: [None, None],
            slow: [None; SERVERS],
            not_before: [None; SERVERS],
            subscribed: BTreeSet::new(),
            announced: BTreeSet::new(),
            told: BTreeSet::new(),
            is_stirred: false,
            events: 0,
            ledger: Ledger::new(plan, is_modern),
            kernel: plan.kernel.map(|it| Kernel::new(it, plan.setup.seed)),
            plan,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.core.is_some()
    }

    fn call(&mut self, call: Call, now: Instant) {
        let Some(core) = &mut self.core else {
            return;
        };
        self.ledger.called(call, now);
        let is_new = match call {
            Call::Subscribe(vni) => core.subscribe(vni),
            Call::Unsubscribe(vni) => {
                for (server, monitor) in self.monitors.iter_mut().enumerate() {
                    if let Some(monitor) = monitor {
                        monitor.outdate(vni, core.subscribes(server));
                    }
                }
                core.unsubscribe(vni)
            }
            Call::Announce(vni, route) => core.announce(vni, route),
            Call::Withdraw(vni, route) => core.withdraw(vni, route),
        };
        assert!(is_new, "{call:?} was refused");
    }

    fn handle_timeouts(&mut self, now: Instant) {
        let Some(core) = &mut self.core else {
            return;
        };
        let dialled: [bool; SERVERS] = std::array::from_fn(|server| core.is_dialling(server));
        core.handle_timeouts(now);
        for server in (0..SERVERS).filter(|it| dialled[*it]) {
            if !core.is_dialling(server) && !core.is_up(server) {
                self.ledger.failed(server, Doubt::CutOff);
            }
        }
    }

    /// What must hold after every step.
    pub(crate) fn check(&mut self) {
        let Some(core) = &self.core else {
            return;
        };
        for server in 0..SERVERS {
            let queued = core.queued_bytes(server);
            assert!(queued <= QUEUED_MAX, "{queued} bytes wait for a server");
        }
        if !core.has_events() && std::mem::take(&mut self.is_stirred) {
            let visible = core.visible().into_iter();
            assert!(
                visible.eq(self.told.iter().copied()),
                "events and view differ"
            );
        }
    }
}

impl World {
    /// Has the program around a client do something.
    pub(crate) fn call(&mut self, client: usize, call: Call) {
        let it = &mut self.clients[client];
        let is_new = match call {
            Call::Subscribe(vni) => it.subscribed.insert(vni),
            Call::Unsubscribe(vni) => it.subscribed.remove(&vni),
            Call::Announce(vni, route) => it.announced.insert((vni, route)),
            Call::Withdraw(vni, route) => it.announced.remove(&(vni, route)),
        };
        if is_new && it.runs() {
            it.calls.push_back(call);
            self.wake_soon(Happening::Client(client));
        }
    }

    /// The process ends; what it was told by its program is known when it begins again.
    pub(crate) fn stop_client(&mut self, client: usize, end: End) {
        let it = &mut self.clients[client];
        if it.core.take().is_none() {
            return;
        }
        (it.is_paused, it.slow) = (false, [None; SERVERS]);
        it.calls.clear();
        it.told.clear();
        it.not_before = [None; SERVERS];
        it.monitors = [None, None];
        it.ledger.restart();
        let connected = std::mem::take(&mut it.dialled).map(|it| match it {
            Some(Dialled::Connected(conn)) => Some(conn),
            _ => None,
        });
        let conns = std::mem::take(&mut it.conns);
        if let Some(kernel) = &mut it.kernel {
            kernel.restart(end == End::Silent);
        }
        for conn in conns.into_iter().chain(connected).flatten() {
            self.close(conn, Side::Client, end);
        }
    }

    pub(crate) fn start_client(&mut self, client: usize) {
        let now = self.now;
        let it = &mut self.clients[client];
        if it.runs() {
            return;
        }
        let mut core = core(&it.plan, now);
        for (vni, route) in &it.announced {
            it.ledger.called(Call::Announce(*vni, *route), now);
            assert!(core.announce(*vni, *route));
        }
        for vni in &it.subscribed {
            it.ledger.called(Call::Subscribe(*vni), now);
            assert!(core.subscribe(*vni));
        }
        it.core = Some(core);
        if let Some(kernel) = &mut it.kernel {
            kernel.restart(false);
            self.wake_soon(Happening::Kernel(client));
        }
        self.reset_dead(|conn| conn.client == client);
        self.wake_soon(Happening::Client(client));
    }

    pub(crate) fn client_turn(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if !it.runs() || it.is_paused {
            return;
        }
        let now = self.now;
        while let Some(call) = it.calls.pop_front() {
            it.call(call, now);
        }
        it.judge(now);
        let mut is_busy = false;
        for server in 0..SERVERS {
            self.connected(client, server);
            is_busy |= self.client_read(client, server);
            // What the next server says is news to what this one leaves.
            self.drop_closed(client);
            self.clients[client].judge_news(now);
        }
        self.clients[client].handle_timeouts(now);
        self.drop_closed(client);
        self.clients[client].judge_news(now);
        self.dial(client);
        for server in 0..SERVERS {
            is_busy |= self.client_write(client, server);
        }
        self.drop_closed(client);
        self.check_turn(client);
        let it = &self.clients[client];
        let Some(core) = &it.core else {
            return;
        };
        let due = core.poll_timeout();
        let reads = it.not_before.iter().flatten().min().copied();
        if core.has_events() && !self.is_scheduled(Happening::Consumer(client)) {
            self.wake(Happening::Consumer(client), now + it.plan.lag);
        }
        for at in due.into_iter().chain(reads) {
            self.wake(Happening::Client(client), at.max(now));
        }
        if is_busy {
            self.wake_soon(Happening::Client(client));
        }
    }

    /// Takes note of how an attempt ended.
    fn connected(&mut self, client: usize, server: usize) {
        let now = self.now;
        let it = &mut self.clients[client];
        let (Some(dialled), Some(core)) = (it.dialled[server].take(), &mut it.core) else {
            return;
        };
        match dialled {
            Dialled::Connected(conn) if core.is_dialling(server) => {
                it.conns[server] = Some(conn);
                core.dialled(server, now);
                let is_modern = it.plan.setup.is_modern && self.setup.servers[server].is_modern;
                self.tell(|| format!("{conn}: client {client} has reached server {server}"));
                let own = (!self.has_older_session(client, server, conn))
                    .then(|| own_underlay(client).into());
                let started = self.conns.get(&conn).map_or(now, |it| it.server_started);
                let monitor = Monitor::new(is_modern, own, started);
                let it = &mut self.clients[client];
                it.monitors[server] = Some(monitor);
                it.ledger.reached();
            }
            Dialled::Connected(conn) => self.close(conn, Side::Client, End::Fin),
            Dialled::Refused if core.is_dialling(server) => {
                let refused = CloseReason::Io(ErrorKind::ConnectionRefused);
                core.lost(server, refused, now);
                it.ledger.failed(server, Doubt::Restarted);
            }
            Dialled::Refused => {}
        }
    }

    /// Whether a server had another session of a client.
    ///
    /// What that announced, the client may be told of: while the server believes that it
    /// lives, and after that by the log, which tells what was withdrawn too.
    fn has_older_session(&self, client: usize, server: usize, new: u32) -> bool {
        self.sessions[client][server].iter().any(|it| *it != new)
    }

    /// Reads once; whether there is more.
    fn client_read(&mut self, client: usize, server: usize) -> bool {
        let (now, cut) = (self.now, self.cut());
        let it = &mut self.clients[client];
        let Some(conn) = it.conns[server] else {
            return false;
        };
        if it.not_before[server].is_some_and(|at| at > now) {
            return false;
        }
        it.not_before[server] = None;
        let limit = it.slow[server].map_or(cut, |it| cut.min(it));
        if it.slow[server].is_some() {
            it.not_before[server] = Some(now + SLOW_PAUSE);
        }
        if limit == 0 {
            return false;
        }
        match self.read(conn, Side::Client, limit) {
            Ok(bytes) if bytes.is_empty() => {
                self.clients[client].not_before[server] = None;
                false
            }
            Ok(bytes) => {
                self.note_trace(client as u64, &bytes);
                self.tell(|| format!("{conn}: the client reads {} bytes", bytes.len()));
                let it = &mut self.clients[client];
                if let (Some(monitor), Some(core)) = (&mut it.monitors[server], &mut it.core) {
                    monitor.receives(&bytes);
                    it.ledger.read(server, monitor, now);
                    core.receive(server, &bytes, now);
                }
                self.clients[client].slow[server].is_none()
            }
            Err(reason) => {
                self.tell(|| format!("{conn}: the client finds {reason:?}"));
                if let Some(core) = &mut self.clients[client].core {
                    core.lost(server, reason, now);
                }
                false
            }
        }
    }

    /// Writes until the socket is full; whether it is to be tried again.
    fn client_write(&mut self, client: usize, server: usize) -> bool {
        let now = self.now;
        for _ in 0..64 {
            let it = &self.clients[client];
            let (Some(core), Some(conn)) = (&it.core, it.conns[server]) else {
                return false;
            };
            let (bytes, is_chunk) = core.outgoing(server);
            assert!(!is_chunk || bytes.len() <= CHUNK, "a chunk is too long");
            let bytes = bytes.to_vec();
            if bytes.is_empty() || self.is_full(conn, Side::Client) {
                return false;
            }
            let written = self.write(conn, Side::Client, &bytes, is_chunk);
            let it = &mut self.clients[client];
            let (Some(core), Some(monitor)) = (&mut it.core, &mut it.monitors[server]) else {
                return false;
            };
            match written {
                Ok(count) => {
                    monitor.sends(&bytes[..count]);
                    core.advance(server, count, now);
                }
                Err(reason) => {
                    core.lost(server, reason, now);
                    return false;
                }
            }
        }
        true
    }

    fn drop_closed(&mut self, client: usize) {
        for server in 0..SERVERS {
            let it = &mut self.clients[client];
            let Some(core) = &it.core else { return };
            if !core.is_up(server)
                && let Some(conn) = it.conns[server].take()
            {
                // Who hears nothing of the end may be cut off, and the server from others too.
                let pipe = self.conns.get_mut(&conn).map(|it| it.into(Side::Client));
                let doubt = match pipe.is_some_and(|it| it.ended.is_some()) {
                    true => Doubt::Restarted,
                    false => Doubt::CutOff,
                };
                if let Some(monitor) = it.monitors[server].take() {
                    it.ledger.lost(server, &monitor, doubt, self.now);
                }
                it.slow[server] = None;
                it.not_before[server] = None;
                self.tell(|| format!("{conn}: the client lets go"));
                self.close(conn, Side::Client, End::Fin);
            }
        }
    }

    fn dial(&mut self, client: usize) {
        let now = self.now;
        loop {
            let core = self.clients[client].core.as_mut();
            let Some(server) = core.and_then(|it| it.poll_dial(now)) else {
                return;
            };
            let at = now + self.delay() * 2;
            self.wake(Happening::Dialled(client, server), at);
        }
    }

    /// The program takes some events.
    pub(crate) fn consume(&mut self, client: usize) {
        let now = self.now;
        let it = &mut self.clients[client];
        let Some(core) = &mut it.core else {
            return;
        };
        if it.is_paused {
            return;
        }
        let events = core.take_events(it.plan.appetite);
        it.is_stirred = true;
        self.tell(|| format!("client {client} tells {events:?}"));
        let it = &mut self.clients[client];
        let Some(core) = &mut it.core else {
            return;
        };
        for event in events {
            let (is_news, of) = match &event {
                Event::RouteAdded(vni, route) => (it.told.insert((*vni, *route)), Some(route)),
                Event::RouteRemoved(vni, route) => (it.told.remove(&(*vni, *route)), Some(route)),
                _ => (true, None),
            };
            assert!(is_news, "client {client}: {event:?} tells nothing");
            let own = own_underlay(client);
            it.events += u64::from(of.is_some_and(|it| it.next_hop.target_address != own));
            if let Some(kernel) = &mut it.kernel {
                kernel.hear(&event);
            }
        }
        let more = core.has_events();
        if it.kernel.is_some() {
            self.wake_soon(Happening::Kernel(client));
        }
        if more {
            self.wake(Happening::Consumer(client), now + CONSUMER_PAUSE);
        }
    }

    pub(crate) fn kernel_turn(&mut self, client: usize) {
        let now = self.now;
        let it = &mut self.clients[client];
        if !it.runs() || it.is_paused {
            return;
        }
        let Some(kernel) = &mut it.kernel else {
            return;
        };
        if let Some(at) = kernel.turn(now, &mut self.random) {
            self.wake(Happening::Kernel(client), at);
        }
    }
}
