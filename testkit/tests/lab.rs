//! The lab itself: what it makes, what it removes, and that its counters can fail.
#![expect(clippy::unwrap_used, reason = "set-up that fails is a failed test")]

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::{
    Lab, LabError, NewFlows, NewFlowsReport, Node, Pod, RoundTrips, may_make_namespaces, sh, wait_for,
};

const SUBNET_ENV: &str = "\
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.7.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/56
FLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64
FLANNEL_MTU=1430
FLANNEL_IPMASQ=true
";

/// In one transaction, as everything should be.
const MASQUERADE: &str = "\
table ip masq { chain postrtg { type nat hook postrouting priority srcnat; \
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random; }; }
table ip6 masq { chain postrtg { type nat hook postrouting priority srcnat; \
    ip6 saddr fd00:10:244::/56 ip6 daddr != fd00:10:244::/56 masquerade fully-random; }; }
";

const PER_SECOND: u32 = 4_000;

fn node_with_pod(lab: &mut Lab) -> (Node, Pod) {
    let mut node = lab.add_node().unwrap();
    fs::write(node.subnet_file(), SUBNET_ENV).unwrap();
    load(&node, MASQUERADE);
    let pod = node.add_pod().unwrap();
    (node, pod)
}

fn load(node: &Node, ruleset: &str) {
    let file = node.folder().join("ruleset.nft");
    fs::write(&file, ruleset).unwrap();
    node.namespace().sh(&format!("nft -f {}", file.display())).unwrap();
}

/// What a stream counts for half a second around `meanwhile`.
fn stream(lab: &Lab, pod: &Pod, meanwhile: impl FnOnce()) -> NewFlowsReport {
    let flows = NewFlows::start(pod, lab.outside(), &[Lab::OUTSIDE_V4, Lab::OUTSIDE_V6], PER_SECOND).unwrap();
    pause(250);
    meanwhile();
    pause(250);
    flows.stop().unwrap()
}

/// The streams need time to pass; nothing here waits for an event by it. How much they send meanwhile is up to the
/// processor: what is asked of their numbers only shows that they ran.
fn pause(milliseconds: u64) {
    let until = Instant::now() + Duration::from_millis(milliseconds);
    wait_for(Duration::from_secs(5), || (Instant::now() >= until).then_some(()));
}

#[test]
fn pods_are_made_as_the_flannel_cni_plugin_makes_them() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, pod) = node_with_pod(&mut lab);

    assert_eq!(pod.v4().unwrap().to_string(), "10.244.7.2");
    assert_eq!(pod.v6().unwrap().to_string(), "fd00:10:244:7::2");
    let routes = pod.namespace().sh("ip route; ip -6 route").unwrap();
    assert!(routes.contains("default via 10.244.7.1 dev eth0"), "{routes}");
    assert!(routes.contains("10.244.0.0/16 via 10.244.7.1 dev eth0"), "{routes}");
    assert!(routes.contains("fd00:10:244::/56 via fd00:10:244:7::1 dev eth0"), "{routes}");
    assert!(pod.namespace().sh("ip link show eth0").unwrap().contains("mtu 1430"));
    assert!(node.namespace().sh("ip addr show cni0").unwrap().contains("inet 10.244.7.1/24"));
    assert_eq!(node.namespace().sh("iptables-save").unwrap(), "", "the daemon masquerades, not the plugin");
}

#[test]
fn the_outside_host_shows_who_a_packet_seems_to_come_from() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, pod) = node_with_pod(&mut lab);
    assert_eq!(pod.seen_by(lab.outside(), Lab::OUTSIDE_V4).unwrap(), IpAddr::V4(node.v4()));
    assert_eq!(pod.seen_by(lab.outside(), Lab::OUTSIDE_V6).unwrap(), IpAddr::V6(node.v6()));
    assert!(pod.namespace().reaches(Lab::OUTSIDE_V4, Duration::from_secs(10)).unwrap());

    load(&node, "flush ruleset");
    for (target, own) in [Lab::OUTSIDE_V4, Lab::OUTSIDE_V6].into_iter().zip(pod.addresses()) {
        assert_eq!(pod.seen_by(lab.outside(), target).unwrap(), own);
        assert!(pod.namespace().ping(target).is_err(), "the outside host knows no way to a pod");
        assert!(!pod.namespace().reaches(target, Duration::from_millis(50)).unwrap());
    }
}

