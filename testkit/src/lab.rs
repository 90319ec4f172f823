use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use flannel_cni::SubnetEnv;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{LabError, Namespace, Pod, try_sh};

/// Every namespace and folder of a lab is called `flannel-lab-PID-N-..`, so that a later run can identify its process.
const PREFIX: &str = "flannel-lab-";

/// A network on one machine: nodes on an Ethernet switch, and an outside host that is also their default gateway.
///
/// ```text
/// pod ── cni0 ─ node1 ─ eth0 ──┐
/// pod ── cni0 ─ node2 ─ eth0 ──┤ switch ── outside
///               ...            ┘
/// ```
///
/// Node N has 192.168.77.N/24 and fd00:77::N/64 on `eth0`. The outside host has no route to any pod network: it
/// takes a packet from a pod address and shows that address, and cannot answer it.
///
/// Dropping the lab ends every process in it and removes all it made. Building one first removes what runs that
/// were killed have left.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: PathBuf,
    switch: Namespace,
    outside: Namespace,
    nodes: u8,
    keep: bool,
}

impl Lab {
    /// The outside host, which is also every node's default gateway.
    pub const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 254));
    /// The outside host over IPv6.
    pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0xfe));

    /// Makes the switch and the outside host.
    ///
    /// # Errors
    /// Not root, or iproute2 is missing.
    pub fn new() -> Result<Self, LabError> {
        static LABS: AtomicU32 = AtomicU32::new(0);

        sweep(|pid| !Path::new("/proc").join(pid).exists());
        let name = format!("{PREFIX}{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).map_err(LabError::system(format!("make folder {}", folder.display())))?;
        let lab = Self {
            switch: Namespace::named(format!("{name}-switch")),
            outside: Namespace::named(format!("{name}-outside")),
            name,
            folder,
            nodes: 0,
            keep: false,
        };
        lab.switch.add()?;
        lab.switch.sh("ip link add br0 type bridge; ip link set br0 up")?;
        lab.plug(&lab.outside, "outside", &[Self::OUTSIDE_V4, Self::OUTSIDE_V6])?;
        // It must show packets whose source it has no route to.
        lab.outside.sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")?;
        Ok(lab)
    }

    /// Adds the next node, its default route leading to the outside host.
    ///
    /// # Errors
    /// A link, address or route cannot be made; a lab has at most 250 nodes.
    pub fn add_node(&mut self) -> Result<Node, LabError> {
        let number = self.nodes + 1;
        if number > 250 {
            return Err(LabError::unreadable("lab", "no addresses left for another node"));
        }
        let name = format!("node{number}");
        let node = Node {
            namespace: Namespace::named(format!("{}-{name}", self.name)),
            folder: self.folder.join(&name),
            v4: Ipv4Addr::new(192, 168, 77, number),
            v6: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number.into()),
            name,
            pods: 0,
        };
        fs::create_dir(&node.folder)
            .map_err(LabError::system(format!("make folder {}", node.folder.display())))?;
        self.plug(&node.namespace, &node.name, &[node.v4.into(), node.v6.into()])?;
        node.namespace.sh(&format!(
            "ip route add default via {}; ip route add default via {}",
            Self::OUTSIDE_V4,
            Self::OUTSIDE_V6
        ))?;
        self.nodes = number;
        Ok(node)
    }

    /// The host that pods reach only through masquerading.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The Ethernet switch: bridge `br0` with one port per node, called as the node is.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// Where the lab keeps its files: one folder per node, and whatever a test puts beside them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves everything as it is when the lab is dropped; the next lab on this machine removes it.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes everything that labs of this process made, for a signal handler that will end the process.
    pub fn remove_all_of_this_process() {
        let own = process::id().to_string();
        sweep(|pid| pid == own);
    }

    /// A new namespace with `eth0` on the switch.
    fn plug(&self, namespace: &Namespace, port: &str, addresses: &[IpAddr]) -> Result<(), LabError> {
        let (name, switch) = (namespace.name(), self.switch.name());
        namespace.add()?;
        try_sh(&format!("ip link add eth0 netns {name} type veth peer name {port} netns {switch}"))?;
        self.switch.sh(&format!("ip link set {port} master br0 up"))?;
        // The duplicate address check of a lab's own links would cost each test a second or two; devices that a daemon
        // or a CNI plugin makes keep it.
        namespace.sh("cd /proc/sys/net/ipv6/conf; echo 0 > all/accept_dad; echo 0 > eth0/accept_dad")?;
        namespace.sh("ip link set eth0 up")?;
        for address in addresses {
            namespace.sh(&match address {
                IpAddr::V4(v4) => format!("ip addr add {v4}/24 dev eth0"),
                IpAddr::V6(v6) => format!("ip addr add {v6}/64 dev eth0 nodad"),
            })?;
        }
        namespace.wait_for_local_routes()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.name);
        }
    }
}

