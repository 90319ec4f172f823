//! Every statement of the corpus in every base chain: the fake kernel rejects it where the kernel does.

use std::fmt::Write as _;

use flannel_netlink::Errno;
use flannel_nft::*;
use testkit::{kernel_version, netns, sh};

use crate::corpus::{load_regular, sections};

/// The types and hooks of base chains of a family.
fn bases(family: Family) -> Vec<Base> {
    use Hook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
    let filter: &[Hook] = match family {
        Family::Arp => &[Input, Output],
        Family::Netdev => &[Ingress, Egress],
        Family::Bridge => &[Prerouting, Input, Forward, Output, Postrouting],
        Family::Inet => &[Prerouting, Input, Forward, Output, Postrouting, Ingress],
        _ => &[Prerouting, Input, Forward, Output, Postrouting],
    };
    let nat: &[Hook] = match family {
        Family::Inet | Family::Ip | Family::Ip6 => &[Prerouting, Input, Output, Postrouting],
        _ => &[],
    };
    let base = |kind, hook| {
        let base = Base::new(kind, hook, Priority::new(0));
        if matches!(hook, Ingress | Egress) { base.device(&InterfaceName::new("lo").unwrap()) } else { base }
    };
    let filter = filter.iter().map(|hook| base(ChainKind::Filter, *hook));
    filter.chain(nat.iter().map(|hook| base(ChainKind::Nat, *hook))).collect()
}

/// The kernel's error for a table; the table is deleted again.
fn errno(kernel: &mut impl Kernel, table: &Table) -> Option<Errno> {
    let mut transaction = Transaction::unchecked();
    transaction.create(table);
    match transaction.seal().unwrap().commit(kernel) {
        Ok(_) => {
            let mut transaction = Transaction::unchecked();
            transaction.delete_table(table.id());
            transaction.seal().unwrap().commit(kernel).unwrap();
            None
        }
        Err(CommitError::Refused { source, .. }) => Some(source.errno()),
        Err(error) => unreachable!("{error:?}\n{table}"),
    }
}

/// A base chain with each of the rules; `table` has what they refer to. Returns where the fake kernel errs.
fn compare(table: &Table, base: &Base, rules: &[Rule]) -> String {
    let mut kernel = Netlink::open().unwrap();
    let with = |rules: &[Rule]| {
        let chain = Chain::base(ChainName::new("c").unwrap(), base.clone()).rules(rules.to_vec());
        table.clone().chain(chain)
    };
    let fake = |rule: &Rule| errno(&mut FakeKernel::default(), &with(std::slice::from_ref(rule)));
    let (accepted, rejected): (Vec<Rule>, Vec<Rule>) =
        rules.iter().cloned().partition(|rule| fake(rule).is_none());
    let mut wrong = String::new();
    for rule in &rejected {
        if errno(&mut kernel, &with(std::slice::from_ref(rule))) != Some(Errno::EOPNOTSUPP) {
            writeln!(wrong, "rejected in {base:?}: {rule}").unwrap();
        }
    }
    // All at once; one by one only to find those that the kernel rejects.
    if errno(&mut kernel, &with(&accepted)).is_some() {
        for rule in &accepted {
            if let Some(errno) = errno(&mut kernel, &with(std::slice::from_ref(rule))) {
                writeln!(wrong, "accepted instead of {errno} in {base:?}: {rule}").unwrap();
            }
        }
    }
    wrong
}

/// Linux 6.18, which the fake kernel imitates: older kernels reject some statements in more chains.
#[test]
fn the_fake_kernel_rejects_each_statement_in_the_chains_in_which_the_kernel_does() {
    netns(|| {
        if kernel_version() < (6, 18) {
            return;
        }
        sh("ip link set lo up");
        let mut wrong = String::new();
        for section in sections() {
            let family = load_regular(&section);
            let id = TableId::new(family, TableName::new("t").unwrap());
            let observed = Netlink::open().unwrap().observe(&[id]).unwrap();
            sh("nft flush ruleset");
            let table = &observed.ruleset.tables()[0];
            let chain = table.chains().iter().find(|chain| chain.name().as_str() == "c").unwrap();
            for base in bases(family) {
                wrong += &compare(table, &base, chain.list());
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    });
}
