//! What each subcommand is asked.

use flanneld::config::{Command, Store};

use super::Imagined;

fn read(line: &str) -> Result<Command, String> {
    Command::read(&Imagined::line(line)).map_err(|problems| problems.to_string())
}

#[test]
fn each_subcommand_has_its_own_flags_and_those_of_the_daemon() {
    let Ok(Command::Doctor { config, problems, options }) = read("doctor -o json --preflight --iface=eth1")
    else {
        panic!("doctor")
    };
    assert_eq!((options.json, options.preflight, problems.len()), (true, true, 0));
    assert_eq!(config.selection.interfaces, ["eth1"]);
    let Ok(Command::Status(_, options)) = read("status --peers -o text") else { panic!("status") };
    assert_eq!((options.json, options.peers), (false, true));
    let Ok(Command::Status(_, options)) = read("status") else { panic!("status") };
    assert_eq!((options.json, options.peers), (false, false));
    assert!(read("status -o yaml").unwrap_err().contains("text or json is expected"));
    let Ok(Command::Cleanup(_, options)) = read("cleanup --dry-run") else { panic!("cleanup") };
    assert!(options.dry_run && !options.force);
    let Ok(Command::Manifest(options)) = read("manifest --backend=wireguard") else { panic!("manifest") };
    assert_eq!(options.backend, "wireguard");
    assert!(matches!(read("plan"), Ok(Command::Plan(_))));
    assert!(read("run").is_err(), "no subcommand");
    assert!(read("plan --version").unwrap_err().contains("--version is not a flag of flanneld plan"));
}

#[test]
fn only_a_plan_needs_a_network_configuration_that_can_be_used() {
    let broken =
        |line: &str| Command::read(&Imagined::line(&format!("{line} --kube-subnet-mgr")).net_conf("{}"));
    assert!(broken("plan").is_err());
    let Ok(Command::Doctor { problems, .. }) = broken("doctor") else { panic!("doctor") };
    assert!(!problems.is_empty());
    assert!(matches!(broken("status"), Ok(Command::Status(..))));
    assert!(broken("doctor --iptables-resync=0").is_err(), "a wrong flag");
}

#[test]
fn the_help_of_a_subcommand_shows_its_flags_and_only_what_it_uses_of_the_daemons() {
    let Ok(Command::Help(help)) = read("status --help") else { panic!("help") };
    for shown in ["--peers", "--subnet-file", "--help", "flanneld --help lists them"] {
        assert!(help.contains(shown), "{shown}: {help}");
    }
    assert!(!help.contains("--iface"), "{help}");
    let Ok(Command::Help(help)) = read("--help") else { panic!("help") };
    assert!(help.contains("--iface") && !help.contains("--peers"), "{help}");
}

#[test]
fn each_store_has_the_name_that_status_and_metrics_show() {
    let kind = |line: &str| Imagined::line(line).config().store.kind();
    assert_eq!(["", "--lease-db=/l", "--kube-subnet-mgr"].map(kind), ["etcd", "sqlite", "kubernetes"]);
    assert!(matches!(Imagined::line("").config().store, Store::Etcd { .. }));
}
