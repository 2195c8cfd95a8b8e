//! MetalBond in bytes, written a second time: nothing here comes from the library.

use std::fmt;

/// A route as Go MetalBond keeps it; what it does not understand, it keeps as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    /// 4 or 16 bytes.
    pub(crate) prefix: Vec<u8>,
    pub(crate) length: u32,
    /// 4 or 16 bytes.
    pub(crate) hop: Vec<u8>,
    pub(crate) hop_vni: u32,
    pub(crate) kind: u32,
    pub(crate) ports: (u32, u32),
}

pub(crate) const STANDARD: u32 = 0;
pub(crate) const NAT: u32 = 1;
pub(crate) const BALANCER: u32 = 2;

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prefix,
            length,
            hop,
            kind,
            ..
        } = self;
        write!(f, "{prefix:?}/{length} via {hop:?} kind {kind}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Hello { interval: u32, is_server: bool },
    Keepalive,
    Subscribe(u32),
    Unsubscribe(u32),
    Update { is_add: bool, vni: u32, path: Path },
    Unknown(u8),
}

impl Message {
    /// Its number, which is that of the channel it takes inside Go MetalBond.
    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Keepalive => 2,
            Self::Subscribe(_) => 3,
            Self::Unsubscribe(_) => 4,
            Self::Update { .. } => 5,
            Self::Unknown(number) => *number,
        }
    }

    /// The whole frame, as Go MetalBond encodes it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Self::Hello {
                interval,
                is_server,
            } => {
                number(&mut payload, 1, *interval);
                number(&mut payload, 2, (*is_server).into());
            }
            Self::Keepalive | Self::Unknown(_) => {}
            Self::Subscribe(vni) | Self::Unsubscribe(vni) => number(&mut payload, 1, *vni),
            Self::Update { is_add, vni, path } => {
                number(&mut payload, 1, (!is_add).into());
                number(&mut payload, 2, *vni);
                let mut destination = Vec::new();
                number(&mut destination, 1, (path.prefix.len() == 16).into());
                bytes(&mut destination, 2, &path.prefix);
                number(&mut destination, 3, path.length);
                bytes(&mut payload, 3, &destination);
                let mut hop = Vec::new();
                bytes(&mut hop, 1, &path.hop);
                number(&mut hop, 2, path.hop_vni);
                number(&mut hop, 3, path.kind);
                if path.kind == NAT {
                    number(&mut hop, 4, path.ports.0);
                    number(&mut hop, 5, path.ports.1);
                }
                bytes(&mut payload, 4, &hop);
            }
        }
        let mut frame = vec![1, 0, 0, self.number()];
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        frame[1..3].copy_from_slice(&length);
        frame.extend(payload);
        frame
    }

    /// Of a whole frame; an error says what would have hurt Go MetalBond.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, String> {
        let payload = &frame[4..];
        let vni = || varint_of(payload, 1);
        match frame[3] {
            1 => Ok(Self::Hello {
                interval: varint_of(payload, 1)?,
                is_server: varint_of(payload, 2)? != 0,
            }),
            2 => Ok(Self::Keepalive),
            3 => vni().map(Self::Subscribe),
            4 => vni().map(Self::Unsubscribe),
            5 => Ok(Self::Update {
                is_add: varint_of(payload, 1)? != 1,
                vni: varint_of(payload, 2)?,
                path: path_of(payload)?,
            }),
            other => Ok(Self::Unknown(other)),
        }
    }
}

fn path_of(payload: &[u8]) -> Result<Path, String> {
    let destination = bytes_of(payload, 3)?.ok_or("UPDATE without destination")?;
    let hop = bytes_of(payload, 4)?.ok_or("UPDATE without nextHop: panic")?;
    let path = Path {
        prefix: bytes_of(destination, 2)?.unwrap_or_default().to_vec(),
        length: varint_of(destination, 3)?,
        hop: bytes_of(hop, 1)?.unwrap_or_default().to_vec(),
        hop_vni: varint_of(hop, 2)?,
        kind: varint_of(hop, 3)?,
        ports: (varint_of(hop, 4)?, varint_of(hop, 5)?),
    };
    let family = usize::from(varint_of(destination, 1)? == 1) * 12 + 4;
    if path.prefix.len() != family || !matches!(path.hop.len(), 4 | 16) {
        return Err(format!("an address of another size: {path:?}"));
    }
    Ok(path)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        out.push(u8::try_from(value % 128).unwrap() + 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap());
}

fn number(out: &mut Vec<u8>, field: u8, value: u32) {
    if value != 0 {
        out.push(field * 8);
        varint(out, value.into());
    }
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field * 8 + 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a varint ends early")?;
        *bytes = rest;
        value |= u64::from(byte % 128) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err("a varint of more than ten bytes".into())
}

/// Calls `each` with every field: a number, or bytes; others are skipped.
fn fields<'a>(mut rest: &'a [u8], mut each: impl FnMut(u64, u64, &'a [u8])) -> Result<(), String> {
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        let (value, bytes) = match key % 8 {
            0 => (take_varint(&mut rest)?, &[][..]),
            1 | 2 | 5 => {
                let length = match key % 8 {
                    1 => 8,
                    5 => 4,
                    _ => usize::try_from(take_varint(&mut rest)?).unwrap(),
                };
                let whole = rest.split_at_checked(length);
                let (value, after) = whole.ok_or("a field ends early")?;
                rest = after;
                (0, value)
            }
            other => return Err(format!("wire type {other}")),
        };
        each(key / 8, value, bytes);
    }
    Ok(())
}

fn varint_of(payload: &[u8], field: u64) -> Result<u32, String> {
    let mut found = 0;
    fields(payload, |it, value, _| {
        if it == field {
            found = value;
        }
    })?;
    u32::try_from(found).map_err(|_| format!("field {field} past 32 bits: {found}"))
}

fn bytes_of(payload: &[u8], field: u64) -> Result<Option<&[u8]>, String> {
    let mut found = None;
    fields(payload, |it, _, bytes| {
        if it == field {
            found = Some(bytes);
        }
    })?;
    Ok(found)
}
