//! `metalbond diff`.
//!
//! Tables are compared by their digests, and only those that differ are fetched. Tables change
//! all the time: tables that differ are compared again after a pause, so that a change on its way
//! from one server to another is not reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use rustbond::{Destination, IpNet, NextHop, NextHopType, Route, Vni};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::{DiffArgs, Output};
use super::http;
use super::place::Place;
use super::show::{Query, for_each};
use super::terminal::{Style, Terminal};
use super::{DIFFERENT, Printer, Stop, ended};
use crate::cli::failure::Failure;

/// The pause between two comparisons: longer than a change takes to arrive, and longer than the
/// server reuses a snapshot.
const PAUSE: Duration = Duration::from_millis(2100);

/// The digest of a table without routes.
const EMPTY: &str = "0000000000000000";

/// Compares servers. The exit code is 0 if they agree, 1 if not, 2 if one could not be asked.
pub(crate) fn diff(args: &DiffArgs) -> Result<ExitCode, Failure> {
    let compared = compare(args).map_err(|stop| match stop {
        // As with diff(1), 1 says that they differ.
        Stop::Failed(failure) => Stop::Failed(Failure::Argument(failure.to_string())),
        stop @ Stop::NobodyReads => stop,
    });
    let mut code = ExitCode::SUCCESS;
    ended(compared.and_then(|found| {
        if !found.is_equal() {
            code = DIFFERENT;
        }
        found.print(args)
    }))?;
    Ok(code)
}

/// A route that only the first server has, or only the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Difference {
    /// Which of the servers is compared with the first.
    server: usize,
    vni: Vni,
    route: Route,
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    /// Only the first has it.
    Missing,
    /// Only the other has it.
    Extra,
}

/// The result of a comparison.
struct Found {
    /// Tables of the first, and routes in them.
    tables: usize,
    routes: u64,
    differences: BTreeSet<Difference>,
}

fn compare(args: &DiffArgs) -> Result<Found, Stop> {
    let (tables, mut vnis) = differing(args, None)?;
    let mut differences = BTreeSet::new();
    if !vnis.is_empty() {
        differences = differences_in(args, &vnis)?;
        // The digests are current; a snapshot may be older.
        std::thread::sleep(PAUSE);
        (_, vnis) = differing(args, Some(&vnis))?;
        let again = differences_in(args, &vnis)?;
        differences.retain(|it| again.contains(it));
    }
    Ok(Found {
        tables: tables.len(),
        routes: tables.values().map(|it| it.routes).sum(),
        differences,
    })
}

/// The numbers of a table.
#[derive(Debug, Deserialize)]
struct Table {
    vni: u32,
    routes: u64,
    digest: String,
}

/// Returns the tables of the first server, and those of `among` that differ at another server.
#[allow(clippy::type_complexity, reason = "two results, each plain")]
fn differing(
    args: &DiffArgs,
    among: Option<&BTreeSet<Vni>>,
) -> Result<(BTreeMap<Vni, Table>, BTreeSet<Vni>), Stop> {
    let mut all = Vec::new();
    for place in &args.servers {
        all.push(tables(place, args.vni)?);
    }
    let digest = |tables: &BTreeMap<Vni, Table>, vni: &Vni| {
        let table = tables.get(vni);
        table.map_or_else(|| EMPTY.into(), |it| it.digest.clone())
    };
    let vnis: BTreeSet<Vni> = all.iter().flat_map(BTreeMap::keys).copied().collect();
    let differs = |vni: &Vni| {
        let first = digest(&all[0], vni);
        all[1..].iter().any(|it| digest(it, vni) != first)
    };
    let differ = vnis
        .into_iter()
        .filter(|vni| among.is_none_or(|among| among.contains(vni)) && differs(vni));
    let differ = differ.collect();
    Ok((all.swap_remove(0), differ))
}

/// Returns the tables of a server that have routes.
fn tables(place: &Place, vni: Option<Vni>) -> Result<BTreeMap<Vni, Table>, Stop> {
    let vni = vni.map(|it| it.to_string());
    let query = Query::new("/api/v1/vnis")
        .with("vni", vni.as_deref())
        .with("limit", Some("all"));
    let mut tables = BTreeMap::new();
    for_each(place, &query, "vnis", |item| {
        let table: Table = parse(place, item)?;
        if table.routes > 0 {
            tables.insert(Vni(table.vni), table);
        }
        Ok(())
    })?;
    Ok(tables)
}

fn parse<'a, T: Deserialize<'a>>(place: &Place, item: &'a RawValue) -> Result<T, Failure> {
    serde_json::from_str(item.get()).map_err(|error| http::unreadable(place, &error))
}

fn differences_in(args: &DiffArgs, vnis: &BTreeSet<Vni>) -> Result<BTreeSet<Difference>, Stop> {
    let mut differences = BTreeSet::new();
    for vni in vnis {
        let first = routes(&args.servers[0], *vni)?;
        for (server, place) in args.servers.iter().enumerate().skip(1) {
            let other = routes(place, *vni)?;
            differences.extend(between(&first, &other).map(|(route, which)| Difference {
                server,
                vni: *vni,
                route,
                which,
            }));
        }
    }
    Ok(differences)
}

