//! A routing table as text, with Go MetalBond's schema.
//!
//! No string in it needs escaping: they are numbers, addresses and the version.

use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use crate::types::{Destination, IpVersion, NextHop, Route, Vni};

/// What `metalbondVersion` says.
const VERSION: &str = concat!("rustbond-", env!("CARGO_PKG_VERSION"));

/// Bytes of JSON for a route, about, so that a long table does not grow its text step by step.
const ROUTE_BYTES: usize = 256;

/// The routes as JSON; `routes` are in order, `now` counts from 1970.
pub(super) fn json(routes: &[(Vni, Route)], now: Duration) -> String {
    let mut text = String::with_capacity(ROUTE_BYTES * (routes.len() + 1));
    write_json(&mut text, routes, now).expect("a String takes all that is written");
    text
}

/// The routes as YAML; `routes` are in order, `now` counts from 1970.
pub(super) fn yaml(routes: &[(Vni, Route)], now: Duration) -> String {
    let mut text = String::with_capacity(ROUTE_BYTES * (routes.len() + 1));
    write_yaml(&mut text, routes, now).expect("a String takes all that is written");
    text
}

fn write_json(to: &mut String, routes: &[(Vni, Route)], now: Duration) -> fmt::Result {
    write!(to, "{{\n  \"date\": \"{}\",\n  \"vnet\": {{", Date(now))?;
    let mut between_vnis = "";
    for routes in routes.chunk_by(|a, b| a.0 == b.0) {
        write!(to, "{between_vnis}\n    \"{}\": {{", routes[0].0)?;
        between_vnis = ",";
        let mut between_keys = "";
        for routes in by_destination(routes) {
            let key = Key(routes[0].1.destination, "\\\"");
            write!(to, "{between_keys}\n      \"{key}\": [")?;
            between_keys = ",";
            let mut between_hops = "";
            for (_, route) in routes {
                to.write_str(between_hops)?;
                between_hops = ",";
                write_json_hop(to, &route.next_hop)?;
            }
            to.write_str("\n      ]")?;
        }
        to.write_str("\n    }")?;
    }
    let end = if routes.is_empty() { "" } else { "\n  " };
    write!(to, "{end}}},\n  \"metalbondVersion\": \"{VERSION}\"\n}}\n")
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

fn write_yaml(to: &mut String, routes: &[(Vni, Route)], now: Duration) -> fmt::Result {
    let none = if routes.is_empty() { " {}" } else { "" };
    write!(to, "date: \"{}\"\nvnet:{none}\n", Date(now))?;
    for routes in routes.chunk_by(|a, b| a.0 == b.0) {
        writeln!(to, "  {}:", routes[0].0)?;
        for routes in by_destination(routes) {
            writeln!(to, "    '{}':", Key(routes[0].1.destination, "\""))?;
            for (_, route) in routes {
                write_yaml_hop(to, &route.next_hop)?;
            }
        }
    }
    writeln!(to, "metalbondversion: {VERSION}")
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

/// What an address stands between, lest it be something else than a string.
fn yaml_quote(address: &str) -> &'static str {
    // Digits between colons are a number of base 60 in YAML 1.1.
    let is_number = address
        .split(':')
        .all(|part| (1..=2).contains(&part.len()) && part.bytes().all(|it| it.is_ascii_digit()));
    if is_number {
        "\""
    } else if address.ends_with(':') {
        // It would be the key of a mapping.
        "'"
    } else {
        ""
    }
}

fn by_destination(routes: &[(Vni, Route)]) -> impl Iterator<Item = &[(Vni, Route)]> {
    routes.chunk_by(|a, b| a.1.destination == b.1.destination)
}

fn target_vni(hop: &NextHop) -> u32 {
    hop.target_vni.map_or(0, u32::from)
}

/// A destination as the JSON that is a key, with the quotes as they are to be written.
struct Key(Destination, &'static str);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(destination, q) = self;
        let version = match destination.ip_version() {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6,
        };
        write!(
            f,
            "{{{q}IPVersion{q}:{version},{q}Prefix{q}:{q}{destination}{q}}}"
        )
    }
}

/// A time since 1970 as date and time of day, in UTC.
struct Date(Duration);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )
    }
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, leap days end the years of a 400-year era.
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

/// The time since 1970.
pub(super) fn now() -> Duration {
    // A clock before 1970 is wrong anyhow.
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
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
            assert_eq!(Date(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn an_empty_table_is_a_table() {
        let date = Duration::ZERO;
        let value: serde_json::Value = serde_json::from_str(&json(&[], date)).unwrap();
        assert_eq!(value["vnet"], serde_json::json!({}));
        assert!(yaml(&[], date).contains("\nvnet: {}\n"));
    }

    #[test]
    fn next_hops_of_a_destination_stand_together() {
        let destination = Destination::new("10.0.0.1/24".parse().unwrap());
        let routes = ["2001:db8::1", "2001:db8::2"].map(|hop| {
            let hop: std::net::IpAddr = hop.parse().unwrap();
            (Vni(7), Route::new(destination, NextHop::standard(hop)))
        });
        let value: serde_json::Value =
            serde_json::from_str(&json(&routes, Duration::ZERO)).unwrap();
        let hops = &value["vnet"]["7"]["{\"IPVersion\":4,\"Prefix\":\"10.0.0.1/24\"}"];
        assert_eq!(hops.as_array().unwrap().len(), 2);
        assert_eq!(hops[1]["TargetAddress"], "2001:db8::2");
        let yaml = yaml(&routes, Duration::ZERO);
        assert_eq!(yaml.matches("'{\"IPVersion\"").count(), 1);
        assert_eq!(yaml.matches("- targetaddress: ").count(), 2);
    }

    #[test]
    fn yaml_takes_no_address_for_something_else() {
        for plain in ["::1", "2001:db8::cafe", "10.0.0.1", "1:2:3:4:5:6:7:a"] {
            assert_eq!(yaml_quote(plain), "", "{plain}");
        }
        assert_eq!(yaml_quote("2001:db8::"), "'");
        assert_eq!(yaml_quote("::"), "'");
        assert_eq!(yaml_quote("1:2:3:4:5:6:7:8"), "\"");
    }
}
