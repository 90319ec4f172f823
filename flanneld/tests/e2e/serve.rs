//! What a real daemon tells: over HTTP, on its local socket, and to systemd.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use flanneld::serve::status_socket;
use flanneld::status::model::{PeerState, socket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Daemon, Flannel, Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);
const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

/// The value of the sample that begins with this name and these labels.
fn metric(daemon: &Daemon, sample: &str) -> Option<f64> {
    let text = daemon.page("/metrics").unwrap();
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

fn until(daemon: &Daemon, sample: &str, right: impl Fn(f64) -> bool) {
    let found = wait_for(SOON, || metric(daemon, sample).filter(|value| right(*value)));
    assert!(found.is_some(), "{sample} in {}", daemon.page("/metrics").unwrap());
}

fn two_nodes(lab: &mut Lab, flannel: &Flannel) -> [(Node, Daemon); 2] {
    [(); 2].map(|()| {
        let node = lab.add_node().unwrap();
        let daemon = flannel.start_ready(&node, SOON).unwrap();
        (node, daemon)
    })
}

#[test]
fn metrics_page_and_socket_tell_what_the_kernel_holds_and_what_was_repaired() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let [(mut first, daemon), (mut second, other)] = two_nodes(&mut lab, &flannel);
    until(&daemon, "flanneld_peers{state=\"programmed\"}", |peers| peers == 1.0);
    assert_eq!(metric(&daemon, "flanneld_store_up"), Some(1.0));
    assert_eq!(metric(&daemon, "flanneld_lease_renew_margin_seconds"), Some(3_600.0));
    assert_eq!(metric(&daemon, "flanneld_repairs_total{object=\"rules\",cause=\"notification\"}"), Some(0.0));

    // Packets between pods, and then from a pod out of the cluster, are counted by the rules.
    let (from, to) = (first.add_pod().unwrap(), second.add_pod().unwrap());
    assert!(from.namespace().reaches(to.addresses().next().unwrap(), SOON).unwrap());
    assert!(from.namespace().reaches(Lab::OUTSIDE_V4, SOON).unwrap());
    until(&daemon, "flanneld_forwarded_packets_total{family=\"ipv4\",direction=\"from_pods\"}", |n| n > 0.0);
    until(&daemon, "flanneld_masqueraded_connections_total{family=\"ipv4\",direction=\"from_pods\"}", |n| {
        n > 0.0
    });

    first.namespace().sh("nft flush ruleset").unwrap();
    until(&daemon, "flanneld_repairs_total{object=\"rules\",cause=\"notification\"}", |repairs| {
        repairs == 1.0
    });
    until(&daemon, "flanneld_nft_foreign_commits_total{tables=\"ours\"}", |commits| commits >= 1.0);
    let page = daemon.page("/").unwrap();
    assert!(page.contains("last changed by &quot;nft&quot;") && page.contains("1 programmed"), "{page}");

    let status = status_socket::ask(&socket(&first.subnet_file())).unwrap();
    let states: Vec<PeerState> = status.peer_list.iter().map(|peer| peer.state).collect();
    assert_eq!(states, [PeerState::Programmed]);
    assert!(status.ready && status.rules.right && status.repairs.len() == 1, "{status:?}");

    other.kill().unwrap();
    daemon.terminate().unwrap();
    assert!(!socket(&first.subnet_file()).exists());
}

/// What probes get from the health port of a daemon that is told only the port, with IPv6 on its node or not.
#[test]
fn probes_are_answered_over_both_families_by_default() {
    if !may_make_namespaces() {
        return;
    }
    for ipv6 in [true, false] {
        let mut lab = Lab::new().unwrap();
        let (node, prober) = (lab.add_node().unwrap(), lab.add_node().unwrap());
        if !ipv6 {
            node.namespace().sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1").unwrap();
        }
        let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
        let arguments = flannel.arguments(&node).into_iter().filter(|word| !word.starts_with("--healthz-ip"));
        let log = node.folder().join("flanneld.log");
        let mut command = Command::new(BINARY);
        command.args(arguments).stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut child = node.namespace().spawn(&mut command).unwrap();

        let answers = |address: IpAddr| {
            let asked = prober.namespace().enter(|| {
                let mut stream = TcpStream::connect_timeout(&(address, 10256).into(), SOON)?;
                stream.set_read_timeout(Some(SOON))?;
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_length| answer)
            });
            asked.unwrap().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        };
        let (v4, v6) = (IpAddr::from(node.v4()), IpAddr::from(node.v6()));
        let answered = wait_for(SOON, || answers(v4).then_some(()));
        let v6_answered = ipv6 && answers(v6);
        child.kill().unwrap();
        child.wait().unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(answered.is_some(), "IPv4: {log}");
        assert_eq!(v6_answered, ipv6, "{log}");
        assert!(log.contains("] Start healthz server on 0.0.0.0:10256\n"), "{log}");
    }
}