/// A machine of the lab, with the files its daemon and its pods need.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Namespace,
    folder: PathBuf,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    pods: u32,
}

impl Node {
    /// `node1`, `node2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its folder: subnet.env, logs, addresses given to pods.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its IPv4 address on `eth0`.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address on `eth0`.
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Where its daemon writes subnet.env and the CNI plugin reads it.
    pub fn subnet_file(&self) -> PathBuf {
        self.folder.join("subnet.env")
    }

    /// Makes a pod with the CNI plugins `bridge` and `host-local`, configured from subnet.env as the flannel CNI
    /// plugin does it.
    ///
    /// # Errors
    /// subnet.env is missing or incomplete, or a plugin refuses.
    pub fn add_pod(&mut self) -> Result<Pod, LabError> {
        self.add_pod_of(&self.subnet_file(), "cni0")
    }

    /// What its daemon passes to the CNI plugin.
    ///
    /// # Errors
    /// subnet.env is missing or incomplete.
    pub fn subnet_env(&self) -> Result<SubnetEnv, LabError> {
        read_subnet_env(&self.subnet_file())
    }

    /// A pod in the network of another subnet.env, behind a bridge of this name.
    ///
    /// # Errors
    /// As [`Node::add_pod`].
    pub fn add_pod_of(&mut self, subnet_file: &Path, bridge: &str) -> Result<Pod, LabError> {
        let env = read_subnet_env(subnet_file)?;
        self.pods += 1;
        let name = format!("{}-pod{}", self.namespace.name(), self.pods);
        Pod::create(Namespace::named(name), &self.namespace, (&env, bridge), &self.folder.join(bridge))
    }
}

fn read_subnet_env(file: &Path) -> Result<SubnetEnv, LabError> {
    SubnetEnv::read_complete(file).map_err(|error| LabError::unreadable(file.display().to_string(), error))
}

/// Removes the labs of the processes that `condemned` chooses by their number.
fn sweep(condemned: impl Fn(&str) -> bool) {
    let lab_of = |name: String| {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let (pid, number) = (parts.next()?, parts.next()?);
        condemned(pid).then(|| format!("{PREFIX}{pid}-{number}"))
    };
    let names = names_in("/run/netns").chain(names_in(std::env::temp_dir()));
    let labs: BTreeSet<_> = names.filter_map(lab_of).collect();
    for lab in &labs {
        remove(lab);
    }
}

/// Ends every process of one lab and removes its namespaces and files. What is already gone is no error: two runs may
/// be at it at once.
fn remove(lab: &str) {
    let member = format!("{lab}-");
    let namespaces: Vec<_> = names_in("/run/netns").filter(|name| name.starts_with(&member)).collect();
    for namespace in &namespaces {
        let pids = try_sh(&format!("ip netns pids {namespace}")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            // A thread of this very process may still be on its way out of the namespace.
            if pid != Pid::this().as_raw() {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    for namespace in &namespaces {
        drop(try_sh(&format!("ip netns del {namespace}")));
    }
    drop(fs::remove_dir_all(std::env::temp_dir().join(lab)));
}

fn names_in(folder: impl AsRef<Path>) -> impl Iterator<Item = String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}
