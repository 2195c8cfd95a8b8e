//! The commands that change a running server or client.

use rustbond::{NextHop, NextHopType};
use serde_json::{Value, json};

use super::args::{
    At, LogLevelArgs, PeerArgs, PeerChange, ReloadArgs, RouteChangeArgs, VniChangeArgs,
};
use super::http::{self, Request};
use super::place::Place;
use super::show::encode;
use super::table::printable;
use super::{Printer, ended};
use crate::cli::announcement::Announcement;
use crate::cli::failure::Failure;

/// Announces routes.
pub(crate) fn announce(args: &RouteChangeArgs) -> Result<(), Failure> {
    routes(args, "POST", "announced", "announced already")
}

/// Withdraws routes.
pub(crate) fn withdraw(args: &RouteChangeArgs) -> Result<(), Failure> {
    routes(args, "DELETE", "withdrawn", "not announced here")
}

/// Subscribes a client.
pub(crate) fn subscribe(args: &VniChangeArgs) -> Result<(), Failure> {
    vnis(args, "POST", "subscribed", "subscribed already")
}

/// Unsubscribes a client.
pub(crate) fn unsubscribe(args: &VniChangeArgs) -> Result<(), Failure> {
    vnis(args, "DELETE", "unsubscribed", "not subscribed")
}

/// Closes connections.
pub(crate) fn peer(args: &PeerArgs) -> Result<(), Failure> {
    let (name, at, verb, body, done) = match &args.change {
        PeerChange::Reset(args) => (&args.name, &args.at, "reset", None, "reset"),
        PeerChange::Drain(args) => {
            let body = json!({ "seconds": args.time });
            (&args.name, &args.at, "drain", Some(body), "being drained")
        }
    };
    let target = format!("/api/v1/peers/{}/{verb}", encode(name));
    let answer = Asked::of(at)?.change("POST", &target, body.as_ref())?;
    let count = answer["changed"].as_u64().unwrap_or_default();
    let plural = if count == 1 { "" } else { "s" };
    say(&format!(
        "{}: {count} connection{plural} {done}",
        printable(name)
    ))
}

/// Changes what is logged.
pub(crate) fn log(args: &LogLevelArgs) -> Result<(), Failure> {
    let level = args.level.to_string().to_lowercase();
    let body = json!({ "level": level });
    let answer = Asked::of(&args.at)?.change("POST", "/api/v1/log", Some(&body))?;
    say_result(&answer, &format!("logging from level {level} on"))
}

/// Has the configuration read again.
pub(crate) fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let answer = Asked::of(&args.at)?.change("POST", "/api/v1/reload", None)?;
    say_result(&answer, "reloaded")
}

fn routes(
    args: &RouteChangeArgs,
    method: &'static str,
    done: &str,
    unchanged: &str,
) -> Result<(), Failure> {
    let asked = Asked::of(&args.at)?;
    for it in &args.routes {
        let answer = asked.change(method, "/api/v1/announcements", Some(&route_json(it)))?;
        let what = if is_changed(&answer) { done } else { unchanged };
        say(&format!("VNI {} {}: {what}", it.vni, it.route))?;
    }
    Ok(())
}

fn vnis(
    args: &VniChangeArgs,
    method: &'static str,
    done: &str,
    unchanged: &str,
) -> Result<(), Failure> {
    let asked = Asked::of(&args.at)?;
    for vni in &args.vnis {
        let body = json!({ "vni": vni.0 });
        let answer = asked.change(method, "/api/v1/subscriptions", Some(&body))?;
        let what = if is_changed(&answer) { done } else { unchanged };
        say(&format!("VNI {vni}: {what}"))?;
    }
    Ok(())
}

fn is_changed(answer: &Value) -> bool {
    answer["changed"].as_u64().unwrap_or_default() > 0
}

/// Returns a route in the form of the API.
fn route_json(announcement: &Announcement) -> Value {
    let Announcement { vni, route } = announcement;
    let NextHop {
        target_address,
        target_vni,
        hop_type,
        nat_port_range_from,
        nat_port_range_to,
    } = route.next_hop;
    let mut json = json!({
        "vni": vni.0,
        "prefix": route.destination.to_string(),
        "next_hop": target_address,
        "target_vni": target_vni,
        "type": type_name(hop_type),
    });
    if hop_type == NextHopType::Nat {
        json["port_from"] = nat_port_range_from.into();
        json["port_to"] = nat_port_range_to.into();
    }
    json
}

/// Returns the name of a type, or its number if it has no name.
pub(super) fn type_name(hop_type: NextHopType) -> String {
    match hop_type {
        NextHopType::Standard => "std".into(),
        NextHopType::Nat => "nat".into(),
        NextHopType::LoadBalancerTarget => "lb".into(),
        NextHopType::Unknown(_) => hop_type.number().to_string(),
    }
}

/// The server or client to change.
struct Asked(Place);

impl Asked {
    fn of(at: &At) -> Result<Self, Failure> {
        let place = Place::given_or_usual(at.at.as_ref())?;
        place.must_be_socket()?;
        Ok(Self(place))
    }

    fn change(
        &self,
        method: &'static str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let request = Request {
            method,
            target,
            body,
        };
        http::ask_value(&self.0, request)
    }
}

/// Prints the result of the answer, or `otherwise` if it has none.
fn say_result(answer: &Value, otherwise: &str) -> Result<(), Failure> {
    match answer["result"].as_str() {
        Some(text) if !text.is_empty() => {
            // The result of a reload may have several lines.
            text.lines().try_for_each(|line| say(&printable(line)))
        }
        _ => say(otherwise),
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut printer = Printer::new();
    let said = printer.print(format!("{line}\n"));
    ended(said.and_then(|()| printer.flush()))
}
