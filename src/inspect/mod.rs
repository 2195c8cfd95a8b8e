//! What can be seen of a running server or client, and changed while it runs.
//!
//! [`Inspect`] is one face for both: what HTTP and the control socket show is made of it, and
//! a program of one's own can use it as well. Nothing here is on the way of a route. A question
//! is put to the loops in pieces, each of less than a millisecond, and answered on the asker's
//! thread.
//!
//! ```
//! use rustbond::inspect::Inspect;
//! use rustbond::{MetalBondServer, ServerConfig};
//!
//! # fn main() -> rustbond::Result<()> {
//! let server = MetalBondServer::start("127.0.0.1:0", ServerConfig::default())?;
//! let inspector = server.inspector();
//! assert!(inspector.status().not_ready.is_none());
//! assert!(inspector.snapshot(None)?.entries().is_empty());
//! # server.shutdown()
//! # }
//! ```

mod names;
mod server;
mod snapshot;
mod watch;

use std::time::{Duration, SystemTime};

pub use server::{ClientStats, MemoryStats, ServerStats};
pub use snapshot::Snapshot;
pub(crate) use watch::WatchSource;
pub use watch::{Watch, WatchEvent, WatchFrom};

pub use crate::core::rib::{Digest, TableSummary};
pub use crate::core::session::MessageCounts;
pub use crate::core::status::{Announcers, PeerKind, PeerState, PeerStatus, RouteEntry, VniStatus};
use crate::core::types::{Route, Vni};
use crate::error::Result;
use crate::net::Endpoint;

/// A running server or client, to look at.
///
/// All calls may be made from any thread.
///
/// After the end of what is looked at, every call answers [`Error::Closed`](crate::Error::Closed),
/// and [`Error::Panicked`](crate::Error::Panicked) if one of its threads has panicked: what ended
/// is never taken for something empty. Only [`Self::status`], which says why it is not ready, and
/// [`Self::generation`] answer still.
pub trait Inspect: Send + Sync + 'static {
    /// The whole of it in numbers.
    fn status(&self) -> Status;

    /// The sessions of a server, or the servers of a client, by name.
    ///
    /// # Errors
    ///
    /// See [`Inspect`].
    fn peers(&self) -> Result<Vec<PeerStatus>>;

    /// The VNIs, by number: those that somebody announces in or subscribes to.
    ///
    /// # Errors
    ///
    /// See [`Inspect`].
    fn vnis(&self) -> Result<Vec<VniStatus>>;

    /// A number that is another one after any table has changed.
    fn generation(&self) -> u64;

    /// The routes of one VNI or of all, in order.
    ///
    /// Takes about 0.2 s and 100 MB for a million routes. A route that was there all the time
    /// is in it, one that came or went meanwhile may be.
    ///
    /// # Errors
    ///
    /// See [`Inspect`].
    fn snapshot(&self, vni: Option<Vni>) -> Result<Snapshot>;

    /// The routes that this process announces itself, in order.
    ///
    /// # Errors
    ///
    /// See [`Inspect`].
    fn announcements(&self) -> Result<Vec<(Vni, Route)>>;

    /// What happens in one VNI or in all, from the return of this call on at the latest.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) after the end, [`Error::Busy`](crate::Error::Busy)
    /// if too many watch already.
    fn watch(&self, vni: Option<Vni>, from: WatchFrom) -> Result<Watch>;

    /// Changes something; whether it was not so before.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if this side cannot do that,
    /// [`Error::PeerNotFound`](crate::Error::PeerNotFound) if it names no peer, and those of the
    /// calls of the same name.
    fn execute(&self, command: Command) -> Result<Done>;
}

/// Which side of the protocol this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A route reflector.
    Server,
    /// Its client.
    Client,
}

/// The whole of a server or client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Which of the two it is.
    pub side: Side,
    /// When it was started.
    pub started: SystemTime,
    /// How long ago that was, whatever became of the clock since.
    pub uptime: Duration,
    /// Where a server listens; nowhere once it has ended.
    pub listening: Vec<Endpoint>,
    /// Why it is not ready: a server that does not listen, a client without a server, with a
    /// table that is not complete or did not fit, or whose routes are not in the kernel. None: it is ready.
    pub not_ready: Option<String>,
    /// Sessions of a server, servers of a client, in whatever state.
    pub peers: usize,
    /// Of them, those whose handshake is complete.
    pub established: usize,
    /// VNIs with a route or a subscriber.
    pub vnis: usize,
    /// Distinct routes.
    pub routes: usize,
    /// Routes this process announces itself.
    pub announced: usize,
    /// Updates received since the start.
    pub updates_received: u64,
    /// Updates sent since the start, to all peers.
    pub updates_sent: u64,
    /// Of a server.
    pub server: Option<ServerStats>,
    /// Of a client.
    pub client: Option<ClientStats>,
    /// Of a client that writes routes into the kernel.
    pub kernel: Option<KernelStatus>,
}

