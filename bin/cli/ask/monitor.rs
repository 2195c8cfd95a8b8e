//! `metalbond monitor`.

use std::io::{BufRead, IsTerminal};

use serde_json::Value;

use super::args::{MonitorArgs, Output};
use super::http::{self, Patience, Request};
use super::place::Place;
use super::show::{Query, route_text};
use super::table::printable;
use super::terminal::{Style, Terminal};
use super::{Printer, Stop, ended};
use crate::cli::failure::Failure;

/// Prints events until the other side ends the monitor, or nobody reads the output.
pub(crate) fn monitor(args: &MonitorArgs) -> Result<(), Failure> {
    ended(follow(args))
}

fn follow(args: &MonitorArgs) -> Result<(), Stop> {
    let place = Place::given_or_usual(args.at.as_ref())?;
    place.must_be_socket()?;
    let vni = args.vni.map(|it| it.to_string());
    let query = Query::new("/api/v1/monitor")
        .with("current", args.current.then_some("true"))
        .with("vni", vni.as_deref());
    let mut body = http::ask(&place, Request::get(&query.0), Patience::Endless)?;
    let for_people = match args.output {
        Some(output) => output == Output::Table,
        None => std::io::stdout().is_terminal(),
    };
    let terminal = Terminal::of_stdout();
    let mut printer = Printer::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = body.read_until(b'\n', &mut line);
        let failed = |why: &str| Failure::RunTime(format!("{place}: {why}"));
        if count.map_err(|error| failed(&http::describe(&error)))? == 0 {
            return Err(failed("the monitor ended without a reason").into());
        }
        let event: Value =
            serde_json::from_slice(&line).map_err(|error| http::unreadable(&place, &error))?;
        if for_people {
            printer.print(text(&event, terminal))?;
        } else {
            printer.print(&line)?;
        }
        // Lines that have arrived already are printed together.
        if !body.buffer().contains(&b'\n') {
            printer.flush()?;
        }
        if event["event"] == "end" {
            printer.flush()?;
            let why = event["reason"].as_str().unwrap_or_default();
            return Err(failed(&format!("the monitor ended: {}", printable(why))).into());
        }
    }
}

/// Formats an event as a line.
fn text(event: &Value, terminal: Terminal) -> String {
    let field = |name: &str| printable(event[name].as_str().unwrap_or_default());
    let time = field("time");
    // The date is that of today.
    let time = time.split_once('T').map_or(&*time, |(_, time)| time);
    let (style, what) = match event["event"].as_str().unwrap_or_default() {
        "add" => (Style::Good, format!("+ {}", route_text(event))),
        "remove" => (Style::Bad, format!("- {}", route_text(event))),
        "current" => (Style::Plain, format!("  {}", route_text(event))),
        "complete" => (
            Style::Dim,
            "  end of current routes; live changes follow".into(),
        ),
        "peer_up" => (Style::Good, format!("^ peer {} is up", field("peer"))),
        "peer_down" => (
            Style::Bad,
            format!("v peer {} is down: {}", field("peer"), field("reason")),
        ),
        "end" => (Style::Dim, format!("  the end: {}", field("reason"))),
        other => (Style::Plain, format!("  {}", printable(other))),
    };
    let (mark, end) = terminal.marks(style);
    format!("{time} {mark}{what}{end}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let all = [
            (
                r#"{"event":"add","time":"2026-11-21T01:02:03.004Z","vni":1,
                    "prefix":"10.0.0.0/8","next_hop":"::1","type":"std"}"#,
                "01:02:03.004Z + VNI 1 10.0.0.0/8 via ::1\n",
            ),
            (
                r#"{"event":"peer_down","time":"2026-11-21T01:02:03.004Z",
                    "peer":"a\n","reason":"closed by peer"}"#,
                "01:02:03.004Z v peer a\\n is down: closed by peer\n",
            ),
        ];
        for (json, expected) in all {
            let event = serde_json::from_str(json).unwrap();
            assert_eq!(text(&event, Terminal::PIPE), expected);
        }
    }
}
