//! `metalbond client`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustbond::{ClientConfig, Error, MetalBondClient, Route, RouteHandler, Vni};

use crate::args::ClientArgs;
use crate::control::{Actions, CLIENT_SOCKET, Control};
use crate::failure::Failure;
use crate::http::Http;
use crate::kernel::Kernel;
use crate::output::{Reader, print};
use crate::signals::{Ender, Reason};
use crate::{logging, signals};

/// How long the sessions may take to end, and what is being printed to be read.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Subscribes, announces and installs until a signal.
pub(crate) fn run(args: &ClientArgs) -> Result<(), Failure> {
    logging::start(logging::level(args.verbose));
    let (ender, ending) = signals::catch()?;
    let kernel = Kernel::start(args)?;
    let config = ClientConfig {
        keepalive_interval: args.keepalive,
        hold: Duration::from_secs(args.hold.into()),
        legacy_pacing: args.pacing.mode(),
        legacy_rate: args.pacing.rate(),
        ..ClientConfig::default()
    };
    let client = match &kernel {
        Some(kernel) => MetalBondClient::start(&args.server, kernel.handler(), config),
        None => {
            let has_other_work = !args.announce.is_empty() || args.http.is_some();
            let printer = Printer {
                ender: (!has_other_work).then_some(ender),
                is_read: AtomicBool::new(true),
            };
            MetalBondClient::start(&args.server, printer, config)
        }
    };
    // Of its settings, only the number of servers was not looked at before.
    let client = client.map_err(|error| match error {
        Error::InvalidConfig(text) => Failure::Argument(format!("--server: {text}")),
        error => error.into(),
    })?;
    for vni in subscriptions(args) {
        client.subscribe(vni)?;
    }
    for announcement in &args.announce {
        let route = announcement.route;
        client.announce(announcement.vni, route.destination, route.next_hop)?;
    }
    let http = Http::start(args.http.as_deref(), || client.inspector())?;
    let control = args.control.as_ref();
    let control = Control::start(
        control,
        CLIENT_SOCKET,
        || client.inspector(),
        Actions::default(),
    )?;
    let ended = ending.wait();
    signals::within(STOP_TIMEOUT, "the client", move || {
        control.stop();
        http.stop();
        if let Err(error) = client.shutdown() {
            log::warn!("the client: {error}");
        }
    });
    kernel.map_or(Ok(()), |kernel| kernel.stop())?;
    ended
}

/// The VNIs asked for, and those that are to be installed.
fn subscriptions(args: &ClientArgs) -> BTreeSet<Vni> {
    let mut vnis: BTreeSet<Vni> = args.subscribe.iter().copied().collect();
    for mapping in &args.install_routes {
        if vnis.insert(mapping.vni) {
            log::info!("VNI {}: subscribed, for --install-routes", mapping.vni);
        }
    }
    if vnis.is_empty() && args.announce.is_empty() {
        log::warn!("nothing to subscribe to and nothing to announce");
    }
    vnis
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
        log::info!("VNI {vni}: table complete");
    }
}
