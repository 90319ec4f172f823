//! Another process keeps undoing what the daemon writes: it backs off, says what is undone, and recovers.

use std::fs;
use std::time::{Duration, Instant};

use flanneld::serve::status_socket;
use flanneld::status::model::{Status, socket};
use testkit::{Daemon, Flannel, Lab, Node, may_make_namespaces, wait_for};

use super::BINARY;

const SOON: Duration = Duration::from_secs(15);
const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;

struct Pair {
    nodes: [Node; 2],
    daemons: [Daemon; 2],
    _lab: Lab,
}

impl Pair {
    fn start() -> Self {
        let mut lab = Lab::new().unwrap();
        let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
        let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
        let daemons = nodes.each_ref().map(|node| flannel.start_ready(node, SOON).unwrap());
        let pair = Self { nodes, daemons, _lab: lab };
        wait_for(SOON, || (pair.status().peers.programmed == 1).then_some(())).expect("it knows its peer");
        pair
    }

    fn status(&self) -> Status {
        status_socket::ask(&socket(&self.nodes[0].subnet_file())).unwrap()
    }

    fn repairs(&self) -> u64 {
        self.status().repair_counts.iter().map(|repairs| repairs.count).sum()
    }

    /// Undoes something in a loop for five seconds. Returns the number of repairs, what `/readyz` said at the end, and how
    /// long after it the node was ready again.
    fn undo(&self, command: &str) -> (u64, String, Duration) {
        let before = self.repairs();
        let script = format!(
            "set +e; end=$(($(date +%s%N) / 1000000 + 5000)); while [ $(($(date +%s%N) / 1000000)) -lt $end ]; do {command}; done 2>/dev/null; true"
        );
        self.nodes[0].namespace().sh(&script).unwrap();
        let told = self.daemons[0].page("/readyz").unwrap();
        let ended = Instant::now();
        let repairs = self.repairs() - before;
        let ready = || (self.daemons[0].status("/readyz").unwrap() == 200).then_some(());
        wait_for(Duration::from_secs(60), ready).expect("it is ready again");
        eprintln!("{command}: {repairs} repairs in 5 s, ready again {:?} later; {told}", ended.elapsed());
        (repairs, told, ended.elapsed())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.daemons[0].log()).unwrap()
    }
}

fn is_undone(command: &str, object: &str, whole: &str) {
    if !may_make_namespaces() {
        return;
    }
    let pair = Pair::start();
    let listing = || pair.nodes[0].namespace().sh(whole).unwrap();
    let made = listing();
    let command = command.replace("PEER", made.split_whitespace().next().unwrap_or_default());
    let (repairs, told, again) = pair.undo(&command);
    assert!(repairs <= 15, "{repairs} repairs");
    let object = object.replace("PEER", made.split_whitespace().next().unwrap_or_default());
    assert!(told.contains("uncontested: ") && told.contains(&object), "{told}");
    assert!(again < Duration::from_secs(20), "{again:?}");
    assert_eq!(listing(), made);
    let log = pair.log();
    assert_eq!(log.matches("keeps undoing").count(), 1, "{log}");
    assert!(log.contains("no longer undoes"), "{log}");
    assert_eq!(pair.daemons[1].status("/readyz").unwrap(), 200);
}

#[test]
fn a_process_that_deletes_our_table_in_a_loop_is_named_and_costs_a_few_commits() {
    is_undone("nft delete table ip flannel-ipv4", "ip flannel-ipv4", "nft -s list table ip flannel-ipv4");
}

#[test]
fn a_process_that_deletes_a_peers_route_in_a_loop_is_named_and_costs_a_few_repairs() {
    is_undone("ip route del PEER", "peer PEER", "ip route show proto 70");
}

#[test]
fn a_process_that_deletes_fdb_entries_in_a_loop_is_named_and_costs_a_few_repairs() {
    let delete = "bridge fdb del $(bridge fdb show dev flannel.1 | cut -d' ' -f1) dev flannel.1";
    is_undone(delete, "peer 10.244.", "bridge fdb show dev flannel.1");
}

#[test]
fn a_process_that_deletes_the_device_in_a_loop_is_named_and_costs_a_few_repairs() {
    is_undone("ip link del flannel.1", "device", "ip route show proto 70 | sed 's/nhid [0-9]*//'");
}

#[test]
fn a_process_that_changes_the_device_in_a_loop_is_named_and_costs_a_few_repairs() {
    is_undone("ip link set flannel.1 mtu 1300", "device", "ip route show proto 70");
}
