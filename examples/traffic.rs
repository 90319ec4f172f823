//! Runs examples that translate or drop packets, and sends packets: from a host outside, to a node with two pods.

#![allow(clippy::panic, clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use testkit::{Lab, Namespace, Node, Pod, may_make_namespaces, wait_for};

/// Longer than a connection in the lab takes, shorter than TCP sends a second SYN.
const NO_ANSWER: Duration = Duration::from_millis(700);

/// Cargo builds examples beside the folder of the tests.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    Command::new(built)
}

/// Runs an example on the node.
fn run(node: &Node, name: &str, arguments: &[&str]) -> String {
    let child = node.namespace().spawn(program(name).args(arguments).stdout(Stdio::piped())).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{name} {arguments:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Answers each connection with a word, from a namespace, until the test ends.
fn serve(namespace: &Namespace, port: u16, word: &'static str) {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    let listener = namespace.enter(|| TcpListener::bind(any)).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _client_is_gone = stream.and_then(|mut stream| stream.write_all(word.as_bytes()));
        }
    });
}

/// What a server answers; `None` if it does not answer.
fn ask(from: &Namespace, to: impl Into<IpAddr>, port: u16) -> Option<String> {
    let to = SocketAddr::new(to.into(), port);
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, NO_ANSWER)).unwrap().ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    Some(answer)
}

fn node_with_pods(lab: &mut Lab) -> (Node, [Pod; 2]) {
    let mut node = lab.add_node().unwrap();
    let subnet = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    fs::write(node.subnet_file(), subnet).unwrap();
    let pods = [node.add_pod().unwrap(), node.add_pod().unwrap()];
    (node, pods)
}

fn address(pod: &Pod) -> Ipv4Addr {
    pod.v4().unwrap()
}

#[test]
fn load_balancer_gives_each_backend_its_turn() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, [one, two]) = node_with_pods(&mut lab);
    serve(one.namespace(), 8080, "one");
    serve(two.namespace(), 8080, "two");
    let service = Ipv4Addr::new(192, 0, 2, 10);
    lab.outside().sh(&format!("ip route add {service} via {}", node.v4())).unwrap();
    let backends = [&one, &two].map(|pod| format!("{}:8080", address(pod)));
    let service_port = format!("{service}:80");
    let arguments = [&service_port, &backends[0], &backends[1]].map(String::as_str);
    let script = run(&node, "load_balancer", &arguments);
    assert!(script.contains("numgen inc mod 2 vmap { 0 : goto backend-10.244.1."), "{script}");
    let answers: Vec<String> = (0..4).map(|_| ask(lab.outside(), service, 80).unwrap()).collect();
    assert!(
        answers == ["one", "two", "one", "two"] || answers == ["two", "one", "two", "one"],
        "{answers:?}"
    );
    assert_eq!(run(&node, "load_balancer", &arguments), "", "the same again");
    // A backend leaves: the rules that choose are replaced, the other backend's chain and its counter stay.
    run(&node, "load_balancer", &arguments[..2]);
    assert!((0..4).all(|_| ask(lab.outside(), service, 80).unwrap() == "one"));
    let chains = node.namespace().sh("nft list table ip load-balancer").unwrap();
    assert!(chains.contains("counter packets 6 bytes") && !chains.contains(&backends[1]), "{chains}");
}

#[test]
fn publish_ports_reaches_containers_and_changes_elements_only() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, [one, two]) = node_with_pods(&mut lab);
    serve(one.namespace(), 80, "one");
    serve(two.namespace(), 80, "two");
    let port = |host: u16, pod: &Pod| format!("{host}:{}:80", address(pod));
    assert_eq!(ask(lab.outside(), node.v4(), 8080), None);
    run(&node, "publish_ports", &[&port(8080, &one)]);
    assert_eq!(ask(lab.outside(), node.v4(), 8080).unwrap(), "one");
    assert_eq!(ask(node.namespace(), node.v4(), 8080).unwrap(), "one");
    assert_eq!(ask(lab.outside(), node.v4(), 8081), None);
    let script = run(&node, "publish_ports", &[&port(8080, &one), &port(8081, &two)]);
    let added = format!("add element ip published-ports published {{ 8081 : {} . 80 }}\n", address(&two));
    assert_eq!(script, added);
    assert_eq!(ask(lab.outside(), node.v4(), 8081).unwrap(), "two");
}

