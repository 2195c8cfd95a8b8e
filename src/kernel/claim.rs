//! One writer for a protocol and a range of nexthop numbers in a network namespace.
//!
//! A claim is a Unix socket with an abstract name that says what is claimed. The kernel keeps
//! such names for each network namespace, and frees them when a process ends, however it ends.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use crate::error::{Error, Result};

/// The names of claims begin with this.
const PREFIX: &str = "metalbond-kernel/";

/// The Unix sockets of the network namespace of the calling thread.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// How often a claim is tried, and the pause between: a process that ends gives its claim
/// back within this time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What a writer claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) protocol: u8,
    pub(super) ids: Range<u32>,
    /// Its routes carry their hops, so that all such routes with the protocol are its own.
    pub(super) is_inline: bool,
}

impl fmt::Display for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = &self.ids;
        let form = if self.is_inline { "inline" } else { "objects" };
        write!(f, "{PREFIX}{}/{start}-{end}/{form}", self.protocol)
    }
}

impl Claimed {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('/');
        let protocol = parts.next()?.parse().ok()?;
        let (start, end) = parts.next()?.split_once('-')?;
        Some(Self {
            protocol,
            ids: start.parse().ok()?..end.parse().ok()?,
            is_inline: parts.next()? == "inline",
        })
    }

    /// Whether two writers could take each other's routes for their own.
    fn conflicts(&self, other: &Self) -> bool {
        let overlap = self.ids.start < other.ids.end && other.ids.start < self.ids.end;
        self.protocol == other.protocol && (overlap || self.is_inline || other.is_inline)
    }
}

/// A claim that holds until it is dropped.
#[derive(Debug)]
pub(super) struct Claim(#[allow(dead_code, reason = "it is held, not used")] UnixListener);

/// Claims a protocol and a range for this process.
///
/// # Errors
///
/// [`Error::Netlink`] if another process, or another writer of this one, holds what conflicts.
pub(super) fn claim(wanted: &Claimed) -> Result<Claim> {
    let mut tries = 0;
    loop {
        let claimed = try_claim(wanted);
        tries += 1;
        if tries == TRIES || !matches!(claimed, Err(Error::Netlink(_))) {
            return claimed;
        }
        // Nobody tells when a process that is about to end has ended.
        std::thread::sleep(PAUSE);
    }
}

fn try_claim(wanted: &Claimed) -> Result<Claim> {
    let doing = "claim the kernel's routes";
    let conflict = || living().into_iter().find(|it| wanted.conflicts(it));
    if let Some(other) = conflict() {
        return Err(refusal(&other));
    }
    let name = wanted.to_string();
    let address = SocketAddr::from_abstract_name(&name).map_err(Error::io(doing))?;
    let socket = match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(refusal(wanted)),
        bound => bound.map_err(Error::io(doing))?,
    };
    let claim = Claim(socket);
    // One with another name may have come at the same time.
    let conflict = || {
        living()
            .into_iter()
            .find(|it| it != wanted && wanted.conflicts(it))
    };
    conflict().map_or(Ok(claim), |other| Err(refusal(&other)))
}

fn refusal(other: &Claimed) -> Error {
    let Range { start, end } = &other.ids;
    let advice = match other.is_inline {
        true => "another --rt-proto",
        false => "other --nexthop-ids or another --rt-proto",
    };
    Error::Netlink(format!(
        "another client in this network namespace writes kernel routes with protocol {} and \
         nexthop numbers {start}-{}; give this one {advice}",
        other.protocol,
        end - 1
    ))
}

/// Returns what is claimed in the network namespace of the calling thread.
pub(super) fn living() -> Vec<Claimed> {
    match std::fs::read_to_string(SOCKETS) {
        Ok(text) => claims(&text),
        Err(error) => {
            log::debug!("cannot read {SOCKETS}: {error}");
            Vec::new()
        }
    }
}

fn claims(sockets: &str) -> Vec<Claimed> {
    let names = sockets.lines().filter_map(|line| line.rsplit_once('@'));
    names.filter_map(|(_, name)| Claimed::parse(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(protocol: u8, ids: Range<u32>, is_inline: bool) -> Claimed {
        Claimed {
            protocol,
            ids,
            is_inline,
        }
    }

    #[test]
    fn claims_are_read_as_they_are_written() {
        let ours = claimed(254, 5..9, false);
        let text = format!(
            "Num RefCount Protocol Flags Type St Inode Path\n\
             0000: 00000002 00000000 00010000 0001 01 24 @{ours}\n\
             0000: 00000002 00000000 00010000 0001 01 25 /run/x\n\
             0000: 00000002 00000000 00010000 0001 01 26 @metalbond-kernel/x/1-2/inline\n\
             0000: 00000003 00000000 00000000 0001 03 27\n"
        );
        assert_eq!(claims(&text), [ours]);
    }

    #[test]
    fn claims_conflict_when_routes_cannot_be_told_apart() {
        let ours = claimed(254, 10..20, false);
        assert!(ours.conflicts(&claimed(254, 19..30, false)));
        assert!(!ours.conflicts(&claimed(254, 20..30, false)));
        assert!(ours.conflicts(&claimed(254, 20..30, true)));
        assert!(!ours.conflicts(&claimed(99, 10..20, false)));
    }
}
