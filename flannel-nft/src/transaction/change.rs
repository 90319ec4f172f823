//! Single changes, decoded from messages: for scripts, errors, notifications and the fake kernel.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use flannel_netlink::{Flags, Malformed, Message, messages};

use crate::bytecode::delinearize::delinearize;
use crate::display::{self, DisplayFn, NftVersion};
use crate::model::bindings::ChainReference;
use crate::model::chain::Chain;
use crate::model::ids::{Handle, TableId};
use crate::model::name::{ChainName, ObjectName, SetName};
use crate::model::object::{Flowtable, Object, object_kind};
use crate::model::rule::Rule;
use crate::model::set::Set;
use crate::model::table::{Counter, Table};
use crate::uapi::NFT_OBJECT_COUNTER;
use crate::wire::{decode, elements, message as kind, objects};

/// Position of a new rule in its chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RulePlace {
    /// At the end.
    Last,
    /// At the start.
    First,
    /// Before this rule.
    Before(Handle),
    /// After this rule.
    After(Handle),
    /// In place of this rule.
    Instead(Handle),
}

/// A change of the ruleset.
///
/// `Display` prints it as a line of `nft -f`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A counter is added.
    AddCounter(TableId, Counter),
    /// A flowtable is added.
    AddFlowtable(TableId, Flowtable),
    /// A named object is added.
    AddObject(TableId, Object),
    /// A chain is added, without rules, or its policy is changed.
    AddChain(TableId, Chain),
    /// These elements are added to a set.
    AddElements(TableId, Set),
    /// A rule is added.
    AddRule(TableId, ChainName, RulePlace, Rule),
    /// A set is added, without elements.
    AddSet(TableId, Set),
    /// A table is added, empty, or its flags are changed.
    AddTable(Table),
    /// A chain is deleted.
    DeleteChain(TableId, ChainName),
    /// A counter is deleted.
    DeleteCounter(TableId, String),
    /// A flowtable is deleted.
    DeleteFlowtable(TableId, ObjectName),
    /// A named object is deleted.
    DeleteObject(TableId, Object),
    /// These elements are removed from a set.
    DeleteElements(TableId, Set),
    /// A rule is deleted or, without a handle, all rules of the chain.
    DeleteRule(TableId, ChainName, Option<Handle>),
    /// A set is deleted.
    DeleteSet(TableId, SetName),
    /// A table is deleted with everything in it.
    DeleteTable(TableId),
    /// A change of this table that has no type here.
    Other(TableId),
}

impl Change {
    /// The table that is changed.
    #[must_use]
    pub fn table(&self) -> &TableId {
        match self {
            Self::AddTable(table) => table.id(),
            Self::AddCounter(id, _)
            | Self::AddChain(id, _)
            | Self::AddElements(id, _)
            | Self::AddFlowtable(id, _)
            | Self::AddObject(id, _)
            | Self::DeleteFlowtable(id, _)
            | Self::DeleteObject(id, _)
            | Self::AddRule(id, ..)
            | Self::AddSet(id, _)
            | Self::DeleteChain(id, _)
            | Self::DeleteCounter(id, _)
            | Self::DeleteElements(id, _)
            | Self::DeleteRule(id, ..)
            | Self::DeleteSet(id, _)
            | Self::DeleteTable(id)
            | Self::Other(id) => id,
        }
    }
}

/// Decodes messages in order. Remembers sets, because elements and rules refer to them.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// By table and name, and by ID in the batch.
    named: HashMap<(TableId, String), Set>,
    numbered: HashMap<u32, Set>,
    /// Implicit chains whose rule has not arrived yet.
    implicit: HashMap<(TableId, ChainReference), Chain>,
}

