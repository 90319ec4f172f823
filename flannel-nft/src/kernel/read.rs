//! Reads tables from the kernel.

use std::collections::HashMap;

use flannel_netlink::{AskError, Attributes, Errno, Flags, Malformed, Message, Refusal, TransactError};

use crate::bytecode::delinearize::delinearize;
use crate::error::ObserveError;
use crate::kernel::netlink::{ATTEMPTS, Netlink, TABLES, cannot_read};
use crate::model::chain::Chain;
use crate::model::family::Family;
use crate::model::ids::TableId;
use crate::model::name::{ChainName, TableName};
use crate::model::ruleset::Ruleset;
use crate::model::set::Set;
use crate::model::table::Table;
use crate::uapi::NFT_OBJECT_COUNTER;
use crate::wire::decode;
use crate::wire::elements::{self, RawElement};
use crate::wire::{encode, header, message, objects};

/// Adds to a list what `read` makes of each message of a dump, unless it makes nothing.
fn push_each<T>(
    read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
) -> impl FnMut(&mut Vec<T>, Message<'_>) -> Result<(), Malformed> {
    move |list, message| {
        list.extend(read(&message)?);
        Ok(())
    }
}

impl Netlink {
    /// Reads these tables, as far as they exist, in this order. Returns also whether they are
    /// complete, provided that nobody changed them meanwhile: chains, objects and flowtables of all
    /// tables are in one list, of which the kernel may leave out some if others are deleted.
    pub(super) fn read(&mut self, wanted: &[TableId]) -> Result<(Ruleset, bool), ObserveError> {
        self.interrupted = false;
        let mut tables = Vec::new();
        for id in wanted {
            tables.extend(self.table(id)?);
        }
        let mut families: Vec<Family> = tables.iter().map(|table| table.id.family).collect();
        families.sort_unstable();
        families.dedup();
        for family in families {
            let of_family = |table: &&Table| table.id.family == family;
            let names = tables.iter().filter(of_family).map(|table| table.id.name.clone());
            let mut chains = self.chains(family, names)?;
            for table in tables.iter_mut().filter(|table| table.id.family == family) {
                table.chains = chains.remove(&table.id.name).unwrap_or_default().into_iter().collect();
            }
        }
        let mut complete = true;
        for table in &mut tables {
            complete &=
                self.read_table(table).map_err(|error| error.of(format_args!("table {}", table.id)))?;
        }
        Ok((tables.into_iter().collect(), complete))
    }

