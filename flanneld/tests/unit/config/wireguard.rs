//! Backend wireguard: what a node publishes, and at which address and port it reaches the others in each mode.

use flannel_lease::{BackendData, BackendType, LeaseAttributes, LeaseKey, WireguardData};
use flannel_vxlan::{DeviceSpec, Family, PrivateKey, Via};
use flanneld::config::{Command, NetConf};
use flanneld::desired::NodeSpec;
use flanneld::node::NodeFacts;
use ipnet::IpNet;

use super::lease_attributes::{OnEtcd, addresses};
use crate::resolved;

const V4: &str = r#""Network": "10.244.0.0/16""#;
const V6: &str = r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
const DUAL: &str = r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;

/// A node with these networks, backend members, and public addresses; one of a family that is off is not used.
fn node(networks: &str, members: &str, ipv4: &str, ipv6: &str) -> NodeSpec {
    let Ok(Command::Run(config)) = Command::read(&OnEtcd) else { unreachable!() };
    let config = resolved(*config).with_wireguard_key(Some(PrivateKey::new([7; 32])));
    let text = format!(r#"{{{networks}, "Backend": {{"Type": "wireguard"{members}}}}}"#);
    let net_conf = NetConf::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let facts = NodeFacts {
        mac: None,
        interface: "eth0".to_owned(),
        index: 2,
        mtu: 1500,
        ipv4: net_conf.ipv4.map(|_| addresses(ipv4.parse().unwrap())),
        ipv6: net_conf.ipv6.map(|_| addresses(ipv6.parse().unwrap())),
    };
    NodeSpec::new(&config, net_conf, facts, None).unwrap()
}

fn mode(mode: &str) -> String {
    format!(r#", "Mode": "{mode}""#)
}

fn data(port: u16) -> Option<BackendData> {
    WireguardData { public_key: [9; 32], port: port.try_into().ok() }.to_backend_data().ok()
}

/// What another node publishes: for each family its address and port, 0 being no port.
fn lease(ipv4: Option<(&str, u16)>, ipv6: Option<(&str, u16)>) -> LeaseAttributes {
    LeaseAttributes {
        public_ip: ipv4.map(|(address, _)| address.parse().unwrap()),
        public_ipv6: ipv6.map(|(address, _)| address.parse().unwrap()),
        backend_type: BackendType::Wireguard,
        backend_data: ipv4.and_then(|(_, port)| data(port)),
        backend_v6_data: ipv6.and_then(|(_, port)| data(port)),
    }
}

/// The endpoints at which `node` reaches the pods of both families of a lease, or why it does not.
fn endpoints(node: &NodeSpec, attributes: &LeaseAttributes) -> Vec<String> {
    let key: LeaseKey = "10.244.2.0-24&fd00:10:244:2::-64".parse().unwrap();
    let subnets = [Family::V4, Family::V6]
        .map(|family| key.subnets().find(|subnet: &IpNet| Family::of_net(*subnet) == family).unwrap());
    let peers = subnets.into_iter().filter_map(|subnet| node.peer(key, subnet, attributes, |_| false));
    peers
        .map(|peer| match peer {
            Ok(peer) => match peer.via {
                Via::Key { endpoint, .. } => endpoint.to_string(),
                via => panic!("{via:?}"),
            },
            Err(skipped) => skipped.to_string(),
        })
        .collect()
}

#[test]
fn a_node_publishes_the_ports_at_which_its_devices_receive() {
    let published = |networks: &str, members: &str| {
        let attributes = node(networks, members, "192.0.2.1", "2001:db8::1").attributes().unwrap();
        assert_eq!(attributes.backend_type, BackendType::Wireguard);
        let port = |data: Option<BackendData>| {
            let data: WireguardData = data?.decode().unwrap();
            assert_eq!(data.public_key, PrivateKey::new([7; 32]).public().bytes());
            data.port.map(u16::from)
        };
        (port(attributes.backend_data), port(attributes.backend_v6_data))
    };
    assert_eq!(published(V4, ""), (Some(51820), None));
    assert_eq!(published(V6, ""), (None, Some(51821)));
    assert_eq!(published(DUAL, ""), (Some(51820), Some(51821)));
    assert_eq!(published(DUAL, &mode("auto")), (Some(51820), Some(51820)), "one device, one port");
    assert_eq!(published(V6, &mode("ipv6")), (None, Some(51820)));
    assert_eq!(published(DUAL, r#", "ListenPort": 7000, "ListenPortV6": 7001"#), (Some(7000), Some(7001)));
}

#[test]
fn each_mode_reaches_a_node_where_it_listens() {
    let (private4, public4) = ("192.168.1.2", "203.0.113.2");
    let (private6, public6) = ("fd00::2", "2001:db8::2");
    let ours = |mode_name: &str| node(DUAL, &mode(mode_name), "192.168.1.1", "2001:db8::1");
    let theirs = |v4, v6, v6_port| lease(Some((v4, 51820)), Some((v6, v6_port)));
    // As another flanneld publishes it, and as upstream does.
    for port in [51820, 51821] {
        let attributes = theirs(private4, private6, port);
        assert_eq!(endpoints(&ours("ipv4"), &attributes), ["192.168.1.2:51820"; 2]);
        assert_eq!(endpoints(&ours("ipv6"), &attributes), ["[fd00::2]:51820"; 2], "upstream: {port}");
        for (v4, v6, expected) in [
            (private4, private6, "192.168.1.2:51820"),
            (public4, public6, "203.0.113.2:51820"),
            (private4, public6, "[2001:db8::2]:51820"),
        ] {
            assert_eq!(endpoints(&ours("auto"), &theirs(v4, v6, port)), [expected; 2]);
        }
    }
    let separate = node(DUAL, "", "192.168.1.1", "2001:db8::1");
    assert_eq!(
        endpoints(&separate, &theirs(private4, private6, 51821)),
        ["192.168.1.2:51820", "[fd00::2]:51821"]
    );
    let unreachable = node(DUAL, &mode("auto"), "192.168.1.1", "fd00::1");
    assert_eq!(
        endpoints(&unreachable, &theirs(private4, public6, 51820)),
        ["192.168.1.2:51820"; 2],
        "our IPv6 address is not public"
    );
}

#[test]
fn a_node_without_ipv4_reaches_others_at_their_ipv6_address() {
    let ours = node(V6, &mode("auto"), "", "fd00::1");
    for (v4, v6) in [("192.168.1.2", "fd00::2"), ("203.0.113.2", "2001:db8::2")] {
        let theirs = lease(Some((v4, 51820)), Some((v6, 51820)));
        assert_eq!(endpoints(&ours, &theirs).pop(), Some(format!("[{v6}]:51820")));
    }
}

#[test]
fn one_device_works_with_one_family() {
    let attributes = lease(None, Some(("fd00::2", 51821)));
    for mode_name in ["auto", "ipv6"] {
        let ours = node(V6, &mode(mode_name), "192.0.2.1", "fd00::1");
        assert_eq!(endpoints(&ours, &attributes), ["[fd00::2]:51820"], "as upstream publishes it");
        assert_eq!(endpoints(&ours, &lease(None, Some(("fd00::2", 51820)))), ["[fd00::2]:51820"]);
        let families = ours.families("0.0.0.0-0&fd00:10:244:1::-64".parse().unwrap()).unwrap();
        let [family] = &families[..] else { panic!("{families:?}") };
        assert_eq!(family.networks, ["fd00:10:244::/56".parse::<IpNet>().unwrap()]);
        assert_eq!(family.device.as_ref().unwrap().name.as_str(), "flannel-wg");
    }
    let ours = node(V4, &mode("auto"), "192.0.2.1", "fd00::1");
    assert_eq!(endpoints(&ours, &lease(Some(("192.0.2.2", 51820)), None)), ["192.0.2.2:51820"]);
}

#[test]
fn a_lease_without_a_port_has_ours_and_without_a_key_no_peer() {
    let ours = node(DUAL, r#", "ListenPort": 7000, "ListenPortV6": 7001"#, "192.0.2.1", "fd00::1");
    let old = lease(Some(("192.0.2.2", 0)), Some(("fd00::2", 0)));
    assert_eq!(endpoints(&ours, &old), ["192.0.2.2:7000", "[fd00::2]:7001"]);
    let with = |data: Option<&str>| LeaseAttributes {
        backend_data: data.map(|data| BackendData::from_json(data.to_owned()).unwrap()),
        ..old.clone()
    };
    assert!(endpoints(&ours, &with(None))[0].ends_with("backend data is unusable: there is none"));
    assert!(endpoints(&ours, &with(Some(r#"{"PublicKey":"x"}"#)))[0].contains("is not base64 of 32 bytes"));
    let vxlan = LeaseAttributes { backend_type: BackendType::Vxlan, ..old.clone() };
    assert_eq!(endpoints(&ours, &vxlan), ["the peer's backend is `vxlan` but this node's is `wireguard`"; 2]);
    let away = LeaseAttributes { public_ip: None, ..old };
    assert_eq!(endpoints(&ours, &away)[0], "the peer publishes no public IPv4 address");
}

#[test]
fn devices_and_subnet_env_have_upstreams_names_and_mtu() {
    let key: LeaseKey = "10.244.1.0-24&fd00:10:244:1::-64".parse().unwrap();
    for (members, names, is_shared) in
        [("".to_owned(), ["flannel-wg", "flannel-wg-v6"], false), (mode("auto"), ["flannel-wg"; 2], true)]
    {
        let node = node(DUAL, &members, "192.0.2.1", "fd00::1");
        let families = node.families(key).unwrap();
        let devices: Vec<&DeviceSpec> = families.iter().filter_map(|family| family.device.as_ref()).collect();
        assert_eq!(devices.iter().map(|device| device.name.to_string()).collect::<Vec<_>>(), names);
        for device in devices {
            assert_eq!((device.mtu.bytes(), device.kind.wireguard().unwrap().is_shared), (1420, is_shared));
        }
        assert_eq!(node.subnet_env(key).mtu, Some(1420));
    }
    // The keys are in no representation of the specification.
    let secret = r#", "PSK": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=""#;
    let node = node(DUAL, secret, "192.0.2.1", "fd00::1");
    let shown = format!("{node:?} {:?}", node.families(key).unwrap());
    for hidden in ["AQIDBAUG", "1, 2, 3, 4, 5", &PrivateKey::new([7; 32]).to_base64(), "7, 7, 7, 7"] {
        assert!(!shown.contains(hidden), "{hidden}");
    }
}

#[test]
fn the_devices_of_both_families_share_no_port() {
    let ports = r#", "ListenPort": 7000, "ListenPortV6": 7000"#;
    let problems = |networks: &str, members: &str| {
        let text = format!(r#"{{{networks}, "Backend": {{"Type": "wireguard"{members}}}}}"#);
        NetConf::parse(text.as_bytes()).err().map(|problems| problems.to_string()).unwrap_or_default()
    };
    let shared = "7000 is ListenPort too; in mode separate each device needs its own port";
    assert!(problems(DUAL, ports).contains(shared), "{}", problems(DUAL, ports));
    for (networks, members) in
        [(DUAL, format!("{ports}{}", mode("auto"))), (V4, ports.into()), (V6, ports.into())]
    {
        assert_eq!(problems(networks, &members), "", "{networks}{members}");
    }
}
