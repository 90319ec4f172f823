//! Devices and routes that an earlier configuration of this node left in the kernel, after a change of VNI, backend or
//! network, or without a family.

use std::collections::{BTreeMap, BTreeSet};

use flannel_vxlan::{Family, FamilySpec, FlannelDevice, IfName, Links, Observed, Overlay, Plan};
use ipnet::IpNet;
use tracing::{info, warn};

use super::Reconciler;
use super::error::SweepError;
use crate::config::NetConf;
use crate::run::instances;
use flannel_lease::Chain;

/// Where objects of an earlier configuration may be that the ordinary diff does not look at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Orphans {
    /// Devices to be observed.
    pub(crate) devices: Vec<Links>,
    networks: Vec<IpNet>,
}

impl Orphans {
    /// The devices and networks that the configuration `before` has and `now` has not. A network inside a present one is
    /// left to the ordinary diff.
    pub(crate) fn between(before: &NetConf, now: &NetConf) -> Self {
        let (present, kept) = (devices(now), now.all_networks());
        let gone =
            devices(before).into_iter().filter(|(_, device)| !present.values().any(|kept| kept == device));
        let networks = before
            .all_networks()
            .into_iter()
            .filter(|network| !kept.iter().any(|kept| kept.contains(network)));
        Self {
            devices: gone.map(|(family, device)| Links::of(device, family)).collect(),
            networks: networks.collect(),
        }
    }

    /// Whether there is nowhere to look.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.networks.is_empty()
    }

    /// Steps that delete what was observed there and is not part of the desired state.
    pub(crate) fn plan(&self, desired: &Overlay, observed: &Observed) -> Plan {
        Plan::leftovers(&self.devices, &self.networks, desired, observed)
    }
}

fn devices(net_conf: &NetConf) -> BTreeMap<Family, IfName> {
    net_conf.backend.devices(net_conf.all_networks().into_iter().map(Family::of_net))
}

/// The sweep of what earlier configurations left in the kernel.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Earlier configurations whose devices and routes may still be in the kernel.
    previous: Vec<NetConf>,
    is_due: bool,
}

impl Sweep {
    /// A sweep that is due once everything desired is in place.
    pub(super) fn after(previous: Vec<NetConf>) -> Self {
        Self { previous, is_due: true }
    }

    /// Makes another sweep due, for what the present configuration has and this node no longer carries out.
    fn again(&mut self, net_conf: &NetConf) {
        if !self.previous.contains(net_conf) {
            self.previous.push(net_conf.clone());
        }
        self.is_due = true;
    }
}

impl<R: flannel_nft::Kernel, L: flannel_vxlan::Kernel> Reconciler<R, L> {
    /// Makes these the families of the overlay. The device and routes of one that is no longer among them are swept.
    pub(super) fn set_families(&mut self, families: Vec<FamilySpec>) {
        for family in Family::ALL {
            match families.iter().find(|spec| spec.family() == family) {
                Some(spec) => self.overlay.desired.set_family(spec.clone()),
                None if self.overlay.desired.family(family).is_some() => {
                    self.overlay.desired.remove_family(family);
                    self.sweep.again(&self.spec.net_conf);
                }
                None => {}
            }
        }
    }

    /// Deletes what earlier configurations left, and names other devices that have flannel's names. Once, when
    /// everything desired is in place. Returns whether the kernel may have been changed.
    pub(super) fn sweep_orphans(&mut self) -> bool {
        if !std::mem::take(&mut self.sweep.is_due) {
            return false;
        }
        self.sweep_now().unwrap_or_else(|error| {
            warn!(
                "cannot remove devices and routes of this node's previous configuration; traffic is not affected, flanneld \
                 tries again within 60 seconds: {}",
                Chain(&error)
            );
            self.sweep.is_due = true;
            true
        })
    }

    /// What the next start has to sweep in addition to the objects of the present configuration.
    pub(super) fn unswept(&self) -> Vec<NetConf> {
        let now = &self.spec.net_conf_in_use();
        let mut unswept = self.sweep.previous.clone();
        unswept.retain(|previous| !Orphans::between(previous, now).is_empty());
        unswept
    }

