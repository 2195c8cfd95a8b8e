//! Requests that change something.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;
use serde::Deserialize;
use serde_json::json;

use super::Outcome;
use super::context::Context;
use crate::core::types::{Destination, NextHop, NextHopType, Route, Vni};
use crate::error::Error;
use crate::http::api::{self, parse_type};
use crate::http::response::{Response, Status};
use crate::inspect::{Command, Done};

/// How long a drained peer is kept out if the request does not say.
const DRAIN: Duration = Duration::from_secs(60);

/// Longest time for which a peer is kept out.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A change that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Command(Command),
    LogLevel(LevelFilter),
    Reload,
}

/// A route, as `/api/v1/routes` shows it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteJson {
    vni: u32,
    prefix: String,
    next_hop: IpAddr,
    #[serde(default)]
    target_vni: Option<u32>,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    port_from: Option<u16>,
    #[serde(default)]
    port_to: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VniJson {
    vni: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainJson {
    #[serde(default)]
    seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelJson {
    level: String,
}

impl Change {
    /// Reads a change or the error. Returns `None` if the path is not one of these.
    pub(super) fn parse(request: &api::Request<'_>, body: &[u8]) -> Option<Result<Self, Response>> {
        let path = request.path.strip_prefix("/api/v1/")?;
        let parts: Vec<&str> = path.split('/').collect();
        let (allowed, parsed) = match (&parts[..], request.method) {
            (["announcements"], method) => (
                "POST, DELETE",
                match method {
                    "POST" => route(body).map(|(vni, it)| Command::Announce(vni, it).into()),
                    "DELETE" => route(body).map(|(vni, it)| Command::Withdraw(vni, it).into()),
                    _ => return Some(Err(Response::not_allowed("POST, DELETE"))),
                },
            ),
            (["subscriptions"], method) => (
                "POST, DELETE",
                match method {
                    "POST" => vni(body).map(|vni| Command::Subscribe(vni).into()),
                    "DELETE" => vni(body).map(|vni| Command::Unsubscribe(vni).into()),
                    _ => return Some(Err(Response::not_allowed("POST, DELETE"))),
                },
            ),
            (["peers", name, "reset"], _) => {
                ("POST", decode(name).map(|it| Command::ResetPeer(it).into()))
            }
            (["peers", name, "drain"], _) => ("POST", drain(name, body).map(Into::into)),
            (["log"], _) => ("POST", level(body).map(Self::LogLevel)),
            (["reload"], _) => ("POST", Ok(Self::Reload)),
            _ => return None,
        };
        if !allowed.split(", ").any(|it| it == request.method) {
            return Some(Err(Response::not_allowed(allowed)));
        }
        Some(parsed.map_err(|text| Response::problem(Status::BadRequest, &text)))
    }

    /// Makes the change, and returns the response.
    pub(super) fn execute(self, context: &Context) -> Response {
        let actions = &context.actions;
        match self {
            Self::Command(command) => command_response(context.inspect.execute(command)),
            Self::LogLevel(level) => match &actions.set_log_level {
                Some(set) => outcome(set(level)),
                None => unsupported("this program cannot change its log level"),
            },
            Self::Reload => match &actions.reload {
                Some(reload) => outcome(reload()),
                None => unsupported("this program has no configuration to read again"),
            },
        }
    }
}

impl From<Command> for Change {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

fn unsupported(text: &str) -> Response {
    Response::problem(Status::Conflict, text)
}

fn outcome(outcome: Outcome) -> Response {
    match outcome {
        Ok(text) => Response::json(&json!({ "result": text })),
        Err(text) => Response::problem(Status::Conflict, &text),
    }
}

fn command_response(result: crate::Result<Done>) -> Response {
    match result {
        Ok(Done::Changed(count)) => Response::json(&json!({ "changed": count })),
        // The state is already the one that the request asks for.
        Ok(Done::Unchanged)
        | Err(Error::RouteAlreadyAnnounced | Error::RouteNotFound | Error::NotSubscribed(_)) => {
            Response::json(&json!({ "changed": 0 }))
        }
        Err(error) => {
            let status = match error {
                Error::InvalidConfig(_) => Status::BadRequest,
                Error::PeerNotFound(_) => Status::NotFound,
                Error::Unsupported(_) | Error::TooManyVnis(_) => Status::Conflict,
                _ => Status::ServiceUnavailable,
            };
            Response::problem(status, &error.to_string())
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{error}; expected {expected}"))
}

fn route(body: &[u8]) -> Result<(Vni, Route), String> {
    let expected = "{\"vni\": 100, \"prefix\": \"10.0.1.0/24\", \"next_hop\": \"2001:db8::1\"} and \
                    perhaps type, target_vni, port_from and port_to";
    let json: RouteJson = parse(body, expected)?;
    let prefix = IpNet::from_str(&json.prefix)
        .map_err(|_| format!("prefix {}: expected a prefix like 10.0.1.0/24", json.prefix))?;
    let hop_type = match json.r#type.as_deref() {
        None => NextHopType::Standard,
        Some(text) => parse_type(text)
            .ok_or_else(|| format!("type {text}: expected std, nat, lb or a number"))?,
    };
    let (from, to) = match (json.port_from, json.port_to, hop_type) {
        (None, None, NextHopType::Nat) => {
            return Err("nat needs port_from and port_to".into());
        }
        (Some(_), _, NextHopType::Standard | NextHopType::LoadBalancerTarget)
        | (_, Some(_), NextHopType::Standard | NextHopType::LoadBalancerTarget) => {
            return Err("only nat takes port_from and port_to".into());
        }
        (None, None, _) => (0, 0),
        (from, to, _) => (from.unwrap_or_default(), to.unwrap_or(u16::MAX)),
    };
    if from > to {
        return Err("port_from must not be greater than port_to".into());
    }
    let next_hop = NextHop {
        target_vni: json.target_vni.and_then(NonZeroU32::new),
        hop_type,
        nat_port_range_from: from,
        nat_port_range_to: to,
        ..NextHop::standard(json.next_hop)
    };
    Ok((
        Vni(json.vni),
        Route::new(Destination::new(prefix), next_hop),
    ))
}

fn vni(body: &[u8]) -> Result<Vni, String> {
    let json: VniJson = parse(body, "{\"vni\": 100}")?;
    Ok(Vni(json.vni))
}

fn drain(name: &str, body: &[u8]) -> Result<Command, String> {
    let json = if body.is_empty() {
        DrainJson::default()
    } else {
        parse(body, "{\"seconds\": 60}")?
    };
    let time = json.seconds.map_or(DRAIN, Duration::from_secs);
    if time > DRAIN_MAX {
        return Err(format!("seconds: at most {}, a day", DRAIN_MAX.as_secs()));
    }
    Ok(Command::DrainPeer(decode(name)?, time))
}

fn level(body: &[u8]) -> Result<LevelFilter, String> {
    let expected = "off, error, warn, info, debug or trace";
    let json: LevelJson = parse(body, "{\"level\": \"debug\"}")?;
    let level = json.level.parse();
    level.map_err(|_| format!("level {}: expected {expected}", json.level))
}

/// Decodes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, String> {
    let bad = || format!("{text}: expected a name, percent-encoded");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(method: &str, target: &str, body: &str) -> Option<Result<Change, u16>> {
        let request = api::Request::new(method, target);
        let change = Change::parse(&request, body.as_bytes());
        change.map(|it| it.map_err(|response| response.head.status.code()))
    }

    #[test]
    fn each_path_and_method_has_its_change() {
        let vni = r#"{"vni": 7}"#;
        let all = [
            ("POST", "subscriptions", vni, Command::Subscribe(Vni(7))),
            ("DELETE", "subscriptions", vni, Command::Unsubscribe(Vni(7))),
            (
                "POST",
                "peers/%5B::1%5D:47/reset",
                "",
                Command::ResetPeer("[::1]:47".into()),
            ),
            (
                "POST",
                "peers/a/drain",
                r#"{"seconds": 5}"#,
                Command::DrainPeer("a".into(), Duration::from_secs(5)),
            ),
            (
                "POST",
                "peers/a/drain",
                "",
                Command::DrainPeer("a".into(), DRAIN),
            ),
        ];
        for (method, path, body, command) in all {
            let found = change(method, &format!("/api/v1/{path}"), body);
            assert_eq!(found, Some(Ok(command.into())), "{method} {path}");
        }
        assert_eq!(
            change("POST", "/api/v1/reload", ""),
            Some(Ok(Change::Reload))
        );
        assert_eq!(
            change("POST", "/api/v1/log", r#"{"level":"Debug"}"#),
            Some(Ok(Change::LogLevel(LevelFilter::Debug)))
        );
        for path in ["/api/v1/routes", "/api/v1/peers", "/", "/api/v1/peers/a/b"] {
            assert_eq!(change("GET", path, ""), None, "{path}");
        }
    }

    #[test]
    fn wrong_method_or_body_is_refused() {
        let all = [
            ("GET", "subscriptions", "", 405),
            ("GET", "reload", "", 405),
            ("PUT", "announcements", "{}", 405),
            ("POST", "subscriptions", "", 400),
            ("POST", "subscriptions", r#"{"vni": -1}"#, 400),
            ("POST", "subscriptions", r#"{"vni": 1, "more": 1}"#, 400),
            ("POST", "peers/%5/reset", "", 400),
            ("POST", "peers/%ff/reset", "", 400),
            ("POST", "peers/a/drain", r#"{"seconds": 86401}"#, 400),
            ("POST", "log", r#"{"level": "loud"}"#, 400),
        ];
        for (method, path, body, status) in all {
            let found = change(method, &format!("/api/v1/{path}"), body);
            assert_eq!(found, Some(Err(status)), "{method} {path} {body}");
        }
    }

    #[test]
    fn next_hops_are_read_as_the_api_shows_them() {
        let hop_of = |tail: &str| {
            let text = format!(r#"{{"vni":1,"prefix":"10.0.0.1/8","next_hop":"::1"{tail}}}"#);
            route(text.as_bytes()).map(|it| it.1.next_hop)
        };
        let address: IpAddr = "::1".parse().unwrap();
        assert_eq!(hop_of(""), Ok(NextHop::standard(address)));
        assert_eq!(
            hop_of(r#","type":"lb","target_vni":0,"port_from":null"#),
            Ok(NextHop::load_balancer(address))
        );
        assert_eq!(
            hop_of(r#","type":"nat","port_from":1,"port_to":2"#),
            Ok(NextHop::nat(address, 1, 2))
        );
        for bad in [
            r#","type":"nat""#,
            r#","type":"nat","port_from":3,"port_to":2"#,
            r#","port_from":3"#,
            r#","type":"x""#,
        ] {
            assert!(hop_of(bad).is_err(), "{bad}");
        }
    }
}
