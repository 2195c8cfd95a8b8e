//! Reading of netlink messages. Nothing here trusts a length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::core::kernel_plan::Tunnelled;

use super::message::{AF_INET, AF_INET6, ENCAP_IP6, HEADER, UNICAST, Weight, attr, flag};

/// `RTM_F_CLONED`: an exception of a route, not a route.
const CLONED: u32 = 0x200;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x1_0000;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

/// A message and its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, up to the first malformed one.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, up to the first malformed one.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = attr::plain(u16_at(bytes, 2)?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A result: 0, or an error number, and what the kernel says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0 for success, else positive.
    pub(super) errno: i32,
    pub(super) text: Option<String>,
}

/// Reads the body of an error message, or of the end of a dump.
pub(super) fn answer(message: &Message<'_>) -> Option<Answer> {
    let errno = array(message.body, 0).map(i32::from_ne_bytes)?;
    let mut text = None;
    if message.flags & flag::ACK_ATTRIBUTES != 0 {
        // The request's header follows, and its body unless that was left out.
        let request = u32_at(message.body, 4).map_or(HEADER, |len| len as usize);
        let capped = message.flags & flag::CAPPED != 0;
        let skip = 4 + if capped { HEADER } else { request.max(HEADER) };
        text = message
            .body
            .get(skip.next_multiple_of(4)..)
            .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == attr::NLMSGERR_ATTR_MSG))
            .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').into());
    }
    Some(Answer {
        errno: errno.saturating_neg(),
        text,
    })
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkSeen {
    pub(super) index: u32,
    /// Up, and with a carrier: the kernel takes nexthop objects for it.
    pub(super) usable: bool,
    pub(super) name: String,
    /// Its type, for one that is not a card.
    pub(super) kind: Option<String>,
    /// Routes say where its packets go ("external", collect metadata).
    pub(super) is_external: bool,
    /// The kernel table of a VRF device.
    pub(super) vrf_table: Option<u32>,
}

pub(super) fn link(body: &[u8]) -> Option<LinkSeen> {
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let (mut name, mut kind, mut is_external, mut vrf_table) = (None, None, false, None);
    for (attribute, value) in attributes(body.get(16..)?) {
        match attribute {
            attr::IFLA_IFNAME => name = Some(text(value)),
            attr::IFLA_LINKINFO => {
                (kind, is_external) = link_info(value);
                vrf_table = vrf(value);
            }
            _ => {}
        }
    }
    Some(LinkSeen {
        index,
        usable: flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0,
        name: name?,
        kind,
        is_external,
        vrf_table,
    })
}

/// The kernel table of a VRF device.
fn vrf(link_info: &[u8]) -> Option<u32> {
    let info = |wanted| attributes(link_info).find(|(kind, _)| *kind == wanted);
    let (_, kind) = info(attr::IFLA_INFO_KIND)?;
    if text(kind) != "vrf" {
        return None;
    }
    let (_, data) = info(attr::IFLA_INFO_DATA)?;
    let (_, table) = attributes(data).find(|(kind, _)| *kind == attr::IFLA_VRF_TABLE)?;
    u32_at(table, 0)
}

/// The type of a device, and whether routes say where its packets go.
fn link_info(value: &[u8]) -> (Option<String>, bool) {
    let info = |wanted| attributes(value).find(|(kind, _)| *kind == wanted);
    let kind = info(attr::IFLA_INFO_KIND).map(|(_, value)| text(value));
    let data = info(attr::IFLA_INFO_DATA).map_or(&[][..], |(_, value)| value);
    let mut data = attributes(data);
    let is_external = match kind.as_deref() {
        Some("ip6tnl") => data.any(|(kind, _)| kind == attr::IFLA_IPTUN_COLLECT_METADATA),
        Some("geneve") => data.any(|(kind, _)| kind == attr::IFLA_GENEVE_COLLECT_METADATA),
        Some("vxlan") => {
            data.any(|it| it.0 == attr::IFLA_VXLAN_COLLECT_METADATA && it.1.first() == Some(&1))
        }
        _ => false,
    };
    (kind, is_external)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').into()
}

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectSeen {
    pub(super) id: u32,
    pub(super) protocol: u8,
    pub(super) kind: ObjectKind,
}

/// What a nexthop object leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ObjectKind {
    /// Encapsulated to an underlay address by a device.
    Hop(Tunnelled),
    /// To one of these objects, all with the same weight.
    Group(Vec<u32>),
    /// Something that this program does not make.
    Other,
}

