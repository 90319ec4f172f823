//! What the daemon says of input that it cannot use, and that it then touches nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{Flannel, Lab, Node, may_make_namespaces, wait_for};

use crate::{BINARY, SOON};

#[test]
fn bad_input_is_one_clear_line_and_leaves_nothing_behind() {
    if !may_make_namespaces() {
        return;
    }
    let good = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    let vxlan = |more: &str| good.replace("\"vxlan\"", &format!("\"vxlan\", {more}"));
    let cases: &[(&str, &str, &[&str], i32, &str)] = &[
        (
            "MTU too high",
            &vxlan(r#""MTU": 1501"#),
            &[],
            1,
            "Backend.MTU 1501 is more than the MTU 1500 of interface eth0",
        ),
        (
            "an interface without address",
            good,
            &["--iface=bare0"],
            1,
            "failed to find IPv4 address for interface bare0, which Network in net-conf.json needs",
        ),
        (
            "host-gw behind a NAT, IPv4",
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#,
            &["--public-ip=203.0.113.5"],
            1,
            "you're on a NAT, which is not supported by host-gw backend: public 203.0.113.5, interface 192.168.77.1",
        ),
        (
            "host-gw behind a NAT, IPv6",
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "host-gw"}}"#,
            &["--public-ipv6=2001:db8::5"],
            1,
            "you're on a NAT, which is not supported by host-gw backend: public 2001:db8::5, interface fd00:77::1",
        ),
        ("no such interface", good, &["--iface=nope0"], 1, "nope0"),
        ("unknown flag", good, &["--bogus"], 2, "-bogus"),
        ("bad flag value", good, &["--healthz-port=notaport"], 2, "--healthz-port"),
        ("no such directory", good, &["--lease-db=/nonexistent/leases.db"], 1, "/nonexistent"),
        ("lease file is a directory", good, &["--lease-db=/proc"], 1, "/proc"),
        ("lease file is no database", good, &["--lease-db=/etc/passwd"], 1, "/etc/passwd"),
    ];
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("ip link add bare0 type bridge").unwrap();
    let before = all_of(&node);
    for (what, net_conf, arguments, code, named) in cases {
        let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
        let (status, stderr) = run_to_end(&flannel, &node, arguments);
        let logged_refusals: Vec<&str> =
            stderr.lines().filter(|line| line.starts_with("flanneld:")).collect();
        assert_eq!(status, Some(*code), "{what}: {stderr}");
        assert_eq!(logged_refusals.len(), 1, "{what}: {stderr}");
        assert!(logged_refusals[0].contains(named), "{what}: {stderr}");
        assert_eq!(all_of(&node), before, "{what}");
        assert!(!flannel.lease_file().exists(), "{what}");
    }
}

#[test]
fn an_ipv6_host_is_told_what_an_ipv4_network_needs_and_nothing_is_touched() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh("ip -4 addr flush dev eth0").unwrap();
    let before = all_of(&node);
    let named = Flannel::new(&lab, BINARY, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#);
    let named = named.unwrap();
    for flannel in [named.clone(), named.by_default_route()] {
        let (status, stderr) = run_to_end(&flannel, &node, &[]);
        let complaint = stderr.lines().find(|line| line.starts_with("flanneld:")).unwrap_or_default();
        assert_eq!(status, Some(1), "{stderr}");
        for word in ["Network in net-conf.json needs", "IPv4", "EnableIPv4", "--iface"] {
            assert!(complaint.contains(word), "{word}: {stderr}");
        }
        assert_eq!(all_of(&node), before);
        assert!(!flannel.lease_file().exists());
    }
}

/// All that a daemon might have touched on a node.
fn all_of(node: &Node) -> (String, bool) {
    let kernel = "ip -o link; ip -o addr; ip route; ip -6 route; ip nexthop; nft list ruleset";
    // An address is tentative for a second or two.
    (node.namespace().sh(kernel).unwrap().replace(" tentative", ""), node.subnet_file().exists())
}

