//! The routing table as text, with the schema and the order of Go MetalBond.
//!
//! Go sorts the keys of its JSON and the next hops of a destination as texts, VNIs in YAML as
//! numbers, and destinations in YAML not at all; here they are sorted as in JSON.
//!
//! No string in it needs escaping: all are numbers, addresses or the version.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::core::types::{Destination, IpVersion, NextHop, Vni};
use crate::http::response::{Media, Response, Source};
use crate::inspect::{RouteEntry, Snapshot};

/// The value of `metalbondVersion`.
const VERSION: &str = concat!("rustbond-", env!("CARGO_PKG_VERSION"));

/// Entries that are read in a step.
const ENTRIES_PER_STEP: usize = 32;

/// The format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `/routes.json`.
    Json,
    /// `/routes.yaml`.
    Yaml,
}

/// Returns the table without the routes that a client suppresses: its data plane has no use for
/// them.
pub(super) fn response(snapshot: Arc<Snapshot>, format: Format) -> Response {
    let media = match format {
        Format::Json => Media::Json,
        Format::Yaml => Media::Yaml,
    };
    Response::stream(media, Text::new(snapshot, format))
}

/// Makes the text of a table from its beginning to its end.
struct Text {
    snapshot: Arc<Snapshot>,
    format: Format,
    /// The entries that are written, by their place in the snapshot.
    order: Vec<u32>,
    /// The next of them; `None` before the head is written.
    at: Option<usize>,
    /// The VNI and destination of the last next hop.
    under: Option<(Vni, Destination)>,
}

impl Text {
    fn new(snapshot: Arc<Snapshot>, format: Format) -> Self {
        let order = order(snapshot.entries(), format);
        Self {
            snapshot,
            format,
            order,
            at: None,
            under: None,
        }
    }

    fn write(&mut self, to: &mut String) -> Result<bool, fmt::Error> {
        let snapshot = Arc::clone(&self.snapshot);
        let Some(at) = self.at else {
            self.at = Some(0);
            self.write_head(to, snapshot.taken())?;
            return Ok(true);
        };
        let end = self.order.len().min(at + ENTRIES_PER_STEP);
        for place in at..end {
            let entry = &snapshot.entries()[self.order[place] as usize];
            let under = (entry.vni, entry.route.destination);
            match self.format {
                Format::Json => self.write_json(to, under, &entry.route.next_hop)?,
                Format::Yaml => self.write_yaml(to, under, &entry.route.next_hop)?,
            }
            self.under = Some(under);
        }
        self.at = Some(end);
        let has_more = end < self.order.len();
        if !has_more {
            self.write_end(to)?;
        }
        Ok(has_more)
    }

    fn write_head(&self, to: &mut String, taken: SystemTime) -> fmt::Result {
        let date = GoDate(Date::of(taken));
        match self.format {
            Format::Json => write!(to, "{{\n  \"date\": \"{date}\",\n  \"vnet\": {{"),
            Format::Yaml => {
                let none = if self.order.is_empty() { " {}" } else { "" };
                write!(to, "date: \"{date}\"\nvnet:{none}\n")
            }
        }
    }

    fn write_json(&self, to: &mut String, under: (Vni, Destination), hop: &NextHop) -> fmt::Result {
        let (vni, destination) = under;
        let key = Key(destination, "\\\"");
        match self.under {
            Some(last) if last == under => to.write_str(",")?,
            Some(last) if last.0 == vni => write!(to, "\n      ],\n      \"{key}\": [")?,
            last => {
                let end = last.map_or("", |_| "\n      ]\n    },");
                write!(to, "{end}\n    \"{vni}\": {{\n      \"{key}\": [")?;
            }
        }
        write_json_hop(to, hop)
    }

