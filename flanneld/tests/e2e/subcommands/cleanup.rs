//! What `flanneld cleanup` removes, and what stays.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Flannel, Lab, Node, may_make_namespaces, wait_for};

use super::{BINARY, SOON, beside_a_neighbour, flanneld, state, words};
use crate::assert_same;

#[test]
fn cleanup_leaves_exactly_what_others_made() {
    if !may_make_namespaces() {
        return;
    }
    let (_lab, flannel, node) = beside_a_neighbour(Flannel::NET_CONF, &[]);
    node.namespace()
        .sh("nft 'table inet foreign { chain c { type filter hook forward priority 0; ct state invalid drop; }; }'
            nft 'table ip flannel-else { set s { type ipv4_addr; }; }'
            ip link add flannel.7 type bridge; ip link add vx0 type vxlan id 42 dstport 4789 dev eth0
            ip link set vx0 up; bridge fdb append 02:00:00:00:00:99 dev vx0 dst 192.0.2.99
            ip addr add 10.99.0.1/24 dev flannel.7; ip link set flannel.7 up
            ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:98 dev vx0
            ip nexthop add id 777 dev vx0; ip route add 10.98.0.0/16 nhid 777
            iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.9.0.0/16 -j ACCEPT
            ip route add 10.97.0.0/16 dev flannel.7 proto static; ip route add blackhole 10.244.200.0/24")
        .unwrap();
    let before = state(node.namespace());
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    let running = state(node.namespace());
    for part in ["flannel.1 ", "proto 70", "flanneld accept"] {
        assert!(running.contains(part), "{part} in {running}");
    }

    let (status, text) = flanneld(&node, &words("cleanup"));
    assert!(status == 1 && text.contains("flanneld runs on this host (process "), "{status} {text}");
    let (status, promised) = flanneld(&node, &words("cleanup --dry-run"));
    assert_eq!(status, 3, "{promised}");
    assert_same(&state(node.namespace()), &running);

    daemon.terminate().unwrap();
    let (status, done) = flanneld(&node, &words("cleanup"));
    assert_eq!((status, &done), (0, &promised));
    assert_same(&state(node.namespace()), &before);
    assert!(node.subnet_file().exists());

    let files = format!("cleanup --files --subnet-file={}", node.subnet_file().display());
    assert_eq!(flanneld(&node, &words(&files)).0, 0);
    assert!(!node.subnet_file().exists() && !flanneld::run::state_file::path(&node.subnet_file()).exists());
    assert_eq!(flanneld(&node, &words(&files)), (0, "# Nothing to remove.\n".to_owned()));
}

#[test]
fn cleanup_takes_upstreams_chains_out_of_iptables_only_when_asked() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let sh = |script: &str| node.namespace().sh(script).unwrap();
    sh("iptables-nft -t nat -A POSTROUTING -s 10.9.0.0/16 -j MASQUERADE
        iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 10.9.0.0/16 -j ACCEPT");
    let before = state(node.namespace());
    sh("iptables-nft -t nat -N FLANNEL-POSTRTG; iptables-nft -N FLANNEL-FWD
        iptables-nft -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment 'flanneld masq' -j MASQUERADE
        iptables-nft -A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
        iptables-nft -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
        iptables-nft -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD");
    let left = state(node.namespace());
    assert_eq!(flanneld(&node, &words("cleanup")).0, 0);
    assert_same(&state(node.namespace()), &left);
    assert_eq!(flanneld(&node, &words("cleanup --upstream --dry-run")).0, 3);
    assert_same(&state(node.namespace()), &left);
    assert_eq!(flanneld(&node, &words("cleanup --upstream")).0, 0);
    assert_same(&state(node.namespace()), &before);
}

#[test]
fn cleanup_leaves_files_of_others_in_the_places_of_its_own() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (subnet_file, socket) = (folder.path().join("docker.env"), folder.path().join("docker.sock"));
    let state = flanneld::run::state_file::path(&subnet_file);
    let _listener = UnixListener::bind(&socket).unwrap();
    for file in [&subnet_file, &state] {
        fs::write(file, "{}").unwrap();
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let cleanup = words(&format!("cleanup --files --subnet-file={}", subnet_file.display()));
    assert_eq!(flanneld(&node, &cleanup), (0, "# Nothing to remove.\n".to_owned()));
    assert!(subnet_file.exists() && state.exists() && UnixStream::connect(&socket).is_ok());
}

#[test]
fn cleanup_tells_what_it_did_also_when_something_stays() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let daemon = flannel.start_ready(&node, SOON).unwrap();
    daemon.terminate().unwrap();
    let folder = node.subnet_file().parent().unwrap().display().to_string();
    let line = format!(
        "mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} &&
         exec {BINARY} cleanup --files --subnet-file={}",
        node.subnet_file().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &line]).stdout(Stdio::piped());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(1), "{text}");
    for part in ["ip link del flannel.1\n", "delete table ip flannel-ipv4\n", "# failed: rm "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("subnet.state.json: Read-only file system"), "{text}");
}

