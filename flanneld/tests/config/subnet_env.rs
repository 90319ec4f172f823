use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
fn a_list_of_networks_is_no_previous_network() {
    let text =
        b"# comment\nexport X\nFLANNEL_NETWORK=10.0.0.0/8,11.0.0.0/8\n FLANNEL_SUBNET=\"10.1.2.1/24\"\r\n";
    let previous = Previous::parse(text).unwrap();
    assert_eq!((previous.ipv4_network, previous.ipv4_subnet), (None, Some("10.1.2.0/24".parse().unwrap())));
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
