//! What the fuzz targets in testkit/fuzz call; no public API.
#![expect(clippy::panic, reason = "a panic is a finding")]

pub use crate::etcd::fuzzing::etcd;
pub use crate::kube::fuzzing::{kubeconfig, kubernetes, proxy};
use crate::{LeaseAttributes, LeaseKey, VxlanData};

/// Reads a lease: its key, and after a line feed its JSON. What is read is written as text that means the same.
pub fn lease(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (key, json) = bytes.split_at(end);
    if let Ok(key) = String::from_utf8_lossy(key).parse::<LeaseKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    let Ok(lease) = LeaseAttributes::from_json(json) else { return };
    let _vni_and_mac = lease.backend_data.as_ref().map(|data| data.decode::<VxlanData>());
    let written = lease.to_json().unwrap_or_else(|error| panic!("{error}"));
    // A lease may be longer than it was: text is escaped, and names are written out.
    match LeaseAttributes::from_json(written.as_bytes()) {
        Ok(again) => assert_eq!(again, lease),
        Err(error) => assert!(error.to_string().contains("is longer than"), "{error}: {written}"),
    }
}