    fn write_yaml(&self, to: &mut String, under: (Vni, Destination), hop: &NextHop) -> fmt::Result {
        let (vni, destination) = under;
        if self.under.is_none_or(|last| last.0 != vni) {
            writeln!(to, "  {vni}:")?;
        }
        if self.under != Some(under) {
            writeln!(to, "    '{}':", Key(destination, "\""))?;
        }
        write_yaml_hop(to, hop)
    }

    fn write_end(&self, to: &mut String) -> fmt::Result {
        match self.format {
            Format::Json => {
                let end = self.under.map_or("", |_| "\n      ]\n    }\n  ");
                write!(to, "{end}}},\n  \"metalbondVersion\": \"{VERSION}\"\n}}")
            }
            Format::Yaml => writeln!(to, "metalbondversion: {VERSION}"),
        }
    }
}

impl Source for Text {
    fn step(&mut self, to: &mut Vec<u8>) -> bool {
        let mut text = String::new();
        let has_more = self.write(&mut text);
        to.extend_from_slice(text.as_bytes());
        has_more.expect("writing to a String does not fail")
    }
}

/// Returns the places of the entries that a data plane uses, in the order of Go MetalBond.
///
/// 1,000,000 entries take part of a second and 50 MB for that time; the caller's thread has no
/// connection to serve.
fn order(entries: &[RouteEntry], format: Format) -> Vec<u32> {
    let used = |it: &u32| !entries[*it as usize].is_suppressed;
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).filter(used).collect();
    let route = |it: u32| &entries[it as usize].route;
    let vni = |it: u32| entries[it as usize].vni;
    for of_vni in order.chunk_by_mut(|a, b| vni(*a) == vni(*b)) {
        of_vni.sort_by_cached_key(|it| SortKey::of(&route(*it).destination));
        let hops = of_vni.chunk_by_mut(|a, b| route(*a).destination == route(*b).destination);
        for hops in hops.filter(|it| it.len() > 1) {
            hops.sort_by_cached_key(|it| go_text(&route(*it).next_hop));
        }
    }
    if format == Format::Json {
        // Stable: what is sorted within a VNI stays so.
        order.sort_by_cached_key(|it| SortKey::of_vni(vni(*it)));
    }
    order
}

/// A text of at most `N` bytes, which compares as it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ShortText<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> ShortText<N> {
    fn of(value: impl fmt::Display) -> Self {
        let (bytes, len) = ([0; N], 0);
        let mut text = Self { bytes, len };
        // What does not fit is left out; nothing that is sorted here is so long.
        if write!(text, "{value}").is_err() {
            debug_assert!(false, "{value} has more than {N} bytes");
        }
        text
    }
}

impl<const N: usize> Write for ShortText<N> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let at = usize::from(self.len);
        let to = self.bytes.get_mut(at..at + more.len()).ok_or(fmt::Error)?;
        to.copy_from_slice(more.as_bytes());
        self.len = u8::try_from(at + more.len()).map_err(|_| fmt::Error)?;
        Ok(())
    }
}

/// A destination as Go sorts it: the version, then the prefix as a text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    version: u8,
    /// The longest is an IPv6 address with its length.
    prefix: ShortText<43>,
}

impl SortKey {
    fn of(destination: &Destination) -> Self {
        Self {
            version: version(*destination),
            prefix: ShortText::of(destination),
        }
    }

    /// A VNI as Go sorts the keys of a JSON object: 16777215 before 200.
    fn of_vni(vni: Vni) -> Self {
        Self {
            version: 0,
            prefix: ShortText::of(vni),
        }
    }
}

/// Returns a next hop as Go sorts it.
fn go_text(hop: &NextHop) -> String {
    match target_vni(hop) {
        0 => hop.target_address.to_string(),
        vni => format!("{} (VNI: {vni})", hop.target_address),
    }
}

