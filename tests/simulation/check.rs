//! What must hold: always, and once everything is at rest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustbond::internals::sim::ServerGauges;
use rustbond::{IpNet, NextHopType, Route, Vni};

use super::client::Call;
use super::route::{IMPORTS, filter, imported, route};
use super::script::{End, LONG_SETTLE, LONG_STALE, Rest, SERVERS, VNIS};
use super::world::World;

/// In a world where nothing goes wrong any more, all is right after this time.
///
/// A session that is dead is noticed after 12.5 s, one that takes nothing after 25 s; an
/// attempt takes 10 s at most, and the next begins after 3 s; then routes may be stale for 70 s.
const CONVERGENCE: Duration = Duration::from_secs(150);

/// What a change takes in any case.
const PROMPT: Duration = Duration::from_millis(100);

/// How often is looked whether it is.
const LOOK: Duration = Duration::from_secs(4);

/// More than it takes to notice a silent loss and to tell a slow consumer.
const DETECTION: Duration = Duration::from_secs(40);

/// Announces what the servers announce themselves.
const SERVER_ITSELF: usize = usize::MAX;

/// What is announced in each VNI, and by which clients.
pub(crate) type Announced = BTreeMap<Vni, BTreeMap<Route, BTreeSet<usize>>>;

impl World {
    /// What must hold after every step.
    pub(crate) fn check(&mut self) {
        for client in &mut self.clients {
            client.check();
        }
        self.check_promise();
    }

    /// All disturbances end.
    fn heal(&mut self) {
        for server in 0..SERVERS {
            self.block_all(server, false);
            self.start_server(server);
            self.resume_server(server);
        }
        for client in 0..self.clients.len() {
            let it = &mut self.clients[client];
            it.slow = [None; SERVERS];
            if let Some(kernel) = &mut it.kernel {
                kernel.percent = 0;
            }
            self.resume_client(client);
        }
    }

    pub(crate) fn rest(&mut self, rest: Rest) {
        self.heal();
        self.converge(None);
        match rest {
            Rest::Whole => {}
            Rest::Restart(server, end) => {
                let before = self.events();
                self.stop_server(server, end);
                let away = Duration::from_millis(self.random.u64(..6000));
                self.pass(away);
                self.start_server(server);
                self.converge(None);
                assert_eq!(self.events(), before, "somebody heard of the restart");
            }
            Rest::Blink(end) => {
                let before: Vec<u64> = self.clients.iter().map(|it| it.events).collect();
                if self.random.bool() {
                    (0..SERVERS).for_each(|it| self.stop_server(it, end));
                    let away = Duration::from_millis(self.random.u64(..1000));
                    self.pass(away);
                    (0..SERVERS).for_each(|it| self.start_server(it));
                } else {
                    for server in 0..SERVERS {
                        self.stop_server(server, end);
                        let away = Duration::from_millis(self.random.u64(..1000));
                        self.pass(away);
                        self.start_server(server);
                        let gap = Duration::from_millis(self.random.u64(..8000));
                        self.pass(gap);
                    }
                }
                self.converge(None);
                for (client, before) in self.clients.iter().zip(before) {
                    let setup = client.plan.setup;
                    let is_patient =
                        setup.settle_time == LONG_SETTLE && setup.stale_time == LONG_STALE;
                    assert!(
                        !is_patient || client.events == before,
                        "a route was removed that somebody had"
                    );
                }
            }
            Rest::Without(server, end) => {
                self.stop_server(server, end);
                self.converge(Some(server));
                self.start_server(server);
            }
            Rest::Alone(end) => {
                let before = self.events();
                (0..SERVERS).for_each(|it| self.stop_server(it, end));
                let stale_time = self.setup.clients[0].setup.stale_time;
                self.pass(stale_time - Duration::from_millis(1));
                assert_eq!(self.events(), before, "routes went before their time");
                self.pass(DETECTION);
                for client in &self.clients {
                    assert!(client.told.is_empty(), "routes stay after their time");
                }
                (0..SERVERS).for_each(|it| self.start_server(it));
            }
            Rest::Decline(end) => self.decline(end),
            Rest::Prompt { client, route } => {
                // A withdrawal does not end a stale copy before the servers vouch.
                let stale_time = self.setup.clients[0].setup.stale_time;
                self.pass(stale_time + DETECTION);
                self.change_at_rest(client, route);
            }
        }
    }

    /// One server is restarted, the other is lost, something is withdrawn, and the first is lost
    /// too: what only the other had goes first.
    fn decline(&mut self, end: End) {
        let first = self.random.usize(..SERVERS);
        let stale_time = self.setup.clients[0].setup.stale_time;
        self.stop_server(first, End::Reset);
        self.start_server(first);
        let gap = |world: &mut Self| Duration::from_millis(world.random.u64(..4000));
        let settling = gap(self);
        self.pass(settling);
        self.stop_server(1 - first, end);
        let noticed = gap(self);
        self.pass(noticed);
        for client in 0..self.clients.len() {
            let own = self.clients[client].announced.first().copied();
            if let Some((vni, route)) = own {
                self.call(client, Call::Withdraw(vni, route));
            }
        }
        let heard = gap(self);
        self.pass(heard);
        self.stop_server(first, end);
        for _ in 0..40 {
            self.pass((stale_time + DETECTION) / 40);
            self.check();
        }
        for client in &self.clients {
            assert!(client.told.is_empty(), "routes stay after their time");
        }
        (0..SERVERS).for_each(|it| self.start_server(it));
    }

