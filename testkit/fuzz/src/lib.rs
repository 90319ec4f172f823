//! Fuzz targets: every decoder of bytes that come from outside.
//!
//! `make fuzz` runs them. Each is a function of its crate that takes the bytes and panics if something is wrong.

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 17] = [
    ("netlink", flannel_netlink::fuzzing::netlink),
    ("nft_changes", flannel_nft::fuzzing::nft_changes),
    ("nft_ruleset", flannel_nft::fuzzing::nft_ruleset),
    ("rtnetlink", flannel_vxlan::fuzzing::rtnetlink),
    ("generic_netlink", flannel_vxlan::fuzzing::generic_netlink),
    ("lease", flannel_lease::fuzzing::lease),
    ("etcd", flannel_lease::fuzzing::etcd),
    ("kubernetes", flannel_lease::fuzzing::kubernetes),
    ("kubeconfig", flannel_lease::fuzzing::kubeconfig),
    ("proxy", flannel_lease::fuzzing::proxy),
    ("cni", flannel_cni::fuzzing::cni),
    ("cni_environment", flannel_cni::fuzzing::cni_environment),
    ("net_conf", flanneld::fuzzing::net_conf),
    ("subnet_env", flannel_cni::fuzzing::subnet_env),
    ("state_file", flanneld::fuzzing::state_file),
    ("status", flanneld::fuzzing::status),
    ("health", flanneld::fuzzing::health),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn no_input_that_once_failed_fails_again() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
        let mut inputs = 0;
        for (name, target) in TARGETS {
            let Ok(files) = fs::read_dir(folder.join(name)) else { continue };
            for file in files {
                let file = file.unwrap().path();
                eprintln!("{}", file.display());
                target(&fs::read(file).unwrap());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "nothing in {}", folder.display());
    }
}
