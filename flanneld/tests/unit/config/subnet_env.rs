use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use flanneld::desired::subnet_env::{Previous, SubnetEnv, SubnetEnvError};
use proptest::prelude::*;

fn dual_stack() -> SubnetEnv {
    SubnetEnv {
        ipv4: Some(("10.244.0.0/16".parse().unwrap(), "10.244.62.0/24".parse().unwrap())),
        ipv6: Some(("fd00:10:244::/48".parse().unwrap(), "fd00:10:244:5d::/64".parse().unwrap())),
        mtu: 1450,
        ip_masq: true,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_file_is_upstreams_to_the_byte() {
    let upstream = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.62.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
                    FLANNEL_IPV6_SUBNET=fd00:10:244:5d::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(dual_stack().to_string(), upstream);
    let ipv4 = SubnetEnv { ipv6: None, ip_masq: false, ..dual_stack() };
    let upstream = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.62.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
    assert_eq!(ipv4.to_string(), upstream);
}

#[test]
fn a_written_file_is_read_back_as_the_previous_subnet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/flannel/subnet.env");
    dual_stack().write(&path).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o755), (0o644, 0o755));
    let previous = Previous::read(&path).unwrap();
    assert_eq!(previous.ipv4_network, Some("10.244.0.0/16".parse().unwrap()));
    assert_eq!(previous.ipv4_subnet, Some("10.244.62.0/24".parse().unwrap()));
    assert_eq!(previous.ipv6_network, Some("fd00:10:244::/48".parse().unwrap()));
    assert_eq!(previous.ipv6_subnet, Some("fd00:10:244:5d::/64".parse().unwrap()));

    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    dual_stack().write(&path).unwrap();
    assert_eq!(mode(&path), 0o600, "an existing file's mode is kept");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    let error = dual_stack().write(&file.join("subnet.env")).unwrap_err();
    assert!(
        error.to_string().contains("file/subnet.env") && error.to_string().contains("--subnet-file"),
        "{error}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");

    let error = dual_stack().write(directory.path()).unwrap_err();
    assert!(matches!(error, SubnetEnvError::Write { .. }));
}

#[test]
fn an_absent_file_says_nothing_and_a_corrupt_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    assert_eq!(Previous::read(&path).unwrap(), Previous::default());
    std::fs::write(&path, "FLANNEL_SUBNET=banana\n").unwrap();
    let error = Previous::read(&path).unwrap_err();
    assert!(
        error.to_string().ends_with("FLANNEL_SUBNET=banana is not a network in CIDR notation"),
        "{error}"
    );
    assert!(matches!(Previous::read(directory.path()).unwrap_err(), SubnetEnvError::Read { .. }));
}

#[test]
fn a_list_is_read_to_its_first_network_and_what_is_none_in_it_is_skipped() {
    let subnet = |value: &str| {
        let text = format!("FLANNEL_SUBNET={value}\nFLANNEL_IPV6_SUBNET=fd00:1::1/64,fd00:2::1/64\n");
        let previous = Previous::parse(text.as_bytes())?;
        assert_eq!(previous.ipv6_subnet, Some("fd00:1::/64".parse().unwrap()), "{value}");
        Ok(previous.ipv4_subnet.map(|subnet| subnet.to_string()))
    };
    for list in ["10.1.2.1/24", "10.1.2.1/24,10.1.3.1/24", "banana, 10.1.2.1/24 ,fd00::1/64", "10.1.2.1/24,"]
    {
        assert_eq!(subnet(list), Ok(Some("10.1.2.0/24".to_owned())), "{list}");
    }
    assert_eq!(subnet(""), Ok(None));
    assert_eq!(subnet("banana,1.2.3"), Err(("FLANNEL_SUBNET", "banana,1.2.3".to_owned())));
}

/// Ways in which a shell, or upstream's parser, reads the same four values.
const SPELLINGS: [&str; 4] = [
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n",
    "export FLANNEL_NETWORK=\"10.1.0.0/16\"\nexport FLANNEL_SUBNET=\"10.1.74.1/24\"\nexport FLANNEL_MTU=\"1472\"\nexport FLANNEL_IPMASQ=\"false\"\n",
    "FLANNEL_NETWORK='10.1.0.0/16'\r\nFLANNEL_SUBNET='10.1.74.1/24'\r\nFLANNEL_MTU='1472'\r\nFLANNEL_IPMASQ='false'\r\n",
    "# FLANNEL_SUBNET=10.9.9.1/24\nexport PATH\n  export\tFLANNEL_NETWORK=10.1.0.0/16 # all pods\n FLANNEL_SUBNET=\"10.1.74.1/24\" # ours\nFLANNEL_MTU=9\nFLANNEL_MTU=1472 # the last one counts\nFLANNEL_IPMASQ=false",
];

#[test]
fn exported_quoted_and_commented_lines_are_read_as_a_shell_reads_them() {
    for text in SPELLINGS {
        let previous = Previous::parse(text.as_bytes()).unwrap();
        let networks = (previous.ipv4_network, previous.ipv4_subnet);
        let wanted = (Some("10.1.0.0/16".parse().unwrap()), Some("10.1.74.0/24".parse().unwrap()));
        assert_eq!(networks, wanted, "{text}");
    }
}

#[test]
fn mk_docker_opts_writes_upstreams_five_outputs_however_subnet_env_is_spelt() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mk-docker-opts.sh");
    let directory = tempfile::tempdir().unwrap();
    let (env, out) = (directory.path().join("subnet.env"), directory.path().join("docker_opts.env"));
    let (bip, masq, mtu) = (
        "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n",
        "DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n",
        "DOCKER_OPT_MTU=\"--mtu=1472\"\n",
    );
    let all = "=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";
    for text in SPELLINGS {
        std::fs::write(&env, text).unwrap();
        for (flags, wanted) in [
            (vec![], format!("{bip}{masq}{mtu}DOCKER_OPTS{all}")),
            (vec!["-i"], format!("{bip}{masq}{mtu}")),
            (vec!["-c"], format!("DOCKER_OPTS{all}")),
            (vec!["-k", "CUSTOM_KEY"], format!("{bip}{masq}{mtu}CUSTOM_KEY{all}")),
            (vec!["-m"], format!("{bip}{mtu}DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n")),
        ] {
            let mut command = Command::new("sh");
            command.arg(&script).arg("-f").arg(&env).arg("-d").arg(&out).args(&flags);
            let done = command.env_remove("DOCKER_OPTS").env_remove("CUSTOM_KEY").output().unwrap();
            assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(std::fs::read_to_string(&out).unwrap(), wanted, "{flags:?} {text}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Previous::parse(&bytes);
    }

    #[test]
    fn no_line_is_too_odd(value in "[0-9./:a-f,\"]{0,20}") {
        let _ = Previous::parse(format!("FLANNEL_SUBNET={value}\nFLANNEL_IPV6_SUBNET={value}").as_bytes());
    }
}
