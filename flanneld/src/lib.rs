//! Pod networking for Kubernetes nodes and plain hosts.

pub mod event;
pub mod health;
pub mod lease;
