//! What the kernel's answers to a batch mean.

use std::collections::BTreeMap;

use super::store::{BESIDE, DOUBTED};
use super::strays::Due;
use super::{ADOPTED, CARRIED, NONE, Op, Place, Plan, RouteId, Stray, Target, Verb};

/// Error numbers of Linux that decide something here.
pub(crate) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const ESRCH: i32 = 3;
    pub(crate) const EACCES: i32 = 13;
    pub(crate) const EEXIST: i32 = 17;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const EOPNOTSUPP: i32 = 95;
    pub(crate) const ENETDOWN: i32 = 100;
    pub(crate) const ENETUNREACH: i32 = 101;
    pub(crate) const ENOBUFS: i32 = 105;
    pub(crate) const EHOSTUNREACH: i32 = 113;
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
    /// How many operations were refused, without deletions of what is gone and routes that
    /// somebody else's stand in the way of.
    pub(crate) refused: usize,
    /// Position of the first of them.
    pub(crate) first_refused: Option<usize>,
}

/// What made operations of a batch fail that were right.
struct Cause {
    /// A number of an object was taken: other ones are tried.
    renumber: bool,
    /// Where strays of ours stand.
    strays: BTreeMap<Place, Due>,
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
        let cause = Cause {
            renumber,
            strays: self.strays_in_the_way(ops, failures),
        };
        for failure in failures.iter().rev() {
            outcome.device |= matches!(failure.errno, errno::ENODEV | errno::ENETDOWN);
            if self.failed(&ops[failure.at], failure.errno, &cause, &mut outcome) {
                outcome.refused += 1;
                outcome.first_refused = Some(failure.at);
            }
        }
        let mut failures = failures.iter().peekable();
        for (at, op) in ops.iter().enumerate() {
            if failures.next_if(|failure| failure.at == at).is_none() {
                self.succeeded(op);
            }
        }
        outcome
    }

    /// Routes that were installed to somebody else's objects are deleted and written again.
    fn disown(&mut self, ops: &[Op], failures: &[Failure], taken: &[u32]) {
        for (at, op) in ops.iter().enumerate() {
            if let Op::Route {
                route,
                verb: Verb::Add | Verb::Beside,
                place,
                target: Target::Object(id),
                ..
            } = op
                && taken.contains(id)
                && !failures.iter().any(|failure| failure.at == at)
            {
                self.set_installed(*route, NONE);
                self.store.state_mut(*route).flags |= BESIDE;
                self.strays.ready.push_back(Stray {
                    place: *place,
                    protocol: self.config.protocol,
                    target: Target::Object(*id),
                    object: NONE,
                });
                self.enqueue(*route);
            }
        }
    }

    fn succeeded(&mut self, op: &Op) {
        match op {
            Op::Route {
                route,
                verb: Verb::Delete,
                ..
            } => {
                self.strays.release(*route);
                self.forget_if_empty(*route);
            }
            Op::Route {
                route,
                place,
                previous,
                ..
            } => {
                if *previous != NONE {
                    self.strays.ready.push_back(Stray {
                        place: *place,
                        protocol: self.config.protocol,
                        target: self.target(*previous),
                        object: *previous,
                    });
                }
                self.refused.remove(*route);
                self.installed_well(*route);
            }
            Op::Sweep(stray) => {
                self.strays.in_flight -= 1;
                self.objects.release(stray.object);
            }
            Op::AddHop { .. }
            | Op::AddGroup { .. }
            | Op::ReplaceGroup { .. }
            | Op::DeleteObject { .. } => {}
        }
    }

    /// Notes that a route is in the kernel as it was planned.
    fn installed_well(&mut self, id: RouteId) {
        let state = self.store.state_mut(id);
        if state.installed == NONE {
            // Not as planned: it led to an object of somebody else.
            return;
        }
        state.flags &= !ADOPTED & !BESIDE & !DOUBTED;
        if state.has(CARRIED) {
            state.flags |= ADOPTED;
        }
        self.strays.release(id);
        if self.had_refused && self.refused.is_empty() {
            self.had_refused = false;
            if self.is_complete() {
                self.objects.all_unused();
            }
        }
    }

    /// Where the kernel has something already, and that may be a stray of ours. One look at all
    /// strays for a batch.
    fn strays_in_the_way(&self, ops: &[Op], failures: &[Failure]) -> BTreeMap<Place, Due> {
        let there = failures.iter().filter(|it| it.errno == errno::EEXIST);
        let places = there.filter_map(|failure| match &ops[failure.at] {
            Op::Route { place, .. } => Some(*place),
            _ => None,
        });
        self.strays.among(&places.collect())
    }

    /// Takes back an operation. Returns whether that is a refusal to tell of.
    fn failed(&mut self, op: &Op, errno: i32, cause: &Cause, outcome: &mut Outcome) -> bool {
        let is_gone = matches!(errno, errno::ESRCH | errno::ENOENT);
        match *op {
            Op::AddHop { object, id, .. } | Op::AddGroup { object, id, .. } => {
                if errno == errno::EEXIST {
                    self.objects.mark_taken(id);
                }
                if self.has_no_users(object) {
                    self.drop_object(object);
                } else {
                    outcome.resync = true;
                }
            }
            Op::ReplaceGroup { .. } => outcome.resync = true,
            Op::DeleteObject { .. } => {
                outcome.resync |= errno != errno::ENOENT;
                return !is_gone;
            }
            Op::Route {
                route,
                verb: Verb::Delete,
                ..
            } if is_gone => {
                self.strays.release(route);
                self.forget_if_empty(route);
                return false;
            }
            Op::Route {
                route,
                verb,
                previous,
                ..
            } => {
                self.set_installed(route, previous);
                if verb != Verb::Delete {
                    self.objects.release(previous);
                }
                return self.route_failed(op, errno, cause, outcome);
            }
            Op::Sweep(ref stray) => {
                self.strays.in_flight -= 1;
                if is_gone {
                    self.objects.release(stray.object);
                } else {
                    self.strays.refuse(stray.clone());
                }
                return !is_gone;
            }
        }
        true
    }

    /// Decides what becomes of a route that the kernel refused. Returns whether that is a refusal
    /// to tell of.
    fn route_failed(&mut self, op: &Op, errno: i32, cause: &Cause, outcome: &mut Outcome) -> bool {
        let Op::Route {
            route,
            verb,
            ref place,
            ..
        } = *op
        else {
            return false;
        };
        self.had_refused = true;
        if self.fresh.is_some() {
            // The end of the reading tells what is there.
            return false;
        }
        let stray = cause.strays.get(place);
        if cause.renumber || stray == Some(&Due::Now) {
            self.enqueue(route);
            return cause.renumber;
        }
        let state = self.store.state_mut(route);
        if errno == errno::EEXIST && !state.has(DOUBTED) {
            // Somebody else's: nobody knows of one of ours there. The kernel cannot be asked for
            // one prefix of a table; a reading that looks at all of it follows, some time.
            state.flags |= DOUBTED;
            outcome.doubt = true;
            if verb == Verb::Add && stray.is_none() {
                self.shadow(route);
                return false;
            }
        }
        self.refused.insert(route);
        true
    }

    /// Forgets a route that is neither wanted nor there.
    pub(super) fn forget_if_empty(&mut self, id: RouteId) {
        if let Some(state) = self.store.get(id)
            && state.desired == NONE
            && state.installed == NONE
            && !state.has(CARRIED)
        {
            self.strays.release(id);
            self.shadowed.remove(&id);
            self.refused.remove(id);
            // What is read of it later may be older.
            match self.is_reviewing() {
                true => self.touch(id),
                false => self.store.remove(id),
            }
        }
    }
}
