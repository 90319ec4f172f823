//! Real daemons that are given passwords and tokens in every way there is: nobody else ever gets to see them.

use std::fs;
use std::time::Duration;

use super::etcd_host::{ENDPOINT, Etcd};
use testkit::{Daemon, FakeApi, Flannel, Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(20);
const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
const SECRET: &str = "fL4nn3l-s3cret";
const SERVER: &str = "192.168.77.254:6443";

/// What others can read of a daemon that runs, and of what it has written.
fn is_seen_nowhere(what: &str, node: &Node, daemon: Option<&Daemon>) {
    let mut seen = vec![("log", fs::read_to_string(node.folder().join("flanneld.log")).unwrap())];
    for file in ["subnet.env", "subnet.state.json"] {
        seen.push((file, fs::read_to_string(node.folder().join(file)).unwrap_or_default()));
    }
    if let Some(daemon) = daemon {
        let command = || fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid().unwrap())).unwrap();
        wait_for(SOON, || (!command().contains(SECRET)).then_some(()));
        seen.push(("process list", command()));
        let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid().unwrap())).unwrap();
        assert_eq!(name, "flanneld\n", "by which pgrep finds it");
        // A daemon that waits has nothing to say on the others, and takes its time for that.
        let pages = if daemon.status("/readyz").unwrap() == 200 { 5 } else { 2 };
        for page in ["/healthz", "/readyz", "/metrics", "/", "/status"].into_iter().take(pages) {
            seen.push((page, daemon.page(page).unwrap()));
        }
    }
    for (place, text) in seen {
        assert!(!text.contains(SECRET), "{what}: in the {place}: {text}");
    }
}

#[test]
fn the_password_for_etcd_is_seen_nowhere_however_it_is_given_and_whatever_comes_of_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let nodes: Vec<Node> = (0..9).map(|_| lab.add_node().unwrap()).collect();
    let mut nodes = nodes.iter();
    let etcd = Etcd::start(&lab);
    etcd.ctl(&format!("put /coreos.com/network/config '{NET_CONF}'"));
    let store = format!("--etcd-endpoints={ENDPOINT}");
    let flannel = |lab: &Lab| Flannel::new(lab, BINARY, NET_CONF).unwrap().arg("-v=10").store(&store);

    // There are no users yet, so that it is refused at the login.
    let node = nodes.next().unwrap();
    let refused = flannel(&lab).arg("--etcd-username=flannel").arg(format!("--etcd-password={SECRET}"));
    let daemon = refused.start(node).unwrap();
    let log = || fs::read_to_string(node.folder().join("flanneld.log")).unwrap();
    assert!(wait_for(SOON, || log().contains("has no users").then_some(())).is_some(), "{}", log());
    is_seen_nowhere("without users", node, Some(&daemon));
    drop(daemon);

    for command in [
        format!("user add root:{SECRET}"),
        "user grant-role root root".to_owned(),
        "role add flannel".to_owned(),
        "role grant-permission --prefix=true flannel readwrite /coreos.com/network/".to_owned(),
        format!("user add flannel:{SECRET}"),
        "user grant-role flannel flannel".to_owned(),
        "auth enable".to_owned(),
    ] {
        etcd.ctl(&command);
    }
    let wrong = format!("not-{SECRET}");
    for (what, arguments, variable, works) in [
        ("a flag", vec![format!("--etcd-password={SECRET}")], None, true),
        ("a flag and its value", vec!["-etcd-password".to_owned(), SECRET.to_owned()], None, true),
        ("a variable", vec![], Some(SECRET), true),
        ("a wrong one", vec![format!("--etcd-password={wrong}")], None, false),
        ("JSON log", vec!["--log-format=json".to_owned()], Some(SECRET), true),
    ] {
        let node = nodes.next().unwrap();
        let mut flannel = flannel(&lab).arg("--etcd-username=flannel");
        for argument in arguments {
            flannel = flannel.arg(argument);
        }
        if let Some(value) = variable {
            flannel = flannel.env("FLANNELD_ETCD_PASSWORD", value);
        }
        let mut daemon = flannel.start(node).unwrap();
        if works {
            daemon.ready(SOON).unwrap();
            is_seen_nowhere(what, node, Some(&daemon));
            assert!(daemon.terminate().unwrap().success());
        } else {
            let log = || fs::read_to_string(node.folder().join("flanneld.log")).unwrap();
            let said =
                wait_for(SOON, || log().contains("check --etcd-username and --etcd-password").then_some(()));
            assert!(said.is_some(), "{}", log());
            is_seen_nowhere(what, node, Some(&daemon));
        }
        is_seen_nowhere(what, node, None);
    }

    // Mistakes that have the password in them.
    for mistake in [
        format!("--etcd-pasword={SECRET}"),
        format!("--etcd-password {SECRET} --healthz-port=x"),
        format!("--etcd-endpoints=http://flannel:{SECRET}@192.168.77.254:2379"),
    ] {
        let node = nodes.next().unwrap();
        let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store("-v=10");
        let flannel = mistake.split(' ').fold(flannel, Flannel::arg);
        let mut daemon = flannel.start(node).unwrap();
        assert!(daemon.ready(SOON).is_err(), "{mistake} is refused");
        is_seen_nowhere(&mistake, node, None);
    }
}

