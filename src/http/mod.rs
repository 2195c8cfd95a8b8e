//! Shows a routing table over HTTP, with the schema of Go MetalBond.
//!
//! ```text
//! HttpServer --Stop--> metalbond-http: listener, at most 32 connections, the source
//! ```
//!
//! `/routes.json` and `/routes.yaml` are the table, `/` names the two. A connection serves one
//! request and has a deadline for each of its steps, so that silent and slow ones pass.

mod connection;
mod render;
mod request;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::net::{Postbox, listen_on_first};
use crate::types::{Route, Vni};
use worker::{Stop, Worker};

const THREAD_NAME: &str = "metalbond-http";

/// A running HTTP server.
///
/// Stops when told to by [`Self::shutdown`], or when dropped; both wait for its thread, which
/// ends after the answer it is making (milliseconds, for a million routes seconds).
pub struct HttpServer {
    address: SocketAddr,
    postbox: Postbox<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server on `address` that shows what `source` returns, in any order.
    ///
    /// `source` is called for every table that is asked for, on the server's thread, and is
    /// dropped with it.
    ///
    /// # Errors
    ///
    /// An address that cannot be listened on, or a system that has no threads or
    /// descriptors left.
    pub fn start(
        address: impl ToSocketAddrs,
        source: impl Fn() -> Vec<(Vni, Route)> + Send + 'static,
    ) -> Result<Self> {
        let listener = listen_on_first(address)?;
        let address = listener
            .local_addr()
            .map_err(Error::io("read the listening address"))?;
        let (worker, postbox) =
            Worker::new(listener, source).map_err(Error::io("register the listener"))?;
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || worker.run())
            .map_err(Error::io("start a thread"))?;
        log::info!("serving HTTP on {address}");
        Ok(Self {
            address,
            postbox,
            thread: Some(thread),
        })
    }

    /// The address listened on, with the port that was chosen if it was 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The loop of the server's thread, to see whether it turns.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(vec![self.postbox.beat(THREAD_NAME)])
    }

    /// Stops the server; what is being sent is cut off.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.postbox.post(Stop, 1);
        if thread.join().is_err() {
            log::error!("the HTTP thread had panicked");
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop();
    }
}
