//! What goes wrong leaves the kernel at all-old or all-new, and the error says which.

use std::error::Error as _;

use crate::common::*;
use flannel_netlink::{Protocol, Socket};
use flannel_nft::*;
use testkit::{causes, netns, sh};

#[test]
fn a_refusal_names_the_operation_the_object_and_the_reason() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let mut transaction = Transaction::unchecked();
        transaction.add_table(&Table::new(Family::Ip, TableName::new("t").unwrap()));
        transaction.add_chain(&id("t"), &Chain::regular(chain("c")));
        transaction.append_rule(
            &id("t"),
            &chain("c"),
            &Rule::new().when(tcp::dport(22)).jump(&chain("nowhere")),
        );
        let error = transaction.seal().unwrap().commit(&mut kernel).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel refused `add rule ip t c tcp dport 22 jump nowhere` because of its expressions; nothing was applied"
        );
        let reason = error.source().unwrap().to_string();
        assert_eq!(
            reason,
            "No such file or directory (ENOENT): the table has no chain of this name; add it in the same transaction, \
             before the rule"
        );
        assert!(!error.may_be_applied());
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named_with_its_module() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let rule = Rule::new().queue(Queue::number(1));
        let table = Table::new(Family::Ip, TableName::new("t").unwrap());
        let base = Base::new(ChainKind::Filter, Hook::Forward, Priority::FILTER);
        let desired = Ruleset::new().table(table.chain(Chain::base(chain("c"), base).rule(rule)));
        match converge(&mut kernel, &desired) {
            Ok(_) => eprintln!("this kernel has CONFIG_NFT_QUEUE"),
            Err(error) => {
                let lacks = ": this kernel lacks `queue` (CONFIG_NFT_QUEUE); run `modprobe nft_queue` on the host, or use a \
                             kernel that has it";
                assert!(causes(&error).ends_with(lacks), "{}", causes(&error));
            }
        }
    });
}

type Step = Box<dyn Fn(&mut Transaction<Building>)>;

/// What it takes to make [`flannel`]'s IPv4 table anew, message by message.
fn steps() -> Vec<Step> {
    let table = flannel().tables()[0].clone();
    let id = table.id().clone();
    let mut steps: Vec<Step> = Vec::new();
    let mut step = |each: Step| steps.push(each);
    let plain = Table::new(id.family, id.name.clone());
    step(Box::new(move |t| t.add_table(&plain)));
    let (old, again) = (id.clone(), table.clone());
    step(Box::new(move |t| t.delete_table(&old)));
    step(Box::new(move |t| t.add_table(&again)));
    for counter in table.counters().to_vec() {
        let id = id.clone();
        step(Box::new(move |t| t.add_counter(&id, &counter)));
    }
    for set in table.sets().to_vec() {
        let (here, there, same) = (id.clone(), id.clone(), set.clone());
        step(Box::new(move |t| t.add_set(&here, &set)));
        step(Box::new(move |t| t.add_elements(&there, &same)));
    }
    for chain in table.chains().to_vec() {
        let (id, name) = (id.clone(), chain.name().clone());
        let here = id.clone();
        let rules = chain.list().to_vec();
        step(Box::new(move |t| t.add_chain(&here, &chain)));
        for rule in rules {
            let (id, name) = (id.clone(), name.clone());
            step(Box::new(move |t| t.append_rule(&id, &name, &rule)));
        }
    }
    steps
}