impl Reader {
    /// Decodes a message; `None` if it belongs to a later change or is not a change.
    pub(crate) fn read(&mut self, message: &Message<'_>) -> Result<Option<Change>, Malformed> {
        if !kind::is_nf_tables(message.kind) || message.kind == kind::NEWGEN {
            return Ok(None);
        }
        let Some((id, attributes)) = decode::open(message)? else { return Ok(None) };
        Ok(Some(match message.kind {
            kind::NEWTABLE => Change::AddTable(decode::table(id, attributes)?),
            kind::DELTABLE => Change::DeleteTable(id),
            kind::NEWCHAIN => {
                let number = decode::id_of_chain(attributes.clone())?;
                let chain = decode::chain(id.family, attributes)?;
                if chain.implicit {
                    self.implicit.insert((id, chain_reference(chain.name.clone(), number)), chain);
                    return Ok(None);
                }
                Change::AddChain(id, chain)
            }
            kind::DELCHAIN => {
                let chain = decode::chain(id.family, attributes)?;
                Change::DeleteChain(id, chain.name)
            }
            kind::NEWRULE => {
                let raw = decode::rule(attributes)?;
                let place = match (raw.position, raw.rule.handle) {
                    (Some(handle), _) if message.has(Flags::APPEND) => RulePlace::After(handle),
                    (Some(handle), _) => RulePlace::Before(handle),
                    (None, Some(handle)) if message.has(Flags::REPLACE) => RulePlace::Instead(handle),
                    _ if message.has(Flags::APPEND) => RulePlace::Last,
                    _ => RulePlace::First,
                };
                let set = |name: &str, number: Option<u32>| match number {
                    Some(number) => self.numbered.get(&number),
                    None if name.starts_with("__") => self.named.get(&(id.clone(), name.to_owned())),
                    None => None,
                };
                let mut rule = delinearize(raw.rule, raw.exprs, id.family, set);
                rule.attach_sets(|name, number| set(std::str::from_utf8(name).ok()?, number));
                rule.attach_chains(&mut |reference| self.implicit.remove(&(id.clone(), reference)));
                let chain = (id, chain_reference(raw.chain, raw.chain_id));
                if let Some(implicit) = self.implicit.get_mut(&chain) {
                    implicit.rules.push(rule);
                    return Ok(None);
                }
                let (id, (name, _)) = chain;
                Change::AddRule(id, name.unwrap_or_else(|| ChainName::observed("")), place, rule)
            }
            kind::DELRULE => {
                let raw = decode::rule(attributes)?;
                Change::DeleteRule(id, raw.chain, raw.rule.handle)
            }
            kind::NEWSET => {
                let (set, number) = decode::set(attributes)?;
                let key = (id.clone(), set.name.as_str().to_owned());
                number.iter().for_each(|number| {
                    self.numbered.insert(*number, set.clone());
                });
                self.named.insert(key, set.clone());
                if set.is_anonymous() {
                    return Ok(None);
                }
                Change::AddSet(id, set)
            }
            kind::DELSET => {
                let (set, _) = decode::set(attributes)?;
                Change::DeleteSet(id, set.name)
            }
            kind::NEWSETELEM | kind::DELSETELEM => {
                let (name, number, list) = elements::elements(attributes)?;
                let known = match number {
                    Some(number) => self.numbered.get_mut(&number),
                    None => self.named.get_mut(&(id.clone(), name.as_str().to_owned())),
                };
                if let Some(set) = known {
                    if set.is_anonymous() {
                        elements::assemble(set, list);
                        return Ok(None);
                    }
                    let mut part = set.definition();
                    elements::assemble(&mut part, list);
                    return Ok(Some(Self::elements(message.kind, id, part)));
                }
                let mut part = elements::guess(name, &list);
                elements::assemble(&mut part, list);
                Self::elements(message.kind, id, part)
            }
            kind::NEWOBJ => match objects::object(attributes)? {
                object if object.number == NFT_OBJECT_COUNTER => {
                    Change::AddCounter(id, decode::counter(object)?)
                }
                object => Change::AddObject(id, object),
            },
            kind::DELOBJ => match objects::object(attributes)? {
                object if object.number == NFT_OBJECT_COUNTER => {
                    Change::DeleteCounter(id, object.name.as_str().to_owned())
                }
                object => Change::DeleteObject(id, object),
            },
            kind::NEWFLOWTABLE => Change::AddFlowtable(id, objects::flowtable(attributes)?),
            kind::DELFLOWTABLE => Change::DeleteFlowtable(id, objects::flowtable(attributes)?.name),
            _ => Change::Other(id),
        }))
    }

