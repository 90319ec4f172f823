//! What others do to a node, and how long its pods cannot talk because of it.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::new_flows::joined;
use crate::{Daemon, LabError, Node, Pod, RoundTrips, wait_for};

/// A disturbance of one node's network, as an operator or another program of the host would do it.
#[derive(Clone, Copy, Debug)]
pub struct Disturbance {
    /// What is done, for people.
    pub what: &'static str,
    /// What ends the outage.
    pub needs: Needs,
    /// A shell script in the node's namespace; `POD` is the namespace of its pod, `NODE` its own.
    script: &'static str,
}

/// What ends an outage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needs {
    /// Only the repair on the disturbed node.
    Repair,
    /// The other nodes have to learn this node's new address, or the disturbing commands have to finish.
    Others,
}

/// What one disturbance did to a steady stream of packets in every direction and family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disturbed {
    /// Longest outage of the streams from and to the disturbed node.
    pub outage: Duration,
    /// How long the commands took.
    pub commands: Duration,
    /// Packets of the disturbed node's streams.
    pub sent: u64,
    /// How many of these never came back.
    pub lost: u64,
    /// Packets between the other nodes.
    pub others_sent: u64,
    /// How many of these never came back.
    pub others_lost: u64,
}

/// Packets a second of each stream: what is lost is told apart to 4 ms.
const PER_SECOND: u32 = 250;
const BEFORE: Duration = Duration::from_millis(150);
const SOON: Duration = Duration::from_secs(20);

impl Disturbance {
    /// All of them. Each leaves the node so that the next one can follow, in this order; the nodes' daemons must look
    /// for their interface by the default route ([`Flannel::by_default_route`](crate::Flannel::by_default_route)).
    pub const ALL: &[Self] = &[
        repair("nothing: what the streams themselves show", "true"),
        repair("`ip link del flannel.1`", "ip link del flannel.1"),
        repair("both devices deleted", "ip link del flannel.1; ip link del flannel-v6.1"),
        repair("`ip link set flannel.1 down`", "ip link set flannel.1 down"),
        repair(
            "`ip link set flannel.1 down`, then `up`",
            "ip link set flannel.1 down; ip link set flannel.1 up",
        ),
        repair("`ip link set flannel.1 name x`", "ip link set flannel.1 name x"),
        repair("`ip addr flush dev flannel.1`", "ip addr flush dev flannel.1"),
        repair(
            "`ip route flush dev flannel.1`",
            "ip route flush dev flannel.1; ip -6 route flush dev flannel-v6.1",
        ),
        repair(
            "`ip neigh flush dev flannel.1 nud permanent`",
            "ip neigh flush dev flannel.1 nud permanent; ip -6 neigh flush dev flannel-v6.1 nud permanent",
        ),
        repair(
            "`bridge fdb del` of every entry",
            r#"for d in flannel.1 flannel-v6.1; do bridge fdb show dev $d | sed "s/^\([^ ]*\) .*/fdb del \1 dev $d/"; done > LIST
            bridge -force -batch LIST"#,
        ),
        repair("`ip nexthop flush`", "ip nexthop flush"),
        repair(
            "MAC changed",
            "ip link set flannel.1 address 02:00:00:00:00:07; ip link set flannel-v6.1 address 02:00:00:00:00:08",
        ),
        repair("MTU changed", "ip link set flannel.1 mtu 1280; ip link set flannel-v6.1 mtu 1280"),
        repair(
            "as systemd-networkd with its defaults: all foreign routes, nexthops and neighbor entries",
            "ip route flush proto 70; ip -6 route flush proto 70; ip nexthop flush; ip neigh flush dev flannel.1 nud permanent",
        ),
        repair(
            "as NetworkManager taking the device over: addresses, routes, MTU, down and up",
            "ip addr flush dev flannel.1; ip route flush dev flannel.1; ip link set flannel.1 mtu 1500 down; ip link set flannel.1 up",
        ),
        repair("`nft flush ruleset`", "nft flush ruleset"),
        repair("MTU of eth0 to 1400", "ip link set eth0 mtu 1400"),
        repair("MTU of eth0 back to 1500", "ip link set eth0 mtu 1500"),
        repair("another address added to eth0", "ip addr add 192.168.77.211/24 dev eth0"),
        others(
            "address of eth0 replaced",
            "ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.211/24 dev eth0 2>/dev/null
            ip route replace default via 192.168.77.254",
        ),
        others(
            "the old address back",
            "ip addr del 192.168.77.211/24 dev eth0; ip addr add 192.168.77.1/24 dev eth0 2>/dev/null
            ip route replace default via 192.168.77.254",
        ),
        others(
            "default route to another interface",
            // The same MAC address each time, or the other nodes go on sending to that of the last time.
            "ip link add eth1 link eth0 address 02:00:00:00:00:e1 type macvlan mode bridge; ip addr add 192.168.77.101/24 dev eth1
            ip addr add fd00:77::101/64 dev eth1 nodad; ip link set eth1 up
            ip route replace default via 192.168.77.254 dev eth1
            ip -6 route del default; ip -6 route add default via fd00:77::fe dev eth1",
        ),
        others(
            "that interface deleted, the default route back on eth0",
            "ip link del eth1; ip route add default via 192.168.77.254; ip -6 route add default via fd00:77::fe",
        ),
        others(
            "eth0 down and up, its IPv6 address added again",
            "ip link set eth0 down; ip link set eth0 up; ip addr add fd00:77::1/64 dev eth0 nodad
            ip route add default via 192.168.77.254; ip -6 route add default via fd00:77::fe",
        ),
        others(
            "eth0 gone, and another eth0 in its place",
            "ip link set eth0 netns POD name away0; ip -n POD link set away0 netns NODE name eth0
            ip addr add 192.168.77.1/24 dev eth0; ip addr add fd00:77::1/64 dev eth0 nodad; ip link set eth0 up
            ip route add default via 192.168.77.254; ip -6 route add default via fd00:77::fe",
        ),
    ];

