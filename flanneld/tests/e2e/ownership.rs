//! Tables that only the daemon may change, on the real kernel.

use std::time::Duration;

use testkit::{Flannel, Lab, kernel_version, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);

#[test]
fn owned_tables_outlive_a_crash_and_are_taken_up_again_in_place() {
    if kernel_version() < (6, 9) || !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let in_node = |command: &str| node.namespace().sh(command);
    // What an earlier daemon left, with shared tables.
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    in_node("nft add rule ip flannel-ipv4 forward counter").unwrap();
    daemon.kill().unwrap();

    let owner = flannel.clone().arg("--table-ownership=auto");
    let daemon = owner.start_ready(&node, SOON).unwrap();
    let owned = in_node("nft -a list ruleset").unwrap();
    assert!(owned.contains("flags owner"), "{owned}");
    in_node("nft flush ruleset").unwrap();
    assert!(in_node("nft add rule ip flannel-ipv4 forward drop").is_err());
    assert!(in_node("nft delete table ip6 flannel-ipv6").is_err());
    assert_eq!(in_node("nft -a list ruleset").unwrap(), owned, "nobody else changes them");

    let flags = owner.arguments(&node).join(" ");
    let plan = || in_node(&format!("{BINARY} plan {flags}")).unwrap();
    let doctor = || in_node(&format!("{BINARY} doctor {flags} || true")).unwrap();
    assert_eq!(plan(), "# Nothing to change.\n");
    let status = in_node(&format!("{BINARY} status {flags}")).unwrap();
    assert!(status.contains("ip6 flannel-ipv6, as they should be, owned"), "{status}");
    assert!(!doctor().contains("rules:"), "{}", doctor());
    let forced = in_node(&format!("{BINARY} cleanup --force || true")).unwrap();
    assert!(forced.contains("# failed: ") && forced.contains("another process owns the table"), "{forced}");
    assert_eq!(in_node("nft -a list ruleset").unwrap(), owned, "nobody else removes them");

    daemon.kill().unwrap();
    assert!(!doctor().contains("rules:"), "{}", doctor());
    let left = in_node("nft -a list ruleset").unwrap();
    assert!(!left.contains("flags owner"), "{left}");
    assert_eq!(rules_and_handles(&left), rules_and_handles(&owned));

    let daemon = owner.start_ready(&node, SOON).unwrap();
    let again = in_node("nft -a list ruleset").unwrap();
    assert_eq!(again, owned, "taken up in place");

    // Shared again: recreated in one commit, and repaired when other processes flush it.
    daemon.kill().unwrap();
    let _daemon = flannel.start_ready(&node, SOON).unwrap();
    let shared = in_node("nft list ruleset").unwrap();
    assert!(!shared.contains("flags"), "{shared}");
    in_node("nft flush ruleset").unwrap();
    let back = wait_for(SOON, || (in_node("nft list ruleset").unwrap() == shared).then_some(()));
    assert_eq!(back, Some(()));
}

fn rules_and_handles(listing: &str) -> Vec<&str> {
    listing.lines().filter(|line| line.starts_with("\t\t") && line.contains("# handle")).collect()
}
