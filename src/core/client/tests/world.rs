//! A client, its servers and the wires between them, moved by hand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::monitor::Monitor;
use super::script::{Kind, Script, Talk};
use crate::core::client::events::{ConsumerId, Event};
use crate::core::client::{ConnectionState, ServerId};
use crate::core::client::{Core, CoreConfig, Limits};
use crate::core::scripted::{self, hear};
use crate::core::session::{CloseReason, Role};
use crate::core::types::{Action, Route, Vni};

pub(super) const HOLD: Duration = Duration::from_secs(300);

pub(super) fn config() -> CoreConfig {
    CoreConfig {
        session: scripted::session(Role::Client),
        pacing: crate::core::pace::Pacing {
            mode: crate::core::pace::LegacyPacing::Auto,
            rate: u32::MAX,
        },
        stale_time: HOLD,
        // Tests of what settles set it; the others look at sweeps at once.
        settle_time: Duration::ZERO,
        retry_min: Duration::from_secs(5),
        retry_max: Duration::from_secs(10),
        limits: Limits {
            routes: usize::MAX,
            vnis: usize::MAX,
        },
        seed: 7,
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) core: Core,
    pub(super) servers: Vec<Script>,
    monitors: Vec<Option<Monitor>>,
    /// What the events amount to.
    pub(super) told: BTreeSet<(Vni, Route)>,
    /// When each server was dialled.
    pub(super) dials: Vec<(ServerId, Instant)>,
}

