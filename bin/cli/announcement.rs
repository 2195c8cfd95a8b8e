//! Routes to announce, as users write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustbond::{Destination, IpNet, NextHop, NextHopType, Route, Vni};

use super::value::{self, decimal};

/// The syntax of an announcement.
pub(crate) const SYNTAX: &str = "VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO]";

/// A route to announce, from `VNI#PREFIX#NEXTHOP` or `VNI#PREFIX@NEXTHOP`, optionally followed
/// by `#STD`, `#LB` or `#NAT#FROM#TO` in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) vni: Vni,
    pub(crate) route: Route,
}

/// A part of an announcement that Go MetalBond takes for something, and that is more likely a
/// mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liberty {
    /// The type is no known name, and is taken as this one.
    Kind(NextHopType),
    /// The ports are ignored: the type has none.
    Ports,
}

impl fmt::Display for Liberty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(
                f,
                "the type is none of STD, LB and NAT; it is taken as {}, as by Go MetalBond",
                name(*kind)
            ),
            Self::Ports => f.write_str("only NAT takes ports; they are ignored"),
        }
    }
}

/// The part of an announcement that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Incomplete,
    Vni,
    Prefix,
    NextHop,
    Scope,
    Kind,
    Ports,
    PortsReversed,
    PortsNotAllowed,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self {
            Self::Incomplete => "a part is missing",
            Self::Vni => "a VNI is a number from 0 to 16777215",
            Self::Prefix => "a prefix is an IPv4 or IPv6 address with a length, as 10.0.1.0/24",
            Self::NextHop => "a next hop is an IPv6 or IPv4 address",
            Self::Scope => "a next hop has no scope (the part after %)",
            Self::Kind => "a type is STD, LB or NAT",
            Self::Ports => "NAT takes the first and the last port, from 0 to 65535",
            Self::PortsReversed => "NAT: the first port must not be greater than the last",
            Self::PortsNotAllowed => "only NAT takes ports",
        };
        write!(f, "{problem}; expected {SYNTAX}")
    }
}

impl std::error::Error for Invalid {}

/// Parses an announcement. What Go MetalBond takes and this syntax does not is refused.
impl FromStr for Announcement {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (announcement, liberties) = Self::parse(text)?;
        match liberties.first() {
            None => Ok(announcement),
            Some(Liberty::Kind(_)) => Err(Invalid::Kind),
            Some(Liberty::Ports) => Err(Invalid::PortsNotAllowed),
        }
    }
}

impl Announcement {
    /// Parses an announcement as Go MetalBond does. Returns with it the parts that are more
    /// likely a mistake.
    pub(crate) fn parse(text: &str) -> Result<(Self, Vec<Liberty>), Invalid> {
        let (vni, rest) = text.split_once('#').ok_or(Invalid::Incomplete)?;
        let vni = value::vni(vni).ok_or(Invalid::Vni)?;
        let (prefix, rest) = rest
            .split_once('@')
            .or_else(|| rest.split_once('#'))
            .ok_or(Invalid::Incomplete)?;
        let prefix: IpNet = prefix.parse().map_err(|_| Invalid::Prefix)?;
        let mut parts = rest.split('#');
        let address = parse_address(parts.next().unwrap_or_default())?;
        let (kind, is_name) = parts
            .next()
            .map_or((NextHopType::Standard, true), parse_kind);
        let ports: Vec<&str> = parts.collect();
        let mut liberties = Vec::new();
        if !is_name {
            liberties.push(Liberty::Kind(kind));
        }
        let next_hop = match kind {
            NextHopType::Nat => parse_nat(address, &ports)?,
            NextHopType::LoadBalancerTarget => NextHop::load_balancer(address),
            _ => NextHop::standard(address),
        };
        if kind != NextHopType::Nat && !ports.is_empty() {
            liberties.push(Liberty::Ports);
        }
        let route = Route::new(Destination::new(prefix), next_hop);
        Ok((Self { vni, route }, liberties))
    }
}

fn parse_address(text: &str) -> Result<IpAddr, Invalid> {
    let invalid = match text.contains('%') {
        true => Invalid::Scope,
        false => Invalid::NextHop,
    };
    text.parse().map_err(|_| invalid)
}

/// Returns the type that Go MetalBond takes a text for, and whether the text is that type's name.
fn parse_kind(text: &str) -> (NextHopType, bool) {
    let text = text.to_ascii_uppercase();
    // In this order.
    let known = [
        NextHopType::Standard,
        NextHopType::LoadBalancerTarget,
        NextHopType::Nat,
    ];
    let found = known.into_iter().find(|it| text.contains(name(*it)));
    let kind = found.unwrap_or(NextHopType::Standard);
    (kind, text == name(kind))
}

fn name(kind: NextHopType) -> &'static str {
    match kind {
        NextHopType::Nat => "NAT",
        NextHopType::LoadBalancerTarget => "LB",
        _ => "STD",
    }
}

