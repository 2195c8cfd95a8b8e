//! The 4-byte header, and frames out of a byte stream cut anywhere.

use std::fmt;

/// Version of the protocol, first byte of every header.
const VERSION: u8 = 1;

/// Bytes of a header: version, payload length (big endian, 2 bytes), type.
pub(crate) const HEADER_LEN: usize = 4;

/// Most bytes a payload may have: what fits an IPv6 packet of minimum MTU.
pub(crate) const MAX_PAYLOAD: usize = 1188;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MessageType {
    Hello = 1,
    Keepalive = 2,
    Subscribe = 3,
    Unsubscribe = 4,
    Update = 5,
    /// Extension: sent only to peers that offered the capability.
    EndOfRib = 160,
    /// Extension: sent only to peers that offered the capability.
    Notice = 161,
}

impl MessageType {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Hello),
            2 => Some(Self::Keepalive),
            3 => Some(Self::Subscribe),
            4 => Some(Self::Unsubscribe),
            5 => Some(Self::Update),
            160 => Some(Self::EndOfRib),
            161 => Some(Self::Notice),
            _ => None,
        }
    }
}

/// A header that ends the session; the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameError {
    /// The version is not 1.
    Version(u8),
    /// The message type is unknown.
    Type(u8),
    /// The payload is longer than 1188 bytes.
    Length(u16),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "protocol version {version} instead of 1"),
            Self::Type(number) => write!(f, "unknown message type {number}"),
            Self::Length(length) => write!(f, "payload of {length} bytes, {MAX_PAYLOAD} allowed"),
        }
    }
}

/// One whole message: its type and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: MessageType,
    pub(crate) payload: &'a [u8],
}

/// Writes the header of a frame.
///
/// # Panics
///
/// If the payload is over the limit: every encoder of this crate stays below.
pub(crate) fn header(kind: MessageType, payload_len: usize) -> [u8; HEADER_LEN] {
    assert!(payload_len <= MAX_PAYLOAD, "own frames fit the limit");
    let [.., high, low] = payload_len.to_be_bytes();
    [VERSION, high, low, kind as u8]
}

/// Length of the frame that starts `bytes`, header included.
///
/// For bytes that this crate encoded: the header must be there and be valid.
pub(crate) fn frame_len(bytes: &[u8]) -> usize {
    HEADER_LEN + usize::from(u16::from_be_bytes([bytes[1], bytes[2]]))
}

/// Cuts a byte stream into frames, wherever it was cut on its way.
///
/// Whole frames are lent from the input; only a frame whose end has not come yet
/// is copied. Holds at most one frame (1192 bytes).
#[derive(Debug, Default)]
pub(crate) struct Reassembler {
    partial: Vec<u8>,
    /// `partial` was lent as a whole frame and is due to be cleared.
    lent: bool,
}

impl Reassembler {
    /// The next whole frame of the stream that continues with `input`.
    ///
    /// Advances `input` past what was taken. `None`: all of `input` is taken and
    /// more is needed. An error is final; the stream has no meaning after it.
    pub(crate) fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'s>>, FrameError> {
        if self.lent {
            self.partial.clear();
            self.lent = false;
        }
        if self.partial.is_empty() {
            return match parse(input)? {
                Some((frame, len)) => {
                    *input = &input[len..];
                    Ok(Some(frame))
                }
                None => {
                    self.partial.extend_from_slice(input);
                    *input = &[];
                    Ok(None)
                }
            };
        }
        self.top_up(HEADER_LEN, input);
        if self.partial.len() >= HEADER_LEN {
            parse(&self.partial)?;
            self.top_up(frame_len(&self.partial), input);
        }
        let frame = parse(&self.partial)?.map(|(frame, _)| frame);
        self.lent = frame.is_some();
        Ok(frame)
    }

    /// Bytes held for a frame whose end has not come yet.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        if self.lent { 0 } else { self.partial.len() }
    }

    fn top_up(&mut self, len: usize, input: &mut &[u8]) {
        let missing = len.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

/// The frame that starts `bytes` and its length, if it is all there.
fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    if let Some(&version) = bytes.first()
        && version != VERSION
    {
        return Err(FrameError::Version(version));
    }
    let Some((&[_, high, low, number], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let kind = MessageType::from_number(number).ok_or(FrameError::Type(number))?;
    let length = u16::from_be_bytes([high, low]);
    let len = usize::from(length);
    if len > MAX_PAYLOAD {
        return Err(FrameError::Length(length));
    }
    Ok(rest
        .get(..len)
        .map(|payload| (Frame { kind, payload }, HEADER_LEN + len)))
}