#[test]
fn a_token_for_kubernetes_is_seen_nowhere_however_it_is_given_and_whatever_comes_of_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let api = FakeApi::start_in(lab.outside(), SERVER.parse().unwrap()).unwrap();
    let token = lab.folder().join("token");
    fs::write(&token, SECRET).unwrap();
    let kubeconfig = |server: &str, user: &str| {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{{"name": "c", "cluster": {{"server": "{server}"}}}}],
                "users": [{{"name": "u", "user": {user}}}],
                "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
        )
    };
    let server = format!("http://{SERVER}");
    let in_file = format!(r#"{{"tokenFile": "{}"}}"#, token.display());
    let inside = format!(r#"{{"token": "{SECRET}"}}"#);
    for (number, (what, config, accepted, works)) in [
        ("a token file", kubeconfig(&server, &in_file), SECRET, true),
        ("a token", kubeconfig(&server, &inside), SECRET, true),
        ("a refused token", kubeconfig(&server, &inside), "another", false),
        ("a token in the wrong place", kubeconfig(&server, &format!("\"{SECRET}\"")), SECRET, false),
        ("broken YAML", kubeconfig(&server, &inside).replace("}]", "}"), SECRET, false),
        (
            "a password",
            kubeconfig(&server, &format!(r#"{{"username": "u", "password": "{SECRET}"}}"#)),
            "x",
            false,
        ),
        (
            "credentials in the URL",
            kubeconfig(&format!("http://u:{SECRET}@{SERVER}"), &inside),
            SECRET,
            false,
        ),
        (
            "a key that is none",
            kubeconfig(&server, &format!(r#"{{"client-key-data": "{SECRET}!"}}"#)),
            "x",
            false,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("node-{number}");
        api.add_node(&name, &[&format!("10.244.{number}.0/24")]);
        api.require_token(accepted);
        let node = lab.add_node().unwrap();
        let file = node.folder().join("kubeconfig");
        fs::write(&file, config).unwrap();
        let flannel = Flannel::new(&lab, BINARY, NET_CONF).unwrap().store("--kube-subnet-mgr");
        let flannel = flannel.arg("-v=10").arg(format!("--kubeconfig-file={}", file.display()));
        let mut daemon = flannel.env("NODE_NAME", name).start(&node).unwrap();
        if works {
            daemon.ready(SOON).unwrap();
            is_seen_nowhere(what, &node, Some(&daemon));
            assert!(daemon.terminate().unwrap().success());
        } else {
            // It gives up, or has been refused and tries again.
            let log = || fs::read_to_string(node.folder().join("flanneld.log")).unwrap();
            let failed =
                || log().contains("Failed to create SubnetManager") || log().contains("Unauthorized");
            assert!(wait_for(SOON, || failed().then_some(())).is_some(), "{what}: {}", log());
            assert!(daemon.ready(Duration::ZERO).is_err(), "{what}");
        }
        is_seen_nowhere(what, &node, None);
    }
}
