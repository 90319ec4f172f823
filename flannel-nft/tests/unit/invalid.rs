//! Invalid rulesets: the error names the object and the reason, and nothing is sent.

use std::error::Error as _;

use crate::common::*;
use flannel_nft::*;

#[test]
fn an_invalid_ruleset_is_named_before_anything_is_sent() {
    let table = |rule: Rule| {
        Ruleset::new().table(
            Table::new(Family::Ip, TableName::new("t").unwrap())
                .set(Set::new(set("ports"), Datatype::InetService))
                .chain(Chain::regular(chain("c")).rule(rule)),
        )
    };
    let refused = |ruleset: Ruleset| {
        let mut kernel = FakeKernel::default();
        let error = converge(&mut kernel, &ruleset).unwrap_err();
        assert_eq!(kernel.commits(), 0);
        let seal = error.source().unwrap();
        format!("{seal}: {}", seal.source().unwrap())
    };
    assert_eq!(
        refused(table(Rule::new().when(ip::saddr(net("10.0.0.1/8"))).accept())),
        "`rule ip t c ip saddr 10.0.0.1/8 accept` is invalid, so nothing was sent to the kernel: prefix 10.0.0.1/8 has address bits set after \
         its length; clear these bits, or use a longer prefix"
    );
    assert_eq!(
        refused(table(Rule::new().jump(&chain("gone")))),
        "`rule ip t c jump gone` is invalid, so nothing was sent to the kernel: the table has no chain `gone` to jump to; add the chain to this table"
    );
    assert_eq!(
        refused(table(Rule::new().when(ip::saddr(Addresses::v4_set(&set("ports")))))),
        "`rule ip t c ip saddr @ports` is invalid, so nothing was sent to the kernel: @ports has type inet_service, but \
         type ipv4_addr is required; use a value or set of that type"
    );
    assert_eq!(
        refused(table(Rule::new().when(ip::saddr(net("fd00::/8"))))),
        "`rule ip t c ip6 saddr fd00::/8` is invalid, so nothing was sent to the kernel: ip6 saddr does not exist in family ip; use a table of another family"
    );
    assert_eq!(
        refused(table(Rule::new().accept().counter())),
        "`rule ip t c accept counter packets 0 bytes 0` is invalid, so nothing was sent to the kernel: \
         a statement after a verdict is never reached; move it before the verdict"
    );
    let with_set =
        |set: Set| Ruleset::new().table(Table::new(Family::Ip, TableName::new("t").unwrap()).set(set));
    assert_eq!(
        refused(with_set(Set::new(set("s"), Datatype::Ipv4Addr).elements([80]))),
        "`set ip t s` is invalid, so nothing was sent to the kernel: 80 has type inet_service, but type ipv4_addr is required; \
         use a value or set of that type"
    );
    assert_eq!(
        refused(with_set(Set::new(set("s"), Datatype::Ipv4Addr).elements([net4("10.0.0.0/8")]))),
        "`set ip t s` is invalid, so nothing was sent to the kernel: element 10.0.0.0/8 is a prefix or range, but its set holds single values; \
         build the set with `Set::interval`"
    );
    let hook = Chain::base(chain("c"), Base::new(ChainKind::Nat, Hook::Forward, Priority::SRCNAT));
    assert_eq!(
        refused(Ruleset::new().table(Table::new(Family::Ip, TableName::new("t").unwrap()).chain(hook))),
        "`chain ip t c` is invalid, so nothing was sent to the kernel: family ip has no nat chains at hook forward; use another hook or chain type"
    );
}
