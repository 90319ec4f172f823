use std::time::Duration;

use flannel_lease::Stack;
use flanneld::config::{Command, Store, read_flags};
use flanneld::open_store::ConfiguredStore;
use proptest::prelude::*;

use crate::config::Imagined;

fn line(line: &str) -> Imagined {
    Imagined::line(line)
}

#[test]
fn argument_lists_made_for_upstream_start_unchanged() {
    for upstream in [
        "",
        "--ip-masq --kube-subnet-mgr",
        "--ip-masq --kube-subnet-mgr --healthz-port=8081",
        "-etcd-endpoints=http://172.17.0.1:2379 -v 10 -iface eth0",
        "--etcd-endpoints=http://127.0.0.1:2379 --etcd-prefix=/vxlan/network -iface=10.0.0.1 -ip-masq=true",
        "--kube-subnet-mgr=true --iface-regex=^ens --iface=eth0 --iface=eth1 -v=4 --vmodule=vxlan_network=4",
        "--subnet-file=/run/a.env --public-ip=1.2.3.4 --public-ipv6 fd00::1 -subnet-lease-renew-margin 120",
        "--etcd-keyfile=/k --etcd-certfile=/c --etcd-cafile=/ca --etcd-username=u --etcd-password=p",
        "--kube-api-url=https://a:6443 --kube-annotation-prefix=x.y --kubeconfig-file=/kc --kube-subnet-mgr",
        "--ip-masq-fully-random-disable --iptables-resync=30 --iptables-forward-rules=false --ip-blackhole-route",
        "--net-config-path=/etc/kube-flannel/net-conf.json --set-node-network-unavailable=0 --healthz-ip=127.0.0.1",
        "--iface-can-reach=8.8.8.8 -log_backtrace_at=main.go:12",
        "--public-ip= --iface= --iface-regex= --kubeconfig-file= --healthz-ip=",
        "--healthz-ip=::ffff:127.0.0.1 --public-ip=::ffff:192.0.2.1 --iface-can-reach=::ffff:192.0.2.2",
        "--healthz-ip=fe80::1%eth0",
        "-logtostderr -alsologtostderr=true -stderrthreshold INFO --ip-masq",
    ] {
        line(upstream).config();
    }
}