#[test]
fn whichever_message_is_refused_nothing_is_applied() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let steps = steps();
        // A first start, then a table in use.
        for before in [Ruleset::new(), flannel()] {
            converge(&mut kernel, &before).unwrap();
            let before = sh("nft -a list ruleset");
            for refused in 0..=steps.len() {
                let mut transaction = Transaction::unchecked();
                steps.iter().take(refused).for_each(|step| step(&mut transaction));
                transaction.delete_chain(&id("flannel-ipv4"), &chain("absent"));
                steps.iter().skip(refused).for_each(|step| step(&mut transaction));
                let error = transaction.seal().unwrap().commit(&mut kernel).unwrap_err();
                assert!(!error.may_be_applied());
                let CommitError::Refused { operation, .. } = error else { panic!("{refused}: {error:?}") };
                assert_eq!(operation, "delete chain ip flannel-ipv4 absent");
                assert_eq!(sh("nft -a list ruleset"), before, "message {refused} refused");
            }
        }
        let mut transaction = Transaction::unchecked();
        steps.iter().for_each(|step| step(&mut transaction));
        transaction.seal().unwrap().commit(&mut kernel).unwrap();
        assert!(matches!(converge(&mut kernel, &flannel()).unwrap(), Outcome::Unchanged { .. }), "all of it");
    });
}

#[test]
fn a_receive_buffer_that_holds_no_reply_hides_nothing() {
    netns(|| {
        let socket = Socket::open_limited(Protocol::Netfilter, 1).unwrap();
        let mut kernel = Netlink::over(socket);
        let big = |marks: std::ops::Range<u32>| {
            let rules = marks.map(|mark| Rule::new().when(meta::mark(mark)).accept());
            let table = Table::new(Family::Ip, TableName::new("big").unwrap());
            Ruleset::new().table(table.chain(Chain::regular(chain("c")).rules(rules)))
        };
        // What it says of a commit that is taken is one message, and listings wait for their reader.
        converge(&mut kernel, &big(0..2_000)).unwrap();
        let before = observe(&mut kernel, &[id("big")]).unwrap();
        assert_eq!(before.ruleset.tables()[0].chains()[0].list().len(), 2_000);
        // Refusals of 2 000 messages are more than it holds.
        let refused = |mut transaction: Transaction<Building>| {
            for number in 0..2_000 {
                transaction.delete_chain(&id("big"), &chain(&format!("c{number}")));
            }
            transaction.seal().unwrap()
        };
        let error = refused(Transaction::at(before.generation)).commit(&mut kernel).unwrap_err();
        assert!(matches!(error, CommitError::Lost(_)), "{error:?}");
        assert!(!error.may_be_applied());
        let error = refused(Transaction::unchecked()).commit(&mut kernel).unwrap_err();
        assert!(matches!(error, CommitError::Unanswered { .. }), "nobody can tell: {error:?}");
        assert!(error.may_be_applied());
        let after = observe(&mut kernel, &[id("big")]).unwrap();
        assert_eq!(after.generation, before.generation);
        assert_eq!(after.ruleset.to_string(), before.ruleset.to_string());
        // And the same socket goes on.
        assert!(matches!(
            converge(&mut kernel, &big(5..2_005)).unwrap(),
            Outcome::Changed { changes: 10, .. }
        ));
    });
}

#[test]
fn a_stale_transaction_changes_nothing() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let observed = observe(&mut kernel, &flannel().scope()).unwrap();
        let sealed = diff(&flannel(), &observed).seal().unwrap();
        sh("nft add table ip other");
        assert!(matches!(sealed.commit(&mut kernel), Err(CommitError::Stale)));
        assert_eq!(sh("nft list tables").trim_end(), "table ip other");
        converge(&mut kernel, &flannel()).unwrap();
        assert!(sh("nft list ruleset").starts_with("table ip other"));
    });
}

#[test]
fn a_commit_that_has_no_effect_makes_no_generation() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &flannel()).unwrap();
        let before = observe(&mut kernel, &[]).unwrap().generation;
        let mut transaction = Transaction::at(before);
        transaction.add_table(&Table::new(Family::Ip, TableName::new("flannel-ipv4").unwrap()));
        let after = transaction.seal().unwrap().commit(&mut kernel).unwrap().unwrap();
        assert_eq!(after, observe(&mut kernel, &[]).unwrap().generation, "of the kernel");
        assert_eq!(after, before, "so that the next change of others is noticed");
    });
}

