//! Randomness for the shell: seeds and identities, not secrets of cryptographic worth.

use std::hash::{BuildHasher, RandomState};

/// A number that nobody outside this process can guess.
pub(crate) fn seed() -> u64 {
    // The standard library keys its hashers from the system's random source.
    RandomState::new().hash_one("metalbond")
}

/// An identity for the HELLO.
pub(crate) fn node_id() -> [u8; 16] {
    let mut id = [0; 16];
    let (high, low) = id.split_at_mut(8);
    high.copy_from_slice(&seed().to_be_bytes());
    low.copy_from_slice(&seed().to_be_bytes());
    id
}
