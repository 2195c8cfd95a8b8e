//! Routes to look at: what is new goes before what is repaired.

use std::collections::VecDeque;

use super::RouteId;

/// Routes for which a queue keeps its memory once it is empty.
const KEPT: usize = 4096;

/// Why a route is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It was announced or withdrawn, in the table of this position.
    New(u16),
    /// The kernel does not have it as it was before.
    Repair,
}

/// A queue for what is new in each table, and one for repairs: a new route waits neither for the
/// repair of a million others nor for a million new ones in another table.
#[derive(Default)]
pub(super) struct Queue {
    new: Vec<VecDeque<RouteId>>,
    /// Tables with something new, the one whose turn it is first.
    turns: VecDeque<usize>,
    repairs: VecDeque<RouteId>,
}

impl Queue {
    pub(super) fn push(&mut self, id: RouteId, urgency: Urgency) {
        let Urgency::New(table) = urgency else {
            self.repairs.push_back(id);
            return;
        };
        let table = usize::from(table);
        if self.new.len() <= table {
            self.new.resize_with(table + 1, VecDeque::new);
        }
        if self.new[table].is_empty() {
            self.turns.push_back(table);
        }
        self.new[table].push_back(id);
    }

    /// Takes the next route, of one table after the other.
    pub(super) fn pop(&mut self) -> Option<RouteId> {
        let Some(table) = self.turns.pop_front() else {
            return self.repairs.pop_front();
        };
        let id = self.new[table].pop_front();
        if !self.new[table].is_empty() {
            self.turns.push_back(table);
        }
        id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.repairs.is_empty()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.new.iter_mut().for_each(VecDeque::clear);
        self.turns.clear();
        self.repairs.clear();
    }

    /// Gives back the memory that a long queue took.
    pub(super) fn shrink(&mut self) {
        self.repairs.shrink_to(KEPT);
        for new in &mut self.new {
            new.shrink_to(KEPT);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let new: usize = self.new.iter().map(VecDeque::capacity).sum();
        new + self.repairs.capacity()
    }
}
