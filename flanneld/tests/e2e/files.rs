//! subnet.env while other processes and the disk misbehave.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Daemon, Flannel, Lab, Node, may_make_namespaces, wait_for};

use super::{BINARY, Cluster, SOON, replace};

/// How long readiness may take to notice a call that does not return.
const NOTICED: Duration = Duration::from_secs(30);

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap()
}

/// Changes what system calls of one thread do, until it is dropped.
struct Injection(Child);

impl Injection {
    /// Lets each `call` take a minute.
    fn stuck(daemon: &Daemon, thread: &str, call: &str) -> Self {
        Self::start(daemon, thread, &format!("{call}:delay_enter=60s"))
    }

    /// `what` as in `strace -e inject=..`.
    fn start(daemon: &Daemon, thread: &str, what: &str) -> Self {
        let pid = daemon.pid().unwrap();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tasks: Vec<_> = tasks.map(|task| task.unwrap()).collect();
        let comm = |task: &&fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let task = tasks.iter().find(|task| comm(task).trim() == thread).unwrap();
        let tid = task.file_name().into_string().unwrap();
        let strace = Command::new("strace")
            .args(["-o", "/dev/null", "-e", &format!("inject={what}"), "-p", &tid])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let traced = || {
            let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
            status.lines().any(|line| line == format!("TracerPid:\t{}", strace.id())).then_some(())
        };
        wait_for(SOON, traced).expect("strace attaches");
        Self(strace)
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn page_says(daemon: &Daemon, text: &str) {
    let said = wait_for(NOTICED, || daemon.page("/readyz").unwrap_or_default().contains(text).then_some(()));
    assert!(said.is_some(), "{text} is not in {}", daemon.page("/readyz").unwrap());
}

#[test]
fn subnet_env_is_restored_whatever_another_process_makes_of_it() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _) = &cluster.nodes[0];
    let file = node.subnet_file();
    let shown = file.display();
    let before = fs::read_to_string(&file).unwrap();
    for disturbance in [
        format!("rm {shown}"),
        format!("mv {shown} {shown}.old"),
        format!("echo FLANNEL_MTU=9000 >> {shown}"),
        format!("truncate -s 0 {shown}"),
        format!("rm {shown}; mkfifo {shown}"),
        format!("rm {shown}; ln -s /dev/zero {shown}"),
    ] {
        node.namespace().sh(&disturbance).unwrap();
        let restored = || {
            let metadata = fs::symlink_metadata(&file).ok()?;
            (metadata.is_file() && fs::read_to_string(&file).ok()? == before).then_some(())
        };
        assert!(wait_for(SOON, restored).is_some(), "after `{disturbance}`: {}", log_of(node));
    }
    assert_eq!(fs::symlink_metadata("/dev/zero").unwrap().len(), 0);
    assert!(log_of(node).contains("another process removed or changed it"), "{}", log_of(node));
    wait_for(SOON, || (daemon.status("/readyz").unwrap() == 200).then_some(())).unwrap();
}

#[test]
fn lines_of_other_programs_in_subnet_env_outlive_a_live_change() {
    if !may_make_namespaces() {
        return;
    }
    let cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, ..) = &cluster.nodes[0];
    let file = node.subnet_file();
    let theirs = "DOCKER_OPTS=\" --bip=10.244.1.1/24\"\n";
    replace(&file, &(fs::read_to_string(&file).unwrap() + theirs));
    let net_conf = Flannel::NET_CONF.replace("\"vxlan\"", "\"vxlan\", \"MTU\": 1400");
    fs::write(cluster.flannel.net_conf_file(), net_conf).unwrap();
    let env = || fs::read_to_string(&file).unwrap();
    wait_for(SOON, || env().contains("FLANNEL_MTU=1350\n").then_some(())).expect("the change is taken");
    assert!(env().ends_with(theirs), "{}", env());
}

#[test]
fn temporary_files_of_a_daemon_that_is_killed_before_it_renames_them_are_removed_at_the_next_start() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, mut daemon, _) = cluster.nodes.remove(0);
    let left = || {
        let names = fs::read_dir(node.folder()).unwrap().map(|entry| entry.unwrap().file_name());
        let hidden = names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with('.'));
        hidden.collect::<Vec<_>>()
    };
    let state_file = flanneld::run::state_file::path(&node.subnet_file());
    wait_for(SOON, || state_file.exists().then_some(())).unwrap();
    assert_eq!(left(), [""; 0]);
    let killed = Injection::start(&daemon, "files", "/^rename:signal=KILL");
    fs::remove_file(node.subnet_file()).unwrap();
    wait_for(SOON, || daemon.exit_status()).expect("it is killed");
    drop(killed);
    assert!(left().len() == 1 && left()[0].starts_with(".subnet.env."), "{:?}", left());
    // As if it had been killed at the same point of writing the state file.
    let name = state_file.file_name().unwrap().to_str().unwrap();
    fs::write(node.folder().join(format!(".{name}.aB3dE6")), "{").unwrap();
    daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    wait_for(SOON, || left().is_empty().then_some(())).unwrap_or_else(|| panic!("{:?}", left()));
    assert!(daemon.terminate().unwrap().success());
}

