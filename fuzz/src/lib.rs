//! The wire format, read by hand: a second opinion that shares nothing with the library.
//!
//! Slow and plain. Sources: the protocol's four-byte header, and the encoding guide of
//! Protocol Buffers.

use std::net::IpAddr;

/// Most bytes of a payload.
pub const MAX_PAYLOAD: usize = 1188;

/// Message types.
pub const HELLO: u8 = 1;
pub const KEEPALIVE: u8 = 2;
pub const SUBSCRIBE: u8 = 3;
pub const UNSUBSCRIBE: u8 = 4;
pub const UPDATE: u8 = 5;
pub const END_OF_RIB: u8 = 160;
pub const NOTICE: u8 = 161;

/// How a header is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    Version(u8),
    Type(u8),
    Length(u16),
}

/// Takes the first frame off a stream: type and payload; `None` if its end has not come.
pub fn take_frame(stream: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, BadHeader> {
    match stream[..] {
        [] => return Ok(None),
        [version, ..] if version != 1 => return Err(BadHeader::Version(version)),
        [_, _, _, kind, ..] if !matches!(kind, 1..=5 | 160 | 161) => return Err(BadHeader::Type(kind)),
        [_, high, low, kind, ..] => {
            let length = u16::from_be_bytes([high, low]);
            if usize::from(length) > MAX_PAYLOAD {
                return Err(BadHeader::Length(length));
            }
            let end = 4 + usize::from(length);
            if stream.len() < end {
                return Ok(None);
            }
            let payload = stream[4..end].to_vec();
            stream.drain(..end);
            Ok(Some((kind, payload)))
        }
        _ => Ok(None),
    }
}

/// A field of a message: a number or bytes; others have been skipped.
pub enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message that lies `depth` messages deep; `None` if it is broken.
pub fn fields(mut bytes: &[u8], depth: u32) -> Option<Vec<(u64, Field<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = key(&mut bytes)?;
        let field = match wire_type {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, len)?)
            }
            other => {
                skip(&mut bytes, number, other, depth)?;
                Field::Other
            }
        };
        all.push((number, field));
    }
    Some(all)
}

/// Field number and wire type.
fn key(bytes: &mut &[u8]) -> Option<(u64, u64)> {
    let key = varint(bytes)?;
    (key <= u64::from(u32::MAX) && key >> 3 > 0 && key & 7 <= 5).then_some((key >> 3, key & 7))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u128;
    for at in 0..10 {
        let byte = take(bytes, 1)?[0];
        value |= u128::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return u64::try_from(value).ok();
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// Groups may lie a hundred deep.
fn skip(bytes: &mut &[u8], number: u64, wire_type: u64, depth: u32) -> Option<()> {
    if depth >= 100 {
        return None;
    }
    match wire_type {
        0 => drop(varint(bytes)?),
        1 => drop(take(bytes, 8)?),
        2 => {
            let len = usize::try_from(varint(bytes)?).ok()?;
            take(bytes, len)?;
        }
        3 => loop {
            let (inner, wire_type) = key(bytes)?;
            if wire_type == 4 {
                return (inner == number).then_some(());
            }
            skip(bytes, inner, wire_type, depth + 1)?;
        },
        5 => drop(take(bytes, 4)?),
        _ => return None,
    }
    Some(())
}

/// What an UPDATE says, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Update {
    pub is_remove: bool,
    pub vni: u32,
    pub prefix: Vec<u8>,
    pub length: u32,
    pub hop: Vec<u8>,
    pub hop_vni: u32,
    pub hop_type: i32,
    pub ports: (u32, u32),
}

/// Reads an UPDATE payload; `None` if it is malformed.
pub fn decode_update(payload: &[u8]) -> Option<Update> {
    let mut update = Update::default();
    let mut family = 0;
    let (mut has_destination, mut has_hop) = (false, false);
    for field in fields(payload, 0)? {
        match field {
            (1, Field::Number(action)) => update.is_remove = action as i32 == 1,
            (2, Field::Number(vni)) => update.vni = vni as u32,
            (3, Field::Bytes(inner)) => {
                has_destination = true;
                for field in fields(inner, 0)? {
                    match field {
                        (1, Field::Number(value)) => family = value as i32,
                        (2, Field::Bytes(prefix)) => update.prefix = prefix.to_vec(),
                        (3, Field::Number(length)) => update.length = length as u32,
                        (1..=3, _) => return None,
                        _ => {}
                    }
                }
            }
            (4, Field::Bytes(inner)) => {
                has_hop = true;
                for field in fields(inner, 0)? {
                    match field {
                        (1, Field::Bytes(hop)) => update.hop = hop.to_vec(),
                        (2, Field::Number(vni)) => update.hop_vni = vni as u32,
                        (3, Field::Number(number)) => update.hop_type = number as i32,
                        (4, Field::Number(port)) => update.ports.0 = port as u32,
                        (5, Field::Number(port)) => update.ports.1 = port as u32,
                        (1..=5, _) => return None,
                        _ => {}
                    }
                }
            }
            (1..=4, _) => return None,
            _ => {}
        }
    }
    let (size, most) = match family {
        0 => (4, 32),
        1 => (16, 128),
        _ => return None,
    };
    let is_valid = has_destination
        && has_hop
        && update.prefix.len() == size
        && update.length <= most
        && matches!(update.hop.len(), 4 | 16)
        && update.ports.0.max(update.ports.1) <= 0xffff;
    is_valid.then_some(update)
}

/// The canonical payload of an UPDATE: fields in order, what is zero left out.
pub fn encode_update(update: &Update) -> Vec<u8> {
    let mut destination = Vec::new();
    put_number(&mut destination, 1, u64::from(update.prefix.len() == 16));
    put_bytes(&mut destination, 2, &update.prefix);
    put_number(&mut destination, 3, update.length.into());
    let mut hop = Vec::new();
    put_bytes(&mut hop, 1, &update.hop);
    put_number(&mut hop, 2, update.hop_vni.into());
    put_number(&mut hop, 3, i64::from(update.hop_type) as u64);
    put_number(&mut hop, 4, update.ports.0.into());
    put_number(&mut hop, 5, update.ports.1.into());
    let mut payload = Vec::new();
    put_number(&mut payload, 1, update.is_remove.into());
    put_number(&mut payload, 2, update.vni.into());
    put_bytes(&mut payload, 3, &destination);
    put_bytes(&mut payload, 4, &hop);
    payload
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3);
        put_varint(out, value);
    }
}

pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A whole frame.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![1, length[0], length[1], kind];
    frame.extend_from_slice(payload);
    frame
}

/// What a HELLO says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    pub interval: u32,
    /// Of extensions whose version is not 0.
    pub capabilities: Option<u64>,
}

/// Reads a HELLO payload; `None` if it is malformed.
pub fn decode_hello(payload: &[u8]) -> Option<Hello> {
    let (mut interval, mut extensions) = (0, None);
    for field in fields(payload, 0)? {
        match field {
            (1, Field::Number(value)) => interval = value as u32,
            (2, Field::Number(_)) => {}
            (1000, Field::Bytes(inner)) => {
                let (version, capabilities) = extensions.get_or_insert((0, 0));
                for field in fields(inner, 1)? {
                    match field {
                        (1, Field::Number(value)) => *version = value as u32,
                        (2, Field::Number(value)) => *capabilities = value,
                        (3, Field::Bytes(_)) => {}
                        (1..=3, _) => return None,
                        _ => {}
                    }
                }
            }
            (1 | 2 | 1000, _) => return None,
            _ => {}
        }
    }
    Some(Hello {
        interval,
        capabilities: extensions
            .filter(|(version, _)| *version > 0)
            .map(|it| it.1),
    })
}

/// Reads the payload of SUBSCRIBE, UNSUBSCRIBE and END_OF_RIB; `None` if it is malformed.
pub fn decode_vni(payload: &[u8]) -> Option<u32> {
    let mut vni = 0;
    for field in fields(payload, 0)? {
        match field {
            (1, Field::Number(value)) => vni = value as u32,
            (1, _) => return None,
            _ => {}
        }
    }
    Some(vni)
}

/// Reads the payload of NOTICE; `None` if it is malformed.
pub fn decode_notice(payload: &[u8]) -> Option<()> {
    let mut text: &[u8] = &[];
    for field in fields(payload, 0)? {
        match field {
            (1 | 2, Field::Number(_)) => {}
            (3, Field::Bytes(bytes)) => {
                std::str::from_utf8(bytes).ok()?;
                text = bytes;
            }
            (1..=3, _) => return None,
            _ => {}
        }
    }
    (text.len() <= 200).then_some(())
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What the library says of an UPDATE, in the terms of this one.
pub fn translate(action: rustbond::Action, vni: rustbond::Vni, route: &rustbond::Route) -> Update {
    let hop = &route.next_hop;
    Update {
        is_remove: action == rustbond::Action::Remove,
        vni: vni.0,
        prefix: octets(route.destination.prefix.addr()),
        length: route.destination.prefix.prefix_len().into(),
        hop: octets(hop.target_address),
        hop_vni: hop.target_vni.map_or(0, u32::from),
        hop_type: hop.hop_type.number(),
        ports: (hop.nat_port_range_from.into(), hop.nat_port_range_to.into()),
    }
}
