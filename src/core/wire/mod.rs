//! MetalBond protocol v1 on the wire: frames and the messages in them.
//!
//! The only module that knows protobuf. Source of the format:
//! `docs/metalbond_protocol.md` of ironcore-dev/metalbond.

mod frame;
mod message;
mod notice;
mod update;

#[cfg(test)]
mod tests;

pub use frame::FrameError;
pub(crate) use frame::HEADER_LEN;
pub(crate) use frame::{Frame, MessageType, Reassembler, frame_len};
pub(crate) use message::{
    Capabilities, Extensions, Hello, KEEPALIVE_FRAME, Malformed, decode_hello, decode_subscription,
    encode_hello, encode_subscription,
};
pub use notice::NoticeCode;
pub(crate) use notice::{Notice, decode_notice, encode_notice};
pub(crate) use update::{Update, decode_update, encode_update, split_update};

/// The types that prost generates from `proto/metalbond.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/metalbond.rs"));
}
