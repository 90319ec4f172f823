//! Which subnets a node gets. Pure: leases and randomness come in, a choice comes out.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::RngExt;

use super::{LeaseAttributes, LeaseKey, LeaseRequest, PublicAddress, StoreErrorKind};

/// The subnets that a node may get. A family without a range gets no subnet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllocationRange {
    /// IPv4 subnets.
    pub v4: Option<FamilyRange<Ipv4Net, Ipv4Addr>>,
    /// IPv6 subnets.
    pub v6: Option<FamilyRange<Ipv6Net, Ipv6Addr>>,
    /// Networks of this host, such as its LAN. A new subnet shares no addresses with them. A subnet that the node holds
    /// or held is kept, and a network that contains the whole pod network is ignored.
    pub avoid: Vec<IpNet>,
}

/// One family's part of net-conf.json: `Network`, `SubnetLen`, `SubnetMin`, `SubnetMax`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FamilyRange<Net, Address> {
    /// The whole pod network.
    pub network: Net,
    /// Prefix length of every subnet, in bits.
    pub subnet_len: u8,
    /// Network address of the first subnet that may be allocated.
    pub min: Address,
    /// Network address of the last subnet that may be allocated (inclusive).
    pub max: Address,
}

/// The result of [`choose`]: what a store has to write.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The subnets to lease.
    pub key: LeaseKey,
    /// The lease that this node already has and that is to be replaced: under the same key, or under another key that
    /// the range no longer allows.
    pub own: Option<LeaseKey>,
}

/// Why a node gets no subnet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// No subnet of the range is free. The text begins with upstream's message.
    #[error("out of subnets: {0}")]
    OutOfSubnets(String),
    /// A node would begin to publish the backend data of another node, such as its VTEP MAC address, so that peers reach
    /// only one of the two.
    #[error("the node {node} with lease {key} publishes the same backend data as this node")]
    IdentityTaken {
        /// The other node's subnets.
        key: LeaseKey,
        /// Its public address.
        node: PublicAddress,
    },
}

impl ChoiceError {
    /// The [`StoreErrorKind`] with which a store reports this error.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            Self::OutOfSubnets(_) => StoreErrorKind::OutOfSubnets,
            Self::IdentityTaken { .. } => StoreErrorKind::IdentityTaken,
        }
    }
}

/// Chooses the subnets for `request`, given all leases, and the keys in `occupied` whose contents are unreadable. Each
/// family gets the subnet that the node holds, else the subnet that it held before if that is free, else a random free
/// subnet. Takes O(n log n) for n leases, however large the range is. A lease on the whole pod network belongs to no
/// node and occupies nothing.
///
/// The node's own lease is the lease with its public address. If the node's address has changed, it is the lease on its
/// previous subnet with the backend data that the node is known to have published there.
///
/// # Errors
/// [`ChoiceError`].
pub fn choose<'a>(
    leases: impl IntoIterator<Item = (LeaseKey, &'a LeaseAttributes)>,
    occupied: &[LeaseKey],
    request: &LeaseRequest,
    rng: &mut impl RngExt,
) -> Result<Choice, ChoiceError> {
    let Split { own, mut others, twins } = split(leases, request);
    identity_is_free(twins, &request.attributes, own.map(|(_, attributes)| attributes))?;
    let own = own.map(|(key, _)| key);
    others.extend(occupied);
    let wanted = || [own, request.previous].into_iter().flatten();
    let v4 = match request.range.v4 {
        Some(range) => {
            let slots = Slots::v4(&range);
            let avoid = request.range.avoid.iter().filter_map(|net| match net {
                IpNet::V4(net) => Some(of_v4(*net)),
                IpNet::V6(_) => None,
            });
            let occupied = others.iter().copied().filter_map(span_v4);
            let first = slots.pick(wanted().filter_map(span_v4), occupied, avoid, rng);
            let net = first.and_then(|first| Ipv4Net::new(v4_address(first)?, range.subnet_len).ok());
            Some(net.ok_or_else(|| slots.exhausted(range.subnet_len, range.min, range.max))?)
        }
        None => None,
    };
    let v6 = match request.range.v6 {
        Some(range) => {
            let slots = Slots::v6(&range);
            let avoid = request.range.avoid.iter().filter_map(|net| match net {
                IpNet::V4(_) => None,
                IpNet::V6(net) => Some(of_v6(*net)),
            });
            let occupied = others.iter().copied().filter_map(span_v6);
            let first = slots.pick(wanted().filter_map(span_v6), occupied, avoid, rng);
            let net = first.and_then(|first| Ipv6Net::new(first.into(), range.subnet_len).ok());
            Some(net.ok_or_else(|| slots.exhausted(range.subnet_len, range.min, range.max))?)
        }
        None => None,
    };
    let key = LeaseKey::new(v4, v6)
        .ok_or_else(|| ChoiceError::OutOfSubnets("no address family is enabled".into()))?;
    Ok(Choice { key, own })
}

