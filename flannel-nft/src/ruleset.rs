//! What a caller wants: whole tables with everything in them.

use std::fmt;

use crate::error::{Mistake, ObserveError};
use crate::kernel::Kernel;
use crate::name::{ChainName, Comment, CounterName, SetName, TableName};
use crate::rule::Rule;
use crate::set::Set;
use crate::wire::Extra;

/// Address family of a table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// ARP packets.
    Arp,
    /// Packets that a bridge forwards.
    Bridge,
    /// IPv4 and IPv6 packets.
    Inet,
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// All packets of a device.
    Netdev,
}

impl Family {
    /// nft's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Arp, Self::Bridge, Self::Inet, Self::Ip, Self::Ip6, Self::Netdev]
            .into_iter()
            .find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What identifies a table: its family and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TableId {
    /// Address family.
    pub family: Family,
    /// Name, unique in its family.
    pub name: TableName,
}

impl TableId {
    /// The table of this family with this name.
    #[must_use]
    pub fn new(family: Family, name: TableName) -> Self {
        Self { family, name }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// The kernel's number for an object, unique in its table.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub(crate) u64);

impl Handle {
    /// The number, as `nft -a list` shows it.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Tables, each whole: what is in the kernel's table of that name and not in here is to be removed. Other tables are
/// nobody's business here.
///
/// `Display` writes it as `nft list ruleset` would.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(crate) tables: Vec<Table>,
    pub(crate) absent: Vec<TableId>,
}

impl Ruleset {
    /// Without tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table; one with the same identity is replaced.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.retain(|other| other.id != table.id);
        self.absent.retain(|id| *id != table.id);
        self.tables.push(table);
        self
    }

    /// Says that a table is not to exist: in a diff it is deleted if it does.
    #[must_use]
    pub fn without(mut self, id: TableId) -> Self {
        self.tables.retain(|other| other.id != id);
        self.absent.push(id);
        self
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table with this identity.
    #[must_use]
    pub fn find(&self, id: &TableId) -> Option<&Table> {
        self.tables.iter().find(|table| table.id == *id)
    }

    /// Identities of all tables that this says anything about.
    #[must_use]
    pub fn scope(&self) -> Vec<TableId> {
        self.tables.iter().map(|table| table.id.clone()).chain(self.absent.iter().cloned()).collect()
    }
}

impl FromIterator<Table> for Ruleset {
    fn from_iter<I: IntoIterator<Item = Table>>(tables: I) -> Self {
        tables.into_iter().fold(Self::new(), Self::table)
    }
}

/// Who may change a table besides us.
///
/// The default is [`Ownership::Shared`], although an owned table is safer from `nft flush ruleset`: while a table is
/// owned, no version of nft can load a saved `nft list ruleset` (`EPERM`), so nobody's rules in it are loaded; and after
/// its owner's exit, nft before 1.1 cannot read what it lists of the table (docs/nft-versions.md in the repository).
///
/// Going from one to the other makes the table anew in one commit: no packet sees a gap, counters start at 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Ownership {
    /// Anybody with CAP_NET_ADMIN: plain tables, as every tool makes and understands them.
    #[default]
    Shared,
    /// Only this process, as long as it keeps its [`Netlink`](crate::Netlink) open: flags `owner` and `persist`.
    /// Afterwards the table stays, and the next [`converge`](crate::converge) of anybody who wants to own it takes it
    /// over as it is. Kernel ≥ 6.9; older ones refuse the table.
    Owner,
}

impl Ownership {
    /// [`Ownership::Owner`] where the kernel lets a table outlive its owner, else [`Ownership::Shared`]. It asks the kernel,
    /// whatever its version, which takes 8 to 16 ms: ask once.
    ///
    /// # Errors
    /// [`ObserveError`] if the kernel does not answer.
    ///
    /// ```
    /// use flannel_nft::{Memory, Ownership};
    ///
    /// assert_eq!(Ownership::auto(&mut Memory::default())?, Ownership::Owner);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn auto(kernel: &mut impl Kernel) -> Result<Self, ObserveError> {
        Ok(if kernel.keeps_owned_tables()? { Self::Owner } else { Self::Shared })
    }
}

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
    /// Port of the owner's socket, if observed with one.
    pub(crate) owner: Option<u32>,
    /// Flags as observed.
    pub(crate) flags: u32,
    pub(crate) counters: Vec<Counter>,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
    /// Stateful objects and flowtables of others, by kind and name: seen, kept, not understood.
    pub(crate) foreign: Vec<String>,
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
            counters: Vec::new(),
            sets: Vec::new(),
            chains: Vec::new(),
            foreign: Vec::new(),
        }
    }

    /// A remark that `nft list` shows. It cannot change while the table exists: another remark means a new table.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Lets no packet see the table (`flags dormant`).
    #[must_use]
    pub fn dormant(mut self) -> Self {
        self.dormant = true;
        self
    }

    /// Who may change it. Default: anybody.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// Adds a chain; one with the same name is replaced.
    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.retain(|other| other.name != chain.name);
        self.chains.push(chain);
        self
    }

    /// Adds a set or map; one with the same name is replaced.
    #[must_use]
    pub fn set(mut self, set: Set) -> Self {
        self.sets.retain(|other| other.name != set.name);
        self.sets.push(set);
        self
    }

    /// Adds a counter; one with the same name is replaced.
    #[must_use]
    pub fn counter(mut self, counter: Counter) -> Self {
        self.counters.retain(|other| other.name != counter.name);
        self.counters.push(counter);
        self
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> &TableId {
        &self.id
    }

    /// Its chains.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Its named sets and maps.
    #[must_use]
    pub fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// Its named counters.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// The flags `dormant`, `owner` and `persist`: as observed, else as wanted.
    pub(crate) fn flags(&self) -> u32 {
        if self.flags != 0 { self.flags } else { self.wanted_flags() }
    }

    pub(crate) fn wanted_flags(&self) -> u32 {
        let owned =
            if self.ownership == Ownership::Owner { table_flag::OWNER | table_flag::PERSIST } else { 0 };
        owned | if self.dormant { table_flag::DORMANT } else { 0 }
    }

    /// Port of the netlink socket that owns it, as observed.
    #[must_use]
    pub fn owner_port(&self) -> Option<u32> {
        self.owner
    }
}

