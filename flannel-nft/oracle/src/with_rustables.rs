//! The same with `rustables`, in Rust as we are.

use flannel_nft::{ChainKind, Hook};
use rustables::error::{BuilderError, QueryError};
use rustables::expr::{
    Bitwise, Cmp, CmpOp, Conntrack, ConntrackKey, Counter, Immediate, Masquerade, Meta, MetaType, Nat,
    NatType, Payload, Register, VerdictKind,
};
use rustables::{Batch, Chain, ChainPolicy, ChainType, HookClass, MsgType, ProtocolFamily, Rule, Table};

use crate::plan::{Action, Plan, Step};

/// What `rustables` 0.9.0 has no word for or gets wrong, and where to see it.
pub const CANNOT: [(&str, &str); 7] = [
    ("masquerade flags (random, fully-random, persistent) and ports", "expr::Masquerade has no fields"),
    ("inverted lookup in a set", "expr::Lookup has no NFTA_LOOKUP_FLAGS"),
    ("named sets in tables of family ip, ip6 or inet", "SetBuilder leaves the family unspecified: ENOENT"),
    ("interface by index", "Rule::oiface_id writes it big-endian: matches nothing"),
    ("addresses by Rule::saddr in an ip table", "adds `meta nfproto`, over which nft 1.0.6 aborts"),
    ("fib, limit, notrack, objref", "no such expressions"),
    ("acknowledgement of the end only", "every message asks for one"),
];

/// Why it could not be sent.
#[derive(Debug)]
pub enum Error {
    /// An object lacks a part.
    Build(BuilderError),
    /// A hook that the plans have no use for.
    Hook(Hook),
    /// The kernel refused it, or it could not be sent.
    Send(QueryError),
}

impl From<BuilderError> for Error {
    fn from(error: BuilderError) -> Self {
        Self::Build(error)
    }
}

/// The messages that make the table.
///
/// # Errors
/// [`Error::Build`], [`Error::Hook`].
pub fn batch(plan: &Plan) -> Result<Batch, Error> {
    let family = if plan.ipv6 { ProtocolFamily::Ipv6 } else { ProtocolFamily::Ipv4 };
    let table = Table::new(family).with_name(&plan.name);
    let mut batch = Batch::new();
    batch.add(&table, MsgType::Add);
    let mut chains = Vec::new();
    for planned in &plan.chains {
        let mut chain = Chain::new(&table).with_name(&planned.name);
        if let Some((kind, hook, priority)) = planned.base {
            let class = match hook {
                Hook::Prerouting => HookClass::PreRouting,
                Hook::Input => HookClass::In,
                Hook::Forward => HookClass::Forward,
                Hook::Output => HookClass::Out,
                Hook::Postrouting => HookClass::PostRouting,
                other => return Err(Error::Hook(other)),
            };
            chain = chain
                .with_type(match kind {
                    ChainKind::Filter => ChainType::Filter,
                    ChainKind::Nat => ChainType::Nat,
                    ChainKind::Route => ChainType::Route,
                })
                .with_hook(rustables::Hook::new(class, priority))
                .with_policy(ChainPolicy::Accept);
        }
        batch.add(&chain, MsgType::Add);
        chains.push(chain);
    }
    for (planned, chain) in plan.chains.iter().zip(&chains) {
        for planned in &planned.rules {
            let mut rule = Rule::new(chain)?;
            for step in planned.steps() {
                add(&mut rule, step)?;
            }
            batch.add(&rule, MsgType::Add);
        }
    }
    Ok(batch)
}

fn add(rule: &mut Rule, step: Step) -> Result<(), BuilderError> {
    match step {
        Step::Payload(base, offset, length) => rule.add_expr(
            Payload::default().with_base(base).with_offset(offset).with_len(length).with_dreg(Register::Reg1),
        ),
        Step::Mark => rule.add_expr(Meta::new(MetaType::Mark)),
        Step::L4Proto => rule.add_expr(Meta::new(MetaType::L4Proto)),
        Step::InputName => rule.add_expr(Meta::new(MetaType::IifName)),
        Step::OutputName => rule.add_expr(Meta::new(MetaType::OifName)),
        Step::State => rule.add_expr(Conntrack::new(ConntrackKey::State)),
        Step::ConnectionMark => rule.add_expr(Conntrack::new(ConntrackKey::Mark)),
        Step::Load(value) => rule.add_expr(Immediate::new_data(value, Register::Reg1)),
        Step::SetMark => rule.add_expr(Meta::default().with_key(MetaType::Mark).with_sreg(Register::Reg1)),
        Step::Snat(ipv6) => rule.add_expr(
            Nat::default()
                .with_nat_type(NatType::SNat)
                .with_family(if ipv6 { ProtocolFamily::Ipv6 } else { ProtocolFamily::Ipv4 })
                .with_ip_register(Register::Reg1),
        ),
        Step::Mask(mask) => {
            let zero = vec![0_u8; mask.len()];
            rule.add_expr(Bitwise::new(mask, zero)?);
        }
        Step::Compare(value, inverted) => {
            rule.add_expr(Cmp::new(if inverted { CmpOp::Neq } else { CmpOp::Eq }, value));
        }
        Step::Counter => rule.add_expr(Counter::default().with_nb_packets(0_u64).with_nb_bytes(0_u64)),
        Step::Masquerade => rule.add_expr(Masquerade::default()),
        Step::Verdict(Action::Accept) => rule.add_expr(Immediate::new_verdict(VerdictKind::Accept)),
        Step::Verdict(Action::Drop) => rule.add_expr(Immediate::new_verdict(VerdictKind::Drop)),
        Step::Verdict(Action::Return) => rule.add_expr(Immediate::new_verdict(VerdictKind::Return)),
        Step::Verdict(Action::Jump(chain)) => {
            rule.add_expr(Immediate::new_verdict(VerdictKind::Jump { chain }));
        }
        Step::Verdict(Action::Goto(chain)) => {
            rule.add_expr(Immediate::new_verdict(VerdictKind::Goto { chain }));
        }
        // Steps of their own.
        Step::Verdict(Action::Masquerade | Action::Snat(_) | Action::SetMark(_)) => {}
    }
    Ok(())
}

/// Sends it as shipped: over a socket of its own, which is closed behind it.
///
/// # Errors
/// [`Error::Send`] with the kernel's reason.
pub fn send(batch: Batch) -> Result<(), Error> {
    batch.send().map_err(Error::Send)
}
