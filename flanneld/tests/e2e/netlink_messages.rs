//! How many changes a daemon asks the kernel for, compared with the committed figures of the benchmark `daemon_start`.
//! How much it reads in two seconds depends on the machine.

use testkit::{Flannel, Lab, NetlinkMessages, may_make_namespaces};

use crate::{BINARY, SOON};

/// A figure of benches/report/daemon_start.json.
fn committed(what: &str) -> u32 {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/report/daemon_start.json");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let row = report["rows"].as_array().unwrap().iter().find(|row| row["what"] == what);
    format!("{}", row.expect(what)["p50"].as_f64().unwrap()).parse().unwrap()
}

#[test]
fn a_start_asks_for_as_many_changes_as_the_committed_report_says() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let _peers = flannel.start_nodes(&mut lab, 2, SOON).unwrap();
    let node = lab.add_node().unwrap();
    // The lease exists before the cold start, as in the benchmark.
    let first = flannel.start_ready(&node, SOON).unwrap();
    first.kill().unwrap();
    node.namespace().sh("ip link del flannel.1; ip link del flannel-v6.1; nft flush ruleset").unwrap();
    for start in ["cold", "warm"] {
        let messages = NetlinkMessages::of_start(&flannel, &node).unwrap();
        let changing = committed(&format!("of these changing something, {start}"));
        assert_eq!(messages.changing, changing, "{start}: {messages:?}");
    }
}
