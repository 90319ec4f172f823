//! A program for the `nftables` crate without `nft`: port forwarding as container networks set it up, in one commit.
//! docs/nft-json.md describes the switch.
//!
//! `sudo cargo run -p flannel-examples --example from_nftables_crate`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use flannel_nft::{Family, Netlink, NftVersion, Outcome, TableId, TableName, json, observe};
use nftables::batch::Batch;
use nftables::expr::{Expression, NamedExpression, Payload, PayloadField};
use nftables::schema::{Chain, NfListObject, NfObject, Nftables, Rule, Table};
use nftables::stmt::{Match, NAT, Operator, Statement};
use nftables::types::{NfChainType, NfFamily, NfHook};

const TABLE: &str = "forwarded-ports";
const CHAIN: &str = "prerouting";

fn main() -> Result<(), Box<dyn Error>> {
    let mut kernel = Netlink::open()?; // keep it for the life of the program

    // What the program did before, up to here.
    let mut batch = Batch::new();
    let table = Table { family: NfFamily::IP, name: TABLE.into(), ..Table::default() };
    // Adding a table before deleting it makes the deletion succeed; flushing it would be enough here.
    batch.add(NfListObject::Table(table.clone()));
    batch.delete(NfListObject::Table(table.clone()));
    batch.add(NfListObject::Table(table));
    batch.add(NfListObject::Chain(Chain {
        family: NfFamily::IP,
        table: TABLE.into(),
        name: CHAIN.into(),
        _type: Some(NfChainType::NAT),
        hook: Some(NfHook::Prerouting),
        prio: Some(-100),
        ..Chain::default()
    }));
    for (port, to) in [(8080, "10.88.0.2"), (8081, "10.88.0.3")] {
        batch.add(NfListObject::Rule(forward(port, to)));
    }

    // Before: nftables::helper::apply_ruleset(&batch.to_nftables())?;
    let commands = serde_json::to_string(&batch.to_nftables())?;
    match json::apply(&mut kernel, &commands)? {
        Outcome::Changed { changes, .. } => println!("{changes} changes in one commit"),
        Outcome::Unchanged { .. } => println!("nothing to do"),
    }

    // Before: nftables::helper::get_current_ruleset_with_args(None, Some(["list", "table", "ip", TABLE]))?;
    let observed = observe(&mut kernel, &[TableId::new(Family::Ip, TableName::new(TABLE)?)])?;
    let text = json::print(&observed.ruleset, NftVersion::V1_0);
    let listed: Nftables<'_> = serde_json::from_str(&text)?;
    for object in listed.objects.iter() {
        if let NfObject::ListObject(NfListObject::Rule(rule)) = object {
            println!("rule {:?} has {} statements", rule.handle, rule.expr.len());
        }
    }
    Ok(())
}

fn forward(port: u32, to: &str) -> Rule<'_> {
    let destination = PayloadField { protocol: "tcp".into(), field: "dport".into() };
    let left = Expression::Named(NamedExpression::Payload(Payload::PayloadField(destination)));
    let is_port = Match { left, right: Expression::Number(port), op: Operator::EQ };
    let target = NAT {
        addr: Some(Expression::String(to.into())),
        port: Some(Expression::Number(80)),
        family: None,
        flags: None,
    };
    Rule {
        family: NfFamily::IP,
        table: TABLE.into(),
        chain: CHAIN.into(),
        expr: vec![Statement::Match(is_port), Statement::DNAT(Some(target))].into(),
        ..Rule::default()
    }
}
