//! `metalbond show`.

use serde_json::Value;
use serde_json::value::RawValue;

use super::args::{Output, PeersArgs, RoutesArgs, Show, ShowArgs, ViewArgs, VnisArgs};
use super::http::{self, Patience, Request};
use super::items::{self, Then};
use super::place::Place;
use super::table::{Cell, Column, Table, printable};
use super::terminal::{Style, Terminal};
use super::{Printer, Stop, ended, units};
use crate::cli::failure::Failure;

/// The number of rows that decide the widths of columns; later rows may widen them.
const BLOCK: usize = 1000;

/// Shows something.
pub(crate) fn show(args: &ShowArgs) -> Result<(), Failure> {
    ended(match &args.what {
        Show::Status(view) => status(view),
        Show::Peers(args) => peers(args),
        Show::Vnis(args) => vnis(args),
        Show::Routes(args) => routes(args),
    })
}

/// A list of the API, and how to show it as a table.
struct List {
    name: &'static str,
    columns: &'static [Column],
    row: fn(&Value) -> Vec<Cell>,
}

const PEERS: List = List {
    name: "peers",
    columns: &[
        Column::left("NAME").cut(),
        Column::left("STATE"),
        Column::left("KIND").dispensable(8),
        Column::right("UPTIME").dispensable(1),
        Column::right("ROUTES").dispensable(2),
        Column::right("VNIS").dispensable(5),
        Column::right("QUEUE").dispensable(7),
        Column::right("SILENT").dispensable(6),
        Column::right("FLAPS").dispensable(4),
        Column::left("LAST ERROR").cut().dispensable(3),
    ],
    row: peer_row,
};

const VNIS: List = List {
    name: "vnis",
    columns: &[
        Column::right("VNI"),
        Column::right("ROUTES"),
        Column::right("STD").dispensable(3),
        Column::right("NAT").dispensable(3),
        Column::right("LB").dispensable(3),
        Column::right("OTHER").dispensable(4),
        Column::right("SUBSCRIBERS").dispensable(1),
        Column::left("DIGEST"),
        Column::left("SYNCED").dispensable(2),
    ],
    row: vni_row,
};

const ROUTES: List = List {
    name: "routes",
    columns: &[
        Column::right("VNI"),
        Column::left("PREFIX").cut(),
        Column::left("NEXT HOP").cut(),
        Column::left("TYPE"),
        Column::left("PORTS").dispensable(3),
        Column::right("TARGET VNI").dispensable(4),
        Column::left("FROM").cut().dispensable(1),
        Column::left("NOTE").dispensable(2),
    ],
    row: route_row,
};

fn peers(args: &PeersArgs) -> Result<(), Stop> {
    let query = Query::new("/api/v1/peers").with("peer", args.peer.as_deref());
    list(&PEERS, &args.view, query.with("limit", Some("all")))
}

fn vnis(args: &VnisArgs) -> Result<(), Stop> {
    let vni = args.vni.map(|it| it.to_string());
    let query = Query::new("/api/v1/vnis").with("vni", vni.as_deref());
    list(&VNIS, &args.view, query.with("limit", Some("all")))
}

fn routes(args: &RoutesArgs) -> Result<(), Stop> {
    let vni = args.vni.map(|it| it.to_string());
    // One answer comes from one snapshot, however long; each page would come from another.
    let limit = args.limit.map_or_else(|| "all".into(), |it| it.to_string());
    let query = Query::new("/api/v1/routes")
        .with("vni", vni.as_deref())
        .with("prefix", args.prefix.as_deref())
        .with("match", args.matching.as_deref())
        .with("within", args.within.as_deref())
        .with("type", args.kind.as_deref())
        .with("peer", args.peer.as_deref())
        .with("limit", Some(&limit));
    list(&ROUTES, &args.view, query)
}

/// A path with parameters.
pub(super) struct Query(pub(super) String);

impl Query {
    pub(super) fn new(path: &str) -> Self {
        Self(path.into())
    }

    pub(super) fn with(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0 += name;
            self.0.push('=');
            self.0 += &encode(value);
        }
        self
    }
}

