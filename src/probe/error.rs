//! Why a probe found nothing.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::core::session::CloseReason;
use crate::net::Endpoint;

/// Why a probe found nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeError {
    /// The name has no address.
    Resolve(io::Error),
    /// Nothing can be connected to.
    Connect {
        /// The endpoint, the last address of several.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// It was connected to and did not answer in time.
    Silent {
        /// The endpoint.
        endpoint: Endpoint,
        /// The message that was not answered.
        awaited: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It closed the connection before all was answered.
    Lost {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the system said; the end of the stream is `UnexpectedEof`.
        kind: ErrorKind,
        /// The first bytes that came, 64 at most.
        received: Vec<u8>,
    },
    /// It answered, but not in this protocol.
    NotMetalBond {
        /// The endpoint.
        endpoint: Endpoint,
        /// What is wrong with the answer.
        reason: CloseReason,
        /// The first bytes that came, 64 at most.
        received: Vec<u8>,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(source) => write!(f, "no address: {source}"),
            Self::Connect { endpoint, source } => {
                let why = match source.kind() {
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => "connecting timed out".into(),
                    ErrorKind::ConnectionRefused => {
                        "connection refused, nothing listens there".into()
                    }
                    _ => source.to_string(),
                };
                write!(f, "{endpoint}: {why}")
            }
            Self::Silent {
                endpoint,
                awaited,
                timeout,
            } => write!(f, "{endpoint}: no answer to {awaited} within {timeout:?}"),
            Self::Lost {
                endpoint,
                kind,
                received,
            } => {
                let how = match kind {
                    ErrorKind::UnexpectedEof => "closed the connection".into(),
                    kind => kind.to_string(),
                };
                if received.is_empty() {
                    write!(f, "{endpoint}: {how} without an answer")
                } else {
                    write!(f, "{endpoint}: {how} after {}", Bytes(received))
                }
            }
            Self::NotMetalBond {
                endpoint,
                reason,
                received,
            } => write!(
                f,
                "{endpoint}: this is not MetalBond ({reason}): {}",
                Bytes(received)
            ),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(source) | Self::Connect { source, .. } => Some(source),
            Self::Silent { .. } | Self::Lost { .. } | Self::NotMetalBond { .. } => None,
        }
    }
}

/// Bytes in words: text as such, anything else in hexadecimal.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        let Self(bytes) = self;
        let line = bytes.split(|it| matches!(it, b'\r' | b'\n')).next();
        let line = line.unwrap_or_default();
        let is_text = |it: &u8| it.is_ascii_graphic() || *it == b' ';
        if !line.is_empty() && line.iter().all(is_text) {
            return write!(f, "\"{}\"", line.escape_ascii());
        }
        // A record header of TLS: alert or handshake, version 3.
        let what = match bytes {
            [0x15 | 0x16, 3, ..] => "TLS, ",
            _ => "",
        };
        write!(f, "{what}bytes")?;
        for byte in bytes.iter().take(SHOWN) {
            write!(f, " {byte:02x}")?;
        }
        f.write_str(if bytes.len() > SHOWN { " ..." } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_a_peer_is_shown_in_one_line_without_control_characters() {
        let all: [(&[u8], &str); 5] = [
            (b"SSH-2.0-OpenSSH_9.2\r\n", "\"SSH-2.0-OpenSSH_9.2\""),
            (
                b"HTTP/1.1 400 Bad Request\r\nA: b",
                "\"HTTP/1.1 400 Bad Request\"",
            ),
            (&[0x15, 3, 1, 0, 2], "TLS, bytes 15 03 01 00 02"),
            (b"\x1b[2J\n", "bytes 1b 5b 32 4a 0a"),
            (
                &[0xff; 17],
                "bytes ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ...",
            ),
        ];
        for (bytes, text) in all {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
