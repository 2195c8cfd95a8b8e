//! What the caller wants every server to know, and which of them does.

use std::collections::BTreeMap;

use super::view::ServerBit;

/// A set of things that servers are to be told of, each with who was told.
///
/// Memory is one entry for each thing that is wanted or that a server has yet to
/// be told of; flapping adds nothing.
#[derive(Debug)]
pub(super) struct Desired<K> {
    entries: BTreeMap<K, Entry>,
    /// Of them, those that are wanted.
    wanted: usize,
    /// How often something became wanted.
    episodes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    wanted: bool,
    told: u32,
    /// Of them, those that may have forgotten it.
    doubted: u32,
    /// Servers that were told and have read it.
    read: u32,
    /// Servers in whose queue it stands.
    queued: u32,
    episode: u64,
}

/// When something became wanted: what a server reads of an earlier time proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Episode(u64);

/// What a server must be told of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Nothing,
    Wanted,
    Unwanted,
}

impl<K: Copy + Ord> Desired<K> {
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            wanted: 0,
            episodes: 0,
        }
    }

    /// Whether the caller wants it.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.wanted)
    }

    /// How many things the caller wants.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Everything the caller wants, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        let wanted = self.entries.iter().filter(|(_, entry)| entry.wanted);
        wanted.map(|(key, _)| *key)
    }

    /// Sets what the caller wants; `false` if that is nothing new.
    pub(super) fn set(&mut self, key: K, wanted: bool) -> bool {
        if self.contains(&key) == wanted {
            return false;
        }
        let entry = self.entries.entry(key).or_default();
        entry.wanted = wanted;
        if wanted {
            self.wanted += 1;
            self.episodes += 1;
            entry.episode = self.episodes;
        } else {
            self.wanted -= 1;
        }
        self.drop_if_settled(&key);
        true
    }

    /// Takes note that the key goes into a server's queue; `false` if it stands there.
    pub(super) fn enqueue(&mut self, key: &K, server: ServerBit) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let is_new = entry.queued & server.mask() == 0;
        entry.queued |= server.mask();
        is_new
    }

    /// Takes note that it left the queue: what the server must be told.
    ///
    /// The caller tells it.
    pub(super) fn dequeue(&mut self, key: &K, server: ServerBit) -> Tell {
        let Some(entry) = self.entries.get_mut(key) else {
            return Tell::Nothing;
        };
        entry.queued &= !server.mask();
        let was_told = entry.told & server.mask() != 0;
        let is_sure = entry.doubted & server.mask() == 0;
        let tell = match (entry.wanted, was_told) {
            (true, true) if is_sure => Tell::Nothing,
            (true, _) => {
                entry.told |= server.mask();
                entry.doubted &= !server.mask();
                Tell::Wanted
            }
            (false, true) => {
                entry.untell(server);
                Tell::Unwanted
            }
            (false, false) => Tell::Nothing,
        };
        self.drop_if_settled(key);
        tell
    }

    /// Takes note that it left the queue untold, to be queued again later.
    pub(super) fn postpone(&mut self, key: &K, server: ServerBit) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.queued &= !server.mask();
            self.drop_if_settled(key);
        }
    }

    /// Takes note that a server may have forgotten what it was told: what it must be
    /// told, or told again.
    pub(super) fn doubt(&mut self, server: ServerBit, which: impl Fn(&K) -> bool) -> Vec<K> {
        let mut doubtful = Vec::new();
        for (key, entry) in &mut self.entries {
            let was_told = entry.told & server.mask() != 0;
            if which(key) && (entry.wanted || was_told) {
                doubtful.push(*key);
                entry.doubted |= entry.told & server.mask();
                entry.read &= !server.mask();
            }
        }
        doubtful
    }

    /// Whether a server was told that it is wanted.
    pub(super) fn is_told(&self, key: &K, server: ServerBit) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.told & server.mask() != 0)
    }

    /// Since when it is wanted, if it is.
    pub(super) fn episode(&self, key: &K) -> Option<Episode> {
        let entry = self.entries.get(key).filter(|entry| entry.wanted);
        entry.map(|entry| Episode(entry.episode))
    }

    /// Takes note that a server has read what it was told in that episode.
    pub(super) fn mark_read(&mut self, key: &K, episode: Episode, server: ServerBit) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.episode == episode.0
        {
            entry.read |= entry.told & !entry.doubted & server.mask();
        }
    }

    /// Whether a server was told that it is wanted, and has read that.
    pub(super) fn is_read(&self, key: &K, server: ServerBit) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.read & server.mask() != 0)
    }

    /// Takes note that a server has forgotten what it was told, or left its queue behind.
    pub(super) fn forget(&mut self, server: ServerBit, which: impl Fn(&K) -> bool) {
        self.entries.retain(|key, entry| {
            if which(key) {
                entry.untell(server);
                entry.queued &= !server.mask();
            }
            !entry.is_settled()
        });
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn drop_if_settled(&mut self, key: &K) {
        if self.entries.get(key).is_some_and(Entry::is_settled) {
            self.entries.remove(key);
        }
    }
}

impl Entry {
    fn untell(&mut self, server: ServerBit) {
        self.told &= !server.mask();
        self.doubted &= !server.mask();
        self.read &= !server.mask();
    }

    /// Nobody wants it, and nobody has yet to be told so.
    fn is_settled(&self) -> bool {
        !self.wanted && self.told == 0 && self.queued == 0
    }
}
