//! How long pods cannot talk after one node is disturbed: three nodes with real daemons, a stream of round trips in
//! every direction and both families. Writes `docs/outages.md`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has to end")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use flannel_benches::{machine, percentile, quick, release_binary};
use testkit::{Daemon, Disturbance, Disturbed, Flannel, Lab, Needs, Node, Pod};

const SOON: Duration = Duration::from_secs(20);
const AFTER: Duration = Duration::from_millis(800);
/// Longer than any outage that the repair alone ends.
const BOUND_MS: f64 = 100.0;

fn main() {
    // `cargo bench --bench outage -- WORD` does only the disturbances with that word, and keeps the table as it is.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let disturbances: Vec<Disturbance> = Disturbance::ALL
        .iter()
        .filter(|disturbance| only.as_ref().is_none_or(|only| disturbance.what.contains(only)))
        .copied()
        .collect();
    let rounds = if quick() { 1 } else { 10 };
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, release_binary(), Flannel::NET_CONF).unwrap().by_default_route();
    let nodes: Vec<(Node, Daemon, Pod)> = (0..3).map(|_| join(&mut lab, &flannel)).collect();
    let mut rows = vec![Vec::new(); disturbances.len()];
    for _ in 0..rounds {
        for (disturbance, row) in disturbances.iter().zip(&mut rows) {
            let disturbed = disturbance.on(&nodes, AFTER).unwrap();
            eprintln!("{:<85} {:>8.1} ms", disturbance.what, ms(disturbed.outage));
            row.push(disturbed);
        }
    }
    let text = table(rounds, &disturbances, &rows);
    eprintln!("{text}");
    if only.is_some() {
        return;
    }
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/outages.md"), text).unwrap();
    for (disturbance, row) in disturbances.iter().zip(&rows) {
        assert_eq!(total(row, |one| one.others_lost), 0, "packets between other nodes, {}", disturbance.what);
    }
}

fn join(lab: &mut Lab, flannel: &Flannel) -> (Node, Daemon, Pod) {
    let mut node = lab.add_node().unwrap();
    let mut daemon = flannel.start(&node).unwrap();
    daemon.ready(SOON).unwrap();
    let pod = node.add_pod().unwrap();
    (node, daemon, pod)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn total(row: &[Disturbed], of: impl FnMut(&Disturbed) -> u64) -> u64 {
    row.iter().map(of).sum()
}

fn table(rounds: usize, disturbances: &[Disturbance], rows: &[Vec<Disturbed>]) -> String {
    let mut text = String::from(
        "# Outages\n\n\
         For operators who want to know how long pod traffic stops when another program damages flannel's objects or the host's\n\
         network changes. Made by `make bench BENCH=outage`; do not edit.\n\n\
         Three nodes with dual-stack VXLAN. Between every two pods, in each direction and family, 250 packets a second travel\n\
         and are sent back. Each disturbance happens on one node. On a machine with other work, run\n\
         `nice -n -15 make bench BENCH=outage`: otherwise the bench measures the wait for a processor too.\n\n\
         - **outage**: the longest time, of the disturbed node's eight streams, from the sending of a packet that did not\n  \
           come back to the sending of the next one that did. It includes the time between the first and the last change of\n  \
           the disturbing commands (**commands**, with the start of their processes).\n\
         - **lost**: packets of these streams that did not come back, of all sent.\n\
         - **lost between others**: packets between the two other nodes. The run fails unless this is 0 everywhere.\n\
         - *repair*: only the daemon of the disturbed node has to act. *others*: the peers have to learn a new address\n  \
           through the lease store, or the commands themselves take the network away.\n\n",
    );
    let _infallible = writeln!(
        text,
        "{}; {rounds} rounds, median (worst).\n\n| disturbance | needs | outage, ms | commands, ms | lost | lost between others |\n|---|---|---:|---:|---:|---:|",
        machine()
    );
    for (disturbance, row) in disturbances.iter().zip(rows) {
        let mut outages: Vec<f64> = row.iter().map(|one| ms(one.outage)).collect();
        let mut commands: Vec<f64> = row.iter().map(|one| ms(one.commands)).collect();
        let (p50, worst) = (percentile(&mut outages, 50), percentile(&mut outages, 100));
        let (needs, bound) = match disturbance.needs {
            Needs::Repair => ("repair", BOUND_MS),
            Needs::Others => ("others", f64::INFINITY),
        };
        let _infallible = writeln!(
            text,
            "| {} | {needs} | {p50:.0} ({worst:.0}){} | {:.0} | {} of {} | {} of {} |",
            disturbance.what,
            if worst > bound { " **over 100**" } else { "" },
            percentile(&mut commands, 50),
            total(row, |one| one.lost),
            total(row, |one| one.sent),
            total(row, |one| one.others_lost),
            total(row, |one| one.others_sent),
        );
    }
    text
}
