//! The page, the API and the metrics over HTTP, if this binary has them.

use std::sync::Arc;

use rustbond::Heartbeat;
use rustbond::inspect::Inspect;

use crate::cli::failure::Failure;
use crate::cli::options::Common;
use crate::cli::signals::Ender;

/// An HTTP server, if `--http` asked for one; stops when dropped.
pub(crate) struct Http {
    #[cfg(feature = "http")]
    server: Option<rustbond::http::HttpServer>,
}

impl Http {
    /// Starts the server if there is an address.
    #[cfg(feature = "http")]
    pub(crate) fn start(options: &Common, inspect: Arc<dyn Inspect>) -> Result<Self, Failure> {
        use rustbond::http::HttpServer;
        let server = options.http.as_deref().map(|address| {
            let failed = |error| Failure::of_address("--http", address, error);
            HttpServer::start_for(address, options.http_hosts.clone(), inspect).map_err(failed)
        });
        let server = server.transpose()?;
        Ok(Self { server })
    }

    /// Starts nothing: this binary has no HTTP, and `--http` was refused.
    #[cfg(not(feature = "http"))]
    pub(crate) fn start(_: &Common, _: Arc<dyn Inspect>) -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Returns the heartbeat of its thread; an empty one if there is no server.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        #[cfg(feature = "http")]
        if let Some(server) = &self.server {
            return server.heartbeat();
        }
        Heartbeat::default()
    }

    /// Has the command end when a thread of the server panics.
    pub(crate) fn end_with(&self, _ender: &Ender) -> Result<(), Failure> {
        #[cfg(feature = "http")]
        if let Some(server) = &self.server {
            return _ender.end_with(server.life());
        }
        Ok(())
    }

    /// Stops the server and drops what it shows.
    pub(crate) fn stop(self) {}
}
