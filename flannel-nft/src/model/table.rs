//! Tables: chains, sets, maps and counters under one name.

use crate::model::chain::Chain;
use crate::model::family::Family;
use crate::model::ids::{Handle, TableId};
use crate::model::name::{Comment, CounterName, SetName, TableName};
use crate::model::named_objects::ByName;
use crate::model::object::{Flowtable, Object};
use crate::model::opaque::Extra;
use crate::model::ruleset::Ownership;
use crate::model::set::Set;
use crate::uapi::*;

/// A table and everything in it.
///
/// ```
/// use flannel_nft::{Base, Chain, ChainName, Family, Nat, Rule, Table, TableName, ip};
///
/// let pods: ipnet::Ipv4Net = "10.244.0.0/16".parse()?;
/// let table = Table::new(Family::Ip, TableName::new("pods")?).chain(
///     Chain::base(ChainName::new("postrouting")?, Base::nat_postrouting())
///         .rule(Rule::new().when(ip::saddr(pods)).masquerade(Nat::new())),
/// );
/// assert_eq!(
///     table.to_string(),
///     "table ip pods {
/// \tchain postrouting {
/// \t\ttype nat hook postrouting priority srcnat; policy accept;
/// \t\tip saddr 10.244.0.0/16 masquerade
/// \t}
/// }
/// "
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) id: TableId,
    pub(crate) comment: Option<Comment>,
    pub(crate) dormant: bool,
    pub(crate) ownership: Ownership,
    /// Port of the owner's socket; `None` if the table is not owned.
    pub(crate) owner: Option<u32>,
    /// The flags, of an observed table.
    pub(crate) flags: u32,
    pub(crate) handle: Option<Handle>,
    /// The number of chains, sets, objects and flowtables, as the kernel counts them.
    pub(crate) uses: Option<u32>,
    pub(crate) extra: Extra,
    pub(crate) counters: ByName<Counter>,
    pub(crate) sets: ByName<Set>,
    pub(crate) chains: ByName<Chain>,
    pub(crate) objects: Vec<Object>,
    pub(crate) flowtables: Vec<Flowtable>,
}

/// A named object of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyObject<'t> {
    Counter(&'t Counter),
    Other(&'t Object),
}

impl Table {
    /// The counters and the other objects in the order in which they were added, as the kernel lists them.
    pub(crate) fn all_objects(&self) -> Vec<AnyObject<'_>> {
        let counters = self.counters.iter().map(|counter| (counter.handle, AnyObject::Counter(counter)));
        let others = self.objects.iter().map(|object| (object.handle, AnyObject::Other(object)));
        let mut all: Vec<(Option<Handle>, AnyObject<'_>)> = counters.chain(others).collect();
        all.sort_by_key(|(handle, _)| handle.map_or(u64::MAX, Handle::number));
        all.into_iter().map(|(_, object)| object).collect()
    }
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(family: Family, name: TableName) -> Self {
        Self {
            id: TableId::new(family, name),
            comment: None,
            dormant: false,
            ownership: Ownership::Shared,
            owner: None,
            flags: 0,
            handle: None,
            uses: None,
            extra: Extra::default(),
            counters: ByName::default(),
            sets: ByName::default(),
            chains: ByName::default(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        }
    }

    /// Sets a comment, which `nft list` shows. The kernel cannot change the comment of an existing
    /// table, so a different one makes [`diff`](crate::diff) recreate the table.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_TABLE_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// Disables all chains of the table (`flags dormant`).
    #[must_use]
    pub fn dormant(mut self) -> Self {
        self.dormant = true;
        self.flags = 0;
        self
    }

    /// Sets which processes may change the table. Default: all.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self.flags = 0;
        self
    }

    /// Adds a chain. Replaces a chain of the same name.
    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.insert(chain);
        self
    }

    /// Adds a set or map. Replaces one of the same name.
    #[must_use]
    pub fn set(mut self, set: Set) -> Self {
        self.sets.insert(set);
        self
    }

    /// Adds a counter. Replaces a counter of the same name.
    #[must_use]
    pub fn counter(mut self, counter: Counter) -> Self {
        self.counters.insert(counter);
        self
    }

    /// Adds a named object. Replaces an object of the same kind and name.
    #[must_use]
    pub fn object(mut self, object: Object) -> Self {
        match self.objects.iter_mut().find(|old| old.is_same_object(&object)) {
            Some(old) => *old = object,
            None => self.objects.push(object),
        }
        self
    }

    /// Adds a flowtable. Replaces a flowtable of the same name.
    #[must_use]
    pub fn flowtable(mut self, flowtable: Flowtable) -> Self {
        match self.flowtables.iter_mut().find(|old| old.name == flowtable.name) {
            Some(old) => *old = flowtable,
            None => self.flowtables.push(flowtable),
        }
        self
    }

    /// The identity.
    #[must_use]
    pub fn id(&self) -> &TableId {
        &self.id
    }

    /// The chains.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// The named sets and maps.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// The named counters.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// The named objects other than counters.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The flowtables.
    #[must_use]
    pub fn flowtables(&self) -> &[Flowtable] {
        &self.flowtables
    }

    /// The kernel's number of an observed table; `None` for a new table.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// Whether all chains of the table are disabled.
    #[must_use]
    pub fn is_dormant(&self) -> bool {
        self.dormant
    }

    /// The flags `dormant`, `owner` and `persist`: the observed ones, or those of a new table.
    pub(crate) fn flags(&self) -> u32 {
        if self.flags != 0 {
            return self.flags;
        }
        let owned =
            if self.ownership == Ownership::Owner { NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST } else { 0 };
        owned | if self.dormant { NFT_TABLE_F_DORMANT } else { 0 }
    }

    /// The netlink port of the owner, of an observed table; `None` if the table is not owned.
    #[must_use]
    pub fn owner_port(&self) -> Option<u32> {
        self.owner
    }
}

impl Table {
    /// The same table without what is in it.
    pub(crate) fn without_objects(&self) -> Self {
        Self {
            id: self.id.clone(),
            extra: self.extra.clone(),
            comment: self.comment.clone(),
            counters: ByName::default(),
            sets: ByName::default(),
            chains: ByName::default(),
            objects: Vec::new(),
            flowtables: Vec::new(),
            ..*self
        }
    }

    /// The set or map of this name.
    #[must_use]
    pub fn find_set(&self, name: &SetName) -> Option<&Set> {
        self.sets.find(name.as_str())
    }
}

/// A named counter. It keeps its count when rules that use it change.
#[derive(Clone, Debug)]
pub struct Counter {
    pub(crate) name: CounterName,
    pub(crate) comment: Option<Comment>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) handle: Option<Handle>,
    pub(crate) extra: Extra,
}

impl Counter {
    /// A counter that starts at 0.
    #[must_use]
    pub fn new(name: CounterName) -> Self {
        Self { name, comment: None, packets: 0, bytes: 0, handle: None, extra: Extra::default() }
    }

    /// Sets a comment, which `nft list` shows. Kernel ≥ 5.10.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_OBJ_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &CounterName {
        &self.name
    }

    /// The kernel's number of an observed counter; `None` for a new counter.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// Packets and bytes, of an observed counter.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }
}
