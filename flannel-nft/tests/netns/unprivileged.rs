//! What a process learns that may not read or change nf_tables.

use std::error::Error;

use flannel_nft::{
    Family, Monitor, Netlink, Ruleset, Table, TableName, Transaction, converge, generation, observe,
};
use testkit::{causes, netns, rerun, without_net_admin};

fn desired() -> Ruleset {
    Ruleset::new().table(Table::new(Family::Ip, TableName::new("pods").unwrap()))
}

#[test]
#[ignore = "the next test runs it as a process without capabilities"]
fn attempts() {
    let mut kernel = Netlink::open().unwrap();
    let mut transaction = Transaction::unchecked();
    transaction.create(&desired().tables()[0]);
    let errors: [Box<dyn Error>; 5] = [
        Box::new(generation(&mut kernel).unwrap_err()),
        Box::new(observe(&mut kernel, &desired().scope()).unwrap_err()),
        Box::new(converge(&mut kernel, &desired()).unwrap_err()),
        Box::new(transaction.seal().unwrap().commit(&mut kernel).unwrap_err()),
        Box::new(Monitor::open(&kernel).unwrap_err()),
    ];
    errors.iter().for_each(|error| println!("\nerror: {}", causes(error.as_ref())));
}

#[test]
fn each_error_names_the_capability_and_the_namespace_that_are_missing() {
    netns(|| {
        for output in without_net_admin("unprivileged::attempts") {
            let errors: Vec<&str> = output.lines().filter(|line| line.starts_with("error: ")).collect();
            assert_eq!(errors.len(), 5, "{output}");
            for error in errors {
                let hint =
                    "this process lacks CAP_NET_ADMIN in the user namespace that owns its network namespace";
                assert!(error.contains(hint) && error.contains("a container: NET_ADMIN"), "{error}");
            }
        }
    });
}

#[test]
#[ignore = "the next test runs it in a user namespace"]
fn convergence() {
    converge(&mut Netlink::open().unwrap(), &desired()).unwrap();
}

#[test]
fn a_rootless_container_with_its_own_network_namespace_has_the_capability() {
    netns(|| drop(rerun("unshare --user --map-root-user --net", "unprivileged::convergence")));
}
