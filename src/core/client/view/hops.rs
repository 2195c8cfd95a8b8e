//! The next hops of a destination, packed: there are millions of them.

use crate::core::client::events::ConsumerId;
use crate::core::rib::NextHopId;

/// One next hop of a destination.
///
/// Nobody may have it any more; then it stays until the consumers that were told of it
/// are told that it is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub(super) id: NextHopId,
    /// The servers that have it now.
    pub(super) present: u32,
    /// From how many routes of other VNIs it is copied.
    pub(super) imported: u16,
    /// The consumers that were told of it.
    pub(super) told: u8,
    /// The [`Self::AGE`] of the last loss of a server that had it, 0 if there is none, and
    /// [`Self::QUIET`] and [`Self::FOREIGN`]. Copies of earlier losses make no difference.
    stale: u8,
}

/// The clock of a stale copy: which loss of a server made it stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core::client) struct Age(u8);

impl Age {
    /// How many there are at once.
    pub(in crate::core::client) const COUNT: usize = Hop::AGE as usize;

    pub(in crate::core::client) const FIRST: Self = Self(1);

    pub(in crate::core::client) fn all() -> impl Iterator<Item = Self> {
        (1..=Hop::AGE).map(Self)
    }
}

impl Hop {
    pub(super) const fn new(id: NextHopId) -> Self {
        Self {
            id,
            present: 0,
            imported: 0,
            told: 0,
            stale: 0,
        }
    }

    /// The stale copies are not shown: this client withdrew an equal route a moment ago.
    const QUIET: u8 = 1 << 7;

    /// One of the lost servers never sends a route back to its announcer.
    const FOREIGN: u8 = 1 << 6;

    const AGE: u8 = Self::FOREIGN - 1;

    /// A server that had it is lost.
    pub(super) const fn is_stale(&self) -> bool {
        self.stale & Self::AGE != 0
    }

    /// Marks that a server that had it is lost; `echoes`: the server may have sent back what
    /// this client announces.
    pub(super) const fn set_stale(&mut self, age: Age, echoes: bool) {
        self.stale = (self.stale & !Self::AGE) | age.0;
        if !echoes {
            self.stale |= Self::FOREIGN;
        }
    }

    /// Forgets the stale copies if they are of an age.
    pub(super) const fn expire(&mut self, age: Age) {
        if self.is_of(age) {
            self.stale = 0;
        }
    }

    /// Forgets all stale copies.
    pub(super) const fn end_stale(&mut self) {
        self.stale = 0;
    }

    /// Forgets the stale copies if all of them may be echoes, else hides them. Returns whether
    /// they are hidden and were not before.
    pub(super) const fn silence(&mut self) -> bool {
        if self.stale & Self::FOREIGN == 0 {
            self.stale = 0;
        }
        let is_news = self.is_stale() && self.stale & Self::QUIET == 0;
        if is_news {
            self.stale |= Self::QUIET;
        }
        is_news
    }

    /// Shows the stale copies again.
    pub(super) const fn speak(&mut self) {
        self.stale &= !Self::QUIET;
    }

    /// It is there only because a server that is lost had it.
    pub(super) const fn is_left(&self) -> bool {
        self.present == 0 && self.is_native()
    }

    /// Its stale copies are of an age.
    pub(super) const fn is_of(&self, age: Age) -> bool {
        self.stale & Self::AGE == age.0
    }

    /// A server has it, or had it and is lost.
    pub(super) const fn is_native(&self) -> bool {
        self.present != 0 || (self.is_stale() && self.stale & Self::QUIET == 0)
    }

    /// It is a route of this VNI.
    pub(super) const fn is_held(&self) -> bool {
        self.is_native() || self.imported != 0
    }
}

/// The next hops of a destination, nearly always one, and the consumers in whose
/// feeds the destination stands.
#[derive(Debug)]
pub(super) enum Hops {
    One { hop: Hop, dirty: u8 },
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    hops: Vec<Hop>,
    dirty: u8,
}

impl Hops {
    pub(super) const fn new(hop: Hop) -> Self {
        Self::One { hop, dirty: 0 }
    }

    pub(super) fn as_slice(&self) -> &[Hop] {
        match self {
            Self::One { hop, .. } => std::slice::from_ref(hop),
            Self::Many(many) => &many.hops,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Hop] {
        match self {
            Self::One { hop, .. } => std::slice::from_mut(hop),
            Self::Many(many) => &mut many.hops,
        }
    }

    pub(super) fn get_mut(&mut self, id: NextHopId) -> Option<&mut Hop> {
        self.as_mut_slice().iter_mut().find(|hop| hop.id == id)
    }

    pub(super) fn dirty(&mut self) -> &mut u8 {
        match self {
            Self::One { dirty, .. } => dirty,
            Self::Many(many) => &mut many.dirty,
        }
    }

    /// Whether the destination stands in the feed of a consumer.
    pub(super) fn stands_in(&self, consumer: ConsumerId) -> bool {
        let dirty = match self {
            Self::One { dirty, .. } => *dirty,
            Self::Many(many) => many.dirty,
        };
        dirty & consumer.mask() != 0
    }

    pub(super) fn has(&self, id: NextHopId) -> bool {
        self.as_slice().iter().any(|hop| hop.id == id)
    }

    pub(super) fn push(&mut self, hop: Hop) {
        match self {
            Self::One { hop: first, dirty } => {
                let many = Many {
                    hops: vec![*first, hop],
                    dirty: *dirty,
                };
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.hops.push(hop),
        }
    }

    /// Removes those that nobody has or had and no consumer knows; `false` when none is left.
    pub(super) fn prune(&mut self, mut release: impl FnMut(NextHopId)) -> bool {
        let mut is_kept = |hop: &Hop| {
            let is_kept = hop.is_held() || hop.told != 0 || hop.is_stale();
            if !is_kept {
                release(hop.id);
            }
            is_kept
        };
        match self {
            Self::One { hop, .. } => is_kept(hop),
            Self::Many(many) => {
                many.hops.retain(is_kept);
                if let [hop] = many.hops[..] {
                    let dirty = many.dirty;
                    *self = Self::One { hop, dirty };
                }
                !self.as_slice().is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hop_is_small() {
        assert!(size_of::<Hops>() <= 16, "{}", size_of::<Hops>());
    }
}
