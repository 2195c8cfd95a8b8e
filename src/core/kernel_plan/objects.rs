//! The nexthop objects that the kernel holds for us.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::ops::Range;

use super::intern::NONE;

/// First number of an object; the lower one means "no route".
const FIRST: u32 = NONE + 1;

/// A nexthop object, or the stand-in for a hop set where routes carry their hops themselves.
#[derive(Debug)]
pub(super) struct Object {
    /// The kernel's number; 0 for a stand-in.
    pub(super) id: u32,
    /// The hop set it leads to; holds a reference.
    pub(super) set: u32,
    /// How many installed routes use it.
    pub(super) routes: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Not in the kernel: routes carry their hops.
    StandIn,
    /// One underlay address, and the groups that contain it.
    Single { groups: Vec<u32> },
    /// Several underlay addresses, by address.
    Group { members: Vec<u32> },
}

/// All objects, by our number and by the kernel's.
pub(super) struct Objects {
    slots: Vec<Option<Object>>,
    free: Vec<u32>,
    by_id: BTreeMap<u32, u32>,
    /// Numbers that the kernel says somebody else uses.
    taken: BTreeSet<u32>,
    range: Range<u32>,
    next: u32,
    /// Objects that may have lost their last user.
    pub(super) unused: VecDeque<u32>,
    pub(super) leftovers: Leftovers,
    /// Numbers of objects that changed while the kernel is read; `None` at other times.
    changed: Option<BTreeSet<u32>>,
}

/// The kernel's numbers of objects that an earlier process made and that no new route uses:
/// they lead by another device, or routes carry their hops themselves.
#[derive(Default)]
pub(super) struct Leftovers {
    groups: BTreeMap<u32, Vec<Ipv6Addr>>,
    hops: BTreeMap<u32, Ipv6Addr>,
    /// Addresses of groups that stay: routes of others lead to them.
    kept: BTreeSet<Ipv6Addr>,
}

impl Leftovers {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.hops.is_empty()
    }

    pub(super) fn insert_hop(&mut self, id: u32, address: Ipv6Addr) {
        self.hops.insert(id, address);
    }

    pub(super) fn insert_group(&mut self, id: u32, addresses: Vec<Ipv6Addr>) {
        self.groups.insert(id, addresses);
    }

    pub(super) fn hop(&self, id: u32) -> Option<Ipv6Addr> {
        self.hops.get(&id).copied()
    }

    /// Where an object leads.
    pub(super) fn addresses(&self, id: u32) -> Option<Vec<Ipv6Addr>> {
        let hop = self.hop(id).map(|address| vec![address]);
        hop.or_else(|| self.groups.get(&id).cloned())
    }

    /// Forgets an object. Returns whether it was one of these.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        self.hops.remove(&id).is_some() || self.groups.remove(&id).is_some()
    }

    /// The next one to delete, and where it leads: groups before their members.
    pub(super) fn pop(&mut self) -> Option<(u32, Vec<Ipv6Addr>)> {
        let hop = |(id, address)| (id, vec![address]);
        let group = self.groups.pop_first();
        group.or_else(|| self.hops.pop_first().map(hop))
    }

    /// Keeps the hops of a group that stays.
    pub(super) fn keep(&mut self, addresses: Vec<Ipv6Addr>) {
        self.kept.extend(addresses);
    }

    /// Whether this is a hop of a group that stays.
    pub(super) fn is_kept(&self, addresses: &[Ipv6Addr]) -> bool {
        matches!(addresses, [address] if self.kept.contains(address))
    }
}

const fn at(slot: u32) -> usize {
    (slot - FIRST) as usize
}

