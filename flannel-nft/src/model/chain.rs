//! Chains: ordered rules, and the hook at which packets enter a base chain.

use std::fmt;

use crate::error::InvalidRule;
use crate::model::family::Family;
use crate::model::ids::Handle;
use crate::model::name::{ChainName, Comment, InterfaceName, escaped};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::uapi::*;

/// The type of a base chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ChainKind {
    /// Filters packets.
    Filter,
    /// Translates addresses. Sees only the first packet of each connection.
    Nat,
    /// Reroutes packets of this host if the chain changes them. Only at [`Hook::Output`].
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

/// The point in a packet's path at which a base chain runs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Hook {
    /// Packets that leave a device. Kernel ≥ 5.16.
    Egress,
    /// Packets that this host forwards.
    Forward,
    /// Packets that enter from a device, before all other hooks.
    Ingress,
    /// Packets to this host.
    Input,
    /// Packets from this host.
    Output,
    /// Packets that leave this host, after routing.
    Postrouting,
    /// Packets that arrive, before routing.
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

    /// The hook of this name.
    #[cfg(feature = "json")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        [Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting]
            .into_iter()
            .find(|hook| hook.name() == name)
    }

    /// `NF_INET_*`, `NF_NETDEV_*`.
    pub(crate) fn number(self, family: Family) -> u32 {
        match (family, self) {
            (Family::Netdev, Self::Ingress) => NF_NETDEV_INGRESS,
            (Family::Netdev, Self::Egress) => NF_NETDEV_EGRESS,
            (Family::Arp, Self::Input) => NF_ARP_IN,
            (Family::Arp, Self::Output) => NF_ARP_OUT,
            (_, Self::Prerouting) => NF_INET_PRE_ROUTING,
            (_, Self::Input) => NF_INET_LOCAL_IN,
            (_, Self::Forward) => NF_INET_FORWARD,
            (_, Self::Output) => NF_INET_LOCAL_OUT,
            (_, Self::Postrouting) => NF_INET_POST_ROUTING,
            (_, Self::Ingress | Self::Egress) => NF_INET_INGRESS,
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
        hooks.iter().find(|hook| hook.number(family) == number).copied()
    }
}

/// The order of base chains at the same hook: the lowest number runs first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(i32);

impl Priority {
    /// -300: before connection tracking.
    pub const RAW: Self = Self(-300);
    /// -150: changes of headers and marks.
    pub const MANGLE: Self = Self(-150);
    /// -100: destination NAT.
    pub const DSTNAT: Self = Self(-100);
    /// 0: filtering.
    pub const FILTER: Self = Self(0);
    /// 50: mandatory access control, such as SELinux.
    pub const SECURITY: Self = Self(50);
    /// 100: source NAT.
    pub const SRCNAT: Self = Self(100);

    /// Any other priority.
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

/// The verdict for packets that reach the end of a base chain.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Policy {
    /// The packet continues.
    #[default]
    Accept,
    /// The packet is dropped.
    Drop,
}

/// The type, hook, priority and policy of a base chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: Priority,
    pub(crate) policy: Policy,
    pub(crate) devices: Vec<Device>,
}

/// A network device, or all whose names start with a text, to which a base chain is attached.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Device {
    /// `NFTA_DEVICE_NAME` or `NFTA_DEVICE_PREFIX`.
    pub(crate) kind: u16,
    pub(crate) payload: Box<[u8]>,
}

impl Device {
    pub(crate) fn observed(kind: u16, payload: &[u8]) -> Self {
        Self { kind, payload: payload.into() }
    }

    /// The name, or the text with which the names start. Not necessarily UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.payload.strip_suffix(b"\0").unwrap_or(&self.payload)
    }

    /// Whether it stands for all devices whose names start with the text. Linux 6.16 and 6.17 mark
    /// that with the absence of the terminating zero.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.kind != NFTA_DEVICE_NAME || !self.payload.ends_with(b"\0")
    }
}

impl From<&InterfaceName> for Device {
    fn from(name: &InterfaceName) -> Self {
        let kind = if name.prefix { NFTA_DEVICE_PREFIX } else { NFTA_DEVICE_NAME };
        Self { kind, payload: name.text.bytes().chain([0]).collect() }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", escaped(self.as_bytes()), if self.is_prefix() { "*" } else { "" })
    }
}

