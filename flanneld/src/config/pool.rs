//! The range of subnets that nodes lease from: defaults and rules, the same for both address families.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::json_reader::KeyProblem;

/// IPv4 subnets for nodes, of `subnet_len` bits each, from `subnet_min` to `subnet_max`, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ipv4Pool {
    /// All pods of the cluster (`Network`).
    pub network: Ipv4Net,
    /// Prefix length of each node's subnet (`SubnetLen`), at most 30. Default: 24, or a quarter of a small network.
    pub subnet_len: u8,
    /// First subnet (`SubnetMin`). Default: the second of the network, because the first's address is the network's.
    pub subnet_min: Ipv4Addr,
    /// Last subnet (`SubnetMax`). Default: the last of the network.
    pub subnet_max: Ipv4Addr,
}

/// IPv6 subnets for nodes, of `subnet_len` bits each, from `subnet_min` to `subnet_max`, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ipv6Pool {
    /// All pods of the cluster (`IPv6Network`).
    pub network: Ipv6Net,
    /// Prefix length of each node's subnet (`IPv6SubnetLen`), at most 126. Default: 64, or a quarter of a small network.
    pub subnet_len: u8,
    /// First subnet (`IPv6SubnetMin`). Default: the second of the network.
    pub subnet_min: Ipv6Addr,
    /// Last subnet (`IPv6SubnetMax`). Default: the last of the network.
    pub subnet_max: Ipv6Addr,
}

/// The four keys of a family as written. A zero length and an unspecified address mean the default, as upstream.
pub(super) struct Wanted<N, A> {
    pub(super) network: Option<N>,
    pub(super) len: Option<u32>,
    pub(super) min: Option<A>,
    pub(super) max: Option<A>,
}

/// Applies the IPv4 rules; `None` if `problems` has grown.
pub(super) fn ipv4(wanted: Wanted<Ipv4Net, Ipv4Addr>, problems: &mut Vec<KeyProblem>) -> Option<Ipv4Pool> {
    let range = range(
        &IPV4,
        &Wanted {
            network: wanted
                .network
                .map(|network| (u32::from(network.network()).into(), network.prefix_len())),
            len: wanted.len,
            min: wanted.min.map(|address| u32::from(address).into()),
            max: wanted.max.map(|address| u32::from(address).into()),
        },
        problems,
    )?;
    Some(Ipv4Pool {
        network: wanted.network?,
        subnet_len: range.len,
        subnet_min: u32::try_from(range.min).ok()?.into(),
        subnet_max: u32::try_from(range.max).ok()?.into(),
    })
}

/// Applies the IPv6 rules; `None` if `problems` has grown.
pub(super) fn ipv6(wanted: Wanted<Ipv6Net, Ipv6Addr>, problems: &mut Vec<KeyProblem>) -> Option<Ipv6Pool> {
    let range = range(
        &IPV6,
        &Wanted {
            network: wanted.network.map(|network| (network.network().into(), network.prefix_len())),
            len: wanted.len,
            min: wanted.min.map(u128::from),
            max: wanted.max.map(u128::from),
        },
        problems,
    )?;
    Some(Ipv6Pool {
        network: wanted.network?,
        subnet_len: range.len,
        subnet_min: range.min.into(),
        subnet_max: range.max.into(),
    })
}

/// What differs between the families. Addresses are counted in the low `bits` of a `u128`.
struct Family {
    bits: u8,
    default_len: u8,
    prefix: &'static str,
    too_small: &'static str,
    show: fn(u128) -> String,
}

const IPV4: Family = Family {
    bits: 32,
    default_len: 24,
    prefix: "",
    too_small: "network is too small. Minimum useful network prefix is /28",
    show: |bits| {
        u32::try_from(bits).map_or_else(|_| bits.to_string(), |bits| Ipv4Addr::from(bits).to_string())
    },
};

const IPV6: Family = Family {
    bits: 128,
    default_len: 64,
    prefix: "IPv6",
    too_small: "IPv6Network is too small. Minimum useful network prefix is /124",
    show: |bits| Ipv6Addr::from(bits).to_string(),
};

struct Range {
    len: u8,
    min: u128,
    max: u128,
}

fn range(
    family: &Family,
    wanted: &Wanted<(u128, u8), u128>,
    problems: &mut Vec<KeyProblem>,
) -> Option<Range> {
    let Family { prefix, .. } = family;
    let mut report =
        |key: &str, reason: String| problems.push(KeyProblem { key: format!("{prefix}{key}"), reason });

    // A prefix of 0 with bits set cannot be: the network is truncated. So this is 0.0.0.0/0 or ::/0, upstream's "empty".
    let Some((network, network_len)) = wanted.network.filter(|(_, len)| *len != 0) else {
        report("Network", format!("please define a correct {prefix}Network parameter in the flannel config"));
        return None;
    };
    // Four subnets at least (the first stays unused), of four addresses at least (tunnel, bridge, two pods).
    let len = match wanted.len.filter(|len| *len != 0) {
        Some(len) if len > u32::from(family.bits - 2) => {
            report("SubnetLen", format!("{prefix}SubnetLen must be less than /{}", family.bits - 1));
            return None;
        }
        Some(len) if len < u32::from(network_len) + 2 => {
            let reason = "network must be able to accommodate at least four subnets";
            report("SubnetLen", format!("{reason}: use {} or more", network_len + 2));
            return None;
        }
        Some(len) => u8::try_from(len).ok()?,
        None if network_len > family.bits - 4 => {
            report("Network", family.too_small.to_owned());
            return None;
        }
        None => family.default_len.max(network_len + 2),
    };
    let subnet_size = 1_u128 << (family.bits - len);
    let last = network + ((1 << (family.bits - network_len)) - 1);

    let mut edge = |key: &str, wanted: Option<u128>, default: u128| match wanted
        .filter(|address| *address != 0)
    {
        None => Some(default),
        Some(address) if address < network || address > last => {
            report(key, format!("{prefix}{key} is not in the range of the {prefix}Network"));
            None
        }
        Some(address) if address % subnet_size != 0 => {
            report(key, format!("{prefix}{key} is not on a SubnetLen boundary: {}", (family.show)(address)));
            None
        }
        Some(address) => Some(address),
    };
    let min = edge("SubnetMin", wanted.min, network + subnet_size);
    let max = edge("SubnetMax", wanted.max, last - (subnet_size - 1));
    let (min, max) = (min?, max?);
    if min > max {
        let (min, max) = ((family.show)(min), (family.show)(max));
        report(
            "SubnetMin",
            format!("{min} is above {prefix}SubnetMax {max}, which leaves no subnet to lease"),
        );
        return None;
    }
    Some(Range { len, min, max })
}
