//! How many announcements are looked at: what a change costs, on every machine.

use std::cell::Cell;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count() {
    LOOKS.set(LOOKS.get() + 1);
}

/// Returns how many there were in this thread since the last call.
pub(in crate::core::rib) fn take() -> usize {
    LOOKS.take()
}
