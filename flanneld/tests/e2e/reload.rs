//! Real daemons whose network configuration changes under them.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::etcd_host::{ENDPOINT, Etcd};
use super::replace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Daemon, FakeApi, Flannel, Lab, Node, Pod, RoundTrips, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(15);

/// The demo's configuration with something more in it and in its backend.
fn net_conf(more: &str, backend: &str) -> String {
    format!(
        r#"{{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56"{more}, "Backend": {{"Type": "vxlan"{backend}}}}}"#
    )
}

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

fn hang_up(daemon: &Daemon) {
    let pid = i32::try_from(daemon.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
}

fn mtu_of(node: &Node, mtu: &str) -> bool {
    node.namespace().sh("ip link show flannel.1").unwrap().contains(&format!(" mtu {mtu} "))
}

fn soon(what: &str, holds: impl Fn() -> bool) {
    assert!(wait_for(SOON, || holds().then_some(())).is_some(), "{what}");
}

/// Whom a new flow from a pod to the outside host seems to come from.
fn seen_from(pod: &Pod, lab: &Lab, target: IpAddr) -> SocketAddr {
    let receiver = lab.outside().enter(|| UdpSocket::bind((target, 0)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let address = receiver.local_addr().unwrap();
    let own = pod.addresses().find(|own| own.is_ipv4() == target.is_ipv4()).unwrap();
    let sender = pod.namespace().enter(|| UdpSocket::bind((own, 0)).unwrap()).unwrap();
    let seen = wait_for(SOON, || {
        sender.send_to(b"who am I", address).unwrap();
        receiver.recv_from(&mut [0; 16]).ok()
    });
    let (_, seen) = seen.expect("the packet arrives");
    // The port too, if it is as it was: then nobody has changed anything about the packet.
    let port = if sender.local_addr().unwrap().port() == seen.port() { 0 } else { seen.port() };
    SocketAddr::new(seen.ip(), port)
}

#[test]
fn what_can_change_does_under_traffic_and_no_packet_between_pods_is_lost() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let flannel = Flannel::new(&lab, BINARY, &net_conf("", "")).unwrap();
    let mut daemons = nodes.each_ref().map(|node| flannel.start(node).unwrap());
    for daemon in &mut daemons {
        daemon.ready(SOON).unwrap();
    }
    let pods = nodes.each_mut().map(|node| node.add_pod().unwrap());
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    for outside in [Lab::OUTSIDE_V4, Lab::OUTSIDE_V6] {
        assert!(pods[0].namespace().reaches(outside, SOON).unwrap());
    }
    let node = nodes[0].namespace();
    let sh = |command: &str| node.sh(command).unwrap();
    let own: Vec<IpAddr> = pods[0].addresses().collect();
    let is_bare = |outside| own.contains(&seen_from(&pods[0], &lab, outside).ip());
    let write = |more: &str, backend: &str| {
        fs::write(flannel.net_conf_file(), net_conf(more, backend)).unwrap();
    };
    let env = |line: &str| fs::read_to_string(nodes[0].subnet_file()).unwrap().lines().any(|l| l == line);
    let index = || sh("ip -o link show flannel.1").split(':').next().map(str::to_owned);
    let device = index();
    let streams = pods[1].addresses().map(|target| RoundTrips::start(&pods[0], &pods[1], target, 500));
    let streams: Vec<_> = streams.map(Result::unwrap).collect();

    assert!(!is_bare(Lab::OUTSIDE_V4) && !is_bare(Lab::OUTSIDE_V6));
    write(r#", "NonMasqueradeCIDRs": ["192.168.77.254/32"]"#, "");
    soon("an exemption", || is_bare(Lab::OUTSIDE_V4));
    assert!(!is_bare(Lab::OUTSIDE_V6), "of this address only");
    write(r#", "NonMasqueradeCIDRs": ["10.0.0.0/8", "fd00:77::/64"]"#, "");
    soon("another exemption", || is_bare(Lab::OUTSIDE_V6) && !is_bare(Lab::OUTSIDE_V4));

    write(r#", "IPMasq": false"#, "");
    soon("no masquerading", || is_bare(Lab::OUTSIDE_V4) && is_bare(Lab::OUTSIDE_V6));
    soon("told to the CNI plugin", || env("FLANNEL_IPMASQ=false"));
    assert!(!sh("nft list ruleset").contains("masquerade "), "{}", sh("nft list ruleset"));
    write(r#", "IPMasqFullyRandom": false"#, "");
    let keeps_its_port = || {
        let seen = seen_from(&pods[0], &lab, Lab::OUTSIDE_V4);
        seen.ip() == IpAddr::V4(nodes[0].v4()) && seen.port() == 0
    };
    soon("masquerading under the port that the pod chose", keeps_its_port);
    soon("told to the CNI plugin", || env("FLANNEL_IPMASQ=true"));
    write("", "");
    soon("masquerading under another port", || !keeps_its_port());

    write("", r#", "MTU": 1400"#);
    soon("another MTU", || sh("ip link show flannel.1").contains("mtu 1350"));
    soon("of IPv6 too", || sh("ip link show flannel-v6.1").contains("mtu 1330"));
    soon("told to the CNI plugin", || env("FLANNEL_MTU=1350"));

    let way = || {
        let target = pods[1].addresses().find(IpAddr::is_ipv4).unwrap();
        sh(&format!("ip route get {target}"))
    };
    assert!(way().contains("dev flannel.1"), "{}", way());
    write("", r#", "DirectRouting": true"#);
    soon("packets go unwrapped", || way().contains("dev eth0"));
    write("", r#", "Learning": true"#);
    soon("packets go wrapped again", || way().contains("dev flannel.1"));
    soon("the device learns", || !sh("ip -d link show flannel.1").contains("nolearning"));
    write("", r#", "TxChecksumOffload": "off""#);
    soon("checksums are made here", || {
        sh("ethtool -k flannel.1").contains("tx-checksum-ip-generic: off")
            && sh("ip -d link show flannel.1").contains("nolearning")
    });
    write("", "");
    let by_the_card = || sh("ethtool -k flannel.1").contains("tx-checksum-ip-generic: on");
    soon("and by the card again, as nobody says otherwise", by_the_card);
    write("", r#", "TxChecksumOffload": "off""#);
    soon("checksums are made here again", || !by_the_card());
    write("", r#", "TxChecksumOffload": "on""#);
    soon("and by the card again", by_the_card);

    for stream in streams {
        let report = stream.stop().unwrap();
        assert_eq!(report.lost, 0, "{report:?}");
        assert!(report.sent > 20, "{report:?}");
    }
    assert_eq!(index(), device, "the device is never recreated");
    assert_eq!(daemons[0].page("/readyz").unwrap(), "flanneld is ready", "{}", log_of(&nodes[0]));
}

/// All that a daemon writes to a node's kernel, and for the CNI plugin.
fn state(node: &Node) -> String {
    let kernel = "nft list ruleset; ip -d link show flannel.1; ip -o addr; ip route; ip -6 route; ip nexthop; bridge fdb show dev flannel.1";
    // Statistics of links and lifetimes of addresses are not asked for; what is left must not change.
    node.namespace().sh(kernel).unwrap() + &fs::read_to_string(node.subnet_file()).unwrap()
}

#[test]
fn what_cannot_change_or_cannot_be_read_is_named_and_nothing_moves() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, &net_conf("", "")).unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let file = flannel.net_conf_file();
    soon("duplicate address checks are over", || !state(&node).contains("tentative"));
    let before = state(&node);
    let is_well = || daemon.page("/readyz").unwrap() == "flanneld is ready";

    let whole = net_conf("", "");
    for (text, named) in [
        (whole.replace("10.244.", "10.245."), "Network 10.244.0.0/16 -> 10.245.0.0/16"),
        (net_conf(r#", "SubnetLen": 26"#, ""), "SubnetLen 24 -> 26"),
        (net_conf(r#", "IPMasq": false"#, r#", "VNI": 7, "MTU": 1400"#), "Backend.VNI 1 -> 7"),
        (net_conf("", r#", "Port": 4789"#), "Backend.Port 8472 -> 4789"),
        (whole.replace("\"vxlan\"", "\"host-gw\""), "Backend.Type vxlan -> host-gw"),
        (whole.replace("\"EnableIPv6\": true", "\"EnableIPv6\": false"), "EnableIPv6 true -> false"),
        (whole[..60].to_owned(), "unexpected end of JSON input"),
        (net_conf(r#", "IPMasq": "no""#, ""), "IPMasq: json: cannot unmarshal string"),
        (net_conf(r#", "NonMasqueradeCIDRs": ["10.0.0.0/33"]"#, ""), "invalid CIDR address: 10.0.0.0/33"),
        (net_conf("", r#", "MTU": 100"#), "Backend.MTU: 100 leaves no room"),
        (String::new(), "unexpected end of JSON input"),
        ("\u{0}\u{1}".to_owned(), "invalid JSON"),
    ] {
        fs::write(&file, &text).unwrap();
        let page = || daemon.page("/readyz").unwrap();
        soon(named, || page().contains("note: configuration: ") && page().contains(named));
        assert_eq!(daemon.status("/readyz").unwrap(), 200, "what is in force stays in force");
        fs::write(&file, &whole).unwrap();
        soon("no complaint stays", is_well);
    }
    fs::remove_file(&file).unwrap();
    soon("a file that is gone", || daemon.page("/readyz").unwrap().contains("net-conf.json: No such file"));
    hang_up(&daemon);
    soon("SIGHUP is answered", || log_of(&node).contains("rereading the network configuration"));
    fs::write(&file, &whole).unwrap();
    soon("no complaint stays", is_well);
    assert_eq!(state(&node), before);
    let logged_refusals = log_of(&node).matches("keeping the present network configuration").count();
    assert!(
        (13..=15).contains(&logged_refusals),
        "each is logged, and not again and again: {logged_refusals}"
    );
}

#[test]
fn a_storm_of_hangups_and_changes_ends_with_what_was_written_last() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, &net_conf("", "")).unwrap();
    // From before it is ready.
    let mut daemon = flannel.start(&node).unwrap();
    soon("it is running", || log_of(&node).contains("CLI flags config"));
    for _ in 0..100 {
        hang_up(&daemon);
    }
    daemon.ready(SOON).unwrap();
    for number in 0..200_u16 {
        let mtu = 1300 + number;
        let other = flannel.net_conf_file().with_extension("new");
        let text = net_conf(r#", "IPv6SubnetLen": 64"#, &format!(r#", "MTU": {}"#, 1350.max(mtu)));
        fs::write(&other, text).unwrap();
        fs::rename(&other, flannel.net_conf_file()).unwrap();
        for _ in 0..20 {
            hang_up(&daemon);
        }
    }
    soon("the last MTU", || mtu_of(&node, "1449"));
    assert_eq!(daemon.page("/readyz").unwrap(), "flanneld is ready");
    assert!(daemon.terminate().unwrap().success());
}

/// A new version of a mounted `ConfigMap`, made as the kubelet does it (`pkg/volume/util/atomic_writer.go`).
fn publish(volume: &Path, version: u8, text: &str) {
    let data = volume.join(format!("..2026_11_21_{version}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("net-conf.json"), text).unwrap();
    symlink(data.file_name().unwrap(), volume.join("..data_tmp")).unwrap();
    let before = fs::read_link(volume.join("..data"));
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    match before {
        Ok(before) => fs::remove_dir_all(volume.join(before)).unwrap(),
        Err(_first) => symlink("..data/net-conf.json", volume.join("net-conf.json")).unwrap(),
    }
}

#[test]
fn a_config_map_that_the_kubelet_swaps_is_followed() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, "{}").unwrap();
    // Its file is where the volume is to be.
    let volume = lab.folder().to_owned();
    fs::remove_file(flannel.net_conf_file()).unwrap();
    publish(&volume, 0, &net_conf("", ""));
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    for (version, mtu) in [(1, 1400), (2, 1380), (3, 1390)] {
        publish(&volume, version, &net_conf("", &format!(r#", "MTU": {mtu}"#)));
        soon("the new MTU", || mtu_of(&node, &(mtu - 50).to_string()));
    }
    publish(&volume, 4, "{");
    soon("a bad one", || daemon.page("/readyz").unwrap().contains("note: configuration"));
    publish(&volume, 5, &net_conf("", r#", "MTU": 1390"#));
    soon("a good one again", || daemon.page("/readyz").unwrap() == "flanneld is ready");
}

#[test]
fn a_configuration_in_etcd_is_followed_and_etcd_may_be_away() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let etcd = Etcd::start(&lab);
    let put =
        |etcd: &Etcd<'_>, text: &str| drop(etcd.ctl(&format!("put /coreos.com/network/config '{text}'")));
    put(&etcd, &net_conf("", ""));
    // The file says something else, and with etcd it does not count.
    let flannel = Flannel::new(&lab, BINARY, "{").unwrap().store(format!("--etcd-endpoints={ENDPOINT}"));
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let says = |text: &str| {
        let page = || daemon.page("/readyz").unwrap();
        assert!(wait_for(SOON, || page().contains(text).then_some(())).is_some(), "{text}: {}", page());
    };
    let is_well = || soon("no complaint stays", || daemon.page("/readyz").unwrap() == "flanneld is ready");

    put(&etcd, &net_conf("", r#", "MTU": 1400"#));
    soon("a live change", || mtu_of(&node, "1350"));
    put(&etcd, &net_conf("", r#", "VNI": 2"#));
    says("note: configuration: Backend.VNI 1 -> 2");
    etcd.ctl("del /coreos.com/network/config");
    says(
        "note: configuration: cannot read `/coreos.com/network/config`: flannel config not found in etcd store",
    );
    put(&etcd, &net_conf("", r#", "MTU": 1400"#));
    is_well();

    drop(etcd);
    hang_up(&daemon);
    says("note: configuration: cannot reach etcd");
    let etcd = Etcd::start(&lab);
    put(&etcd, &net_conf("", r#", "MTU": 1380"#));
    soon("another live change", || mtu_of(&node, "1330"));
    is_well();
    assert_eq!(daemon.status("/readyz").unwrap(), 200);
}

/// One place for each store, and how to write there.
enum Place<'a> {
    File(&'a Flannel),
    Etcd(&'a Etcd<'a>),
}

impl Place<'_> {
    fn write(&self, text: &str) {
        match self {
            Self::File(flannel) => replace(&flannel.net_conf_file(), text),
            Self::Etcd(etcd) => drop(etcd.ctl(&format!("put /coreos.com/network/config -- '{text}'"))),
        }
    }

    fn remove(&self) {
        match self {
            Self::File(flannel) => fs::remove_file(flannel.net_conf_file()).unwrap(),
            Self::Etcd(etcd) => drop(etcd.ctl("del /coreos.com/network/config")),
        }
    }
}

const UNUSABLE: [(&str, &str); 8] = [
    ("{", "unexpected end of JSON input"),
    (r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "ipsec"}}"#, "ipsec is not supported"),
    (r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "geneve"}}"#, "unknown backend type: geneve"),
    (
        r#"{"Network": "10.244.0.0/29", "Backend": {"Type": "vxlan"}}"#,
        "network is too small. Minimum useful network prefix is /28",
    ),
    (
        r#"{"Network": "10.244.0.0/16", "SubnetMin": "10.244.9.0", "SubnetMax": "10.244.3.0", "Backend": {"Type": "vxlan"}}"#,
        "SubnetMin",
    ),
    (
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#,
        "Backend.VNI: 16777216 is out of range",
    ),
    (
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 67}}"#,
        "Backend.MTU: 67 leaves no room",
    ),
    (
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 0}}"#,
        "Backend.Port: 0 is out of range: a whole number from 1",
    ),
];

#[test]
fn a_configuration_that_cannot_be_used_is_waited_for_and_named_once_whatever_the_store() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes = [lab.add_node().unwrap(), lab.add_node().unwrap(), lab.add_node().unwrap()];
    let etcd = Etcd::start(&lab);
    let api = FakeApi::start_in(lab.outside(), "192.168.77.254:6443".parse().unwrap()).unwrap();
    api.add_node("n", &["10.244.7.0/24"]);
    let file = || Flannel::new(&lab, BINARY, "").unwrap();
    let kubernetes = file().store("--kube-subnet-mgr").arg("--kube-api-url=http://192.168.77.254:6443");
    let kubernetes = kubernetes.env("NODE_NAME", "n");
    let flannels = [file(), file().store(format!("--etcd-endpoints={ENDPOINT}")), kubernetes];
    let places = [Place::File(&flannels[0]), Place::Etcd(&etcd), Place::File(&flannels[2])];
    for ((node, flannel), place) in nodes.iter().zip(&flannels).zip(&places) {
        let state = || {
            let kernel = "ip -o link; ip -o addr; ip route; nft list ruleset";
            (node.namespace().sh(kernel).unwrap(), flannel.lease_file().exists(), node.subnet_file().exists())
        };
        let before = state();
        place.write("not yet");
        place.remove();
        let mut daemon = flannel.start(node).unwrap();
        let page = || daemon.page("/readyz").unwrap_or_default();
        let is_named = |problem: &str| {
            soon(problem, || page().contains(problem));
            assert_eq!(daemon.status("/readyz").unwrap(), 503);
            assert_eq!(daemon.status("/healthz").unwrap(), 200, "waiting is no reason to be restarted");
            let log = log_of(node);
            let lines: Vec<_> = log.lines().filter(|line| line.contains(problem)).collect();
            assert_eq!(lines.len(), 1, "{problem}: {log}");
            assert!(lines[0].contains("Couldn't fetch network config: "), "{log}");
        };
        is_named(match place {
            Place::File(_) => "failed to read net conf: ",
            Place::Etcd(_) => "Did you create your config using etcdv3 API?",
        });
        // All of them once, in the first store.
        let unusable = UNUSABLE.into_iter().take(if before.1 { 3 } else { UNUSABLE.len() });
        for (text, problem) in unusable.clone() {
            place.write(text);
            is_named(problem);
        }
        assert_eq!(state(), before);
        place.write(&net_conf("", "").replace(r#""EnableIPv6": true, "#, ""));
        daemon.ready(SOON).unwrap();
        for (_, problem) in unusable {
            assert_eq!(log_of(node).matches(problem).count(), 1, "{problem}");
        }
    }
}

#[test]
fn a_restart_with_a_configuration_that_cannot_be_used_goes_on_with_the_last_one() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, &net_conf("", "")).unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    assert!(daemon.terminate().unwrap().success());
    fs::write(flannel.net_conf_file(), net_conf("", "").replace("vxlan", "ipsec")).unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let noted = || daemon.page("/readyz").unwrap().contains("configuration: error parsing subnet config: ");
    soon("the problem is noted", noted);
    fs::write(flannel.net_conf_file(), net_conf("", r#", "MTU": 1400"#)).unwrap();
    soon("the correction is taken", || mtu_of(&node, "1350") || mtu_of(&node, "1330"));
    soon("no note stays", || !daemon.page("/readyz").unwrap().contains("configuration"));
}
