//! What a process learns that may not change devices and routes.

use flannel_vxlan::{Kernel as _, Link, Netlink};
use testkit::{netns, without_net_admin};

use crate::{add_peers, both, direct, host};

#[test]
#[ignore = "the next test runs it as a process without capabilities"]
fn attempts() {
    let mut kernel = Netlink::open().unwrap();
    let e0 = kernel.interfaces().unwrap().into_iter().find(|interface| interface.name == "e0").unwrap();
    let mut overlay = both(Link { index: e0.index, name: "e0".parse().unwrap() });
    add_peers(&mut overlay, 2);
    overlay.set_peer(direct("10.244.3.0/24", "192.168.77.3")).unwrap();
    let report = overlay.converge(&mut kernel).unwrap();
    report.refused.iter().for_each(|refused| println!("\nerror: {refused}"));
}

#[test]
fn each_refused_step_names_the_capability_and_the_namespace_that_are_missing() {
    netns(|| {
        host();
        for output in without_net_admin("unprivileged::attempts") {
            let errors: Vec<&str> = output.lines().filter(|line| line.starts_with("error: ")).collect();
            for step in
                ["ip link add flannel.1", "ip link add flannel-v6.1", "ip route replace 10.244.3.0/24"]
            {
                let error = errors.iter().find(|error| error.contains(step)).expect(&output);
                let hint =
                    "this process lacks CAP_NET_ADMIN in the user namespace that owns its network namespace";
                assert!(error.contains(hint) && error.contains("a container: NET_ADMIN"), "{error}");
            }
        }
    });
}
