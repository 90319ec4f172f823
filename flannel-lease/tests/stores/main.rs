//! Every store against the suite, and what each store has to get right beyond it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod etcd;
mod etcd_hostile;
mod etcd_members;
mod etcd_tls;
mod fake_etcd;
mod harness;
mod kube;
mod kube_apiserver;
mod kube_connect;
mod kube_families;
mod kube_policy;
mod kube_scale;
mod republish_backoff;
mod sqlite;

flannel_lease::lease_store_conformance!(etcd_conformance, crate::harness::etcd::EtcdLab);
flannel_lease::lease_store_conformance!(fake_etcd_conformance, crate::harness::fake_etcd::FakeLab);
flannel_lease::lease_store_conformance!(sqlite_conformance, crate::harness::sqlite::SqliteLab);
flannel_lease::lease_store_conformance!(
    kube_conformance,
    crate::harness::kube::KubeLab<testkit::FakeApi>,
    assigned
);
flannel_lease::lease_store_conformance!(
    kube_apiserver_conformance,
    crate::harness::kube::KubeLab<testkit::KubeApiserver>,
    assigned,
    { #[ignore = "needs a real kube-apiserver: make test-kube"] }
);
