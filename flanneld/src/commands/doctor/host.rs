//! What this host's sysctls and files say.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use flannel_vxlan::Interface;
use flannel_vxlan::{Family, FlannelDevice};
use ipnet::IpNet;

use super::Finding;
use crate::commands::context::Context;
use crate::commands::legacy_iptables::LegacyTables;
use crate::config::{Config, Store};
use crate::file;
use flannel_lease::{LeaseAttributes, LeaseKey};

/// The address that VirtualBox gives the first interface of every machine.
const VAGRANT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

/// What this process sees of the host.
#[derive(Debug)]
pub(super) struct Host {
    /// The folder that everything is read from; tests make one up.
    root: PathBuf,
    /// Whether this is a pod, which sees the host's folders only if they are mounted.
    is_pod: bool,
}

impl Host {
    /// This host, or what the container shows of it.
    pub(super) fn here() -> Self {
        // The kubelet sets it in every container.
        let is_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
        Self { root: PathBuf::from("/"), is_pod }
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// A number below `/proc/sys`.
    fn sysctl(&self, name: &str) -> Option<u32> {
        self.text(&format!("proc/sys/{name}"))?.trim().parse().ok()
    }

    /// What can be told without knowing the cluster.
    pub(super) fn check(&self, config: &Config) -> Vec<Finding> {
        let mut findings = self.legacy();
        if matches!(config.store, Store::Kubernetes(_)) {
            findings.extend(self.cni());
        }
        findings
    }

    fn legacy(&self) -> Vec<Finding> {
        let finding = |tables: &LegacyTables| {
            let command = tables.command;
            let advice =
                format!("check the output of `{command}-legacy-save`, and move its rules to {command}-nft");
            Finding::warning("legacy", tables.to_string(), advice)
        };
        LegacyTables::read(&self.root).iter().map(finding).collect()
    }

    /// What the container runtime needs to call flannel's plugin.
    fn cni(&self) -> Vec<Finding> {
        let (configuration, plugins) = (self.root.join("etc/cni/net.d"), self.root.join("opt/cni/bin"));
        let absent = [&configuration, &plugins].into_iter().find(|folder| !folder.exists());
        if let Some(absent) = absent.filter(|_| !self.is_pod) {
            return vec![Finding::warning(
                "cni",
                format!("{} does not exist", absent.display()),
                "if this is a container, run doctor on the host; otherwise install the CNI plugins and 10-flannel.conflist",
            )];
        }
        let mut findings = Vec::new();
        if configuration.exists() {
            findings.extend(cni_configuration(&configuration));
        }
        if plugins.exists() {
            findings.extend(cni_plugins(&plugins));
        }
        findings
    }

    /// What is to be seen around the interface, the device and subnet.env.
    pub(super) fn around(
        &self,
        context: &Context,
        interfaces: &[Interface],
        subnet_file: &Path,
    ) -> Vec<Finding> {
        let facts = &context.spec.facts;
        let mut findings = self.forwarding(facts.ipv4.is_some(), facts.ipv6.is_some());
        findings.extend(self.bridges(facts.ipv4.is_some(), facts.ipv6.is_some()));
        let mut devices = vec![facts.interface.clone()];
        let backend = &context.spec.net_conf.backend;
        if let Some(device) = backend.device() {
            let is_ours = |name: &str| FlannelDevice::of_name(name).is_some_and(|(found, _)| found == device);
            let is_up = |found: &Interface| found.up && is_ours(&found.name);
            let name = device.name(Family::V4).to_string();
            findings.extend(self.managers(&name));
            devices.push(name);
            // A device that is up holds the port itself, and has it.
            if !interfaces.iter().any(is_up) {
                let networks = context.spec.net_conf.all_networks();
                let ports = backend.ports(networks.into_iter().map(Family::of_net));
                findings.extend(ports.into_iter().flat_map(|port| self.port(port.get())));
            }
        }
        if facts.ipv4.is_some() {
            findings.extend(self.reverse_path(&devices));
        }
        if facts.ipv4.is_some_and(|own| own.public == VAGRANT) {
            findings.push(Finding::error(
                "interface",
                format!(
                    "{} has {VAGRANT}, the NAT address that Vagrant gives every machine: other nodes do not reach this one",
                    facts.interface
                ),
                "name the interface between the machines, such as --iface=eth1",
            ));
        }
        let (conf, lease) = (&context.spec.net_conf, context.lease);
        let v4 = conf.ipv4.map(|pool| IpNet::from(pool.network));
        let pools: Vec<IpNet> =
            v4.into_iter().chain(conf.ipv6.map(|pool| IpNet::from(pool.network))).collect();
        let own: Vec<IpNet> = lease.subnets().collect();
        findings.extend(overlaps(&pools, &own, interfaces, context.leases.peers()));
        findings.extend(subnet_env(context, subnet_file));
        findings
    }

    pub(super) fn bridges(&self, ipv4: bool, ipv6: bool) -> Option<Finding> {
        let wanted =
            [("net.bridge.bridge-nf-call-iptables", ipv4), ("net.bridge.bridge-nf-call-ip6tables", ipv6)];
        let used = wanted.into_iter().filter(|(_, used)| *used);
        let values = used.map(|(name, _)| (name, self.sysctl(&name.replace('.', "/"))));
        let wrong: Vec<_> = values.filter(|(_, value)| *value != Some(1)).collect();
        let effect = "pods cannot reach a service through kube-proxy if its endpoint is on the same node";
        if wrong.iter().any(|(_, value)| value.is_none()) {
            return Some(Finding::warning(
                "bridge",
                format!("br_netfilter is not loaded: {effect}"),
                "run `modprobe br_netfilter`, and add a line `br_netfilter` to a file in /etc/modules-load.d to keep it",
            ));
        }
        let names: Vec<_> = wrong.into_iter().map(|(name, _)| name).collect();
        (!names.is_empty()).then(|| {
            Finding::warning(
                "bridge",
                format!("{} is not 1: {effect}", names.join(" and ")),
                format!("run `sysctl -w {}=1`, and set it in /etc/sysctl.d to keep it", names.join("=1 ")),
            )
        })
    }

    fn forwarding(&self, ipv4: bool, ipv6: bool) -> Vec<Finding> {
        let wanted = [("net.ipv4.ip_forward", ipv4), ("net.ipv6.conf.all.forwarding", ipv6)];
        let off = |name: &str| self.sysctl(&name.replace('.', "/")) != Some(1);
        let off = wanted.into_iter().filter(|(name, used)| *used && off(name));
        off.map(|(name, _)| {
            Finding::error(
                "forwarding",
                format!("{name} is not 1: the kernel does not forward packets of pods"),
                format!("run `sysctl -w {name}=1`, and set it in /etc/sysctl.d to keep it"),
            )
        })
        .collect()
    }

    fn reverse_path(&self, devices: &[String]) -> Vec<Finding> {
        let filter = |device: &str| self.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"));
        let strict = |device: &&String| filter(device).max(filter("all")) == Some(1);
        let told = |device: &String| {
            Finding::info(
                "rp_filter",
                format!(
                    "{device} drops packets whose replies would leave through another interface (rp_filter 1)"
                ),
                format!(
                    "if routes are asymmetric, run `sysctl -w net.ipv4.conf.{device}.rp_filter=2`, and set it in /etc/sysctl.d to \
                     keep it; otherwise nothing is needed"
                ),
            )
        };
        devices.iter().filter(strict).map(told).collect()
    }

    /// Network managers that may take addresses and routes off devices they do not know.
    fn managers(&self, device: &str) -> Option<Finding> {
        let managers = [
            ("systemd-networkd", "run/systemd/netif", "etc/systemd/network"),
            ("NetworkManager", "run/NetworkManager", "etc/NetworkManager/conf.d"),
        ];
        let (name, _, folder) = managers.into_iter().find(|(_, running, folder)| {
            let told = |text: String| text.contains("flannel");
            let files = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
            self.root.join(running).exists()
                && !files.filter_map(|file| fs::read_to_string(file.path()).ok()).any(told)
        })?;
        Some(Finding::info(
            "manager",
            format!(
                "{name} runs and its configuration does not exclude {device}: it may delete addresses and routes, which flanneld then restores"
            ),
            format!("declare flannel* unmanaged in /{folder}"),
        ))
    }

    /// Another user of the VXLAN port.
    fn port(&self, port: u16) -> Option<Finding> {
        let held = |file: &str| {
            let listed = self.text(&format!("proc/thread-self/net/{file}")).unwrap_or_default();
            let local = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
            listed.lines().filter_map(local).any(|local| local.ends_with(&format!(":{port:04X}")))
        };
        (held("udp") || held("udp6")).then(|| {
            Finding::error(
                "port",
                format!(
                    "another socket or device uses UDP port {port}, which flannel's device needs: this node does not reach pods of \
                     other nodes"
                ),
                format!(
                    "find it with `ss -lunp sport = {port}` or `ip -d link show type vxlan`; stop it, or set another Backend.Port (wireguard: \
                     Backend.ListenPort) on every node"
                ),
            )
        })
    }
}

/// Networks of this host, or addresses of other nodes, inside the pod network.
fn overlaps<'a>(
    pools: &[IpNet],
    own: &[IpNet],
    interfaces: &[Interface],
    peers: impl Iterator<Item = (LeaseKey, &'a LeaseAttributes)>,
) -> Vec<Finding> {
    let meets = |net: &IpNet| pools.iter().find(|pool| pool.contains(net) || net.contains(*pool));
    let mut findings = Vec::new();
    // kube-proxy and NodeLocal DNSCache give these devices the addresses of services, which no pod has.
    let is_others =
        |name: &str| !name.starts_with("flannel") && !["kube-ipvs0", "nodelocaldns"].contains(&name);
    for interface in interfaces.iter().filter(|found| is_others(&found.name)) {
        for address in &interface.addresses {
            let Ok(net) = IpNet::new(address.address, address.prefix_len) else { continue };
            let net = net.trunc();
            if let Some(pool) = meets(&net)
                && !own.iter().any(|own| own.contains(&net))
            {
                findings.push(Finding::error(
                    "duplicate",
                    format!(
                        "{} is in {net}, which overlaps the pod network {pool}: pods and that network may not reach each other",
                        interface.name
                    ),
                    "choose a Network that no host uses, or remove that address",
                ));
            }
        }
    }
    for (key, attributes) in peers {
        let public = attributes.public_ip.map(IpAddr::from).into_iter();
        for address in public.chain(attributes.public_ipv6.map(IpAddr::from)) {
            if let Some(pool) = meets(&IpNet::from(address)) {
                findings.push(Finding::error(
                    "duplicate",
                    format!(
                        "the node of {key} has the public address {address}, inside the pod network {pool}: this node may not \
                         reach it"
                    ),
                    "choose a Network that nothing else uses, or give that node another --iface or --public-ip",
                ));
            }
        }
    }
    findings
}

fn subnet_env(context: &Context, subnet_file: &Path) -> Option<Finding> {
    let shown = subnet_file.display();
    match file::read(subnet_file) {
        Ok(found) if context.spec.subnet_env(context.lease).is_in(&found) => None,
        Ok(_) => Some(Finding::warning(
            "subnet_env",
            format!("{shown} differs from the desired file: new pods get wrong addresses or MTUs"),
            "start flanneld, which writes it; if it runs, pass doctor the same --subnet-file",
        )),
        Err(error) => Some(Finding::error(
            "subnet_env",
            format!("{shown} cannot be read ({error}): the CNI plugin cannot set up pods"),
            "start flanneld, which writes it",
        )),
    }
}

/// Whether the container runtime calls flannel's plugin.
fn cni_configuration(configuration: &Path) -> Option<Finding> {
    let names = fs::read_dir(configuration).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf" || kind == "conflist"))
        .collect();
    names.sort();
    // The runtime takes the first by name.
    match names.first().map(|path| (path, fs::read_to_string(path).unwrap_or_default())) {
        Some((_, text)) if text.contains("\"flannel\"") => None,
        Some((path, _)) => Some(Finding::error(
            "cni",
            format!(
                "the container runtime uses {}, which does not name the plugin flannel: pods get no addresses from flannel",
                path.display()
            ),
            "remove that file, or the network plugin that installed it",
        )),
        None => Some(Finding::error(
            "cni",
            format!("{} holds no configuration: no pod starts", configuration.display()),
            "install 10-flannel.conflist there: the init container of the DaemonSet does",
        )),
    }
}

/// The plugins that are missing.
fn cni_plugins(folder: &Path) -> impl Iterator<Item = Finding> {
    let absent = ["flannel", "bridge", "host-local", "portmap"].into_iter();
    absent.filter(|plugin| !folder.join(plugin).exists()).map(|plugin| {
        Finding::error(
            "cni",
            format!("{} has no plugin {plugin}: no pod starts", folder.display()),
            "install the CNI plugins (containernetworking/plugins, flannel-io/cni-plugin)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_must_find_flannels_configuration_first_and_its_plugins() {
        let (folder, host) = host(&[("etc/cni/net.d/README", ""), ("opt/cni/bin/bridge", "")]);
        let found = |what: &str| told(host.cni()).contains(what);
        assert!(found("holds no configuration") && found("no plugin host-local"));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        write("etc/cni/net.d/10-flannel.conflist", r#"{"plugins": [{"type": "flannel"}]}"#);
        write("opt/cni/bin/host-local", "");
        assert!(!found("configuration") && !found("no plugin host-local") && !found("does not name"));
        write("etc/cni/net.d/05-other.conf", r#"{"type": "other"}"#);
        assert!(found("05-other.conf, which does not name"));
    }

    #[test]
    fn a_pod_is_asked_only_for_the_cni_folders_that_are_mounted() {
        let (_folder, bare) = host(&[]);
        assert!(told(bare.cni()).contains("etc/cni/net.d does not exist"));
        assert_eq!(told(Host { is_pod: true, ..bare }.cni()), "");
        let (_folder, mounted) = host(&[("etc/cni/net.d/05-other.conf", "{}")]);
        let text = told(Host { is_pod: true, ..mounted }.cni());
        assert!(
            text.contains("05-other.conf, which does not name") && !text.contains("plugin host-local"),
            "{text}"
        );
    }

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = folder.path().to_owned();
        (folder, Host { root, is_pod: false })
    }

    fn told(findings: impl IntoIterator<Item = Finding>) -> String {
        findings.into_iter().map(|finding| format!("{finding}\n")).collect()
    }

    #[test]
    fn each_sysctl_is_named_with_what_to_set() {
        let (_folder, bare) = host(&[]);
        assert!(told(bare.forwarding(true, false)).contains("sysctl -w net.ipv4.ip_forward=1"));
        assert!(told(bare.bridges(true, false)).contains("br_netfilter is not loaded"));
        assert_eq!(told(bare.forwarding(false, false)), "");
        let (_folder, good) = host(&[
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "1\n"),
            ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "2\n"),
            ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n"),
        ]);
        assert_eq!(told(good.forwarding(true, true)), "");
        assert_eq!(told(good.bridges(true, false)), "");
        let (_folder, halfway) = host(&[
            ("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"),
            ("proc/sys/net/bridge/bridge-nf-call-ip6tables", "0\n"),
        ]);
        let ipv6 = told(halfway.bridges(true, true));
        assert!(ipv6.contains("sysctl -w net.bridge.bridge-nf-call-ip6tables=1"), "{ipv6}");
        assert_eq!(told(good.reverse_path(&["eth0".to_owned()])), "", "the larger one counts");
        let (_folder, bad) = host(&[
            ("proc/sys/net/bridge/bridge-nf-call-iptables", "0\n"),
            ("proc/sys/net/bridge/bridge-nf-call-ip6tables", "0\n"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
            ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n"),
        ]);
        assert!(told(bad.bridges(true, false)).contains("bridge-nf-call-iptables is not 1"));
        let both = told(bad.bridges(true, true));
        assert!(both.matches("kube-proxy").count() == 1 && both.contains("ip6tables=1`"), "{both}");
        assert!(told(bad.reverse_path(&["eth0".to_owned()])).contains("net.ipv4.conf.eth0.rp_filter=2"));
    }

    #[test]
    fn legacy_tables_are_named_with_the_command_of_their_family() {
        let (_folder, host) = host(&[("proc/thread-self/net/ip6_tables_names", "nat\n")]);
        let findings = told(host.legacy());
        assert!(findings.contains("legacy ip6tables has the tables nat"), "{findings}");
        assert!(findings.contains("ip6tables-legacy-save"), "{findings}");
    }

    #[test]
    fn whoever_has_the_port_is_in_the_way() {
        let udp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n \
            90: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 31337\n";
        let (_folder, host) = host(&[("proc/thread-self/net/udp", udp)]);
        assert!(told(host.port(8472)).contains("UDP port 8472"));
        assert_eq!(told(host.port(8473)), "");
    }

    #[test]
    fn a_network_of_the_host_or_a_node_inside_the_pod_network_is_told() {
        use flannel_vxlan::InterfaceAddress;
        let interface = |name: &str, address: &str, prefix_len| Interface {
            index: 2,
            name: name.to_owned(),
            mtu: 1500,
            up: true,
            addresses: vec![InterfaceAddress::new(address.parse().unwrap(), prefix_len)],
            ..Interface::default()
        };
        let (pools, own) = (["10.244.0.0/16".parse().unwrap()], ["10.244.1.0/24".parse().unwrap()]);
        let peer = |public: &str| {
            let attributes =
                LeaseAttributes { public_ip: Some(public.parse().unwrap()), ..LeaseAttributes::default() };
            ("10.244.2.0-24".parse::<LeaseKey>().unwrap(), attributes)
        };
        let found = |interface: Interface, public: &str| {
            let (key, attributes) = peer(public);
            told(overlaps(&pools, &own, &[interface], [(key, &attributes)].into_iter()))
        };
        assert_eq!(found(interface("eth0", "192.0.2.1", 24), "192.0.2.2"), "");
        assert_eq!(found(interface("cni0", "10.244.1.1", 24), "192.0.2.2"), "", "the pods' own bridge");
        assert_eq!(found(interface("flannel.1", "10.244.1.0", 32), "192.0.2.2"), "");
        for services in ["kube-ipvs0", "nodelocaldns"] {
            assert_eq!(found(interface(services, "10.244.200.10", 32), "192.0.2.2"), "", "{services}");
        }
        assert!(found(interface("eth1", "10.244.7.9", 24), "192.0.2.2").contains("eth1 is in 10.244.7.0/24"));
        assert!(found(interface("eth1", "10.0.0.9", 8), "192.0.2.2").contains("eth1 is in 10.0.0.0/8"));
        assert!(
            found(interface("eth0", "192.0.2.1", 24), "10.244.9.9").contains("public address 10.244.9.9")
        );
    }
}
