//! What needs neither a store nor privileges.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod allocate;
mod codec;
mod lease_table;
