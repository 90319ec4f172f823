//! `flanneld doctor --collect` beside a daemon.

use std::fs;

use testkit::{Flannel, Lab, may_make_namespaces};

use super::{BINARY, SOON, flanneld, words};

#[test]
fn an_archive_for_a_bug_report_has_everything_but_the_password() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let flannel = Flannel::new(&lab, BINARY, Flannel::NET_CONF).unwrap();
    let node = lab.add_node().unwrap();
    let _daemon = flannel.start_ready(&node, SOON).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.tar");
    let mut arguments = words("doctor --etcd-username=u --etcd-password=very-secret");
    arguments.extend(flannel.arguments(&node));
    arguments.push(format!("--collect={}", path.display()));
    let (status, text) = flanneld(&node, &arguments);
    assert!(status == 0 && text.starts_with(&*path.to_string_lossy()), "{status} {text}");
    let archive = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    for content in [
        "flannel/flags.txt\0",
        "etcdPassword:***",
        "flannel/doctor.json\0",
        "flannel/status.json\0",
        "\"ready\": true",
        "flannel/rules.txt\0",
        "table ip flannel-ipv4",
        "flannel/net-conf.json\0",
        "flannel/subnet.env\0",
        "FLANNEL_SUBNET=",
        "flannel/metrics.txt\0",
        "flanneld_condition",
        "flannel/plan.txt\0",
        "flannel/proc/net/route\0",
    ] {
        assert!(archive.contains(content), "no {content}: {archive}");
    }
    assert!(!archive.contains("very-secret"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
