//! Rules: matches and statements in order.

use crate::error::InvalidRule;
use crate::model::bindings::Attached;
use crate::model::element::{Body, Key, Mapped};
use crate::model::expression::{Expression, Term};
use crate::model::exthdr::tcp_option;
use crate::model::field::{Field, meta, rt};
use crate::model::header;
use crate::model::ids::Handle;
use crate::model::matching::{IpVersion, Match, Source};
use crate::model::name::{ChainName, Comment, CounterName, SetName};
use crate::model::opaque::Extra;
use crate::model::selector::tcp;
use crate::model::set::{Maps, Set};
use crate::model::statement::{
    Computed, IpRange, Limit, Log, Mark, Nat, NatKind, Queue, Quota, RawExpression, Reject, SetUpdate,
    Statement, Synproxy, Target,
};
use crate::model::value::Value;
use crate::model::verdict::Verdict;
use crate::uapi::*;
use crate::wire::{attribute_bytes, exprs};

/// A rule: matches and statements, evaluated from left to right until a match fails or a verdict is
/// reached.
///
/// ```
/// use flannel_nft::{Nat, Rule, ip};
///
/// let cluster: ipnet::Ipv4Net = "10.244.0.0/16".parse()?;
/// let multicast: ipnet::Ipv4Net = "224.0.0.0/4".parse()?;
/// let rule = Rule::new()
///     .when(ip::saddr(cluster))
///     .when(!ip::daddr(multicast))
///     .masquerade(Nat::new().fully_random());
/// assert_eq!(rule.to_string(), "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random");
/// # Ok::<(), ipnet::AddrParseError>(())
/// ```
///
/// An invalid part (a prefix with host bits, a statement after a verdict) is reported when the
/// transaction is [sealed](crate::Transaction::seal).
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub(crate) statements: Vec<Statement>,
    pub(crate) comment: Option<Comment>,
    pub(crate) handle: Option<Handle>,
    pub(crate) attached: Option<Box<Attached>>,
    pub(crate) invalid: Option<Box<InvalidRule>>,
    pub(crate) extra: Extra,
}

impl Rule {
    /// Calls `found` for each anonymous set of the rule, in order.
    pub(crate) fn inline_sets(&self, mut found: impl FnMut(&Set)) {
        for statement in &self.statements {
            statement.each_source(&mut |source, _| {
                if let Source::Inline(inline) = source {
                    found(&inline.set);
                }
            });
        }
        self.attached.iter().flat_map(|attached| &attached.sets).for_each(found);
    }

    /// An empty rule.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn then(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Adds a match: the rule continues only if it is true.
    #[must_use]
    pub fn when(self, condition: Match) -> Self {
        self.then(Statement::Match(condition))
    }

    /// Counts packets and bytes in the rule. A rule that stays in place keeps its count.
    #[must_use]
    pub fn counter(self) -> Self {
        self.then(Statement::Counter { packets: 0, bytes: 0 })
    }

    /// Counts packets and bytes in a named counter of the table.
    #[must_use]
    pub fn counter_named(self, name: &CounterName) -> Self {
        self.then(Statement::CounterRef(name.clone()))
    }

    /// Logs the packet.
    #[must_use]
    pub fn log(self, log: Log) -> Self {
        self.then(Statement::Log(log))
    }

    /// Adds a rate limit: the rule continues only while the rate is not exceeded, or with
    /// [`Limit::over`] while it is.
    #[must_use]
    pub fn limit(self, limit: Limit) -> Self {
        self.then(Statement::Limit(limit))
    }

    fn checked(mut self, mark: Mark) -> Self {
        if let Mark::Replace { mask, value } = mark
            && value & !mask != 0
        {
            let text = |number| Value::mark(number).to_string();
            let outside = InvalidRule::OutsideMask { value: text(value), mask: text(mask) };
            self.invalid.get_or_insert_with(|| Box::new(outside));
        }
        self
    }

    /// Sets the packet mark.
    #[must_use]
    pub fn set_mark(self, mark: Mark) -> Self {
        self.checked(mark).then(Statement::mark(mark, true))
    }

    /// Sets the connection mark.
    #[must_use]
    pub fn set_ct_mark(self, mark: Mark) -> Self {
        self.checked(mark).then(Statement::mark(mark, false))
    }

