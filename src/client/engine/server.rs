//! The servers of a client: their names, the way to a connection, what the log says of them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use mio::Token;

use super::Engine;
use crate::client::mail::Mail;
use crate::core::client::{ConnectionState, ServerId};
use crate::core::session::CloseReason;
use crate::error::Result;
use crate::net::{Conn, Endpoint, Peer, Stream};

/// Different complaints about a server that are remembered.
const COMPLAINTS: usize = 16;

/// A server as its caller gave it, and what became of it.
pub(super) struct Server {
    /// As it was given.
    pub(super) name: String,
    endpoint: Endpoint,
    /// Since when it is established.
    since: Option<Instant>,
    /// The different complaints since it was last established.
    complaints: BTreeSet<String>,
    /// Attempts so far; a name with several addresses is tried at one after the other.
    attempts: usize,
}

impl Server {
    /// A server to be reached from the address `bind` if that is given.
    pub(super) fn new(name: String, bind: Option<IpAddr>) -> Result<Self> {
        let endpoint: Endpoint = name.parse()?;
        Ok(Self {
            name,
            endpoint: endpoint.with_source(bind),
            since: None,
            complaints: BTreeSet::new(),
            attempts: 0,
        })
    }
}

impl Engine {
    pub(super) fn dial(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get(&id) else {
            return;
        };
        if let Some(address) = server.endpoint.address() {
            self.connect(id, address, now);
            return;
        }
        // Asking a resolver takes its time; the other servers do not wait for it.
        let (endpoint, postbox) = (server.endpoint.clone(), self.postbox.clone());
        let resolve = move || {
            postbox.post(Mail::Resolved(id, endpoint.resolve()), 1);
        };
        let thread = std::thread::Builder::new().name("metalbond-resolve".into());
        if let Err(error) = thread.spawn(resolve) {
            self.core.lost(id, CloseReason::Io(error.kind()), now);
        }
    }

    pub(super) fn resolved(
        &mut self,
        id: ServerId,
        addresses: io::Result<Vec<SocketAddr>>,
        now: Instant,
    ) {
        let Some(server) = self.servers.get(&id) else {
            return;
        };
        if !self.core.is_dialling(id) || self.turn.get(id).is_some() {
            return;
        }
        let why = match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                let at = server.attempts % addresses.len();
                self.connect(id, addresses[at], now);
                return;
            }
            Ok(_) => "the name has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        self.complain(id, &why);
        self.core.lost(id, CloseReason::Unresolved, now);
    }

    fn connect(&mut self, id: ServerId, address: SocketAddr, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        server.attempts += 1;
        let conn = Stream::dial(&server.endpoint, address).and_then(|stream| {
            stream.tune(self.config.user_timeout)?;
            let peer = Peer::at(address);
            Conn::dialled(stream, peer, self.poll.registry(), Token(id.0))
        });
        match conn {
            Ok(conn) => self.turn.insert(id, conn),
            Err(error) => {
                let name = &server.name;
                log::debug!(peer:% = name; "server {name}: {address}: {error}");
                self.core.lost(id, CloseReason::Io(error.kind()), now);
            }
        }
    }

    pub(super) fn log_state(&mut self, id: ServerId, state: ConnectionState, now: Instant) {
        match state {
            ConnectionState::Established => {
                if let Some(server) = self.servers.get_mut(&id) {
                    server.since = Some(now);
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
    fn complain(&mut self, id: ServerId, text: &str) {
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
