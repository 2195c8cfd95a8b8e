//! `/api/v1/routes`: the table, with filters and pages.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::go::Date;
use super::params::{Paging, Params, bad_cursor};
use crate::core::types::{Destination, NextHop, NextHopType, Route, Vni};
use crate::http::cache::{NoSnapshot, SnapshotCache, Taken};
use crate::http::response::{List, Media, Response};
use crate::inspect::{Inspect, RouteEntry, Snapshot};

/// The names of the parameters that [`RoutesQuery::parse`] takes.
pub(super) const PARAMETERS: &str =
    "vni, prefix, match, within, next_hop, type, peer, limit and cursor";

/// The routes that a request asks for.
#[derive(Debug)]
pub(crate) struct RoutesQuery {
    vni: Option<Vni>,
    place: Place,
    next_hop: Option<IpAddr>,
    hop_type: Option<NextHopType>,
    peer: Option<String>,
    limit: usize,
    after: Option<(Vni, Route)>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Anywhere,
    /// Exactly this prefix.
    Exact(IpNet),
    /// The longest prefix of each VNI that contains this one.
    Longest(IpNet),
    /// This prefix and all that it contains.
    Within(IpNet),
}

impl RoutesQuery {
    pub(super) fn parse(params: &mut Params<'_>) -> Result<Self, String> {
        let vni = params.vni()?;
        let net = "an address or a prefix, as 10.0.0.0/8";
        let places = [
            params.value("prefix", net, parse_net)?.map(Place::Exact),
            params.value("match", net, parse_net)?.map(Place::Longest),
            params.value("within", net, parse_net)?.map(Place::Within),
        ];
        let mut places = places.into_iter().flatten();
        let place = places.next().unwrap_or(Place::Anywhere);
        if places.next().is_some() {
            return Err("prefix, match and within exclude each other".into());
        }
        let next_hop = params.value("next_hop", "an address", |it| it.parse().ok())?;
        let hop_type = params.value("type", "std, nat, lb or a number", parse_type)?;
        let peer = params.text("peer")?;
        let Paging { limit, cursor } = params.paging()?;
        let after = match cursor {
            None => None,
            Some(text) => Some(parse_cursor(&text).ok_or_else(|| bad_cursor(&text))?),
        };
        Ok(Self {
            vni,
            place,
            next_hop,
            hop_type,
            peer,
            limit,
            after,
        })
    }

    pub(super) fn answer(
        self,
        inspect: &dyn Inspect,
        cache: &SnapshotCache,
    ) -> Result<Response, NoSnapshot> {
        let Taken {
            snapshot,
            generation,
        } = cache.get(inspect, self.vni)?;
        let filter = Filter::new(&self, &snapshot);
        let selected = Selected::new(&self, &snapshot, &filter);
        let head = Head {
            total: selected.total,
            next: selected.next,
            taken: Date::of(snapshot.taken()).to_string(),
            generation: generation.to_string(),
        };
        let (from, to) = (selected.range.start, selected.range.end);
        let rows = Rows {
            snapshot,
            filter,
            at: from,
            end: to,
        };
        let list = List::new(&head, "routes", rows);
        Ok(Response::stream(Media::Json, list))
    }
}

fn parse_net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse().ok(),
    }
}

/// Reads the name or the number of a type, as `--announce` takes it.
pub(crate) fn parse_type(text: &str) -> Option<NextHopType> {
    let number = match text.to_ascii_lowercase().as_str() {
        "std" | "standard" => 0,
        "nat" => 1,
        "lb" => 2,
        other => other.parse().ok()?,
    };
    Some(NextHopType::from_number(number))
}

/// Returns the name of a type, or its number if it has no name.
pub(crate) fn type_name(hop_type: NextHopType) -> String {
    match hop_type {
        NextHopType::Standard => "std".into(),
        NextHopType::Nat => "nat".into(),
        NextHopType::LoadBalancerTarget => "lb".into(),
        NextHopType::Unknown(_) => hop_type.number().to_string(),
    }
}

/// The conditions for a route.
struct Filter {
    place: Place,
    /// With [`Place::Longest`]: the length of the longest match in each VNI that has one.
    longest: Vec<(Vni, u8)>,
    next_hop: Option<IpAddr>,
    hop_type: Option<NextHopType>,
    /// Ids of the announcers that the request asks for.
    peers: Option<BTreeSet<u32>>,
}

