//! Shows a server or client over HTTP: the page, the API, metrics, and the routing table with
//! the schema of Go MetalBond.
//!
//! ```text
//! HttpServer --Stop--> metalbond-http: listener, at most 32 connections
//!                        | Query     ^ Answer
//!                        v           |
//!                      metalbond-query, metalbond-snapshot: ask the Inspect
//! ```
//!
//! The loop answers nothing that takes time itself, and makes long answers piece by piece as
//! their readers take them. Each step of a connection has a deadline, so that silent and slow
//! ones pass.

mod api;
mod cache;
mod connection;
mod control;
#[cfg(any(test, feature = "internals"))]
mod fake;
mod helper;
#[cfg(feature = "internals")]
#[allow(missing_docs, reason = "not an interface for anybody else")]
pub(crate) mod internals;
mod message;
mod metrics;
mod page;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::inspect::Inspect;
use crate::net::{Postbox, listen_on_first};
pub use control::{Actions, ControlSocket, Outcome};
use helper::Helpers;
use worker::{Entrance, Told, Worker};

const THREAD_NAME: &str = "metalbond-http";

/// A running HTTP server.
///
/// Stops when told to by [`Self::shutdown`], or when dropped; both wait for its threads, which
/// end after the answers they are making (milliseconds, for a million routes part of a second).
pub struct HttpServer {
    address: SocketAddr,
    postbox: Postbox<Told>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server on `address` that shows what `inspect` tells.
    ///
    /// # Errors
    ///
    /// An address that cannot be listened on, or a system that has no threads or
    /// descriptors left.
    pub fn start(address: impl ToSocketAddrs, inspect: Arc<dyn Inspect>) -> Result<Self> {
        let listener = listen_on_first(address)?;
        let address = listener
            .local_addr()
            .map_err(Error::io("read the listening address"))?;
        let (entrance, postbox) =
            Entrance::new(listener).map_err(Error::io("register the listener"))?;
        let helpers = Helpers::start(inspect, &postbox)?;
        let worker = Worker::new(entrance, helpers);
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
        self.postbox.post(Told::Stop, 1);
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