    /// Sets a field of the packet, its metadata or its connection: `ip ttl set 1`, `meta mark set
    /// symhash mod 16`, `tcp option maxseg size set rt mtu`.
    #[must_use]
    pub fn set(self, field: Field, value: impl Into<Expression>) -> Self {
        let value = match value.into().0 {
            Term::Constant(value) => Term::Constant(value.to(field.datatype())),
            other => other,
        };
        self.then(Statement::Set { field, value, write: None })
    }

    /// Remembers when a packet was last seen: `last`. Kernel ≥ 5.14.
    #[must_use]
    pub fn last(self) -> Self {
        self.then(Statement::Last(None))
    }

    /// Adds a quota: the rule continues only while bytes are left, or with [`Quota::over`] when
    /// they are used up.
    #[must_use]
    pub fn quota(self, quota: Quota) -> Self {
        self.then(Statement::Quota(quota))
    }

    /// Continues only while the source has at most `count` connections: `ct count 20`.
    #[must_use]
    pub fn connections(self, count: u32) -> Self {
        self.then(Statement::Connlimit { count, over: false })
    }

    /// Continues only while there are more than `count` connections: `ct count over 20`.
    #[must_use]
    pub fn connections_over(self, count: u32) -> Self {
        self.then(Statement::Connlimit { count, over: true })
    }

    /// Adds, updates or deletes an element of a set: `add @SET { ip saddr timeout 1m }`.
    #[must_use]
    pub fn update_set(self, update: SetUpdate) -> Self {
        self.then(Statement::Update(Box::new(update)))
    }

    /// Passes the packet to a program, which decides about it.
    #[must_use]
    pub fn queue(self, queue: Queue) -> Self {
        self.then(Statement::Queue(queue))
    }

    /// Sends a copy of the packet to this address (`ip`, `ip6`): `dup to 192.0.2.1`.
    #[must_use]
    pub fn dup_to(self, address: impl Into<Expression>) -> Self {
        self.then(Statement::Dup { address: Some(address.into().0), device: None })
    }

    /// Sends a copy of the packet through the interface with this index (`netdev`): `dup to "eth0"`.
    #[must_use]
    pub fn dup_to_device(self, index: u32) -> Self {
        let device = Some(Term::Constant(Value::interface_index(index)));
        self.then(Statement::Dup { address: None, device })
    }

    /// Forwards the packet through the interface with this index (`netdev`): `fwd to "eth0"`.
    #[must_use]
    pub fn forward_to_device(self, index: u32) -> Self {
        self.then(Statement::Fwd { device: Term::Constant(Value::interface_index(index)), address: None })
    }

    /// Adds the connection to a flowtable, which forwards its packets on a fast path: `flow add
    /// @TABLE`.
    #[must_use]
    pub fn flow_add(self, flowtable: &str) -> Self {
        self.then(Statement::FlowAdd(flowtable.into()))
    }

    /// Answers TCP connections with SYN cookies on behalf of the server.
    #[must_use]
    pub fn synproxy(self, proxy: Synproxy) -> Self {
        self.then(Statement::Synproxy(proxy))
    }

    /// Removes a TCP option: `reset tcp option sack-perm`. `option` asks whether it exists
    /// ([`field::tcp_option::SACK_PERM`](crate::field::tcp_option::SACK_PERM)). Kernel ≥ 5.18.
    #[must_use]
    pub fn reset_option(self, option: Field) -> Self {
        self.then(Statement::ResetOption(option))
    }

    /// Translates the destination address to the result of an expression: `dnat ip to numgen inc
    /// mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }`. The addresses must be of `version`.
    #[must_use]
    pub fn dnat_to(self, version: IpVersion, address: impl Into<Expression>, nat: Nat) -> Self {
        self.nat(NatKind::Dnat, version, Target::Address(address.into().0), nat)
    }

    /// Translates destination address and port to the result of an expression: `dnat ip to tcp
    /// dport map @MAP`, with a map to `ipv4_addr . inet_service`.
    #[must_use]
    pub fn dnat_to_pair(self, version: IpVersion, pair: impl Into<Expression>, nat: Nat) -> Self {
        self.nat(NatKind::Dnat, version, Target::Pair(pair.into().0), nat)
    }