#[test]
fn defaults_are_upstreams() {
    let config = line("").config();
    assert_eq!(config.subnet_file.to_str(), Some("/run/flannel/subnet.env"));
    assert_eq!((config.masquerade, config.fully_random, config.forward_rules), (false, true, true));
    assert_eq!(
        (config.blackhole_route, config.resync, config.healthz),
        (false, Duration::from_secs(5), None)
    );
    assert!(config.net_conf.is_none(), "etcd holds it");
    let Store::Etcd { options: etcd, renew_margin } = config.store else { panic!() };
    assert_eq!(etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
    assert_eq!((etcd.prefix.as_str(), renew_margin), ("/coreos.com/network", Duration::from_secs(3600)));
}

#[test]
fn every_way_to_write_a_flag_means_the_same() {
    for way in
        ["-iface=eth0 -v=2", "--iface eth0 -v 2", "-iface eth0 --v=2", "--iface=eth9 --iface=eth0 -v=7 -v=2"]
    {
        let config = line(way).config();
        assert_eq!(config.selection.interfaces.last().unwrap(), "eth0", "{way}");
        assert_eq!(config.log.verbosity, 2, "{way}");
    }
    for (word, on) in
        [("=1", true), ("=T", true), ("=True", true), ("", true), ("=0", false), ("=FALSE", false)]
    {
        assert_eq!(line(&format!("--ip-masq{word}")).config().masquerade, on, "{word}");
    }
    assert_eq!(
        line("--iface -odd").config().selection.interfaces,
        ["-odd"],
        "the next argument is the value"
    );
}

#[test]
fn an_ipv4_mapped_address_is_its_ipv4_address_as_in_go() {
    let selection =
        line("--public-ip=::ffff:192.0.2.1 --iface-can-reach=::ffff:192.0.2.2").config().selection;
    assert_eq!(selection.public_ipv4, "192.0.2.1".parse().ok());
    assert_eq!(selection.can_reach, "192.0.2.2".parse().ok());
}

#[test]
fn the_environment_speaks_where_the_command_line_is_silent() {
    let source = line("--iface=eth0").env("FLANNELD_IFACE", "eth1").env("FLANNELD_IP_MASQ", "true");
    let source =
        source.env("FLANNELD_HEALTHZ_PORT", "8081").env("FLANNELD_PUBLIC_IP", "").env("FLANNELD_V", "3");
    let source = source.env("FLANNELD_VERSION", "true").env("FLANNELD_IFACE_REGEX", "a,b");
    let config = source.config();
    assert_eq!(config.selection.interfaces, ["eth0"]);
    assert_eq!(config.selection.patterns.len(), 1, "one value, not a list");
    assert!(config.masquerade && config.selection.public_ipv4.is_none());
    assert_eq!((config.healthz.unwrap().port, config.log.verbosity), (8081, 3));
}

#[test]
fn a_bad_value_is_one_line_that_names_flag_and_value() {
    for (arguments, text) in [
        ("--bogus", "flag provided but not defined: -bogus (see flanneld --help)"),
        ("--iface", "flag needs an argument: -iface"),
        ("--ip-masq false", "unexpected argument `false`"),
        ("---iface=x", "bad flag syntax: ---iface=x"),
        ("-=x", "bad flag syntax: -=x"),
        ("--ip-masq=maybe", "--ip-masq=maybe: invalid boolean value"),
        ("--healthz-port=70000", "--healthz-port=70000: a port from 0 to 65535"),
        ("-v x", "--v=x: a whole number"),
        ("--public-ip=banana", "--public-ip=banana: invalid public IP address: banana"),
        ("--public-ip=fd00::1", "an IPv4 address is expected"),
        ("--public-ipv6=::ffff:192.0.2.1", "--public-ipv6=::ffff:192.0.2.1: invalid public IPv6 address"),
        ("--healthz-ip=localhost", "--healthz-ip=localhost: an IPv4 or IPv6 address is expected"),
        ("--public-ipv6=10.0.0.1", "--public-ipv6=10.0.0.1: invalid public IPv6 address"),
        ("--iface-regex=(", "--iface-regex=(: could not compile the IP address regex '('"),
        (
            "--subnet-lease-renew-margin=0",
            "Invalid subnet-lease-renew-margin option, out of acceptable range",
        ),
        (
            "--subnet-lease-renew-margin=1440",
            "Invalid subnet-lease-renew-margin option, out of acceptable range",
        ),
        (
            "--subnet-lease-renew-margin=-5",
            "Invalid subnet-lease-renew-margin option, out of acceptable range",
        ),
        ("--iptables-resync=0", "--iptables-resync=0: a whole number of seconds, at least 1"),
        ("--subnet-file=", "--subnet-file=: "),
        ("--vmodule=x", "--vmodule=x: syntax error: expect comma-separated list of filename=N"),
        ("--log-format=xml", "--log-format=xml: text or json is expected"),
        ("--table-ownership=mine", "--table-ownership=mine: shared, owner or auto is expected"),
        (
            "--lease-db=/l --kube-subnet-mgr",
            "--lease-db and --kube-subnet-mgr are two lease stores; choose one",
        ),
        ("--etcd-keyfile=/k", "--etcd-keyfile needs --etcd-certfile"),
        ("--etcd-certfile=/c", "--etcd-certfile needs --etcd-keyfile"),
        ("--etcd-endpoints=,", "--etcd-endpoints names no server"),
        ("--etcd-endpoints=http://a,http://u:p@b", "--etcd-endpoints: a URL contains credentials"),
    ] {
        let problems = line(arguments).problems();
        let printed = problems.to_string();
        assert!(printed.starts_with("flanneld: ") && printed.contains(text), "{arguments}: {printed}");
        assert_eq!(printed.lines().count(), 1, "{arguments}: {printed}");
        assert_eq!(problems.exit_code(), 2, "{arguments}: {printed}");
    }
}

#[test]
fn a_bad_variable_is_named_and_is_no_usage_error() {
    let problems = line("").env("FLANNELD_HEALTHZ_PORT", "x").problems();
    assert_eq!(problems.to_string(), "flanneld: FLANNELD_HEALTHZ_PORT=x: a port from 0 to 65535 is expected");
    assert_eq!(problems.exit_code(), 1);
    let problems = line("--kube-subnet-mgr").env("EVENT_QUEUE_DEPTH", "many").problems();
    assert!(problems.to_string().contains("env EVENT_QUEUE_DEPTH=many format error"), "{problems}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let source = line("--healthz-port=x --bogus --public-ip=y --kube-subnet-mgr").env("FLANNELD_V", "z");
    let problems = source.net_conf(r#"{"SubnetLen": "24", "Backend": {"Type": "geneve"}}"#).problems();
    let printed = problems.to_string();
    for text in ["--healthz-port=x", "-bogus", "--public-ip=y", "FLANNELD_V=z", "SubnetLen: ", "type: geneve"]
    {
        assert!(printed.contains(text), "{text} in {printed}");
    }
    assert_eq!(printed.lines().count(), 6, "{printed}");
    assert_eq!(problems.exit_code(), 2, "the command line is at fault too");
}

#[test]
fn a_file_store_reads_net_conf_and_says_when_it_cannot() {
    let config = line("--lease-db=/var/lib/leases.db").config();
    assert!(
        matches!(config.store, Store::Sqlite { path, .. } if path.to_str() == Some("/var/lib/leases.db"))
    );
    assert_eq!(config.net_conf.unwrap().backend.name(), "vxlan");

    let source = "--lease-db=/l --net-config-path=/nowhere";
    assert!(line(source).config().net_conf.is_none(), "the daemon waits for it");
    let problems = line(&format!("plan {source}")).problems();
    let printed = problems.to_string();
    assert!(
        printed.contains("failed to read net conf: /nowhere: ") && printed.contains("--net-config-path"),
        "{printed}"
    );
    assert_eq!(problems.exit_code(), 1);
}

#[tokio::test]
async fn a_file_store_renews_leases_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases.db");
    let given = format!("--lease-db={} --subnet-lease-renew-margin=20", file.display());
    let config = line(&given).config();
    let stack = Stack::from(config.net_conf.as_ref().unwrap());
    let store = ConfiguredStore::new(&config.store).unwrap().open(stack).await.unwrap();
    assert_eq!(store.health().borrow().renew_margin, Some(Duration::from_secs(20 * 60)));
}

#[test]
fn kubernetes_settings_come_from_the_pods_environment() {
    let source =
        line("--kube-subnet-mgr").env("NODE_NAME", "n1").env("POD_NAME", "p").env("POD_NAMESPACE", "ns");
    let source = source.env("EVENT_QUEUE_DEPTH", "70").env("CONT_WHEN_CACHE_NOT_READY", "true");
    let Store::Kubernetes(kubernetes) = source.config().store else { panic!() };
    assert_eq!(kubernetes.node_name.as_deref(), Some("n1"));
}

#[test]
fn help_names_every_flag_with_its_default_and_version_asks_nothing_else() {
    let Ok(Command::Help(help)) = Command::read(&line("-h")) else { panic!() };
    for text in
        ["--etcd-endpoints <URLS>", "[default: 60]", "--lease-db <PATH>", "--log_backtrace_at", "Kubernetes:"]
    {
        assert!(help.contains(text), "{text} in {help}");
    }
    assert!(matches!(Command::read(&line("--help --kube-subnet-mgr")), Ok(Command::Help(_))));
    let version = line("--version").env("FLANNELD_V", "broken");
    assert!(matches!(Command::read(&version), Ok(Command::Version)));
}

#[test]
fn the_file_of_the_wireguard_key_has_upstreams_variable_and_default() {
    let file = |source: Imagined| source.config().wireguard_key_file;
    let default = std::path::Path::new("/run/flannel/wgkey");
    assert_eq!(file(line("")), default);
    assert_eq!(file(line("").env("WIREGUARD_KEY_FILE", "")), default);
    assert_eq!(file(line("").env("WIREGUARD_KEY_FILE", "/k")), std::path::Path::new("/k"));
}

#[test]
fn a_password_is_never_shown() {
    let config = line("--etcd-username=u").env("FLANNELD_ETCD_PASSWORD", "hunter2").config();
    assert!(
        config.flags.to_string().contains("etcdUsername:u etcdPassword:*** version:false"),
        "{}",
        config.flags
    );
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let Store::Etcd { options: etcd, .. } = config.store else { panic!() };
    assert_eq!(etcd.password.as_deref(), Some("hunter2"));
}

#[test]
fn a_flags_value_is_found_by_its_name_and_flags_of_glog_that_have_no_effect_are_listed() {
    let config = line("--subnet-file=/s --alsologtostderr --stderrthreshold=2").config();
    assert_eq!(["subnet-file", "absent"].map(|flag| config.flags.get(flag)), ["/s", ""]);
    assert_eq!(config.log.glog_flags, ["alsologtostderr", "stderrthreshold"]);
    assert_eq!(line("--logtostderr").config().log.glog_flags, ["logtostderr"]);
    assert_eq!(line("").config().log.glog_flags, [""; 0]);
}

#[test]
fn the_flags_are_dumped_as_upstream_dumps_them() {
    let dump =
        line("-iface=eth0 -ip-masq --etcd-endpoints=http://192.168.77.254:2379").config().flags.to_string();
    let upstream = "{etcdEndpoints:http://192.168.77.254:2379 etcdPrefix:/coreos.com/network etcdKeyfile: etcdCertfile: \
         etcdCAFile: etcdUsername: etcdPassword: version:false kubeSubnetMgr:false kubeApiUrl: \
         kubeAnnotationPrefix:flannel.alpha.coreos.com kubeConfigFile: iface:[eth0] ifaceRegex:[] ipMasq:true \
         ipMasqRandomFullyDisable:false ifaceCanReach: subnetFile:/run/flannel/subnet.env publicIP: publicIPv6: \
         subnetLeaseRenewMargin:60 healthzIP:0.0.0.0 healthzPort:0 iptablesResyncSeconds:5 iptablesForwardRules:true \
         blackholeRoute:false netConfPath:/etc/kube-flannel/net-conf.json setNodeNetworkUnavailable:true";
    assert!(dump.starts_with(upstream), "{dump}");
}

#[test]
fn flags_of_another_daemon_are_compared_by_value_wherever_they_come_from() {
    let read = |source: &Imagined| read_flags(source).unwrap();
    let here = read(&line("-ip-masq=true -iface eth0 -v=2 --log-format=json"));
    let there =
        read(&line("--iface=eth0").env("FLANNELD_IP_MASQ", "1").env("FLANNELD_ETCD_PASSWORD", "hunter2"));
    let differences: Vec<_> = here.differences(&there).collect();
    assert_eq!(differences, [("etcd-password", "", "***")]);
    let there = read(&line("--kube-subnet-mgr --net-config-path=/in/another/container"));
    let differences = here.differences(&there);
    let flags: Vec<_> = differences.map(|(flag, ..)| flag).collect();
    assert_eq!(flags, ["kube-subnet-mgr", "iface", "ip-masq", "net-config-path"]);

    let refused =
        read_flags(&line("--iptables-resync=0 stray").env("FLANNELD_HEALTHZ_PORT", "x")).unwrap_err();
    let text = refused.to_string();
    for named in ["--iptables-resync=0", "stray", "FLANNELD_HEALTHZ_PORT=x"] {
        assert!(text.contains(named), "{text}");
    }
}

proptest! {
    #[test]
    fn no_command_line_is_too_odd(args in proptest::collection::vec("(-{0,3}(iface|v|ip-masq|help|public-ip)?=?.{0,6})", 0..6)) {
        if let Err(problems) = Command::read(&Imagined::args(args)) {
            prop_assert!(!problems.0.is_empty());
        }
    }
}
