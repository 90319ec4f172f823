//! What must not have been written for a subnet to be still free.

use ipnet::Ipv4Net;

use super::client::unchanged_since;
use super::wire::Compare;
use crate::LeaseKey;

/// Conditions that fail if, since `revision`, anybody has written a lease that overlaps `key`.
///
/// Keys begin with their IPv4 subnet, so an IPv4-only lease needs to look only around its own: nodes that take
/// different subnets do not get in each other's way. IPv6 subnets can be anywhere, so a lease with one depends on every
/// other.
pub(super) fn nothing_overlaps(subnets: &str, key: LeaseKey, revision: i64) -> Vec<Compare> {
    match (key.v4(), key.v6()) {
        (Some(net), None) => names_around(net)
            .into_iter()
            .map(|name| unchanged_since(&format!("{subnets}{name}"), revision))
            .collect(),
        _ => vec![unchanged_since(subnets, revision)],
    }
}

/// What the keys of all subnets that overlap `net` start with: those inside it share its whole octets, those around it
/// are its shorter prefixes. At most 31, of the 128 conditions that etcd allows.
fn names_around(net: Ipv4Net) -> Vec<String> {
    let whole = usize::from(net.prefix_len() / 8);
    let inside = net.network().octets().iter().take(whole).map(|octet| format!("{octet}.")).collect();
    let around = (1..net.prefix_len())
        .filter_map(|len| Ipv4Net::new(net.network(), len).ok())
        .map(|wider| format!("{}-{}", wider.network(), wider.prefix_len()));
    std::iter::once(inside).chain(around).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn subnet() -> impl Strategy<Value = Ipv4Net> {
        (0u32..1 << 12, 1u8..=31).prop_map(|(bits, len)| {
            Ipv4Net::new(Ipv4Addr::from_bits((10 << 24) + (bits << 8)), len).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn whatever_overlaps_is_looked_at(wanted in subnet(), other in subnet(), dual: bool) {
            let v6 = dual.then(|| "fd00::/64".parse().unwrap());
            let key = LeaseKey::new(Some(other), v6).unwrap();
            let overlaps = LeaseKey::new(Some(wanted), None).unwrap().overlaps(key);
            let seen = names_around(wanted).iter().any(|name| key.to_string().starts_with(name.as_str()));
            prop_assert!(seen || !overlaps, "{} beside {}: {:?}", wanted, key, names_around(wanted));
            prop_assert!(names_around(wanted).len() <= 31);
        }
    }

    #[test]
    fn neighbours_are_not_looked_at() {
        let names = names_around("10.244.1.0/24".parse().unwrap());
        assert!(!names.iter().any(|name| "10.244.2.0-24".starts_with(name.as_str())), "{names:?}");
    }
}