    /// Has a client change each of its wishes for a VNI, and everybody take note in time.
    fn change_at_rest(&mut self, client: usize, number: u16) {
        let announced = self.announced();
        let size = |vni: &u32| announced.get(&Vni(*vni)).map_or(0, BTreeMap::len);
        let vni = (1..=VNIS).min_by_key(size).expect("there are some");
        let bound = self.promptness(size(&vni));
        let vni = Vni(vni);
        let it = &self.clients[client];
        let route = route(client, it.plan.shares, number);
        let subscription = match it.subscribed.contains(&vni) {
            true => [Call::Unsubscribe(vni), Call::Subscribe(vni)],
            false => [Call::Subscribe(vni), Call::Unsubscribe(vni)],
        };
        let announcement = match it.announced.contains(&(vni, route)) {
            true => [Call::Withdraw(vni, route), Call::Announce(vni, route)],
            false => [Call::Announce(vni, route), Call::Withdraw(vni, route)],
        };
        for call in subscription.into_iter().chain(announcement) {
            self.call(client, call);
            self.pass(bound);
            self.check();
            if let Err(wrong) = self.rightness(None) {
                panic!("{bound:?} after {call:?} of client {client} at rest: {wrong}");
            }
        }
    }

    /// How long a change may take to be known where all is at rest, of a table of so many
    /// routes: some round trips, threads and consumers that sleep, and what a link, a pace and
    /// a consumer need for each route.
    fn promptness(&self, routes: usize) -> Duration {
        let lag = self.clients.iter().map(|it| it.plan.lag).max();
        let each = Duration::from_millis(3) * u32::try_from(routes).unwrap_or(u32::MAX);
        self.setup.latency[1] * 12 + lag.unwrap_or_default() * 2 + each + PROMPT
    }

    /// Everybody leaves; nothing may be left.
    pub(crate) fn end(&mut self) {
        self.rest(Rest::Whole);
        self.audit();
        for (vni, route) in self.configured.clone() {
            self.configure(vni, route, false);
        }
        for client in 0..self.clients.len() {
            self.stop_client(client, End::Fin);
        }
        self.pass(CONVERGENCE);
        for server in &self.servers {
            let gauges = server.core.as_ref().map(|it| it.gauges());
            assert_eq!(gauges, Some(ServerGauges::default()), "something is left");
        }
        assert!(self.conns.is_empty(), "connections are left");
    }

    fn events(&self) -> u64 {
        self.clients.iter().map(|it| it.events).sum()
    }

    /// Waits until all is right, perhaps without a server; and it must stay so.
    fn converge(&mut self, without: Option<usize>) {
        let mut waited = Duration::ZERO;
        while let Err(wrong) = self.rightness(without) {
            assert!(waited < CONVERGENCE, "after {waited:?} of peace: {wrong}");
            self.pass(LOOK);
            waited += LOOK;
            self.check();
        }
        self.pass(LOOK / 2);
        if let Err(wrong) = self.rightness(without) {
            panic!("it was right and is not any more: {wrong}");
        }
        self.audit_some();
    }

    pub(crate) fn announced(&self) -> Announced {
        let mut announced = Announced::new();
        let mut add = |(vni, route), by| {
            let of_vni = announced.entry(vni).or_default();
            of_vni.entry(route).or_default().insert(by);
        };
        for (client, it) in self.clients.iter().enumerate() {
            for key in it.announced.iter().filter(|_| it.runs()) {
                add(*key, client);
            }
        }
        for key in &self.configured {
            add(*key, SERVER_ITSELF);
        }
        announced
    }

    /// What is not as it must be, if anything is not.
    fn rightness(&self, without: Option<usize>) -> Result<(), String> {
        if self.conns.values().any(|it| it.is_dead) {
            return Err("a connection is dead, and not everybody knows".into());
        }
        let announced = self.announced();
        for server in (0..SERVERS).filter(|it| Some(*it) != without) {
            self.check_server(server, &announced)?;
        }
        for client in 0..self.clients.len() {
            let wrong = self.check_client(client, without, &announced);
            wrong.map_err(|wrong| format!("client {client}: {wrong}"))?;
        }
        Ok(())
    }

    fn check_server(&self, server: usize, announced: &Announced) -> Result<(), String> {
        let core = self.servers[server].core.as_ref();
        let gauges = core.ok_or("it does not run")?.gauges();
        let running = || self.clients.iter().filter(|it| it.runs());
        let vnis = |vni: &u32| {
            let is_announced = announced.contains_key(&Vni(*vni));
            is_announced || running().any(|it| it.subscribed.contains(&Vni(*vni)))
        };
        let expected = ServerGauges {
            sessions: running().count(),
            established: running().count(),
            subscriptions: running().map(|it| it.subscribed.len()).sum(),
            routes: announced.values().map(BTreeMap::len).sum(),
            vnis: (1..=VNIS).filter(vnis).count(),
            announcements: announced.values().flatten().map(|it| it.1.len()).sum(),
        };
        if gauges != expected {
            return Err(format!("server {server}: {gauges:?}, not {expected:?}"));
        }
        Ok(())
    }

