use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flannel_cni::SubnetEnv;
use flanneld::run::subnet_env::{self, SubnetFileError};

fn dual_stack() -> SubnetEnv {
    let (env, _) = SubnetEnv::parse(
        b"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.62.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
          FLANNEL_IPV6_SUBNET=fd00:10:244:5d::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
    );
    env
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_written_file_is_read_back_as_the_previous_subnet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/flannel/subnet.env");
    subnet_env::write(&path, &dual_stack()).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o755), (0o644, 0o755));
    assert_eq!(subnet_env::read(&path).unwrap(), dual_stack());

    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    subnet_env::write(&path, &dual_stack()).unwrap();
    assert_eq!(mode(&path), 0o600, "an existing file's mode is kept");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn lines_of_other_programs_stay_at_the_end_and_cost_no_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    let (ours, others) = (dual_stack().to_string(), "# mine\n\nDOCKER_OPTS=\" --bip=10.244.62.1/24\"\nMTU=9");
    std::fs::write(&path, format!("FLANNEL_MTU=9\n{others}")).unwrap();
    assert!(subnet_env::write(&path, &dual_stack()).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{ours}{others}\n"), "a line that ends");
    assert!(!subnet_env::write(&path, &dual_stack()).unwrap(), "it says this already");
    std::fs::write(&path, format!("# FLANNEL_MTU=9\n{ours}A=1\n")).unwrap();
    assert!(!subnet_env::write(&path, &dual_stack()).unwrap(), "wherever they are");
    let mut changed = dual_stack();
    changed.mtu = Some(1400);
    assert!(subnet_env::write(&path, &changed).unwrap());
    let damaged = ours.replace("FLANNEL_MTU", "FLANNEL_M");
    std::fs::write(&path, format!("{damaged}banana\n")).unwrap();
    assert!(subnet_env::write(&path, &dual_stack()).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), ours, "what nobody assigns goes");
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    let error = subnet_env::write(&file.join("subnet.env"), &dual_stack()).unwrap_err();
    assert!(
        error.to_string().contains("file/subnet.env") && error.to_string().contains("--subnet-file"),
        "{error}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");

    let error = subnet_env::write(directory.path(), &dual_stack()).unwrap_err();
    assert!(matches!(error, SubnetFileError::Write { .. }));
}

#[test]
fn an_absent_file_says_nothing_and_a_corrupt_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    assert_eq!(subnet_env::read(&path).unwrap(), SubnetEnv::default());
    std::fs::write(&path, "FLANNEL_SUBNET=banana\n").unwrap();
    let error = subnet_env::read(&path).unwrap_err();
    assert!(
        error.to_string().ends_with("FLANNEL_SUBNET=banana is not a network in CIDR notation"),
        "{error}"
    );
    std::fs::write(&path, "FLANNEL_SUBNET=10.1.2.1/24\nFLANNEL_MTU=many\n").unwrap();
    let env = subnet_env::read(&path).unwrap();
    assert_eq!((env.subnets().count(), env.mtu), (1, None), "an invalid MTU leaves the subnet");
    assert!(matches!(subnet_env::read(directory.path()).unwrap_err(), SubnetFileError::Read { .. }));
}
