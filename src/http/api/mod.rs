//! Which request gets which response.
//!
//! [`respond`] knows no socket and no thread: the HTTP server and the control socket both use it.
//! It has two halves, so that a loop can give slow requests to a thread: [`Query::parse`] costs
//! nothing, [`Query::answer`] costs what [`Query::work`] says.

mod go;
mod params;
mod routes;
mod state;
#[cfg(test)]
mod tests;

use super::cache::SnapshotCache;
use super::response::{Response, Status};
use super::{metrics, page};
use crate::error::Error;
use crate::inspect::Inspect;
pub(crate) use go::Date;
pub(crate) use params::Params;
pub(crate) use routes::{RouteRow, parse_type};

/// The parts of a request that choose its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// `GET`, `HEAD` or another.
    pub(crate) method: &'a str,
    /// The path, percent-encoded.
    pub(crate) path: &'a str,
    /// The parameters after the question mark, or nothing.
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

/// The cost of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Microseconds.
    None,
    /// A question to the loops: milliseconds.
    Question,
    /// A snapshot of the table, if the last one is old: for a million routes, part of a second.
    Snapshot,
}

/// The paths, for a request with another one.
const PATHS: &str = "there are /, /healthz, /readyz, /metrics, /routes.json, /routes.yaml, \
     /api/v1/status, /api/v1/peers, /api/v1/vnis and /api/v1/routes";

/// Returns the response to a request.
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
    /// Splits a request target, which may be a whole URL (RFC 9112, section 3.2.2).
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
    /// Returns what a request asks for, or the error.
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
                // As Go MetalBond does. What asks the API is a program, which needs the error.
                None if path.starts_with('/') && !path.starts_with("/api/") => {
                    Ok(Self::Page(page::Asset::Html))
                }
                None => return Err(Response::problem(Status::NotFound, PATHS)),
            },
        };
        if !matches!(request.method, "GET" | "HEAD") {
            return Err(Response::not_allowed("GET, HEAD"));
        }
        query.map_err(|text| Response::problem(Status::BadRequest, &text))
    }

    /// Returns the cost of [`Self::answer`].
    pub(crate) fn work(&self) -> Work {
        match self {
            Self::Page(_) | Self::Health => Work::None,
            Self::Readiness | Self::Metrics | Self::Status | Self::Peers(_) | Self::Vnis(_) => {
                Work::Question
            }
            Self::Routes(_) | Self::Go(_) => Work::Snapshot,
        }
    }

    /// Makes the response.
    pub(crate) fn answer(self, inspect: &dyn Inspect, cache: &SnapshotCache) -> Response {
        let ended = |error: Error| Response::ended(&error);
        match self {
            Self::Page(asset) => asset.response(),
            Self::Health => Response::text(Status::Ok, "ok\n"),
            Self::Readiness => match inspect.status().not_ready {
                None => Response::text(Status::Ok, "ready\n"),
                Some(why) => Response::text(Status::ServiceUnavailable, format!("{why}\n")),
            },
            Self::Metrics => metrics::response(inspect).unwrap_or_else(ended),
            Self::Status => state::status(inspect),
            Self::Peers(query) => query.answer(inspect).unwrap_or_else(ended),
            Self::Vnis(query) => query.answer(inspect).unwrap_or_else(ended),
            Self::Routes(query) => match query.answer(inspect, cache) {
                Ok(response) => response,
                Err(none) => none.response(),
            },
            Self::Go(format) => match cache.get(inspect, None) {
                Ok(shared) => go::response(shared.snapshot, format),
                Err(none) => none.response(),
            },
        }
    }
}