    fn check_client(
        &self,
        client: usize,
        without: Option<usize>,
        announced: &Announced,
    ) -> Result<(), String> {
        let it = &self.clients[client];
        let Some(core) = &it.core else {
            return Ok(());
        };
        let servers = || (0..SERVERS).filter(|server| Some(*server) != without);
        let mut visible = Vec::new();
        for vni in (1..=VNIS).map(Vni) {
            let is_subscribed = it.subscribed.contains(&vni);
            let heard = it.hears(client, vni, announced);
            let mut expected = it.accepts(vni, Cow::Borrowed(&heard));
            let imports = it.imports(client, vni, announced);
            if !imports.is_empty() {
                expected.to_mut().extend(imports);
            }
            let is_suppressed = it.suppresses(vni);
            let received = core.received_from(vni);
            let is_as_expected = received.iter().map(|it| &it.0).eq(expected.iter());
            if !is_as_expected {
                let received: BTreeSet<Route> = received.iter().map(|it| it.0).collect();
                let missing = expected.difference(&received).next();
                let surplus = received.difference(&expected).next();
                return Err(format!(
                    "VNI {vni}: {missing:?} is missing, {surplus:?} is there"
                ));
            }
            for (route, from, suppressed) in &received {
                if *suppressed != is_suppressed(route) {
                    return Err(format!("VNI {vni}: {route} is suppressed: {suppressed}"));
                }
                if *from != servers().count() {
                    return Err(format!("VNI {vni}: a server does not tell of {route}"));
                }
            }
            let seen = received.iter().filter(|it| !it.2);
            visible.extend(seen.map(|it| (vni, it.0)));
            if core.is_synced(vni) != is_subscribed.then_some(true) {
                return Err(format!("VNI {vni} is not complete"));
            }
            if core.is_settled(vni) != is_subscribed {
                return Err(format!("VNI {vni} is not settled"));
            }
            for server in servers() {
                let table = it.monitors[server].as_ref().and_then(|it| it.table(vni));
                if table != is_subscribed.then_some(&heard) {
                    return Err(format!("VNI {vni}: server {server} told something else"));
                }
            }
        }
        if core.has_events() || !visible.iter().eq(&it.told) {
            return Err("not all events are told".into());
        }
        if core.held() != 0 {
            return Err(format!("{} things are remembered for nothing", core.held()));
        }
        it.kernel
            .as_ref()
            .map_or(Ok(()), |it| it.check(&self.clients[client].told))
    }
}

/// What one client has to know at rest; `client` is its own number.
impl super::client::Client {
    /// What others announce in a VNI, if it is subscribed.
    fn hears(&self, client: usize, vni: Vni, announced: &Announced) -> BTreeSet<Route> {
        let is_subscribed = self.subscribed.contains(&vni);
        let of_vni = announced.get(&vni).filter(|_| is_subscribed);
        let sees = |by: &BTreeSet<usize>| by.iter().any(|it| *it != client);
        let heard = of_vni.into_iter().flatten().filter(|it| sees(it.1));
        heard.map(|(route, _)| *route).collect()
    }

    /// What counts of what is heard in a VNI.
    fn accepts<'a>(
        &self,
        vni: Vni,
        mut heard: Cow<'a, BTreeSet<Route>>,
    ) -> Cow<'a, BTreeSet<Route>> {
        if self.plan.has_policy {
            let filter = filter();
            heard.to_mut().retain(|route| filter.accepts(vni, route));
        }
        heard
    }

    /// What is copied into a VNI.
    fn imports(&self, client: usize, into: Vni, announced: &Announced) -> BTreeSet<Route> {
        let sources = IMPORTS
            .iter()
            .filter(|it| it.1 == into && self.plan.has_policy);
        let copies = sources.flat_map(|(from, _)| {
            let is_suppressed = self.suppresses(*from);
            let heard = self.hears(client, *from, announced);
            let routes = self.accepts(*from, Cow::Owned(heard)).into_owned();
            let visible = routes.into_iter().filter(move |it| !is_suppressed(it));
            visible.map(|route| imported(*from, route))
        });
        copies.collect()
    }

    /// Whether a route is not to be used, because this client is such a destination itself.
    fn suppresses(&self, vni: Vni) -> impl Fn(&Route) -> bool {
        let own = self.announced.iter();
        let own = own.filter(move |(of, route)| *of == vni && is_standard(route));
        // A kernel has no host bits.
        let network = |route: &Route| route.destination.prefix.trunc();
        let own: BTreeSet<IpNet> = own.map(|(_, route)| network(route)).collect();
        move |route| is_standard(route) && own.contains(&network(route))
    }
}

fn is_standard(route: &Route) -> bool {
    route.next_hop.hop_type == NextHopType::Standard
}
