//! What the kernel's answers to a batch mean.

use super::store::{CONFLICT, RETAKE};
use super::{ADOPTED, ALIEN, NONE, OWNED, Op, Plan, RouteId, Target, Verb};

/// Error numbers of Linux that decide something here.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const ESRCH: i32 = 3;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EOPNOTSUPP: i32 = 95;
    pub(crate) const ENETDOWN: i32 = 100;
    pub(crate) const ENOBUFS: i32 = 105;
}

/// An operation of a batch that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Position in the batch.
    pub(crate) at: usize,
    /// What the kernel said, positive.
    pub(crate) errno: i32,
}

/// What the results of a batch call for besides the next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The kernel differs from what was believed: read it again.
    pub(crate) resync: bool,
    /// What was refused may be ours after all: read the kernel again, when there is time.
    pub(crate) doubt: bool,
    /// The tunnel device is not what it was.
    pub(crate) device: bool,
}

impl Plan {
    /// Takes the results of a batch; `failures` are in the order of the batch.
    pub(crate) fn completed(&mut self, ops: &[Op], failures: &[Failure]) -> Outcome {
        let mut outcome = Outcome::default();
        // Numbers that somebody else took: what depends on them failed for no fault of its
        // own, or now leads to somebody else's object.
        let taken: Vec<u32> = failures
            .iter()
            .filter(|failure| failure.errno == errno::EEXIST)
            .filter_map(|failure| match ops[failure.at] {
                Op::AddHop { id, .. } | Op::AddGroup { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let renumber = !taken.is_empty();
        if renumber {
            self.disown(ops, failures, &taken);
        }
        for failure in failures.iter().rev() {
            outcome.device |= matches!(failure.errno, errno::ENODEV | errno::ENETDOWN);
            self.failed(&ops[failure.at], failure.errno, renumber, &mut outcome);
        }
        let mut failures = failures.iter().peekable();
        for (at, op) in ops.iter().enumerate() {
            if failures.next_if(|failure| failure.at == at).is_none() {
                self.succeeded(op);
            }
        }
        outcome
    }

    /// Routes that were installed to somebody else's objects are to be replaced.
    fn disown(&mut self, ops: &[Op], failures: &[Failure], taken: &[u32]) {
        for (at, op) in ops.iter().enumerate() {
            if let Op::Route {
                route,
                verb: Verb::Add | Verb::Replace,
                target: Target::Object(id),
                ..
            } = op
                && taken.contains(id)
                && !failures.iter().any(|failure| failure.at == at)
            {
                self.set_installed(*route, ALIEN);
                self.enqueue(*route);
            }
        }
    }

    fn succeeded(&mut self, op: &Op) {
        let Op::Route { route, verb, .. } = op else {
            return;
        };
        if *verb == Verb::Delete {
            self.forget_if_empty(*route);
        } else {
            let state = self.store.state_mut(*route);
            state.flags |= OWNED;
            state.flags &= !ADOPTED & !RETAKE & !CONFLICT;
        }
    }

    fn failed(&mut self, op: &Op, errno: i32, renumber: bool, outcome: &mut Outcome) {
        match *op {
            Op::AddHop { object, id, .. } | Op::AddGroup { object, id, .. } => {
                if errno == errno::EEXIST {
                    self.objects.mark_taken(id);
                }
                if self.is_unused(object) {
                    self.drop_object(object);
                } else {
                    outcome.resync = true;
                }
            }
            Op::ReplaceGroup { .. } => outcome.resync = true,
            Op::DeleteObject { .. } => outcome.resync |= errno != errno::ENOENT,
            Op::Route {
                route,
                verb: Verb::Delete,
                ..
            } if matches!(errno, errno::ESRCH | errno::ENOENT) => self.forget_if_empty(route),
            Op::Route {
                route,
                verb,
                previous,
                ..
            } => {
                self.set_installed(route, previous);
                let state = self.store.state_mut(route);
                if renumber {
                    self.enqueue(route);
                } else if errno == errno::EEXIST && verb == Verb::Add && state.has(OWNED) {
                    state.flags |= RETAKE;
                    self.enqueue(route);
                } else {
                    if errno == errno::EEXIST && !state.has(CONFLICT) {
                        // Perhaps it is ours after all; a dump tells, once.
                        state.flags |= CONFLICT;
                        outcome.doubt = true;
                    }
                    self.parked.insert(route);
                }
            }
        }
    }

    /// Forgets a route that is neither wanted nor there.
    pub(super) fn forget_if_empty(&mut self, id: RouteId) {
        if let Some(state) = self.store.get(id)
            && state.desired == NONE
            && state.installed == NONE
        {
            self.store.remove(id);
        }
    }
}