#[test]
fn cleanup_removes_a_cni_configuration_only_if_it_is_flannels() {
    if !may_make_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let (path, absent) = (folder.path().join("10-flannel.conflist"), folder.path().join("absent"));
    let cleanup = |path: &Path| flanneld(&node, &words(&format!("cleanup --cni-config={}", path.display())));
    let nothing = (0, "# Nothing to remove.\n".to_owned());
    assert_eq!(cleanup(&absent), nothing);
    for others in [r#"{"name": "flannel", "plugins": [{"type": "calico"}]}"#, "\"flannel\"", "{", ""] {
        fs::write(&path, others).unwrap();
        assert_eq!(cleanup(&path), nothing, "{others}");
    }
    for ours in [r#"{"plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#, r#"{"type": "flannel"}"#] {
        fs::write(&path, ours).unwrap();
        assert_eq!(cleanup(&path), (0, format!("rm {}\n", path.display())));
        assert!(!path.exists());
    }
}

/// The container of `deploy/kubernetes/cleanup.yml` as a process: its command, capabilities and folders, on a root file
/// system that cannot be written to.
fn container(node: &Node, cni: &Path, output: &Path) -> Child {
    let manifest = include_str!("../../../../deploy/kubernetes/cleanup.yml");
    let between = |from: &str, to: &str| manifest.split_once(from).unwrap().1.split_once(to).unwrap().0;
    let line = [between("command: [", "]"), between("args: [", "]")].join(" ").replace(',', "");
    let added = words(&between("add:", "drop:").replace('-', "").to_lowercase());
    let capabilities = added.iter().map(|name| format!(",+{name}")).collect::<String>();
    let (cni, run) = (cni.display(), node.folder().display());
    let script = format!(
        "mount -t tmpfs none /opt; mkdir /opt/bin; cp {BINARY} /opt/bin/flanneld
        mount --bind {run} /mnt; mount -t tmpfs none /run; mkdir /run/flannel; mount --move /mnt /run/flannel
        mount --bind {cni} /mnt; mount -t tmpfs none /etc; mkdir -p /etc/cni/net.d; mount --move /mnt /etc/cni/net.d
        mount -o remount,bind,ro /
        exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{capabilities} {line}"
    );
    let output = File::create(output).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", &script]).stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output);
    node.namespace().spawn(&mut command).unwrap()
}

#[test]
fn the_cleanup_pod_waits_for_daemons_to_end_and_leaves_a_node_without_flannel() {
    if !may_make_namespaces() {
        return;
    }
    let (lab, flannel, node) = beside_a_neighbour(Flannel::NET_CONF, &[]);
    let before = state(node.namespace());
    let cni = lab.folder().join("net.d");
    fs::create_dir(&cni).unwrap();
    fs::write(cni.join("10-flannel.conflist"), r#"{"plugins": [{"type": "flannel"}]}"#).unwrap();
    let output = lab.folder().join("cleanup.log");
    let text = || fs::read_to_string(&output).unwrap();
    let refused = || {
        let mut pod = container(&node, &cni, &output);
        let status = wait_for(SOON, || pod.try_wait().unwrap());
        let failed = status.is_some_and(|status| status.code() == Some(1));
        assert!(failed && text().contains("flanneld runs on this host"), "{status:?} {}", text());
    };

    let daemon = flannel.start_ready(&node, SOON).unwrap();
    refused();
    daemon.terminate().unwrap();
    // Upstream's, which is known by its name and holds a capability more.
    let program = node.folder().join("flanneld");
    testkit::sh(&format!("cp /bin/sleep {}", program.display()));
    let mut upstream = Command::new("setpriv");
    upstream.args(["--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all"]).arg(&program);
    let mut upstream = node.namespace().spawn(upstream.args(["--", "60"])).unwrap();
    let named = || fs::read_to_string(format!("/proc/{}/comm", upstream.id())).unwrap() == "flanneld\n";
    wait_for(SOON, || named().then_some(())).unwrap();
    refused();
    upstream.kill().unwrap();
    upstream.wait().unwrap();

    let mut pod = container(&node, &cni, &output);
    wait_for(SOON, || text().contains("10-flannel.conflist").then_some(())).expect("the last step");
    assert_same(&state(node.namespace()), &before);
    assert!(!node.subnet_file().exists() && fs::read_dir(&cni).unwrap().next().is_none(), "{}", text());
    assert_eq!(pod.try_wait().unwrap(), None, "a pod that ends would be started again: {}", text());
    kill(Pid::from_raw(i32::try_from(pod.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(pod.wait().unwrap().code(), Some(0));
}
