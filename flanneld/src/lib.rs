//! Pod networking for Kubernetes nodes and plain hosts.

pub mod health;
