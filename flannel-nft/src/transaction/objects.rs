//! Changes of named objects and flowtables.

use crate::model::ids::TableId;
use crate::model::name::ObjectName;
use crate::model::object::{Flowtable, Object};
use crate::model::table::Table;
use crate::transaction::{Building, Transaction};
use crate::wire::{message, objects};

use flannel_netlink::Flags;

impl Transaction<Building> {
    /// Adds a named object: `nft add quota`, `nft add limit` and so on.
    pub fn add_object(&mut self, table: &TableId, object: &Object) {
        self.push(message::NEWOBJ, Flags::CREATE, table, |a| objects::encode_object(table, object, a));
    }

    /// Deletes a named object that nothing uses: the one of the same kind and name.
    pub fn delete_object(&mut self, table: &TableId, object: &Object) {
        self.push(message::DELOBJ, Flags::NONE, table, |a| {
            objects::object_name(table, object.number, &object.name, a);
        });
    }

    /// Adds a flowtable: `nft add flowtable`.
    pub fn add_flowtable(&mut self, table: &TableId, flowtable: &Flowtable) {
        self.push(message::NEWFLOWTABLE, Flags::CREATE, table, |a| {
            objects::encode_flowtable(table, flowtable, a);
        });
    }

    /// Deletes a flowtable that no rule uses: `nft delete flowtable`.
    pub fn delete_flowtable(&mut self, table: &TableId, flowtable: &ObjectName) {
        self.push(message::DELFLOWTABLE, Flags::NONE, table, |a| {
            objects::flowtable_name(table, flowtable, a);
        });
    }
}

/// Objects and flowtables of `old` that `new` does not have, or has with another definition.
#[derive(Debug, Default)]
pub(super) struct Unwanted<'a> {
    pub(super) objects: Vec<&'a Object>,
    pub(super) flowtables: Vec<&'a Flowtable>,
}

impl<'a> Unwanted<'a> {
    pub(super) fn between(new: &Table, old: &'a Table) -> Self {
        let object = |old: &&Object| !new.objects.iter().any(|new| new.same_definition(old));
        let flowtable = |old: &&Flowtable| !new.flowtables.iter().any(|new| new.same_definition(old));
        Self {
            objects: old.objects.iter().filter(object).collect(),
            flowtables: old.flowtables.iter().filter(flowtable).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.flowtables.is_empty()
    }

    pub(super) fn has_object(&self, kind: u32, name: &[u8]) -> bool {
        self.objects.iter().any(|object| object.number == kind && object.name.as_bytes() == name)
    }

    pub(super) fn has_flowtable(&self, name: &[u8]) -> bool {
        self.flowtables.iter().any(|flowtable| flowtable.name.as_bytes() == name)
    }

    /// Deletes them, after what uses them.
    pub(super) fn remove(&self, table: &TableId, transaction: &mut Transaction<Building>) {
        self.objects.iter().for_each(|object| transaction.delete_object(table, object));
        self.flowtables.iter().for_each(|flowtable| transaction.delete_flowtable(table, &flowtable.name));
    }
}

/// Adds the objects and flowtables of `new` that `old` lacks.
pub(super) fn add(new: &Table, old: &Table, transaction: &mut Transaction<Building>) {
    for object in &new.objects {
        if !old.objects.iter().any(|old| object.same_definition(old)) {
            transaction.add_object(&new.id, object);
        }
    }
    for flowtable in &new.flowtables {
        if !old.flowtables.iter().any(|old| flowtable.same_definition(old)) {
            transaction.add_flowtable(&new.id, flowtable);
        }
    }
}
