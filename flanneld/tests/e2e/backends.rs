//! Every backend that makes a device, on nodes with real daemons and pods. The tests of backends that not every kernel has
//! run in the machines of `make test-kernels`.

use std::fs;
use std::time::Instant;

use testkit::{KernelOption, RoundTrips};

use crate::{Cluster, SOON, Witness, pause};

const UDP: (&str, &str) = ("", "flannel0");
const IPIP: (&str, &str) = (r#", "Backend": {"Type": "ipip"}"#, "flannel.ipip");
const DIRECT: (&str, &str) = (r#", "Backend": {"Type": "ipip", "DirectRouting": true}"#, "flannel.ipip");
const WIREGUARD: (&str, &str) = (r#", "Backend": {"Type": "wireguard"}"#, "flannel-wg");
const VXLAN: (&str, &str) = (r#", "Backend": {"Type": "vxlan"}"#, "flannel.1");

fn net_conf(backend: &str) -> String {
    format!(r#"{{"Network": "10.244.0.0/16", "EnableNFTables": true{backend}}}"#)
}

fn can_run() -> bool {
    [KernelOption::IPIP, KernelOption::FOU, KernelOption::WIREGUARD].iter().all(|option| option.is_usable())
}

impl Cluster {
    pub(crate) fn sh(&self, at: usize, command: &str) -> String {
        self.nodes[at].0.namespace().sh(command).unwrap()
    }

    pub(crate) fn restart_node(&mut self, at: usize) {
        let (node, daemon, pod) = self.nodes.remove(at);
        assert!(daemon.terminate().unwrap().success());
        let daemon = self.flannel.start_ready(&node, SOON).unwrap();
        self.nodes.insert(at, (node, daemon, pod));
    }

    /// Deletes a device and the routes to it, and waits until they are back.
    fn restores(&self, device: &str) {
        let routes = || self.sh(0, &format!("{{ ip route; ip nexthop; }} | grep -c 'dev {device}' || true"));
        let right = routes();
        self.sh(0, &format!("ip link del {device}"));
        let broken = Instant::now();
        let restored = testkit::wait_for(SOON, || (routes() == right).then_some(()));
        assert!(restored.is_some(), "{device}: {} instead of {right}", routes());
        eprintln!("figure: {device} and its routes are back within {:?}", broken.elapsed());
    }

    /// Flannel's devices on a node, and the nexthop objects and FOU ports.
    fn devices(&self, at: usize) -> String {
        self.sh(at, "ip -br link | grep ^flannel | cut -d' ' -f1; ip fou show")
    }
}

#[test]
fn a_restart_under_traffic_loses_nothing_and_writes_nothing_and_damage_is_repaired() {
    if !can_run() {
        return;
    }
    for (backend, device) in [IPIP, DIRECT, UDP] {
        let mut cluster = Cluster::start(3, &net_conf(backend));
        cluster.every_pod_reaches_every_other();
        let [(.., from), (.., to), _] = &cluster.nodes[..] else { unreachable!() };
        let target = to.addresses().next().unwrap();
        let stream = RoundTrips::start(from, to, target, 500).unwrap();
        let witness = Witness::of_all(&cluster.nodes[0].0);
        cluster.restart_node(0);
        let changes = witness.saw();
        assert!(!changes.contains(device) && !changes.contains("10.244."), "{backend}: {changes}");
        pause(300);
        let report = stream.stop().unwrap();
        eprintln!("figure: {device}: {} of {} packets lost during a restart", report.lost, report.sent);
        assert_eq!(report.lost, 0, "{backend}: {report:?}");

        cluster.restores(device);
        for damage in [
            format!("ip link del {device}"),
            "for subnet in $(ip route show proto 70 | cut -d' ' -f1); do ip route del $subnet; done".into(),
            "ip nexthop flush".into(),
        ] {
            cluster.sh(0, &damage);
            cluster.every_pod_reaches_every_other();
        }
        let page = cluster.nodes[0].1.page("/").unwrap();
        assert!(page.contains(&format!("{device} 10.244.")), "{page}");
    }
}

/// Runs on every kernel: the figures show how much slower a virtual machine is.
#[test]
fn a_deleted_vxlan_device_is_restored() {
    if !testkit::may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(3, &net_conf(VXLAN.0));
    cluster.every_pod_reaches_every_other();
    for _ in 0..3 {
        cluster.restores(VXLAN.1);
    }
    cluster.every_pod_reaches_every_other();
}

/// Upstream's text in the log, its MTU in subnet.env, and its address on the device.
#[test]
fn a_node_looks_as_upstreams_does() {
    if !can_run() {
        return;
    }
    for ((_, device), backend, mtu) in [
        (IPIP, IPIP.0, 1480),
        (UDP, UDP.0, 1472),
        (UDP, r#", "Backend": {"Type": "udp", "Port": 9285}"#, 1472),
    ] {
        let cluster = Cluster::start(1, &net_conf(backend));
        let env = fs::read_to_string(cluster.nodes[0].0.subnet_file()).unwrap();
        assert!(env.contains(&format!("FLANNEL_MTU={mtu}\n")), "{env}");
        let shown = cluster.sh(0, &format!("ip -d addr show {device}"));
        let subnet = env.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
        let own = subnet.replace(".1/24", ".0/32");
        assert!(shown.contains(&format!("mtu {mtu}")) && shown.contains(&format!("inet {own}")), "{shown}");
    }
}

/// Node by node from one backend to the next: no node ever keeps anything of the old one, and in the end all pods reach
/// each other.
#[test]
fn a_cluster_changes_its_backend_node_by_node() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::start(2, &net_conf(VXLAN.0));
    for (backend, device) in [WIREGUARD, IPIP, UDP, VXLAN, WIREGUARD, UDP, IPIP, VXLAN] {
        fs::write(cluster.flannel.net_conf_file(), net_conf(backend)).unwrap();
        for at in 0..2 {
            cluster.restart_node(at);
            let port = if device == UDP.1 { "port 8285 ipproto 4\n" } else { "" };
            let expected = format!("{device}\n{port}");
            let is_clean = || {
                let found = cluster
                    .devices(at)
                    .lines()
                    .map(|line| line.split('@').next().unwrap().trim().to_owned() + "\n")
                    .collect::<String>();
                (found == expected).then_some(())
            };
            let clean = testkit::wait_for(SOON, is_clean);
            assert!(clean.is_some(), "{backend}: {}", cluster.devices(at));
        }
        cluster.every_pod_reaches_every_other();
        let nexthops = cluster.sh(0, "ip nexthop | wc -l");
        let expected = if device == WIREGUARD.1 { "0" } else { "1" };
        assert_eq!(nexthops.trim(), expected, "{backend}");
    }
}

/// Runs where the tests above cannot.
#[test]
fn a_kernel_without_fou_keeps_the_node_unready_and_is_told_with_the_remedy() {
    if !testkit::may_make_namespaces() || KernelOption::FOU.is_present() {
        return;
    }
    let mut lab = testkit::Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = testkit::Flannel::new(&lab, crate::BINARY, &net_conf(UDP.0)).unwrap();
    let daemon = flannel.start(&node).unwrap();
    let told = || {
        let log = fs::read_to_string(daemon.log()).unwrap();
        let remedy = "this kernel lacks fou (CONFIG_NET_FOU): load the module on the host (`modprobe fou`";
        (log.contains(remedy) && log.contains("vxlan is recommended")).then_some(())
    };
    assert!(testkit::wait_for(SOON, told).is_some(), "{}", fs::read_to_string(daemon.log()).unwrap());
}
