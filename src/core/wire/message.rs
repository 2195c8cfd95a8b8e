//! HELLO and the subscription messages; their payloads come once a session, so prost does them.

use std::fmt;

use prost::Message as _;

use super::frame::{HEADER_LEN, MessageType, header};
use super::proto;
use crate::core::types::Vni;

/// A whole KEEPALIVE: a header and nothing else.
pub(crate) const KEEPALIVE_FRAME: [u8; HEADER_LEN] = [1, 0, 0, 2];

/// RustBond 0.1 reads HELLO with one 256-byte read.
const MAX_HELLO_PAYLOAD: usize = 252;

/// Why a payload was dropped; the peer's fault. The frame has a length, so the session lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Malformed {
    /// Not the protobuf encoding of the message.
    Encoding,
    /// An UPDATE without a destination.
    NoDestination,
    /// An UPDATE without a next hop.
    NoNextHop,
    /// Neither IPv4 nor IPv6.
    IpVersion,
    /// A prefix whose size does not fit its family.
    PrefixSize,
    /// A prefix length past its family's.
    PrefixLength,
    /// A next-hop address of neither 4 nor 16 bytes.
    NextHopSize,
    /// A NAT port past 65535.
    Port,
    /// A NOTICE with a text of more than 200 bytes.
    TextSize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "broken protobuf encoding",
            Self::NoDestination => "no destination",
            Self::NoNextHop => "no next hop",
            Self::IpVersion => "unknown IP version",
            Self::PrefixSize => "prefix size does not fit its family",
            Self::PrefixLength => "prefix length past its family's",
            Self::NextHopSize => "next-hop address of neither 4 nor 16 bytes",
            Self::Port => "port past 65535",
            Self::TextSize => "text of more than 200 bytes",
        })
    }
}

/// Capabilities a peer offers, a bit set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// Reads frames from a byte stream: any cut of writes will do.
    pub(crate) const STREAM: Self = Self(1);
    /// Understands END_OF_RIB.
    pub(crate) const END_OF_RIB: Self = Self(1 << 1);
    /// Understands NOTICE.
    pub(crate) const NOTICE: Self = Self(1 << 2);
    /// Everything this version offers.
    pub(crate) const OWN: Self = Self(Self::STREAM.0 | Self::END_OF_RIB.0 | Self::NOTICE.0);

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of what is offered; what has none here, as a number.
    pub(crate) fn names(self) -> Vec<String> {
        let known = [
            (Self::STREAM, "STREAM"),
            (Self::END_OF_RIB, "END_OF_RIB"),
            (Self::NOTICE, "NOTICE"),
        ];
        let names = known.iter().filter(|(it, _)| self.contains(*it));
        let names = names.map(|(_, name)| (*name).into());
        let unknown = self.0 & !Self::OWN.0;
        let unknown = (unknown != 0).then(|| format!("{unknown:#x}"));
        names.chain(unknown).collect()
    }
}

/// What RustBond peers tell each other beyond the protocol (field 1000 of HELLO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) capabilities: Capabilities,
    /// Identity of the peer's process; all zero when it gave none.
    pub(crate) node_id: [u8; 16],
    /// How long ago a server started with empty tables; 0 in what clients send.
    pub(crate) uptime_seconds: u32,
}

impl Extensions {
    /// Version of the extension message itself.
    const VERSION: u32 = 1;
}

/// The first message of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Seconds between two KEEPALIVEs.
    pub(crate) keepalive_interval: u32,
    pub(crate) is_server: bool,
    /// `None` for legacy peers.
    pub(crate) extensions: Option<Extensions>,
}

/// Appends a whole HELLO frame.
pub(crate) fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    let message = proto::Hello {
        keepalive_interval: hello.keepalive_interval,
        is_server: hello.is_server,
        extensions: hello.extensions.map(|extensions| proto::Extensions {
            version: Extensions::VERSION,
            capabilities: extensions.capabilities.0,
            node_id: extensions.node_id.to_vec(),
            uptime_seconds: extensions.uptime_seconds,
        }),
    };
    debug_assert!(message.encoded_len() <= MAX_HELLO_PAYLOAD);
    encode(out, MessageType::Hello, &message);
}

/// Reads the payload of a HELLO.
pub(crate) fn decode_hello(payload: &[u8]) -> Result<Hello, Malformed> {
    let message = proto::Hello::decode(payload).map_err(|_| Malformed::Encoding)?;
    Ok(Hello {
        keepalive_interval: message.keepalive_interval,
        is_server: message.is_server,
        extensions: message
            .extensions
            .filter(|extensions| extensions.version >= Extensions::VERSION)
            .map(|extensions| Extensions {
                capabilities: Capabilities(extensions.capabilities),
                node_id: extensions.node_id.try_into().unwrap_or_default(),
                uptime_seconds: extensions.uptime_seconds,
            }),
    })
}

/// Appends a whole frame that carries nothing but a VNI: SUBSCRIBE, UNSUBSCRIBE, END_OF_RIB.
pub(crate) fn encode_subscription(out: &mut Vec<u8>, kind: MessageType, vni: Vni) {
    encode(out, kind, &proto::Subscription { vni: vni.0 });
}

/// Reads the payload of SUBSCRIBE, UNSUBSCRIBE or END_OF_RIB.
pub(crate) fn decode_subscription(payload: &[u8]) -> Result<Vni, Malformed> {
    proto::Subscription::decode(payload)
        .map(|message| Vni(message.vni))
        .map_err(|_| Malformed::Encoding)
}

pub(super) fn encode(out: &mut Vec<u8>, kind: MessageType, message: &impl prost::Message) {
    out.extend_from_slice(&header(kind, message.encoded_len()));
    message
        .encode(out)
        .expect("a vector grows to whatever is encoded");
}