fn parse_nat(address: IpAddr, ports: &[&str]) -> Result<NextHop, Invalid> {
    let &[from, to] = ports else {
        return Err(Invalid::Ports);
    };
    let from: u16 = decimal(from).ok_or(Invalid::Ports)?;
    let to: u16 = decimal(to).ok_or(Invalid::Ports)?;
    if from > to {
        return Err(Invalid::PortsReversed);
    }
    Ok(NextHop::nat(address, from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Announcement, Invalid> {
        text.parse()
    }

    /// Row 16 of what Go peers do (`tests/common/double`).
    #[test]
    fn row_16_both_syntaxes_say_the_same() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let all = [
            ("", NextHop::standard(address)),
            ("#STD", NextHop::standard(address)),
            ("#std", NextHop::standard(address)),
            ("#Lb", NextHop::load_balancer(address)),
            ("#NAT#0#65535", NextHop::nat(address, 0, 65_535)),
            ("#nat#40000#40000", NextHop::nat(address, 40_000, 40_000)),
        ];
        for (tail, next_hop) in all {
            for prefix in ["10.0.1.7/24", "0.0.0.0/0", "2001:db8:1::/48", "::/0"] {
                let expected = Announcement {
                    vni: Vni(100),
                    route: Route::new(Destination::new(prefix.parse().unwrap()), next_hop),
                };
                for separator in ["#", "@"] {
                    let text = format!("100#{prefix}{separator}2001:db8::1{tail}");
                    assert_eq!(parse(&text), Ok(expected), "{text}");
                }
            }
        }
        assert!(parse("0#10.0.0.0/8#192.0.2.1").is_ok());
        assert!(parse("16777215#10.0.0.0/8#::").is_ok());
    }

    #[test]
    fn error_names_the_wrong_part() {
        let all = [
            ("", Invalid::Incomplete),
            ("100", Invalid::Incomplete),
            ("100#10.0.0.0/8", Invalid::Incomplete),
            ("16777216#10.0.0.0/8#::1", Invalid::Vni),
            ("-1#10.0.0.0/8#::1", Invalid::Vni),
            ("+1#10.0.0.0/8#::1", Invalid::Vni),
            ("#10.0.0.0/8#::1", Invalid::Vni),
            ("1#10.0.0.0#::1", Invalid::Prefix),
            ("1#10.0.0.0/33#::1", Invalid::Prefix),
            ("1#::1/129@::1", Invalid::Prefix),
            ("1##::1", Invalid::Prefix),
            ("1#10.0.0.0/8#", Invalid::NextHop),
            ("1#10.0.0.0/8#host", Invalid::NextHop),
            ("1#10.0.0.0/8@::1@::2", Invalid::NextHop),
            ("1#10.0.0.0/8#fe80::1%eth0", Invalid::Scope),
            ("1#10.0.0.0/8#::1#", Invalid::Kind),
            ("1#10.0.0.0/8#::1#loadbalancer", Invalid::Kind),
            ("1#10.0.0.0/8#::1#NAT", Invalid::Ports),
            ("1#10.0.0.0/8#::1#NAT#1", Invalid::Ports),
            ("1#10.0.0.0/8#::1#NAT#1#2#3", Invalid::Ports),
            ("1#10.0.0.0/8#::1#NAT#1#65536", Invalid::Ports),
            ("1#10.0.0.0/8#::1#NAT#+1#2", Invalid::Ports),
            ("1#10.0.0.0/8#::1#NAT#2#1", Invalid::PortsReversed),
            ("1#10.0.0.0/8#::1#STD#0#0", Invalid::PortsNotAllowed),
            ("1#10.0.0.0/8#::1#lb#1", Invalid::PortsNotAllowed),
        ];
        for (text, invalid) in all {
            assert_eq!(parse(text), Err(invalid), "{text}");
        }
    }

    /// Section 5 of what Go's command takes: the type by a part of its name, anything else is STD.
    #[test]
    fn types_and_ports_are_taken_as_go_takes_them_and_named() {
        let address: IpAddr = "::1".parse().unwrap();
        let (standard, target) = (NextHop::standard(address), NextHop::load_balancer(address));
        let as_std = Liberty::Kind(NextHopType::Standard);
        let as_lb = Liberty::Kind(NextHopType::LoadBalancerTarget);
        let all = [
            ("", standard, vec![]),
            ("#lb", target, vec![]),
            ("#", standard, vec![as_std]),
            ("#standard", standard, vec![as_std]),
            ("#loadbalancer", standard, vec![as_std]),
            ("#elb", target, vec![as_lb]),
            ("#STD#1#2", standard, vec![Liberty::Ports]),
            ("#lb#x", target, vec![Liberty::Ports]),
            ("#foo#1#2", standard, vec![as_std, Liberty::Ports]),
        ];
        for (tail, next_hop, liberties) in all {
            let (announcement, taken) =
                Announcement::parse(&format!("1#10.0.0.0/8#::1{tail}")).unwrap();
            assert_eq!(announcement.route.next_hop, next_hop, "{tail}");
            assert_eq!(taken, liberties, "{tail}");
        }
        let nat = Announcement::parse("1#10.0.0.0/8#::1#snat#1#2").unwrap();
        assert_eq!(nat.0.route.next_hop, NextHop::nat(address, 1, 2));
        assert_eq!(nat.1, [Liberty::Kind(NextHopType::Nat)]);
        for text in ["1#10.0.0.0/8#::1#snat", "1#10.0.0.0/8#fe80::1%2"] {
            assert!(Announcement::parse(text).is_err(), "{text}");
        }
    }
}
