//! Reading of netlink messages. Nothing here trusts a length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::message::{AF_INET, AF_INET6, ENCAP_IP6, HEADER, UNICAST, attr, flag};

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
}

pub(super) fn link(body: &[u8]) -> Option<LinkSeen> {
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let name = attributes(body.get(16..)?)
        .find(|(kind, _)| *kind == attr::IFLA_IFNAME)
        .map(|(_, name)| String::from_utf8_lossy(name).trim_end_matches('\0').into())?;
    Some(LinkSeen {
        index,
        usable: flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0,
        name,
    })
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
    Hop { device: u32, address: Ipv6Addr },
    /// To one of these objects, all with the same weight.
    Group(Vec<u32>),
    /// Something that this program does not make.
    Other,
}

pub(super) fn object(body: &[u8]) -> Option<ObjectSeen> {
    let protocol = *body.get(2)?;
    let (mut id, mut device, mut members) = (None, None, None);
    let (mut encap, mut address, mut plain) = (None, None, true);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            attr::NHA_ID => id = u32_at(value, 0),
            attr::NHA_OIF => device = u32_at(value, 0),
            attr::NHA_GATEWAY => plain = false,
            attr::NHA_ENCAP_TYPE => encap = u16_at(value, 0),
            attr::NHA_ENCAP => address = encap_address(value),
            attr::NHA_GROUP => {
                plain &= value
                    .chunks(8)
                    .all(|member| member.get(4..6) == Some(&[0, 0]));
                members = value.chunks(8).map(|member| u32_at(member, 0)).collect();
            }
            _ => {}
        }
    }
    let kind = match (members, device, address) {
        (Some(members), None, None) if plain => ObjectKind::Group(members),
        (None, Some(device), Some(address))
            if plain && encap == Some(ENCAP_IP6) && body.first() == Some(&AF_INET6) =>
        {
            ObjectKind::Hop { device, address }
        }
        _ => ObjectKind::Other,
    };
    Some(ObjectSeen {
        id: id?,
        protocol,
        kind,
    })
}

fn encap_address(value: &[u8]) -> Option<Ipv6Addr> {
    let (_, address) = attributes(value).find(|(kind, _)| *kind == attr::LWTUNNEL_IP6_DST)?;
    array::<16>(address, 0).map(Ipv6Addr::from)
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
    pub(super) hops: Option<Vec<(u32, Ipv6Addr)>>,
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

fn hops(route: &[u8]) -> Option<Vec<(u32, Ipv6Addr)>> {
    let (device, address) = hop(route);
    if let Some((_, list)) = attributes(route).find(|(kind, _)| *kind == attr::RTA_MULTIPATH) {
        return multipath(list);
    }
    Some(vec![(device?, address?)])
}

fn multipath(mut list: &[u8]) -> Option<Vec<(u32, Ipv6Addr)>> {
    let mut hops = Vec::new();
    while !list.is_empty() {
        let len = usize::from(u16_at(list, 0)?);
        let (_, address) = hop(list.get(8..len)?);
        // Its third byte is the weight less 1.
        if list.get(3) != Some(&0) {
            return None;
        }
        hops.push((u32_at(list, 4)?, address?));
        list = list.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// The device and the underlay address that attributes name.
fn hop(bytes: &[u8]) -> (Option<u32>, Option<Ipv6Addr>) {
    let (mut device, mut address, mut encap, mut plain) = (None, None, None, true);
    for (kind, value) in attributes(bytes) {
        match kind {
            attr::RTA_OIF => device = u32_at(value, 0),
            attr::RTA_GATEWAY => plain = false,
            attr::RTA_ENCAP_TYPE => encap = u16_at(value, 0),
            attr::RTA_ENCAP => address = encap_address(value),
            _ => {}
        }
    }
    let address = address.filter(|_| plain && encap == Some(ENCAP_IP6));
    (device, address)
}