fn write_json_hop(to: &mut String, hop: &NextHop) -> fmt::Result {
    write!(
        to,
        "\n        {{\
         \n          \"TargetAddress\": \"{}\",\
         \n          \"TargetVNI\": {},\
         \n          \"Type\": {},\
         \n          \"NATPortRangeFrom\": {},\
         \n          \"NATPortRangeTo\": {}\
         \n        }}",
        hop.target_address,
        target_vni(hop),
        hop.hop_type.number(),
        hop.nat_port_range_from,
        hop.nat_port_range_to
    )
}

fn write_yaml_hop(to: &mut String, hop: &NextHop) -> fmt::Result {
    let address = hop.target_address.to_string();
    let quote = yaml_quote(&address);
    write!(
        to,
        "    - targetaddress: {quote}{address}{quote}\
         \n      targetvni: {}\
         \n      type: {}\
         \n      natportrangefrom: {}\
         \n      natportrangeto: {}\n",
        target_vni(hop),
        hop.hop_type.number(),
        hop.nat_port_range_from,
        hop.nat_port_range_to
    )
}

/// Returns the quotes that an address needs to be a string in YAML.
fn yaml_quote(address: &str) -> &'static str {
    // Digits between colons are a number of base 60 in YAML 1.1.
    let is_number = address
        .split(':')
        .all(|part| (1..=2).contains(&part.len()) && part.bytes().all(|it| it.is_ascii_digit()));
    if is_number {
        "\""
    } else if address.ends_with(':') {
        // Without quotes, it is the key of a mapping.
        "'"
    } else {
        ""
    }
}

fn target_vni(hop: &NextHop) -> u32 {
    hop.target_vni.map_or(0, u32::from)
}

/// A destination as the JSON text that Go uses as a key. The second field is the quote to write.
struct Key(Destination, &'static str);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(destination, q) = self;
        let version = version(*destination);
        write!(
            f,
            "{{{q}IPVersion{q}:{version},{q}Prefix{q}:{q}{destination}{q}}}"
        )
    }
}

fn version(destination: Destination) -> u8 {
    match destination.ip_version() {
        IpVersion::V4 => 4,
        IpVersion::V6 => 6,
    }
}

/// A time in UTC, displayed as in RFC 3339.
pub(crate) struct Date(Duration);

impl Date {
    /// Returns the text with milliseconds.
    pub(crate) fn to_text_with_millis(&self) -> String {
        let mut text = self.to_string();
        let fraction = format!(".{:03}", self.0.subsec_millis());
        text.insert_str(text.len() - 1, &fraction);
        text
    }

    /// Converts a time. A time before 1970 becomes 1970.
    pub(crate) fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, between: char) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}"
        )
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 'T')?;
        f.write_char('Z')
    }
}

/// A time as Go MetalBond writes it.
struct GoDate(Date);

impl fmt::Display for GoDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, ' ')
    }
}

