//! `metalbond client`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustbond::{ClientConfig, Error, MetalBondClient, Route, RouteHandler, Vni};

use crate::args::ClientArgs;
use crate::control::{self, CLIENT_SOCKET, Control};
use crate::failure::Failure;
use crate::http::Http;
use crate::kernel::Kernel;
use crate::output::{Reader, print};
use crate::reload::{self, Reload};
use crate::service::{Environment, Service, count};
use crate::signals::{Ender, Reason};
use crate::{logging, signals};

/// How long the sessions may take to end, and what is being printed to be read.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The options that can change while it runs; the first of them where it installs routes.
pub(crate) const LIVE: [&str; 11] = [
    "cleanup",
    "exclude-route-type",
    "install-routes",
    "ipv4-only",
    "announce",
    "hold",
    "keepalive",
    "legacy-pacing",
    "legacy-rate",
    "server",
    "subscribe",
];

/// How many those are.
const KERNEL: usize = 4;

/// Subscribes, announces and installs until a signal.
pub(crate) fn run(args: &ClientArgs, environment: Environment) -> Result<(), Failure> {
    logging::start(args.log.level(), args.log.format());
    let (ender, ending) = signals::catch()?;
    let hangups = signals::catch_hangups(args.config.file.is_some())?;
    let kernel = Kernel::start(args)?;
    let builder = MetalBondClient::builder()
        .config(args.settings())
        .servers(&args.server);
    let client = match &kernel {
        Some(kernel) => kernel.client(builder),
        None => {
            let has_other_work = !args.announce.is_empty() || args.http.is_some();
            let printer = Printer {
                ender: (!has_other_work).then_some(ender),
                is_read: AtomicBool::new(true),
            };
            builder.handler(printer)
        }
    };
    let client = client?;
    for vni in subscriptions(args) {
        client.subscribe(vni)?;
    }
    for announcement in &args.announce {
        let route = announcement.route;
        client.announce(announcement.vni, route.destination, route.next_hop)?;
    }
    let inspector = match &kernel {
        Some(kernel) => kernel.inspector(&client),
        None => client.inspector(),
    };
    let http = Http::start(args.http.as_deref(), Arc::clone(&inspector))?;
    let mut heartbeat = client.heartbeat();
    heartbeat.join(http.heartbeat());
    if let Some(kernel) = &kernel {
        heartbeat.join(kernel.heartbeat());
    }
    let reported = client.clone();
    // Ready at once: who waits for the servers looks at the status.
    let service = Service::start(environment, heartbeat, move || status(&reported));
    let reload = service.tell_of(reload(args, &client, kernel.as_ref()));
    let actions = control::actions(Arc::clone(&reload));
    hangups.call(move || drop(reload()))?;
    let control = args.control.as_ref();
    let control = Control::start(control, CLIENT_SOCKET, || inspector, actions)?;
    let ended = ending.wait();
    service.stopping();
    signals::within(STOP_TIMEOUT, "the client", move || {
        service.stop();
        control.stop();
        http.stop();
        if let Err(error) = client.shutdown() {
            log::warn!("the client: {error}");
        }
    });
    kernel.map_or(Ok(()), |kernel| kernel.stop())?;
    ended
}

impl ClientArgs {
    /// What the options mean to the library.
    pub(crate) fn settings(&self) -> ClientConfig {
        ClientConfig {
            keepalive_interval: self.keepalive,
            hold: Duration::from_secs(self.hold.into()),
            legacy_pacing: self.pacing.mode(),
            legacy_rate: self.pacing.rate(),
            ..ClientConfig::default()
        }
    }

    /// The VNIs asked for, and those that are to be installed.
    fn vnis(&self) -> BTreeSet<Vni> {
        let installed = self.install_routes.iter().map(|it| it.vni);
        self.subscribe.iter().copied().chain(installed).collect()
    }

    /// The routes to announce.
    fn routes(&self) -> BTreeSet<(Vni, Route)> {
        let announced = self.announce.iter();
        announced.map(|it| (it.vni, it.route)).collect()
    }
}