    /// Translates the source address to the result of an expression: `snat ip to ip saddr map @MAP`.
    #[must_use]
    pub fn snat_to(self, version: IpVersion, address: impl Into<Expression>, nat: Nat) -> Self {
        self.nat(NatKind::Snat, version, Target::Address(address.into().0), nat)
    }

    /// Redirects to the port that an expression returns: `redirect to :tcp dport map @MAP`.
    #[must_use]
    pub fn redirect_to(self, port: impl Into<Expression>, nat: Nat) -> Self {
        let target = Target::Port(port.into().0);
        let computed = Computed { family: u32::from(NFPROTO_UNSPEC), target, nat };
        self.then(Statement::Nat { kind: NatKind::Redirect, computed: Box::new(computed) })
    }

    fn nat(self, kind: NatKind, version: IpVersion, target: Target, nat: Nat) -> Self {
        let computed = Computed { family: u32::from(version.number()), target, nat };
        self.then(Statement::Nat { kind, computed: Box::new(computed) })
    }

    /// Adds an expression of the kernel that has no type here.
    #[must_use]
    pub fn raw(self, expression: RawExpression) -> Self {
        let RawExpression { name, attributes } = expression;
        let data = attribute_bytes(|a| {
            attributes.iter().for_each(|(kind, payload)| a.bytes(*kind, payload));
        });
        self.then(Statement::Other(exprs::decode_named(&name, &data)))
    }

    /// Excludes the packet from connection tracking. Valid in prerouting and output chains of
    /// priority `raw`.
    #[must_use]
    pub fn notrack(self) -> Self {
        self.then(Statement::Notrack)
    }

    /// Lowers the maximum segment size that a TCP connection announces to the MTU of the route.
    /// Matches [`tcp::syn`] first.
    ///
    /// # Kernel
    /// `tcp flags syn / syn,rst tcp option maxseg size set rt mtu`
    #[must_use]
    pub fn clamp_mss(self) -> Self {
        self.when(tcp::syn()).set(tcp_option::MAXSEG_SIZE, rt::MTU)
    }

