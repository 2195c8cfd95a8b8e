//! `metalbond server`.

use std::sync::Arc;
use std::time::Duration;

use rustbond::{MetalBondServer, ServerConfig, ServerStats};

use crate::args::ServerArgs;
use crate::failure::Failure;
use crate::http::Http;
use crate::service::{Environment, Service, count};
use crate::{descriptors, logging, signals};

/// How long the sessions may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub(crate) fn run(args: &ServerArgs, mut environment: Environment) -> Result<(), Failure> {
    logging::start(logging::level(args.verbose));
    let (_ender, ending) = signals::catch()?;
    let default = ServerConfig::default();
    let mut config = ServerConfig {
        keepalive_interval: args.keepalive,
        workers: args.workers.unwrap_or(default.workers),
        legacy_pacing: args.pacing.mode(),
        legacy_rate: args.pacing.rate(),
        ..default
    };
    args.limits.apply(&mut config);
    match descriptors::raise_limit() {
        Ok(limit) if limit < config.max_sessions as u64 => log::debug!(
            "{limit} open files are allowed, fewer than --max-sessions {}",
            config.max_sessions
        ),
        Ok(_) => {}
        Err(error) => log::warn!("the limit of open files stays as it is: {error}"),
    }
    let server = match environment.sockets.take_listener()? {
        Some(listener) => MetalBondServer::start_on(listener, config)?,
        None => MetalBondServer::start(&args.listen, config)
            .map_err(|error| Failure::of_address("--listen", &args.listen, error))?,
    };
    let server = Arc::new(server);
    let shown = Arc::clone(&server);
    let http = Http::start(args.http.as_deref(), move || shown.routes())?;
    let mut heartbeat = server.heartbeat();
    heartbeat.join(http.heartbeat());
    let reported = Arc::clone(&server);
    let service = Service::start(environment, heartbeat, move || status(&reported.stats()));
    let ended = ending.wait();
    service.stopping();
    drain(&server, Duration::from_secs(args.drain.into()));
    signals::within(STOP_TIMEOUT, "the server", move || {
        // These hold the server too.
        service.stop();
        http.stop();
        drop(server);
    });
    ended
}

/// Ends the sessions one after the other; a second signal ends the process meanwhile.
fn drain(server: &MetalBondServer, over: Duration) {
    if over.is_zero() {
        return;
    }
    if server.drain(over).wait(over + STOP_TIMEOUT).is_err() {
        log::warn!("sessions are left after {:?}", over + STOP_TIMEOUT);
    }
}

/// How the server fares, in a line.
fn status(stats: &ServerStats) -> String {
    let peers = count(stats.sessions, "peer");
    let vnis = count(stats.vnis, "VNI");
    let routes = count(stats.routes, "route");
    format!("{peers}, {vnis}, {routes}")
}
