//! Three nodes whose pods all talk, while things are done to one of them. `make bench BENCH=outage` measures how long
//! each takes; here each only has to end, and to leave the others alone.

use std::time::Duration;

use testkit::{Daemon, Disturbance, Flannel, Lab, Node, Pod, may_make_namespaces};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn what_is_done_to_one_node_is_repaired_and_costs_the_others_no_packet() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let binary = env!("CARGO_BIN_EXE_flanneld");
    let flannel = Flannel::new(&lab, binary, Flannel::NET_CONF).unwrap().by_default_route();
    let mut join = || -> (Node, Daemon, Pod) {
        let mut node = lab.add_node().unwrap();
        let daemon = flannel.start_ready(&node, SOON).unwrap();
        let pod = node.add_pod().unwrap();
        (node, daemon, pod)
    };
    let nodes = [join(), join(), join()];
    let nothing = Disturbance::ALL[0];
    // Each begins with waiting until every pod reaches every other, so the last one shows that the one before ended.
    for disturbance in Disturbance::ALL.iter().chain([&nothing]) {
        let disturbed = disturbance.on(&nodes, Duration::from_millis(200));
        let disturbed = disturbed.unwrap_or_else(|error| panic!("before {}: {error}", disturbance.what));
        assert!(disturbed.others_sent > 0, "{}: {disturbed:?}", disturbance.what);
        assert_eq!(disturbed.others_lost, 0, "{}: {disturbed:?}", disturbance.what);
    }
}
