//! Chains: rules in order, and the hook that packets reach them by.

use crate::error::InvalidRule;
use crate::model::family::Family;
use crate::model::name::{ChainName, Comment};
use crate::model::opaque::Extra;
use crate::model::rule::Rule;
use crate::uapi::*;

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

    pub(crate) fn check(&self, family: Family) -> Result<(), InvalidRule> {
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
        Err(InvalidRule::NoSuchHook { kind: self.kind.name(), hook: self.hook.name(), family: family.name() })
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
