//! The routing table over HTTP, where it is built in.

use rustbond::{Route, Vni};

use crate::failure::Failure;

#[cfg(feature = "http")]
pub(crate) type Http = rustbond::http::HttpServer;

/// There is none; `--http` was refused.
#[cfg(not(feature = "http"))]
pub(crate) struct Http;

/// Starts it if `--http` says so.
pub(crate) fn start(
    address: Option<&str>,
    source: impl Fn() -> Vec<(Vni, Route)> + Send + 'static,
) -> Result<Option<Http>, Failure> {
    let Some(address) = address else {
        return Ok(None);
    };
    #[cfg(feature = "http")]
    {
        let started = rustbond::http::HttpServer::start(address, source);
        let failed = |error| Failure::of_address("--http", address, error);
        started.map(Some).map_err(failed)
    }
    #[cfg(not(feature = "http"))]
    {
        drop(source);
        let text = format!("--http {address}: this metalbond was built without HTTP");
        Err(Failure::Argument(text))
    }
}
