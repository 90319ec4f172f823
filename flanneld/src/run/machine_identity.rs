//! Which machine wrote a state file. Clones of a disk have one machine ID and often one host name, and a file can be
//! copied, so a machine is known by what differs: the MAC address of its uplink together with its boot ID or host name.

use std::fs;

use flannel_vxlan::Interface;
use serde::{Deserialize, Serialize};

/// The kernel draws it at each boot (random(4)); containers see the boot ID of their host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The identity of a machine.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Machine {
    /// MAC address of the uplink, as `ip link` prints it; `None` if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink_mac: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`; empty if it cannot be read.
    pub boot_id: String,
    /// As `uname -n` prints it.
    pub host_name: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this(uplink_mac: Option<String>, host_name: &str) -> Self {
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Self { uplink_mac, boot_id, host_name: host_name.to_owned() }
    }

    /// Whether this is the machine that has these interfaces and is called `host_name`.
    #[must_use]
    pub fn is_this(&self, interfaces: &[Interface], host_name: &str) -> bool {
        let macs = interfaces.iter().filter_map(|interface| interface.mac.map(|mac| mac.to_string()));
        let has_uplink = self.uplink_mac.is_none() || macs.map(Some).any(|mac| mac == self.uplink_mac);
        let same_boot = !self.boot_id.is_empty() && self.boot_id == Self::this(None, host_name).boot_id;
        has_uplink && (same_boot || self.host_name == host_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_uplink_and_by_its_boot_or_name() {
        let interface = |mac: &str| Interface { mac: mac.parse().ok(), ..Interface::default() };
        let (ours, other) = ([interface("02:00:00:00:00:01")], [interface("02:00:00:00:00:02")]);
        let wrote = Machine::this(Some("02:00:00:00:00:01".to_owned()), "a");
        assert!(wrote.is_this(&ours, "a"));
        assert!(wrote.is_this(&ours, "renamed"), "the boot is the same");
        assert!(!wrote.is_this(&other, "a"), "a snapshot that runs elsewhere");
        let rebooted = Machine { boot_id: "x".to_owned(), ..wrote.clone() };
        assert!(rebooted.is_this(&ours, "a"));
        assert!(!rebooted.is_this(&ours, "b"), "virtual machines of one image behind their own NAT");
        assert!(Machine { uplink_mac: None, ..wrote }.is_this(&other, "a"));
    }
}
