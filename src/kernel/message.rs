//! Route netlink messages, as bytes (RFC 3549; `linux/rtnetlink.h`, `linux/nexthop.h`,
//! `linux/lwtunnel.h`).
//!
//! Own bytes, because the crates have no builder for nexthop objects, and because a route is
//! five attributes: writing them takes less than building a message to be written.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::core::kernel_plan::{Hop, Op, Place, Stray, Target, Tunnelled, Verb};

/// Message types.
pub(super) mod kind {
    pub(in crate::kernel) const ERROR: u16 = 2;
    pub(in crate::kernel) const DONE: u16 = 3;
    pub(in crate::kernel) const OVERRUN: u16 = 4;
    pub(in crate::kernel) const NEW_LINK: u16 = 16;
    pub(in crate::kernel) const DEL_LINK: u16 = 17;
    pub(in crate::kernel) const GET_LINK: u16 = 18;
    pub(in crate::kernel) const NEW_ROUTE: u16 = 24;
    pub(in crate::kernel) const DEL_ROUTE: u16 = 25;
    pub(in crate::kernel) const GET_ROUTE: u16 = 26;
    pub(in crate::kernel) const NEW_NEXTHOP: u16 = 104;
    pub(in crate::kernel) const DEL_NEXTHOP: u16 = 105;
    pub(in crate::kernel) const GET_NEXTHOP: u16 = 106;
}

/// Message flags.
pub(super) mod flag {
    pub(in crate::kernel) const REQUEST: u16 = 1;
    pub(in crate::kernel) const ACK: u16 = 4;
    pub(in crate::kernel) const DUMP_INTERRUPTED: u16 = 0x10;
    pub(in crate::kernel) const DUMP: u16 = 0x300;
    pub(in crate::kernel) const REPLACE: u16 = 0x100;
    pub(in crate::kernel) const APPEND: u16 = 0x800;
    pub(in crate::kernel) const EXCLUSIVE: u16 = 0x200;
    pub(in crate::kernel) const CREATE: u16 = 0x400;
    pub(in crate::kernel) const CAPPED: u16 = 0x100;
    pub(in crate::kernel) const ACK_ATTRIBUTES: u16 = 0x200;
}

/// Attribute types, by message.
pub(super) mod attr {
    pub(in crate::kernel) const IFLA_IFNAME: u16 = 3;
    pub(in crate::kernel) const IFLA_LINKINFO: u16 = 18;
    pub(in crate::kernel) const IFLA_INFO_KIND: u16 = 1;
    pub(in crate::kernel) const IFLA_INFO_DATA: u16 = 2;
    pub(in crate::kernel) const IFLA_IPTUN_COLLECT_METADATA: u16 = 19;
    pub(in crate::kernel) const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
    pub(in crate::kernel) const IFLA_GENEVE_COLLECT_METADATA: u16 = 6;
    pub(in crate::kernel) const IFLA_VRF_TABLE: u16 = 1;
    pub(in crate::kernel) const NHA_ID: u16 = 1;
    pub(in crate::kernel) const NHA_GROUP: u16 = 2;
    pub(in crate::kernel) const NHA_OIF: u16 = 5;
    pub(in crate::kernel) const NHA_GATEWAY: u16 = 6;
    pub(in crate::kernel) const NHA_ENCAP_TYPE: u16 = 7;
    pub(in crate::kernel) const NHA_ENCAP: u16 = 8;
    pub(in crate::kernel) const RTA_DST: u16 = 1;
    pub(in crate::kernel) const RTA_OIF: u16 = 4;
    pub(in crate::kernel) const RTA_GATEWAY: u16 = 5;
    pub(in crate::kernel) const RTA_PRIORITY: u16 = 6;
    pub(in crate::kernel) const RTA_MULTIPATH: u16 = 9;
    pub(in crate::kernel) const RTA_TABLE: u16 = 15;
    pub(in crate::kernel) const RTA_ENCAP_TYPE: u16 = 21;
    pub(in crate::kernel) const RTA_ENCAP: u16 = 22;
    pub(in crate::kernel) const RTA_NH_ID: u16 = 30;
    pub(in crate::kernel) const LWTUNNEL_IP6_DST: u16 = 2;
    pub(in crate::kernel) const LWTUNNEL_IP6_SRC: u16 = 3;
    pub(in crate::kernel) const NLMSGERR_ATTR_MSG: u16 = 1;
    const NESTED: u16 = 0x8000;

    /// The type without its flag bits.
    pub(in crate::kernel) const fn plain(kind: u16) -> u16 {
        kind & 0x3fff
    }