impl Filter {
    fn new(query: &RoutesQuery, snapshot: &Snapshot) -> Self {
        let entries = of(snapshot, query.vni);
        let mut filter = Self {
            place: query.place,
            longest: Vec::new(),
            next_hop: query.next_hop,
            hop_type: query.hop_type,
            peers: (query.peer.as_deref()).map(|peer| announcers_named(peer, snapshot, entries)),
        };
        if let Place::Longest(net) = query.place {
            filter.longest = filter.longest_matches(net, entries);
        }
        filter
    }

    /// Finds the longest matches among the routes that meet all other conditions.
    fn longest_matches(&self, net: IpNet, entries: &[RouteEntry]) -> Vec<(Vni, u8)> {
        let mut found: Vec<(Vni, u8)> = Vec::new();
        for entry in entries {
            let prefix = entry.route.destination.prefix;
            if !prefix.contains(&net) || !self.passes_otherwise(entry) {
                continue;
            }
            match found.last_mut() {
                Some((vni, len)) if *vni == entry.vni => *len = prefix.prefix_len().max(*len),
                _ => found.push((entry.vni, prefix.prefix_len())),
            }
        }
        found
    }

    fn passes(&self, entry: &RouteEntry) -> bool {
        let prefix = entry.route.destination.prefix;
        let is_there = match self.place {
            Place::Anywhere => true,
            Place::Exact(net) => prefix == net,
            Place::Within(net) => net.contains(&prefix),
            Place::Longest(net) => {
                let at = self.longest.binary_search_by_key(&entry.vni, |it| it.0);
                at.is_ok_and(|at| self.longest[at].1 == prefix.prefix_len())
                    && prefix.contains(&net)
            }
        };
        is_there && self.passes_otherwise(entry)
    }

    fn passes_otherwise(&self, entry: &RouteEntry) -> bool {
        let hop = &entry.route.next_hop;
        self.next_hop.is_none_or(|it| it == hop.target_address)
            && self.hop_type.is_none_or(|it| it == hop.hop_type)
            && (self.peers.as_ref())
                .is_none_or(|peers| entry.announcers.ids().iter().any(|id| peers.contains(id)))
    }

    fn passes_everything(&self) -> bool {
        matches!(self.place, Place::Anywhere)
            && self.next_hop.is_none()
            && self.hop_type.is_none()
            && self.peers.is_none()
    }
}

/// Returns the ids of the announcers with this name, or from this address.
fn announcers_named(peer: &str, snapshot: &Snapshot, entries: &[RouteEntry]) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    let mut last = None;
    for id in entries.iter().flat_map(|it| it.announcers.ids()) {
        // Most entries have the same announcer as the one before.
        if last.replace(*id) != Some(*id) {
            all.insert(*id);
        }
    }
    all.retain(|id| snapshot.name(*id).is_some_and(|name| is_named(name, peer)));
    all
}

/// Returns whether `peer` is this name, or the address in it.
pub(super) fn is_named(name: &str, peer: &str) -> bool {
    if name == peer {
        return true;
    }
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match (host.parse::<IpAddr>(), peer.parse::<IpAddr>()) {
        (Ok(host), Ok(peer)) => host == peer,
        _ => host == peer,
    }
}

fn of(snapshot: &Snapshot, vni: Option<Vni>) -> &[RouteEntry] {
    vni.map_or_else(|| snapshot.entries(), |vni| snapshot.of(vni))
}

/// The page that a request asks for.
struct Selected {
    /// Number of routes that pass the filter, on all pages.
    total: usize,
    /// The entries among which the routes of this page are.
    range: Range<usize>,
    next: Option<String>,
}

