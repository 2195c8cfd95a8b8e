//! What is answered to which request, whatever brings it.
//!
//! [`respond`] knows no socket and no thread: the HTTP server and the control socket put the
//! same requests to it. It is in two halves, so that a loop can give what takes time to a
//! thread: [`Query::parse`] costs nothing, [`Query::answer`] costs what [`Query::work`] says.

mod body;
mod go;
mod params;
mod routes;
mod state;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::cache::SnapshotCache;
use super::{metrics, page};
use crate::inspect::Inspect;
pub(crate) use body::{Body, Chunk, Source, write_json};
pub(crate) use go::Date;
pub(crate) use params::Params;
pub(crate) use routes::{RouteRow, parse_type};

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// `GET`, `HEAD` or another.
    pub(crate) method: &'a str,
    /// What is asked for, percent-encoded.
    pub(crate) path: &'a str,
    /// What follows the question mark, or nothing.
    pub(crate) query: &'a str,
}

/// An answer. To a HEAD request, its body is not sent.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: Status,
    /// Beside those of the transport and of the body's length.
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
    pub(crate) body: Body,
}

/// The outcome (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    /// It cannot be done here.
    Conflict,
    TooLarge,
    TooLong,
    ServiceUnavailable,
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Query {
    Page(page::Asset),
    Health,
    Readiness,
    Metrics,
    Status,
    Peers(state::PeersQuery),
    Vnis(state::VnisQuery),
    Routes(Box<routes::RoutesQuery>),
    Go(go::Format),
}

/// What an answer costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Microseconds.
    None,
    /// A question to the loops: milliseconds.
    Question,
    /// Perhaps a snapshot of the table: for a million routes, part of a second.
    Snapshot,
}

/// What there is, for those who ask for something else.
const PATHS: &str = "there are /, /healthz, /readyz, /metrics, /routes.json, /routes.yaml, \
     /api/v1/status, /api/v1/peers, /api/v1/vnis and /api/v1/routes";

/// Answers a request.
#[allow(
    dead_code,
    reason = "for callers that may wait; the loop uses the two halves"
)]
pub(crate) fn respond(
    request: &Request<'_>,
    inspect: &dyn Inspect,
    cache: &SnapshotCache,
) -> Response {
    match Query::parse(request) {
        Ok(query) => query.answer(inspect, cache),
        Err(response) => response,
    }
}

impl<'a> Request<'a> {
    /// Takes a request target apart, which may be a whole URL (RFC 9112, section 3.2.2).
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        let path = match target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |at| &rest[at..])
            }
            _ => target,
        };
        let path = path.split('#').next().unwrap_or(path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self {
            method,
            path,
            query,
        }
    }
}

impl Query {
    /// What a request asks for, or what is wrong with it.
    pub(crate) fn parse(request: &Request<'_>) -> Result<Self, Response> {
        let mut params = Params::new(request.query);
        let query = match request.path {
            "/healthz" => Ok(Self::Health),
            "/readyz" => Ok(Self::Readiness),
            "/metrics" => Ok(Self::Metrics),
            "/routes.json" => Ok(Self::Go(go::Format::Json)),
            "/routes.yaml" => Ok(Self::Go(go::Format::Yaml)),
            "/api/v1/status" => params.finish("none").map(|()| Self::Status),
            "/api/v1/peers" => state::PeersQuery::parse(params).map(Self::Peers),
            "/api/v1/vnis" => state::VnisQuery::parse(params).map(Self::Vnis),
            "/api/v1/routes" => {
                let query = routes::RoutesQuery::parse(&mut params);
                let rest = query.and_then(|query| {
                    params.finish(routes::PARAMETERS)?;
                    Ok(query)
                });
                rest.map(|query| Self::Routes(Box::new(query)))
            }
            path => match page::Asset::at(path) {
                Some(asset) => Ok(Self::Page(asset)),
                None => return Err(Response::problem(Status::NotFound, PATHS)),
            },
        };
        if !matches!(request.method, "GET" | "HEAD") {
            let mut response =
                Response::problem(Status::MethodNotAllowed, "allowed are GET and HEAD");
            response.headers.push(("Allow", "GET, HEAD".into()));
            return Err(response);
        }
        query.map_err(|text| Response::problem(Status::BadRequest, &text))
    }

    /// What [`Self::answer`] costs.
    pub(crate) fn work(&self) -> Work {
        match self {
            Self::Page(_) | Self::Health => Work::None,
            Self::Readiness | Self::Metrics | Self::Status | Self::Peers(_) | Self::Vnis(_) => {
                Work::Question
            }
            Self::Routes(_) | Self::Go(_) => Work::Snapshot,
        }
    }

    /// The answer.
    pub(crate) fn answer(self, inspect: &dyn Inspect, cache: &SnapshotCache) -> Response {
        match self {
            Self::Page(asset) => asset.response(),
            Self::Health => Response::text(Status::Ok, "ok\n"),
            Self::Readiness => match inspect.status().not_ready {
                None => Response::text(Status::Ok, "ready\n"),
                Some(why) => Response::text(Status::ServiceUnavailable, format!("{why}\n")),
            },
            Self::Metrics => metrics::response(inspect),
            Self::Status => state::status(inspect),
            Self::Peers(query) => query.answer(inspect),
            Self::Vnis(query) => query.answer(inspect),
            Self::Routes(query) => match query.answer(inspect, cache) {
                Ok(response) => response,
                Err(busy) => busy.response(),
            },
            Self::Go(format) => match cache.get(inspect, None) {
                Ok(shared) => go::response(shared.snapshot, format),
                Err(busy) => busy.response(),
            },
        }
    }
}

impl Status {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooLong => 431,
            Self::ServiceUnavailable => 503,
        }
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Conflict => "Conflict",
            Self::TooLarge => "Content Too Large",
            Self::TooLong => "Request Header Fields Too Large",
            Self::ServiceUnavailable => "Service Unavailable",
        }
    }
}

impl Response {
    pub(crate) fn new(status: Status, media: &'static str, body: Body) -> Self {
        let headers = vec![
            ("Content-Type", media.into()),
            ("Cache-Control", "no-store".into()),
            ("X-Content-Type-Options", "nosniff".into()),
        ];
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn json(status: Status, body: Body) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(crate) fn text(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(status, "text/plain; charset=utf-8", Body::Whole(bytes))
    }

    /// `{"error":TEXT}`.
    pub(crate) fn problem(status: Status, text: &str) -> Self {
        let mut bytes = Vec::new();
        write_json(&mut bytes, &serde_json::json!({ "error": text }));
        bytes.push(b'\n');
        Self::json(status, Body::Whole(bytes.into()))
    }
}
