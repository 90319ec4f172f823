//! IDs of nexthop objects. All programs in a network namespace share them.

use std::collections::BTreeSet;

use crate::model::device::DeviceKind;
use crate::model::ipip::IpipSpec;

/// IDs per device, so that daemons with different VNIs in one namespace rarely choose the same ID. If they do, the kernel
/// refuses the second (`NLM_F_EXCL`), and that daemon takes another ID.
const RANGE: u32 = 1 << 22;

/// Assigns IDs to peers. Which peer has which ID is read from the kernel, so that it survives a restart.
///
/// The lowest free ID is assigned first. `ip nexthop flush` deletes objects while it lists them in ascending order. If
/// deleted objects were created again with higher IDs, it would list them again and never end.
///
/// Invariants: IDs lie in `base..base + RANGE`. `free` and `foreign` have no common IDs.
#[derive(Clone, Debug, Default)]
pub(crate) struct NexthopIds {
    base: u32,
    /// The lowest ID that was not used so far.
    next: u32,
    /// Free IDs below `next`; the last is assigned first.
    free: Vec<u32>,
    /// IDs of peers that a reading of the kernel found, until it is complete.
    owned: Vec<u32>,
    foreign: BTreeSet<u32>,
    supported: bool,
}

impl NexthopIds {
    /// Chooses the IDs for this device. A reading of the kernel follows.
    pub(crate) fn choose_range(&mut self, device: &DeviceKind) {
        let base = match device {
            DeviceKind::Vxlan(vxlan) => 0x4000_0000 + (vxlan.vni.number() & 0xff) * RANGE,
            DeviceKind::Ipip(IpipSpec { fou: None, .. }) => 0x8000_0000,
            DeviceKind::Ipip(IpipSpec { fou: Some(_), .. }) => 0x8000_0000 + RANGE,
            DeviceKind::Wireguard(_) => return, // its peers have no nexthop objects
        };
        if self.base != base {
            *self = Self { base, ..Self::default() };
        }
    }

    /// Starts over: a reading of the kernel follows.
    pub(crate) fn start_reading(&mut self, supported: bool) {
        *self = Self { base: self.base, next: self.base, supported, ..Self::default() };
    }

    /// The reading found this ID in use by a peer.
    pub(crate) fn set_own(&mut self, id: u32) {
        if (self.base..self.base + RANGE).contains(&id) {
            self.owned.push(id);
        }
    }

    /// The reading is complete: IDs that it did not find are free.
    pub(crate) fn finish_reading(&mut self) {
        let mut owned = std::mem::take(&mut self.owned);
        owned.sort_unstable();
        for id in owned {
            let gap = (self.next..id).filter(|id| !self.foreign.contains(id));
            self.free.extend(gap);
            self.next = self.next.max(id + 1);
        }
        self.free.reverse();
    }

    /// Another program uses this ID.
    pub(crate) fn set_foreign(&mut self, id: u32) {
        if (self.base..self.base + RANGE).contains(&id) {
            self.foreign.insert(id);
        }
    }

    /// Assigns an ID that no program is known to use; 0 if the kernel has no nexthop objects.
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
            self.next = self.base; // every ID was used once; the kernel refuses those still in use
        }
        id
    }

    /// Whether a peer's object may have this ID: it was assigned, and no other program is known to use it.
    pub(crate) fn is_used(&self, id: u32) -> bool {
        (self.base..self.next).contains(&id) && !self.foreign.contains(&id)
    }

    /// A peer no longer uses this ID.
    pub(crate) fn release(&mut self, id: u32) {
        if !self.foreign.contains(&id) {
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mac::MacAddr;
    use crate::model::vni::Vni;
    use crate::model::vxlan::VxlanSpec;

    #[test]
    fn deleted_objects_are_created_again_with_the_lowest_ids() {
        let mut ids = NexthopIds::default();
        let vxlan = VxlanSpec::new(Vni::new(1).unwrap(), MacAddr::derived(b"node-1"));
        ids.choose_range(&vxlan.into());
        ids.start_reading(true);
        ids.finish_reading();
        let first: Vec<u32> = (0..5).map(|_| ids.take()).collect();
        assert_eq!(first, (first[0]..first[0] + 5).collect::<Vec<_>>());

        ids.start_reading(true);
        ids.set_foreign(first[1]);
        ids.set_own(first[4]);
        ids.set_own(first[2]);
        ids.finish_reading();
        assert_eq!([ids.take(), ids.take(), ids.take()], [first[0], first[3], first[4] + 1]);

        // An ID that a peer gives up is the next, unless another program has it.
        ids.release(first[3]);
        ids.release(first[1]);
        assert_eq!([ids.take(), ids.take()], [first[3], first[4] + 2]);
    }
}
