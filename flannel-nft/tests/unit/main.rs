//! Without a kernel: texts, bytes, and what is rejected before anything is sent.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

#[path = "../common/mod.rs"]
mod common;
mod display;
mod golden;
mod invalid;
#[cfg(feature = "json")]
mod json;
mod objects;
mod patch;
mod properties;
mod sets;
mod view;
