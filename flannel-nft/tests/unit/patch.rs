//! Patches of a retained ruleset: they change what they name, and nothing else.

use std::cell::Cell;

use crate::common::*;
use flannel_nft::*;
use testkit::{netns, sh};

/// Two services of two endpoints each.
fn proxy() -> Table {
    let mut table = Table::new(Family::Ip, TableName::new("proxy").unwrap())
        .set(Set::verdict_map(set("services"), Datatype::InetService).elements((1..=2).map(element)))
        .set(Set::new(set("local"), Datatype::Ipv4Addr).interval().elements([net4("10.0.0.0/24")]));
    for chain in (1..=2).flat_map(|service| service_chains(service, &[1, 2])) {
        table = table.chain(chain);
    }
    table.chain(
        Chain::base(chain("prerouting"), Base::nat_prerouting())
            .rule(Rule::new().vmap(VmapKey::TCP_DPORT, &set("services"))),
    )
}

fn element(service: u16) -> Element {
    Element::new(service).verdict(Verdict::Goto(chain(&format!("service-{service}"))))
}

fn service_chains(service: u16, endpoints: &[u8]) -> Vec<Chain> {
    let name = |endpoint: &u8| chain(&format!("endpoint-{service}-{endpoint}"));
    let jumps = endpoints.iter().map(|endpoint| {
        Rule::new().when(ip::saddr(net(&format!("10.0.{endpoint}.0/24")))).counter().goto(&name(endpoint))
    });
    let service_chain = Chain::regular(chain(&format!("service-{service}"))).rules(jumps);
    let targets = endpoints.iter().map(|endpoint| {
        let address = std::net::Ipv4Addr::new(10, 1, 0, *endpoint);
        Chain::regular(name(endpoint)).rule(Rule::new().dnat(address, Nat::new()))
    });
    std::iter::once(service_chain).chain(targets).collect()
}

fn patch_of(chains: Vec<Chain>) -> TablePatch {
    chains.into_iter().fold(TablePatch::new(), TablePatch::chain)
}

/// A kernel that counts how often whole tables are read.
struct Counting<K>(K, Cell<u32>);

impl<K: Kernel> Kernel for Counting<K> {
    fn generation(&mut self) -> Result<Generation, ObserveError> {
        self.0.generation()
    }
    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError> {
        self.0.tables()
    }
    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError> {
        self.0.keeps_owned_tables()
    }
    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        self.1.set(self.1.get() + 1);
        self.0.observe(wanted)
    }
    fn rule_handles(&mut self, table: &TableId, chain: &ChainName) -> Result<Vec<Handle>, ObserveError> {
        self.0.rule_handles(table, chain)
    }
    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        self.0.send(transaction)
    }
}

fn patches<K: Kernel>(kernel: K) {
    let mut kernel = Counting(kernel, Cell::new(0));
    let id = proxy().id().clone();
    let mut retained = RetainedRuleset::new(Ruleset::new().table(proxy()));
    retained.reconcile(&mut kernel).unwrap();
    let read = kernel.1.get();
    let holds = |kernel: &mut Counting<K>, retained: &RetainedRuleset| {
        let observed = kernel.0.observe(&retained.desired().scope()).unwrap();
        assert_eq!(diff(retained.desired(), &observed).to_string(), "");
        assert_eq!(Some(observed.generation), retained.held());
    };

    // An endpoint goes, another comes: the rule of the one that stays keeps its handle.
    let handles = kernel.rule_handles(&id, &chain("service-1")).unwrap();
    let patch = patch_of(service_chains(1, &[2, 3])).without_chain(chain("endpoint-1-1"));
    retained.patch(&mut kernel, &id, patch).unwrap();
    holds(&mut kernel, &retained);
    assert_eq!(kernel.rule_handles(&id, &chain("service-1")).unwrap()[0], handles[1]);

    // A service comes, another goes.
    let patch = patch_of(service_chains(3, &[1])).element(&set("services"), element(3));
    retained.patch(&mut kernel, &id, patch).unwrap();
    holds(&mut kernel, &retained);
    let patch = ["service-2", "endpoint-2-1", "endpoint-2-2"]
        .into_iter()
        .fold(TablePatch::new(), |patch, gone| patch.without_chain(chain(gone)))
        .without_element(&set("services"), 2);
    retained.patch(&mut kernel, &id, patch).unwrap();
    holds(&mut kernel, &retained);

    // Ranges that overlap are merged.
    let patch = TablePatch::new().element(&set("local"), net4("10.0.0.0/16"));
    retained.patch(&mut kernel, &id, patch).unwrap();
    holds(&mut kernel, &retained);
    let patch = TablePatch::new()
        .without_element(&set("local"), net4("10.0.0.0/16"))
        .element(&set("local"), net4("10.0.7.0/24"));
    retained.patch(&mut kernel, &id, patch.clone()).unwrap();
    holds(&mut kernel, &retained);

    // The same again changes nothing.
    assert!(matches!(retained.patch(&mut kernel, &id, patch), Ok(Outcome::Unchanged { .. })));
    assert_eq!(kernel.1.get(), read, "a patch read the whole table");

    // What is invalid or refused leaves the ruleset as it was.
    let before = retained.desired().to_string();
    let missing = patch_of(vec![Chain::regular(chain("service-1")).rule(Rule::new().goto(&chain("gone")))]);
    let error = retained.patch(&mut kernel, &id, missing).unwrap_err();
    assert!(matches!(error, ConvergeError::Seal(_)), "{error:?}");
    let wrong =
        TablePatch::new().without_chain(chain("service-1")).element(&set("services"), Element::new(9));
    assert!(matches!(retained.patch(&mut kernel, &id, wrong), Err(ConvergeError::Seal(_))));
    let used = TablePatch::new().without_chain(chain("endpoint-3-1"));
    let error = retained.patch(&mut kernel, &id, used).unwrap_err();
    assert!(matches!(error, ConvergeError::Commit(CommitError::Refused { .. })), "{error:?}");
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&retained.desired().to_string()), lines(&before));
    holds(&mut kernel, &retained);
    assert_eq!(kernel.1.get(), read);

    // Somebody else changed the table: the patch repairs that too.
    let mut foreign = Transaction::unchecked();
    foreign.flush_chain(&id, &chain("service-1"));
    foreign.seal().unwrap().commit(&mut kernel).unwrap();
    let patch = patch_of(service_chains(4, &[1])).element(&set("services"), element(4));
    retained.patch(&mut kernel, &id, patch).unwrap();
    holds(&mut kernel, &retained);
    assert!(kernel.1.get() > read);
}

#[test]
fn a_patch_changes_what_it_names() {
    patches(FakeKernel::default());
}

#[test]
fn the_kernel_takes_the_same_patches() {
    netns(|| {
        patches(Netlink::open().unwrap());
        assert!(sh("nft list table ip proxy").contains("4 : goto service-4"));
    });
}
