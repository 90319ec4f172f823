//! What is known of the VXLAN devices.

use crate::model::family::{Family, PerFamily};

/// The kernel's VXLAN devices, as last observed or written.
///
/// Invariant: an index that is not 0 belonged to our device when it was last looked at. Another program may have
/// deleted the device since; then the kernel refuses changes with `ENODEV`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceState {
    /// Index of each device; 0 if unknown.
    indexes: PerFamily<u32>,
    recreate: PerFamily<Recreate>,
}

/// Whether a device has to be recreated although its differences can usually be changed in place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Recreate {
    /// It is changed in place.
    #[default]
    No,
    /// The kernel refused a change in place: the next plan recreates the device.
    Due,
    /// The device was recreated. It is not recreated again until it was right once, or its desired state changes.
    Tried,
}

impl DeviceState {
    pub(crate) fn indexes(&self) -> PerFamily<u32> {
        self.indexes
    }

    pub(crate) fn index(&self, family: Family) -> u32 {
        self.indexes[family]
    }

    /// The family whose device has this index.
    pub(crate) fn family_on(&self, index: u32) -> Option<Family> {
        Family::ALL.into_iter().find(|family| index != 0 && self.indexes[*family] == index)
    }

    /// Takes the indexes of an observation.
    pub(crate) fn set_indexes(&mut self, indexes: PerFamily<u32>) {
        self.indexes = indexes;
    }

    /// Takes the indexes that were looked up while a plan was applied.
    pub(crate) fn learn_indexes(&mut self, looked_up: PerFamily<u32>) {
        for family in Family::ALL.into_iter().filter(|family| looked_up[*family] != 0) {
            self.indexes[family] = looked_up[family];
        }
    }

    /// Devices that the next plan has to recreate.
    pub(crate) fn must_recreate(&self) -> PerFamily<bool> {
        PerFamily::from_fn(|family| self.recreate[family] == Recreate::Due)
    }

    pub(crate) fn must_recreate_any(&self) -> bool {
        Family::ALL.into_iter().any(|family| self.recreate[family] == Recreate::Due)
    }

    /// The desired state of the device has changed.
    pub(crate) fn desired_changed(&mut self, family: Family) {
        self.recreate[family] = Recreate::No;
    }

    /// The device was compared with its desired state. `is_right`: it needs no change.
    pub(crate) fn compared(&mut self, family: Family, is_right: bool) {
        self.recreate[family] = match self.recreate[family] {
            Recreate::No => Recreate::No,
            Recreate::Tried if is_right => Recreate::No,
            Recreate::Due | Recreate::Tried => Recreate::Tried,
        };
    }

    /// The kernel refused to change the device in place.
    pub(crate) fn refused_in_place(&mut self, family: Family) {
        let recreate = &mut self.recreate[family];
        *recreate = if *recreate == Recreate::No { Recreate::Due } else { Recreate::Tried };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_v4<T: Default>(value: T) -> PerFamily<T> {
        let mut all = PerFamily::default();
        all[Family::V4] = value;
        all
    }

    #[test]
    fn indexes_are_learned_family_by_family_and_an_unknown_one_belongs_to_no_device() {
        let mut devices = DeviceState::default();
        assert_eq!(devices.family_on(0), None);
        devices.set_indexes(PerFamily::from_fn(|family| if family == Family::V4 { 4 } else { 6 }));
        assert_eq!(
            [4, 6, 5, 0].map(|index| devices.family_on(index)),
            [Some(Family::V4), Some(Family::V6), None, None]
        );
        devices.learn_indexes(of_v4(40));
        assert_eq!(Family::ALL.map(|family| devices.index(family)), [40, 6], "IPv6 was not looked up");
        assert_eq!(devices.indexes(), PerFamily::from_fn(|family| devices.index(family)));
        devices.set_indexes(of_v4(4));
        assert_eq!(
            Family::ALL.map(|family| devices.index(family)),
            [4, 0],
            "an observation finds every device"
        );
    }

    #[test]
    fn a_device_that_cannot_be_changed_in_place_is_recreated_once_until_it_was_right_or_another_is_desired() {
        let due = |devices: &DeviceState| {
            assert_eq!(devices.must_recreate_any(), devices.must_recreate()[Family::V4]);
            assert!(!devices.must_recreate()[Family::V6]);
            devices.must_recreate_any()
        };
        let mut devices = DeviceState::default();
        assert!(!due(&devices));
        devices.compared(Family::V4, false);
        assert!(!due(&devices), "a difference is changed in place first");
        devices.refused_in_place(Family::V4);
        assert!(due(&devices));
        devices.compared(Family::V4, false);
        assert!(!due(&devices), "the plan that was made recreates it");
        devices.refused_in_place(Family::V4);
        devices.compared(Family::V4, false);
        devices.refused_in_place(Family::V4);
        assert!(!due(&devices), "recreating it did not help");
        devices.compared(Family::V4, true);
        devices.refused_in_place(Family::V4);
        assert!(due(&devices), "it was right in between");
        devices.compared(Family::V4, true);
        devices.refused_in_place(Family::V4);
        assert!(!due(&devices), "that comparison was of the plan that recreates it");
        devices.desired_changed(Family::V6);
        devices.refused_in_place(Family::V4);
        assert!(!due(&devices), "another family has changed");
        devices.desired_changed(Family::V4);
        assert!(!due(&devices));
        devices.refused_in_place(Family::V4);
        assert!(due(&devices));
        devices.refused_in_place(Family::V4);
        assert!(!due(&devices), "recreating it is refused too");
    }
}