    /// The type of an attribute that holds attributes.
    pub(in crate::kernel) const fn nested(kind: u16) -> u16 {
        kind | NESTED
    }
}

/// Address families.
pub(super) const AF_UNSPEC: u8 = 0;
/// Address families.
pub(super) const AF_INET: u8 = 2;
/// Address families.
pub(super) const AF_INET6: u8 = 10;
/// `LWTUNNEL_ENCAP_IP6`: IPv6 encapsulation by the tunnel device.
pub(super) const ENCAP_IP6: u16 = 4;
/// `RTN_UNICAST`.
pub(super) const UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;
/// What IPv6 makes of a route without a metric (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// Length of a message header.
pub(super) const HEADER: usize = 16;

/// What all our messages have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Protocol of our routes and nexthop objects.
    pub(super) protocol: u8,
    /// Index of the tunnel device.
    pub(super) device: u32,
    /// Indices of the devices that some VNIs have instead; see [`Hop::device`].
    pub(super) more: [u32; MORE_DEVICES],
    /// The underlay address that packets leave from; unspecified if the system chooses it.
    pub(super) source: Ipv6Addr,
}

impl Mark {
    /// The index of a device.
    pub(super) fn index(&self, device: u8) -> u32 {
        match device.checked_sub(1) {
            None => self.device,
            Some(at) => self.more.get(usize::from(at)).copied().unwrap_or(NO_DEVICE),
        }
    }

    /// The device with an index, if it is one of these.
    pub(super) fn device_of(&self, index: u32) -> Option<u8> {
        let devices = 0..=u8::try_from(MORE_DEVICES).expect("few");
        let known = devices.into_iter().find(|it| self.index(*it) == index);
        known.filter(|_| index != NO_DEVICE)
    }
}

/// How many devices there may be beside the first.
pub(super) const MORE_DEVICES: usize = 7;
/// An index that no device has.
pub(super) const NO_DEVICE: u32 = i32::MAX.cast_unsigned();

/// The share of a group's packets that a member gets.
///
/// Targets of load balancers may have another one some day: the protocol has no weight yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight(u8);

impl Weight {
    pub(super) const ONE: Self = Self(0);

    /// As a group's member carries it: less 1.
    pub(super) const fn on_the_wire(self) -> u8 {
        self.0
    }

    /// Reads what a group's member carries.
    pub(super) const fn read(byte: u8) -> Self {
        Self(byte)
    }
}

/// The metrics that the kernel shows for routes of both families that are given this one;
/// `None` and 0 ask for the default of the family.
pub(super) fn metrics(given: Option<u32>) -> [u32; 2] {
    match given {
        None | Some(0) => [0, IPV6_DEFAULT_METRIC],
        Some(metric) => [metric; 2],
    }
}