    fn elements(message: u16, id: TableId, part: Set) -> Change {
        if message == kind::NEWSETELEM {
            Change::AddElements(id, part)
        } else {
            Change::DeleteElements(id, part)
        }
    }
}

/// In a batch, an implicit chain has an ID and no name.
fn chain_reference(name: ChainName, id: Option<u32>) -> ChainReference {
    if id.is_some() { (None, id) } else { (Some(name), None) }
}

/// All changes of a batch, with the numbers of their messages.
pub(crate) fn changes(batch: &[u8], definitions: &[(TableId, Set)]) -> Vec<(u32, Change)> {
    let mut reader = Reader::default();
    for (id, set) in definitions {
        reader.named.insert((id.clone(), set.name.as_str().to_owned()), set.clone());
    }
    let read = messages(batch).zip(0..).filter_map(|(message, number)| {
        let change = reader.read(&message.ok()?).ok()??;
        Some((number, change))
    });
    read.collect()
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        /// ` { a; b; }`, or nothing.
        fn block(f: &mut Formatter<'_>, body: impl Fn(&mut Formatter<'_>) -> fmt::Result) -> fmt::Result {
            let text = NftVersion::of(f).display(&DisplayFn(body)).to_string();
            if text.is_empty() { Ok(()) } else { write!(f, " {{ {text}}}") }
        }
        match self {
            Self::AddTable(table) => {
                write!(f, "add table {}", table.id)?;
                block(f, |f| display::table_block(table, "", "; ", f))
            }
            Self::DeleteTable(id) => write!(f, "delete table {id}"),
            Self::AddChain(id, chain) => {
                write!(f, "add chain {id} {}", chain.name)?;
                block(f, |f| display::chain_block(chain, id.family, "", "; ", f))
            }
            Self::DeleteChain(id, chain) => write!(f, "delete chain {id} {chain}"),
            Self::AddRule(id, chain, place, rule) => {
                match place {
                    RulePlace::Last => write!(f, "add rule {id} {chain} ")?,
                    RulePlace::First => write!(f, "insert rule {id} {chain} ")?,
                    RulePlace::Before(handle) => write!(f, "insert rule {id} {chain} handle {handle} ")?,
                    RulePlace::After(handle) => write!(f, "add rule {id} {chain} handle {handle} ")?,
                    RulePlace::Instead(handle) => write!(f, "replace rule {id} {chain} handle {handle} ")?,
                }
                display::rule(rule, id.family, f)
            }
            Self::DeleteRule(id, chain, Some(handle)) => {
                write!(f, "delete rule {id} {chain} handle {handle}")
            }
            Self::DeleteRule(id, chain, None) => write!(f, "flush chain {id} {chain}"),
            Self::AddSet(id, set) => {
                write!(f, "add {} {id} {}", display::kind(set), set.name)?;
                block(f, |f| display::set_block(set, "", "; ", f))
            }
            Self::DeleteSet(id, set) => write!(f, "delete set {id} {set}"),
            Self::AddElements(id, set) | Self::DeleteElements(id, set) => {
                let verb = if matches!(self, Self::AddElements(..)) { "add" } else { "delete" };
                write!(f, "{verb} element {id} {} {{ ", set.name)?;
                for (index, (span, body)) in set.elements.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    display::element(set, span, body, f)?;
                }
                f.write_str(" }")
            }
            Self::AddCounter(id, counter) => {
                write!(f, "add counter {id} {}", counter.name)?;
                block(f, |f| display::counter_block(counter, "", "; ", f))
            }
            Self::AddObject(id, object) => {
                write!(f, "add {} {id} {}", object_kind(object.number), object.name)?;
                block(f, |f| display::object_block(object, "", "; ", f))
            }
            Self::DeleteObject(id, object) => {
                write!(f, "delete {} {id} {}", object_kind(object.number), object.name)
            }
            Self::AddFlowtable(id, flowtable) => {
                write!(f, "add flowtable {id} {}", flowtable.name)?;
                block(f, |f| display::flowtable_block(flowtable, "", "; ", f))
            }
            Self::DeleteFlowtable(id, flowtable) => write!(f, "delete flowtable {id} {flowtable}"),
            Self::DeleteCounter(id, counter) => write!(f, "delete counter {id} {counter}"),
            Self::Other(id) => write!(f, "# something in table {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::{
        Addresses, Base, ChainName, Comment, Counter, CounterName, Datatype, Element, Family, Limit, Log,
        Mark, Nat, Per, Reject, Rule, SetName, TableName, Transaction, Verdict, ct, fib, ip, meta, tcp,
    };

    /// A batch with every kind of message.
    fn batch() -> Transaction<crate::Sealed> {
        let chain = |name| ChainName::new(name).unwrap();
        let set = |name| SetName::new(name).unwrap();
        let cluster: ipnet::IpNet = "10.244.0.0/16".parse().unwrap();
        let n = CounterName::new("n").unwrap();
        let flows = Set::new(set("s"), Datatype::Ipv4Addr).interval().elements([cluster]);
        let verdicts = Set::verdict_map(set("m"), Datatype::InetService).elements([
            Element::new(80).verdict(Verdict::Jump(chain("sub"))),
            Element::new(22).verdict(Verdict::Drop),
        ]);
        let table = Table::new(Family::Inet, TableName::new("t").unwrap())
            .comment(Comment::new("a table").unwrap())
            .counter(Counter::new(n.clone()))
            .set(flows.clone())
            .set(verdicts)
            .chain(Chain::regular(chain("sub")))
            .chain(
                Chain::base(chain("out"), Base::nat_postrouting()).rules([Rule::new()
                    .when(ip::saddr(cluster))
                    .when(!ip::daddr(Addresses::v4_set(&set("s"))))
                    .counter_named(&n)
                    .masquerade(Nat::new().fully_random())
                    .comment(Comment::new("out").unwrap())]),
            )
            .chain(
                Chain::base(chain("through"), Base::filter_forward()).rules([
                    Rule::new().when(meta::mark_masked(0x4000, 0x4000)).set_mark(Mark::Set(7)).accept(),
                    Rule::new()
                        .when(tcp::dport(vec![1, 2, 80]))
                        .limit(Limit::packets(3, Per::Hour))
                        .log(Log::new()),
                    Rule::new().when(ct::state([ct::State::Established])).counter().jump(&chain("sub")),
                    Rule::new().when(fib::daddr_type([fib::AddressType::Local])).reject(Reject::TcpReset),
                ]),
            );
        let mut transaction = Transaction::unchecked();
        transaction.replace(&table);
        transaction.delete_elements(table.id(), &flows);
        transaction.delete_chain(table.id(), &chain("sub"));
        transaction.seal().unwrap()
    }

    #[test]
    fn concatenated_ranges_of_an_unknown_set_keep_both_ends() {
        let net = |text: &str| crate::Key::from(text.parse::<ipnet::Ipv4Net>().unwrap());
        let datatype = Datatype::concat(&[Datatype::Ipv4Addr, Datatype::Ipv4Addr]);
        let ranges = Set::new(SetName::new("s").unwrap(), datatype)
            .interval()
            .elements([crate::Key::concat([net("10.0.0.0/8"), net("192.168.0.0/16")])]);
        let id = TableId::new(Family::Ip, TableName::new("t").unwrap());
        let mut written = Transaction::unchecked();
        written.add_elements(&id, &ranges);
        let written = written.seal().unwrap();
        let read = changes(written.as_bytes(), &[]);
        let [(_, Change::AddElements(_, part))] = read.as_slice() else { panic!("{read:?}") };
        let mut again = Transaction::unchecked();
        again.add_elements(&id, part);
        assert_eq!(again.seal().unwrap().as_bytes(), written.as_bytes());
    }

    proptest! {
        /// A newer kernel may send values that this code does not expect; that must not cause a
        /// panic.
        #[test]
        fn no_bytes_are_a_panic(damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..16)) {
            let mut bytes = batch().as_bytes().to_vec();
            for (at, value) in damage {
                *at.get_mut(&mut bytes) = value;
            }
            for (_, change) in changes(&bytes, &[]) {
                let _text = change.to_string();
            }
        }
    }
}
