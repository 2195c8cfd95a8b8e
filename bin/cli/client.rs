//! `metalbond client`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustbond::{Error, MetalBondClient, Route, RouteHandler, Vni};

use crate::cli::control::{self, Control};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::kernel::Kernel;
use crate::cli::options::{Change, Client, Options};
use crate::cli::output::{Reader, print};
use crate::cli::reload::{self, Reload};
use crate::cli::service::{Environment, Service, count};
use crate::cli::signals::{Ender, Reason};
use crate::cli::socket::CLIENT_SOCKET;
use crate::cli::{logging, signals};

/// How long the sessions may take to end, and a reader to take the last output.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Subscribes, announces and installs until a signal.
pub(crate) fn run(options: &Options, environment: Environment) -> Result<(), Failure> {
    logging::start(options.log_level(), options.common.log_format);
    let (ender, ending) = signals::catch()?;
    let hangups = signals::catch_hangups()?;
    options.log_warnings();
    let args = &options.client;
    let kernel = Kernel::start(args)?;
    let builder = MetalBondClient::builder()
        .config(args.config.clone())
        .servers(&args.servers);
    let client = match &kernel {
        Some(kernel) => kernel.client(builder),
        None => {
            let has_other_work = !args.announce.is_empty() || options.common.http.is_some();
            let printer = Printer {
                ender: (!has_other_work).then(|| ender.clone()),
                is_read: AtomicBool::new(true),
            };
            builder.handler(printer)
        }
    };
    let client = client?;
    ender.end_with(client.life())?;
    if let Some(kernel) = &kernel {
        ender.end_with(kernel.life())?;
    }
    // What is announced suppresses what others announce for the same destinations: announced
    // first, no such route is told, installed and removed again.
    for announcement in &args.announce {
        let route = announcement.route;
        client.announce(announcement.vni, route.destination, route.next_hop)?;
    }
    let vnis = args.vnis();
    if vnis.is_empty() && args.announce.is_empty() {
        log::warn!("nothing to subscribe to and nothing to announce");
    }
    for vni in vnis {
        client.subscribe(vni)?;
    }
    if let Some(kernel) = &kernel {
        kernel.release_unsubscribed(args, &client)?;
    }
    let inspector = match &kernel {
        Some(kernel) => kernel.inspector(&client),
        None => client.inspector(),
    };
    let http = Http::start(&options.common, Arc::clone(&inspector))?;
    http.end_with(&ender)?;
    let mut heartbeat = client.heartbeat();
    heartbeat.join(http.heartbeat());
    if let Some(kernel) = &kernel {
        heartbeat.join(kernel.heartbeat());
    }
    let reported = client.clone();
    // The client is ready at once; its status tells how many servers are connected.
    let service = Service::start(environment, heartbeat, move || status(&reported));
    let reload = service.tell_of(reload(options, &client, kernel.as_ref()));
    let actions = control::actions(Arc::clone(&reload));
    hangups.call(reload::at_hangup(options, reload))?;
    let control = options.common.control.as_ref();
    let control = Control::start(control, CLIENT_SOCKET, || inspector, actions)?;
    control.end_with(&ender)?;
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
    let stopped = kernel.map_or(Ok(()), |kernel| kernel.stop(&ended));
    ended.and(stopped)
}

/// Reads the configuration of a running client again.
fn reload(options: &Options, client: &MetalBondClient, kernel: Option<&Kernel>) -> Reload {
    let (client, kernel) = (client.clone(), kernel.cloned());
    let is_live: reload::IsLive = match kernel {
        Some(_) => |change| matches!(change, Change::Live | Change::LiveIfInstalling),
        None => |change| change == Change::Live,
    };
    reload::make(options.clone(), is_live, move |old, new| {
        let (old, new) = (&old.client, &new.client);
        client.reconfigure(new.config.clone())?;
        if let Some(kernel) = &kernel {
            kernel.reconfigure(new, &client)?;
        }
        apply(&client, old, new)?;
        if let Some(kernel) = &kernel {
            kernel.release_unsubscribed(new, &client)?;
        }
        Ok(())
    })
}

/// Applies the difference between two configurations. Keeps what was changed in other ways.
fn apply(client: &MetalBondClient, old: &Client, new: &Client) -> Result<(), Failure> {
    for (server, name) in client.servers() {
        if old.servers.contains(&name) && !new.servers.contains(&name) {
            client.remove_server(server)?;
        }
    }
    let present: BTreeSet<String> = client.servers().into_values().collect();
    for name in new.servers.iter().filter(|it| !old.servers.contains(it)) {
        if !present.contains(name) {
            client.add_server(name)?;
        }
    }
    // Announce before withdrawing, so that a replaced route leaves no gap, and before
    // subscribing, as at the start. Withdraw after unsubscribing: that is the same backwards.
    // Unsubscribe before subscribing, so that there is room.
    let (routes_before, routes) = (old.routes(), new.routes());
    for (vni, route) in routes.difference(&routes_before) {
        match client.announce(*vni, route.destination, route.next_hop) {
            Ok(()) | Err(Error::RouteAlreadyAnnounced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (before, vnis) = (old.vnis(), new.vnis());
    for vni in before.difference(&vnis) {
        client.unsubscribe(*vni)?;
    }
    for vni in vnis.difference(&before) {
        match client.subscribe(*vni) {
            // Others were subscribed to over the control socket. The rest applies all the same,
            // or the next reload would not know what this one did.
            Err(error @ Error::TooManyVnis(_)) => log::warn!("VNI {vni}: {error}"),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    for (vni, route) in routes_before.difference(&routes) {
        match client.withdraw(*vni, route.destination, route.next_hop) {
            Ok(()) | Err(Error::RouteNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns the status of the client in a line.
fn status(client: &MetalBondClient) -> String {
    let (up, servers) = (client.connected_count(), client.server_count());
    let servers = count(servers, "server");
    let tables = || -> rustbond::Result<String> {
        let (synced, vnis) = (client.synced()?.len(), client.subscriptions()?.len());
        let vnis = count(vnis, "VNI");
        let routes = count(client.route_count()?, "route");
        Ok(format!("{synced} of {vnis} synced, {routes}"))
    };
    match tables() {
        Ok(tables) => format!("{up} of {servers}, {tables}"),
        Err(error) => error.to_string(),
    }
}

/// Prints each change of a route.
struct Printer {
    /// Ends the command when nobody reads the output, if it has no other work.
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
