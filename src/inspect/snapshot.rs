//! A table at about one moment.

use std::time::SystemTime;

use crate::core::status::RouteEntry;
use crate::core::types::Vni;

/// Routes with who announces them, sorted by VNI and route.
#[derive(Clone, Debug)]
pub struct Snapshot {
    taken: SystemTime,
    entries: Vec<RouteEntry>,
    /// Sorted by id.
    names: Vec<(u32, String)>,
}

impl Snapshot {
    /// Sorts `entries`; of two with the same route, the later stays.
    pub(crate) fn new(mut entries: Vec<RouteEntry>, mut names: Vec<(u32, String)>) -> Self {
        entries.reverse();
        entries.sort_by_key(|it| (it.vni, it.route));
        entries.dedup_by_key(|it| (it.vni, it.route));
        names.sort_unstable();
        Self {
            taken: SystemTime::now(),
            entries,
            names,
        }
    }

    /// When it was taken.
    #[must_use]
    pub fn taken(&self) -> SystemTime {
        self.taken
    }

    /// The routes, sorted by VNI, destination and next hop.
    #[must_use]
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// The routes of one VNI.
    #[must_use]
    pub fn of(&self, vni: Vni) -> &[RouteEntry] {
        let start = self.entries.partition_point(|it| it.vni < vni);
        let len = self.entries[start..].partition_point(|it| it.vni == vni);
        &self.entries[start..start + len]
    }

    /// The name of an announcer, if its session was there when the snapshot was taken.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<&str> {
        let at = self.names.binary_search_by_key(&id, |(id, _)| *id);
        at.ok().map(|at| self.names[at].1.as_str())
    }
}