#[test]
fn a_disk_that_hangs_makes_the_node_unready_and_holds_up_neither_repairs_nor_sigterm() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _) = cluster.nodes.remove(0);
    let stuck = Injection::stuck(&daemon, "files", "fsync");
    fs::remove_file(node.subnet_file()).unwrap();
    page_says(&daemon, "progress: a call in thread `files`");
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
    assert_eq!(daemon.status("/healthz").unwrap(), 200, "a restart does not mend a disk");
    node.namespace().sh("nft flush ruleset").unwrap();
    let repaired = || node.namespace().sh("nft list ruleset").unwrap().contains("masquerade").then_some(());
    wait_for(SOON, repaired).expect("the rules do not wait for the disk");
    drop(stuck);
    wait_for(SOON, || (daemon.status("/readyz").unwrap() == 200).then_some(())).expect("it goes on");
    assert!(node.subnet_file().exists());

    let _stuck = Injection::stuck(&daemon, "files", "fsync");
    fs::remove_file(node.subnet_file()).unwrap();
    wait_for(SOON, || log_of(&node).contains("removed or changed").then_some(())).unwrap();
    assert!(daemon.terminate().unwrap().success());
}

#[test]
fn a_reconciler_that_is_stuck_in_a_call_makes_the_node_unready() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _) = cluster.nodes.remove(0);
    let stuck = Injection::stuck(&daemon, "reconcile", "sendto,sendmsg");
    node.namespace().sh("nft flush ruleset").unwrap();
    page_says(&daemon, "progress: a call in thread `reconcile`");
    assert_eq!(daemon.status("/readyz").unwrap(), 503);
    drop(stuck);
    wait_for(SOON, || (daemon.status("/readyz").unwrap() == 200).then_some(())).expect("it goes on");

    let _stuck = Injection::stuck(&daemon, "reconcile", "sendto,sendmsg");
    node.namespace().sh("nft flush ruleset").unwrap();
    node.namespace().sh(&format!("kill {}", daemon.pid().unwrap())).unwrap();
    // strace keeps the thread until its minute is over, though the process has ended.
    wait_for(SOON, || log_of(&node).contains("Exiting cleanly").then_some(())).expect("it ends");
}

#[test]
fn lost_notifications_of_the_kernel_are_subscribed_to_again() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(0, Flannel::NET_CONF);
    let node = cluster.lab.add_node().unwrap();
    // No regular check may find what is broken.
    let mut daemon = cluster.flannel.clone().arg("--iptables-resync=3600").start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    for (what, disturbance, repaired) in [
        ("rules", "nft flush ruleset", "nft list ruleset | grep -q masquerade"),
        ("links and routes", "ip link set flannel.1 down", "ip link show flannel.1 | grep -q LOWER_UP"),
    ] {
        // All of them, of every socket: which one reads next, only the daemon knows.
        let broken = Injection::start(&daemon, "reconcile", "recvfrom:error=EIO");
        let times = |text: &str| log_of(&node).matches(text).count();
        let lost = format!("lost notifications of {what} from the kernel");
        let again = format!("the kernel's notifications of {what} arrive again");
        let before = times(&lost);
        let trigger = ["nft add table ip other", "ip link add other type bridge"];
        node.namespace().sh(trigger[usize::from(what != "rules")]).unwrap();
        wait_for(SOON, || (times(&lost) > before).then_some(())).expect("lost");
        drop(broken);
        wait_for(SOON, || (times(&again) == times(&lost)).then_some(())).expect("subscribed again");
        // What it could not do meanwhile is done, so that it has no other reason to look.
        wait_for(SOON, || (daemon.status("/readyz").unwrap() == 200).then_some(())).expect("it goes on");
        node.namespace().sh(disturbance).unwrap();
        let repaired = wait_for(SOON, || node.namespace().sh(repaired).ok());
        assert!(repaired.is_some(), "`{disturbance}` is noticed: {}", log_of(&node));
    }
}

#[test]
fn a_pipe_in_place_of_subnet_env_does_not_hold_up_a_start() {
    if !may_make_namespaces() {
        return;
    }
    let mut cluster = Cluster::start(1, Flannel::NET_CONF);
    let (node, daemon, _) = cluster.nodes.remove(0);
    daemon.terminate().unwrap();
    fs::remove_file(node.subnet_file()).unwrap();
    node.namespace().sh(&format!("mkfifo {}", node.subnet_file().display())).unwrap();
    let _daemon = cluster.flannel.start_ready(&node, SOON).unwrap();
    assert!(fs::symlink_metadata(node.subnet_file()).unwrap().is_file());
}

#[test]
fn a_log_that_is_not_read_holds_up_neither_a_start_nor_repairs_nor_sigterm() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let mut command = Command::new(BINARY);
    let (unread, log) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&unread, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    command.args(flannel.arguments(&node)).stdin(Stdio::null()).stderr(log);
    let mut daemon = node.namespace().spawn(&mut command).unwrap();
    let masquerades =
        || node.namespace().sh("nft list ruleset").unwrap().contains("masquerade").then_some(());
    wait_for(SOON, masquerades).expect("it starts");
    for _ in 0..10 {
        node.namespace().sh("nft flush ruleset").unwrap();
        wait_for(SOON, masquerades).expect("it repairs");
    }
    let pid = nix::unistd::Pid::from_raw(daemon.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = wait_for(SOON, || daemon.try_wait().unwrap());
    drop(daemon.kill());
    assert!(ended.expect("it ends").success());
    drop(unread);
}
