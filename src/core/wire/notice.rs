//! NOTICE: what a peer is told beyond routes.

use std::fmt;

use prost::Message as _;

use super::frame::MessageType;
use super::message::{Malformed, encode};
use super::proto;
use crate::core::types::Vni;

/// Bytes of the text at most.
const TEXT_MAX: usize = 200;

/// What a NOTICE is about; its meaning depends on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeCode(u32);

impl NoticeCode {
    /// An announcement in the VNI was refused; the text says why.
    pub const REFUSED_ANNOUNCEMENT: Self = Self(4);
    /// The subscription to the VNI was refused; the text says why.
    pub const REFUSED_SUBSCRIPTION: Self = Self(5);
    /// The connection is about to end; the text says why.
    pub const CLOSING: Self = Self(6);
    /// What was refused in the VNI may be asked for again.
    pub const RETRY: Self = Self(9);

    /// Returns the number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NoticeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::REFUSED_ANNOUNCEMENT => f.write_str("refuses an announcement"),
            Self::REFUSED_SUBSCRIPTION => f.write_str("refuses a subscription"),
            Self::CLOSING => f.write_str("closes the connection"),
            Self::RETRY => f.write_str("takes again what it refused"),
            Self(number) => write!(f, "says {number}, which means nothing here"),
        }
    }
}

/// A message about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) code: NoticeCode,
    pub(crate) vni: Vni,
    /// For people: one line of 200 bytes at most.
    pub(crate) text: Box<str>,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, vni, text } = self;
        write!(f, "{code} in VNI {vni}: {text}")
    }
}

/// Appends a whole NOTICE frame. A text that is too long is cut.
pub(crate) fn encode_notice(out: &mut Vec<u8>, notice: &Notice) {
    let mut len = notice.text.len().min(TEXT_MAX);
    while !notice.text.is_char_boundary(len) {
        len -= 1;
    }
    let message = proto::Notice {
        code: notice.code.0,
        vni: notice.vni.0,
        text: notice.text[..len].into(),
    };
    encode(out, MessageType::Notice, &message);
}

/// Reads the payload of a NOTICE. The text becomes one line: it is shown in a log.
pub(crate) fn decode_notice(payload: &[u8]) -> Result<Notice, Malformed> {
    let message = proto::Notice::decode(payload).map_err(|_| Malformed::Encoding)?;
    if message.text.len() > TEXT_MAX {
        return Err(Malformed::TextSize);
    }
    let is_plain = |it: char| !it.is_control() && !is_of_direction(it);
    let plain = |it: char| if is_plain(it) { it } else { ' ' };
    Ok(Notice {
        code: NoticeCode(message.code),
        vni: Vni(message.vni),
        text: message.text.chars().map(plain).collect(),
    })
}

/// Returns whether a character changes the direction or the lines of a text (Unicode, UAX 9).
fn is_of_direction(it: char) -> bool {
    matches!(it, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::HEADER_LEN;

    fn notice(text: &str) -> Notice {
        Notice {
            code: NoticeCode::REFUSED_SUBSCRIPTION,
            vni: Vni(7),
            text: text.into(),
        }
    }

    fn frame(notice: &Notice) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_notice(&mut frame, notice);
        frame
    }

    #[test]
    fn notice_is_read_as_it_was_written() {
        let written = notice("policy: rule 3");
        let frame = frame(&written);
        assert_eq!(frame[..HEADER_LEN], [1, 0, 20, 161]);
        assert_eq!(frame[HEADER_LEN..HEADER_LEN + 6], [8, 5, 16, 7, 26, 14]);
        assert_eq!(decode_notice(&frame[HEADER_LEN..]), Ok(written));
        let empty = decode_notice(&[]).unwrap();
        assert_eq!(
            (empty.code.number(), empty.vni, &*empty.text),
            (0, Vni(0), "")
        );
    }

    #[test]
    fn long_text_is_cut_between_characters_and_one_from_afar_is_refused() {
        let long = "\u{e4}".repeat(150);
        let cut = decode_notice(&frame(&notice(&long))[HEADER_LEN..]).unwrap();
        assert_eq!(&*cut.text, "\u{e4}".repeat(100));
        let odd = format!("a{long}");
        let cut = decode_notice(&frame(&notice(&odd))[HEADER_LEN..]).unwrap();
        assert_eq!(cut.text.len(), 199);
        let payload = [&[26, 201, 1][..], &[b'a'; 201]].concat();
        assert_eq!(decode_notice(&payload), Err(Malformed::TextSize));
        assert_eq!(decode_notice(&[26, 1, 0xff]), Err(Malformed::Encoding));
        assert_eq!(decode_notice(&[26, 5, b'a']), Err(Malformed::Encoding));
    }

    #[test]
    fn text_from_afar_becomes_one_line() {
        let read = decode_notice(&frame(&notice("a\nb\u{1b}[1m\u{202e}c"))[HEADER_LEN..]).unwrap();
        assert_eq!(&*read.text, "a b [1m c");
    }
}
