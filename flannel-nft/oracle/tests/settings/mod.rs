//! The rulesets of flanneld.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions only, this is what they call"
)]

use flannel_nft::Ruleset;
use flanneld::desired::rules::{RuleSpec, ruleset};

/// What flanneld asks for, in each of its settings.
pub(crate) fn of_flanneld() -> Vec<Ruleset> {
    let ipv4 = Some(("10.244.0.0/16".parse().unwrap(), "10.244.59.0/24".parse().unwrap()));
    let ipv6 = Some(("fd00:10:244::/48".parse().unwrap(), "fd00:10:244:5d::/64".parse().unwrap()));
    let whole =
        RuleSpec { ipv4, ipv6, masquerade: true, fully_random: true, forward: true, ..RuleSpec::default() };
    let exempt = ["192.168.0.0/17", "10.9.0.0/16", "fd99::/20"].map(|net| net.parse().unwrap()).to_vec();
    let settings = [
        RuleSpec { ipv6: None, ..whole.clone() },
        RuleSpec { ipv4: None, ..whole.clone() },
        RuleSpec { forward: false, fully_random: false, ..whole.clone() },
        RuleSpec { masquerade: false, ..whole.clone() },
        RuleSpec {
            ipv4: Some(("10.96.0.0/13".parse().unwrap(), "10.97.3.128/25".parse().unwrap())),
            ..whole.clone()
        },
        RuleSpec { no_masquerade: exempt, ..whole.clone() },
        whole,
    ];
    settings.iter().map(|spec| ruleset(spec).unwrap()).collect()
}
