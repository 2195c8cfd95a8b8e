//! `metalbond server`.

use std::time::Duration;

use rustbond::{MetalBondServer, ServerConfig};

use crate::args::ServerArgs;
use crate::control::{Actions, Control, SERVER_SOCKET};
use crate::failure::Failure;
use crate::http::Http;
use crate::{descriptors, logging, signals};

/// How long the sessions may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub(crate) fn run(args: &ServerArgs) -> Result<(), Failure> {
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
    let server = MetalBondServer::start(&args.listen, config)
        .map_err(|error| Failure::of_address("--listen", &args.listen, error))?;
    let http = Http::start(args.http.as_deref(), || server.inspector())?;
    let control = args.control.as_ref();
    let control = Control::start(
        control,
        SERVER_SOCKET,
        || server.inspector(),
        Actions::default(),
    )?;
    let ended = ending.wait();
    signals::within(STOP_TIMEOUT, "the server", move || {
        // Both ask the server.
        control.stop();
        http.stop();
        drop(server);
    });
    ended
}