    /// Ends the rule with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.then(Statement::Verdict(verdict))
    }

    /// Accepts the packet at this hook; base chains with a later priority still see it.
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// Drops the packet.
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// Returns to the calling chain or, in a base chain, to its policy.
    #[must_use]
    pub fn return_(self) -> Self {
        self.verdict(Verdict::Return)
    }

    /// Continues in another chain, then returns to the next rule.
    #[must_use]
    pub fn jump(self, chain: &ChainName) -> Self {
        self.verdict(Verdict::Jump(chain.clone()))
    }

    /// Continues in another chain, without return.
    #[must_use]
    pub fn goto(self, chain: &ChainName) -> Self {
        self.verdict(Verdict::Goto(chain.clone()))
    }

    /// Looks the verdict up in a named map: `ip saddr vmap @MAP`.
    #[must_use]
    pub fn vmap(self, key: impl Into<VmapKey>, map: &SetName) -> Self {
        self.then(Statement::Vmap { key: Term::Field(key.into().0), source: Source::Named(map.clone()) })
    }

    /// Looks the verdict up in an anonymous map: `tcp dport vmap { 22 : accept, 23 : drop }`.
    #[must_use]
    pub fn vmap_inline<K: Into<Key>>(
        self,
        key: impl Into<VmapKey>,
        verdicts: impl IntoIterator<Item = (K, Verdict)>,
    ) -> Self {
        let elements = verdicts.into_iter().map(|(key, verdict)| {
            (key.into(), Body { mapped: Some(Mapped::Verdict(verdict)), ..Body::default() })
        });
        let key = Term::Field(key.into().0);
        let source = Source::inline(key.datatype(), Maps::Verdict, elements);
        self.then(Statement::Vmap { key, source })
    }

    /// Drops the packet and sends an error to its sender.
    #[must_use]
    pub fn reject(self, reject: Reject) -> Self {
        self.then(Statement::Reject(reject))
    }

    /// Translates the source address to that of the outgoing interface. In a nat chain at
    /// postrouting.
    #[must_use]
    pub fn masquerade(self, nat: Nat) -> Self {
        self.then(Statement::Masquerade(nat))
    }

    /// Translates the source address. In a nat chain at postrouting or input.
    #[must_use]
    pub fn snat(self, address: impl Into<IpRange>, nat: Nat) -> Self {
        self.then(Statement::Snat { address: Some(address.into()), nat })
    }

    /// Translates the destination address. In a nat chain at prerouting or output.
    #[must_use]
    pub fn dnat(self, address: impl Into<IpRange>, nat: Nat) -> Self {
        self.then(Statement::Dnat { address: Some(address.into()), nat })
    }

    /// Redirects to this host. In a nat chain at prerouting or output.
    #[must_use]
    pub fn redirect(self, nat: Nat) -> Self {
        self.then(Statement::Redirect(nat))
    }

    /// Sets a comment, which `nft list` shows.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_RULE_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// The kernel's number of an observed rule; `None` for a new rule.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// The verdicts that the rule can reach, including those of anonymous verdict maps and, instead
    /// of a jump to an implicit chain, those of its rules.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let implicit = self.implicit_chains().iter().flat_map(|chain| &chain.rules);
        let implicit =
            implicit.flat_map(|rule| -> Box<dyn Iterator<Item = &Verdict>> { Box::new(rule.verdicts()) });
        let is_implicit = |verdict: &&Verdict| {
            let chains = self.implicit_chains();
            !chains.is_empty() && chains.iter().any(|chain| verdict.chain() == Some(&chain.name))
        };
        let own = self.statements.iter().flat_map(|statement| {
            let (own, inline) = match statement {
                Statement::Verdict(verdict) => (Some(verdict), None),
                Statement::Vmap { source: Source::Inline(inline), .. } => (None, Some(inline)),
                _ => (None, None),
            };
            let mapped = inline.into_iter().flat_map(|inline| inline.set.elements.values());
            own.into_iter().chain(mapped.filter_map(|body| match &body.mapped {
                Some(Mapped::Verdict(verdict)) => Some(verdict),
                _ => None,
            }))
        });
        own.filter(move |verdict| !is_implicit(verdict)).chain(implicit)
    }

    /// Whether one of the [`verdicts`](Self::verdicts) can name a chain: most rules have none.
    pub(crate) fn may_jump(&self) -> bool {
        self.statements.iter().any(|statement| match statement {
            Statement::Verdict(verdict) => verdict.chain().is_some(),
            Statement::Vmap { .. } => true,
            _ => false,
        })
    }

    /// Whether both rules are certainly equal except for their counts and handles.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self { statements, comment, handle: _, attached, invalid: _, extra } = self;
        let same = |(a, b): (&Statement, &Statement)| match (a, b) {
            (Statement::Counter { .. }, Statement::Counter { .. }) => true,
            (Statement::Last(_), Statement::Last(_)) => true,
            (Statement::Quota(a), Statement::Quota(b)) => a.unused() == b.unused(),
            (a, b) => a == b,
        };
        if attached.is_some() || other.attached.is_some() {
            return false; // compared as encoded rules
        }
        statements.len() == other.statements.len()
            && statements.iter().zip(&other.statements).all(same)
            && *comment == other.comment
            && extra.same(&other.extra, NFTA_RULE_CHAIN_ID)
    }

    /// Whether this crate has types for every part of the rule. If not, it keeps the rest as bytes.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.extra.is_empty()
            && !self.statements.iter().any(|statement| matches!(statement, Statement::Other(_)))
    }
}

/// The field whose value a verdict map looks up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VmapKey(pub(crate) Field);

impl From<Field> for VmapKey {
    fn from(field: Field) -> Self {
        Self(field)
    }
}

macro_rules! vmap_key {
    ($($(#[$doc:meta])* $name:ident = $field:expr;)*) => {
        impl VmapKey { $($(#[$doc])* pub const $name: Self = Self($field);)* }
    };
}

vmap_key! {
    /// `ip saddr`
    SADDR4 = header::ip::SADDR;
    /// `ip6 saddr`
    SADDR6 = header::ip6::SADDR;
    /// `ip daddr`
    DADDR4 = header::ip::DADDR;
    /// `ip6 daddr`
    DADDR6 = header::ip6::DADDR;
    /// `tcp dport`
    TCP_DPORT = header::tcp::DPORT;
    /// `udp dport`
    UDP_DPORT = header::udp::DPORT;
    /// `meta l4proto`
    L4PROTO = meta::L4PROTO;
    /// `meta mark`
    MARK = meta::MARK;
    /// `iifname`
    IIFNAME = meta::IIFNAME;
    /// `oifname`
    OIFNAME = meta::OIFNAME;
}