/// `NFT_TABLE_F_*`.
pub(crate) mod table_flag {
    pub(crate) const DORMANT: u32 = 0x1;
    pub(crate) const OWNER: u32 = 0x2;
    pub(crate) const PERSIST: u32 = 0x4;
}

/// A named counter. Its count survives every change of the rules that use it.
#[derive(Clone, Debug)]
pub struct Counter {
    pub(crate) name: CounterName,
    pub(crate) comment: Option<Comment>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Counter {
    /// A counter that starts at 0.
    #[must_use]
    pub fn new(name: CounterName) -> Self {
        Self { name, comment: None, packets: 0, bytes: 0 }
    }

    /// A remark that `nft list` shows. Kernel ≥ 5.10.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &CounterName {
        &self.name
    }

    /// Packets and bytes, as observed.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ChainKind {
    /// Accept or drop.
    Filter,
    /// Translate addresses: sees only the first packet of each connection.
    Nat,
    /// Re-route packets of this host after a change; at [`Hook::Output`] only.
    Route,
}

impl ChainKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Where in a packet's way a base chain sits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// Leaving a device. Kernel ≥ 5.16.
    Egress,
    /// Passing through this host.
    Forward,
    /// Entering by a device, before everything else.
    Ingress,
    /// To this host.
    Input,
    /// From this host.
    Output,
    /// About to leave.
    Postrouting,
    /// Just arrived.
    Prerouting,
}

impl Hook {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Forward => "forward",
            Self::Ingress => "ingress",
            Self::Input => "input",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Prerouting => "prerouting",
        }
    }

    /// `NF_INET_*`, `NF_NETDEV_*`.
    pub(crate) fn number(self, family: Family) -> u32 {
        match (family, self) {
            (Family::Netdev, Self::Ingress) => 0,
            (Family::Netdev, Self::Egress) => 1,
            (Family::Arp, Self::Input) => 0,
            (Family::Arp, Self::Output) => 1,
            (_, Self::Prerouting) => 0,
            (_, Self::Input) => 1,
            (_, Self::Forward) => 2,
            (_, Self::Output) => 3,
            (_, Self::Postrouting) => 4,
            (_, Self::Ingress | Self::Egress) => 5,
        }
    }

    pub(crate) fn from_number(family: Family, number: u32) -> Option<Self> {
        let hooks: &[Self] = match family {
            Family::Netdev => &[Self::Ingress, Self::Egress],
            Family::Arp => &[Self::Input, Self::Output],
            _ => &[
                Self::Prerouting,
                Self::Input,
                Self::Forward,
                Self::Output,
                Self::Postrouting,
                Self::Ingress,
            ],
        };
        hooks.get(usize::try_from(number).ok()?).copied()
    }
}

