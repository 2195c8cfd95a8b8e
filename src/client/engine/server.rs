//! The servers of a client: their names, and what the log says of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::Engine;
use super::dial::{Addresses, Dial};
use crate::core::client::{ConnectionState, ServerId};
use crate::error::{Error, Result};
use crate::net::Endpoint;

/// Different complaints about a server that are remembered.
const COMPLAINTS: usize = 16;

/// A server as its caller gave it, and what became of it.
pub(super) struct Server {
    /// As it was given.
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    /// The addresses of its name.
    pub(super) addresses: Addresses,
    /// How far the way to a connection is.
    pub(super) dial: Dial,
    /// Since when it is established.
    since: Option<Instant>,
    /// The different complaints since it was last established.
    complaints: BTreeSet<String>,
}

impl Server {
    /// A server to be reached from the address `bind` if that is given.
    pub(super) fn new(name: String, bind: Option<IpAddr>) -> Result<Self> {
        let endpoint: Endpoint = name.parse()?;
        if endpoint.port() == Some(0) {
            return Err(Error::InvalidConfig(format!(
                "server {name}: nobody listens on port 0"
            )));
        }
        Ok(Self {
            name,
            endpoint: endpoint.with_source(bind),
            addresses: Addresses::default(),
            dial: Dial::Idle,
            since: None,
            complaints: BTreeSet::new(),
        })
    }
}

impl Engine {
    pub(super) fn log_state(&mut self, id: ServerId, state: ConnectionState, now: Instant) {
        match state {
            ConnectionState::Established => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.since = Some(now);
                    server.dial.established(&mut server.addresses);
                    server.complaints.clear();
                    let name = &server.name;
                    log::info!(peer:% = name; "server {name}: established");
                }
            }
            ConnectionState::Retry => {
                let reason = self.core.last_loss(id);
                let reason = reason.map_or_else(String::new, |reason| reason.to_string());
                let twin = self.core.twin(id).and_then(|it| self.servers.get(&it));
                if let Some(name) = twin.map(|it| it.name.clone()) {
                    let text =
                        format!("the same server as {name}, which stays; remove one of them");
                    return self.complain(id, &text);
                }
                let server = self.servers.get_mut(&id);
                let Some(since) = server.and_then(|server| server.since.take()) else {
                    return self.complain(id, &format!("{reason}; trying again"));
                };
                let name = self.servers.get(&id).map_or("", |it| &it.name);
                let seconds = now.saturating_duration_since(since).as_secs();
                log::warn!(peer = name, reason = reason.as_str(), seconds = seconds;
                    "server {name}: session ended after {seconds} s: {reason}; trying again");
            }
            ConnectionState::Connecting
            | ConnectionState::HelloSent
            | ConnectionState::HelloReceived
            | ConnectionState::Closed => {}
        }
    }

    /// Warns of a problem with a server. A repeated complaint is logged once until the server
    /// is established again.
    pub(super) fn complain(&mut self, id: ServerId, text: &str) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if server.complaints.len() >= COMPLAINTS {
            server.complaints.clear();
        }
        let is_new = server.complaints.insert(text.into());
        let level = if is_new {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        let name = &server.name;
        log::log!(level, peer:% = name; "server {name}: {text}");
    }
}