/// Appends messages to a buffer.
struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    fn message(buffer: &'a mut Vec<u8>, kind: u16, flags: u16, sequence: u32) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&[0; 4]);
        Self { buffer, start }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Headers and attributes start at multiples of 4.
    fn pad(&mut self) {
        let len = (self.buffer.len() - self.start).next_multiple_of(4);
        self.buffer.resize(self.start + len, 0);
    }

    fn attr(&mut self, kind: u16, value: &[u8]) {
        let at = self.open(kind);
        self.raw(value);
        self.close(at);
    }

    fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    fn open(&mut self, kind: u16) -> usize {
        let at = self.buffer.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        at
    }

    /// Sets the length of what was opened at `at`: the bytes since.
    fn close(&mut self, at: usize) {
        let len = u16::try_from(self.buffer.len() - at)
            .expect("MAX_HOPS hops fit an attribute of 64 KiB");
        self.buffer[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn encap(&mut self, kind_of_type: u16, kind: u16, source: Ipv6Addr, address: Ipv6Addr) {
        self.attr(kind_of_type, &ENCAP_IP6.to_ne_bytes());
        let at = self.open(attr::nested(kind));
        self.attr(attr::LWTUNNEL_IP6_DST, &address.octets());
        if !source.is_unspecified() {
            self.attr(attr::LWTUNNEL_IP6_SRC, &source.octets());
        }
        self.close(at);
    }

    fn finish(self) {
        let len = u32::try_from(self.buffer.len() - self.start).expect("a message is small");
        self.buffer[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Makes the kernel answer the message at the start of `message` also when it succeeds.
pub(super) fn request_ack(message: &mut [u8]) {
    if let Some(flags) = message.first_chunk_mut::<8>() {
        let with_ack = u16::from_ne_bytes([flags[6], flags[7]]) | flag::ACK;
        flags[6..].copy_from_slice(&with_ack.to_ne_bytes());
    }
}

/// Appends the message of an operation; the kernel answers only if it refuses it.
pub(super) fn encode_op(buffer: &mut Vec<u8>, op: &Op, sequence: u32, mark: &Mark) {
    let create = flag::CREATE | flag::EXCLUSIVE;
    match op {
        Op::AddHop { id, hop, .. } => {
            encode_hop(buffer, create, sequence, *id, *hop, mark);
        }
        Op::AddGroup { id, members, .. } => {
            encode_group(buffer, create, sequence, *id, members, mark);
        }
        Op::ReplaceGroup { id, members } => {
            encode_group(buffer, flag::REPLACE, sequence, *id, members, mark);
        }
        Op::DeleteObject { id } => {
            let mut writer = Writer::message(buffer, kind::DEL_NEXTHOP, 0, sequence);
            writer.raw(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
            writer.attr_u32(attr::NHA_ID, *id);
            writer.finish();
        }
        Op::Route {
            verb,
            place,
            target,
            ..
        } => {
            let (kind, flags) = match verb {
                Verb::Add => (kind::NEW_ROUTE, create),
                // Deletions do not compare the hops that a route carries: the first one goes.
                Verb::Beside if matches!(target, Target::Inline(_)) => {
                    (kind::NEW_ROUTE, flag::CREATE | flag::APPEND)
                }
                Verb::Beside => (kind::NEW_ROUTE, flag::CREATE),
                Verb::Delete => (kind::DEL_ROUTE, 0),
            };
            let writer = Writer::message(buffer, kind, flags, sequence);
            encode_route(writer, *verb, place, target, mark);
        }
        Op::Sweep(Stray {
            place,
            protocol,
            target,
            ..
        }) => {
            let writer = Writer::message(buffer, kind::DEL_ROUTE, 0, sequence);
            let mark = Mark {
                protocol: *protocol,
                ..*mark
            };
            encode_route(writer, Verb::Delete, place, target, &mark);
        }
    }
}

/// Appends a request that a kernel with nexthop objects answers with `ENOENT`, one without
/// with `EOPNOTSUPP`, and both with `EPERM` for who may not change routes.
///
/// It asks to replace an object that does not exist, so nothing changes and nobody is notified.
pub(super) fn encode_probe(buffer: &mut Vec<u8>, sequence: u32, id: u32, mark: &Mark) {
    // The discard prefix, RFC 6666.
    let address = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
    let flags = flag::REPLACE | flag::ACK;
    let hop = Hop { device: 0, address };
    encode_hop(buffer, flags, sequence, id, hop, mark);
}

fn encode_hop(buffer: &mut Vec<u8>, flags: u16, sequence: u32, id: u32, hop: Hop, mark: &Mark) {
    let mut writer = Writer::message(buffer, kind::NEW_NEXTHOP, flags, sequence);
    // An IPv6 nexthop object serves routes of both families.
    writer.raw(&[AF_INET6, SCOPE_UNIVERSE, mark.protocol, 0, 0, 0, 0, 0]);
    writer.attr_u32(attr::NHA_ID, id);
    writer.attr_u32(attr::NHA_OIF, mark.index(hop.device));
    let source = mark.source;
    writer.encap(attr::NHA_ENCAP_TYPE, attr::NHA_ENCAP, source, hop.address);
    writer.finish();
}

fn encode_group(
    buffer: &mut Vec<u8>,
    flags: u16,
    sequence: u32,
    id: u32,
    members: &[u32],
    mark: &Mark,
) {
    let mut writer = Writer::message(buffer, kind::NEW_NEXTHOP, flags, sequence);
    writer.raw(&[AF_UNSPEC, SCOPE_UNIVERSE, mark.protocol, 0, 0, 0, 0, 0]);
    writer.attr_u32(attr::NHA_ID, id);
    let at = writer.open(attr::NHA_GROUP);
    for member in members {
        writer.raw(&member.to_ne_bytes());
        // Two reserved fields follow the weight.
        writer.raw(&[Weight::ONE.on_the_wire(), 0, 0, 0]);
    }
    writer.close(at);
    writer.finish();
}

fn encode_route(mut writer: Writer<'_>, verb: Verb, place: &Place, target: &Target, mark: &Mark) {
    let family = match place.prefix {
        IpNet::V4(_) => AF_INET,
        IpNet::V6(_) => AF_INET6,
    };
    let scope = match (verb, target) {
        (Verb::Delete, _) => SCOPE_NOWHERE,
        // A route without a gateway ends on the link.
        (_, Target::Inline(_) | Target::Via(_)) if family == AF_INET => SCOPE_LINK,
        _ => SCOPE_UNIVERSE,
    };
    let short_table = u8::try_from(place.table).unwrap_or(0);
    writer.raw(&[
        family,
        place.prefix.prefix_len(),
        0,
        0,
        short_table,
        mark.protocol,
        scope,
        UNICAST,
    ]);
    writer.raw(&[0; 4]);
    match place.prefix.network() {
        IpAddr::V4(address) => writer.attr(attr::RTA_DST, &address.octets()),
        IpAddr::V6(address) => writer.attr(attr::RTA_DST, &address.octets()),
    }
    writer.attr_u32(attr::RTA_TABLE, place.table);
    if place.metric != 0 {
        writer.attr_u32(attr::RTA_PRIORITY, place.metric);
    }
    match target {
        Target::Object(id) => writer.attr_u32(attr::RTA_NH_ID, *id),
        Target::Inline(hops) => {
            let hops = hops.iter().map(|&address| Tunnelled {
                device: mark.device,
                source: mark.source,
                address,
            });
            encode_hops(&mut writer, hops.collect());
        }
        Target::Via(hops) => encode_hops(&mut writer, hops.clone()),
    }
    writer.finish();
}

fn encode_hops(writer: &mut Writer<'_>, hops: Vec<Tunnelled>) {
    if let [hop] = hops[..] {
        writer.attr_u32(attr::RTA_OIF, hop.device);
        let (source, address) = (hop.source, hop.address);
        writer.encap(attr::RTA_ENCAP_TYPE, attr::RTA_ENCAP, source, address);
        return;
    }
    let list = writer.open(attr::RTA_MULTIPATH);
    for hop in hops {
        let at = writer.open(0);
        writer.raw(&hop.device.to_ne_bytes());
        let (source, address) = (hop.source, hop.address);
        writer.encap(attr::RTA_ENCAP_TYPE, attr::RTA_ENCAP, source, address);
        writer.close(at);
    }
    writer.close(list);
}

/// Appends the request for one nexthop object.
pub(super) fn encode_nexthop_request(buffer: &mut Vec<u8>, sequence: u32, id: u32) {
    let mut writer = Writer::message(buffer, kind::GET_NEXTHOP, 0, sequence);
    writer.raw(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    writer.attr_u32(attr::NHA_ID, id);
    writer.finish();
}

/// Appends the request for all nexthop objects.
pub(super) fn encode_nexthop_dump(buffer: &mut Vec<u8>, sequence: u32) {
    let mut writer = Writer::message(buffer, kind::GET_NEXTHOP, flag::DUMP, sequence);
    writer.raw(&[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0]);
    writer.finish();
}

/// Appends the request for the routes of one family, in one table or in all.
pub(super) fn encode_route_dump(
    buffer: &mut Vec<u8>,
    sequence: u32,
    family: u8,
    table: Option<u32>,
) {
    let mut writer = Writer::message(buffer, kind::GET_ROUTE, flag::DUMP, sequence);
    let short_table = table.and_then(|it| u8::try_from(it).ok()).unwrap_or(0);
    writer.raw(&[family, 0, 0, 0, short_table, 0, 0, 0]);
    writer.raw(&[0; 4]);
    if let Some(table) = table {
        writer.attr_u32(attr::RTA_TABLE, table);
    }
    writer.finish();
}

/// Appends the request for the route that a packet to an address takes; one answer comes.
pub(super) fn encode_way_request(buffer: &mut Vec<u8>, sequence: u32, address: Ipv6Addr) {
    let mut writer = Writer::message(buffer, kind::GET_ROUTE, 0, sequence);
    writer.raw(&[AF_INET6, 128, 0, 0, 0, 0, 0, 0]);
    writer.raw(&[0; 4]);
    writer.attr(attr::RTA_DST, &address.octets());
    writer.finish();
}

/// Appends the request for all devices.
pub(super) fn encode_link_dump(buffer: &mut Vec<u8>, sequence: u32) {
    let mut writer = Writer::message(buffer, kind::GET_LINK, flag::DUMP, sequence);
    writer.raw(&[0; 16]);
    writer.finish();
}

/// Appends the request for a device by its name.
pub(super) fn encode_link_request(buffer: &mut Vec<u8>, sequence: u32, name: &str) {
    let mut writer = Writer::message(buffer, kind::GET_LINK, 0, sequence);
    writer.raw(&[0; 16]);
    let mut terminated = name.as_bytes().to_vec();
    terminated.push(0);
    writer.attr(attr::IFLA_IFNAME, &terminated);
    writer.finish();
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