/// Encodes a text as a part of a path or a parameter (RFC 3986, section 2.1).
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                encoded.push(byte.into());
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// Calls `each` with every item of an answer until it fails.
pub(super) fn for_each(
    place: &Place,
    query: &Query,
    name: &str,
    mut each: impl FnMut(&RawValue) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let body = http::ask(place, Request::get(&query.0), Patience::Limited)?;
    let mut stop = None;
    let read = items::for_each(body, name, &mut |item| match each(item) {
        Ok(()) => Then::GoOn,
        Err(reason) => {
            stop = Some(reason);
            Then::Stop
        }
    });
    match (stop, read) {
        (Some(reason), _) => Err(reason),
        (None, Err(error)) => Err(http::unreadable(place, &error).into()),
        (None, Ok(())) => Ok(()),
    }
}

fn list(list: &List, view: &ViewArgs, query: Query) -> Result<(), Stop> {
    let place = Place::given_or_usual(view.at.as_ref())?;
    let mut printer = Printer::new();
    match view.output {
        Output::Table => {
            let mut table = Table::new(list.columns, Terminal::of_stdout());
            let mut rows = Vec::new();
            for_each(&place, &query, list.name, |item| {
                rows.push((list.row)(&value_of(&place, item)?));
                if rows.len() >= BLOCK {
                    printer.print(table.block(&rows))?;
                    rows.clear();
                }
                Ok(())
            })?;
            printer.print(table.block(&rows))?;
        }
        Output::Json => {
            let mut before = "[\n";
            for_each(&place, &query, list.name, |item| {
                printer.print(before)?;
                before = ",\n";
                printer.print(item.get())
            })?;
            printer.print(if before == "[\n" { "[]\n" } else { "\n]\n" })?;
        }
        Output::Ndjson => {
            for_each(&place, &query, list.name, |item| {
                printer.print(item.get())?;
                printer.print("\n")
            })?;
        }
    }
    printer.flush()
}

fn value_of(place: &Place, item: &RawValue) -> Result<Value, Failure> {
    serde_json::from_str(item.get()).map_err(|error| http::unreadable(place, &error))
}

fn status(view: &ViewArgs) -> Result<(), Stop> {
    let place = Place::given_or_usual(view.at.as_ref())?;
    let body = http::ask(&place, Request::get("/api/v1/status"), Patience::Limited)?;
    let raw: Box<RawValue> =
        serde_json::from_reader(body).map_err(|error| http::unreadable(&place, &error))?;
    let mut printer = Printer::new();
    if view.output == Output::Table {
        printer.print(status_text(
            &value_of(&place, &raw)?,
            &place,
            Terminal::of_stdout(),
        ))?;
    } else {
        printer.print(format!("{}\n", raw.get()))?;
    }
    printer.flush()
}

/// Formats the status as keys and values, without the empty ones.
fn status_text(status: &Value, place: &Place, terminal: Terminal) -> String {
    let mut lines: Vec<(&str, String, Style)> = Vec::new();
    let mut line = |key, value: String| lines.push((key, value, Style::Plain));
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    line("asked", place.to_string());
    line(
        "what",
        format!("{} {}", text(&status["side"]), text(&status["version"])),
    );
    let since = text(&status["started"]);
    let uptime = units::duration(status["uptime_seconds"].as_f64().unwrap_or_default());
    line("up", format!("{uptime}, since {since}"));
    let endpoints = status["endpoints"].as_array();
    let endpoints: Vec<String> = endpoints
        .iter()
        .flat_map(|it| it.iter())
        .map(text)
        .collect();
    if !endpoints.is_empty() {
        line("listening", endpoints.join(", "));
    }
    line(
        "peers",
        format!("{}, {} established", number("peers"), number("established")),
    );
    line("vnis", number("vnis").to_string());
    line(
        "routes",
        format!(
            "{}, {} announced here",
            number("routes"),
            number("announced")
        ),
    );
    line(
        "updates",
        format!(
            "{} received, {} sent",
            number("updates_received"),
            number("updates_sent")
        ),
    );
    server_lines(&status["server"], &mut line);
    let of_client = |key: &str| status["client"][key].as_u64().unwrap_or_default();
    let (refused, missing) = (of_client("refused_routes"), of_client("missing_routes"));
    if refused > 0 {
        let text =
            format!("{refused} announcements refused by max-routes, {missing} routes missing");
        line("limits", text);
    }
    kernel_lines(&status["kernel"], &mut line);
    let ready = match status["not_ready"].as_str() {
        None => ("ready", "yes".into(), Style::Good),
        Some(why) => ("ready", format!("no: {why}"), Style::Bad),
    };
    lines.insert(2, ready);
    let mut to = String::new();
    for (key, value, style) in lines {
        let (bold, plain) = terminal.marks(Style::Bold);
        let (mark, end) = terminal.marks(style);
        to += &format!("{bold}{key:<10}{plain} {mark}{}{end}\n", printable(&value));
    }
    to
}