/// Checks that none of `others`, the leases of other nodes, has backend data of `wanted` that this node's own lease does
/// not have yet. What it has, it keeps: another node may have copied it since.
///
/// # Errors
/// [`ChoiceError::IdentityTaken`].
pub(crate) fn identity_is_free<'a>(
    others: impl IntoIterator<Item = Published<'a>>,
    wanted: &LeaseAttributes,
    own: Option<&LeaseAttributes>,
) -> Result<(), ChoiceError> {
    let mut new = wanted.clone();
    if let Some(own) = own {
        new.backend_data.take_if(|data| own.backend_data.as_ref() == Some(data));
        new.backend_v6_data.take_if(|data| own.backend_v6_data.as_ref() == Some(data));
    }
    match others.into_iter().find(|(_, attributes)| attributes.publishes_data_of(&new)) {
        Some((key, twin)) => Err(ChoiceError::IdentityTaken { key, node: twin.public_address() }),
        None => Ok(()),
    }
}

/// A lease, and what its node publishes with it.
type Published<'a> = (LeaseKey, &'a LeaseAttributes);

struct Split<'a> {
    own: Option<Published<'a>>,
    others: Vec<LeaseKey>,
    /// Other nodes that publish this node's backend data.
    twins: Vec<Published<'a>>,
}

/// The node's own lease, and the keys of all others. Of several that look like the node's, the one with its address
/// wins, then the one on its previous subnet; the rest counts as occupied.
fn split<'a>(leases: impl IntoIterator<Item = Published<'a>>, request: &LeaseRequest) -> Split<'a> {
    let mut own: Option<((bool, bool), Published<'_>)> = None;
    let (mut others, mut twins) = (Vec::new(), Vec::new());
    for (key, attributes) in leases {
        let by_address = attributes.same_node(&request.attributes);
        let previous = request.previous == Some(key);
        let is_former =
            |former: &LeaseAttributes| attributes.same_node(former) && attributes.same_backend(former);
        let claim = (by_address || previous && request.former.as_ref().is_some_and(is_former))
            .then_some(((by_address, previous), (key, attributes)));
        if claim.is_none() && attributes.publishes_data_of(&request.attributes) {
            twins.push((key, attributes));
        }
        let loser = if claim.is_some() && claim.map(|c| c.0) > own.map(|o| o.0) {
            std::mem::replace(&mut own, claim).map(|(_, (key, _))| key)
        } else {
            Some(key)
        };
        others.extend(loser);
    }
    Split { own: own.map(|(_, lease)| lease), others, twins }
}

fn span_v4(key: LeaseKey) -> Option<(u128, u128)> {
    key.v4().map(of_v4)
}

fn of_v4(net: Ipv4Net) -> (u128, u128) {
    (net.network().to_bits().into(), net.broadcast().to_bits().into())
}

fn span_v6(key: LeaseKey) -> Option<(u128, u128)> {
    key.v6().map(of_v6)
}

fn of_v6(net: Ipv6Net) -> (u128, u128) {
    (net.network().to_bits(), net.broadcast().to_bits())
}