/// A kernel in which another process runs a script before each of our sends, so often.
struct Disturbed<'k> {
    kernel: &'k mut Netlink,
    script: &'static str,
    times: u32,
}

impl Kernel for Disturbed<'_> {
    fn generation(&mut self) -> Result<Generation, ObserveError> {
        self.kernel.generation()
    }

    fn tables(&mut self) -> Result<Vec<TableId>, ObserveError> {
        self.kernel.tables()
    }

    fn keeps_owned_tables(&mut self) -> Result<bool, ObserveError> {
        self.kernel.keeps_owned_tables()
    }

    fn observe(&mut self, wanted: &[TableId]) -> Result<Observed, ObserveError> {
        self.kernel.observe(wanted)
    }

    fn send(&mut self, transaction: &mut Transaction<Sealed>) -> Result<Option<Generation>, CommitError> {
        if self.times > 0 {
            self.times -= 1;
            sh(self.script);
        }
        self.kernel.send(transaction)
    }
}

#[test]
fn converge_begins_anew_when_others_were_first_but_not_for_ever() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        // Changes of other tables delay nothing.
        let script = "nft add table ip other; nft add chain ip other c; nft delete table ip other";
        converge(&mut Disturbed { kernel: &mut kernel, script, times: 100 }, &flannel()).unwrap();
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        sh("nft flush ruleset");
        let script = "nft add table ip flannel-ipv4; nft delete table ip flannel-ipv4";
        converge(&mut Disturbed { kernel: &mut kernel, script, times: 3 }, &flannel()).unwrap();
        assert_eq!(sh("nft list ruleset").trim_end(), flannel().to_string().trim_end());
        sh("nft flush ruleset");
        let mut disturbed = Disturbed { kernel: &mut kernel, script, times: 100 };
        let error = converge(&mut disturbed, &flannel()).unwrap_err();
        assert!(matches!(error, ConvergeError::Contended { attempts: 16 }), "{error}");
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn a_set_is_read_whole_while_the_kernel_enlarges_it() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let table = || Table::new(Family::Ip, TableName::new("big").unwrap());
        // A hash table grows when it is three quarters full: just behind that it is being enlarged.
        for marks in [49_200_u32, 49_200] {
            let full = Set::new(set("s"), Datatype::Mark).elements((0..marks).map(Value::mark));
            let desired = Ruleset::new().table(table().set(full));
            let mut transaction = Transaction::unchecked();
            transaction.replace(&desired.tables()[0]);
            transaction.seal().unwrap().commit(&mut kernel).unwrap();
            let observed = observe(&mut kernel, &desired.scope()).unwrap();
            let read = observed.ruleset.tables()[0].sets()[0].len();
            assert_eq!(read, usize::try_from(marks).unwrap());
        }
    });
}

#[test]
fn a_batch_larger_than_any_default_buffer_is_one_commit() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let rules = (0..3000).map(|number| Rule::new().when(meta::mark(number)).accept());
        let table = Table::new(Family::Ip, TableName::new("big").unwrap())
            .chain(Chain::regular(chain("c")).rules(rules))
            .set(Set::new(set("s"), Datatype::Mark).elements((0..20_000).map(Value::mark)));
        let desired = Ruleset::new().table(table);
        let before = generation(&mut kernel).unwrap();
        let outcome = converge(&mut kernel, &desired).unwrap();
        assert_eq!(outcome.generation(), before.next());
        assert!(matches!(converge(&mut kernel, &desired).unwrap(), Outcome::Unchanged { .. }));
        // All of it refused: every message comes back, and the first is named.
        let mut transaction = Transaction::unchecked();
        for number in 0..2000 {
            transaction.delete_chain(&id("big"), &chain(&format!("c{number}")));
        }
        match transaction.seal().unwrap().commit(&mut kernel) {
            Err(CommitError::Refused { operation, .. }) => assert_eq!(operation, "delete chain ip big c0"),
            other => panic!("{other:?}"),
        }
    });
}
