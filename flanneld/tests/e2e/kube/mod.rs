//! Real daemons on a fake API server, in a lab of network namespaces.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::BINARY;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{FakeApi, KubeApiserver, Lab, Node, may_make_namespaces, wait_for};

mod annotations;
mod manifest;
mod pod_cidr;

const SOON: Duration = Duration::from_secs(15);
const SERVER: &str = "192.168.77.254:6443";

/// IPv4 alone.
const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
/// Both families.
const DUAL_STACK: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
    "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;

struct Daemon(Child);

impl Daemon {
    /// As upstream's manifest starts it.
    fn start(node: &Node, name: &str, server: &str) -> Self {
        Self::start_with(node, name, server, NET_CONF)
    }

    fn start_with(node: &Node, name: &str, server: &str, text: &str) -> Self {
        Self::start_in(node, name, server, text, &[])
    }

    fn start_in(node: &Node, name: &str, server: &str, text: &str, environment: &[(&str, &str)]) -> Self {
        let net_conf = node.folder().join("net-conf.json");
        fs::write(&net_conf, text).unwrap();
        let log = File::options().create(true).append(true).open(node.folder().join("flanneld.log")).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["--ip-masq", "--kube-subnet-mgr", "--iface=eth0", "--healthz-port=8081"]);
        command.arg(server);
        command.arg("--net-config-path").arg(net_conf).arg("--subnet-file").arg(node.subnet_file());
        // As in an image that holds nothing else: no CA certificates of the system.
        command.env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
        command.envs(environment.iter().copied());
        command.env("NODE_NAME", name).stdin(Stdio::null()).stderr(log);
        Self(node.namespace().spawn(&mut command).unwrap())
    }
}

impl Daemon {
    /// Asks it to end, and waits.
    fn terminate(mut self) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn plan_knows_the_pod_subnet_and_publishes_nothing(lab: &mut Lab, api: &FakeApi, server: &str) {
    let node = lab.add_node().unwrap();
    let net_conf = lab.folder().join("plan.json");
    fs::write(&net_conf, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#).unwrap();
    let plan = || {
        let mut command = Command::new(BINARY);
        command.args(["plan", "--kube-subnet-mgr", "--iface=eth0", server]).env("NODE_NAME", "c");
        command.arg("--net-config-path").arg(&net_conf).arg("--subnet-file").arg(node.subnet_file());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        (done.status.code(), text)
    };
    api.add_node("c", &[]);
    let (code, text) = plan();
    assert!(code == Some(1) && text.contains("node \"c\" pod cidr not assigned"), "{text}");
    api.edit_node("c", |node| node["spec"]["podCIDR"] = "10.244.3.0/24".into());
    let before = api.node("c").unwrap();
    let (code, text) = plan();
    assert!(code == Some(3) && text.contains("This is the plan for subnet 10.244.3.0-24"), "{text}");
    assert!(text.contains("ip route replace 10.244.2.0/24"), "{text}");
    assert_eq!(api.node("c").unwrap(), before);
    api.delete_node("c");
}

/// A page of the daemon of this node, status line included; `None` if it does not answer.
fn page(node: &Node, path: &str) -> Option<String> {
    let answer = node.namespace().enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 8081)).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    });
    answer.unwrap()
}

/// Its body.
fn get(node: &Node, path: &str) -> Option<String> {
    page(node, path)?.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.folder().join("flanneld.log")).unwrap_or_default()
}

fn network_is_available(api: &FakeApi, name: &str) -> bool {
    api.node(name).unwrap()["status"]["conditions"][1]["status"] == "False"
}