pub(super) fn object(body: &[u8]) -> Option<ObjectSeen> {
    let protocol = *body.get(2)?;
    let (mut id, mut device, mut members) = (None, None, None);
    let (mut encap, mut ends, mut plain) = (None, None, true);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            attr::NHA_ID => id = u32_at(value, 0),
            attr::NHA_OIF => device = u32_at(value, 0),
            attr::NHA_GATEWAY => plain = false,
            attr::NHA_ENCAP_TYPE => encap = u16_at(value, 0),
            attr::NHA_ENCAP => ends = encap_ends(value),
            attr::NHA_GROUP => {
                let is_plain = |member: &[u8]| match member.get(4..6) {
                    Some(&[weight, 0]) => Weight::read(weight) == Weight::ONE,
                    _ => false,
                };
                plain &= value.chunks(8).all(is_plain);
                members = value.chunks(8).map(|member| u32_at(member, 0)).collect();
            }
            _ => {}
        }
    }
    let kind = match (members, device, ends) {
        (Some(members), None, None) if plain => ObjectKind::Group(members),
        (None, Some(device), Some((source, address)))
            if plain && encap == Some(ENCAP_IP6) && body.first() == Some(&AF_INET6) =>
        {
            ObjectKind::Hop(Tunnelled {
                device,
                source,
                address,
            })
        }
        _ => ObjectKind::Other,
    };
    Some(ObjectSeen {
        id: id?,
        protocol,
        kind,
    })
}

/// The underlay addresses of an encapsulation: from and to.
fn encap_ends(value: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let end = |wanted| {
        let (_, address) = attributes(value).find(|(kind, _)| *kind == wanted)?;
        array::<16>(address, 0).map(Ipv6Addr::from)
    };
    let source = end(attr::LWTUNNEL_IP6_SRC).unwrap_or(Ipv6Addr::UNSPECIFIED);
    Some((source, end(attr::LWTUNNEL_IP6_DST)?))
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteSeen {
    pub(super) table: u32,
    pub(super) prefix: IpNet,
    pub(super) protocol: u8,
    pub(super) metric: u32,
    /// It differs in something that is part of the kernel's key and never ours.
    pub(super) special: bool,
    /// It forwards, as ours do; the kernel's key does not say so.
    pub(super) unicast: bool,
    /// Number of the nexthop object it uses.
    pub(super) object: Option<u32>,
    /// Its own hops, if each is an encapsulation to an address by a device.
    pub(super) hops: Option<Vec<Tunnelled>>,
}

pub(super) fn route(body: &[u8]) -> Option<RouteSeen> {
    let &[
        family,
        len,
        source_len,
        tos,
        short_table,
        protocol,
        _,
        route_type,
    ] = body.first_chunk()?;
    if u32_at(body, 8)? & CLONED != 0 {
        return None;
    }
    let mut address: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut metric, mut object) = (u32::from(short_table), 0, None);
    let attributes_of = body.get(12..)?;
    for (kind, value) in attributes(attributes_of) {
        match kind {
            attr::RTA_DST if family == AF_INET => address = array::<4>(value, 0)?.into(),
            attr::RTA_DST => address = array::<16>(value, 0)?.into(),
            attr::RTA_TABLE => table = u32_at(value, 0)?,
            attr::RTA_PRIORITY => metric = u32_at(value, 0)?,
            attr::RTA_NH_ID => object = u32_at(value, 0),
            _ => {}
        }
    }
    let hops = if object.is_some() {
        None
    } else {
        hops(attributes_of)
    };
    Some(RouteSeen {
        table,
        prefix: IpNet::new(address, len).ok()?,
        protocol,
        metric,
        special: tos != 0 || source_len != 0,
        unicast: route_type == UNICAST,
        object: object.filter(|_| route_type == UNICAST),
        hops: hops.filter(|_| route_type == UNICAST),
    })
}

fn hops(route: &[u8]) -> Option<Vec<Tunnelled>> {
    let (device, ends) = hop(route);
    if let Some((_, list)) = attributes(route).find(|(kind, _)| *kind == attr::RTA_MULTIPATH) {
        return multipath(list);
    }
    Some(vec![tunnelled(device?, ends?)])
}

const fn tunnelled(device: u32, (source, address): (Ipv6Addr, Ipv6Addr)) -> Tunnelled {
    Tunnelled {
        device,
        source,
        address,
    }
}

fn multipath(mut list: &[u8]) -> Option<Vec<Tunnelled>> {
    let mut hops = Vec::new();
    while !list.is_empty() {
        let len = usize::from(u16_at(list, 0)?);
        let (_, ends) = hop(list.get(8..len)?);
        // Its third byte is the weight less 1.
        if list.get(3) != Some(&0) {
            return None;
        }
        hops.push(tunnelled(u32_at(list, 4)?, ends?));
        list = list.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// The device and the underlay addresses, from and to, that attributes name.
fn hop(bytes: &[u8]) -> (Option<u32>, Option<(Ipv6Addr, Ipv6Addr)>) {
    let (mut device, mut ends, mut encap, mut plain) = (None, None, None, true);
    for (kind, value) in attributes(bytes) {
        match kind {
            attr::RTA_OIF => device = u32_at(value, 0),
            attr::RTA_GATEWAY => plain = false,
            attr::RTA_ENCAP_TYPE => encap = u16_at(value, 0),
            attr::RTA_ENCAP => ends = encap_ends(value),
            _ => {}
        }
    }
    let ends = ends.filter(|_| plain && encap == Some(ENCAP_IP6));
    (device, ends)
}