/// Returns year, month and day for a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from 0000-03-01: a leap day is then the last day of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is month 0; five months have 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, is_next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year_of_era + is_next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::types::Route;
    use crate::inspect::Announcers;

    #[test]
    fn dates_follow_the_calendar() {
        let all = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_000_000_000, "2001-09-09 01:46:40"),
            (1_795_227_974, "2026-11-21 02:26:14"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ];
        for (seconds, text) in all {
            let date = Date(Duration::from_secs(seconds));
            assert_eq!(date.to_string(), text.replace(' ', "T") + "Z");
            assert_eq!(GoDate(date).to_string(), text);
        }
    }

    fn text(routes: &[Route], format: Format) -> String {
        let entry = |route: &Route| RouteEntry {
            vni: Vni(7),
            route: *route,
            announcers: Announcers::One(1),
            is_suppressed: false,
        };
        let entries = routes.iter().map(entry).collect();
        text_of(Arc::new(Snapshot::new(entries, Vec::new())), format)
    }

    fn text_of(snapshot: Arc<Snapshot>, format: Format) -> String {
        let mut source = Text::new(snapshot, format);
        let mut bytes = Vec::new();
        while source.step(&mut bytes) {}
        String::from_utf8(bytes).unwrap()
    }

    /// The keys of a text, in the order in which they stand.
    fn keys(text: &str, mark: &str) -> Vec<String> {
        let lines = text.lines().filter_map(|it| it.split_once(mark));
        lines
            .map(|(_, rest)| rest.split(['\\', '"']).next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn keys_and_next_hops_are_sorted_as_go_sorts_them() {
        let hop = |number: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
        let prefixes = [
            "2001:db8::/32",
            "10.0.2.0/24",
            "10.0.10.0/24",
            "10.0.2.0/25",
        ];
        let mut entries = Vec::new();
        for vni in [100, 16_777_215, 200] {
            for prefix in prefixes {
                let destination = Destination::new(prefix.parse().unwrap());
                for number in [2, 0x10] {
                    entries.push(RouteEntry {
                        vni: Vni(vni),
                        route: Route::new(destination, NextHop::standard(hop(number))),
                        announcers: Announcers::One(1),
                        is_suppressed: false,
                    });
                }
            }
        }
        let snapshot = Arc::new(Snapshot::new(entries, Vec::new()));
        let json = text_of(Arc::clone(&snapshot), Format::Json);
        let sorted = [
            "10.0.10.0/24",
            "10.0.2.0/24",
            "10.0.2.0/25",
            "2001:db8::/32",
        ];
        assert_eq!(keys(&json, "\\\"Prefix\\\":\\\""), sorted.repeat(3));
        let hops = ["2001:db8::10", "2001:db8::2"];
        assert_eq!(keys(&json, "\"TargetAddress\": \""), hops.repeat(12));
        let vnis: Vec<usize> = ["100", "16777215", "200"]
            .map(|it| json.find(&format!("\n    \"{it}\": {{")).unwrap())
            .into();
        assert!(vnis.is_sorted(), "{vnis:?}");
        let yaml = text_of(snapshot, Format::Yaml);
        let vnis: Vec<usize> = ["100", "200", "16777215"]
            .map(|it| yaml.find(&format!("\n  {it}:\n")).unwrap())
            .into();
        assert!(vnis.is_sorted(), "{vnis:?}");
    }

    #[test]
    fn empty_table_has_an_empty_vnet() {
        let json = text(&[], Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["vnet"], serde_json::json!({}));
        assert!(text(&[], Format::Yaml).contains("\nvnet: {}\n"));
    }

    #[test]
    fn next_hops_of_one_destination_are_in_one_list() {
        // More than one step writes.
        let destination = Destination::new("10.0.0.1/24".parse().unwrap());
        let routes: Vec<Route> = (1..=100)
            .map(|it: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, it))
            .map(|hop| Route::new(destination, NextHop::standard(hop)))
            .collect();
        let json = text(&routes, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let hops = &value["vnet"]["7"]["{\"IPVersion\":4,\"Prefix\":\"10.0.0.1/24\"}"];
        assert_eq!(hops.as_array().unwrap().len(), 100);
        let hops = hops.as_array().unwrap().iter();
        let addresses: Vec<_> = hops
            .map(|it| it["TargetAddress"].as_str().unwrap())
            .collect();
        assert!(addresses.is_sorted(), "as texts: {addresses:?}");
        let yaml = text(&routes, Format::Yaml);
        assert_eq!(yaml.matches("'{\"IPVersion\"").count(), 1);
        assert_eq!(yaml.matches("- targetaddress: ").count(), 100);
    }

    #[test]
    fn addresses_that_yaml_would_misread_are_quoted() {
        for plain in ["::1", "2001:db8::cafe", "10.0.0.1", "1:2:3:4:5:6:7:a"] {
            assert_eq!(yaml_quote(plain), "", "{plain}");
        }
        assert_eq!(yaml_quote("2001:db8::"), "'");
        assert_eq!(yaml_quote("::"), "'");
        assert_eq!(yaml_quote("1:2:3:4:5:6:7:8"), "\"");
    }
}
