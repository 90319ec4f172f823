//! How a test sets up each store, and changes it behind the daemon's back.

pub(crate) mod certificates;
pub(crate) mod cuttable;
pub(crate) mod etcd;
pub(crate) mod fake_etcd;
pub(crate) mod kube;
pub(crate) mod sqlite;
pub(crate) mod tls_front;
