//! `metalbond server`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustbond::{MetalBondServer, ServerConfig};

use crate::args::ServerArgs;
use crate::failure::Failure;
use crate::http::Http;
use crate::reload::{self, Reload};
use crate::{descriptors, logging, signals};

/// How long the sessions may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The options that can change while it runs.
pub(crate) const LIVE: [&str; 12] = [
    "handshake-timeout",
    "keepalive",
    "legacy-pacing",
    "legacy-rate",
    "max-accepts-per-second",
    "max-routes",
    "max-routes-per-peer",
    "max-sessions",
    "max-sessions-per-address",
    "max-subscriptions-per-peer",
    "queue-hard-limit",
    "queue-soft-limit",
];

/// Serves until a signal.
pub(crate) fn run(args: &ServerArgs) -> Result<(), Failure> {
    logging::start(args.log.level(), args.log.format());
    let (_ender, ending) = signals::catch()?;
    let hangups = signals::catch_hangups(args.config.file.is_some())?;
    let config = args.settings();
    match descriptors::raise_limit() {
        Ok(limit) if limit < config.max_sessions as u64 => log::debug!(
            "{limit} open files are allowed, fewer than --max-sessions {}",
            config.max_sessions
        ),
        Ok(_) => {}
        Err(error) => log::warn!("the limit of open files stays as it is: {error}"),
    }
    let server = MetalBondServer::start(&args.listen, config)
        .map_err(|error| Failure::of_address("--listen", &args.listen, error))?;
    let server = Arc::new(server);
    let shown = Arc::clone(&server);
    let http = Http::start(args.http.as_deref(), move || shown.routes())?;
    let reload = reload(args, Arc::downgrade(&server));
    hangups.call(move || drop(reload()))?;
    let ended = ending.wait();
    signals::within(STOP_TIMEOUT, "the server", move || {
        // The HTTP server asks the other for its routes.
        http.stop();
        drop(server);
    });
    ended
}

/// Reads the configuration of a running server again.
fn reload(args: &ServerArgs, server: Weak<MetalBondServer>) -> Reload {
    reload::make(args.clone(), &LIVE, move |_, new| {
        let server = server.upgrade();
        let server = server.ok_or_else(|| Failure::RunTime("the server is ending".into()))?;
        server.reconfigure(new.settings())?;
        Ok(())
    })
}

impl ServerArgs {
    /// What the options mean to the library.
    pub(crate) fn settings(&self) -> ServerConfig {
        let default = ServerConfig::default();
        let mut config = ServerConfig {
            keepalive_interval: self.keepalive,
            workers: self.workers.unwrap_or(default.workers),
            legacy_pacing: self.pacing.mode(),
            legacy_rate: self.pacing.rate(),
            ..default
        };
        self.limits.apply(&mut config);
        config
    }
}
