//! `metalbond probe`.

use std::time::Duration;

use rustbond::inspect::PeerKind;
use rustbond::probe::{Probe, ProbeConfig, ProbeError};
use serde::Serialize;

use super::args::{Output, ProbeArgs};
use super::terminal::{Style, Terminal};
use super::{Printer, ended, units};
use crate::cli::failure::Failure;

/// Makes a handshake with a peer and prints what the peer is.
pub(crate) fn probe(args: &ProbeArgs) -> Result<(), Failure> {
    let config = ProbeConfig {
        timeout: args.timeout,
        count: args.count,
        ..ProbeConfig::default()
    };
    let found = rustbond::probe::probe(&args.host, &config);
    let found = found.map_err(|error| {
        Failure::RunTime(match error {
            ProbeError::Resolve(_) => format!("{}: {error}", args.host),
            error => error.to_string(),
        })
    })?;
    let report = Report::new(&found);
    let text = match args.output {
        Output::Table => report.to_text(&found, Terminal::of_stdout()),
        Output::Json | Output::Ndjson => {
            let text = serde_json::to_string(&report);
            text.map_err(|error| Failure::RunTime(error.to_string()))? + "\n"
        }
    };
    let mut printer = Printer::new();
    ended(printer.print(text).and_then(|()| printer.flush()))
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    address: String,
    connect_seconds: f64,
    hello_seconds: f64,
    kind: &'static str,
    is_server: bool,
    capabilities: Vec<String>,
    node_id: Option<String>,
    keepalive_interval_seconds: u32,
    round_trips: RoundTrips,
}

#[derive(Serialize)]
struct RoundTrips {
    count: usize,
    min_seconds: f64,
    median_seconds: f64,
    max_seconds: f64,
}

impl Report {
    fn new(found: &Probe) -> Self {
        let id = found.node_id.map(|id| {
            let digits = id.iter().map(|it| format!("{it:02x}"));
            digits.collect()
        });
        Self {
            address: found.endpoint.to_string(),
            connect_seconds: found.connect.as_secs_f64(),
            hello_seconds: found.hello.as_secs_f64(),
            kind: match found.kind {
                PeerKind::RustBond => "rustbond",
                PeerKind::Legacy => "legacy",
                PeerKind::Unknown => "unknown",
            },
            is_server: found.is_server,
            capabilities: found.capabilities.clone(),
            node_id: id,
            keepalive_interval_seconds: found.keepalive_interval,
            round_trips: RoundTrips::of(&found.round_trips),
        }
    }

    fn to_text(&self, found: &Probe, terminal: Terminal) -> String {
        let side = if self.is_server {
            "server"
        } else {
            "not a server"
        };
        let kind = match found.kind {
            PeerKind::RustBond => "RustBond",
            PeerKind::Legacy => "legacy, Go MetalBond or RustBond 0.1",
            PeerKind::Unknown => "unknown",
        };
        let trips = &self.round_trips;
        let mut lines = vec![
            ("address", self.address.clone()),
            ("peer", format!("{kind}, {side}")),
            ("connected", units::latency(self.connect_seconds)),
            ("hello", units::latency(self.hello_seconds)),
            (
                "keepalive",
                format!("every {} s", self.keepalive_interval_seconds),
            ),
            (
                "round trip",
                format!(
                    "min {}, median {}, max {} ({} keepalives)",
                    units::latency(trips.min_seconds),
                    units::latency(trips.median_seconds),
                    units::latency(trips.max_seconds),
                    trips.count,
                ),
            ),
        ];
        if !self.capabilities.is_empty() {
            lines.insert(2, ("offers", self.capabilities.join(", ")));
        }
        if let Some(id) = &self.node_id {
            lines.insert(2, ("node id", id.clone()));
        }
        let (bold, plain) = terminal.marks(Style::Bold);
        let line = |(key, value): &(&str, String)| format!("{bold}{key:<10}{plain} {value}\n");
        lines.iter().map(line).collect()
    }
}

impl RoundTrips {
    fn of(all: &[Duration]) -> Self {
        let mut all: Vec<f64> = all.iter().map(Duration::as_secs_f64).collect();
        all.sort_unstable_by(f64::total_cmp);
        let median = match (all.len(), all.len() / 2) {
            (0, _) => 0.0,
            (len, half) if len % 2 == 0 => f64::midpoint(all[half - 1], all[half]),
            (_, half) => all[half],
        };
        Self {
            count: all.len(),
            min_seconds: all.first().copied().unwrap_or_default(),
            median_seconds: median,
            max_seconds: all.last().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        let median = |millis: &[u64]| {
            let all: Vec<Duration> = millis.iter().map(|it| Duration::from_millis(*it)).collect();
            format!("{:.0}", RoundTrips::of(&all).median_seconds * 1000.0)
        };
        assert_eq!(median(&[9, 1, 5]), "5");
        assert_eq!(median(&[8, 2, 4, 6]), "5");
        assert_eq!(median(&[7]), "7");
    }
}
