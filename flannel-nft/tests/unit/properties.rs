//! What holds for every ruleset: it is read back as it was written, a difference converges, equal means nothing to do.

use std::net::Ipv4Addr;

use crate::common::generate::*;
use crate::common::*;
use flannel_nft::*;
use proptest::prelude::*;
use testkit::netns;

fn settled(kernel: &mut impl Kernel, desired: &Ruleset) {
    converge(kernel, desired).unwrap();
    let observed = observe(kernel, &desired.scope()).unwrap();
    assert_eq!(diff(desired, &observed).to_string(), "", "not recognised after the commit");
    assert!(diff(&observed.ruleset, &observed).is_empty());
}

proptest! {
    #[test]
    fn a_rule_is_read_back_as_it_was_written(rule in rule()) {
        let mut transaction = Transaction::unchecked();
        let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
        transaction.append_rule(&id, &chain("c"), &rule);
        let changes = transaction.changes();
        let Some((_, Change::AddRule(_, _, RulePlace::Last, read))) = changes.last() else {
            panic!("{changes:?}")
        };
        prop_assert!(read.is_understood(), "{read}");
        let mut again = Transaction::unchecked();
        again.append_rule(&id, &chain("c"), read);
        let (first, second) = (transaction.seal().unwrap(), again.seal().unwrap());
        prop_assert_eq!(first.as_bytes(), second.as_bytes());
    }

    #[test]
    fn a_difference_converges(first in ruleset(), second in ruleset()) {
        let mut kernel = FakeKernel::default();
        settled(&mut kernel, &first);
        settled(&mut kernel, &second);
        settled(&mut kernel, &first);
    }
}

#[test]
fn fields_inside_of_a_tunnel_are_read_back() {
    let vni = Rule::new().when(udp::dport(4789)).when(field::VXLAN_VNI.is_number(10));
    let rule = vni
        .when(field::ip::SADDR.inside(field::Tunnel::Vxlan).is(Ipv4Addr::new(10, 0, 0, 1)))
        .when(field::tcp::DPORT.inside(field::Tunnel::Vxlan).is(Value::port(80)))
        .accept();
    let text = "udp dport 4789 vxlan vni 10 vxlan ip saddr 10.0.0.1 vxlan tcp dport 80 accept";
    assert_eq!(rule.to_string(), text);
    let mut transaction = Transaction::unchecked();
    let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
    transaction.append_rule(&id, &chain("c"), &rule);
    let changes = transaction.changes();
    let Some((_, Change::AddRule(_, _, _, read))) = changes.last() else { panic!("{changes:?}") };
    assert!(read.is_understood());
    assert_eq!(read.to_string(), text);
}

#[test]
fn the_kernel_agrees() {
    use proptest::strategy::ValueTree;
    netns(|| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut kernel = Netlink::open().unwrap();
        for _ in 0..100 {
            settled(&mut kernel, &ruleset().new_tree(&mut runner).unwrap().current());
        }
    });
}

#[test]
fn what_no_packet_can_be_is_refused_before_it_is_sent() {
    let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
    let reason = |rule: Rule| {
        let mut transaction = Transaction::unchecked();
        transaction.append_rule(&id, &chain("c"), &rule);
        transaction.seal().unwrap_err().reason.to_string()
    };
    let udp_reset = Rule::new().when(udp::dport(53)).reject(Reject::TcpReset);
    assert_eq!(
        reason(udp_reset),
        "the rule matches no packet, because it needs both udp and tcp; write a rule for each"
    );
    let both = Rule::new().when(ip::saddr(net("10.0.0.0/8"))).when(ip::daddr(net("fd00::/8"))).accept();
    assert_eq!(
        reason(both),
        "the rule matches no packet, because it needs both ip and ip6; write a rule for each"
    );
}