    fn sweep_now(&mut self) -> Result<bool, SweepError> {
        let now = &self.spec.net_conf_in_use();
        let left: Vec<Orphans> =
            self.unswept().iter().map(|previous| Orphans::between(previous, now)).collect();
        let ours: BTreeSet<IfName> = devices(now).into_values().collect();
        let interfaces = self.overlay.kernel.interfaces()?;
        let named = interfaces.iter().filter(|found| FlannelDevice::of_name(&found.name).is_some());
        let others = named.filter(|found| !ours.iter().any(|device| device.as_str() == found.name));
        let mut others: BTreeSet<&str> = others.map(|found| found.name.as_str()).collect();
        let anything = !others.is_empty() || left.iter().any(|left| !left.networks.is_empty());
        if anything && instances::has_company()? {
            // All of it may be the other daemon's. The state file keeps it in mind for a start without company.
            return Ok(false);
        }
        let mut changed = false;
        for left in &left {
            let observed = self.overlay.kernel.observe(&left.devices)?;
            let plan = left.plan(&self.overlay.desired, &observed);
            if plan.is_empty() {
                continue;
            }
            changed = true;
            let applied = self.overlay.kernel.apply(&plan)?;
            let steps = plan.steps().len() - applied.refused.len();
            let devices: Vec<_> = observed.devices.iter().map(|device| device.name.to_string()).collect();
            info!(
                steps,
                devices = devices.join(", "),
                "removed devices and routes of this node's previous configuration"
            );
            for refused in &applied.refused {
                let step = plan.steps().get(refused.step).map(|step| plan.command(step)).unwrap_or_default();
                warn!(
                    "cannot remove an object of this node's previous configuration; traffic is not affected, flanneld does not \
                     retry. Run `{step}` by hand: {}",
                    refused.errno
                );
            }
            for gone in &observed.devices {
                others.remove(gone.name.as_str());
            }
        }
        for other in others {
            info!(
                "device {other} is not part of this network configuration, and no other flanneld runs on this host; traffic is not \
                 affected. If it is unused, run `ip link del {other}`"
            );
        }
        let recorded = matches!(&self.sweep.previous[..], [previous] if *previous == self.spec.net_conf);
        self.sweep.previous.clear();
        if !recorded {
            // At once, so that `flanneld plan` and the next start know what is in the kernel.
            self.due.state.now();
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_present_configuration_does_not_have_is_left_over() {
        let conf = |text: &str| NetConf::parse(text.as_bytes()).unwrap();
        let dual = conf(
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}"#,
        );
        let ipv4 = conf(r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#);
        let seven = conf(r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}"#);
        let host_gw = conf(r#"{"Network": "10.99.0.0/16", "Backend": {"Type": "host-gw"}}"#);
        let wide = conf(r#"{"Network": "10.240.0.0/12", "Backend": {"Type": "vxlan"}}"#);
        let left = |before, now| {
            let orphans = Orphans::between(before, now);
            assert_eq!(orphans.is_empty(), orphans == Orphans::default());
            let Orphans { devices, networks } = orphans;
            let devices = devices.into_iter().filter_map(|links| Some(links.device?.to_string()));
            devices.chain(networks.iter().map(ToString::to_string)).collect::<Vec<_>>()
        };
        assert_eq!(left(&dual, &dual), [""; 0]);
        assert_eq!(left(&ipv4, &dual), [""; 0]);
        assert_eq!(left(&dual, &ipv4), ["flannel-v6.1", "fd00::/48"]);
        assert_eq!(left(&dual, &seven), ["flannel.1", "flannel-v6.1", "fd00::/48"]);
        assert_eq!(left(&ipv4, &host_gw), ["flannel.1", "10.244.0.0/16"]);
        assert_eq!(left(&host_gw, &ipv4), ["10.99.0.0/16"]);
        assert_eq!(left(&ipv4, &wide), [""; 0]);
        assert_eq!(left(&wide, &ipv4), ["10.240.0.0/12"]);
        let wireguard = |mode: &str| {
            conf(&format!(
                r#"{{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48",
                     "Backend": {{"Type": "wireguard", "Mode": "{mode}"}}}}"#
            ))
        };
        let (separate, shared) = (wireguard("separate"), wireguard("auto"));
        assert_eq!(left(&separate, &shared), ["flannel-wg-v6"]);
        assert_eq!(left(&shared, &separate), [""; 0]);
        assert_eq!(left(&shared, &dual), ["flannel-wg"]);
    }

    #[test]
    fn a_sweep_that_is_due_again_looks_for_each_configuration_once() {
        let conf = |vni: u32| {
            let text =
                format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan", "VNI": {vni}}}}}"#);
            NetConf::parse(text.as_bytes()).unwrap()
        };
        let mut sweep = Sweep::default();
        for vni in [1, 7, 1, 7] {
            sweep.is_due = false;
            sweep.again(&conf(vni));
            assert!(sweep.is_due);
        }
        assert_eq!(sweep.previous, [conf(1), conf(7)]);
    }
}
