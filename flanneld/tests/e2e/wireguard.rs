//! Backend wireguard on nodes with real daemons, pods and packets. Runs in the machines of `make test-backends`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rusqlite::Connection;
use testkit::{KernelOption, RoundTrips, wait_for};

use crate::{BINARY, Cluster, SOON, Witness, pause};

const V4: &str = r#""Network": "10.244.0.0/16""#;
const V6: &str = r#""EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
const DUAL: &str = r#""Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/56""#;
const PSK: &str = "cHNrLXBzay1wc2stcHNrLXBzay1wc2stcHNrLXBzay0=";
/// What pods send, and nobody on the underlay may see.
const MARK: &[u8] = b"fl4nnel!";
/// The same for `ping -p`.
const MARK_HEX: &str = "666c346e6e656c21";

fn net_conf(networks: &str, members: &str) -> String {
    format!(r#"{{{networks}, "EnableNFTables": true, "Backend": {{"Type": "wireguard"{members}}}}}"#)
}

/// Writes down every frame on a node's uplink.
struct Capture(Child, std::path::PathBuf);

impl Capture {
    fn start(cluster: &Cluster, at: usize) -> Self {
        let node = &cluster.nodes[at].0;
        let file = node.folder().join("underlay.pcap");
        let mut command = Command::new("tcpdump");
        command.args(["--immediate-mode", "-U", "-s0", "-i", "eth0", "-Z", "root", "-w"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = node.namespace().spawn(&mut command).unwrap();
        let listens = || fs::metadata(&file).is_ok_and(|found| found.len() > 0).then_some(());
        assert!(wait_for(SOON, listens).is_some(), "tcpdump does not write");
        Self(child, file)
    }

    /// What was captured, once there are so many bytes.
    fn stop(mut self, bytes: u64) -> Vec<u8> {
        let is_complete = || fs::metadata(&self.1).is_ok_and(|found| found.len() > bytes).then_some(());
        assert!(wait_for(SOON, is_complete).is_some(), "{:?}", fs::metadata(&self.1));
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        fs::read(self.1).unwrap()
    }
}

impl Cluster {
    /// The devices, peers and routes of a node, without what changes by itself.
    fn wireguard(&self, at: usize) -> String {
        self.sh(
            at,
            "for device in $(wg show interfaces); do
                ip -o link show $device | grep -o 'flannel.*mtu [0-9]*' || true
                ip -o addr show $device | grep -o 'inet.*scope global' || true
                echo $device $(wg show $device listen-port)
                wg show $device dump | cut -f1,2,4,8
             done | sort
             ip route show proto 70; ip -6 route show proto 70",
        )
    }

    fn key_file(&self, at: usize) -> std::path::PathBuf {
        self.nodes[at].0.folder().join("wgkey")
    }

    fn stop(&mut self, at: usize) -> (testkit::Node, testkit::Pod) {
        let (node, daemon, pod) = self.nodes.remove(at);
        assert!(daemon.terminate().unwrap().success());
        (node, pod)
    }

    fn start_again(&mut self, at: usize, (node, pod): (testkit::Node, testkit::Pod)) {
        let daemon = self.flannel.start_ready(&node, SOON).unwrap();
        self.nodes.insert(at, (node, daemon, pod));
    }
}

/// Three nodes whose pods all talk, encrypted, and one restarts under traffic.
fn talks(networks: &str, members: &str, devices: &[&str]) {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let mut cluster = Cluster::start(3, &net_conf(networks, members));
    cluster.every_pod_reaches_every_other();
    let found = cluster.sh(0, "ip -o link show type wireguard | cut -d: -f2");
    let mut found: Vec<&str> = found.split_whitespace().collect();
    found.sort_unstable();
    assert_eq!(found, devices, "{members}");
    let routes = cluster.sh(0, "ip route show default; ip -6 route show default");
    assert!(!routes.contains("flannel-wg"), "{routes}");
    let env = fs::read_to_string(cluster.nodes[0].0.subnet_file()).unwrap();
    assert!(env.contains("FLANNEL_MTU=1420\n"), "{env}");

    let capture = Capture::start(&cluster, 0);
    let [(.., from), (.., to), _] = &cluster.nodes[..] else { unreachable!() };
    for target in to.addresses() {
        from.namespace().sh(&format!("ping -c 3 -i 0.2 -W 5 -s 1000 -p {MARK_HEX} {target}")).unwrap();
    }
    let seen = capture.stop(6 * 1000);
    assert!(!seen.windows(MARK.len()).any(|bytes| bytes == MARK), "{members}: clear text on the underlay");

    let target = to.addresses().last().unwrap();
    let stream = RoundTrips::start(from, to, target, 500).unwrap();
    let (before, witness) = (cluster.wireguard(0), Witness::of_all(&cluster.nodes[0].0));
    cluster.restart_node(0);
    let changes = witness.saw();
    assert!(!changes.contains("flannel-wg"), "{members}: {changes}");
    pause(300);
    let report = stream.stop().unwrap();
    eprintln!("figure: wireguard{members}: {} of {} packets lost during a restart", report.lost, report.sent);
    assert_eq!(report.lost, 0, "{report:?}");
    assert_eq!(cluster.wireguard(0), before);
}

#[test]
fn ipv4_is_encrypted_and_a_restart_loses_nothing() {
    talks(V4, "", &["flannel-wg"]);
}

#[test]
fn ipv6_is_encrypted_and_a_restart_loses_nothing() {
    talks(V6, "", &["flannel-wg-v6"]);
}

#[test]
fn both_families_are_encrypted_by_a_device_each_and_a_restart_loses_nothing() {
    talks(
        DUAL,
        &format!(r#", "PSK": "{PSK}", "PersistentKeepaliveInterval": 25"#),
        &["flannel-wg", "flannel-wg-v6"],
    );
}

#[test]
fn both_families_are_encrypted_by_one_device_and_a_restart_loses_nothing() {
    talks(DUAL, r#", "Mode": "auto""#, &["flannel-wg"]);
}

#[test]
fn both_families_go_over_ipv6_and_a_restart_loses_nothing() {
    talks(DUAL, r#", "Mode": "ipv6", "ListenPort": 7000"#, &["flannel-wg"]);
}

#[test]
fn one_device_works_with_ipv6_alone() {
    talks(V6, r#", "Mode": "auto""#, &["flannel-wg"]);
}

#[test]
fn one_device_works_with_ipv4_alone() {
    talks(V4, r#", "Mode": "ipv4""#, &["flannel-wg"]);
}

#[test]
fn damage_is_repaired() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let cluster = Cluster::start(3, &net_conf(DUAL, &format!(r#", "PSK": "{PSK}""#)));
    cluster.every_pod_reaches_every_other();
    let right = cluster.wireguard(0);
    assert_eq!(right.matches(PSK).count(), 4, "{right}");
    for damage in [
        "ip link del flannel-wg",
        "ip link del flannel-wg-v6",
        "for key in $(wg show flannel-wg peers); do wg set flannel-wg peer $key remove; done",
        "wg genkey >/tmp/other; wg set flannel-wg private-key /tmp/other",
        "wg set flannel-wg listen-port 7777",
        "for key in $(wg show flannel-wg peers); do wg set flannel-wg peer $key preshared-key /dev/null; done",
        "for key in $(wg show flannel-wg peers); do wg set flannel-wg peer $key allowed-ips 10.99.0.0/16; done",
        "wg set flannel-wg peer $(wg genkey | wg pubkey) allowed-ips 10.98.0.0/16",
        "ip link set flannel-wg mtu 1300",
        "ip addr flush dev flannel-wg",
        "ip link set flannel-wg down",
        "ip route del 10.244.0.0/16",
        "ip -6 route del fd00:10:244::/56 dev flannel-wg-v6",
    ] {
        cluster.sh(0, damage);
        let broken = Instant::now();
        let repaired = wait_for(SOON, || (cluster.wireguard(0) == right).then_some(()));
        assert!(repaired.is_some(), "{damage}: {}", cluster.wireguard(0));
        eprintln!("figure: repaired within {:?}: {damage}", broken.elapsed());
    }
    cluster.every_pod_reaches_every_other();
}

#[test]
fn a_departed_node_leaves_no_peer() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let mut cluster = Cluster::start(3, &net_conf(V4, ""));
    cluster.every_pod_reaches_every_other();
    let (node, _pod) = cluster.stop(2);
    let store = Connection::open(cluster.flannel.lease_file()).unwrap();
    store.busy_timeout(SOON).unwrap();
    store.execute("DELETE FROM lease WHERE attributes LIKE ?1", [format!("%\"{}\"%", node.v4())]).unwrap();
    for at in 0..2 {
        let one = || (cluster.sh(at, "wg show flannel-wg peers | wc -l").trim() == "1").then_some(());
        assert!(wait_for(SOON, one).is_some(), "{}", cluster.sh(at, "wg show flannel-wg"));
    }
    cluster.every_pod_reaches_every_other();
}

#[test]
fn a_lost_or_empty_key_file_neither_prevents_a_start_nor_changes_the_key() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let mut cluster = Cluster::start(2, &net_conf(V4, ""));
    cluster.every_pod_reaches_every_other();
    let public = |cluster: &Cluster| cluster.sh(0, "wg show flannel-wg public-key");
    let (first, path) = (public(&cluster), cluster.key_file(0));
    for damage in ["rm", "truncate -s0", "chmod 644"] {
        let stopped = cluster.stop(0);
        stopped.0.namespace().sh(&format!("{damage} {}", path.display())).unwrap();
        cluster.start_again(0, stopped);
        assert_eq!(public(&cluster), first, "{damage}");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o400, "{damage}");
        let kept = cluster.sh(0, &format!("wg pubkey <{}", path.display()));
        assert_eq!(kept, first, "{damage}");
    }
    // Both are lost, as after a reboot: the others learn the new key.
    let stopped = cluster.stop(0);
    stopped.0.namespace().sh(&format!("ip link del flannel-wg; : >{}", path.display())).unwrap();
    cluster.start_again(0, stopped);
    assert_ne!(public(&cluster), first);
    cluster.every_pod_reaches_every_other();
    assert_eq!(cluster.sh(1, "wg show flannel-wg peers"), public(&cluster), "the old key is gone");
}

/// The private key and the PSK, in base64 and as bytes.
fn secrets(cluster: &Cluster) -> Vec<Vec<u8>> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let texts = [fs::read_to_string(cluster.key_file(0)).unwrap(), PSK.to_owned()];
    let bytes = texts.iter().map(|text| BASE64_STANDARD.decode(text.trim()).unwrap());
    bytes.chain(texts.iter().map(|text| text.as_bytes()[..40].to_vec())).collect()
}

#[test]
fn keys_are_in_no_log_file_page_or_report() {
    if !KernelOption::WIREGUARD.is_usable() {
        return;
    }
    let cluster = Cluster::start(2, &net_conf(DUAL, &format!(r#", "PSK": "{PSK}""#)));
    cluster.every_pod_reaches_every_other();
    let (node, daemon, _) = &cluster.nodes[0];
    // Repairs name what was written.
    cluster.sh(0, "ip link del flannel-wg; wg set flannel-wg-v6 private-key /dev/null");
    cluster.every_pod_reaches_every_other();
    let arguments: Vec<String> =
        cluster.flannel.arguments(node).into_iter().map(|argument| format!("'{argument}'")).collect();
    let arguments = arguments.join(" ");
    let key_file = format!("WIREGUARD_KEY_FILE={}", cluster.key_file(0).display());
    let archive = node.folder().join("report.tar");
    let file = format!("--subnet-file={}", node.subnet_file().display());
    let mut seen = Vec::new();
    for command in [
        format!("{BINARY} status {file} --peers -o json"),
        format!("{BINARY} status {file} --peers"),
        format!("{BINARY} plan {arguments}"),
        format!("{BINARY} doctor {arguments}"),
        format!("{BINARY} doctor --preflight {arguments}"),
        format!("{BINARY} doctor --collect={} {arguments}", archive.display()),
        format!("{BINARY} cleanup --dry-run --force {file}"),
    ] {
        let shown = node.namespace().sh(&format!("{key_file} {command} 2>&1 || true")).unwrap();
        seen.push((command, shown.into_bytes()));
    }
    for page in ["/metrics", "/", "/status", "/readyz"] {
        seen.push((page.to_owned(), daemon.page(page).unwrap().into_bytes()));
    }
    for file in fs::read_dir(node.folder()).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() && file != cluster.key_file(0) {
            seen.push((file.display().to_string(), fs::read(file).unwrap()));
        }
    }
    seen.push(("the leases".to_owned(), fs::read(cluster.flannel.lease_file()).unwrap()));
    assert!(archive.exists(), "{}", String::from_utf8_lossy(&seen[5].1));
    for (place, content) in &seen {
        for secret in secrets(&cluster) {
            let found = content.windows(secret.len()).any(|bytes| bytes == secret);
            assert!(!found, "a key is in {place}: {}", String::from_utf8_lossy(content));
        }
    }
    let peers = String::from_utf8_lossy(&seen[0].1).into_owned();
    assert!(peers.contains("handshake"), "{peers}");
}

/// Runs where the tests above cannot.
#[test]
fn a_kernel_without_wireguard_keeps_the_node_unready_and_is_told_with_the_remedy() {
    if !testkit::may_make_namespaces() || KernelOption::WIREGUARD.is_present() {
        return;
    }
    let mut lab = testkit::Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = testkit::Flannel::new(&lab, BINARY, &net_conf(V4, "")).unwrap();
    let daemon = flannel.start(&node).unwrap();
    let log = || fs::read_to_string(daemon.log()).unwrap();
    let remedy =
        "this kernel lacks wireguard (CONFIG_WIREGUARD): load the module on the host (`modprobe wireguard`";
    let told = || log().contains(remedy).then_some(());
    assert!(wait_for(SOON, told).is_some(), "{}", log());
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
}