/// What systemd would hear.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// With what to put into `NOTIFY_SOCKET`.
    fn bind(lab: &Lab) -> (Self, String) {
        let path = lab.folder().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Self { socket, heard: Vec::new() }, path.to_str().unwrap().to_owned())
    }

    /// What is told of the lease and of being ready comes in either order: what is passed over is kept.
    fn hear(&mut self, what: &str) -> String {
        let found = wait_for(SOON, || {
            let mut message = [0; 4096];
            while let Ok(length) = self.socket.recv(&mut message) {
                self.heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
            }
            let at = self.heard.iter().position(|message| message.contains(what))?;
            Some(self.heard.remove(at))
        });
        found.unwrap_or_else(|| unreachable!("no {what} in {:?}", self.heard))
    }
}

#[test]
fn systemd_is_told_what_a_start_waits_for_and_that_it_ends() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (mut manager, path) = Manager::bind(&lab);
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let flannel = flannel.store("--etcd-endpoints=http://127.0.0.1:1").env("NOTIFY_SOCKET", path);
    let daemon = flannel.start(&lab.add_node().unwrap()).unwrap();
    let status = manager.hear("STATUS=taking a lease: ");
    assert!(status.contains("Couldn't fetch network config: cannot reach etcd"), "{status}");
    assert_eq!(status.lines().count(), 1, "{status}");
    daemon.terminate().unwrap();
    manager.hear("STOPPING=1");
}

#[test]
fn systemd_is_told_ready_status_signs_of_life_reloading_and_stopping() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (mut manager, path) = Manager::bind(&lab);
    let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap();
    let flannel = flannel.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "200000");
    let node = lab.add_node().unwrap();
    let daemon = flannel.start(&node).unwrap();

    let mut hear = |what: &str| manager.hear(what);
    hear("STATUS=taking a lease");
    hear("READY=1");
    let status = hear("STATUS=10.244.");
    assert!(status.contains("/24, 0 peers"), "{status}");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    let pid = Pid::from_raw(daemon.pid().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    let reloading = hear("RELOADING=1");
    let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok());
    assert!(since.is_some_and(|since| since > 0), "{reloading}");
    hear("READY=1");
    daemon.terminate().unwrap();
    hear("STOPPING=1");
}

/// `make test-page`
#[test]
#[ignore = "needs chromium"]
fn the_page_of_a_real_node_is_readable_in_a_browser() {
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let [(node, daemon), _other] = two_nodes(&mut lab, &flannel);
    until(&daemon, "flanneld_peers{state=\"programmed\"}", |peers| peers == 2.0);
    node.namespace().sh("nft flush ruleset; ip link del flannel.1").unwrap();
    until(&daemon, "flanneld_repairs_total{object=\"overlay\",cause=\"notification\"}", |repairs| {
        repairs >= 1.0
    });

    // Over HTTP and under its policy, from within the namespace.
    let chromium = "chromium --headless --no-sandbox --disable-gpu --user-data-dir=profile --dump-dom \
        --virtual-time-budget=2000 http://127.0.0.1:10256/ 2>chromium.log";
    let there = format!("cd {:?} && {chromium}", node.folder());
    let dom = node.namespace().sh(&there).unwrap();
    for text in [
        ">ready</p>",
        "2 programmed, 0 pending",
        "flannel.1 10.244.",
        "reported by the kernel",
        "class=\"own\"",
    ] {
        assert!(dom.contains(text), "no {text} in {dom}");
    }
    let page = node.folder().join("page.html");
    std::fs::write(&page, daemon.page("/").unwrap()).unwrap();
    let measured = testkit::sh(&format!("../scripts/check-page {page:?}"));
    assert!(measured.contains("360 pixels wide: ready, 2 peers"), "{measured}");
}