fn server_lines(server: &Value, line: &mut impl FnMut(&'static str, String)) {
    if !server.is_object() {
        return;
    }
    let number = |key: &str| server[key].as_u64().unwrap_or_default();
    line(
        "sessions",
        format!(
            "{} accepted, {} closed, {} refused",
            number("accepted"),
            number("closed"),
            number("refused_sessions")
        ),
    );
    line(
        "traffic",
        format!(
            "{} received, {} sent",
            units::bytes(number("bytes_received")),
            units::bytes(number("bytes_sent"))
        ),
    );
    let memory = |key: &str| units::bytes(server["memory"][key].as_u64().unwrap_or_default());
    line(
        "memory",
        format!("{} of {}", memory("total"), memory("limit")),
    );
    let troubles = [
        ("malformed", "malformed messages"),
        ("refused", "refused by a limit"),
        ("folds", "queues coalesced"),
        ("legacy_drops", "legacy peers lost"),
        ("held_up", "times held up"),
    ];
    let troubles: Vec<String> = troubles
        .iter()
        .filter(|(key, _)| number(key) > 0)
        .map(|(key, what)| format!("{} {what}", number(key)))
        .collect();
    if !troubles.is_empty() {
        line("troubles", troubles.join(", "));
    }
}

fn kernel_lines(kernel: &Value, line: &mut impl FnMut(&'static str, String)) {
    if !kernel.is_object() {
        return;
    }
    let number = |key: &str| kernel[key].as_u64().unwrap_or_default();
    let is = |key: &str| kernel[key].as_bool().unwrap_or_default();
    let in_sync = if is("in_sync") {
        "in sync"
    } else {
        "not in sync"
    };
    let device = if is("device_up") { "up" } else { "down" };
    line(
        "kernel",
        format!(
            "{} of {} destinations installed, {in_sync}, device {device}",
            number("installed"),
            number("desired")
        ),
    );
    let (failed, uninstallable) = (number("failed"), number("uninstallable"));
    let shadowed = number("shadowed");
    if failed > 0 || uninstallable > 0 || shadowed > 0 {
        line(
            "",
            format!(
                "{failed} refused by the kernel, {shadowed} behind routes of others, \
                 {uninstallable} cannot be installed"
            ),
        );
    }
    let (waiting, settling) = (number("waiting"), number("settling"));
    if waiting > 0 || settling > 0 {
        line(
            "",
            format!(
                "{waiting} waiting for a tunnel device, {settling} of an earlier process settling"
            ),
        );
    }
    let unreachable = number("unreachable");
    if unreachable > 0 {
        line("", format!("no route to {unreachable} next hops"));
    }
    for (key, name) in [("last_error", "last error"), ("last_warning", "warning")] {
        if let Some(text) = kernel[key].as_str() {
            line("", format!("{name}: {text}"));
        }
    }
}

/// Returns a value without quotes; an empty text for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn peer_row(peer: &Value) -> Vec<Cell> {
    let state = text(&peer["state"]);
    let style = match &*state {
        "established" => Style::Good,
        "retry" => Style::Bad,
        _ => Style::Warning,
    };
    let time = |key: &str| peer[key].as_f64().map(units::duration).unwrap_or_default();
    let queued = peer["queued_bytes"].as_u64().unwrap_or_default();
    // What the peer of this session says, before why an earlier one ended.
    let trouble = ["last_notice", "last_error"]
        .into_iter()
        .map(|key| &peer[key]);
    let trouble = trouble.into_iter().find(|it| it.is_string());
    vec![
        Cell::new(text(&peer["name"])),
        Cell::styled(state, style),
        Cell::new(text(&peer["kind"])),
        Cell::new(time("uptime_seconds")),
        Cell::new(text(&peer["routes"])),
        Cell::new(text(&peer["subscriptions"])),
        Cell::new(units::bytes(queued)),
        Cell::new(time("keepalive_age_seconds")),
        Cell::new(text(&peer["flaps"])),
        Cell::styled(trouble.map(text).unwrap_or_default(), Style::Dim),
    ]
}

fn vni_row(vni: &Value) -> Vec<Cell> {
    let cell = |key: &str| Cell::new(text(&vni[key]));
    let synced = match vni["synced"].as_bool() {
        Some(true) => Cell::styled("yes", Style::Good),
        Some(false) => Cell::styled("no", Style::Warning),
        None => Cell::new(""),
    };
    vec![
        cell("vni"),
        cell("routes"),
        cell("std"),
        cell("nat"),
        cell("lb"),
        cell("other"),
        cell("subscribers"),
        cell("digest"),
        synced,
    ]
}

fn route_row(route: &Value) -> Vec<Cell> {
    let cell = |key: &str| Cell::new(text(&route[key]));
    let announcers = route["announcers"].as_array().into_iter().flatten();
    let from: Vec<String> = announcers.map(text).collect();
    let note = match (route["suppressed"].as_bool(), from.is_empty()) {
        (Some(true), _) => Cell::styled("suppressed", Style::Dim),
        (_, true) => Cell::styled("stale", Style::Warning),
        _ => Cell::new(""),
    };
    vec![
        cell("vni"),
        cell("prefix"),
        cell("next_hop"),
        cell("type"),
        Cell::new(ports(route).unwrap_or_default()),
        cell("target_vni"),
        Cell::new(from.join(", ")),
        note,
    ]
}

/// Returns the ports of a route, if it has ports.
fn ports(route: &Value) -> Option<String> {
    let (from, to) = (route["port_from"].as_u64()?, route["port_to"].as_u64()?);
    Some(format!("{from}-{to}"))
}

/// Formats a route as logs and the client do.
pub(super) fn route_text(route: &Value) -> String {
    let mut line = format!(
        "VNI {} {} via {}",
        text(&route["vni"]),
        text(&route["prefix"]),
        text(&route["next_hop"])
    );
    if let Some(vni) = route["target_vni"].as_u64() {
        line += &format!(" (VNI: {vni})");
    }
    match (&*text(&route["type"]), ports(route)) {
        ("std", _) => {}
        ("nat", Some(ports)) => line += &format!(" [NAT ports {ports}]"),
        (other, _) => line += &format!(" [{}]", other.to_uppercase()),
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded() {
        let query = Query::new("/a")
            .with("x", None)
            .with("prefix", Some("10.0.0.0/8"))
            .with("peer", Some("[::1]:4711 é&"));
        assert_eq!(
            query.0,
            "/a?prefix=10.0.0.0%2F8&peer=%5B::1%5D:4711%20%C3%A9%26"
        );
    }

    #[test]
    fn routes_read_as_in_the_log() {
        let route = serde_json::json!({
            "vni": 1, "prefix": "10.0.0.0/8", "next_hop": "::1", "type": "nat",
            "target_vni": 5, "port_from": 1, "port_to": 2,
        });
        let text = "VNI 1 10.0.0.0/8 via ::1 (VNI: 5) [NAT ports 1-2]";
        assert_eq!(route_text(&route), text);
        let route = serde_json::json!({
            "vni": 1, "prefix": "10.0.0.0/8", "next_hop": "::1", "type": "lb",
            "target_vni": null, "port_from": null, "port_to": null,
        });
        assert_eq!(route_text(&route), "VNI 1 10.0.0.0/8 via ::1 [LB]");
    }
}
