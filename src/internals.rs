//! Doors into the core for this repository's benchmarks, fuzz targets and simulation.
//!
//! No promise of any kind: behind the feature `internals`, hidden from the documentation.
#![allow(missing_docs, reason = "not an interface for anybody else")]

mod rib;
mod session;
pub mod sim;

#[cfg(feature = "http")]
pub use crate::http::internals::{Listener, Served, serve};
#[cfg(all(feature = "netlink", target_os = "linux"))]
pub use crate::kernel::internals::HostileKernel;
pub use rib::{Rib, Spans};
pub use session::{Session, SessionEvent};

use crate::core::reflector::coalesce_frames;
use crate::core::rib::{History, NextHops, PeerId, VniTable};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{FrameError, MessageType, Reassembler, decode_update, encode_update};

/// Decodes all UPDATEs of a stream that comes in pieces of `cut` bytes; how many were well-formed.
pub fn decode(stream: &[u8], cut: usize) -> usize {
    let mut reassembler = Reassembler::default();
    let mut decoded = 0;
    for mut piece in stream.chunks(cut.max(1)) {
        loop {
            match reassembler.next(&mut piece) {
                Ok(Some(frame)) if frame.kind == MessageType::Update => {
                    decoded += usize::from(decode_update(frame.payload).is_ok());
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return decoded,
            }
        }
    }
    decoded
}

/// The frames, type and payload, of a stream that comes in pieces as long as `cuts` says, all
/// over again; and what ended it early.
pub fn frames(mut stream: &[u8], cuts: &[u8]) -> (Vec<(u8, Vec<u8>)>, Option<FrameError>) {
    let mut reassembler = Reassembler::default();
    let mut frames = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !stream.is_empty() {
        let len = cuts
            .next()
            .map_or(stream.len(), |cut| usize::from(*cut) + 1);
        let (mut piece, rest) = stream.split_at(len.min(stream.len()));
        stream = rest;
        loop {
            match reassembler.next(&mut piece) {
                Ok(Some(frame)) => frames.push((frame.kind as u8, frame.payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// The route of an UPDATE payload, if it is well-formed.
pub fn decode_one(payload: &[u8]) -> Option<(Action, Vni, Route)> {
    let update = decode_update(payload).ok()?;
    Some((update.action, update.vni, update.route))
}

/// Appends an UPDATE frame.
pub fn encode(out: &mut Vec<u8>, action: Action, vni: Vni, route: &Route) {
    encode_update(out, action, vni, route);
}

/// Coalesces UPDATE frames that this crate has encoded.
pub fn coalesce(frames: &[u8]) -> Vec<u8> {
    coalesce_frames(frames)
}

/// A table and the next hops it refers to.
pub struct Table {
    table: VniTable,
    hops: NextHops,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            table: VniTable::new(Vni(1)),
            hops: NextHops::new(1),
        }
    }
}

impl Table {
    pub fn apply(&mut self, peer: u32, action: Action, route: &Route) {
        let hops = &mut self.hops;
        self.table.apply(hops, PeerId(peer), action, route);
    }

    /// Hands out what is fresh, as at the end of a turn; its bytes.
    pub fn flush(&mut self) -> usize {
        self.table
            .take_fresh(&self.hops)
            .iter()
            .map(|span| span.len())
            .sum()
    }

    /// Joins a subscriber; the bytes of its initial table.
    pub fn join(&mut self, peer: u32) -> usize {
        let mut bytes = 0;
        for span in self.table.join() {
            span.for_peer(PeerId(peer), &mut |span| bytes += span.len());
        }
        bytes
    }

    /// Compacts as much as one turn does; whether more is wanted.
    pub fn compact(&mut self) -> bool {
        if self.table.wants_compaction(History::Usual) {
            self.table.compact(&self.hops, History::Usual, 8192);
        }
        self.table.wants_compaction(History::Usual)
    }
}