/// When a base chain runs among others of its hook: lowest first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(i32);

impl Priority {
    /// -300, before connection tracking.
    pub const RAW: Self = Self(-300);
    /// -150.
    pub const MANGLE: Self = Self(-150);
    /// -100, where destinations are translated.
    pub const DSTNAT: Self = Self(-100);
    /// 0.
    pub const FILTER: Self = Self(0);
    /// 50.
    pub const SECURITY: Self = Self(50);
    /// 100, where sources are translated.
    pub const SRCNAT: Self = Self(100);

    /// Any other.
    #[must_use]
    pub const fn new(priority: i32) -> Self {
        Self(priority)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

/// What happens to a packet that reaches the end of a base chain.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Policy {
    /// It goes on.
    #[default]
    Accept,
    /// It is dropped.
    Drop,
}

/// What makes a chain a base chain: packets enter it by themselves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: Priority,
    pub(crate) policy: Policy,
    pub(crate) devices: Vec<String>,
}

impl Base {
    /// A chain of this kind at this hook, with policy accept.
    #[must_use]
    pub fn new(kind: ChainKind, hook: Hook, priority: Priority) -> Self {
        Self { kind, hook, priority, policy: Policy::Accept, devices: Vec::new() }
    }

    /// Where sources are translated: `type nat hook postrouting priority srcnat`.
    #[must_use]
    pub fn nat_postrouting() -> Self {
        Self::new(ChainKind::Nat, Hook::Postrouting, Priority::SRCNAT)
    }

    /// Where destinations are translated: `type nat hook prerouting priority dstnat`.
    #[must_use]
    pub fn nat_prerouting() -> Self {
        Self::new(ChainKind::Nat, Hook::Prerouting, Priority::DSTNAT)
    }

    /// Where passing packets are filtered: `type filter hook forward priority filter`.
    #[must_use]
    pub fn filter_forward() -> Self {
        Self::new(ChainKind::Filter, Hook::Forward, Priority::FILTER)
    }

    /// What happens at the end of the chain. Default: accept.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ChainKind {
        self.kind
    }

    /// The hook.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// The priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The policy.
    #[must_use]
    pub fn default_policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn check(&self, family: Family) -> Result<(), Mistake> {
        let inet = matches!(family, Family::Inet | Family::Ip | Family::Ip6);
        let layer3 = !matches!(self.hook, Hook::Ingress | Hook::Egress);
        let exists = match (self.kind, family) {
            (ChainKind::Filter, Family::Arp) => matches!(self.hook, Hook::Input | Hook::Output),
            (ChainKind::Filter, Family::Netdev) => !layer3,
            (ChainKind::Filter, Family::Inet) => layer3 || self.hook == Hook::Ingress,
            (ChainKind::Filter, _) => layer3,
            (ChainKind::Nat, _) => inet && layer3 && self.hook != Hook::Forward,
            (ChainKind::Route, _) => inet && self.hook == Hook::Output,
        };
        if exists {
            return Ok(());
        }
        Err(Mistake::NoSuchHook { kind: self.kind.name(), hook: self.hook.name(), family: family.name() })
    }
}

/// A list of rules.
#[derive(Clone, Debug)]
pub struct Chain {
    pub(crate) name: ChainName,
    pub(crate) base: Option<Base>,
    pub(crate) comment: Option<Comment>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) extra: Extra,
}

impl Chain {
    /// A chain that packets enter by themselves.
    #[must_use]
    pub fn base(name: ChainName, base: Base) -> Self {
        Self { base: Some(base), ..Self::regular(name) }
    }

    /// A chain that rules jump to.
    #[must_use]
    pub fn regular(name: ChainName) -> Self {
        Self { name, base: None, comment: None, rules: Vec::new(), extra: Extra::default() }
    }

    /// A remark that `nft list` shows. It cannot change while the chain exists: another remark means a new chain.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Adds a rule at the end.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds rules at the end.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ChainName {
        &self.name
    }

    /// What makes it a base chain, if it is one.
    #[must_use]
    pub fn hooked(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Its rules, in order.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.rules
    }
}

impl Table {
    /// The set with this name.
    pub(crate) fn find_set(&self, name: &SetName) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == *name)
    }
}
