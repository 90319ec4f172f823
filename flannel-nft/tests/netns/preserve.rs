//! Tables of other programs: nothing in them is lost or misread.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::corpus::{is_displayed, version};
use flannel_nft::*;
use testkit::{in_netns, may_make_namespaces, netns, sh};

/// Rulesets for `nft -f`, one file for each kind of object.
fn corpus() -> Vec<PathBuf> {
    let folder = std::env::var_os("NFT_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preserve"), PathBuf::from);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "nft")).collect();
    files.sort();
    files
}

/// Runs `check` on each file of the corpus, in a namespace in which nft has loaded it, and reports all failures.
fn each(check: impl Fn(&Path) -> Result<(), String> + Sync) {
    if !may_make_namespaces() {
        return;
    }
    let mut failures = Vec::new();
    for file in corpus() {
        let run = || {
            sh(&format!("nft -f {}", file.display()));
            check(&file)
        };
        if let Err(failure) = in_netns(run).unwrap() {
            failures.push(format!("== {}\n{failure}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// `nft list ruleset` without the remaining lifetime of elements, which changes while it is read.
fn listing(command: &str) -> String {
    comparable(&sh(command))
}

fn comparable(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let mut kept = String::new();
        let mut skip = false;
        for word in line.split_inclusive(' ') {
            if skip {
                kept.extend(word.chars().filter(|at| ",}".contains(*at)));
                skip = false;
            } else if word == "expires " {
                skip = true;
            } else {
                kept.push_str(word);
            }
        }
        words.push(kept);
    }
    sorted_elements(&words.join("\n"))
}

/// The same listing with the elements of each set in order: without ranges, the kernel returns them as its table has
/// them.
fn sorted_elements(text: &str) -> String {
    let mut sorted = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("elements = { ") {
        let (elements, after) = inside.split_once(" }").unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        sorted.push_str(&format!("{before}elements = {{ {} }}", elements.join(", ")));
        rest = after;
    }
    sorted + rest
}

fn observe_all(kernel: &mut Netlink) -> Observed {
    let tables = kernel.tables().unwrap();
    observe(kernel, &tables).unwrap()
}

/// The lines of `left` that `right` lacks, and the reverse.
fn compare(left: &str, right: &str) -> Result<(), String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (left, right) = (lines(left), lines(right));
    if left == right {
        return Ok(());
    }
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (left.iter().collect(), right.iter().collect());
    let lost = left.iter().filter(|line| !b.contains(line)).map(|line| format!("- {line}\n"));
    let added = right.iter().filter(|line| !a.contains(line)).map(|line| format!("+ {line}\n"));
    Err(lost.chain(added).collect::<String>() + "order or number of lines differs\n")
}

#[test]
fn converging_to_the_observed_state_changes_nothing() {
    each(|_| {
        let mut kernel = Netlink::open().unwrap();
        let observed = observe_all(&mut kernel);
        match converge(&mut kernel, &observed.ruleset) {
            Ok(Outcome::Unchanged { .. }) => Ok(()),
            Ok(_) => Err(diff(&observed.ruleset, &observed).to_string()),
            Err(error) => Err(format!("{error:?}\n")),
        }
    });
}

/// Sets, objects and tables; `make test-compat` compares them with the newest nft.
#[test]
fn a_listing_of_this_nft_is_displayed_as_it_prints_it() {
    if !may_make_namespaces() || !is_displayed() {
        return;
    }
    each(|_| {
        let observed = observe_all(&mut Netlink::open().unwrap());
        let displayed = version().display(&observed.ruleset).to_string();
        compare(&listing("nft list ruleset"), &comparable(&displayed))
    });
}

#[test]
fn a_copy_lists_identically() {
    each(|_| {
        let before = listing("nft list ruleset");
        let observed = observe_all(&mut Netlink::open().unwrap());
        let copy = || {
            let mut kernel = Netlink::open().unwrap();
            converge(&mut kernel, &observed.ruleset).map_err(|error| format!("{error:?}\n"))?;
            compare(&before, &listing("nft list ruleset"))?;
            match converge(&mut kernel, &observed.ruleset) {
                Ok(Outcome::Unchanged { .. }) => Ok(()),
                Ok(_) => Err(diff(&observed.ruleset, &observe_all(&mut kernel)).to_string()),
                Err(error) => Err(format!("{error:?}\n")),
            }
        };
        in_netns(copy).unwrap()
    });
}

#[test]
fn the_fake_kernel_holds_a_copy_too() {
    each(|_| {
        let observed = observe_all(&mut Netlink::open().unwrap());
        let mut fake = FakeKernel::default();
        converge(&mut fake, &observed.ruleset).map_err(|error| format!("{error:?}\n"))?;
        let held = fake.observe(&observed.ruleset.scope()).unwrap();
        match diff(&observed.ruleset, &held) {
            same if same.is_empty() => Ok(()),
            different => Err(different.to_string()),
        }
    });
}

#[test]
fn objects_read_as_nft_prints_them() {
    netns(|| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preserve/objects.nft");
        sh(&format!("nft -f {}", file.display()));
        let observed = observe_all(&mut Netlink::open().unwrap());
        let printed = sh("nft list ruleset");
        let printed: BTreeSet<&str> = printed.lines().map(|line| line.trim().trim_end_matches(';')).collect();
        let table = &observed.ruleset.tables()[0];
        for object in table.objects() {
            let alone = Table::new(Family::Inet, TableName::new("t").unwrap()).object(object.clone());
            let alone = version().display(&alone).to_string();
            let missing: Vec<&str> =
                alone.lines().map(str::trim).filter(|line| !printed.contains(line)).collect();
            assert!(missing.is_empty(), "{missing:?} is not in\n{printed:#?}");
        }
        assert_eq!(table.objects().len(), 9);
        // Without them, nothing that uses them is left either.
        let id = table.id().clone();
        let empty = Ruleset::new().table(Table::new(id.family, id.name));
        converge(&mut Netlink::open().unwrap(), &empty).unwrap();
        assert_eq!(sh("nft list ruleset"), "table inet t {\n}\n");
    });
}

#[test]
fn an_implicit_chain_reads_as_nft_prints_it() {
    netns(|| {
        sh("nft 'add table ip t; add chain ip t c'");
        sh("nft 'add rule ip t c tcp dport 22 jump { ip saddr 1.1.1.1 accept; tcp dport { 22, 23 } drop; }'");
        sh("nft 'add rule ip t c goto { counter; }'");
        let observed = observe_all(&mut Netlink::open().unwrap());
        assert_eq!(observed.ruleset.to_string(), sh("nft list ruleset"));
        let rule = &observed.ruleset.tables()[0].chains()[0].list()[0];
        assert_eq!(rule.verdicts().collect::<Vec<_>>(), [&Verdict::Accept, &Verdict::Drop]);
        assert_eq!(rule.implicit_chains()[0].list().len(), 2);
        // The script of a copy.
        let script = diff(&observed.ruleset, &FakeKernel::default().observe(&[]).unwrap()).to_string();
        sh(&format!("nft flush ruleset; nft -f - <<'END'\n{script}END"));
        assert_eq!(sh("nft list ruleset"), observed.ruleset.to_string());
    });
}

#[test]
fn names_of_other_programs_need_not_be_utf_8() {
    netns(|| {
        let script = b"table ip odd {\n chain c {\n iifname \"v\xff\" accept comment \"\xfe\"\n}\n}\n";
        let file = std::env::temp_dir().join(format!("not-utf-8-{}.nft", std::process::id()));
        fs::write(&file, script).unwrap();
        sh(&format!("nft -f {}; rm {0}", file.display()));
        let before = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
        let observed = observe_all(&mut Netlink::open().unwrap());
        let rule = &observed.ruleset.tables()[0].chains()[0].list()[0];
        assert_eq!(rule.remark().unwrap().as_bytes(), b"\xfe");
        let copy = || {
            converge(&mut Netlink::open().unwrap(), &observed.ruleset).unwrap();
            assert_eq!(
                std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout,
                before
            );
        };
        in_netns(copy).unwrap();
    });
}

#[test]
fn changing_one_rule_leaves_all_others_as_they_are() {
    each(|_| {
        let mut kernel = Netlink::open().unwrap();
        let observed = observe_all(&mut kernel);
        for table in observed.ruleset.tables() {
            for chain in table.chains() {
                let before = listing("nft -a list ruleset");
                let probe = Rule::new().counter().comment(Comment::new("probe").unwrap());
                let changed: Table = {
                    let mut rules = chain.list().to_vec();
                    rules.insert(rules.len() / 2, probe);
                    let changed = Ruleset::new().table(table.clone());
                    let with = |chain: &Chain| chain.clone().with_rules(rules.clone());
                    changed.tables()[0].clone().chain(with(chain))
                };
                converge(&mut kernel, &Ruleset::new().table(changed))
                    .map_err(|error| format!("{error:?}\n"))?;
                let after = listing("nft -a list ruleset");
                let without: Vec<&str> =
                    after.lines().filter(|line| !line.contains("comment \"probe\"")).collect();
                compare(&before, &without.join("\n"))
                    .map_err(|error| format!("with another rule in {}:\n{error}", chain.name()))?;
                converge(&mut kernel, &Ruleset::new().table(table.clone()))
                    .map_err(|error| format!("{error:?}\n"))?;
                compare(&before, &listing("nft -a list ruleset"))
                    .map_err(|error| format!("without the other rule in {}:\n{error}", chain.name()))?;
            }
        }
        Ok(())
    });
}

#[test]
fn every_rule_can_be_moved_and_written_again() {
    each(|_| {
        let before = listing("nft list ruleset");
        let mut kernel = Netlink::open().unwrap();
        let observed = observe_all(&mut kernel);
        for table in observed.ruleset.tables() {
            for chain in table.chains() {
                let mut rules = chain.list().to_vec();
                rules.reverse();
                let reversed = table.clone().chain(chain.clone().with_rules(rules));
                converge(&mut kernel, &Ruleset::new().table(reversed))
                    .map_err(|error| format!("reversing {}: {error:?}\n", chain.name()))?;
                converge(&mut kernel, &Ruleset::new().table(table.clone()))
                    .map_err(|error| format!("restoring {}: {error:?}\n", chain.name()))?;
            }
        }
        compare(&before, &listing("nft list ruleset"))
    });
}

#[test]
fn every_object_can_be_recreated_whatever_uses_it() {
    each(|_| {
        let mut kernel = Netlink::open().unwrap();
        let observed = observe_all(&mut kernel);
        for table in observed.ruleset.tables() {
            let comment = || Comment::new("recreated").unwrap();
            let counters =
                table.counters().iter().map(|old| table.clone().counter(old.clone().comment(comment())));
            let chains = table.chains().iter().map(|old| table.clone().chain(old.clone().comment(comment())));
            let sets = table.sets().iter().map(|old| table.clone().set(old.clone().comment(comment())));
            let quota = ObjectKind::Quota { bytes: 1 << 30, over: true, used: 0 };
            let is_quota = |old: &&Object| matches!(old.kind(), Some(ObjectKind::Quota { .. }));
            let quotas = table.objects().iter().filter(is_quota);
            let quotas = quotas.map(|old| table.clone().object(Object::new(old.name().clone(), &quota)));
            for changed in counters.chain(chains).chain(sets).chain(quotas) {
                for desired in [changed, table.clone()] {
                    let desired = Ruleset::new().table(desired);
                    converge(&mut kernel, &desired).map_err(|error| format!("{error:?}\n{desired}"))?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn the_counters_of_a_base_chain_are_copied() {
    netns(|| {
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [5:300]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
        sh(&format!("printf '{}' | iptables-nft-restore -c", rules.replace('\n', "\\n")));
        let mut kernel = Netlink::open().unwrap();
        let tables = kernel.tables().unwrap();
        let observed = kernel.observe(&tables).unwrap().ruleset;
        sh("nft flush ruleset");
        converge(&mut kernel, &observed).unwrap();
        let saved = sh("iptables-nft-save -c");
        assert!(saved.contains(":FORWARD DROP [5:300]"), "{saved}");
    });
}
