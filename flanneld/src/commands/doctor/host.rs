//! What this host's sysctls, files and other programs' tables say.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::Finding;
use crate::commands::survey::Survey;
use crate::config::{Backend, Config, Store};

/// The address that VirtualBox gives the first interface of every machine.
const VAGRANT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const CNI_CONFIGURATION: &str = "/etc/cni/net.d";
const CNI_PLUGINS: &str = "/opt/cni/bin";

/// What can be told without knowing the cluster.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (family, file) in [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")] {
        let tables = read(&format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let tables: Vec<_> = tables.split_whitespace().collect();
        if !tables.is_empty() {
            findings.push(Finding::warning(
                "legacy",
                format!(
                    "legacy {family} has the tables {}, whose rules nftables cannot see",
                    tables.join(", ")
                ),
                format!("look at `{family}-legacy-save`; better move everything to {family}-nft"),
            ));
        }
    }
    match sysctl("net/bridge/bridge-nf-call-iptables") {
        Some(1) => {}
        found => findings.push(Finding::warning(
            "bridge",
            match found {
                None => "br_netfilter is not loaded: services fail between pods of one node".to_owned(),
                Some(value) => format!(
                    "net.bridge.bridge-nf-call-iptables is {value}: services fail between pods of one node"
                ),
            },
            "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1",
        )),
    }
    if matches!(config.store, Store::Kubernetes(_)) {
        findings.extend(cni(Path::new(CNI_CONFIGURATION), Path::new(CNI_PLUGINS)));
    }
    findings
}

/// What is to be seen around the interface, the device and subnet.env.
pub(super) fn around(survey: &Survey, subnet_file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let facts = &survey.setting.facts;
    let forwarding = [
        ("net/ipv4/ip_forward", facts.ipv4.is_some()),
        ("net/ipv6/conf/all/forwarding", facts.ipv6.is_some()),
    ];
    for (name, _) in forwarding.into_iter().filter(|(name, used)| *used && sysctl(name) != Some(1)) {
        let name = name.replace('/', ".");
        findings.push(Finding::error(
            "forwarding",
            format!("{name} is not 1: this host forwards nothing for its pods"),
            format!("sysctl -w {name}=1, and for good in /etc/sysctl.d"),
        ));
    }
    let mut devices = vec![facts.interface.clone()];
    if let Backend::Vxlan(vxlan) = &survey.setting.net_conf.backend {
        devices.push(format!("flannel.{}", vxlan.vni));
        findings.extend(managers(vxlan.vni));
    }
    for device in devices.iter().filter(|_| facts.ipv4.is_some()) {
        let strict = [format!("net/ipv4/conf/{device}/rp_filter"), "net/ipv4/conf/all/rp_filter".to_owned()];
        if strict.iter().filter_map(|name| sysctl(name)).max() == Some(1) {
            findings.push(Finding::info(
                "rp_filter",
                format!(
                    "{device} drops packets whose answers would leave by another interface (rp_filter 1)"
                ),
                format!("only if routes are asymmetric: sysctl -w net.ipv4.conf.{device}.rp_filter=2"),
            ));
        }
    }
    if facts.ipv4.is_some_and(|own| own.public == VAGRANT) {
        findings.push(Finding::error(
            "interface",
            format!(
                "{} with {VAGRANT} is the NAT of a Vagrant machine: every node has that address",
                facts.interface
            ),
            "name the interface between the machines: --iface=eth1",
        ));
    }
    let wanted = survey.setting.subnet_env(survey.lease).to_string();
    let shown = subnet_file.display();
    match fs::read_to_string(subnet_file) {
        Ok(found) if found == wanted => {}
        Ok(_) => findings.push(Finding::warning(
            "subnet_env",
            format!("{shown} is not what it should be: new pods get wrong addresses or MTUs"),
            "start the daemon, which writes it; check that its --subnet-file is this one",
        )),
        Err(error) => findings.push(Finding::error(
            "subnet_env",
            format!("{shown} cannot be read ({error}): the CNI plugin cannot set up pods"),
            "start the daemon, which writes it",
        )),
    }
    findings
}

/// What the container runtime needs to call flannel's plugin.
fn cni(configuration: &Path, plugins: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names = fs::read_dir(configuration).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf" || kind == "conflist"))
        .collect();
    names.sort();
    // The runtime takes the first by name.
    match names.first().map(|path| (path, fs::read_to_string(path).unwrap_or_default())) {
        Some((_, text)) if text.contains("\"flannel\"") => {}
        Some((path, _)) => findings.push(Finding::error(
            "cni",
            format!("the runtime uses {}, which does not name the plugin flannel", path.display()),
            "remove it, or what was installed beside flannel",
        )),
        None => findings.push(Finding::error(
            "cni",
            format!("{} holds no configuration", configuration.display()),
            "install 10-flannel.conflist there: the init container of the DaemonSet does",
        )),
    }
    for plugin in ["flannel", "bridge", "host-local", "portmap"] {
        if !plugins.join(plugin).exists() {
            findings.push(Finding::error(
                "cni",
                format!("{} has no plugin {plugin}", plugins.display()),
                "install the CNI plugins (containernetworking/plugins, flannel-io/cni-plugin)",
            ));
        }
    }
    findings
}

/// Network managers that may take addresses and routes off devices they do not know.
fn managers(vni: u32) -> Option<Finding> {
    let managers = [
        ("systemd-networkd", "/run/systemd/netif", "/etc/systemd/network"),
        ("NetworkManager", "/run/NetworkManager", "/etc/NetworkManager/conf.d"),
    ];
    let (name, _, folder) = managers.into_iter().find(|(_, running, folder)| {
        let told = |text: String| text.contains("flannel");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        Path::new(running).exists()
            && !files.filter_map(|file| fs::read_to_string(file.path()).ok()).any(told)
    })?;
    Some(Finding::info(
        "manager",
        format!("{name} runs and is not told to leave flannel.{vni} alone"),
        format!("tell it in {folder} that flannel* is unmanaged"),
    ))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn sysctl(name: &str) -> Option<u32> {
    read(&format!("/proc/sys/{name}"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_must_find_flannels_configuration_first_and_its_plugins() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = |what: &str| {
            let findings = cni(folder.path(), folder.path());
            findings.iter().any(|finding| finding.finding.contains(what))
        };
        assert!(found("holds no configuration") && found("no plugin host-local"));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write("10-flannel.conflist", r#"{"plugins": [{"type": "flannel"}]}"#);
        write("host-local", "");
        assert!(!found("configuration") && !found("no plugin host-local") && !found("does not name"));
        write("05-other.conf", r#"{"type": "other"}"#);
        assert!(found("05-other.conf, which does not name"));
    }
}