#[test]
fn nodes_on_kubernetes_wait_for_their_pod_subnets_and_come_back_with_the_server_away() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    api.add_node("a", &[]);
    api.add_node("b", &["10.244.2.0/24"]);
    let server = format!("--kube-api-url=http://{SERVER}");
    let daemons = [Daemon::start(&nodes[0], "a", &server), Daemon::start(&nodes[1], "b", &server)];
    let waiting = "node \"a\" pod cidr not assigned";
    wait_for(SOON, || log_of(&nodes[0]).contains(waiting).then_some(())).expect("it says what it waits for");
    api.edit_node("a", |node| node["spec"]["podCIDR"] = "10.244.1.0/24".into());

    let pods = nodes.each_mut().map(|node| {
        wait_for(SOON, || node.subnet_file().exists().then_some(())).expect("it takes its lease");
        node.add_pod().unwrap()
    });
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    for name in ["a", "b"] {
        wait_for(SOON, || network_is_available(&api, name).then_some(()))
            .expect("the scheduler may send pods");
    }
    assert!(
        log_of(&nodes[0]).contains("Created subnet manager: Kubernetes Subnet Manager - a"),
        "{}",
        log_of(&nodes[0])
    );
    let env = fs::read_to_string(nodes[0].subnet_file()).unwrap();
    assert!(env.contains("FLANNEL_SUBNET=10.244.1.1/24"), "{env}");
    plan_knows_the_pod_subnet_and_publishes_nothing(&mut lab, &api, &server);

    api.set_away(true);
    let routes =
        || nodes[0].namespace().sh("ip route show 10.244.2.0/24; ip neigh show dev flannel.1").unwrap();
    let before = routes();
    let changed = wait_for(Duration::from_secs(2), || Some(routes()).filter(|now| *now != before));
    assert_eq!(changed, None, "a server that is away removes no peer");
    api.delete_node("b");
    api.set_away(false);
    wait_for(SOON, || routes().is_empty().then_some(())).expect("a node that is gone is no peer");
    drop(daemons);
}

#[test]
fn a_proxy_in_the_environment_that_is_not_for_the_api_server_prevents_no_start() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let node = lab.add_node().unwrap();
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    api.add_node("a", &["10.244.1.0/24"]);
    let kubeconfig = node.folder().join("kubeconfig");
    let text = format!(
        "{{kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
         users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'http://{SERVER}'}}}}]}}"
    );
    fs::write(&kubeconfig, text).unwrap();
    let server = format!("--kubeconfig-file={}", kubeconfig.display());
    let proxies = [("HTTPS_PROXY", "http://192.0.2.1:3128"), ("NO_PROXY", "192.168.77.0/24")];
    let _daemon = Daemon::start_in(&node, "a", &server, NET_CONF, &proxies);
    let written = wait_for(SOON, || node.subnet_file().exists().then_some(()));
    assert!(written.is_some(), "{}", log_of(&node));
}

#[test]
#[ignore = "needs a real kube-apiserver: make test-kube"]
fn on_a_real_kube_apiserver_nodes_join_outlive_its_absence_and_leave() {
    let mut lab = Lab::new().unwrap();
    let mut nodes = [lab.add_node().unwrap(), lab.add_node().unwrap()];
    let address: SocketAddr = SERVER.parse().unwrap();
    let api = KubeApiserver::start_in(lab.outside(), address.ip()).unwrap();
    api.add_node("a", &[]).unwrap();
    api.add_node("b", &["10.244.2.0/24"]).unwrap();
    let server = format!("--kubeconfig-file={}", api.kubeconfig().display());
    let daemons = [Daemon::start(&nodes[0], "a", &server), Daemon::start(&nodes[1], "b", &server)];
    let waiting = "node \"a\" pod cidr not assigned";
    wait_for(SOON, || log_of(&nodes[0]).contains(waiting).then_some(())).expect("it says what it waits for");
    api.assign("a", &["10.244.1.0/24"]).unwrap();

    let pods = nodes.each_mut().map(|node| {
        wait_for(SOON, || node.subnet_file().exists().then_some(())).expect("it takes its lease");
        node.add_pod().unwrap()
    });
    for target in pods[1].addresses() {
        assert!(pods[0].namespace().reaches(target, SOON).unwrap());
    }
    let available = || {
        let conditions = api.nodes().unwrap().into_iter().map(|node| node["status"]["conditions"].clone());
        let all = conditions.filter(|all| all[0]["status"] == "False" && all[0]["reason"] == "FlannelIsUp");
        (all.count() == 2).then_some(())
    };
    wait_for(SOON, available).expect("the scheduler may send pods");

    let routes = || nodes[0].namespace().sh("ip route show 10.244.2.0/24").unwrap();
    let before = routes();
    api.set_away(true).unwrap();
    let changed = wait_for(Duration::from_secs(3), || Some(routes()).filter(|now| *now != before));
    assert_eq!(changed, None, "a server that is away removes no peer");
    api.set_away(false).unwrap();
    api.delete_node("b").unwrap();
    wait_for(Duration::from_secs(60), || routes().is_empty().then_some(()))
        .expect("a node that is gone is no peer");
    drop(daemons);
}
