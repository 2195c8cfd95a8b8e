//! What happens, a line of JSON for each event, until the peer has seen enough.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use socket2::SockRef;

use super::connection::{LAST_CHUNK, append_chunk, status_line};
use super::listener::Shared;
use crate::core::types::Action;
use crate::error::Error;
use crate::http::api::{self, Params, Response, RouteRow, Status, write_json};
use crate::inspect::{Watch, WatchEvent};

/// Where it is.
pub(super) const PATH: &str = "/api/v1/monitor";

/// How soon the end is noticed while nothing happens: of the process, and of the peer.
const WAIT: Duration = Duration::from_millis(200);

/// Bytes of lines that are written at once, about.
const CHUNK: usize = 64 * 1024;

pub(super) struct Monitor<'a> {
    shared: &'a Shared,
    watch: Watch,
    /// What was so before comes first.
    is_before: bool,
}

/// An event, and when it was noticed.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time: String,
    #[serde(flatten)]
    route: Option<RouteRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Monitor<'a> {
    /// Begins to watch; or the answer if that is not possible.
    pub(super) fn start(request: &api::Request<'_>, shared: &'a Shared) -> Result<Self, Response> {
        if request.method != "GET" {
            let mut response = Response::problem(Status::MethodNotAllowed, "allowed is GET");
            response.headers.push(("Allow", "GET".into()));
            return Err(response);
        }
        let parse = || {
            let mut params = Params::new(request.query);
            let vni = params.vni()?;
            let current = params.value("current", "true or false", |it| it.parse().ok())?;
            params.finish("vni and current")?;
            Ok((vni, current.unwrap_or(false)))
        };
        let (vni, is_before) =
            parse().map_err(|text: String| Response::problem(Status::BadRequest, &text))?;
        let watch = shared.inspect.watch(vni, is_before);
        let watch = watch.map_err(|error| {
            let text = match error {
                Error::Busy => "too many monitors run already".into(),
                error => error.to_string(),
            };
            Response::problem(Status::ServiceUnavailable, &text)
        })?;
        Ok(Self {
            shared,
            watch,
            is_before,
        })
    }

    /// Writes events until somebody ends it; the last line says who.
    pub(super) fn run(self, stream: &UnixStream, is_chunked: bool) -> io::Result<()> {
        let mut head = status_line(Status::Ok);
        head += "Content-Type: application/x-ndjson\r\nCache-Control: no-store\r\n";
        if is_chunked {
            head += "Transfer-Encoding: chunked\r\n";
        }
        head += "Connection: close\r\n\r\n";
        let mut out = Out { stream, is_chunked };
        out.stream.write_all(head.as_bytes())?;
        let Self {
            shared,
            mut watch,
            mut is_before,
        } = self;
        let reason = loop {
            let events = match watch.wait(WAIT) {
                Ok(events) => events,
                Err(error) => break error.to_string(),
            };
            if shared.is_stopping() {
                break Error::Closed.to_string();
            }
            if events.is_empty() && is_gone(stream) {
                return Ok(());
            }
            out.events(&events, &mut is_before)?;
        };
        // It takes its share of what is kept until then.
        drop(watch);
        let mut text = Vec::new();
        Line::new(
            "end",
            &api::Date::of(SystemTime::now()).to_text_with_millis(),
        )
        .with_reason(&reason)
        .append(&mut text);
        out.chunk(&text)?;
        out.finish()
    }
}

/// Whether the peer has closed its end; it says nothing otherwise.
fn is_gone(stream: &UnixStream) -> bool {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match SockRef::from(stream).recv_with_flags(&mut buffer, flags) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

impl<'a> Line<'a> {
    fn new(event: &'static str, time: &str) -> Self {
        Self {
            event,
            time: time.into(),
            route: None,
            peer: None,
            reason: None,
        }
    }

    fn with_reason(self, reason: &'a str) -> Self {
        Self {
            reason: Some(reason),
            ..self
        }
    }

    fn of(event: &'a WatchEvent, time: &str, is_before: &mut bool) -> Self {
        match event {
            WatchEvent::Route(vni, action, route) => Self {
                route: Some(RouteRow::of(*vni, route)),
                ..Self::new(
                    match action {
                        Action::Add if *is_before => "current",
                        Action::Add => "add",
                        Action::Remove => "remove",
                    },
                    time,
                )
            },
            WatchEvent::Current => {
                *is_before = false;
                Self::new("complete", time)
            }
            WatchEvent::PeerUp(name) => Self {
                peer: Some(name),
                ..Self::new("peer_up", time)
            },
            WatchEvent::PeerDown(name, reason) => Self {
                peer: Some(name),
                ..Self::new("peer_down", time).with_reason(reason)
            },
        }
    }

    fn append(&self, to: &mut Vec<u8>) {
        write_json(to, self);
        to.push(b'\n');
    }
}

/// The rest of the answer.
struct Out<'a> {
    stream: &'a UnixStream,
    is_chunked: bool,
}

impl Out<'_> {
    fn events(&mut self, events: &[WatchEvent], is_before: &mut bool) -> io::Result<()> {
        let time = api::Date::of(SystemTime::now()).to_text_with_millis();
        let mut text = Vec::new();
        for event in events {
            Line::of(event, &time, is_before).append(&mut text);
            if text.len() >= CHUNK {
                self.chunk(&text)?;
                text.clear();
            }
        }
        self.chunk(&text)
    }

    fn chunk(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_chunked {
            let mut chunk = Vec::with_capacity(text.len() + 16);
            append_chunk(&mut chunk, text);
            self.stream.write_all(&chunk)
        } else {
            self.stream.write_all(text)
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.is_chunked {
            self.stream.write_all(LAST_CHUNK)?;
        }
        Ok(())
    }
}
