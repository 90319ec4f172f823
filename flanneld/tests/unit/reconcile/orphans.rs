//! What the node stops using, and the reconciler removes.

use super::leases::direct_route;
use super::*;

const DUAL_STACK: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
    "Backend": {"Type": "vxlan"}}"#;

#[tokio::test(start_paused = true)]
async fn the_device_of_a_family_goes_when_the_interface_becomes_too_small_for_it_and_returns_with_its_mtu() {
    let addresses = ["192.168.77.1", "fd77::1"].map(|address| (address.parse().unwrap(), 64));
    let links = Shared::new(FakeKernel::new(addresses));
    let mut node = Node::start_in(DUAL_STACK, None, None, links, Shared::default());
    let v6: ipnet::Ipv6Net = "fd00:10:244:1::/64".parse().unwrap();
    let own = Lease { key: LeaseKey::new(Some(subnet(1)), Some(v6)).unwrap(), ..lease(1) };
    node.alive.0.send(own).unwrap();
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let devices = || -> Vec<String> {
        node.links.with(|kernel| kernel.devices.keys().map(ToString::to_string).collect())
    };
    let resize = async |mtu| {
        node.links.with(|kernel| kernel.interfaces[0].mtu = mtu);
        // Any change of an interface makes flanneld read the uplink again.
        node.alive.1.send(vec![Notification::LinkGone { index: 999 }]).await.unwrap();
        sleep(Duration::from_secs(2)).await;
    };
    for _ in 0..2 {
        assert_eq!(devices(), ["flannel-v6.1", "flannel.1"]);
        resize(1300).await;
        assert_eq!(devices(), ["flannel.1"]);
        assert_eq!(node.routes(), [IpNet::from(subnet(2))]);
        resize(1500).await;
    }
    // Neither a family that stays nor one that was not there makes another sweep due.
    let reads = async |mtu| {
        let before = node.links.with(|kernel| kernel.reads);
        resize(mtu).await;
        node.links.with(|kernel| kernel.reads) - before
    };
    let with_both = reads(1400).await;
    assert!(reads(1300).await > with_both, "a sweep reads the kernel");
    assert_eq!(reads(1290).await, with_both);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_names_the_devices_with_flannels_names_that_the_configuration_does_not_have() {
    let links = Shared::new(fake_links());
    links.with(|kernel| {
        for (index, name) in [(7, "flannel.7"), (8, "flannel.1"), (9, "eth1")] {
            kernel.interfaces.push(Interface { index, name: name.to_owned(), ..Interface::default() });
        }
    });
    let (lines, _capturing) = capture_log();
    let mut node = Node::start_after(Some(VXLAN), None, links, Shared::default());
    node.tell(listing([2])).await;
    node.until(Readiness::is_ready).await;
    let text = lines.lock().unwrap().clone();
    let named: Vec<&str> = text.lines().filter(|line| line.contains("is not part of this network")).collect();
    assert_eq!(named.len(), 1, "{text}");
    assert!(named[0].contains("device flannel.7 "), "{text}");
}

/// Whether a route outside the network, and the device of another VNI, are there after a start that sweeps them.
async fn left_after_start() -> [bool; 2] {
    const WIDE: &str = r#"{"Network": "10.240.0.0/12", "Backend": {"Type": "vxlan"}}"#;
    const VNI_7: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}"#;
    let links = Shared::new(fake_links());
    let start = async |net_conf, before| {
        let mut node = Node::start_in(net_conf, before, None, links.clone(), Shared::default());
        node.tell(listing([])).await;
        node.until(Readiness::is_ready).await;
    };
    let outside = direct_route("10.247.9.0/24", 0);
    links.with(|kernel| kernel.routes.extend([outside]));
    start(VXLAN, Some(WIDE)).await;
    let has_route = links.with(|kernel| kernel.routes.contains_key(&outside.0));
    start(VNI_7, None).await;
    links.with(|kernel| {
        let other = Interface { index: 7, name: "flannel.7".to_owned(), ..Interface::default() };
        kernel.interfaces.push(other);
    });
    start(VXLAN, Some(VNI_7)).await;
    [has_route, links.with(|kernel| kernel.devices.contains_key(&"flannel.7".parse().unwrap()))]
}

#[test]
fn nothing_is_swept_next_to_another_daemon() {
    testkit::netns(|| {
        let folder = tempfile::tempdir().unwrap();
        // A daemon by its name and arguments.
        let program = folder.path().join("flanneld");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut other = std::process::Command::new(program).args(["--", "60"]).spawn().unwrap();
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let next_to_it = runtime().block_on(left_after_start());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!((next_to_it, runtime().block_on(left_after_start())), ([true; 2], [false; 2]));
    });
}