#[test]
fn new_flows_are_counted_exactly_in_both_families() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, pod) = node_with_pod(&mut lab);
    let report = stream(&lab, &pod, || ());
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");
    assert!(report.sent > 10, "{report:?}");
    assert_eq!(report.sources.values().sum::<u64>(), report.sent);
    assert_eq!(
        report.sources.keys().copied().collect::<Vec<_>>(),
        [IpAddr::V4(node.v4()), IpAddr::V6(node.v6())]
    );
}

#[test]
fn one_batch_leaks_nothing_and_two_batches_leak() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, pod) = node_with_pod(&mut lab);
    let replaced = format!("delete table ip masq\ndelete table ip6 masq\n{MASQUERADE}");
    let report = stream(&lab, &pod, || (0..5).for_each(|_| load(&node, &replaced)));
    assert_eq!((report.lost, report.unmasqueraded), (0, 0), "{report:?}");

    let report = stream(&lab, &pod, || {
        load(&node, "delete table ip masq\ndelete table ip6 masq");
        pause(500);
        load(&node, MASQUERADE);
    });
    assert!(report.unmasqueraded > 5, "{report:?}");
    assert!(report.gap >= Duration::from_millis(40), "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn dropped_packets_are_counted_as_lost() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, pod) = node_with_pod(&mut lab);
    let wall = "table inet wall { chain forward { type filter hook forward priority 0; policy drop; }; }";
    let report = stream(&lab, &pod, || {
        load(&node, wall);
        pause(500);
        load(&node, "delete table inet wall");
    });
    assert!(report.lost > 5 && report.lost < report.sent, "{report:?}");
    assert_eq!(report.sources.values().sum::<u64>(), report.sent - report.lost);
}

#[test]
fn round_trips_show_when_packets_were_lost() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (mut node, pod) = node_with_pod(&mut lab);
    let other = node.add_pod().unwrap();
    let target = IpAddr::V4(other.v4().unwrap());

    let steady = RoundTrips::start(&pod, &other, target, 500).unwrap();
    pause(300);
    let report = steady.stop().unwrap();
    assert_eq!(report.lost, 0, "{report:?}");
    assert!(report.sent > 5, "{report:?}");

    let broken = RoundTrips::start(&pod, &other, target, 500).unwrap();
    pause(500);
    other.namespace().sh("ip link set eth0 down").unwrap();
    pause(1_000);
    let report = broken.stop().unwrap();
    assert!(report.lost > 2, "{report:?}");
    assert_eq!(report.lost_by_interval.first(), Some(&0), "{report:?}");
    assert!(report.longest_silence >= Duration::from_millis(200), "{report:?}");
}

#[test]
fn a_lab_removes_what_it_made_and_what_dead_runs_left() {
    if !may_make_namespaces() {
        return;
    }
    // As long as the run lives, no lab of this or another process takes its things for left behind.
    let mut run = Command::new("sleep").arg("100").spawn().unwrap();
    let left = format!("flannel-lab-{}-0-node1", run.id());
    let folder_left = std::env::temp_dir().join(format!("flannel-lab-{}-0", run.id()));
    sh(&format!("ip netns add {left}; mkdir -p {}/node1", folder_left.display()));
    let mut orphan = Command::new("ip").args(["netns", "exec", &left, "sleep", "100"]).spawn().unwrap();
    let entered = || sh(&format!("ip netns pids {left}")).lines().next().map(drop);
    wait_for(Duration::from_secs(5), entered).unwrap();
    drop(Lab::new().unwrap());
    assert!(folder_left.exists() && entered().is_some(), "a run that lives keeps what it made");

    run.kill().unwrap();
    run.wait().unwrap();
    let mut lab = Lab::new().unwrap();
    // Another lab may have begun to remove it, and be at it still.
    let gone = || (!sh("ip netns list").contains(&left) && !folder_left.exists()).then_some(());
    wait_for(Duration::from_secs(5), gone).unwrap();
    assert!(!orphan.wait().unwrap().success(), "killed, not left to sleep");

    let (node, pod) = node_with_pod(&mut lab);
    let folder = lab.folder().to_owned();
    let mut sleeper = node.namespace().spawn(Command::new("sleep").arg("100").stdin(Stdio::null())).unwrap();
    let names = [node.namespace().name().to_owned(), pod.namespace().name().to_owned()];
    drop(lab);
    assert!(!sleeper.wait().unwrap().success());
    assert!(!folder.exists());
    let rest = sh("ip netns list");
    assert!(names.iter().all(|name| !rest.contains(name)), "{rest}");
    assert!(matches!(pod.namespace().ping(Lab::OUTSIDE_V4), Err(LabError::System { .. })));
}
