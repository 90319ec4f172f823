//! Start of `flanneld` on the embedded store, in the demo's setting: dual-stack VXLAN, two peers.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flannel_benches::{OURS, Report, quick, release_binary};
use testkit::{Flannel, Lab, NetlinkMessages, Node};

const SOON: Duration = Duration::from_secs(10);

fn main() {
    let binary = release_binary();
    let rounds = if quick() { 10 } else { 40 };
    let mut report = Report::new(
        "daemon_start",
        "Start of flanneld with --lease-db, dual-stack VXLAN and two running peers; from exec to /readyz 200 (asked every millisecond).",
    );

    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, &binary, Flannel::NET_CONF).unwrap();
    let _peers = flannel.start_nodes(&mut lab, 2, SOON).unwrap();
    let node = lab.add_node().unwrap();

    let (mut cold, mut warm, mut resident, mut floor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        forget(&node);
        for times in [&mut cold, &mut warm] {
            let mut daemon = flannel.start(&node).unwrap();
            let time = daemon.ready(SOON).unwrap();
            if round > 0 {
                times.push(time.as_secs_f64() * 1e3);
                resident
                    .extend(daemon.resident_kib().map(|kib| f64::from(u32::try_from(kib).unwrap()) / 1024.0));
            }
            daemon.kill().unwrap();
        }
        let started = Instant::now();
        let mut command = Command::new(&binary);
        let mut child = node.namespace().spawn(command.arg("--version").stderr(Stdio::null())).unwrap();
        child.wait().unwrap();
        floor.push(started.elapsed().as_secs_f64() * 1e3);
    }
    report.figure("exec to ready, cold", OURS, 2, "ms", &mut cold);
    report.figure("exec to ready, warm", OURS, 2, "ms", &mut warm);
    report.figure("exec to exit", "flanneld --version", 2, "ms", &mut floor);
    report.figure("resident memory", OURS, 2, "MiB", &mut resident);

    forget(&node);
    for what in ["cold", "warm"] {
        let messages = NetlinkMessages::of_start(&flannel, &node).unwrap();
        let (sent, changing) = (f64::from(messages.sent), f64::from(messages.changing));
        report.figure(&format!("netlink messages, {what}"), OURS, 2, "messages", &mut [sent]);
        report.figure(&format!("of these changing something, {what}"), OURS, 2, "messages", &mut [changing]);
    }
    report.write().unwrap();
}

/// Makes the next start a cold one: no device, no rules, no subnet.env. The lease stays, as after a reboot.
fn forget(node: &Node) {
    let clean =
        "for d in flannel.1 flannel-v6.1; do ip link del $d 2>/dev/null || true; done; nft flush ruleset";
    node.namespace().sh(clean).unwrap();
    drop(fs::remove_file(node.subnet_file()));
}
