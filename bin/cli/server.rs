//! `metalbond server`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustbond::{Endpoint, Listener, MetalBondServer, ServerStats};

use crate::cli::control::{self, Control};
use crate::cli::failure::Failure;
use crate::cli::http::Http;
use crate::cli::options::{self, Change, Options};
use crate::cli::reload::{self, Reload};
use crate::cli::service::{Environment, Service, count};
use crate::cli::socket::SERVER_SOCKET;
use crate::cli::{descriptors, logging, signals};

/// How long the sessions may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub(crate) fn run(options: &Options, mut environment: Environment) -> Result<(), Failure> {
    logging::start(options.log_level(), options.common.log_format);
    options.log_warnings();
    let (ender, ending) = signals::catch()?;
    let hangups = signals::catch_hangups()?;
    let config = options.server.config.clone();
    match descriptors::raise_limit() {
        Ok(limit) if limit < config.max_sessions as u64 => log::debug!(
            "{limit} open files are allowed, fewer than --max-sessions {}",
            config.max_sessions
        ),
        Ok(_) => {}
        Err(error) => log::warn!("the limit of open files stays as it is: {error}"),
    }
    let mut listeners = environment.sockets.take_listeners()?;
    if listeners.is_empty() {
        listeners = bind(&options.server)?;
    }
    let server = MetalBondServer::start_on(listeners, config)?;
    let server = Arc::new(server);
    ender.end_with(server.life())?;
    let http = Http::start(&options.common, server.inspector())?;
    http.end_with(&ender)?;
    let mut heartbeat = server.heartbeat();
    heartbeat.join(http.heartbeat());
    let reported = Arc::clone(&server);
    let service = Service::start(environment, heartbeat, move || status(&reported.stats()));
    let drain_time = Arc::new(AtomicU32::new(options.server.drain));
    let reload = reload(options, Arc::downgrade(&server), Arc::clone(&drain_time));
    let reload = service.tell_of(reload);
    let actions = control::actions(Arc::clone(&reload));
    hangups.call(reload::at_hangup(options, reload))?;
    let control = options.common.control.as_ref();
    let control = Control::start(control, SERVER_SOCKET, || server.inspector(), actions)?;
    control.end_with(&ender)?;
    let ended = ending.wait();
    service.stopping();
    let drain_time = drain_time.load(Ordering::Relaxed);
    drain(&server, Duration::from_secs(drain_time.into()));
    signals::within(STOP_TIMEOUT, "the server", move || {
        // Each of these holds the server too.
        service.stop();
        control.stop();
        http.stop();
        drop(server);
    });
    ended
}

/// Listens at each endpoint of `--listen`.
fn bind(options: &options::Server) -> Result<Vec<Listener>, Failure> {
    let group = options.unix_group;
    let bind = |endpoint: &Endpoint| {
        Listener::for_group(endpoint, group)
            .map_err(|error| Failure::of_address("--listen", &endpoint.to_string(), error))
    };
    options.listen.iter().map(bind).collect()
}

/// Ends the sessions one after the other. A second signal, a second later, ends the process.
fn drain(server: &MetalBondServer, over: Duration) {
    if over.is_zero() {
        return;
    }
    if server.drain(over).wait(over + STOP_TIMEOUT).is_err() {
        log::warn!("sessions are left after {:?}", over + STOP_TIMEOUT);
    }
}

/// Returns the status of the server in a line.
fn status(stats: &ServerStats) -> String {
    let peers = count(stats.sessions, "peer");
    let vnis = count(stats.vnis, "VNI");
    let routes = count(stats.routes, "route");
    format!("{peers}, {vnis}, {routes}")
}

/// Reads the configuration of a running server again.
fn reload(options: &Options, server: Weak<MetalBondServer>, drain: Arc<AtomicU32>) -> Reload {
    let is_live = |change| change == Change::Live;
    reload::make(options.clone(), is_live, move |_, new| {
        let server = server.upgrade();
        let server = server.ok_or_else(|| Failure::RunTime("the server is ending".into()))?;
        server.reconfigure(new.server.config.clone())?;
        drain.store(new.server.drain, Ordering::Relaxed);
        Ok(())
    })
}
