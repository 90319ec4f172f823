//! What the fuzz targets in testkit/fuzz call; no public API.

use crate::Request;
use crate::conf::NetConf;
use crate::subnet_env::SubnetEnv;

/// Reads a network configuration, and after a line feed a subnet.env, and makes the delegate's configuration.
pub fn cni(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (conf, env) = bytes.split_at(end);
    let (env, _invalid) = SubnetEnv::parse(env);
    match NetConf::parse(conf) {
        Ok(conf) => {
            let _bridge = conf.bridge();
            let _delegate = conf.delegate(&env);
        }
        Err(error) => drop(error.to_json(conf)),
    }
}

/// Reads a subnet.env. What flanneld would write in its place is accepted as written.
pub fn subnet_env(text: &[u8]) {
    let (env, _invalid) = SubnetEnv::parse(text);
    assert!(env.is_in(&env.with_foreign_lines(text)), "{env:?}");
}

/// Reads the runtime's environment variables, one a line.
pub fn cni_environment(bytes: &[u8]) {
    use std::os::unix::ffi::OsStringExt as _;
    let variables: Vec<(&[u8], &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((line.get(..at)?, line.get(at + 1..)?))
        })
        .collect();
    let _read_or_refused = Request::from_environment(|name| {
        let (_, value) = variables.iter().find(|(found, _)| *found == name.as_bytes())?;
        Some(std::ffi::OsString::from_vec(value.to_vec()))
    });
}
