//! UPDATE, the message that comes by the million: decoded and encoded without an allocation.
//!
//! The encoding is canonical: one route has one encoding, byte for byte the one
//! that Go MetalBond sends, so that encoded frames can be compared as keys.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::frame::{HEADER_LEN, MessageType, header};
use super::message::Malformed;
use crate::core::types::{Action, Destination, NextHop, NextHopType, Route, Vni};

/// A change of one route of a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) action: Action,
    pub(crate) vni: Vni,
    pub(crate) route: Route,
}

/// Field numbers and wire types of `proto/metalbond.proto`, as the key bytes they make.
mod key {
    pub(super) const ACTION: u8 = 1 << 3;
    pub(super) const VNI: u8 = 2 << 3;
    pub(super) const DESTINATION: u8 = 3 << 3 | 2;
    pub(super) const NEXT_HOP: u8 = 4 << 3 | 2;

    pub(super) const IP_VERSION: u8 = 1 << 3;
    pub(super) const PREFIX: u8 = 2 << 3 | 2;
    pub(super) const PREFIX_LENGTH: u8 = 3 << 3;

    pub(super) const TARGET_ADDRESS: u8 = 1 << 3 | 2;
    pub(super) const TARGET_VNI: u8 = 2 << 3;
    pub(super) const TYPE: u8 = 3 << 3;
    pub(super) const PORT_FROM: u8 = 4 << 3;
    pub(super) const PORT_TO: u8 = 5 << 3;
}

/// Reads the payload of an UPDATE.
///
/// An action other than REMOVE is ADD, as Go MetalBond has it.
pub(crate) fn decode_update(payload: &[u8]) -> Result<Update, Malformed> {
    let mut action = 0;
    let mut vni = 0;
    let mut destination = None;
    let mut next_hop = None;
    fields(payload, |field, value| {
        match (field, value) {
            (1, Value::Varint(value)) => action = to_i32(value),
            (2, Value::Varint(value)) => vni = to_u32(value),
            (3, Value::Bytes(bytes)) => {
                read_destination(destination.get_or_insert_default(), bytes)?;
            }
            (4, Value::Bytes(bytes)) => read_next_hop(next_hop.get_or_insert_default(), bytes)?,
            (1..=4, _) => return Err(Malformed::Encoding),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Update {
        action: if action == 1 {
            Action::Remove
        } else {
            Action::Add
        },
        vni: Vni(vni),
        route: Route {
            destination: destination.ok_or(Malformed::NoDestination)?.check()?,
            next_hop: next_hop.ok_or(Malformed::NoNextHop)?.check()?,
        },
    })
}

#[derive(Default)]
struct RawDestination<'a> {
    ip_version: i32,
    prefix: &'a [u8],
    prefix_length: u32,
}

impl RawDestination<'_> {
    fn check(&self) -> Result<Destination, Malformed> {
        let address = address(self.prefix);
        let address = match (self.ip_version, address) {
            (0, Some(address @ IpAddr::V4(_))) | (1, Some(address @ IpAddr::V6(_))) => address,
            (0 | 1, _) => return Err(Malformed::PrefixSize),
            _ => return Err(Malformed::IpVersion),
        };
        let length = u8::try_from(self.prefix_length).map_err(|_| Malformed::PrefixLength)?;
        IpNet::new(address, length)
            .map(Destination::new)
            .map_err(|_| Malformed::PrefixLength)
    }
}

fn read_destination<'a>(raw: &mut RawDestination<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    fields(bytes, |field, value| {
        match (field, value) {
            (1, Value::Varint(value)) => raw.ip_version = to_i32(value),
            (2, Value::Bytes(value)) => raw.prefix = value,
            (3, Value::Varint(value)) => raw.prefix_length = to_u32(value),
            (1..=3, _) => return Err(Malformed::Encoding),
            _ => {}
        }
        Ok(())
    })
}

#[derive(Default)]
struct RawNextHop<'a> {
    address: &'a [u8],
    vni: u32,
    hop_type: i32,
    port_from: u32,
    port_to: u32,
}

impl RawNextHop<'_> {
    fn check(&self) -> Result<NextHop, Malformed> {
        Ok(NextHop {
            target_address: address(self.address).ok_or(Malformed::NextHopSize)?,
            target_vni: NonZeroU32::new(self.vni),
            hop_type: NextHopType::from_number(self.hop_type),
            nat_port_range_from: u16::try_from(self.port_from).map_err(|_| Malformed::Port)?,
            nat_port_range_to: u16::try_from(self.port_to).map_err(|_| Malformed::Port)?,
        })
    }
}

