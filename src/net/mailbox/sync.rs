//! What the mailbox is made of; in tests with `--cfg loom`, what loom can see through.

#[cfg(not(all(test, loom)))]
pub(super) use crossbeam_channel::{Receiver, Sender, unbounded};
#[cfg(all(test, loom))]
pub(super) use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(all(test, loom)))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(all(test, loom))]
pub(super) use super::queue::{Receiver, Sender, unbounded};
