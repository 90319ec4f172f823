//! On the real kernel, each test in its own network namespace.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

#[path = "../common/mod.rs"]
mod common;
mod converge;
mod corpus;
mod faults;
mod foreign;
mod hooks;
mod iptables;
#[cfg(feature = "json")]
mod json;
mod no_gap;
mod preserve;
mod races;
mod unprivileged;
mod uses;
mod vocabulary;