    /// Prepares a dump of one kind of objects.
    fn ask_for_all(&mut self, kind: u16, family: u8, filter: impl FnOnce(&mut Attributes<'_>)) {
        self.question.clear();
        self.question.message(kind, Flags::DUMP, &header(family), filter);
    }

    /// Lists objects once, even if that is interrupted.
    fn list_once<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        family: u8,
        filter: impl FnOnce(&mut Attributes<'_>),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, ObserveError> {
        self.ask_for_all(kind, family, filter);
        let dumped = self.socket.dump_once(&mut self.question, push_each(read));
        let (list, whole) = dumped.map_err(|source| cannot_read(what, source))?;
        self.interrupted |= !whole;
        Ok(list)
    }

    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        family: u8,
        filter: impl FnOnce(&mut Attributes<'_>),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, ObserveError> {
        self.ask_for_all(kind, family, filter);
        self.socket.dump(&mut self.question, push_each(read)).map_err(|source| cannot_read(what, source))
    }

    fn table(&mut self, id: &TableId) -> Result<Option<Table>, ObserveError> {
        self.question.clear();
        self.question.message(message::GETTABLE, Flags::NONE, &header(id.family.number()), |a| {
            encode::table_name(id, a);
        });
        let asked = self.socket.ask(&mut self.question, |message| {
            let (id, attributes) = decode::open(&message)?.ok_or(Malformed::Value { what: "family" })?;
            decode::table(id, attributes)
        });
        match asked {
            Ok(table) => Ok(Some(table)),
            Err(AskError::Refused(Refusal { errno: Errno::ENOENT, .. })) => Ok(None),
            Err(source) => Err(cannot_read(TABLES, source)),
        }
    }

    /// The chains of these tables, which are all of one family.
    fn chains(
        &mut self,
        family: Family,
        tables: impl Iterator<Item = TableName>,
    ) -> Result<HashMap<TableName, Vec<Chain>>, ObserveError> {
        let mut of_table: HashMap<TableName, Vec<Chain>> = tables.map(|name| (name, Vec::new())).collect();
        let chains = self.list_once(
            "nftables chains",
            message::GETCHAIN,
            family.number(),
            |_| {},
            |message| {
                let Some((id, attributes)) = decode::open(message)? else { return Ok(None) };
                if !of_table.contains_key(&id.name) {
                    return Ok(None);
                }
                Ok(Some((id.name, decode::chain(family, attributes)?)))
            },
        )?;
        for (table, chain) in chains {
            of_table.entry(table).or_default().push(chain);
        }
        Ok(of_table)
    }

    /// Reads what is in a table. Returns whether it is complete.
    fn read_table(&mut self, table: &mut Table) -> Result<bool, ObserveError> {
        let id = &table.id.clone();
        let family = id.family.number();
        let in_table = |a: &mut Attributes<'_>| encode::table_name(id, a);
        let objects = self.list_once("nftables objects", message::GETOBJ, family, in_table, |message| {
            decode::in_table(message, id)?.map(objects::object).transpose()
        })?;
        for object in objects {
            if object.number == NFT_OBJECT_COUNTER {
                let counter = decode::counter(object).map_err(malformed)?;
                table.counters.insert(counter);
            } else if !self.interrupted || !table.objects.iter().any(|listed| listed.is_same_object(&object))
            {
                table.objects.push(object);
            }
        }
        let flowtables =
            self.list_once("flowtables", message::GETFLOWTABLE, family, in_table, |message| {
                decode::in_table(message, id)?.map(objects::flowtable).transpose()
            })?;
        for flowtable in flowtables {
            if !table.flowtables.iter().any(|listed| listed.name == flowtable.name) {
                table.flowtables.push(flowtable);
            }
        }
        let sets = self.list_once("nftables sets", message::GETSET, family, in_table, |message| {
            let Some(attributes) = decode::in_table(message, id)? else { return Ok(None) };
            let count = decode::count_of_set(attributes.clone())?;
            Ok(Some((decode::set(attributes)?.0, count)))
        })?;
        let mut anonymous: HashMap<String, Set> = HashMap::new();
        for (mut set, count) in sets {
            self.read_elements(id, &mut set, count)?;
            if set.is_anonymous() {
                anonymous.insert(set.name.as_str().to_owned(), set);
            } else {
                table.sets.insert(set);
            }
        }
        let sets = &table.sets;
        let rules = self.list_once("nftables rules", message::GETRULE, family, in_table, |message| {
            let Some(attributes) = decode::in_table(message, id)? else { return Ok(None) };
            let raw = decode::rule(attributes)?;
            let find = |name: &str, _| anonymous.get(name).or_else(|| sets.find(name));
            let mut rule = delinearize(raw.rule, raw.exprs, id.family, find);
            rule.attach_sets(|set, _| anonymous.get(std::str::from_utf8(set).ok()?));
            Ok(Some((raw.chain, rule)))
        })?;
        let mut of_chain = rules.into_iter().peekable();
        while let Some((name, rule)) = of_chain.next() {
            // The kernel lists the rules of a chain together.
            let same = std::iter::from_fn(|| of_chain.next_if(|(next, _)| *next == name));
            let rules = std::iter::once(rule).chain(same.map(|(_, rule)| rule));
            match table.chains.find_mut(name.as_str()) {
                Some(chain) => chain.rules.extend(rules),
                None => rules.for_each(drop),
            }
        }
        let count = table.chains.len()
            + table.sets.len()
            + anonymous.len()
            + table.counters.len()
            + table.objects.len()
            + table.flowtables.len();
        attach_chains(table);
        Ok(!self.interrupted || u32::try_from(count).is_ok_and(|count| table.uses == Some(count)))
    }

    /// Lists the elements of a set.
    ///
    /// After a hash table has grown, the kernel moves its elements in the background, and a listing
    /// in several parts misses some. Every listed element exists, so listings are merged: until
    /// there are as many as the kernel counts (`NFTA_SET_COUNT`, seen on 6.18), or until another
    /// listing shows no new element.
    fn read_elements(
        &mut self,
        table: &TableId,
        set: &mut Set,
        count: Option<u32>,
    ) -> Result<(), ObserveError> {
        // Elements that fit into one part.
        const ONE_PART: usize = 100;
        let count = count.and_then(|count| usize::try_from(count).ok()).filter(|_| set.has_steady_count());
        for _ in 0..ATTEMPTS {
            let before = set.elements.len();
            let listed = self.list_elements(table, set)?;
            elements::assemble(set, listed);
            let listed = set.elements.len();
            let whole = match count {
                Some(count) => listed >= count,
                None => set.is_interval() || listed <= ONE_PART || listed == before,
            };
            if whole {
                break;
            }
        }
        Ok(())
    }

    fn list_elements(&mut self, table: &TableId, set: &Set) -> Result<Vec<RawElement>, ObserveError> {
        let of_set = |a: &mut Attributes<'_>| encode::elements_of(table, &set.name, a);
        let parts = self.list_once(
            "nftables elements",
            message::GETSETELEM,
            table.family.number(),
            of_set,
            |message| {
                let (_, attributes) = message.split::<4>()?;
                Ok(Some(elements::elements(attributes)?.2))
            },
        )?;
        Ok(parts.into_iter().flatten().collect())
    }
}

/// Moves implicit chains into the rules that jump to them.
fn attach_chains(table: &mut Table) {
    if !table.chains.iter().any(|chain| chain.implicit) {
        return;
    }
    let chains = std::mem::take(&mut table.chains).into_vec();
    let (implicit, mut named): (Vec<Chain>, Vec<Chain>) =
        chains.into_iter().partition(|chain| chain.implicit);
    let mut implicit: HashMap<ChainName, Chain> =
        implicit.into_iter().map(|chain| (chain.name.clone(), chain)).collect();
    for rule in named.iter_mut().flat_map(|chain| &mut chain.rules) {
        rule.attach_chains(&mut |(name, _)| implicit.remove(&name?));
    }
    // The kernel deletes an implicit chain with its rule, so none is left.
    table.chains = named.into_iter().chain(implicit.into_values()).collect();
}

fn malformed(source: Malformed) -> ObserveError {
    cannot_read("nftables objects", AskError::Transact(TransactError::Malformed(source)))
}
