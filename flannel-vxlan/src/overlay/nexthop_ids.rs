//! Numbers of nexthop objects, which are shared by everyone in a network namespace.

use std::collections::BTreeSet;

use crate::Vni;

/// Numbers per VNI, so that daemons with different VNIs in one namespace rarely try the same one. If they do, the
/// kernel refuses the second (`NLM_F_EXCL`) and it takes another.
const RANGE: u32 = 1 << 22;

/// Hands out numbers. Which peer has which is not computed but read back from the kernel, so it survives a restart.
///
/// The lowest free number comes first. `ip nexthop flush` deletes while it lists, in ascending order: were what it
/// deleted made again with higher numbers, it would meet that too, and never end.
#[derive(Clone, Debug, Default)]
pub(crate) struct NexthopIds {
    base: u32,
    /// The lowest number that was not used so far.
    next: u32,
    /// Free numbers below `next`; the last one is taken first.
    free: Vec<u32>,
    /// What a reading found to be peers', until it is complete.
    owned: Vec<u32>,
    foreign: BTreeSet<u32>,
    supported: bool,
}

impl NexthopIds {
    pub(crate) fn choose_range(&mut self, vni: Vni) {
        let base = 0x4000_0000 | ((vni.number() & 0xff) * RANGE);
        if self.base != base {
            *self = Self { base, next: base, supported: self.supported, ..Self::default() };
        }
    }

    /// Starts over with what a reading of the kernel found.
    pub(crate) fn observe(&mut self, supported: bool) {
        *self = Self { base: self.base, next: self.base, supported, ..Self::default() };
    }

    /// This number is a peer's.
    pub(crate) fn own(&mut self, id: u32) {
        if (self.base..self.base + RANGE).contains(&id) {
            self.owned.push(id);
        }
    }

    /// The reading is complete: what is not used by anybody is free.
    pub(crate) fn observed(&mut self) {
        let mut owned = std::mem::take(&mut self.owned);
        owned.sort_unstable();
        for id in owned {
            let gap = (self.next..id).filter(|id| !self.foreign.contains(id));
            self.free.extend(gap);
            self.next = self.next.max(id + 1);
        }
        self.free.reverse();
    }

    /// This number is used by others.
    pub(crate) fn foreign(&mut self, id: u32) {
        if (self.base..self.base + RANGE).contains(&id) {
            self.foreign.insert(id);
        }
    }

    /// A number nobody is known to use; 0 if the kernel has no nexthop objects.
    pub(crate) fn take(&mut self) -> u32 {
        if !self.supported {
            return 0;
        }
        if let Some(id) = self.free.pop() {
            return id;
        }
        while self.foreign.contains(&self.next) {
            self.next += 1;
        }
        let id = self.next;
        self.next += 1;
        if self.next >= self.base + RANGE {
            self.next = self.base; // all were used once; the kernel refuses those that still are
        }
        id
    }

    /// Whether a peer's object may have this number: it was handed out, and nobody else is known to have it.
    pub(crate) fn is_used(&self, id: u32) -> bool {
        (self.base..self.next).contains(&id) && !self.foreign.contains(&id)
    }

    pub(crate) fn release(&mut self, id: u32) {
        if !self.foreign.contains(&id) {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_deleted_is_made_again_with_the_lowest_numbers() {
        let mut ids = NexthopIds::default();
        ids.choose_range(Vni::new(1).unwrap());
        ids.observe(true);
        ids.observed();
        let first: Vec<u32> = (0..5).map(|_| ids.take()).collect();
        assert_eq!(first, (first[0]..first[0] + 5).collect::<Vec<_>>());

        ids.observe(true);
        ids.foreign(first[1]);
        ids.own(first[4]);
        ids.own(first[2]);
        ids.observed();
        assert_eq!([ids.take(), ids.take(), ids.take()], [first[0], first[3], first[4] + 1]);
    }
}
