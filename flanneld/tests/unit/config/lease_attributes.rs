//! What a node publishes with its lease, against what upstream flannel published.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use flannel_lease::LeaseAttributes;
use flanneld::config::{Command, Config, NetConf, Source};
use flanneld::desired::NodeSpec;
use flanneld::node::{Addresses, NodeFacts};

use crate::resolved;

/// `etcdctl get --prefix /` of clusters of three upstream nodes (flannel cdf76059).
const UPSTREAM: [&str; 7] = [
    include_str!("../../../../flannel-lease/tests/golden/lease/alloc-nft.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/hostgw-nft.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/ipip-nft.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/udp-nft.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/vxlan-dualstack-nft.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/vxlan-nft-3nodes.txt"),
    include_str!("../../../../flannel-lease/tests/golden/lease/vxlan-opts-nft.txt"),
];

/// A command line without configuration file.
pub(super) struct OnEtcd;

impl Source for OnEtcd {
    fn args(&self) -> Vec<OsString> {
        Vec::new()
    }
    fn env(&self, _: &str) -> Option<OsString> {
        None
    }
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An address of the interface that is also the public one.
pub(super) fn addresses<A: Copy>(public: A) -> Addresses<A> {
    Addresses { interface: public, public, public_is_local: true }
}

#[test]
fn what_this_daemon_publishes_is_what_upstream_published_for_the_same_node() {
    let Ok(Command::Run(config)) = Command::read(&OnEtcd) else { unreachable!() };
    let mut count = 0;
    for dump in UPSTREAM {
        let lines: Vec<_> = dump.lines().collect();
        let net_conf = NetConf::parse(lines[1].as_bytes()).unwrap();
        for json in lines[2..].iter().skip(1).step_by(2) {
            let published = LeaseAttributes::from_json(json.as_bytes()).unwrap();
            let facts = NodeFacts {
                mac: None,
                interface: "eth0".to_owned(),
                index: 2,
                mtu: 1500,
                ipv4: published.public_ip.map(addresses),
                ipv6: published.public_ipv6.map(addresses),
            };
            let spec = NodeSpec::new(&resolved((*config).clone()), net_conf.clone(), facts, Some(&published))
                .unwrap();
            assert_eq!(spec.attributes().unwrap().to_json().unwrap(), *json);
            count += 1;
        }
    }
    assert_eq!(count, 21, "alloc, host-gw, ipip, udp and three of vxlan");
}

#[test]
fn a_vtep_mac_stays_with_its_node_and_the_next_node_on_its_address_has_another() {
    let Ok(Command::Run(config)) = Command::read(&OnEtcd) else { unreachable!() };
    let net_conf = NetConf::parse(br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#).unwrap();
    let mac = |host_name: &str, public: [u8; 4], published: Option<&LeaseAttributes>| {
        let config = Config { host_name: host_name.to_owned(), ..(*config).clone() };
        let ipv4 = Some(addresses(public.into()));
        let facts =
            NodeFacts { interface: "eth0".to_owned(), index: 2, mac: None, mtu: 1500, ipv4, ipv6: None };
        let spec = NodeSpec::new(&resolved(config), net_conf.clone(), facts, published).unwrap();
        (spec.macs.ipv4, spec.attributes().unwrap())
    };
    let (first, published) = mac("node-a", [192, 0, 2, 1], None);
    assert_eq!(mac("node-a", [192, 0, 2, 1], None).0, first, "though the store has lost its lease");
    assert_eq!(mac("node-a", [192, 0, 2, 201], Some(&published)).0, first, "at another address");
    assert_eq!(mac("renamed", [192, 0, 2, 1], Some(&published)).0, first);
    assert_ne!(mac("node-c", [192, 0, 2, 1], None).0, first);
}
