//! Numbers of nexthop objects, which are shared by everyone in a network namespace.

use std::collections::BTreeSet;

use crate::Vni;

/// Numbers per VNI, so that daemons with different VNIs in one namespace rarely try the same one. If they do, the
/// kernel refuses the second (`NLM_F_EXCL`) and it takes another.
const RANGE: u32 = 1 << 22;

/// Hands out numbers. Which peer has which is not computed but read back from the kernel, so it survives a restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct NexthopIds {
    base: u32,
    next: u32,
    free: Vec<u32>,
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
            self.next = self.next.max(id + 1);
        }
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

    pub(crate) fn release(&mut self, id: u32) {
        if !self.foreign.contains(&id) {
            self.free.push(id);
        }
    }
}
