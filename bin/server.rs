//! `metalbond server`.

use std::sync::Arc;
use std::time::Duration;

use rustbond::{MetalBondServer, ServerConfig};

use crate::args::ServerArgs;
use crate::failure::Failure;
use crate::http::Http;
use crate::{logging, signals};

/// How long the sessions may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until a signal.
pub(crate) fn run(args: &ServerArgs) -> Result<(), Failure> {
    logging::start(logging::level(args.verbose));
    let (_ender, ending) = signals::catch()?;
    let default = ServerConfig::default();
    let config = ServerConfig {
        keepalive_interval: args.keepalive,
        workers: args.workers.unwrap_or(default.workers),
        ..default
    };
    let server = MetalBondServer::start(&args.listen, config)
        .map_err(|error| Failure::of_address("--listen", &args.listen, error))?;
    let server = Arc::new(server);
    let shown = Arc::clone(&server);
    let http = Http::start(args.http.as_deref(), move || shown.routes())?;
    ending.wait();
    signals::within(STOP_TIMEOUT, "the server", move || {
        // The HTTP server asks the other for its routes.
        http.stop();
        drop(server);
    });
    Ok(())
}
