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