#[test]
fn a_link_that_shrinks_below_the_configured_mtu_is_followed_and_a_restart_goes_on() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1500}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let env = || fs::read_to_string(node.subnet_file()).unwrap();
    let problem = "Backend.MTU 1500 is more than the MTU 1400 of interface eth0";
    let warned = || fs::read_to_string(node.folder().join("flanneld.log")).unwrap().matches(problem).count();

    node.namespace().sh("ip link set eth0 mtu 1400").unwrap();
    assert!(wait_for(SOON, || env().contains("FLANNEL_MTU=1350\n").then_some(())).is_some(), "{}", env());
    assert_eq!(warned(), 1);

    assert!(daemon.terminate().unwrap().success());
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    assert_eq!(warned(), 2);
    assert!(env().contains("FLANNEL_MTU=1350\n"), "{}", env());

    // Another one that the link does not carry either is a mistake of whoever writes it, live and at a start.
    fs::write(flannel.net_conf_file(), net_conf.replace("1500", "1401")).unwrap();
    let refused = "Backend.MTU 1401 is more than the MTU 1400 of interface eth0";
    let page = || daemon.page("/readyz").unwrap();
    assert!(wait_for(SOON, || page().contains(refused).then_some(())).is_some(), "{}", page());
    assert!(env().contains("FLANNEL_MTU=1350\n"), "{}", env());
    assert!(daemon.terminate().unwrap().success());
    let before = all_of(&node);
    let (status, stderr) = run_to_end(&flannel, &node, &[]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains(refused), "{stderr}");
    assert_eq!(all_of(&node), before);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/29", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (status, stderr) = run_to_end(&flannel, &node, &["--healthz-port=x"]);
    assert_eq!(status, Some(2));
    for named in ["healthz-port", "Network", "VNI"] {
        assert!(stderr.contains(named), "{named}: {stderr}");
    }
}

#[test]
fn a_full_range_is_out_of_subnets_and_leaves_nothing_in_the_kernel() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let net_conf = r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.244.9.0", "SubnetMax": "10.244.9.0", "Backend": {"Type": "vxlan"}}"#;
    let flannel = Flannel::new(&lab, BINARY, net_conf).unwrap();
    let (one, two) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    let _first = flannel.start_ready(&one, SOON).unwrap();
    let before = two.namespace().sh("ip -o link; nft list ruleset").unwrap();
    let (status, stderr) = run_to_end(&flannel, &two, &[]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("failed to acquire lease") && stderr.contains("out of subnets"), "{stderr}");
    assert_eq!(two.namespace().sh("ip -o link; nft list ruleset").unwrap(), before);
}

#[test]
fn without_privileges_it_says_what_it_needs() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]).arg(BINARY).args(flannel.arguments(&node));
    let child = node.namespace().spawn(command.stdin(Stdio::null()).stderr(Stdio::piped())).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    assert!(!Path::new(&flannel.lease_file()).exists(), "the lease file is not touched");
}

/// With each limit the daemon either runs or says which limit to raise: it never panics for want of a thread.
#[test]
fn a_limit_of_threads_is_named() {
    if !may_make_namespaces() {
        return;
    }
    // The kernel limits the processes of a user, and those of root not at all.
    const USER: &str = "--reuid=61234";
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    node.namespace().sh(&format!("chmod -R a+rwX {}", lab.folder().display())).unwrap();
    let (mut refused, mut ran) = (0, false);
    for limit in 1..=16 {
        let limit = format!("--nproc={limit}");
        let rights = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin", "--clear-groups"];
        let wrapper = [&["setpriv", USER][..], &rights, &["prlimit", &limit]].concat();
        let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap().wrapped_in(&wrapper);
        let mut daemon = flannel.start(&node).unwrap();
        let ended = wait_for(SOON, || match daemon.exit_status() {
            Some(status) => Some(Some(status)),
            None => (daemon.status("/readyz").ok()? == 200).then_some(None),
        });
        let log = fs::read_to_string(daemon.log()).unwrap();
        assert!(!log.contains("panicked"), "{limit}: {log}");
        match ended.unwrap_or_else(|| panic!("{limit}: {log}")) {
            Some(status) => {
                assert_eq!(status.code(), Some(1), "{limit}: {log}");
                assert!(
                    log.contains("cannot start a thread: raise the limit of processes"),
                    "{limit}: {log}"
                );
                refused += 1;
            }
            None => ran = true,
        }
        drop(daemon);
        fs::remove_file(node.folder().join("flanneld.log")).unwrap();
    }
    assert!(refused > 2 && ran, "{refused} limits were too low");
}

/// Runs a daemon that is expected to give up by itself; its later arguments win over the lab's.
fn run_to_end(flannel: &Flannel, node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let replaced = |argument: &String| {
        let name = argument.split('=').next().unwrap_or_default();
        arguments.iter().any(|own| own.split('=').next() == Some(name))
    };
    let base: Vec<String> =
        flannel.arguments(node).into_iter().filter(|argument| !replaced(argument)).collect();
    let mut command = Command::new(BINARY);
    command.args(base).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = node.namespace().spawn(&mut command).unwrap();
    let ended = wait_for(SOON, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (ended.and_then(|status| status.code()), String::from_utf8(output.stderr).unwrap())
}
