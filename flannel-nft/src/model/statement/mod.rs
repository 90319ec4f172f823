//! The statements of rules that are not matches: verdicts, NAT, logging, limits, marks, changes of sets.

mod kinds;
mod nat;

pub use self::kinds::{Limit, Log, Mark, Per, Queue, Quota, RawExpression, Reject, SetUpdate, Synproxy};
pub(crate) use self::kinds::{QueueTo, Write};
pub(crate) use self::nat::{Computed, Target, Tproxy};
pub use self::nat::{IpRange, Nat, NatKind};
use crate::bytecode::expr::Expr;
use crate::model::data::Data;
use crate::model::expression::Term;
use crate::model::field::{Field, ct, meta};
use crate::model::matching::{Match, Source, Test};
use crate::model::name::CounterName;
use crate::model::value::Value;
use crate::model::verdict::Verdict;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// Equality of several adjacent fields, which nft compares at once.
    Adjacent(Vec<(Field, Data)>),
    Connlimit {
        count: u32,
        over: bool,
    },
    Counter {
        packets: u64,
        bytes: u64,
    },
    CounterRef(CounterName),
    Dnat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Dup {
        address: Option<Term>,
        device: Option<Term>,
    },
    FlowAdd(Box<str>),
    Fwd {
        device: Term,
        /// `NFPROTO_*` and address.
        address: Option<(u32, Term)>,
    },
    /// When a packet was last seen, in milliseconds before.
    Last(Option<u64>),
    Limit(Limit),
    Log(Log),
    Match(Match),
    Masquerade(Nat),
    /// NAT to an address or port that an expression returns.
    Nat {
        kind: NatKind,
        computed: Box<Computed>,
    },
    Notrack,
    /// A named object that is not a counter: `NFT_OBJECT_*`.
    Object {
        kind: u32,
        name: Box<str>,
    },
    /// The object that a map has for a key. The kind is unknown if the map is named.
    ObjectMap {
        kind: Option<u32>,
        key: Term,
        source: Source,
    },
    /// An expression without a type here.
    Other(Expr),
    Queue(Queue),
    Quota(Quota),
    Redirect(Nat),
    Reject(Reject),
    /// Overwrites a TCP option with no-operations.
    ResetOption(Field),
    Set {
        field: Field,
        value: Term,
        /// For a field of a packet, if it is not written as nft 1.0.6 writes it.
        write: Option<Write>,
    },
    Snat {
        address: Option<IpRange>,
        nat: Nat,
    },
    Synproxy(Synproxy),
    Tproxy(Tproxy),
    Update(Box<SetUpdate>),
    Verdict(Verdict),
    Vmap {
        key: Term,
        source: Source,
    },
}

impl Statement {
    /// Calls `found` for each term that the statement reads, in the order of reading.
    pub(crate) fn each_term(&self, found: &mut impl FnMut(&Term)) {
        match self {
            Self::Match(condition) => found(&condition.left),
            Self::Adjacent(fields) => fields.iter().for_each(|(field, _)| found(&Term::Field(*field))),
            Self::Vmap { key, .. } | Self::ObjectMap { key, .. } => found(key),
            Self::Dup { address, device } => address.iter().chain(device).for_each(found),
            Self::Fwd { device, address } => {
                found(device);
                address.iter().for_each(|(_, address)| found(address));
            }
            Self::Nat { computed, .. } => match &computed.target {
                Target::Address(term)
                | Target::Addresses(term)
                | Target::Pair(term)
                | Target::Ranges(term)
                | Target::PortOf(_, term)
                | Target::Port(term) => found(term),
            },
            Self::Queue(Queue { to: QueueTo::Computed(term), .. }) => found(term),
            Self::Set { field, value, .. } => {
                found(&Term::Field(*field));
                found(value);
            }
            Self::Tproxy(tproxy) => tproxy.address.iter().chain(&tproxy.port).for_each(found),
            Self::Update(update) => {
                found(&update.key);
                update.value.iter().for_each(found);
            }
            _ => {}
        }
    }

    /// Calls `found` for each set that the statement looks up, with its key, in the order of the
    /// lookups.
    pub(crate) fn each_source(&self, found: &mut impl FnMut(&Source, &Term)) {
        self.each_term(&mut |term: &Term| term.each_source(found));
        match self {
            Self::Match(Match { left: key, test: Test::In(source), .. })
            | Self::Vmap { key, source }
            | Self::ObjectMap { key, source, .. } => found(source, key),
            Self::Update(update) => found(&update.set, &update.key),
            _ => {}
        }
    }

    /// Calls `found` for each named set that the statement looks up or changes.
    pub(crate) fn each_named_set(&self, found: &mut impl FnMut(&str)) {
        self.each_source(&mut |source, _| {
            if let Source::Named(set) = source {
                found(set.as_str());
            }
        });
    }

    /// A change of a packet's mark, or of its connection's.
    pub(crate) fn mark(mark: Mark, of_packet: bool) -> Self {
        let (own, other) = if of_packet { (meta::MARK, ct::MARK) } else { (ct::MARK, meta::MARK) };
        let bitwise = |field, mask: u32, xor: u32| Term::Bitwise {
            of: Box::new(Term::Field(field)),
            mask: Data::u32(mask),
            xor: Data::u32(xor),
        };
        let value = match mark {
            Mark::To(value) => Term::Constant(Value::mark(value)),
            Mark::Set(bits) => bitwise(own, !bits, bits),
            Mark::Clear(bits) => bitwise(own, !bits, 0),
            Mark::Replace { mask, value } => bitwise(own, !mask, value & mask),
            Mark::Copy { mask: u32::MAX } => Term::Field(other),
            Mark::Copy { mask } => bitwise(other, mask, 0),
        };
        Self::Set { field: own, value, write: None }
    }
}