impl Base {
    /// A base chain of this type at this hook, with policy accept.
    #[must_use]
    pub fn new(kind: ChainKind, hook: Hook, priority: Priority) -> Self {
        Self { kind, hook, priority, policy: Policy::Accept, devices: Vec::new() }
    }

    /// A chain for source NAT: `type nat hook postrouting priority srcnat`.
    #[must_use]
    pub fn nat_postrouting() -> Self {
        Self::new(ChainKind::Nat, Hook::Postrouting, Priority::SRCNAT)
    }

    /// A chain for destination NAT: `type nat hook prerouting priority dstnat`.
    #[must_use]
    pub fn nat_prerouting() -> Self {
        Self::new(ChainKind::Nat, Hook::Prerouting, Priority::DSTNAT)
    }

    /// A chain that filters forwarded packets: `type filter hook forward priority filter`.
    #[must_use]
    pub fn filter_forward() -> Self {
        Self::new(ChainKind::Filter, Hook::Forward, Priority::FILTER)
    }

    /// Adds a device, for [`Hook::Ingress`] and [`Hook::Egress`], which need at least one. A name
    /// that ends in `*` means all devices whose names start with the text before it (kernel ≥ 6.18).
    #[must_use]
    pub fn device(mut self, name: &InterfaceName) -> Self {
        self.devices.push(name.into());
        self
    }

    /// Sets the policy. Default: accept.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The type.
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

    /// The devices, of a chain at [`Hook::Ingress`] or [`Hook::Egress`].
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The verdict for packets that no rule decides.
    #[must_use]
    pub fn default_policy(&self) -> Policy {
        self.policy
    }

    pub(crate) fn check(&self, family: Family) -> Result<(), InvalidRule> {
        // `nft_chain_parse_hook`: NAT needs the packet's connection.
        const CONNTRACK: Priority = Priority(-200);
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
        if exists && !layer3 && self.devices.is_empty() {
            return Err(InvalidRule::NoDevice { hook: self.hook.name() });
        }
        if exists && self.kind == ChainKind::Nat && self.priority <= CONNTRACK {
            return Err(InvalidRule::NatPriority { priority: self.priority.0 });
        }
        if exists {
            return Ok(());
        }
        Err(InvalidRule::NoSuchHook { kind: self.kind.name(), hook: self.hook.name(), family: family.name() })
    }
}

/// A chain: an ordered list of rules.
#[derive(Clone, Debug)]
pub struct Chain {
    pub(crate) name: ChainName,
    pub(crate) base: Option<Base>,
    pub(crate) comment: Option<Comment>,
    pub(crate) handle: Option<Handle>,
    /// Whether it belongs to the rule that jumps to it.
    pub(crate) implicit: bool,
    /// Packets and bytes that the policy decided on, if the kernel counts them.
    pub(crate) counts: Option<(u64, u64)>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) extra: Extra,
}

impl Chain {
    /// A base chain: packets enter it at its hook.
    #[must_use]
    pub fn base(name: ChainName, base: Base) -> Self {
        Self { base: Some(base), ..Self::regular(name) }
    }

    /// A regular chain: rules jump to it.
    #[must_use]
    pub fn regular(name: ChainName) -> Self {
        Self {
            name,
            base: None,
            comment: None,
            handle: None,
            implicit: false,
            counts: None,
            rules: Vec::new(),
            extra: Extra::default(),
        }
    }

    /// Sets a comment, which `nft list` shows. The kernel cannot change the comment of an existing
    /// chain, so a different one makes [`diff`](crate::diff) recreate the chain.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_CHAIN_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// Appends a rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Appends rules.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Replaces all rules; for a changed copy of an observed chain.
    #[must_use]
    pub fn with_rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules = rules.into_iter().collect();
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &ChainName {
        &self.name
    }

    /// The kernel's number of an observed chain; `None` for a new chain.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// Packets and bytes that the policy decided on, if the kernel counts them for this base chain
    /// (iptables-nft asks for it).
    #[must_use]
    pub fn policy_counts(&self) -> Option<(u64, u64)> {
        self.counts
    }

    /// The hook and its properties; `None` for a regular chain.
    #[must_use]
    pub fn hooked(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The rules, in order.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.rules
    }
}