fn v4_address(bits: u128) -> Option<Ipv4Addr> {
    u32::try_from(bits).ok().map(Ipv4Addr::from_bits)
}

/// The subnets of a range as numbers: `count` of them, the first at `min`, each 2^`host_bits` addresses.
struct Slots {
    /// First and last address of the whole network.
    network: (u128, u128),
    min: u128,
    count: u128,
    host_bits: u32,
}

impl Slots {
    fn v4(range: &FamilyRange<Ipv4Net, Ipv4Addr>) -> Self {
        Self::new(
            of_v4(range.network),
            range.min.to_bits().into(),
            range.max.to_bits().into(),
            32,
            range.subnet_len,
        )
    }

    fn v6(range: &FamilyRange<Ipv6Net, Ipv6Addr>) -> Self {
        Self::new(of_v6(range.network), range.min.to_bits(), range.max.to_bits(), 128, range.subnet_len)
    }

    fn new(network: (u128, u128), min: u128, max: u128, bits: u32, subnet_len: u8) -> Self {
        let host_bits = bits.saturating_sub(subnet_len.into()).min(127);
        let count = max.checked_sub(min).map_or(0, |distance| (distance >> host_bits).saturating_add(1));
        Self { network, min, count, host_bits }
    }

    /// First address of the first of `wanted` that is a free slot, else of a random free slot outside of `avoid`.
    fn pick(
        &self,
        mut wanted: impl Iterator<Item = (u128, u128)>,
        occupied: impl Iterator<Item = (u128, u128)> + Clone,
        avoid: impl Iterator<Item = (u128, u128)>,
        rng: &mut impl RngExt,
    ) -> Option<u128> {
        let all = occupied.clone().chain(avoid);
        let occupied = self.merge(occupied);
        let found = wanted.find_map(|(first, last)| {
            let slot = first.checked_sub(self.min)? >> self.host_bits;
            let whole = self.address(slot) == first && last - first == (1 << self.host_bits) - 1;
            let free = !occupied.iter().any(|&(from, to)| (from..=to).contains(&slot));
            (whole && free && slot < self.count).then_some(first)
        });
        found.or_else(|| self.random(&self.merge(all), rng))
    }

    /// The slots that any of `spans` touches, as sorted, disjoint, inclusive ranges.
    fn merge(&self, spans: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
        let Some(last_slot) = self.count.checked_sub(1) else { return Vec::new() };
        let mut slots: Vec<_> = spans
            .filter(|&(first, last)| last >= self.min && !self.is_everything(first, last))
            .map(|(first, last)| {
                (first.saturating_sub(self.min) >> self.host_bits, (last - self.min) >> self.host_bits)
            })
            .filter(|&(first, _)| first <= last_slot)
            .map(|(first, last)| (first, last.min(last_slot)))
            .collect();
        slots.sort_unstable();
        slots.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1;
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
        slots
    }

    /// Whether a lease on these addresses takes the network from all other nodes.
    fn is_everything(&self, first: u128, last: u128) -> bool {
        let (start, end) = self.network;
        first <= start && last >= end && (end - start) >> self.host_bits > 0
    }

    fn random(&self, occupied: &[(u128, u128)], rng: &mut impl RngExt) -> Option<u128> {
        let taken: u128 = occupied.iter().map(|(first, last)| last - first + 1).sum();
        let free = self.count.checked_sub(taken).filter(|free| *free > 0)?;
        let mut slot = rng.random_range(0..free);
        for &(first, last) in occupied {
            if slot < first {
                break;
            }
            slot += last - first + 1;
        }
        Some(self.address(slot))
    }

    fn address(&self, slot: u128) -> u128 {
        self.min.saturating_add(slot << self.host_bits)
    }

    fn exhausted(&self, len: u8, min: impl std::fmt::Display, max: impl std::fmt::Display) -> ChoiceError {
        ChoiceError::OutOfSubnets(format!(
            "none of the {} /{len} subnets from {min} to {max} is free",
            self.count
        ))
    }
}
