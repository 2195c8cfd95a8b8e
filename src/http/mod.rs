//! Shows a server or client over HTTP: the page, the API, metrics, and the routing table with
//! the schema of Go MetalBond.
//!
//! ```text
//! HttpServer --Stop--> metalbond-http: listener, at most 32 connections
//!                        | Query     ^ Response
//!                        v           |
//!                      metalbond-query, metalbond-snapshot: ask the Inspect
//! ```
//!
//! The loop gives slow requests to other threads, and makes long responses piece by piece while
//! they are sent. Each step of a connection has a deadline, which ends silent and slow ones.
//!
//! `control` serves the same requests on a Unix socket, and others that change something. Both
//! use the modules below; nothing in a lower row names a higher one:
//!
//! ```text
//! worker, connection, helper        control
//! codec (bytes)                     api (which request gets which response)
//!                                   cache, metrics, page
//! response (statuses, headers, media types, bodies)
//! ```

mod api;
mod cache;
mod codec;
mod connection;
mod control;
#[cfg(any(test, feature = "internals"))]
mod fake;
mod helper;
mod host;
#[cfg(feature = "internals")]
#[allow(missing_docs, reason = "not an interface for anybody else")]
pub(crate) mod internals;
mod mail;
mod metrics;
mod page;
mod response;
#[cfg(test)]
mod tests;
mod worker;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::inspect::Inspect;
use crate::life::Life;
use crate::net::{Postbox, listen_on_first};
pub use control::{Actions, ControlSocket, Outcome};
use helper::Helpers;
use host::Hosts;
use mail::Mail;
use worker::{Entrance, Worker};

const THREAD_NAME: &str = "metalbond-http";

/// A running HTTP server.
///
/// [`Self::shutdown`] and dropping it stop it. Both wait for its threads, which finish the
/// responses that they are making: milliseconds, for a million routes part of a second.
pub struct HttpServer {
    address: SocketAddr,
    postbox: Postbox<Mail>,
    thread: Option<JoinHandle<()>>,
    life: Life,
}

impl HttpServer {
    /// Starts a server on `address` that shows what `inspect` returns.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or if the system has no threads or descriptors
    /// left.
    pub fn start(address: impl ToSocketAddrs, inspect: Arc<dyn Inspect>) -> Result<Self> {
        Self::start_for(address, Vec::new(), inspect)
    }

    /// Starts a server that answers to more host names: those of a proxy before it, for example.
    ///
    /// A server on loopback answers only requests whose `Host` is an address, `localhost`, the
    /// name of this machine or one of `hosts`, so that no page from elsewhere can read it
    /// through a browser. Another server checks that only if there are `hosts`.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_for(
        address: impl ToSocketAddrs,
        hosts: Vec<String>,
        inspect: Arc<dyn Inspect>,
    ) -> Result<Self> {
        let listener = listen_on_first(address)?;
        let address = listener
            .local_addr()
            .map_err(Error::io("read the listening address"))?;
        let (entrance, postbox) =
            Entrance::new(listener).map_err(Error::io("register the listener"))?;
        let life = Life::default();
        let helpers = Helpers::start(inspect, &postbox, &life)?;
        let worker = Worker::new(entrance, helpers, Hosts::new(address, hosts));
        let (guard, ended) = (life.guard(THREAD_NAME, || {}), life.clone());
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.into())
            .spawn(move || {
                let _guard = guard;
                worker.run();
                ended.stop();
            })
            .map_err(Error::io("start a thread"))?;
        log::info!("serving HTTP on {address}");
        Ok(Self {
            address,
            postbox,
            thread: Some(thread),
            life,
        })
    }

    /// Whether the server's threads still run, and how they ended.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// Returns the address of the listener, with the chosen port if it was 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the heartbeat of the server's thread, to see whether its loop turns.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(vec![self.postbox.beat(THREAD_NAME)])
    }

    /// Stops the server. Responses that are being sent are cut off.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.postbox.post(Mail::Stop, 1);
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