/// Returns the routes that only one of two sorted lists has.
fn between(first: &[Route], other: &[Route]) -> impl Iterator<Item = (Route, Which)> {
    let lacks = |list: &[Route], route: &Route| list.binary_search(route).is_err();
    let missing = first.iter().filter(move |it| lacks(other, it));
    let extra = other.iter().filter(move |it| lacks(first, it));
    let missing = missing.map(|it| (*it, Which::Missing));
    missing.chain(extra.map(|it| (*it, Which::Extra)))
}

/// The identity of a route.
#[derive(Debug, Deserialize)]
struct RouteJson {
    prefix: IpNetText,
    next_hop: IpAddr,
    target_vni: Option<u32>,
    r#type: String,
    port_from: Option<u16>,
    port_to: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct IpNetText(IpNet);

impl TryFrom<String> for IpNetText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let prefix = text.parse().map(Self);
        prefix.map_err(|_| format!("{text} is no prefix"))
    }
}

/// Returns the routes of a VNI, sorted.
fn routes(place: &Place, vni: Vni) -> Result<Vec<Route>, Stop> {
    let query = Query::new("/api/v1/routes")
        .with("vni", Some(&vni.to_string()))
        .with("limit", Some("all"));
    let mut routes = Vec::new();
    for_each(place, &query, "routes", |item| {
        let json: RouteJson = parse(place, item)?;
        routes.push(json.route().ok_or_else(|| {
            Failure::RunTime(format!("{place}: unexpected answer: type {}", json.r#type))
        })?);
        Ok(())
    })?;
    routes.sort_unstable();
    Ok(routes)
}

impl RouteJson {
    fn route(&self) -> Option<Route> {
        let hop_type = match &*self.r#type {
            "std" => NextHopType::Standard,
            "nat" => NextHopType::Nat,
            "lb" => NextHopType::LoadBalancerTarget,
            number => NextHopType::from_number(number.parse().ok()?),
        };
        let next_hop = NextHop {
            target_vni: self.target_vni.and_then(NonZeroU32::new),
            hop_type,
            nat_port_range_from: self.port_from.unwrap_or_default(),
            nat_port_range_to: self.port_to.unwrap_or_default(),
            ..NextHop::standard(self.next_hop)
        };
        Some(Route::new(Destination::new(self.prefix.0), next_hop))
    }
}

impl Found {
    fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn print(&self, args: &DiffArgs) -> Result<(), Stop> {
        let mut printer = Printer::new();
        match args.output {
            Output::Table => self.print_lines(args, &mut printer)?,
            Output::Ndjson => {
                for it in &self.differences {
                    printer.print(format!("{}\n", it.to_json(args)))?;
                }
            }
            Output::Json => {
                let mut before = "[\n";
                for it in &self.differences {
                    printer.print(format!("{before}{}", it.to_json(args)))?;
                    before = ",\n";
                }
                printer.print(if self.is_equal() { "[]\n" } else { "\n]\n" })?;
            }
        }
        printer.flush()
    }

    /// Prints as diff(1) does with -u.
    fn print_lines(&self, args: &DiffArgs, printer: &mut Printer) -> Result<(), Stop> {
        let terminal = Terminal::of_stdout();
        let styled = |style, text: String| {
            let (mark, end) = terminal.marks(style);
            format!("{mark}{text}{end}\n")
        };
        if self.is_equal() {
            let count = args.servers.len();
            return printer.print(format!(
                "no difference between {count} servers; the first has {} routes in {} VNIs\n",
                self.routes, self.tables
            ));
        }
        let mut last = None;
        for it in &self.differences {
            if last.replace(it.server) != Some(it.server) {
                let heads = [("---", 0), ("+++", it.server)];
                for (sign, at) in heads {
                    let head = format!("{sign} {}", args.servers[at]);
                    printer.print(styled(Style::Bold, head))?;
                }
            }
            let (sign, style) = match it.which {
                Which::Missing => ('-', Style::Bad),
                Which::Extra => ('+', Style::Good),
            };
            let line = format!("{sign} VNI {} {}", it.vni, it.route);
            printer.print(styled(style, line))?;
        }
        Ok(())
    }
}

impl Difference {
    fn to_json(self, args: &DiffArgs) -> serde_json::Value {
        let hop = &self.route.next_hop;
        let has_ports = hop.hop_type == NextHopType::Nat;
        let (has, lacks) = match self.which {
            Which::Missing => (0, self.server),
            Which::Extra => (self.server, 0),
        };
        serde_json::json!({
            "on": args.servers[has].to_string(),
            "missing_on": args.servers[lacks].to_string(),
            "vni": self.vni.0,
            "prefix": self.route.destination.to_string(),
            "next_hop": hop.target_address,
            "target_vni": hop.target_vni,
            "type": super::change::type_name(hop.hop_type),
            "port_from": has_ports.then_some(hop.nat_port_range_from),
            "port_to": has_ports.then_some(hop.nat_port_range_to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_list_only_are_reported() {
        let route = |host: u8| {
            let destination = Destination::from_ipv4([10, 0, 0, host].into(), 32);
            Route::new(destination, NextHop::standard([192, 0, 2, 1]))
        };
        let (first, other) = ([route(1), route(2)], [route(2), route(3)]);
        let found: Vec<_> = between(&first, &other).collect();
        assert_eq!(
            found,
            [(route(1), Which::Missing), (route(3), Which::Extra)]
        );
        assert_eq!(between(&first, &first).count(), 0);
    }
}