    /// Does this to the first of `nodes` while every pod talks to every other, goes on for the time `after`, and counts.
    ///
    /// # Errors
    /// Some pods cannot talk to begin with, or a stream cannot be run.
    pub fn on(&self, nodes: &[(Node, Daemon, Pod)], after: Duration) -> Result<Disturbed, LabError> {
        everyone_talks(nodes)?;
        let Some((node, _, pod)) = nodes.first() else { return Ok(Disturbed::default()) };
        let mut streams = Vec::new();
        for (ours, from, to, address) in directions(nodes) {
            streams.push((ours, RoundTrips::start(from, to, address, PER_SECOND)?));
        }
        pause(BEFORE);
        let script = self.script.replace("POD", pod.namespace().name());
        let script = script.replace("NODE", node.namespace().name());
        let script = script.replace("LIST", &node.folder().join("list").display().to_string());
        let begun = Instant::now();
        // A flush that meets the repair fails half-way: `ip` is refused what it finds there again.
        node.namespace().sh(&format!("set +e; {script}; true"))?;
        let mut disturbed = Disturbed { commands: begun.elapsed(), ..Disturbed::default() };
        pause(after);
        let stopping: Vec<_> =
            streams.into_iter().map(|(ours, stream)| (ours, thread::spawn(|| stream.stop()))).collect();
        for (ours, report) in stopping {
            let report = joined(report)?;
            if ours {
                disturbed.outage = disturbed.outage.max(report.longest_outage);
                disturbed.lost += report.lost;
                disturbed.sent += report.sent;
            } else {
                disturbed.others_lost += report.lost;
                disturbed.others_sent += report.sent;
            }
        }
        Ok(disturbed)
    }
}

const fn repair(what: &'static str, script: &'static str) -> Disturbance {
    Disturbance { what, needs: Needs::Repair, script }
}

const fn others(what: &'static str, script: &'static str) -> Disturbance {
    Disturbance { what, needs: Needs::Others, script }
}

fn everyone_talks(nodes: &[(Node, Daemon, Pod)]) -> Result<(), LabError> {
    for (_, from, _, address) in directions(nodes) {
        if !from.namespace().reaches(address, SOON)? {
            let what = format!("{address} from {}", from.namespace().name());
            return Err(LabError::unreadable(what, "there is no answer"));
        }
    }
    Ok(())
}

/// Every way from one pod to another, in both families, and whether the first node is an end of it.
fn directions(nodes: &[(Node, Daemon, Pod)]) -> impl Iterator<Item = (bool, &Pod, &Pod, IpAddr)> {
    let ends = move |(i, from)| {
        nodes
            .iter()
            .enumerate()
            .filter(move |(j, _)| i != *j)
            .map(move |(j, to)| (i == 0 || j == 0, from, to))
    };
    let ways = nodes.iter().enumerate().flat_map(ends);
    ways.flat_map(|(ours, (_, _, from), (_, _, to))| {
        to.addresses().map(move |address| (ours, from, to, address))
    })
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    wait_for(time * 2, || (Instant::now() >= until).then_some(()));
}
