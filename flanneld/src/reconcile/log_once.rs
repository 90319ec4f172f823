//! What is to be said of leases that are not followed as they are: each thing once, for as long as it is so.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tracing::warn;

use crate::desired::{Setting, Skipped};
use flannel_lease::{LeaseAttributes, LeaseKey};

/// What was said, and still is so, of leases or subnets.
#[derive(Debug)]
pub(super) struct Remarks<T>(BTreeMap<T, Vec<String>>);

impl<T> Default for Remarks<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Remarks<T> {
    /// Takes all that is to be said of `subject` now, and logs what is new.
    pub(super) fn set(&mut self, subject: T, now: Vec<String>) {
        if now.is_empty() {
            self.0.remove(&subject);
            return;
        }
        let said = self.0.entry(subject).or_default();
        now.iter().filter(|text| !said.contains(text)).for_each(|text| warn!("{text}"));
        *said = now;
    }
}

/// Puts what was known of a lease in place of what it now says badly, one family at a time. Returns what is to be said.
///
/// Where a lease says nothing, or nonsense, of how to reach its node, it states nothing: not that the node has gone, nor
/// that it moves packets in another way.
pub(super) fn keep_known(
    setting: &Setting,
    key: LeaseKey,
    known: &LeaseAttributes,
    new: &mut LeaseAttributes,
) -> Vec<String> {
    let mut kept = Vec::new();
    for subnet in key.subnets() {
        let peer = |attributes: &LeaseAttributes| setting.peer(key, subnet, attributes, |_| false);
        let Some(Err(skipped @ (Skipped::BackendData { .. } | Skipped::NoAddress(_)))) = peer(new) else {
            continue;
        };
        if !matches!(peer(known), Some(Ok(_))) {
            continue;
        }
        match subnet {
            IpNet::V4(_) => {
                new.public_ip = known.public_ip;
                new.backend_data.clone_from(&known.backend_data);
            }
            IpNet::V6(_) => {
                new.public_ipv6 = known.public_ipv6;
                new.backend_v6_data.clone_from(&known.backend_v6_data);
            }
        }
        kept.push(format!("lease {key}: {skipped}; peer {subnet} stays as it was"));
    }
    kept
}
