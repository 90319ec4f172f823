//! Statements and fields in chains of a type or hook that do not support them.

use super::*;
use crate::model::field::{Field, Kind};
use crate::uapi::*;

fn of_tcp() -> Rule {
    Rule::new().when(meta::l4proto(Protocol::TCP))
}

/// `fib saddr . iif oif missing`
fn reverse_path() -> Rule {
    let field = Field(Kind::Fib { result: NFT_FIB_RESULT_OIF, flags: NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF });
    Rule::new().when(field.is_number(0))
}

fn at_ingress(rule: Rule) -> Table {
    let device = InterfaceName::new("lo").unwrap();
    let at = Base::new(ChainKind::Filter, Hook::Ingress, Priority::FILTER).device(&device);
    in_family(Family::Inet, Chain::base(chain("base"), at).rule(rule))
}

pub(super) fn cases() -> Vec<Case> {
    let snat = || Rule::new().snat(v4(1), Nat::new());
    let dnat = || Rule::new().dnat(v4(1), Nat::new());
    let masquerade = || Rule::new().masquerade(Nat::new());
    let redirect = || Rule::new().redirect(Nat::new());
    let filter = |hook, rule| base(ChainKind::Filter, hook, Priority::FILTER, [rule]);
    let mut cases = vec![
        rejected(
            Errno::EOPNOTSUPP,
            rule(jump("a")).chain(regular("a", [masquerade()])),
            "masquerade needs a nat chain at hook postrouting, but packets reach it from chain `base` of type filter at \
             hook forward",
        ),
        rejected(
            Errno::EOPNOTSUPP,
            rule(lookup()).set(ports(goto("a"))).chain(regular("a", [redirect()])),
            "redirect needs a nat chain at hook prerouting or output, but packets reach it from chain `base` of type \
             filter at hook forward",
        ),
        valid(table().chain(regular("a", [masquerade()]))),
    ];
    let wrong = [
        (rule(snat()), "snat needs a nat chain"),
        (rule(dnat()), "dnat needs a nat chain"),
        (rule(masquerade()), "masquerade needs a nat chain"),
        (rule(redirect()), "redirect needs a nat chain"),
        (
            table().chain(nat(Hook::Prerouting, [masquerade()])),
            "masquerade needs a nat chain at hook postrouting",
        ),
        (table().chain(nat(Hook::Input, [masquerade()])), "masquerade needs a nat chain at hook postrouting"),
        (
            table().chain(nat(Hook::Output, [masquerade()])),
            "masquerade needs a nat chain at hook postrouting",
        ),
        (
            table().chain(nat(Hook::Prerouting, [snat()])),
            "snat needs a nat chain at hook postrouting or input",
        ),
        (table().chain(nat(Hook::Output, [snat()])), "snat needs a nat chain at hook postrouting or input"),
        (table().chain(nat(Hook::Input, [dnat()])), "dnat needs a nat chain at hook prerouting or output"),
        (
            table().chain(nat(Hook::Postrouting, [dnat()])),
            "dnat needs a nat chain at hook prerouting or output",
        ),
        (
            table().chain(nat(Hook::Input, [redirect()])),
            "redirect needs a nat chain at hook prerouting or output",
        ),
        (
            table().chain(nat(Hook::Postrouting, [redirect()])),
            "redirect needs a nat chain at hook prerouting",
        ),
        (
            table().chain(filter(Hook::Postrouting, Rule::new().reject(Reject::default()))),
            "reject needs a chain at hook prerouting, input, forward, output or ingress",
        ),
        (
            table().chain(filter(Hook::Input, Rule::new().clamp_mss())),
            "rt mtu needs a chain at hook forward, output or postrouting",
        ),
        (table().chain(filter(Hook::Prerouting, Rule::new().clamp_mss())), "rt mtu needs a chain"),
        (
            table().chain(filter(Hook::Output, of_tcp().synproxy(Synproxy::new().mss(1460)))),
            "synproxy needs a chain at hook input or forward",
        ),
        (
            table().chain(filter(Hook::Output, reverse_path())),
            "fib with iif needs a chain at hook prerouting, input or forward",
        ),
        (
            table().chain(filter(Hook::Forward, Rule::new().when(field::socket::MARK.is_number(1)))),
            "socket needs a chain at hook prerouting, input or output",
        ),
        (
            table().chain(filter(Hook::Output, of_tcp().when(field::osf().is(Value::text("Linux", 16))))),
            "osf needs a chain at hook prerouting, input or forward",
        ),
        (
            table().chain(filter(Hook::Output, Rule::new().when(field::ipsec::REQID.is_number(1)))),
            "ipsec in needs a chain at hook prerouting, input or forward",
        ),
        (
            table().chain(filter(Hook::Input, Rule::new().when(field::ipsec::REQID.outgoing().is_number(1)))),
            "ipsec out needs a chain at hook forward, output or postrouting",
        ),
        (
            table().chain(filter(Hook::Output, Rule::new().when(field::meta::IPSEC.is_number(1)))),
            "meta ipsec needs a chain at hook prerouting, input or forward",
        ),
        (
            table().chain(filter(Hook::Prerouting, Rule::new().when(field::meta::SDIF.is_number(1)))),
            "meta sdif needs a chain at hook input or forward",
        ),
        (
            table().chain(filter(Hook::Input, Rule::new().set(field::meta::PKTTYPE, Value::number(0)))),
            "meta pkttype set needs a chain at hook prerouting",
        ),
        (
            at_ingress(Rule::new().when(fib::daddr_type([fib::AddressType::Local]))),
            "fib needs a chain at hook prerouting, input, forward, output or postrouting",
        ),
        (
            in_family(
                Family::Bridge,
                filter(Hook::Forward, Rule::new().when(field::meta::SDIF.is_number(1))),
            ),
            "meta sdif needs a table of another family, but packets reach it from chain `base`",
        ),
    ];
    cases.extend(wrong.map(|(table, reason)| rejected(Errno::EOPNOTSUPP, table, reason)));
    let right = [
        nat(Hook::Postrouting, [masquerade(), snat()]),
        nat(Hook::Input, [snat()]),
        nat(Hook::Prerouting, [dnat(), redirect()]),
        nat(Hook::Output, [dnat(), redirect()]),
        filter(Hook::Prerouting, Rule::new().reject(Reject::default())),
        filter(Hook::Forward, Rule::new().clamp_mss()),
        filter(Hook::Forward, of_tcp().synproxy(Synproxy::new().mss(1460))),
        filter(Hook::Forward, reverse_path()),
        filter(Hook::Output, Rule::new().when(field::socket::MARK.is_number(1))),
        filter(Hook::Prerouting, Rule::new().when(field::rt::IPSEC.is_number(1))),
        filter(Hook::Forward, Rule::new().when(field::ipsec::REQID.outgoing().is_number(1))),
    ];
    cases.extend(right.map(|chain| valid(table().chain(chain))));
    cases
}

/// Without the real kernel: not every kernel has flowtables and queues.
#[test]
fn flow_add_and_queue_need_a_chain_on_their_hooks() {
    let reason = |table: Table| {
        let table = table.flowtable(Flowtable::new(ObjectName::new("ft").unwrap(), Priority::FILTER));
        match converge(&mut FakeKernel::default(), &Ruleset::new().table(table)) {
            Err(ConvergeError::Seal(error)) => error.reason.to_string(),
            accepted => format!("{:?}", accepted.map(|_| ())),
        }
    };
    let filter = |hook, rule| table().chain(base(ChainKind::Filter, hook, Priority::FILTER, [rule]));
    let (flow, queue) = (|| of_tcp().flow_add("ft"), || Rule::new().queue(Queue::number(1)));
    assert_eq!(reason(filter(Hook::Forward, flow())), "Ok(())");
    assert!(reason(filter(Hook::Input, flow())).starts_with("flow add needs a chain at hook forward,"));
    assert_eq!(reason(filter(Hook::Postrouting, queue())), "Ok(())");
    let hooks = "queue needs a chain at hook prerouting, input, forward, output or postrouting,";
    assert!(reason(at_ingress(queue())).starts_with(hooks));
}
