//! What each Debian suite's nft makes of our tables. `make test-compat` unpacks them and runs this; what is asserted here is
//! told in docs/nft-versions.md.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod settings;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::vocabulary;
use flannel_nft::{Netlink, Outcome, Ownership, Ruleset, converge, observe};
use flannel_nft_oracle::{State, differences};
use testkit::{kernel_version, netns, sh};

/// An nft that does not know the flag prints nothing for it, and what it prints then it cannot read.
struct Suite {
    name: &'static str,
    /// The table's line of flags while its owner lives, and whether anybody can load a ruleset with it then.
    owned: &'static str,
    /// The same after the owner's exit.
    left: &'static str,
    /// Whether it can load what it listed after the owner's exit.
    loads_left: bool,
}

const SUITES: [Suite; 4] = [
    Suite { name: "bullseye", owned: "flags ,", left: "flags ,", loads_left: false }, // 0.9.8
    Suite { name: "bookworm", owned: "flags owner", left: "flags ", loads_left: false }, // 1.0.6
    Suite { name: "trixie", owned: "flags owner,persist", left: "flags persist", loads_left: true }, // 1.1.3
    Suite { name: "sid", owned: "flags owner,persist", left: "flags persist", loads_left: true }, // 1.1.7
];

impl Suite {
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let nft = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nft").join(self.name).join("nft");
        let mut nft = Command::new(nft);
        nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = nft.spawn().expect("make test-compat unpacks it");
        nft.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        nft.wait_with_output().unwrap()
    }

    /// `nft list ruleset`, which must neither crash nor complain.
    fn list(&self) -> String {
        let done = self.run(&["list", "ruleset"], "");
        assert!(done.status.success() && done.stderr.is_empty(), "{}: {done:?}", self.name);
        String::from_utf8(done.stdout).unwrap()
    }

    /// `(echo flush ruleset; cat SAVED) | nft -f -`, as Debian's nftables.service loads /etc/nftables.conf.
    fn load(&self, saved: &str) -> bool {
        self.run(&["-f", "-"], &format!("flush ruleset\n{saved}")).status.success()
    }
}

fn owned() -> Ruleset {
    let tables = settings::of_flanneld().pop().unwrap().tables().to_vec();
    tables.into_iter().map(|table| table.ownership(Ownership::Owner)).collect()
}

fn flags(listing: &str) -> Vec<&str> {
    listing
        .lines()
        .map(|line| line.trim_start_matches('\t'))
        .filter(|line| line.starts_with("flags "))
        .collect()
}

#[test]
#[ignore = "needs several versions of nft: make test-compat"]
fn every_nft_lists_shared_tables_as_we_print_them_and_loads_its_listing() {
    for suite in &SUITES {
        for desired in settings::of_flanneld() {
            netns(|| {
                let mut kernel = Netlink::open().unwrap();
                converge(&mut kernel, &desired).unwrap();
                let ours = State::read().unwrap();
                let saved = suite.list();
                assert_eq!(saved.trim_end(), desired.to_string().trim_end(), "{}", suite.name);
                assert!(suite.load(&saved), "{}", suite.name);
                assert_eq!(suite.list(), saved, "{}", suite.name);
                // Not listed by the system's nft yet: of a set that 1.1 has loaded, 1.0 and older crash.
                let loaded = observe(&mut kernel, &desired.scope()).unwrap();
                assert_eq!(loaded.ruleset.to_string(), desired.to_string(), "{}", suite.name);
                converge(&mut kernel, &desired).unwrap();
                assert_eq!(differences(&ours, &State::read().unwrap()), "", "{}", suite.name);

                // Loaded on top of what is there, every rule is there twice until we look.
                assert!(suite.run(&["-f", "-"], &saved).status.success(), "{}", suite.name);
                assert_ne!(suite.list(), saved, "{}", suite.name);
                converge(&mut kernel, &desired).unwrap();
                assert_eq!(differences(&ours, &State::read().unwrap()), "", "{}", suite.name);
            });
        }
    }
}

#[test]
#[ignore = "needs several versions of nft: make test-compat"]
fn no_nft_loads_a_ruleset_with_an_owned_table_and_only_new_ones_do_after_its_owners_exit() {
    if kernel_version() < (6, 9) {
        return;
    }
    for suite in &SUITES {
        netns(|| {
            sh("nft add table ip others");
            let mut kernel = Netlink::open().unwrap();
            converge(&mut kernel, &owned()).unwrap();
            let ours = State::read().unwrap();
            let saved = suite.list();
            assert_eq!(flags(&saved), [suite.owned; 2], "{}", suite.name);
            assert!(!suite.load(&saved), "{}", suite.name);
            assert_eq!(differences(&ours, &State::read().unwrap()), "", "{}: all or nothing", suite.name);
            // What is loaded without our tables replaces everything else, and leaves them alone.
            assert!(suite.load("add table ip others2"), "{}", suite.name);
            assert!(matches!(converge(&mut kernel, &owned()).unwrap(), Outcome::Unchanged { .. }));
            assert!(!sh("nft list tables").contains("others\n"));

            drop(kernel);
            let saved = suite.list();
            assert_eq!(flags(&saved), [suite.left; 2], "{}", suite.name);
            assert_eq!(suite.load(&saved), suite.loads_left, "{}", suite.name);
            // Either way the rules are there, and can be owned again.
            let mut kernel = Netlink::open().unwrap();
            assert!(matches!(converge(&mut kernel, &owned()).unwrap(), Outcome::Changed { changes: 2, .. }));
        });
    }
}

#[test]
#[ignore = "needs several versions of nft: make test-compat"]
fn every_nft_lists_every_word_of_the_vocabulary_and_loads_its_listing() {
    let tables =
        [vocabulary::sets(), vocabulary::matches(), vocabulary::statements(), vocabulary::statements6()];
    for suite in &SUITES {
        for table in tables.clone() {
            netns(|| {
                let desired = Ruleset::new().table(table);
                converge(&mut Netlink::open().unwrap(), &desired).unwrap();
                let saved = suite.list();
                assert!(suite.load(&saved), "{} cannot read\n{saved}", suite.name);
            });
        }
    }
}

#[test]
#[ignore = "needs several versions of nft: make test-compat"]
fn old_nft_crashes_over_a_set_that_a_new_one_loaded_until_we_look() {
    let [old @ .., new, _] = &SUITES;
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let with_set = |rules: &Ruleset| rules.tables().iter().any(|table| !table.sets().is_empty());
        let desired = settings::of_flanneld().into_iter().find(with_set).unwrap();
        converge(&mut kernel, &desired).unwrap();
        assert!(new.load(&new.list()));
        for old in old {
            assert!(!old.run(&["list", "ruleset"], "").status.success(), "{}: mended?", old.name);
        }
        converge(&mut kernel, &desired).unwrap();
        old.iter().for_each(|old| drop(old.list()));
    });
}
