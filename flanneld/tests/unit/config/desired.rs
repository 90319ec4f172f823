//! What a node makes of the configuration, its addresses and the leases: devices, peers, and prefixes of tables.

use std::net::Ipv4Addr;

use flannel_lease::{
    AllocationRange, BackendData, BackendType, FamilyRange, LeaseAttributes, LeaseKey, VxlanData,
};
use flannel_nft::{Family as TableFamily, Ruleset, TableId, TableName};
use flannel_vxlan::{DeviceKind, Family, FamilySpec, IpipSpec, MacAddr, Via};
use flanneld::config::{Command, NetConf};
use flanneld::desired::rules::{RuleSpec, TablePrefix, ruleset};
use flanneld::desired::{NodeSpec, with_other_macs};
use flanneld::node::{Addresses, NodeFacts};
use ipnet::IpNet;

use super::lease_attributes::{OnEtcd, addresses};
use crate::resolved;

const V4: &str = r#""Network": "10.244.0.0/16""#;
const DUAL: &str = r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A node with both addresses on an interface with this MTU.
fn node(networks: &str, backend: &str, mtu: u32) -> NodeSpec {
    let Ok(Command::Run(config)) = Command::read(&OnEtcd) else { unreachable!() };
    let net_conf = NetConf::parse(format!(r#"{{{networks}, "Backend": {{{backend}}}}}"#).as_bytes()).unwrap();
    let facts = NodeFacts {
        mac: None,
        interface: "eth0".to_owned(),
        index: 2,
        mtu,
        ipv4: Some(addresses([192, 0, 2, 1].into())),
        ipv6: net_conf.ipv6.map(|_| addresses("2001:db8::1".parse().unwrap())),
    };
    NodeSpec::new(&resolved(*config), net_conf, facts, None).unwrap()
}

fn key() -> LeaseKey {
    "10.244.2.0-24&fd00:10:244:2::-64".parse().unwrap()
}

fn families(node: &NodeSpec) -> Vec<FamilySpec> {
    node.families(key()).unwrap()
}

fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// What a node of this type publishes: with `vni`, its VXLAN device too.
fn lease(backend_type: BackendType, vni: Option<u32>) -> LeaseAttributes {
    let data = |last| vni.and_then(|vni| VxlanData::new(vni, mac(last)).to_backend_data().ok());
    LeaseAttributes {
        public_ip: Some(UNDERLAY),
        public_ipv6: None,
        backend_type,
        backend_data: data(4),
        backend_v6_data: data(6),
    }
}

#[test]
fn a_node_whose_macs_are_taken_derives_others_from_its_own_addresses() {
    let macs = |attributes: &LeaseAttributes| {
        let data = [&attributes.backend_data, &attributes.backend_v6_data];
        data.map(|data| data.as_ref().unwrap().decode::<VxlanData>().unwrap())
            .map(|data| (data.vni, data.vtep_mac))
    };
    let one = lease(BackendType::Vxlan, Some(7));
    let other = LeaseAttributes { public_ip: Some(Ipv4Addr::new(192, 0, 2, 3)), ..one.clone() };
    let [ours, theirs] = [&one, &other].map(|attributes| with_other_macs(attributes).unwrap());
    assert_eq!(with_other_macs(&one).unwrap(), ours, "the same each time");
    let [(vni4, mac4), (vni6, mac6)] = macs(&ours);
    assert_eq!((vni4, vni6), (7, 7));
    assert!(mac4 != mac(4) && mac6 != mac(6) && mac4 != mac6);
    assert!(macs(&theirs).iter().all(|data| !macs(&ours).contains(data)), "clones have different ones");
    assert_eq!(ours.public_ip, one.public_ip);

    assert_eq!(with_other_macs(&lease(BackendType::HostGw, None)), None, "there is none to change");
    let unusable = Some(BackendData::from_json("7".to_owned()).unwrap());
    assert_eq!(with_other_macs(&LeaseAttributes { backend_v6_data: unusable, ..one }), None);
}

#[test]
fn ipv6_needs_room_in_the_tunnel_and_its_absence_is_explained() {
    for (backend, needed, name) in
        [("vxlan", 1350, "IPv6 in VXLAN"), ("wireguard", 1360, "IPv6 in WireGuard")]
    {
        let of_mtu = |mtu| node(DUAL, &format!(r#""Type": "{backend}""#), mtu).ipv6_problem();
        assert_eq!(of_mtu(needed), None, "{backend}");
        let problem = of_mtu(needed - 1).unwrap();
        assert!(
            problem.contains(&format!("eth0 carries {} bytes, {name} needs {needed}", needed - 1)),
            "{problem}"
        );
    }
    let mut without_address = node(DUAL, r#""Type": "host-gw""#, 1500);
    assert_eq!(without_address.ipv6_problem(), None);
    without_address.facts.ipv6 = None;
    assert!(without_address.ipv6_problem().unwrap().contains("IPv6 needs 1280"));
    assert_eq!(node(V4, r#""Type": "vxlan""#, 1300).ipv6_problem(), None, "nobody wants it");
}

#[test]
fn checksum_offload_is_off_behind_a_nat_and_as_configured() {
    let behind_nat = |is_behind: [bool; 2], offload: &str| {
        let mut node = node(DUAL, &format!(r#""Type": "vxlan", "TxChecksumOffload": "{offload}""#), 1500);
        let [ipv4, ipv6] = is_behind.map(|is_behind| !is_behind);
        node.facts.ipv4 = node.facts.ipv4.map(|own| Addresses { public_is_local: ipv4, ..own });
        node.facts.ipv6 = node.facts.ipv6.map(|own| Addresses { public_is_local: ipv6, ..own });
        node
    };
    let of_devices = |node: &NodeSpec| {
        let of = |spec: FamilySpec| spec.device.unwrap().kind.vxlan().unwrap().tx_checksum;
        families(node).into_iter().map(of).collect::<Vec<_>>()
    };
    for (is_behind, offload, devices) in [
        ([false, false], "auto", [None, None]),
        ([true, false], "auto", [Some(false), None]),
        ([false, true], "auto", [None, Some(false)]),
        ([true, true], "auto", [Some(false); 2]),
        ([true, true], "on", [Some(true); 2]),
        ([false, false], "on", [Some(true); 2]),
        ([false, false], "off", [Some(false); 2]),
    ] {
        let mut node = behind_nat(is_behind, offload);
        assert_eq!(of_devices(&node), devices, "{is_behind:?} {offload}");
        assert_eq!(node.turns_checksum_off(), devices.contains(&Some(false)), "{is_behind:?} {offload}");
        node.restores_checksum = true;
        assert_eq!(of_devices(&node), devices.map(|device| device.or(Some(true))), "{is_behind:?} {offload}");
    }
    for backend in ["host-gw", "wireguard", "udp"] {
        assert!(!node(V4, &format!(r#""Type": "{backend}""#), 1500).turns_checksum_off(), "{backend}");
    }
    let mut without_ipv4 = behind_nat([true, false], "auto");
    without_ipv4.facts.ipv4 = None;
    assert!(!without_ipv4.turns_checksum_off());
}

#[test]
fn each_backend_has_its_device() {
    let device = |backend: &str| {
        let specs = families(&node(V4, backend, 1500));
        assert_eq!(specs.len(), 1);
        specs.into_iter().next().unwrap().device.map(|device| device.kind)
    };
    for without in ["alloc", "host-gw"] {
        assert_eq!(device(&format!(r#""Type": "{without}""#)), None);
    }
    assert_eq!(device(r#""Type": "ipip""#), Some(IpipSpec::new().into()));
    let fou = IpipSpec::new().fou(8285.try_into().unwrap()).tx_checksum(Some(false));
    assert_eq!(device(r#""Type": "udp""#), Some(fou.into()), "whoever reads the datagrams needs checksums");
    assert!(
        matches!(device(r#""Type": "vxlan", "VNI": 9"#), Some(DeviceKind::Vxlan(spec)) if spec.vni.number() == 9)
    );
}

#[test]
fn each_backend_has_its_devices_and_ports() {
    let of = |backend: &str, families: &[Family]| {
        let backend = node(V4, &format!(r#""Type": {backend}"#), 1500).net_conf.backend;
        let devices = backend.devices(families.iter().copied()).values().map(ToString::to_string).collect();
        let ports = backend.ports(families.iter().copied()).into_iter().map(u16::from).collect();
        (devices, ports)
    };
    let expect = |devices: &[&str], ports: &[u16]| -> (Vec<String>, Vec<u16>) {
        (devices.iter().map(ToString::to_string).collect(), ports.to_vec())
    };
    assert_eq!(of(r#""host-gw""#, &[Family::V4]), expect(&[], &[]));
    assert_eq!(of(r#""alloc""#, &[Family::V4]), expect(&[], &[]));
    assert_eq!(of(r#""ipip""#, &[Family::V4]), expect(&["flannel.ipip"], &[]));
    assert_eq!(of(r#""udp", "Port": 9285"#, &[Family::V4]), expect(&["flannel0"], &[9285]));
    assert_eq!(
        of(r#""vxlan", "VNI": 7"#, &[Family::V4, Family::V6]),
        expect(&["flannel.7", "flannel-v6.7"], &[8472])
    );
    assert_eq!(
        of(r#""wireguard""#, &[Family::V4, Family::V6]),
        expect(&["flannel-wg", "flannel-wg-v6"], &[51820, 51821])
    );
    assert_eq!(
        of(r#""wireguard", "Mode": "auto""#, &[Family::V4, Family::V6]),
        expect(&["flannel-wg"], &[51820])
    );
}

#[test]
fn each_backend_reaches_a_peer_in_its_way() {
    let subnet: IpNet = "10.244.2.0/24".parse().unwrap();
    let underlay = UNDERLAY.into();
    let tunnel = Via::Tunnel { mac: MacAddr::new(mac(4)).unwrap(), underlay };
    let direct = Via::Direct { gateway: underlay };
    let outer = Via::Outer { underlay };
    let vxlan = || lease(BackendType::Vxlan, Some(1));
    for (backend, attributes, elsewhere, on_link) in [
        (r#""Type": "vxlan""#, vxlan(), tunnel, tunnel),
        (r#""Type": "vxlan", "DirectRouting": true"#, vxlan(), tunnel, direct),
        (r#""Type": "ipip""#, lease(BackendType::Ipip, None), outer, outer),
        (r#""Type": "ipip", "DirectRouting": true"#, lease(BackendType::Ipip, None), outer, direct),
        (r#""Type": "host-gw""#, lease(BackendType::HostGw, None), direct, direct),
        (r#""Type": "udp""#, lease(BackendType::Unnamed, None), outer, outer),
    ] {
        let node = node(V4, backend, 1500);
        for (is_on_link, via) in [(false, elsewhere), (true, on_link)] {
            let peer = node.peer(key(), subnet, &attributes, |_| is_on_link).unwrap().unwrap();
            assert_eq!((peer.subnet, peer.via), (subnet, via), "{backend} {is_on_link}");
        }
        assert_eq!(node.is_direct_routing(), elsewhere != on_link, "{backend}");
        let other: IpNet = "10.244.3.0/24".parse().unwrap();
        assert!(node.peer(key(), other, &attributes, |_| false).is_none(), "a subnet of another lease");
        let ipv6: IpNet = "fd00:10:244:2::/64".parse().unwrap();
        assert!(node.peer(key(), ipv6, &attributes, |_| false).is_none(), "this node has no IPv6");
        let nowhere = LeaseAttributes { public_ip: None, ..attributes };
        let skipped = node.peer(key(), subnet, &nowhere, |_| false).unwrap().unwrap_err();
        assert_eq!(skipped.to_string(), "the peer publishes no public IPv4 address");
    }
    let skipped = |attributes: &LeaseAttributes| {
        let node = node(V4, r#""Type": "vxlan""#, 1500);
        node.peer(key(), subnet, attributes, |_| false).unwrap().unwrap_err().to_string()
    };
    assert_eq!(skipped(&lease(BackendType::Vxlan, Some(2))), "the peer's VNI is 2 but this node's is 1");
    assert!(skipped(&lease(BackendType::Vxlan, None)).ends_with("backend data is unusable: there is none"));
    assert!(skipped(&lease(BackendType::HostGw, None)).contains("host-gw"));
}

#[test]
fn tables_of_an_earlier_prefix_are_the_daemons_own_if_their_rules_are_about_its_networks() {
    let tables = |prefix: &TablePrefix, network: &str| {
        let network: ipnet::Ipv4Net = network.parse().unwrap();
        let pods = ipnet::Ipv4Net::new(network.network(), 24).unwrap();
        let ipv4 = Some((network, pods));
        ruleset(&RuleSpec { prefix: prefix.clone(), ipv4, masquerade: true, ..RuleSpec::default() }).unwrap()
    };
    let nets = |text: &str| [text.parse::<IpNet>().unwrap()];
    let own = TablePrefix::of_networks(&nets("10.60.0.0/16")).unwrap();
    let default = TablePrefix::default();
    let by_default = tables(&default, "10.60.0.0/16");
    let known = nets("10.60.0.0/16");
    let former = |prefix: &TablePrefix, known: &[IpNet], present: &Ruleset| {
        prefix.former(known, present).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(former(&own, &known, &by_default), ["flannel"]);
    assert!(former(&default, &known, &by_default).is_empty(), "its present ones");
    assert!(former(&own, &nets("10.61.0.0/16"), &by_default).is_empty(), "another daemon's");
    let both = by_default.tables().iter().cloned().chain([
        flannel_nft::Table::new(TableFamily::Ip6, TableName::new("flannel-ipv6").unwrap()),
        flannel_nft::Table::new(TableFamily::Ip, TableName::new("flannel-10.62.0.0-16-ipv4").unwrap()),
    ]);
    let both: Ruleset = both.collect();
    assert_eq!(former(&own, &known, &both), ["flannel"], "tables without rules are nobody's");

    let networks = ["10.60.0.0/16", "fd00:60::/48"].map(|net| net.parse::<IpNet>().unwrap());
    let first = TablePrefix::of_networks(&networks).unwrap();
    assert_eq!(first, own, "named after the first network");
    let names = TablePrefix::choices(&networks).unwrap().iter().map(TableId::to_string).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            "ip flannel-ipv4",
            "ip6 flannel-ipv6",
            "ip flannel-10.60.0.0-16-ipv4",
            "ip6 flannel-10.60.0.0-16-ipv6"
        ]
    );
    assert_eq!(default.mark().unwrap().to_string(), "flanneld accept");
    assert_eq!(own.mark().unwrap().to_string(), "flanneld accept (flannel-10.60.0.0-16)");
}

#[test]
fn subnets_are_allocated_in_the_networks_that_are_configured_and_rules_are_about_them() {
    let nets = |networks: &str| {
        let node = node(networks, r#""Type": "vxlan""#, 1500);
        (node.range(), node.rules(key()).networks())
    };
    let v4 = FamilyRange {
        network: "10.244.0.0/16".parse().unwrap(),
        subnet_len: 24,
        min: [10, 244, 1, 0].into(),
        max: [10, 244, 9, 0].into(),
    };
    let v6 = FamilyRange {
        network: "fd00:10:244::/56".parse().unwrap(),
        subnet_len: 64,
        min: "fd00:10:244:7::".parse().unwrap(),
        max: "fd00:10:244:9::".parse().unwrap(),
    };
    let dual = r#""Network": "10.244.0.0/16", "SubnetMax": "10.244.9.0", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56",
        "IPv6SubnetMin": "fd00:10:244:7::", "IPv6SubnetMax": "fd00:10:244:9::""#;
    let range = AllocationRange { v4: Some(v4), v6: Some(v6), avoid: Vec::new() };
    assert_eq!(nets(dual), (range, vec![v4.network.into(), v6.network.into()]));
    let v4 = FamilyRange { max: [10, 244, 255, 0].into(), ..v4 };
    let range = AllocationRange { v4: Some(v4), ..AllocationRange::default() };
    assert_eq!(nets(V4), (range, vec![v4.network.into()]));
}