impl Objects {
    /// Nothing is in the kernel. Plans with one range and other protocols begin at other numbers:
    /// two that want one number at a time lead packets to each other's hops for a moment.
    pub(super) fn new(range: Range<u32>, protocol: u8) -> Self {
        let share = (range.end - range.start) / 256;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            taken: BTreeSet::new(),
            next: range.start + share * u32::from(protocol),
            range,
            unused: VecDeque::new(),
            leftovers: Leftovers::default(),
            changed: None,
        }
    }

    /// Forgets everything but the numbers handed out last.
    pub(super) fn clear(&mut self) {
        let next = self.next;
        *self = Self::new(self.range.clone(), 0);
        self.next = next;
    }

    /// A kernel number that nobody is known to use.
    ///
    /// `None` when the range is used up.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        let later = self.next..self.range.end;
        let earlier = self.range.start..self.next;
        let id = later
            .chain(earlier)
            .find(|id| !self.by_id.contains_key(id) && !self.taken.contains(id))?;
        self.next = id + 1;
        Some(id)
    }

    /// Notes from now on which objects change.
    pub(super) fn watch(&mut self) {
        self.changed = Some(BTreeSet::new());
        self.leftovers.kept.clear();
    }

    /// Notes no longer which objects change.
    pub(super) fn unwatch(&mut self) {
        self.changed = None;
    }

    /// Notes that an object changes, if that is watched.
    pub(super) fn note(&mut self, id: u32) {
        if let Some(changed) = &mut self.changed {
            changed.insert(id);
        }
    }

    /// Whether an object changed since [`Self::watch`].
    pub(super) fn has_changed(&self, id: u32) -> bool {
        self.changed.as_ref().is_some_and(|it| it.contains(&id))
    }

    /// Nobody else uses any but these numbers, and those that changed meanwhile.
    pub(super) fn keep_taken(&mut self, taken: &BTreeSet<u32>) {
        let changed = self.changed.as_ref();
        let has_changed = |id: &u32| changed.is_some_and(|it| it.contains(id));
        self.taken
            .retain(|id| taken.contains(id) || has_changed(id));
    }

    /// Somebody else uses the number.
    pub(super) fn mark_taken(&mut self, id: u32) {
        if self.range.contains(&id) {
            self.taken.insert(id);
        }
    }

    /// Whether somebody else uses a number of our range.
    pub(super) fn is_taken(&self, id: u32) -> bool {
        self.taken.contains(&id)
    }

    /// Nobody uses the number any more.
    pub(super) fn unmark_taken(&mut self, id: u32) {
        self.taken.remove(&id);
    }

    pub(super) fn owns(&self, id: u32) -> bool {
        self.range.contains(&id)
    }

    pub(super) fn insert(&mut self, object: Object) -> u32 {
        let id = object.id;
        self.note(id);
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[at(slot)] = Some(object);
            slot
        } else {
            self.slots.push(Some(object));
            FIRST - 1 + u32::try_from(self.slots.len()).expect("memory ends before the numbers do")
        };
        if id != 0 {
            self.by_id.insert(id, slot);
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Object> {
        let object = self.slots.get_mut(at(slot))?.take()?;
        self.free.push(slot);
        self.note(object.id);
        self.by_id.remove(&object.id);
        Some(object)
    }

    pub(super) fn by_id(&self, id: u32) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Object> {
        self.slots.get(at(slot))?.as_ref()
    }

    /// An object that routes, groups or the catalog name.
    pub(super) fn object(&self, slot: u32) -> &Object {
        self.get(slot).expect("named objects exist")
    }

    /// An object that routes, groups or the catalog name.
    pub(super) fn object_mut(&mut self, slot: u32) -> &mut Object {
        self.slots[at(slot)].as_mut().expect("named objects exist")
    }

    /// The groups that contain a single object.
    pub(super) fn groups(&self, slot: u32) -> &[u32] {
        match &self.object(slot).kind {
            Kind::Single { groups } => groups,
            Kind::StandIn | Kind::Group { .. } => &[],
        }
    }

    /// Counts one more route that uses an object, if it is one.
    pub(super) fn retain(&mut self, slot: u32) {
        if slot != NONE {
            self.object_mut(slot).routes += 1;
        }
    }

    /// Counts one route less that uses an object, if it is one.
    pub(super) fn release(&mut self, slot: u32) {
        if slot != NONE {
            let object = self.object_mut(slot);
            object.routes -= 1;
            if object.routes == 0 {
                self.unused.push_back(slot);
            }
        }
    }

    /// Notes that `group` contains `single`.
    pub(super) fn link(&mut self, single: u32, group: u32) {
        if let Kind::Single { groups } = &mut self.object_mut(single).kind {
            groups.push(group);
        }
    }

    /// Notes that `group` no longer contains `single`.
    pub(super) fn unlink(&mut self, single: u32, group: u32) {
        if let Kind::Single { groups } = &mut self.object_mut(single).kind
            && let Some(position) = groups.iter().position(|&slot| slot == group)
        {
            groups.swap_remove(position);
            if groups.is_empty() {
                self.unused.push_back(single);
            }
        }
    }

    /// Our numbers of all objects.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        (FIRST..)
            .zip(&self.slots)
            .filter(|(_, object)| object.is_some())
            .map(|(slot, _)| slot)
    }

    /// Any object may have lost its last user.
    pub(super) fn all_unused(&mut self) {
        self.unused = self.slots().collect();
    }

    /// How many objects are in the kernel.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
