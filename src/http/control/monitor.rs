//! Events as they happen, each as a line of JSON, until one side ends the connection.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use socket2::SockRef;

use super::context::Context;
use crate::core::types::Action;
use crate::error::Error;
use crate::http::api::{self, Params, RouteRow};
use crate::http::codec::{Encoder, Manner};
use crate::http::response::{Head, Media, Response, Status, write_json};
use crate::inspect::{Watch, WatchEvent, WatchFrom};

/// The path of the monitor.
pub(super) const PATH: &str = "/api/v1/monitor";

/// Longest wait for events before the monitor checks that process and peer are still there.
const WAIT: Duration = Duration::from_millis(200);

/// Longest time in which the last events are sent when the process stops: half of what the
/// listener leaves for it.
const LAST: Duration = Duration::from_millis(250);

/// Bytes of lines that are written at once. A write ends with the first line that reaches this.
const CHUNK: usize = 64 * 1024;

pub(super) struct Monitor<'a> {
    context: &'a Context,
    watch: Watch,
    /// The current routes are being sent; live changes follow.
    is_before: bool,
}

/// An event, and when it was read from the watch.
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
    /// Begins to watch, or returns the error.
    pub(super) fn start(
        request: &api::Request<'_>,
        context: &'a Context,
    ) -> Result<Self, Response> {
        if request.method != "GET" {
            return Err(Response::not_allowed("GET"));
        }
        let parse = || {
            let mut params = Params::new(request.query);
            let vni = params.vni()?;
            let current = params.value("current", "true or false", |it| it.parse().ok())?;
            params.finish("vni and current")?;
            let from = match current {
                Some(true) => WatchFrom::Current,
                Some(false) | None => WatchFrom::Now,
            };
            Ok((vni, from))
        };
        let (vni, from) =
            parse().map_err(|text: String| Response::problem(Status::BadRequest, &text))?;
        let watch = context.inspect.watch(vni, from);
        let watch = watch.map_err(|error| {
            let text = match error {
                Error::Busy => "too many monitors are running already; end one first".into(),
                error => error.to_string(),
            };
            Response::problem(Status::ServiceUnavailable, &text)
        })?;
        Ok(Self {
            context,
            watch,
            is_before: from == WatchFrom::Current,
        })
    }

    /// Writes events until the process, the watch or the peer ends. The last line says why.
    pub(super) fn run(self, stream: &UnixStream, manner: Manner) -> io::Result<()> {
        let mut out = Out::begin(stream, manner)?;
        let Self {
            context,
            mut watch,
            mut is_before,
        } = self;
        let mut stopping_until = None;
        let reason = loop {
            // What has happened before the stop is told before its end.
            if stopping_until.is_none() && context.is_stopping() {
                stopping_until = Some(Instant::now() + LAST);
            }
            let events = match watch.wait(stopping_until.map_or(WAIT, |_| Duration::ZERO)) {
                Ok(events) => events,
                Err(error) => break error.to_string(),
            };
            if events.is_empty() && stopping_until.is_some() {
                break Error::Closed.to_string();
            }
            // A stop closes the peer's side too.
            if events.is_empty() && is_gone(stream) && !context.is_stopping() {
                return Ok(());
            }
            out.events(&events, &mut is_before)?;
            if stopping_until.is_some_and(|until| Instant::now() >= until) {
                break Error::Closed.to_string();
            }
        };
        // The watch takes one of a few places until it is dropped.
        drop(watch);
        let mut text = Vec::new();
        Line::new(
            "end",
            &api::Date::of(SystemTime::now()).to_text_with_millis(),
        )
        .with_reason(&reason)
        .append(&mut text);
        out.finish(&text)
    }
}

/// Returns whether the peer has closed its side. It sends nothing else after its request.
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

/// The response of a monitor: its body has no known length.
struct Out<'a> {
    stream: &'a UnixStream,
    encoder: Encoder,
}

impl<'a> Out<'a> {
    fn begin(mut stream: &'a UnixStream, manner: Manner) -> io::Result<Self> {
        let head = Head::new(Status::Ok, Media::JsonLines);
        let mut bytes = Vec::new();
        let encoder = Encoder::begin(&head, None, manner.and_close(), &mut bytes);
        stream.write_all(&bytes)?;
        Ok(Self { stream, encoder })
    }

    fn events(&mut self, events: &[WatchEvent], is_before: &mut bool) -> io::Result<()> {
        let time = api::Date::of(SystemTime::now()).to_text_with_millis();
        let mut text = Vec::new();
        for event in events {
            Line::of(event, &time, is_before).append(&mut text);
            if text.len() >= CHUNK {
                self.piece(&text)?;
                text.clear();
            }
        }
        self.piece(&text)
    }

    fn piece(&mut self, text: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(text.len() + 16);
        self.encoder.piece(text, &mut bytes);
        self.stream.write_all(&bytes)
    }

    fn finish(&mut self, text: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.encoder.piece(text, &mut bytes);
        self.encoder.end(&mut bytes);
        self.stream.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::sync::Arc;

    use super::*;
    use crate::error::Result;
    use crate::http::control::Actions;
    use crate::http::fake::Fake;
    use crate::inspect::WatchSource;

    /// Has some events in two batches, and the process stops before the first is read.
    struct Last(Arc<Context>, usize);

    impl WatchSource for Last {
        fn wait(&mut self, _: Duration) -> Result<Vec<WatchEvent>> {
            self.0.stop();
            self.1 += 1;
            let name = |it: usize| format!("peer-{it}");
            match self.1 {
                1 | 2 => Ok(vec![WatchEvent::PeerUp(name(self.1))]),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[test]
    fn last_events_are_told_before_the_end_of_a_process_that_stops() {
        let fake = Arc::new(Fake::default());
        let context = Arc::new(Context::new(fake, Actions::default()));
        let monitor = Monitor {
            context: &context,
            watch: Watch {
                source: Box::new(Last(Arc::clone(&context), 0)),
            },
            is_before: false,
        };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        monitor.run(&ours, Manner::REFUSAL).unwrap();
        ours.shutdown(Shutdown::Both).unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(at("peer-1") < at("peer-2"));
        assert!(at("peer-2") < at("\"end\""));
    }
}
