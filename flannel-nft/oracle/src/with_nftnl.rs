//! The same with `nftnl` and `mnl`, over `libnftnl` and `libmnl`.

use std::ffi::{CString, NulError};
use std::io;

use flannel_nft::{ChainKind, Hook};
use nftnl::expr::{
    Bitwise, Cmp, CmpOp, Conntrack, Counter, Immediate, Masquerade, Meta, Nat, NatType, NetworkHeaderField,
    Payload, Register, TransportHeaderField, Verdict,
};
use nftnl::{Batch, Chain, ChainType, FinalizedBatch, MsgType, Policy, ProtoFamily, Rule, Table};

use crate::plan::{Action, Plan, Step};

/// What `nftnl` 0.9 has no word for, and where to see it.
pub const CANNOT: [(&str, &str); 7] = [
    ("masquerade flags (random, fully-random, persistent) and ports", "expr::Masquerade has no fields"),
    ("inverted lookup in a set", "expr::Lookup sets no NFTNL_EXPR_LOOKUP_FLAGS"),
    ("interval sets, maps, verdict maps", "set::Set sets neither NFTNL_SET_FLAGS of its own nor a data type"),
    ("comments of tables, chains and sets", "only Rule has set_comment"),
    ("fib, limit, log, notrack, objref, reject", "no such expressions"),
    (
        "offsets of a raw payload in bits, as its fields say",
        "expr::*HeaderField::Raw hands offset_bits on as bytes",
    ),
    ("acknowledgement of the end only", "every message asks for one"),
];

/// Why it could not be sent.
#[derive(Debug)]
pub enum Error {
    /// A name has a NUL in it.
    Name(NulError),
    /// A hook that the plans have no use for.
    Hook(Hook),
    /// The kernel refused it, or it could not be sent.
    Send(io::Error),
}

impl From<NulError> for Error {
    fn from(error: NulError) -> Self {
        Self::Name(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Send(error)
    }
}

/// The messages that make the table.
///
/// # Errors
/// [`Error::Name`], [`Error::Hook`].
pub fn batch(plan: &Plan) -> Result<FinalizedBatch, Error> {
    let family = if plan.ipv6 { ProtoFamily::Ipv6 } else { ProtoFamily::Ipv4 };
    let table = Table::new(CString::new(plan.name.as_str())?, family);
    let mut batch = Batch::new();
    batch.add(&table, MsgType::Add);
    let mut chains = Vec::new();
    for planned in &plan.chains {
        let mut chain = Chain::new(CString::new(planned.name.as_str())?, &table);
        if let Some((kind, hook, priority)) = planned.base {
            chain.set_type(match kind {
                ChainKind::Filter => ChainType::Filter,
                ChainKind::Nat => ChainType::Nat,
                ChainKind::Route => ChainType::Route,
            });
            let hook = match hook {
                Hook::Prerouting => nftnl::Hook::PreRouting,
                Hook::Input => nftnl::Hook::In,
                Hook::Forward => nftnl::Hook::Forward,
                Hook::Output => nftnl::Hook::Out,
                Hook::Postrouting => nftnl::Hook::PostRouting,
                other => return Err(Error::Hook(other)),
            };
            chain.set_hook(hook, priority);
            chain.set_policy(Policy::Accept);
        }
        batch.add(&chain, MsgType::Add);
        chains.push(chain);
    }
    for (planned, chain) in plan.chains.iter().zip(&chains) {
        for planned in &planned.rules {
            let mut rule = Rule::new(chain);
            for step in planned.steps() {
                add(&mut rule, &step)?;
            }
            batch.add(&rule, MsgType::Add);
        }
    }
    Ok(batch.finalize())
}

fn add(rule: &mut Rule<'_>, step: &Step) -> Result<(), NulError> {
    match step {
        Step::Payload(1, offset, length) => rule.add_expr(&Payload::Network(NetworkHeaderField::Raw {
            offset_bits: *offset,
            length_bits: *length,
        })),
        Step::Payload(_, offset, length) => rule.add_expr(&Payload::Transport(TransportHeaderField::Raw {
            offset_bits: *offset,
            length_bits: *length,
        })),
        Step::Mark => rule.add_expr(&Meta::Mark { set: false }),
        Step::L4Proto => rule.add_expr(&Meta::L4Proto),
        Step::InputName => rule.add_expr(&Meta::IifName),
        Step::OutputName => rule.add_expr(&Meta::OifName),
        Step::State => rule.add_expr(&Conntrack::State),
        Step::ConnectionMark => rule.add_expr(&Conntrack::Mark { set: false }),
        // What is loaded has the size of its type.
        Step::Load(value) => {
            match (<[u8; 4]>::try_from(value.as_slice()), <[u8; 16]>::try_from(value.as_slice())) {
                (Ok(four), _) => rule.add_expr(&Immediate::new(four, Register::Reg1)),
                (_, Ok(sixteen)) => rule.add_expr(&Immediate::new(sixteen, Register::Reg1)),
                _ => {}
            }
        }
        Step::SetMark => rule.add_expr(&Meta::Mark { set: true }),
        Step::Snat(ipv6) => rule.add_expr(&Nat {
            nat_type: NatType::SNat,
            family: if *ipv6 { ProtoFamily::Ipv6 } else { ProtoFamily::Ipv4 },
            ip_register: Register::Reg1,
            port_register: None,
        }),
        Step::Mask(mask) => {
            let zero = vec![0_u8; mask.len()];
            rule.add_expr(&Bitwise::new(mask.as_slice(), zero.as_slice()));
        }
        Step::Compare(value, inverted) => {
            let operation = if *inverted { CmpOp::Neq } else { CmpOp::Eq };
            rule.add_expr(&Cmp::new(operation, value.as_slice()));
        }
        Step::Counter => rule.add_expr(&Counter),
        Step::Masquerade => rule.add_expr(&Masquerade),
        Step::Verdict(Action::Accept) => rule.add_expr(&Verdict::Accept),
        Step::Verdict(Action::Drop) => rule.add_expr(&Verdict::Drop),
        Step::Verdict(Action::Return) => rule.add_expr(&Verdict::Return),
        Step::Verdict(Action::Jump(chain)) => {
            rule.add_expr(&Verdict::Jump { chain: CString::new(chain.as_str())? });
        }
        Step::Verdict(Action::Goto(chain)) => {
            rule.add_expr(&Verdict::Goto { chain: CString::new(chain.as_str())? });
        }
        // Steps of their own.
        Step::Verdict(Action::Masquerade | Action::Snat(_) | Action::SetMark(_)) => {}
    }
    Ok(())
}

/// Sends it as `nftnl`'s examples do: over a socket of its own, which is closed behind it.
///
/// # Errors
/// [`Error::Send`] with the kernel's reason.
pub fn send(batch: &FinalizedBatch) -> Result<(), Error> {
    let socket = mnl::Socket::new(mnl::Bus::Netfilter)?;
    let port = socket.portid();
    socket.send_all(batch)?;
    let mut buffer = vec![0; 65_536];
    let mut expected = batch.sequence_numbers();
    while !expected.is_empty() {
        for message in socket.recv(&mut buffer)? {
            let Some(sequence) = expected.next() else { break };
            mnl::cb_run(message?, sequence, port)?;
        }
    }
    Ok(())
}
