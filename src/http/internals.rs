//! Requests and the bytes of their answers, without a socket.

use std::sync::OnceLock;

use super::api::{Chunk, Request, Response, respond};
use super::cache::SnapshotCache;
use super::fake::Fake;
use super::message::{self, Delimiter, LAST_CHUNK, Parsed};
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::inspect::{Announcers, RouteEntry};

/// What the bytes received so far lead to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    Wait,
    /// Another request may follow after so many bytes; the answer's bytes, its body in chunks
    /// if it is long.
    Sent(usize, Vec<u8>),
    /// The answer's bytes, after which the connection ends.
    Refused(Vec<u8>),
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

pub fn serve(bytes: &[u8]) -> Answer {
    let parsed = Parsed::of(bytes);
    if let Some(problem) = parsed.problem() {
        return Answer::Refused(sent(problem, false));
    }
    let Parsed::Complete(head, len) = parsed else {
        return Answer::Wait;
    };
    let cache = SnapshotCache::default();
    let request = Request::new(&head.method, &head.target);
    let response = respond(&request, shown(), &cache);
    Answer::Sent(len, sent(response, head.takes_chunks))
}

fn sent(mut response: Response, takes_chunks: bool) -> Vec<u8> {
    let delimiter = Delimiter::of(&response, takes_chunks);
    let mut out = message::head(&response, delimiter, false);
    let mut put = |bytes: &[u8]| match delimiter {
        Delimiter::Chunks => out.extend(message::chunk(bytes)),
        Delimiter::Length(_) | Delimiter::Close => out.extend_from_slice(bytes),
    };
    loop {
        match response.body.next() {
            Chunk::More(bytes) => put(&bytes),
            Chunk::Last(bytes) => {
                put(&bytes);
                break;
            }
        }
    }
    if delimiter == Delimiter::Chunks {
        out.extend_from_slice(LAST_CHUNK);
    }
    out
}