impl Selected {
    fn new(query: &RoutesQuery, snapshot: &Snapshot, filter: &Filter) -> Self {
        let all = snapshot.entries();
        let base = query.vni.map_or(0..all.len(), |vni| {
            let start = all.partition_point(|it| it.vni < vni);
            start..start + snapshot.of(vni).len()
        });
        let start = query.after.map_or(base.start, |after| {
            let after = all.partition_point(|it| (it.vni, it.route) <= after);
            after.clamp(base.start, base.end)
        });
        let (total, end, has_more) = if filter.passes_everything() {
            let end = start.saturating_add(query.limit).min(base.end);
            (base.len(), end, end < base.end)
        } else {
            let passes = |at: &usize| filter.passes(&all[*at]);
            let before = (base.start..start).filter(passes).count();
            let mut here = (start..base.end).filter(passes);
            let last = here.by_ref().take(query.limit).fold((0, start), |it, at| {
                // The page ends behind its last route.
                (it.0 + 1, at + 1)
            });
            let behind = here.count();
            (before + last.0 + behind, last.1, behind > 0)
        };
        let last = has_more.then(|| &all[end - 1]);
        Self {
            total,
            range: start..end,
            next: last.map(|it| cursor(it.vni, &it.route)),
        }
    }
}

/// Returns the place of a route in the table, which stays valid after the route is gone.
fn cursor(vni: Vni, route: &Route) -> String {
    let hop = &route.next_hop;
    format!(
        "{vni}~{}~{}~{}~{}~{}~{}",
        route.destination,
        hop.target_address,
        hop.target_vni.map_or(0, u32::from),
        hop.hop_type.number(),
        hop.nat_port_range_from,
        hop.nat_port_range_to
    )
}

fn parse_cursor(text: &str) -> Option<(Vni, Route)> {
    let mut fields = text.split('~');
    let vni = Vni(fields.next()?.parse().ok()?);
    let destination = Destination::new(fields.next()?.parse().ok()?);
    let address: IpAddr = fields.next()?.parse().ok()?;
    let hop = NextHop {
        hop_type: NextHopType::Standard,
        ..NextHop::standard_with_vni(address, fields.next()?.parse().ok()?)
    };
    let hop = NextHop {
        hop_type: NextHopType::from_number(fields.next()?.parse().ok()?),
        nat_port_range_from: fields.next()?.parse().ok()?,
        nat_port_range_to: fields.next()?.parse().ok()?,
        ..hop
    };
    let route = Route::new(destination, hop);
    fields.next().is_none().then_some((vni, route))
}

#[derive(Serialize)]
struct Head {
    total: usize,
    next: Option<String>,
    taken: String,
    generation: String,
}

/// A route as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RouteRow {
    vni: u32,
    prefix: IpText<Destination>,
    next_hop: IpText<IpAddr>,
    target_vni: Option<u32>,
    r#type: String,
    port_from: Option<u16>,
    port_to: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    announcers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<bool>,
}

/// A value that is written as it is displayed.
#[derive(Debug)]
struct IpText<T>(T);

impl<T: std::fmt::Display> Serialize for IpText<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl RouteRow {
    fn new(entry: &RouteEntry, snapshot: &Snapshot) -> Self {
        let ids = entry.announcers.ids().iter();
        let name = |id: &u32| {
            let name = snapshot.name(*id);
            name.map_or_else(|| format!("#{id}"), ToOwned::to_owned)
        };
        Self {
            announcers: Some(ids.map(name).collect()),
            suppressed: Some(entry.is_suppressed),
            ..Self::of(entry.vni, &entry.route)
        }
    }

    /// Returns a row without announcers.
    pub(crate) fn of(vni: Vni, route: &Route) -> Self {
        let hop = &route.next_hop;
        let (from, to) = (hop.nat_port_range_from, hop.nat_port_range_to);
        let has_ports = hop.hop_type == NextHopType::Nat || from != 0 || to != 0;
        Self {
            vni: vni.0,
            prefix: IpText(route.destination),
            next_hop: IpText(hop.target_address),
            target_vni: hop.target_vni.map(u32::from),
            r#type: type_name(hop.hop_type),
            port_from: has_ports.then_some(from),
            port_to: has_ports.then_some(to),
            announcers: None,
            suppressed: None,
        }
    }
}

/// The routes of a page, made while they are sent.
struct Rows {
    snapshot: Arc<Snapshot>,
    filter: Filter,
    at: usize,
    end: usize,
}

impl Iterator for Rows {
    type Item = Option<RouteRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let entry = &self.snapshot.entries()[self.at];
        self.at += 1;
        let passes = self.filter.passes(entry);
        Some(passes.then(|| RouteRow::new(entry, &self.snapshot)))
    }
}