#[test]
fn rate_limit_drops_a_client_that_connects_too_often_and_no_other() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, [pod, _]) = node_with_pods(&mut lab);
    serve(node.namespace(), 8022, "hello");
    run(&node, "rate_limit", &["8022", "5"]);
    let answers: Vec<bool> = (0..8).map(|_| ask(lab.outside(), node.v4(), 8022).is_some()).collect();
    assert_eq!(answers[..5], [true; 5], "{answers:?}");
    assert!(answers[5..].contains(&false), "{answers:?}");
    assert_eq!(ask(pod.namespace(), node.v4(), 8022).unwrap(), "hello", "another client");
    let set = node.namespace().sh("nft list set inet rate-limit clients4").unwrap();
    assert!(set.contains(&format!("{} limit rate over 5/minute", Lab::OUTSIDE_V4)), "{set}");
}

#[test]
fn ip_masq_agent_masquerades_what_its_file_does_not_exclude() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, [pod, _]) = node_with_pods(&mut lab);
    let file = node.folder().join("non-masquerade.txt");
    fs::write(&file, "10.0.0.0/8\n").unwrap();
    let mut agent =
        node.namespace().spawn(program("ip_masq_agent").arg(&file).stdout(Stdio::null())).unwrap();
    let seen = |address: Ipv4Addr| {
        let is_seen =
            || (pod.seen_by(lab.outside(), Lab::OUTSIDE_V4).ok()? == IpAddr::V4(address)).then_some(());
        wait_for(Duration::from_secs(10), is_seen).is_some()
    };
    assert!(seen(node.v4()), "masqueraded");
    fs::write(&file, "10.0.0.0/8\n192.168.77.0/24\n").unwrap();
    assert!(seen(address(&pod)), "excluded");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// Docker's rules as dockerd 28 writes them with iptables-nft, for the bridge of the lab's pods and one published port.
fn docker(bridge: &str, container: Ipv4Addr) -> String {
    [
        "-P FORWARD DROP".to_owned(),
        "-N DOCKER".to_owned(),
        "-N DOCKER-FORWARD".to_owned(),
        "-N DOCKER-USER".to_owned(),
        "-A FORWARD -j DOCKER-USER".to_owned(),
        "-A FORWARD -j DOCKER-FORWARD".to_owned(),
        format!("-A DOCKER-FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-A DOCKER-FORWARD -o {bridge} -j DOCKER"),
        format!("-A DOCKER-FORWARD -i {bridge} -j ACCEPT"),
        format!("-A DOCKER -d {container}/32 ! -i {bridge} -o {bridge} -p tcp -m tcp --dport 80 -j ACCEPT"),
        format!("-A DOCKER ! -i {bridge} -o {bridge} -j DROP"),
        "-t nat -N DOCKER".to_owned(),
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        format!("-t nat -A POSTROUTING -s 10.244.1.0/24 ! -o {bridge} -j MASQUERADE"),
        format!("-t nat -A DOCKER ! -i {bridge} -p tcp -m tcp --dport 8080 -j DNAT --to-destination {container}:80"),
    ]
    .map(|rule| format!("iptables-nft {rule}\n"))
    .concat()
}

#[test]
fn host_firewall_closes_the_host_and_leaves_docker_alone() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, [container, _]) = node_with_pods(&mut lab);
    serve(container.namespace(), 80, "container");
    serve(node.namespace(), 22, "ssh");
    serve(node.namespace(), 9100, "metrics");
    node.namespace().sh(&docker("cni0", address(&container))).unwrap();
    let rules =
        || node.namespace().sh("iptables-nft-save; nft -a list tables | grep -v host-firewall").unwrap();
    let before = rules();
    assert_eq!(ask(lab.outside(), node.v4(), 9100).unwrap(), "metrics");

    run(&node, "host_firewall", &["22"]);
    assert_eq!(ask(lab.outside(), node.v4(), 9100), None, "not among the open ports");
    assert_eq!(ask(lab.outside(), node.v4(), 22).unwrap(), "ssh");
    assert_eq!(ask(lab.outside(), node.v4(), 8080).unwrap(), "container", "published by Docker");
    lab.outside().ping(node.v4().into()).unwrap();
    run(&node, "host_firewall", &["22", "9100"]);
    assert_eq!(ask(lab.outside(), node.v4(), 9100).unwrap(), "metrics");
    // The counters of Docker's chains have moved, its rules have not.
    let without_counts = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(without_counts(&rules()), without_counts(&before));
}
