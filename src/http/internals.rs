//! Requests and the bytes of their responses, without a socket.

use std::sync::OnceLock;

use super::api::{self, respond};
use super::cache::SnapshotCache;
use super::codec::{Bodies, Exchange, Step};
use super::fake::Fake;
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::inspect::{Announcers, RouteEntry};

/// Which listener the bytes come to.
#[derive(Clone, Copy, Debug)]
pub enum Listener {
    /// The HTTP server: bodies of requests are not read.
    Http,
    /// The control socket: bodies of requests are read.
    Control,
}

/// What came of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Served {
    /// The bytes of each response.
    pub responses: Vec<Vec<u8>>,
    /// The methods of the requests, in their order.
    pub methods: Vec<String>,
    /// The bodies of the requests, in their order.
    pub bodies: Vec<Vec<u8>>,
    /// Another request may follow.
    pub is_open: bool,
}

/// A table of three routes.
fn shown() -> &'static Fake {
    static FAKE: OnceLock<Fake> = OnceLock::new();
    FAKE.get_or_init(|| {
        let fake = Fake::default();
        *fake.entries.lock() = (0..3)
            .map(|number| RouteEntry {
                vni: Vni(number / 2),
                route: Route::new(
                    Destination::from_ipv4(number.into(), 32),
                    NextHop::standard(std::net::Ipv6Addr::LOCALHOST),
                ),
                announcers: Announcers::One(number),
                is_suppressed: false,
            })
            .collect();
        fake
    })
}

/// Serves a connection whose bytes come in these pieces.
pub fn serve(listener: Listener, pieces: &[&[u8]]) -> Served {
    let mut exchange = Exchange::new(match listener {
        Listener::Http => Bodies::Ignored,
        Listener::Control => Bodies::Read,
    });
    let cache = SnapshotCache::default();
    let mut served = Served {
        responses: Vec::new(),
        methods: Vec::new(),
        bodies: Vec::new(),
        is_open: true,
    };
    let mut response = Vec::new();
    let mut pieces = pieces.iter().copied();
    let mut unread: &[u8] = &[];
    loop {
        match exchange.step() {
            Step::Receive => {
                while unread.is_empty() {
                    match pieces.next() {
                        Some(piece) => unread = piece,
                        None => return served,
                    }
                }
                let count = exchange.room().min(unread.len());
                exchange.receive(&unread[..count]);
                unread = &unread[count..];
            }
            Step::Respond(request) => {
                let asked = api::Request::new(&request.method, &request.target);
                exchange.respond(respond(&asked, shown(), &cache));
                served.methods.push(request.method);
                served.bodies.push(request.body);
            }
            Step::Send => {
                let bytes = exchange.unsent();
                response.extend_from_slice(bytes);
                let count = bytes.len();
                exchange.sent(count);
            }
            Step::Sent => served.responses.push(std::mem::take(&mut response)),
            Step::Wait | Step::Close => {
                served.is_open = false;
                return served;
            }
        }
    }
}