impl World {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        Self::with(kinds, config())
    }

    pub(super) fn with(kinds: &[Kind], config: CoreConfig) -> Self {
        let now = Instant::now();
        Self {
            now,
            core: Core::new(config, kinds.len(), now),
            servers: (9..)
                .zip(kinds)
                .map(|(node, kind)| Script::named(node, *kind))
                .collect(),
            monitors: kinds.iter().map(|_| None).collect(),
            told: BTreeSet::new(),
            dials: Vec::new(),
        }
    }

    /// A client of one established server that wants `V`, with the events forgotten.
    pub(super) fn subscribed(kind: Kind) -> Self {
        let mut world = Self::new(&[kind]);
        world.core.subscribe(super::V);
        world.up(super::A);
        world.replay();
        world
    }

    /// One more server, which is not there yet.
    pub(super) fn add(&mut self, kind: Kind) -> ServerId {
        let node = 9 + u8::try_from(self.servers.len()).expect("there are few");
        self.servers.push(Script::named(node, kind));
        self.monitors.push(None);
        let now = self.now;
        self.core.add_server(now).expect("fewer than 32")
    }

    pub(super) fn server(&mut self, server: ServerId) -> &mut Script {
        &mut self.servers[server.0]
    }

    pub(super) fn talk(&self, server: ServerId) -> &Talk {
        let talk = self.servers[server.0].talk.as_ref();
        talk.expect("connected")
    }

    pub(super) fn state(&self, server: ServerId) -> ConnectionState {
        self.core.states()[&server]
    }

    pub(super) fn is_established(&self, server: ServerId) -> bool {
        self.core.states().get(&server) == Some(&ConnectionState::Established)
    }

    /// Does something with the core, and looks at what it says of that.
    pub(super) fn with_core<T>(&mut self, act: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let result = act(&mut self.core, self.now);
        self.watch();
        result
    }

    fn watch(&mut self) {
        for (number, monitor) in self.monitors.iter_mut().enumerate() {
            if !self.core.is_up(ServerId(number)) {
                *monitor = None;
                self.servers[number].talk = None;
            }
        }
    }

    /// A route of another client's appears at or leaves a server.
    pub(super) fn say(&mut self, server: ServerId, action: Action, vni: Vni, route: Route) {
        self.server(server).say(action, vni, route);
    }

    pub(super) fn dial(&mut self) {
        while let Some(server) = self.core.poll_dial(self.now) {
            self.dials.push((server, self.now));
            if self.servers[server.0].is_there {
                self.monitors[server.0] = Some(Monitor::new(self.servers[server.0].kind));
                self.servers[server.0].talk = Some(Talk::default());
                self.with_core(|core, now| core.dialled(server, now));
            } else {
                let refused = CloseReason::Io(std::io::ErrorKind::ConnectionRefused);
                self.with_core(|core, now| core.lost(server, refused, now));
            }
        }
    }

    /// The socket takes up to `budget` bytes of the client's; whether there were any.
    pub(super) fn take(&mut self, server: ServerId, budget: usize) -> bool {
        let outgoing = self.core.outgoing(server);
        let count = outgoing.len().min(budget);
        let bytes = outgoing[..count].to_vec();
        let is_any = !outgoing.is_empty();
        if let Some(monitor) = &mut self.monitors[server.0] {
            monitor.observe(&bytes);
        }
        if let Some(talk) = &mut self.servers[server.0].talk {
            talk.inbox.extend_from_slice(&bytes);
        }
        if is_any {
            self.with_core(|core, now| core.advance(server, count, now));
        }
        count > 0
    }

    /// Up to `budget` bytes of the server's reach the client; whether there were any.
    pub(super) fn deliver(&mut self, server: ServerId, budget: usize) -> bool {
        let Some(talk) = &mut self.servers[server.0].talk else {
            return false;
        };
        let count = talk.outbox.len().min(budget);
        let bytes: Vec<u8> = talk.outbox.drain(..count).collect();
        if let Some(monitor) = &mut self.monitors[server.0] {
            monitor.deliver(&bytes);
        }
        if count > 0 {
            self.with_core(|core, now| core.receive(server, &bytes, now));
        }
        count > 0
    }

    /// Moves everything that can move, without any time passing.
    pub(super) fn settle(&mut self) {
        loop {
            let mut is_busy = false;
            for number in 0..self.servers.len() {
                let server = ServerId(number);
                let script = &self.servers[number];
                let budget = if script.is_blocked { 0 } else { usize::MAX };
                let is_held = script.is_held;
                is_busy |= self.take(server, budget);
                self.servers[number].serve();
                is_busy |= !is_held && self.deliver(server, usize::MAX);
            }
            if !is_busy && !self.is_paced_a_moment() {
                return;
            }
        }
    }

    /// Whether the client waited for the 8 microseconds that the pace takes here.
    fn is_paced_a_moment(&mut self) -> bool {
        let moment = self.now + Duration::from_micros(8);
        let Some(due) = self.core.poll_timeout().filter(|due| *due <= moment) else {
            return false;
        };
        let waiting = |core: &Core, number| core.outgoing(ServerId(number)).len();
        let count = self.servers.len();
        let of_all = |core: &Core| (0..count).map(|it| waiting(core, it)).sum();
        let before: usize = of_all(&self.core);
        self.now = self.now.max(due);
        self.with_core(Core::handle_timeouts);
        of_all(&self.core) > before
    }

    /// Lets time pass, with everything done at the moment it is due.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut turns = 0;
        loop {
            self.dial();
            self.settle();
            let due = self.core.poll_timeout().filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.now = self.now.max(due);
            self.with_core(Core::handle_timeouts);
            turns += 1;
            assert!(turns < 100_000, "something is due for ever");
        }
        self.now = end;
    }

    /// Brings a server up and waits until the client has talked with it.
    pub(super) fn up(&mut self, server: ServerId) {
        self.server(server).is_there = true;
        for _ in 0..200 {
            if self.is_established(server) {
                return self.settle();
            }
            self.pass(Duration::from_millis(100));
        }
        panic!("{server} is not established");
    }

    /// Brings a server up, and holds back all that it says after the handshake.
    pub(super) fn shake_hands(&mut self, server: ServerId) {
        self.server(server).is_there = true;
        self.server(server).is_held = true;
        while !self.is_established(server) {
            self.pass(Duration::from_millis(1));
            let talk = self.servers[server.0].talk.as_ref();
            let waiting = talk.map_or(0, |talk| talk.outbox.len());
            self.deliver(server, waiting);
        }
        self.settle();
    }

    /// The connection to a server ends, and it cannot be reached any more.
    pub(super) fn down(&mut self, server: ServerId) {
        self.server(server).is_there = false;
        self.cut(server);
    }

    /// The connection to a server ends.
    pub(super) fn cut(&mut self, server: ServerId) {
        if self.core.is_up(server) {
            self.with_core(|core, now| core.lost(server, CloseReason::PeerClosed, now));
        }
    }

    /// Takes all events; those about routes must make sense.
    pub(super) fn replay(&mut self) -> Vec<Event> {
        self.replay_some(usize::MAX)
    }

    pub(super) fn replay_some(&mut self, limit: usize) -> Vec<Event> {
        let events = self.core.take_events(ConsumerId::FIRST, limit);
        for event in &events {
            match *event {
                Event::RouteAdded(vni, route) => hear(&mut self.told, Action::Add, (vni, route)),
                Event::RouteRemoved(vni, route) => {
                    hear(&mut self.told, Action::Remove, (vni, route));
                }
                _ => {}
            }
        }
        events
    }

    /// What the client has received, suppressed or not.
    pub(super) fn view(&self, vni: Vni) -> BTreeSet<Route> {
        let received = self.core.received(vni).into_iter();
        received.map(|(route, _)| route).collect()
    }

    /// The events so far amount to the view without what is suppressed.
    pub(super) fn check_events(&mut self) {
        while !self.replay_some(3).is_empty() {}
        let visible: BTreeSet<_> = self.core.received_everywhere().into_iter().collect();
        assert_eq!(self.told, visible, "the events and the view");
    }

    /// Every established server knows exactly what the client wants.
    pub(super) fn check_servers(&self) {
        let subscriptions: BTreeSet<Vni> = self.core.subscribed().into_iter().collect();
        let announcements: BTreeSet<_> = self.core.announced().into_iter().collect();
        for number in 0..self.servers.len() {
            let server = ServerId(number);
            if self.is_established(server) {
                let talk = self.talk(server);
                assert_eq!(talk.subscribed, subscriptions, "{server} has subscriptions");
                assert_eq!(talk.announced, announcements, "{server} has announcements");
            }
        }
    }
}
