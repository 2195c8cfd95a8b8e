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
    /// A server that is lost had it.
    is_stale: bool,
}

impl Hop {
    pub(super) const fn new(id: NextHopId) -> Self {
        Self {
            id,
            present: 0,
            imported: 0,
            told: 0,
            is_stale: false,
        }
    }

    pub(super) const fn set_stale(&mut self, is_stale: bool) {
        self.is_stale = is_stale;
    }

    /// A server has it, or had it and is lost.
    pub(super) const fn is_native(&self) -> bool {
        self.present != 0 || self.is_stale
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

    /// Removes those that nobody has and no consumer knows; `false` when none is left.
    pub(super) fn prune(&mut self, mut release: impl FnMut(NextHopId)) -> bool {
        let mut is_kept = |hop: &Hop| {
            let is_kept = hop.is_held() || hop.told != 0;
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
    fn a_next_hop_is_small() {
        assert!(size_of::<Hops>() <= 16, "{}", size_of::<Hops>());
    }
}
