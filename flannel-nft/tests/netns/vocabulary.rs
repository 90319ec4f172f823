//! Every word of the vocabulary: what we commit is listed as we print it, and nft makes the same of our text.

use std::time::Duration;

use crate::common::vocabulary::*;
use crate::common::*;
use crate::corpus::version;
use flannel_nft::*;
use testkit::{netns, sh};

fn check(table: Table) {
    netns(move || {
        let mut kernel = Netlink::open().unwrap();
        let desired = Ruleset::new().table(table);
        converge(&mut kernel, &desired).unwrap();
        let observed = observe(&mut kernel, &desired.scope()).unwrap();
        assert_eq!(diff(&desired, &observed).to_string(), "", "what was just committed is not recognised");
        assert_eq!(observed.ruleset.to_string(), desired.to_string(), "read back differently");
        let listed = sh("nft list ruleset");
        let displayed = version().display(&desired).to_string();
        assert_eq!(listed.trim_end(), displayed.trim_end(), "nft lists it differently");

        sh("nft flush ruleset");
        let script = desired.to_string();
        let path = std::env::temp_dir().join(format!(
            "flannel-nft-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, script).unwrap();
        sh(&format!("nft -f '{}'", path.display()));
        std::fs::remove_file(path).unwrap();
        let observed = observe(&mut kernel, &desired.scope()).unwrap();
        assert_eq!(diff(&desired, &observed).to_string(), "", "nft made something else of our text");
        assert_eq!(sh("nft list ruleset"), listed);
    });
}

#[test]
fn sets_and_maps() {
    check(sets());
}

#[test]
fn elements_with_a_lifetime_are_not_added_again_and_again() {
    netns(|| {
        let mut kernel = Netlink::open().unwrap();
        let seconds = Duration::from_secs;
        let short = Set::new(set("short"), Datatype::Ipv4Addr).timeout(seconds(3600)).elements([
            Element::new(v4("1.1.1.1")),
            Element::new(v4("1.1.1.2")).timeout(seconds(30)).comment(Comment::new("yo").unwrap()),
            Element::new(v4("1.1.1.3")).timeout(Duration::from_millis(100_001)),
        ]);
        let some = Set::new(set("some"), Datatype::Ipv4Addr).timeouts().elements([
            Element::new(v4("1.1.1.1")),
            Element::new(v4("1.1.1.2")).timeout(seconds(86_400 * 3 + 7_260)),
        ]);
        let table = Table::new(Family::Ip, TableName::new("t").unwrap()).set(short).set(some);
        let desired = Ruleset::new().table(table);
        converge(&mut kernel, &desired).unwrap();
        assert!(matches!(converge(&mut kernel, &desired).unwrap(), Outcome::Unchanged { .. }));
        let listed = sh("nft list ruleset");
        assert!(listed.contains("1.1.1.2 timeout 3d2h1m expires 3d2h"), "{listed}");
    });
}

#[test]
fn conditions() {
    check(matches());
}

#[test]
fn actions() {
    check(statements());
}

#[test]
fn expressions() {
    check(expressions::filters());
}

#[test]
fn translations() {
    check(expressions::translations());
}

#[test]
fn actions_over_ipv6() {
    check(statements6());
}
