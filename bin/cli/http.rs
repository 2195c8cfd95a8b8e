//! The page, the API and the metrics over HTTP, if this binary has them.

use std::sync::Arc;

use rustbond::Heartbeat;
use rustbond::inspect::Inspect;

use crate::cli::failure::Failure;

/// An HTTP server, if `--http` asked for one; stops when dropped.
pub(crate) struct Http {
    #[cfg(feature = "http")]
    server: Option<rustbond::http::HttpServer>,
}

impl Http {
    /// Starts the server if there is an address.
    #[cfg(feature = "http")]
    pub(crate) fn start(address: Option<&str>, inspect: Arc<dyn Inspect>) -> Result<Self, Failure> {
        use rustbond::http::HttpServer;
        let server = address.map(|address| {
            let failed = |error| Failure::of_address("--http", address, error);
            HttpServer::start(address, inspect).map_err(failed)
        });
        let server = server.transpose()?;
        Ok(Self { server })
    }

    /// Starts nothing: this binary has no HTTP, and `--http` was refused.
    #[cfg(not(feature = "http"))]
    pub(crate) fn start(_: Option<&str>, _: Arc<dyn Inspect>) -> Result<Self, Failure> {
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

    /// Stops the server and drops what it shows.
    pub(crate) fn stop(self) {}
}