/// Reads the configuration of a running client again.
fn reload(args: &ClientArgs, client: &MetalBondClient, kernel: Option<&Kernel>) -> Reload {
    let (client, kernel) = (client.clone(), kernel.cloned());
    let live = match kernel {
        Some(_) => &LIVE[..],
        None => &LIVE[KERNEL..],
    };
    reload::make(args.clone(), live, move |old, new| {
        client.reconfigure(new.settings())?;
        if let Some(kernel) = &kernel {
            kernel.reconfigure(new, &client)?;
        }
        apply(&client, old, new)
    })
}

/// Applies the difference, and leaves alone what was changed in other ways meanwhile.
fn apply(client: &MetalBondClient, old: &ClientArgs, new: &ClientArgs) -> Result<(), Failure> {
    for (server, name) in client.servers() {
        if old.server.contains(&name) && !new.server.contains(&name) {
            client.remove_server(server)?;
        }
    }
    let present: BTreeSet<String> = client.servers().into_values().collect();
    for name in new.server.iter().filter(|it| !old.server.contains(it)) {
        if !present.contains(name) {
            client.add_server(name)?;
        }
    }
    let (before, vnis) = (old.vnis(), new.vnis());
    for vni in vnis.difference(&before) {
        client.subscribe(*vni)?;
    }
    for vni in before.difference(&vnis) {
        client.unsubscribe(*vni)?;
    }
    // What replaces a route comes before it goes.
    let (before, routes) = (old.routes(), new.routes());
    for (vni, route) in routes.difference(&before) {
        match client.announce(*vni, route.destination, route.next_hop) {
            Ok(()) | Err(Error::RouteAlreadyAnnounced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (vni, route) in before.difference(&routes) {
        match client.withdraw(*vni, route.destination, route.next_hop) {
            Ok(()) | Err(Error::RouteNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The VNIs asked for, and those that are to be installed; logs what may surprise.
fn subscriptions(args: &ClientArgs) -> BTreeSet<Vni> {
    let vnis = args.vnis();
    for vni in vnis.iter().filter(|it| !args.subscribe.contains(it)) {
        log::debug!(vni = vni.0; "VNI {vni}: subscribed, for --install-routes");
    }
    if vnis.is_empty() && args.announce.is_empty() {
        log::warn!("nothing to subscribe to and nothing to announce");
    }
    vnis
}

/// How the client fares, in a line.
fn status(client: &MetalBondClient) -> String {
    let (up, servers) = (client.connected_count(), client.server_count());
    let servers = count(servers, "server");
    let (synced, vnis) = (client.synced().len(), client.subscriptions().len());
    let vnis = count(vnis, "VNI");
    let routes = count(client.route_count(), "route");
    format!("{up} of {servers}, {synced} of {vnis} synced, {routes}")
}

/// Prints each change of a route.
struct Printer {
    /// Told when nobody reads that, if printing is all there is to do.
    ender: Option<Ender>,
    is_read: AtomicBool,
}

impl Printer {
    fn print(&self, sign: char, vni: Vni, route: Route) {
        if !self.is_read.load(Ordering::Relaxed) {
            return;
        }
        let reason = match print(format_args!("{sign} VNI {vni} {route}\n")) {
            Ok(Reader::There) => return,
            Ok(Reader::Gone) => Reason::NobodyReads,
            Err(failure) => Reason::Failed(failure),
        };
        self.is_read.store(false, Ordering::Relaxed);
        log::info!("routes are not printed any more: {reason}");
        if let Some(ender) = &self.ender {
            ender.end(reason);
        }
    }
}

impl RouteHandler for Printer {
    fn add_route(&self, vni: Vni, route: Route) {
        self.print('+', vni, route);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        self.print('-', vni, route);
    }

    fn synced(&self, vni: Vni) {
        log::info!(vni = vni.0; "VNI {vni}: table complete");
    }
}