fn read_next_hop<'a>(raw: &mut RawNextHop<'a>, bytes: &'a [u8]) -> Result<(), Malformed> {
    fields(bytes, |field, value| {
        match (field, value) {
            (1, Value::Bytes(value)) => raw.address = value,
            (2, Value::Varint(value)) => raw.vni = to_u32(value),
            (3, Value::Varint(value)) => raw.hop_type = to_i32(value),
            (4, Value::Varint(value)) => raw.port_from = to_u32(value),
            (5, Value::Varint(value)) => raw.port_to = to_u32(value),
            (1..=5, _) => return Err(Malformed::Encoding),
            _ => {}
        }
        Ok(())
    })
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a wire type that no field of ours has; already skipped.
    Other,
}

/// Calls `each` for every field of a protobuf message, in order.
fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(|_| Malformed::Encoding)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(varint(&mut bytes)?),
            WireType::LengthDelimited => {
                let length = varint(&mut bytes)?;
                let length = usize::try_from(length).map_err(|_| Malformed::Encoding)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed::Encoding)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => {
                skip_field(wire_type, field, &mut bytes, DecodeContext::default())
                    .map_err(|_| Malformed::Encoding)?;
                Value::Other
            }
        };
        each(field, value)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    decode_varint(bytes).map_err(|_| Malformed::Encoding)
}

/// Protobuf cuts a varint that is too long for its field.
#[allow(clippy::cast_possible_truncation)]
const fn to_u32(value: u64) -> u32 {
    value as u32
}

#[allow(clippy::cast_possible_truncation)]
const fn to_i32(value: u64) -> i32 {
    value as i32
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Appends a whole UPDATE frame in the canonical encoding.
pub(crate) fn encode_update(out: &mut Vec<u8>, action: Action, vni: Vni, route: &Route) {
    let mut payload = Buffer::default();
    if action == Action::Remove {
        payload.bytes(&REMOVE_FIELD);
    }
    payload.varint_field(key::VNI, vni.0.into());
    payload.message_field(key::DESTINATION, |out| {
        if let IpNet::V6(_) = route.destination.prefix {
            out.varint_field(key::IP_VERSION, 1);
        }
        out.address_field(key::PREFIX, route.destination.prefix.addr());
        let length = route.destination.prefix.prefix_len();
        out.varint_field(key::PREFIX_LENGTH, length.into());
    });
    payload.message_field(key::NEXT_HOP, |out| {
        let hop = &route.next_hop;
        out.address_field(key::TARGET_ADDRESS, hop.target_address);
        out.varint_field(
            key::TARGET_VNI,
            hop.target_vni.map_or(0, NonZeroU32::get).into(),
        );
        // Protobuf extends the sign of an enum to 64 bits.
        out.varint_field(key::TYPE, i64::from(hop.hop_type.number()).cast_unsigned());
        out.varint_field(key::PORT_FROM, hop.nat_port_range_from.into());
        out.varint_field(key::PORT_TO, hop.nat_port_range_to.into());
    });
    out.extend_from_slice(&header(MessageType::Update, payload.len));
    out.extend_from_slice(payload.filled());
}

/// How the payload of a withdrawal begins; an announcement goes without the field.
const REMOVE_FIELD: [u8; 2] = [key::ACTION, 1];

/// The action of an UPDATE frame, and the bytes that name its VNI and route.
///
/// For frames that [`encode_update`] made: two frames concern the same route of
/// the same VNI exactly when these bytes are equal.
pub(crate) fn split_update(frame: &[u8]) -> (Action, &[u8]) {
    let payload = &frame[HEADER_LEN..];
    match payload.strip_prefix(&REMOVE_FIELD) {
        Some(rest) => (Action::Remove, rest),
        None => (Action::Add, payload),
    }
}

/// Space for the longest UPDATE payload: 2 (action) + 6 (VNI) + 25 (destination)
/// + 2 + 18 + 6 + 11 + 4 + 4 (next hop of a negative type) = 78 bytes.
struct Buffer {
    bytes: [u8; 80],
    len: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            bytes: [0; 80],
            len: 0,
        }
    }
}

impl Buffer {
    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Zero is the default of every field and is left out.
    fn varint_field(&mut self, key: u8, mut value: u64) {
        if value == 0 {
            return;
        }
        self.byte(key);
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    fn address_field(&mut self, key: u8, address: IpAddr) {
        self.byte(key);
        match address {
            IpAddr::V4(address) => {
                self.byte(4);
                self.bytes(&address.octets());
            }
            IpAddr::V6(address) => {
                self.byte(16);
                self.bytes(&address.octets());
            }
        }
    }

    /// A message inside; all of ours are shorter than 128 bytes, so their length is one byte.
    fn message_field(&mut self, key: u8, fill: impl FnOnce(&mut Self)) {
        self.byte(key);
        let at = self.len;
        self.byte(0);
        fill(self);
        self.bytes[at] = (self.len - at - 1).to_le_bytes()[0];
    }
}
