//! Hash maps whose order depends on nothing but their seed and their history.

use foldhash::quality::FixedState;

/// A map for keys that peers choose: seeded, of a quality that resists chosen collisions.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, FixedState>;

/// An empty map.
pub(crate) fn map<K, V>(seed: u64) -> Map<K, V> {
    Map::with_hasher(FixedState::with_seed(seed))
}
