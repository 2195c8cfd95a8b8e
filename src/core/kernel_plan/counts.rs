//! How many destinations should be in the kernel, and how many are.

use super::{NONE, Plan, RouteId};

/// Counts for the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Destinations that should be in the kernel.
    pub(crate) desired: usize,
    /// Those of them that are there.
    pub(crate) installed: usize,
    /// Destinations of ours that are in the kernel and that nobody announces: an earlier process
    /// left them, and they stay until their VNIs are settled.
    pub(crate) unannounced: usize,
    /// Destinations that are not in the kernel because their device takes no routes.
    pub(crate) waiting: usize,
    /// Destinations that the kernel refused; they are tried again.
    pub(crate) failed: usize,
    /// Destinations where somebody else's route stands in the way of ours.
    pub(crate) shadowed: usize,
    /// Routes of ours that are to be deleted where they stand.
    pub(crate) strays: usize,
    /// Routes with a next hop that cannot be encapsulated to.
    pub(crate) uninstallable: usize,
    /// Underlay addresses that cannot be reached.
    pub(crate) unreachable: usize,
    /// Nexthop objects in the kernel.
    pub(crate) objects: usize,
}

/// Whether a destination is announced, and whether the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Neither.
    None,
    /// It is announced, and not there.
    Absent,
    /// It is announced and there.
    Installed,
    /// It is there, and not announced.
    Unannounced,
}

impl Presence {
    /// Of a destination with this announced hop set, and with this object in the kernel.
    pub(super) const fn of(hops: u32, installed: u32) -> Self {
        match (hops != NONE, installed != NONE) {
            (false, false) => Self::None,
            (true, false) => Self::Absent,
            (true, true) => Self::Installed,
            (false, true) => Self::Unannounced,
        }
    }
}

impl Plan {
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting(),
            failed: self.refused.len(),
            shadowed: self.shadowed.len(),
            strays: self.strays.len(),
            objects: self.objects.len(),
            unreachable: self.track.len(),
            ..self.counts
        }
    }

    /// How many destinations wait for their device.
    fn waiting(&self) -> usize {
        if self.held.is_empty() {
            return 0;
        }
        let held = self.tables.iter().filter(|it| self.is_held(it.device));
        held.map(|it| it.absent).sum()
    }

    /// The presence of a destination.
    pub(super) fn presence(&self, id: RouteId) -> Presence {
        self.store.get(id).map_or(Presence::None, |state| {
            let hops = self.catalog.hop_set(state.desired, id.family());
            Presence::of(hops, state.installed)
        })
    }

    /// Counts a destination of the table in this position as what it has become.
    pub(super) fn recount(&mut self, table: u16, before: Presence, after: Presence) {
        if before == after {
            return;
        }
        match before {
            Presence::None => {}
            Presence::Absent => {
                self.counts.desired -= 1;
                self.tables[usize::from(table)].absent -= 1;
            }
            Presence::Installed => {
                self.counts.desired -= 1;
                self.counts.installed -= 1;
            }
            Presence::Unannounced => self.counts.unannounced -= 1,
        }
        match after {
            Presence::None => {}
            Presence::Absent => {
                self.counts.desired += 1;
                self.tables[usize::from(table)].absent += 1;
            }
            Presence::Installed => {
                self.counts.desired += 1;
                self.counts.installed += 1;
            }
            Presence::Unannounced => self.counts.unannounced += 1,
        }
    }

    /// Counts everything from nothing, to compare.
    #[cfg(test)]
    pub(crate) fn assert_counts(&self) {
        let (mut counts, mut absent) = (Counts::default(), vec![0; self.tables.len()]);
        for id in self.store.ids() {
            let table = self.store.get(id).map(|it| usize::from(it.table));
            match (self.presence(id), table) {
                (Presence::Absent, Some(table)) => {
                    counts.desired += 1;
                    absent[table] += 1;
                }
                (Presence::Installed, Some(_)) => {
                    counts.desired += 1;
                    counts.installed += 1;
                }
                (Presence::Unannounced, Some(_)) => counts.unannounced += 1,
                (Presence::None, _) | (_, None) => {}
            }
        }
        let kept = self.tables.iter().map(|it| it.absent).collect::<Vec<_>>();
        assert_eq!(kept, absent);
        let found = self.counts();
        assert_eq!(
            (found.desired, found.installed, found.unannounced),
            (counts.desired, counts.installed, counts.unannounced)
        );
    }
}
