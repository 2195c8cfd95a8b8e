//! What is answered to which request, whatever brings it.
//!
//! [`respond`] knows no socket and no thread: the HTTP server and the control socket put the
//! same requests to it. It is in two halves, so that a loop can give what takes time to a
//! thread: [`Query::parse`] costs nothing, [`Query::answer`] costs what [`Query::work`] says.

mod go;
mod params;
mod routes;
mod state;
#[cfg(test)]
mod tests;

use super::cache::SnapshotCache;
use super::response::{Response, Status};
use super::{metrics, page};
use crate::inspect::Inspect;
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
            return Err(Response::not_allowed("GET, HEAD"));
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
