//! What the leases of all nodes say about each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Finding;
use crate::commands::context::Context;
use flannel_lease::{LeaseAttributes, LeaseKey, VxlanData};

pub(super) fn check(context: &Context) -> Vec<Finding> {
    let own = context.published.as_ref().map(|published| (published.key, &published.attributes));
    contradictions(own.into_iter().chain(context.leases.peers()))
}

fn contradictions<'a>(leases: impl Iterator<Item = (LeaseKey, &'a LeaseAttributes)>) -> Vec<Finding> {
    let mut addresses: BTreeMap<IpAddr, Vec<LeaseKey>> = BTreeMap::new();
    let mut macs: BTreeMap<[u8; 6], Vec<LeaseKey>> = BTreeMap::new();
    let mut subnets: Vec<(IpNet, LeaseKey)> = Vec::new();
    for (key, attributes) in leases {
        let public = attributes.public_ip.map(IpAddr::from).into_iter();
        for address in public.chain(attributes.public_ipv6.map(IpAddr::from)) {
            addresses.entry(address).or_default().push(key);
        }
        for data in attributes.backend_data.iter().chain(&attributes.backend_v6_data) {
            if let Ok(VxlanData { vtep_mac, .. }) = data.decode() {
                macs.entry(vtep_mac).or_default().push(key);
            }
        }
        subnets.extend(key.subnets().map(|net| (net, key)));
    }
    let mut findings = Vec::new();
    for (address, keys) in addresses.into_iter().filter(|(_, keys)| keys.len() > 1) {
        findings.push(Finding::error(
            "duplicate",
            format!(
                "the leases {} have the same public address {address}: unless one host has both, pods of only one are reachable",
                list(&keys)
            ),
            "give each node its own address with --iface or --public-ip; the lease of a node that is gone expires",
        ));
    }
    for (mac, keys) in macs.into_iter().filter(|(_, keys)| keys.iter().any(|key| Some(key) != keys.first())) {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        findings.push(Finding::error(
            "duplicate",
            format!(
                "the leases {} have the same VTEP MAC address {mac}: pods of only one of the nodes are reachable",
                list(&keys)
            ),
            "if a machine was cloned, delete flannel.* on the clone and restart flanneld there",
        ));
    }
    // In order, a network that overlaps another one follows it or one that overlaps it too.
    subnets.sort_unstable();
    for ((net, key), (next, other)) in subnets.iter().zip(subnets.iter().skip(1)) {
        if key != other && net.contains(next) {
            findings.push(Finding::error(
                "duplicate",
                format!("the leases {key} and {other} overlap: pods of one of the nodes are unreachable"),
                "delete the lease of the node that has fewer pods, and restart flanneld there",
            ));
        }
    }
    findings
}

fn list(keys: &[LeaseKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(leases: &[(&str, &str)]) -> String {
        let leases: Vec<_> = leases
            .iter()
            .map(|(subnet, public)| {
                let key = LeaseKey::new(Some(subnet.parse().expect("a network")), None).expect("a subnet");
                let public_ip = Some(public.parse().expect("an address"));
                (key, LeaseAttributes { public_ip, ..LeaseAttributes::default() })
            })
            .collect();
        let findings = contradictions(leases.iter().map(|(key, attributes)| (*key, attributes)));
        findings.iter().map(|finding| format!("{}\n", finding.finding)).collect()
    }

    #[test]
    fn two_leases_of_one_address_or_of_overlapping_subnets_are_told() {
        assert_eq!(found(&[("10.0.1.0/24", "1.1.1.1"), ("10.0.2.0/24", "1.1.1.2")]), "");
        let same = found(&[("10.0.1.0/24", "1.1.1.1"), ("10.0.2.0/24", "1.1.1.1")]);
        assert!(
            same.contains("the leases 10.0.1.0-24, 10.0.2.0-24 have the same public address 1.1.1.1"),
            "{same}"
        );
        let shared = found(&[("10.0.0.0/16", "1.1.1.1"), ("10.0.2.0/24", "1.1.1.2")]);
        assert!(shared.contains("10.0.0.0-16 and 10.0.2.0-24 overlap"), "{shared}");
    }
}
