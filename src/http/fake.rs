//! A process to inspect, with whatever a test puts into it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::core::types::{Route, Vni};
use crate::error::{Error, Result};
use crate::inspect::{
    Command, Done, Inspect, PeerStatus, RouteEntry, Side, Snapshot, Status, VniStatus, Watch,
    WatchFrom,
};
#[cfg(test)]
use crate::inspect::{MessageCounts, PeerKind, PeerState};

#[derive(Default)]
pub(super) struct Fake {
    pub(super) entries: Mutex<Vec<RouteEntry>>,
    pub(super) names: Vec<(u32, String)>,
    pub(super) peers: Mutex<Vec<PeerStatus>>,
    pub(super) vnis: Mutex<Vec<VniStatus>>,
    pub(super) generation: AtomicU64,
    pub(super) snapshots: AtomicU64,
    pub(super) has_ended: AtomicBool,
    /// Whoever asks for peers panics.
    pub(super) is_broken: AtomicBool,
}

impl Fake {
    fn check(&self) -> Result<()> {
        assert!(!self.is_broken.load(Ordering::Relaxed), "a test");
        match self.has_ended.load(Ordering::Relaxed) {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }
}

impl Inspect for Fake {
    fn status(&self) -> Status {
        Status {
            side: Side::Server,
            started: SystemTime::UNIX_EPOCH,
            uptime: Duration::from_millis(1500),
            listening: Vec::new(),
            not_ready: None,
            peers: self.peers.lock().len(),
            established: 0,
            vnis: self.vnis.lock().len(),
            routes: self.entries.lock().len(),
            announced: 0,
            updates_received: 0,
            updates_sent: 0,
            server: None,
            client: None,
            kernel: None,
        }
    }

    fn peers(&self) -> Result<Vec<PeerStatus>> {
        self.check()?;
        Ok(self.peers.lock().clone())
    }

    fn vnis(&self) -> Result<Vec<VniStatus>> {
        self.check()?;
        Ok(self.vnis.lock().clone())
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn snapshot(&self, vni: Option<Vni>) -> Result<Snapshot> {
        self.check()?;
        self.snapshots.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries.lock().clone();
        entries.retain(|it| vni.is_none_or(|vni| vni == it.vni));
        Ok(Snapshot::new(entries, self.names.clone()))
    }

    fn announcements(&self) -> Result<Vec<(Vni, Route)>> {
        Ok(Vec::new())
    }

    fn watch(&self, _: Option<Vni>, _: WatchFrom) -> Result<Watch> {
        Err(Error::Busy)
    }

    fn execute(&self, _: Command) -> Result<Done> {
        Err(Error::Closed)
    }
}

#[cfg(test)]
pub(super) fn peer(name: &str) -> PeerStatus {
    PeerStatus {
        id: 1,
        name: name.into(),
        address: None,
        transport: None,
        identity: None,
        notices: 0,
        last_notice: None,
        kind: PeerKind::RustBond,
        state: PeerState::Established,
        since: Duration::from_secs(3),
        uptime: Some(Duration::from_secs(3)),
        flaps: 0,
        last_error: None,
        keepalive_interval: 5,
        silent: Duration::from_millis(250),
        routes: 0,
        subscriptions: 0,
        queued_bytes: 0,
        legacy_rate: None,
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        malformed: 0,
        refused: 0,
        folds: 0,
    }
}