/// A snapshot of the kernel writer's state.
///
/// Destinations count once, however many routes and VNIs lead to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelStatus {
    /// Destinations that should be in the kernel.
    pub desired: u64,
    /// Those of them that are in the kernel with our mark, right or not yet right.
    pub installed: u64,
    /// Destinations that an earlier process left in the kernel and that nobody has announced yet:
    /// they stay until their VNIs are settled. Not counted in `installed`.
    pub settling: u64,
    /// Destinations that wait for a tunnel device that is missing or down, or does not
    /// encapsulate. They are installed as soon as it is there.
    pub waiting: u64,
    /// Destinations that the kernel refused; they are tried again, after at most a minute.
    pub failed: u64,
    /// Destinations where somebody else's route stands in the way of ours, which comes when
    /// theirs goes.
    pub shadowed: u64,
    /// Routes of ours that are about to be deleted where they stand.
    pub strays: u64,
    /// Announced routes with an underlay address that IPv6 cannot encapsulate to.
    pub uninstallable: u64,
    /// Underlay addresses that this host has no route to, if next hops are followed.
    pub unreachable: u64,
    /// How often something of ours was lost and written again.
    pub repairs: KernelRepairs,
    /// Nexthop objects and groups in the kernel.
    pub nexthop_objects: u64,
    /// Netlink messages sent that change something.
    pub messages: u64,
    /// System calls that carried them.
    pub batches: u64,
    /// Times the kernel's state was read, the one at start included.
    pub resyncs: u64,
    /// Why routes cannot be trusted to be in the kernel, if so: the device is missing, down or
    /// does not encapsulate, or somebody removes routes again and again.
    pub obstacle: Option<String>,
    /// Whether the tunnel device exists, encapsulates and is up.
    pub device_up: bool,
    /// Whether routes use nexthop objects; if not, they carry their hops.
    pub uses_nexthop_objects: bool,
    /// Whether the kernel holds all that is desired and nothing else of ours but what is settling,
    /// nothing waits, nothing failed, and nobody undoes it.
    pub in_sync: bool,
    /// Whether the writer runs.
    pub running: bool,
    /// What is wrong, the newest of it: what the kernel refused and why, routes of others in the
    /// place of ours, a device that is not there, somebody who removes routes, or a call that
    /// failed. None once it is over.
    pub last_error: Option<String>,
    /// The last announced route that could not be installed as it was announced, and why: no
    /// tunnel can lead to its next hop, another VNI announces it into the same table, or it has
    /// too many next hops. Also what a client with other options left in the kernel, as long as
    /// it is there.
    pub last_warning: Option<String>,
}

/// How often something of a kernel writer was lost to somebody else, by what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelRepairs {
    /// Bursts of routes that were deleted.
    pub routes: u64,
    /// Nexthop objects that were deleted.
    pub nexthop_objects: u64,
    /// Times that the tunnel device went, or went down.
    pub device: u64,
}

impl KernelStatus {
    /// Returns why the kernel does not forward as it should, if it does not.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if !self.running {
            return Some("kernel: the writer of routes has ended".into());
        }
        if let Some(obstacle) = &self.obstacle {
            let (waiting, desired) = (self.waiting, self.desired);
            return Some(match waiting {
                0 => format!("kernel: {obstacle}"),
                _ => format!("kernel: {obstacle}: {waiting} of {desired} destinations wait for it"),
            });
        }
        if !self.device_up {
            return Some("kernel: the tunnel device is missing or down".into());
        }
        if self.failed > 0 {
            let (failed, desired) = (self.failed, self.desired);
            let why = self.last_error.as_deref().unwrap_or("no reason is known");
            return Some(format!(
                "kernel: {failed} of {desired} destinations are refused: {why}"
            ));
        }
        // An operator may have put a route in the place of ours on purpose.
        let there = self.installed.saturating_add(self.shadowed);
        let missing = self.desired.saturating_sub(there);
        let desired = self.desired;
        (missing > 0).then(|| format!("kernel: {missing} of {desired} destinations not installed"))
    }
}

/// Something to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Announces a route, a server in its own name.
    Announce(Vni, Route),
    /// Withdraws a route that was announced so.
    Withdraw(Vni, Route),
    /// Subscribes a client.
    Subscribe(Vni),
    /// Unsubscribes a client.
    Unsubscribe(Vni),
    /// Closes the connection of the peer with this name, or of all from this address; they may
    /// come back at once.
    ResetPeer(String),
    /// The same once it was sent what waits for it, and it is not taken back, or not dialled, for
    /// so long.
    DrainPeer(String, Duration),
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It changed something; how many peers or routes.
    Changed(usize),
    /// It was so already.
    Unchanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_is_ready_with_its_device_up_and_all_routes_in_place() {
        let ready = KernelStatus {
            desired: 2,
            installed: 2,
            device_up: true,
            running: true,
            ..KernelStatus::default()
        };
        assert_eq!(ready.not_ready(), None);
        let surplus = KernelStatus {
            settling: 1,
            ..ready.clone()
        };
        assert_eq!(surplus.not_ready(), None, "one is yet to be removed");
        let shadowed = KernelStatus {
            installed: 1,
            shadowed: 1,
            ..ready.clone()
        };
        assert_eq!(shadowed.not_ready(), None, "an operator's stands there");
        let all = [
            (
                KernelStatus {
                    obstacle: Some("somebody else removes routes".into()),
                    ..ready.clone()
                },
                "somebody else removes routes",
            ),
            (
                KernelStatus {
                    obstacle: Some("tunnel device two does not exist".into()),
                    installed: 1,
                    waiting: 1,
                    ..ready.clone()
                },
                "tunnel device two does not exist: 1 of 2 destinations wait for it",
            ),
            (
                KernelStatus {
                    running: false,
                    ..ready.clone()
                },
                "the writer of routes has ended",
            ),
            (
                KernelStatus {
                    device_up: false,
                    ..ready.clone()
                },
                "the tunnel device is missing or down",
            ),
            (
                KernelStatus {
                    failed: 1,
                    last_error: Some("table full".into()),
                    ..ready.clone()
                },
                "1 of 2 destinations are refused: table full",
            ),
            (
                KernelStatus {
                    installed: 1,
                    ..ready.clone()
                },
                "1 of 2 destinations not installed",
            ),
        ];
        for (status, why) in all {
            assert_eq!(status.not_ready(), Some(format!("kernel: {why}")));
        }
    }
}
